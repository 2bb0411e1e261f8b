//! Conditions on the value of one label.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::pattern::{Pattern, PatternError};

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchOp {
    fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A condition on one label. A missing label has the value `""`.
///
/// ```
/// use belfry_promql::{MatchOp, Matcher};
///
/// let matcher = Matcher::new("mode", MatchOp::NotRegex, "idle|iowait")?;
/// assert!(matcher.matches("user"));
/// assert!(!matcher.matches("idle"));
/// assert!(matcher.matches("idle2"));
/// # Ok::<(), belfry_promql::PatternError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Matcher {
    name: Arc<str>,
    op: MatchOp,
    value: Arc<str>,
    pattern: Option<Arc<Pattern>>,
}

impl Matcher {
    /// A condition; a regular expression (RE2 syntax, as in Prometheus) is compiled here, once.
    ///
    /// # Errors
    /// A regular expression that is malformed or too large.
    pub fn new(name: impl Into<Arc<str>>, op: MatchOp, value: impl Into<Arc<str>>) -> Result<Self, PatternError> {
        let value = value.into();
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(Pattern::new(&value)?)),
        };
        Ok(Self { name: name.into(), op, value, pattern })
    }

    /// That the label has one of these values: an equality, or a regular expression of literals that is not compiled.
    #[must_use]
    pub fn any_of(name: impl Into<Arc<str>>, values: &[&str]) -> Self {
        let name = name.into();
        if let [value] = values {
            return Self { name, op: MatchOp::Equal, value: (*value).into(), pattern: None };
        }
        let escaped: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
        let pattern = Pattern::Literals(values.iter().map(ToString::to_string).collect());
        Self { name, op: MatchOp::Regex, value: escaped.join("|").into(), pattern: Some(Arc::new(pattern)) }
    }

    /// The label the condition is about.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it compares with: a text or the source of a regular expression.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a value of the label satisfies the condition.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let matched = self.pattern.as_ref().map_or(*self.value == *value, |pattern| pattern.matches(value));
        matched == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }

    /// The only values that can satisfy the condition, where they are few and known: for a store, lookups in
    /// place of a scan. `None` says nothing.
    #[must_use]
    pub fn possible_values(&self) -> Option<Vec<&str>> {
        match (self.op, &self.pattern) {
            (MatchOp::Equal, _) => Some(vec![&self.value]),
            (MatchOp::Regex, Some(pattern)) => {
                pattern.literals().map(|literals| literals.iter().map(String::as_str).collect())
            }
            _ => None,
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl Hash for Matcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: MatchOp, value: &str, matching: &[&str], others: &[&str]) {
        let matcher = Matcher::new("l", op, value).expect("a valid matcher");
        for text in matching {
            assert!(matcher.matches(text), "{matcher} should match {text:?}");
        }
        for text in others {
            assert!(!matcher.matches(text), "{matcher} should not match {text:?}");
        }
    }

    #[test]
    fn each_operator_compares_the_whole_value() {
        check(MatchOp::Equal, "a", &["a"], &["", "aa"]);
        check(MatchOp::NotEqual, "a", &["", "aa"], &["a"]);
        check(MatchOp::Regex, "a.c", &["abc", "a\nc"], &["abcd", "xabc", ""]);
        check(MatchOp::NotRegex, "a.c", &["abcd", ""], &["abc"]);
    }

    #[test]
    fn known_values_are_offered_to_the_store() {
        let matcher = Matcher::new("l", MatchOp::Regex, "a|b(c|d)").expect("a valid matcher");
        assert_eq!(matcher.possible_values(), None);
        let matcher = Matcher::new("l", MatchOp::Regex, "a|b-1").expect("a valid matcher");
        assert_eq!(matcher.possible_values(), Some(vec!["a", "b-1"]));
        let matcher = Matcher::new("l", MatchOp::NotRegex, "a|b").expect("a valid matcher");
        assert_eq!(matcher.possible_values(), None);
    }
}

//! Label sets: what names a series.
//!
//! A set is sorted by name and shared, so that a clone costs one counter and a derived set copies no
//! text. An empty value is the same as no label, as everywhere in Prometheus.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use crate::hash::FastState;

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

#[derive(Debug, Clone)]
struct Label {
    name: Arc<str>,
    value: Arc<str>,
    /// Of name and value. Sets are compared and looked up far more often than they are made, and then their texts are not in any
    /// cache.
    hash: u64,
}

impl Label {
    fn new(name: Arc<str>, value: Arc<str>) -> Self {
        /// Seeded at random, so that nobody can choose labels which collide.
        static SEED: LazyLock<FastState> = LazyLock::new(FastState::default);
        let hash = SEED.hash_one((&*name, &*value));
        Self { name, value, hash }
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        self.hash == other.hash && same(&self.name, &other.name) && same(&self.value, &other.value)
    }
}

impl Eq for Label {}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.name, &self.value).cmp(&(&other.name, &other.value))
    }
}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A set of labels, sorted by name, including `__name__`.
///
/// ```
/// use belfry_promql::Labels;
///
/// let labels = Labels::from_pairs([("__name__", "up"), ("instance", "gpu-01")]);
/// assert_eq!(labels.get("instance"), Some("gpu-01"));
/// assert_eq!(labels.to_string(), r#"{__name__="up", instance="gpu-01"}"#);
/// assert_eq!(labels.selector().to_string(), r#"up{instance="gpu-01"}"#);
/// ```
#[derive(Clone)]
pub struct Labels {
    shared: Arc<[Label]>,
    /// The set begins here: one without its metric's name, which mostly stands first, is a view of the one with it.
    start: usize,
}

impl Labels {
    /// The set with no labels.
    #[must_use]
    pub fn empty() -> Self {
        Self::of([])
    }

    fn of(labels: impl Into<Arc<[Label]>>) -> Self {
        Self { shared: labels.into(), start: 0 }
    }

    fn labels(&self) -> &[Label] {
        self.shared.get(self.start..).unwrap_or_default()
    }

    /// A set of these pairs, in any order. Of two pairs with one name the later wins; empty values are dropped.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        let mut pairs: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            pairs = pairs.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        }
        pairs.retain(|(_, value)| !value.is_empty());
        Self::of(pairs.into_iter().map(|(name, value)| Label::new(name, value)).collect::<Arc<[Label]>>())
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|label| &*label.value)
    }

    /// The value of a label, or the empty string where the label is missing: what matchers compare with.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The metric's name, if the set has one.
    #[must_use]
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// Names and values in order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.labels().iter().map(|label| (&*label.name, &*label.value))
    }

    /// How many labels the set has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels().len()
    }

    /// Whether the set has no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels().is_empty()
    }

    /// This set with one label set to a value; an empty value removes the label.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        if self.value(name) == value {
            return self.clone();
        }
        let mut labels: Vec<Label> = self.filtered(|label| label != name).collect();
        if !value.is_empty() {
            let at = labels.partition_point(|label| *label.name < *name);
            labels.insert(at, Label::new(name.into(), value.into()));
        }
        Self::of(labels)
    }

    /// This set less the named labels.
    #[must_use]
    pub fn without<S: AsRef<str>>(&self, names: &[S]) -> Self {
        self.filter(|label| !names.iter().any(|name| name.as_ref() == label))
    }

    /// Only the named labels of this set.
    #[must_use]
    pub fn only<S: AsRef<str>>(&self, names: &[S]) -> Self {
        self.filter(|label| names.iter().any(|name| name.as_ref() == label))
    }

    /// This set less the metric's name.
    #[must_use]
    pub fn without_metric_name(&self) -> Self {
        if self.labels().first().is_some_and(|first| &*first.name == METRIC_NAME) {
            return Self { shared: Arc::clone(&self.shared), start: self.start + 1 };
        }
        self.filter(|label| label != METRIC_NAME)
    }

    /// Shows the set the way it is written in an expression: `up{instance="gpu-01"}`.
    #[must_use]
    pub fn selector(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| {
            let name = self.metric_name().unwrap_or_default();
            f.write_str(name)?;
            let rest = self.without_metric_name();
            if name.is_empty() || !rest.is_empty() { write!(f, "{rest}") } else { Ok(()) }
        })
    }

    fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        if self.labels().iter().all(|label| keep(&label.name)) {
            return self.clone();
        }
        Self::of(self.filtered(keep).collect::<Arc<[Label]>>())
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> impl Iterator<Item = Label> {
        self.labels().iter().filter(move |label| keep(&label.name)).cloned()
    }

    fn find(&self, name: &str) -> Option<&Label> {
        let at = self.labels().binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        self.labels().get(at)
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.shared, &other.shared) && self.start == other.start) || self.labels() == other.labels()
    }
}

impl Eq for Labels {}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.labels().cmp(other.labels())
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self::from_pairs(pairs)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            if is_plain_name(name) {
                write!(f, "{separator}{name}=\"{}\"", escaped(value))?;
            } else {
                write!(f, "{separator}\"{}\"=\"{}\"", escaped(name), escaped(value))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a label name needs no quotes in an expression.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first == '_' || first.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// Text as it stands between double quotes.
fn escaped(text: &str) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        text.chars().try_for_each(|c| match c {
            '"' => f.write_str("\\\""),
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            '\t' => f.write_str("\\t"),
            '\r' => f.write_str("\\r"),
            _ => write!(f, "{c}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_the_later_of_two_wins() {
        let labels = Labels::from_pairs([("b", "1"), ("a", "2"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.to_string(), r#"{a="2", b="3"}"#);
        assert_eq!(labels.len(), 2);
    }

    #[test]
    fn with_replaces_inserts_and_removes() {
        let labels = Labels::from_pairs([("b", "1")]);
        assert_eq!(labels.with("a", "x").to_string(), r#"{a="x", b="1"}"#);
        assert_eq!(labels.with("b", "2").to_string(), r#"{b="2"}"#);
        assert_eq!(labels.with("b", ""), Labels::empty());
    }

    #[test]
    fn without_and_only_are_complements() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(labels.without(&["b"]).to_string(), r#"{a="1", c="3"}"#);
        assert_eq!(labels.only(&["b", "zz"]).to_string(), r#"{b="2"}"#);
    }

    #[test]
    fn a_set_without_its_name_is_like_one_that_never_had_it() {
        for other in ["A", "a"] {
            let named = Labels::from_pairs([(METRIC_NAME, "up"), (other, "1")]);
            let (bare, never) = (named.without_metric_name(), Labels::from_pairs([(other, "1")]));
            assert_eq!(bare, never);
            assert_eq!(std::collections::HashSet::from([bare.clone(), never]).len(), 1);
            assert_eq!((bare.len(), bare.get(METRIC_NAME)), (1, None));
            assert_eq!(bare.with(METRIC_NAME, "up"), named);
            assert_eq!(bare.without_metric_name(), bare);
        }
    }

    #[test]
    fn odd_names_and_values_are_quoted() {
        let labels = Labels::from_pairs([("a.b", "x\"y\n")]);
        assert_eq!(labels.to_string(), r#"{"a.b"="x\"y\n"}"#);
        assert_eq!(labels.selector().to_string(), r#"{"a.b"="x\"y\n"}"#);
    }
}

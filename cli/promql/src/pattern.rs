//! Anchored regular expressions in RE2's syntax, with short cuts for what people write most.
//!
//! Prometheus compiles with Go's `regexp`; the `regex` crate differs from it in a few points, which
//! [`translate`] evens out: Perl classes are ASCII, brackets do not nest and know no set operations, `\Q…\E`
//! quotes, a brace that starts no repetition is a literal, and `.` matches a newline.

use regex::{Regex, RegexBuilder};

use crate::limits::REGEX_BYTES_MAX;

/// Why a regular expression was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PatternError {
    /// It is not a regular expression.
    #[error("malformed regular expression `{pattern}`")]
    Malformed {
        /// The expression as written.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: regex::Error,
    },
    /// It needs more memory than [`REGEX_BYTES_MAX`].
    #[error("regular expression of {length} bytes is too large when compiled")]
    TooLarge {
        /// Length of its source in bytes.
        length: usize,
    },
}

/// A compiled regular expression that matches whole texts.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// `.*`
    Anything,
    /// `.+`
    Something,
    /// A literal, or an alternation of literals.
    Literals(Vec<String>),
    /// A literal followed by `.*` or, if the flag is set, by `.+`.
    Prefix(String, bool),
    /// Everything else.
    Regex(Regex),
}

impl Pattern {
    pub(crate) fn new(source: &str) -> Result<Self, PatternError> {
        match shortcut(source) {
            Some(pattern) => Ok(pattern),
            None => compile(source).map(Self::Regex),
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Something => !text.is_empty(),
            Self::Literals(literals) => literals.iter().any(|literal| literal == text),
            Self::Prefix(prefix, more) => {
                text.strip_prefix(prefix.as_str()).is_some_and(|rest| !more || !rest.is_empty())
            }
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// The only texts that match, where they are listed.
    pub(crate) fn literals(&self) -> Option<&[String]> {
        match self {
            Self::Literals(literals) => Some(literals),
            _ => None,
        }
    }
}

/// Compiles an anchored expression, bounded in size. Public within the crate for those who need captures.
pub(crate) fn compile(source: &str) -> Result<Regex, PatternError> {
    let anchored = format!("^(?s:{})$", translate(source));
    RegexBuilder::new(&anchored).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build().map_err(
        |source_error| match source_error {
            regex::Error::CompiledTooBig(_) => PatternError::TooLarge { length: source.len() },
            other => PatternError::Malformed { pattern: source.to_owned(), source: other },
        },
    )
}

/// Recognises what needs no automaton.
fn shortcut(source: &str) -> Option<Pattern> {
    match source {
        ".*" => return Some(Pattern::Anything),
        ".+" => return Some(Pattern::Something),
        _ => {}
    }
    for (suffix, more) in [(".*", false), (".+", true)] {
        if let Some(prefix) = source.strip_suffix(suffix)
            && is_literal(prefix)
        {
            return Some(Pattern::Prefix(prefix.to_owned(), more));
        }
    }
    let inner = source.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(source);
    inner.split('|').all(is_literal).then(|| Pattern::Literals(inner.split('|').map(str::to_owned).collect()))
}

fn is_literal(text: &str) -> bool {
    !text.contains(['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'])
}

/// Rewrites RE2's syntax into the `regex` crate's. What it does not know it leaves alone.
fn translate(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 8);
    let mut rest = source;
    let mut class_chars: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let tail = rest.get(c.len_utf8()..).unwrap_or_default();
        let in_class = class_chars.is_some();
        rest = match c {
            '\\' => escape(tail, in_class, &mut out),
            '[' if in_class => posix_class(rest, &mut out),
            '[' => {
                class_chars = Some(0);
                open_class(tail, &mut out)
            }
            ']' if class_chars.is_some_and(|chars| chars > 0) => {
                class_chars = None;
                out.push(']');
                tail
            }
            ']' if in_class => {
                out.push_str("\\]");
                tail
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
                tail
            }
            '-' if in_class && tail.starts_with('-') => {
                out.push_str("\\-");
                tail
            }
            '{' if !in_class && !starts_repetition(tail) => {
                out.push_str("\\{");
                tail
            }
            _ => {
                out.push(c);
                tail
            }
        };
        let opened = c == '[' && !in_class;
        class_chars = class_chars.map(|chars| if opened { 0 } else { chars + 1 });
    }
    out
}

/// Writes `[` or `[^`; a `]` right behind it is a literal, which the caller sees by its count of characters.
fn open_class<'a>(tail: &'a str, out: &mut String) -> &'a str {
    out.push('[');
    match tail.strip_prefix('^') {
        Some(after) => {
            out.push('^');
            after
        }
        None => tail,
    }
}

/// Within a class: copies `[:alpha:]`, and takes any other `[` for the character.
fn posix_class<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let end = rest.starts_with("[:").then(|| rest.find(":]")).flatten().map(|at| at + 2);
    match end.and_then(|end| rest.split_at_checked(end)) {
        Some((class, after)) => {
            out.push_str(class);
            after
        }
        None => {
            out.push_str("\\[");
            rest.get(1..).unwrap_or_default()
        }
    }
}

/// Writes what stands behind a backslash.
fn escape<'a>(tail: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(c) = tail.chars().next() else {
        out.push('\\');
        return tail;
    };
    let after = tail.get(c.len_utf8()..).unwrap_or_default();
    let ascii_class = match c {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\x0C\\r ",
        _ => "",
    };
    match c {
        'd' | 'w' | 's' if in_class => out.push_str(ascii_class),
        'd' | 'w' | 's' => out.extend(["[", ascii_class, "]"]),
        'D' => out.push_str("[^0-9]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'S' => out.push_str("[^\\t\\n\\x0C\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'Q' => {
            let (quoted, after) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(quoted));
            return after;
        }
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    after
}

/// Whether what follows a `{` makes it a repetition: `n}`, `n,}` or `n,m}`.
fn starts_repetition(tail: &str) -> bool {
    let Some((inner, _)) = tail.split_once('}') else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inner.split_once(',') {
        Some((low, high)) => is_number(low) && (high.is_empty() || is_number(high)),
        None => is_number(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, matching: &[&str], others: &[&str]) {
        let pattern = Pattern::new(source).expect("a valid pattern");
        for text in matching {
            assert!(pattern.matches(text), "{source:?} should match {text:?}");
        }
        for text in others {
            assert!(!pattern.matches(text), "{source:?} should not match {text:?}");
        }
    }

    #[test]
    fn shortcuts_match_like_the_expressions_they_replace() {
        for source in [".*", ".+", "a|b", "(a|b)", "ab.*", "ab.+", "", "a|"] {
            let whole = compile(source).expect("a valid pattern");
            let pattern = Pattern::new(source).expect("a valid pattern");
            assert!(!matches!(pattern, Pattern::Regex(_)), "{source:?} has a short cut");
            for text in ["", "a", "b", "ab", "abc", "a\nb", "ab\nc", "(a", "x"] {
                assert_eq!(pattern.matches(text), whole.is_match(text), "{source:?} on {text:?}");
            }
        }
    }

    #[test]
    fn syntax_is_that_of_re2() {
        check(r"\d+", &["12"], &["٣"]);
        check(r"[\d.]+", &["1.2"], &["a"]);
        check(r"\w\W", &["a-"], &["é-"]);
        check("a{b}", &["a{b}"], &["a"]);
        check("a{2}", &["aa"], &["a{2}"]);
        check("[[]x", &["[x"], &["x"]);
        check("[]x]+", &["]x"], &["["]);
        check("[^]]", &["x"], &["]"]);
        check("[[:alpha:]]+", &["abc"], &["a1"]);
        check("[a&&b]+", &["a&b"], &["c"]);
        check(r"\Qa.b\E.", &["a.bc"], &["axbc"]);
        check("a.c", &["a\nc"], &[]);
    }

    #[test]
    fn oversized_and_malformed_expressions_are_refused() {
        assert!(matches!(Pattern::new(r"\pL{1000}{10}"), Err(PatternError::TooLarge { .. })));
        assert!(matches!(Pattern::new("a("), Err(PatternError::Malformed { .. })));
    }
}

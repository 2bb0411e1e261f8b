//! Where in an expression something stands.

use std::fmt;

/// A part of an expression, as byte offsets and as the line and column a person looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line of the first byte, counted from 1.
    pub line: usize,
    /// Column of the first byte within its line, in bytes, counted from 1.
    pub column: usize,
}

impl Span {
    /// The part of `expression` between two byte offsets, which are brought within it.
    #[must_use]
    pub fn of(expression: &str, start: usize, end: usize) -> Self {
        let end = end.min(expression.len());
        let start = start.min(end);
        let before = expression.as_bytes().get(..start).unwrap_or_default();
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Self { start, end, line, column: start - line_start + 1 }
    }
}

impl fmt::Display for Span {
    /// Line and column: `1:5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one() {
        assert_eq!(Span::of("up", 0, 2).to_string(), "1:1");
        assert_eq!(Span::of("a +\n  b", 6, 7).to_string(), "2:3");
        assert_eq!(Span::of("up", 9, 20), Span { start: 2, end: 2, line: 1, column: 3 });
    }
}

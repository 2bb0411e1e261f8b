//! Where in a file something stands, down to a character inside an expression.

use std::fmt;

use serde::Serialize;

/// A line and a column, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    /// The position of a byte offset.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    /// `|` or `>`
    Block,
}

/// A scalar's place in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// First byte of the scalar, its quote or block indicator included.
    pub(crate) start: usize,
    /// One past its last byte.
    pub(crate) end: usize,
    pub(crate) style: Style,
}

impl Place {
    /// The position in `file` of the byte `offset` of the scalar's value.
    ///
    /// Walks value and source side by side: white space stands for white space, however the style folds it.
    /// Where an escape makes the two differ in a way that is not followed, the scalar's own position is the answer.
    pub(crate) fn locate(&self, file: &str, value: &str, offset: usize) -> Position {
        let source = file.get(self.start..self.end).unwrap_or_default();
        let at = content_start(source, self.style)
            .and_then(|start| aligned(source, start, value, offset, self.style))
            .unwrap_or_default();
        Position::of(file, self.start + at)
    }
}

/// Where the content of a scalar begins within its source.
fn content_start(source: &str, style: Style) -> Option<usize> {
    match style {
        Style::Plain => Some(0),
        Style::SingleQuoted | Style::DoubleQuoted => Some(1),
        // The indicator may or may not be part of the span.
        Style::Block if source.starts_with(['|', '>']) => Some(source.find('\n')? + 1),
        Style::Block => Some(0),
    }
}

fn aligned(source: &str, start: usize, value: &str, offset: usize, style: Style) -> Option<usize> {
    let mut at = start;
    let mut chars = value.get(..offset)?.chars().peekable();
    at += blank(source, at);
    let mut led = true;
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            while chars.peek().is_some_and(|next| next.is_whitespace()) {
                chars.next();
            }
            if !led {
                at += blank(source, at);
            }
            continue;
        }
        led = false;
        at += written(source.get(at..)?, c, style)?;
    }
    // White space right before the place sought: the walk may have stopped in front of it.
    if value.get(offset..).is_some_and(|rest| !rest.starts_with(char::is_whitespace)) {
        at += blank(source, at);
    }
    Some(at)
}

/// How many bytes of the source stand for one character of the value.
fn written(source: &str, c: char, style: Style) -> Option<usize> {
    if style == Style::DoubleQuoted && matches!(c, '"' | '\\') {
        return source.strip_prefix('\\')?.starts_with(c).then_some(2);
    }
    if style == Style::SingleQuoted && c == '\'' {
        return source.starts_with("''").then_some(2);
    }
    source.starts_with(c).then(|| c.len_utf8())
}

fn blank(source: &str, at: usize) -> usize {
    let rest = source.get(at..).unwrap_or_default();
    rest.len() - rest.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, scalar: &str, style: Style, value: &str, sought: &str, expected: &str) {
        let start = file.find(scalar).expect("the scalar is in the file");
        let place = Place { start, end: start + scalar.len(), style };
        let offset = value.find(sought).expect("the place is in the value");
        assert_eq!(place.locate(file, value, offset).to_string(), expected);
    }

    #[test]
    fn offsets_are_found_in_every_style() {
        check("expr: a > b", "a > b", Style::Plain, "a > b", "b", "1:11");
        check(
            "expr: \"a{x=\\\"y\\\"} > b\"",
            "\"a{x=\\\"y\\\"} > b\"",
            Style::DoubleQuoted,
            "a{x=\"y\"} > b",
            "> b",
            "1:19",
        );
        check("expr: 'a{x=''y''} > b'", "'a{x=''y''} > b'", Style::SingleQuoted, "a{x='y'} > b", "> b", "1:19");
        check("expr: |\n    a\n      > b\n", "|\n    a\n      > b\n", Style::Block, "a\n  > b\n", "> b", "3:7");
        check("expr: >-\n    a\n    > b\n", ">-\n    a\n    > b\n", Style::Block, "a > b", "> b", "3:5");
        check("expr: a\n   > b", "a\n   > b", Style::Plain, "a > b", "> b", "2:4");
    }

    #[test]
    fn an_escape_that_is_not_followed_falls_back_to_the_scalar() {
        check("expr: \"\\u0061 > b\"", "\"\\u0061 > b\"", Style::DoubleQuoted, "a > b", "b", "1:7");
    }
}

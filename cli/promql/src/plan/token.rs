//! Splits an expression into the few kinds of token that the scan tells apart.

use super::PlanError;
use crate::{MatchOp, Span};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// A name or keyword.
    Word,
    /// A number or duration, `Inf` and `NaN` included.
    Number,
    String,
    /// `(`
    Open,
    /// `)`
    Close,
    /// Everything from `{` to `}`, with the operators of its matchers; a quoted metric name counts as `=`.
    Braces(Vec<MatchOp>),
    /// Everything from `[` to `]`.
    Brackets,
    Comma,
    /// An operator in symbols, `@` included.
    Operator,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn text<'a>(&self, expression: &'a str) -> &'a str {
        expression.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn span(&self, expression: &str) -> Span {
        Span::of(expression, self.start, self.end)
    }

    /// Whether this is an operator on values, in symbols or as a word.
    pub(super) fn is_operator(&self, expression: &str) -> bool {
        let text = self.text(expression);
        match self.kind {
            TokenKind::Operator => text != "@",
            TokenKind::Word => ["and", "or", "unless", "atan2"].iter().any(|word| word.eq_ignore_ascii_case(text)),
            _ => false,
        }
    }

    /// Whether an operator behind this token takes it as its left operand.
    pub(super) fn ends_operand(&self, expression: &str) -> bool {
        match &self.kind {
            TokenKind::Open | TokenKind::Comma | TokenKind::Operator => false,
            TokenKind::Word => !matches!(
                self.text(expression).to_ascii_lowercase().as_str(),
                "and" | "or" | "unless" | "atan2" | "bool" | "offset" | "group_left" | "group_right"
            ),
            _ => true,
        }
    }
}

/// All tokens of an expression, comments and white space left out.
pub(super) fn tokens(expression: &str) -> Result<Vec<Token>, PlanError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = rest(expression, at).chars().next() {
        let (kind, end) = match c {
            _ if c.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            '#' => {
                at = run(expression, at, |c| c != '\n' && c != '\r');
                continue;
            }
            '"' | '\'' | '`' => (TokenKind::String, string_end(expression, at)?),
            '(' => (TokenKind::Open, at + 1),
            ')' => (TokenKind::Close, at + 1),
            '{' => braces(expression, at)?,
            '[' => (TokenKind::Brackets, find(expression, at, ']', "bracket")?),
            ',' => (TokenKind::Comma, at + 1),
            '0'..='9' | '.' => (TokenKind::Number, number_end(expression, at)),
            _ if is_word(c) => {
                let end = run(expression, at, |c| is_word(c) || c.is_ascii_digit());
                (word_kind(rest(expression, at).get(..end - at).unwrap_or_default()), end)
            }
            _ => (TokenKind::Operator, operator_end(expression, at, c)),
        };
        tokens.push(Token { kind, start: at, end });
        at = end;
    }
    Ok(tokens)
}

fn word_kind(word: &str) -> TokenKind {
    if word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan") {
        TokenKind::Number
    } else {
        TokenKind::Word
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c == ':' || c.is_ascii_alphabetic()
}

pub(super) fn rest(expression: &str, at: usize) -> &str {
    expression.get(at..).unwrap_or_default()
}

pub(super) fn run(expression: &str, from: usize, accept: impl Fn(char) -> bool) -> usize {
    let tail = rest(expression, from);
    from + tail.find(|c| !accept(c)).unwrap_or(tail.len())
}

/// A number or duration: digits, letters and points, and a sign behind the `e` of a decimal exponent.
fn number_end(expression: &str, from: usize) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let end = run(expression, from, is_part);
    let text = rest(expression, from).get(..end - from).unwrap_or_default();
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    if !hexadecimal && text.ends_with(['e', 'E']) && rest(expression, end).starts_with(['+', '-']) {
        return run(expression, end + 1, is_part);
    }
    end
}

fn operator_end(expression: &str, at: usize, c: char) -> usize {
    let two = ["==", "!=", "<=", ">="].iter().any(|operator| rest(expression, at).starts_with(operator));
    at + if two { 2 } else { c.len_utf8() }
}

/// The end of a quoted text.
pub(super) fn string_end(expression: &str, from: usize) -> Result<usize, PlanError> {
    let mut chars = rest(expression, from).char_indices();
    let quote = chars.next().map_or('"', |(_, quote)| quote);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok(from + at + 1);
        }
        if c == '\\' && quote != '`' {
            chars.next();
            check_escape(expression, from + at)?;
        }
    }
    Err(PlanError::Unclosed { what: "quote", span: Span::of(expression, from, from + 1) })
}

/// Refuses escapes of single bytes beyond ASCII: texts are UTF-8 here, and the parser would take such a byte for a
/// character.
fn check_escape(expression: &str, backslash: usize) -> Result<(), PlanError> {
    let escape = rest(expression, backslash).as_bytes();
    let length = match escape {
        [_, b'x', high, ..] if high.to_ascii_lowercase() > b'7' => 4,
        [_, b'2' | b'3', ..] => 4,
        _ => return Ok(()),
    };
    Err(PlanError::Escape { span: Span::of(expression, backslash, backslash + length) })
}

/// The end of a run that a character closes, quoted texts skipped.
fn find(expression: &str, from: usize, close: char, what: &'static str) -> Result<usize, PlanError> {
    let mut at = from;
    while let Some(c) = rest(expression, at).chars().next() {
        if c == close {
            return Ok(at + c.len_utf8());
        }
        at = match c {
            '"' | '\'' | '`' => string_end(expression, at)?,
            '#' => run(expression, at, |c| c != '\n' && c != '\r'),
            _ => at + c.len_utf8(),
        };
    }
    Err(PlanError::Unclosed { what, span: Span::of(expression, from, from + 1) })
}

/// A pair of braces and the operators of its matchers.
fn braces(expression: &str, from: usize) -> Result<(TokenKind, usize), PlanError> {
    let end = find(expression, from, '}', "brace")?;
    let mut ops = Vec::new();
    let mut at = from + 1;
    let mut quoted_alone = false;
    while at + 1 < end {
        let here = rest(expression, at);
        let op = match here.as_bytes() {
            [b'=', b'~', ..] => Some((MatchOp::Regex, 2)),
            [b'!', b'~', ..] => Some((MatchOp::NotRegex, 2)),
            [b'!', b'=', ..] => Some((MatchOp::NotEqual, 2)),
            [b'=', ..] => Some((MatchOp::Equal, 1)),
            _ => None,
        };
        let c = here.chars().next().unwrap_or_default();
        if let Some((op, length)) = op {
            ops.push(op);
            at = string_end_behind(expression, at + length, end);
            quoted_alone = false;
            continue;
        }
        match c {
            '"' | '\'' | '`' => {
                quoted_alone = true;
                at = string_end(expression, at)?;
            }
            '#' => at = run(expression, at, |c| c != '\n' && c != '\r'),
            ',' => {
                ops.extend(quoted_alone.then_some(MatchOp::Equal));
                quoted_alone = false;
                at += 1;
            }
            _ => at += c.len_utf8().max(1),
        }
    }
    ops.extend(quoted_alone.then_some(MatchOp::Equal));
    Ok((TokenKind::Braces(ops), end))
}

/// Skips the value behind an operator, if there is one.
fn string_end_behind(expression: &str, from: usize, end: usize) -> usize {
    let at = run(expression, from, |c| c.is_ascii_whitespace());
    if rest(expression, at).starts_with(['"', '\'', '`']) { string_end(expression, at).unwrap_or(end) } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: &[(&str, TokenKind)]) {
        let tokens = tokens(expression).expect("well-formed tokens");
        let seen: Vec<_> = tokens.iter().map(|token| (token.text(expression), token.kind.clone())).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn selectors_and_their_matchers() {
        use TokenKind::{Braces, Brackets, Number, Operator, Word};
        check(
            r#"a:b{x=~"}", "y" != 'z',} [5m] - 1e-3 # done"#,
            &[
                ("a:b", Word),
                (r#"{x=~"}", "y" != 'z',}"#, Braces(vec![MatchOp::Regex, MatchOp::NotEqual])),
                ("[5m]", Brackets),
                ("-", Operator),
                ("1e-3", Number),
            ],
        );
        check(r#"{"a.b", x="1"}"#, &[(r#"{"a.b", x="1"}"#, Braces(vec![MatchOp::Equal, MatchOp::Equal]))]);
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        for expression in ["\"abc", "a{b=\"x\"", "a[5m", "a{b=\"x}"] {
            assert!(matches!(tokens(expression), Err(PlanError::Unclosed { .. })), "{expression}");
        }
    }
}

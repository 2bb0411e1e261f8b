//! The text that the parser gets to see in place of the expression.
//!
//! `=~` and `!~` become operators that compare text, so that the parser compiles no regular expressions. Backslashes
//! between back quotes, which it would take for escapes although such texts are raw, become a stand-in, which
//! [`restored`] turns back.

use super::token::{Token, TokenKind, rest, run, string_end};

/// Stands for a backslash between back quotes: of no meaning to the parser, and meant for private use.
const STAND_IN: char = '\u{e000}';

/// The expression as the parser may see it.
///
/// The parser refuses a selector of which every matcher matches the empty text. What it sees instead must not
/// make it refuse more than the real matchers would: that check is made again on those.
pub(super) fn disguised(expression: &str, tokens: &[Token]) -> String {
    let mut text = String::with_capacity(expression.len());
    let mut copied = 0;
    for token in tokens {
        if !matches!(token.kind, TokenKind::Braces(_) | TokenKind::String) {
            continue;
        }
        text.push_str(expression.get(copied..token.start).unwrap_or_default());
        copied = token.end;
        let mut at = token.start;
        while at < token.end {
            let (piece, end) = piece(expression, at, token.end);
            text.push_str(&piece);
            at = end;
        }
    }
    text.push_str(rest(expression, copied));
    text
}

/// What an expression's text was before it was disguised.
pub(super) fn restored(text: &str) -> String {
    text.replace(STAND_IN, "\\")
}

/// The next piece of a text or of what stands in braces, and where it ends.
fn piece(expression: &str, at: usize, end: usize) -> (String, usize) {
    let here = rest(expression, at);
    let until = |end: usize| expression.get(at..end).unwrap_or_default();
    if here.starts_with(['"', '\'', '`']) {
        let end = string_end(expression, at).unwrap_or(end);
        let quoted = until(end);
        let raw = quoted.starts_with('`');
        return (if raw { quoted.replace('\\', STAND_IN.encode_utf8(&mut [0; 4])) } else { quoted.to_owned() }, end);
    }
    if here.starts_with('#') {
        let end = run(expression, at, |c| c != '\n' && c != '\r');
        return (until(end).to_owned(), end);
    }
    if here.starts_with("=~") || here.starts_with("!~") {
        let value = here.get(2..).unwrap_or_default().trim_start();
        let empty = ["\"\"", "''", "``"].iter().any(|quotes| value.starts_with(quotes));
        let operator = if here.starts_with('!') && empty { "!=" } else { "= " };
        return (operator.to_owned(), at + 2);
    }
    let end = at + here.chars().next().map_or(1, char::len_utf8);
    (until(end).to_owned(), end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::token::tokens;

    #[test]
    fn what_the_parser_sees() {
        for (expression, seen) in [
            (r#"a{b=~"x", c!~"y"} + 1"#, r#"a{b= "x", c= "y"} + 1"#),
            (r#"a{b!~""}"#, r#"a{b!=""}"#),
            (r#"a{b="=~"} + c"#, r#"a{b="=~"} + c"#),
            (r"a{b=~`\d`}", "a{b= `\u{e000}d`}"),
            (r"f(`\w`, '\n')", "f(`\u{e000}w`, '\\n')"),
            ("a{ # it's =~\n b=~\"x\"}", "a{ # it's =~\n b= \"x\"}"),
        ] {
            let tokens = tokens(expression).expect("well-formed tokens");
            assert_eq!(disguised(expression, &tokens), seen);
        }
    }
}

//! An expression written with care: one way to write each thing, and long ones over several lines.

use promql_parser::parser;

use super::Plan;
use super::token::{TokenKind, rest, string_end, tokens};

/// The expression of a plan as the parser lays it out; as it was written if it has no layout for it.
#[must_use]
pub fn prettified(plan: &Plan) -> String {
    let expression = plan.expression();
    let laid_out = parser::parse(&without_raw_texts(expression)).map(|tree| tree.prettify());
    match laid_out {
        Ok(text) if Plan::parse_with(&text, plan.options).is_ok() => text,
        _ => expression.trim().to_owned(),
    }
}

/// Texts between back quotes, which the parser takes for others than they are, become texts between double quotes.
fn without_raw_texts(expression: &str) -> String {
    let mut text = String::with_capacity(expression.len());
    let mut at = 0;
    let Ok(tokens) = tokens(expression) else { return expression.to_owned() };
    let is_quoted = |at: usize| {
        let kind = tokens.iter().find(|token| token.start <= at && at < token.end).map(|token| &token.kind);
        matches!(kind, Some(TokenKind::Braces(_) | TokenKind::String))
    };
    while let Some(c) = rest(expression, at).chars().next() {
        let end = match c {
            '"' | '\'' | '`' if is_quoted(at) => string_end(expression, at).unwrap_or(expression.len()),
            c => at + c.len_utf8(),
        };
        let piece = expression.get(at..end).unwrap_or_default();
        match piece.strip_prefix('`').and_then(|piece| piece.strip_suffix('`')) {
            Some(raw) if c == '`' => text.push_str(&format!("{raw:?}")),
            _ => text.push_str(piece),
        }
        at = end;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: &str) {
        let plan = Plan::parse(expression).expect("a valid expression");
        assert_eq!(prettified(&plan), expected);
    }

    #[test]
    fn expressions_are_laid_out() {
        check("sum by(a)(rate(x[5m]))>1", "sum by (a) (rate(x[5m])) > 1");
        check(r"a{b=~`\d+`}", r#"a{b=~"\\d+"}"#);
        check(r#"label_replace(a,'x',"$1","y",'("q")')"#, r#"label_replace(a, "x", "$1", "y", "(\"q\")")"#);
    }
}

//! Where the parser stumbled: it says what is wrong, and not where.
//!
//! It is asked about beginnings of the expression. What is malformed is the token with which no beginning can be completed any more;
//! for whatever else it says, it is the token with which it says so first.

use super::disguise::disguised;
use super::token::{Token, TokenKind};
use super::{PlanError, token};
use crate::Span;

/// What the parser says of any text that its grammar does not take.
const MALFORMED: &str = "invalid promql query";

/// The parser is asked again for each token: longer expressions get no position.
const TOKENS_MAX: usize = 256;

/// Characters of a token in a message.
const NAMED_CHARACTERS_MAX: usize = 64;

/// What completes a beginning, wherever it ends. Parentheses that are open then are closed.
const COMPLETIONS: [&str; 14] =
    ["", " x", " 1", " 5m", "(x)", "(x) x", "(x) (x)", "x) x", "x) (x)", ") x", ") (x)", "()", "(1) x", "1) x"];

/// The same within braces, which are closed then.
const COMPLETIONS_OF_BRACES: [&str; 4] = ["", "=\"\"", "\"\"", "x=\"\""];

/// The error for what the parser says of an expression.
pub(super) fn located(expression: &str, message: String) -> PlanError {
    let whole = Span::of(expression, 0, expression.len());
    let tokens = &*token::tokens(expression).unwrap_or_default();
    if tokens.is_empty() || tokens.len() > TOKENS_MAX {
        return PlanError::Syntax { message, span: whole };
    }
    if message != MALFORMED {
        let span = first_that_says(expression, tokens, &message).map_or(whole, |token| token.span(expression));
        return PlanError::Syntax { message, span };
    }
    match first_unexpected(expression, tokens) {
        Some(token) => {
            let message = format!("unexpected {}", named(&token, expression));
            PlanError::Syntax { message, span: token.span(expression) }
        }
        None => {
            let span = Span::of(expression, expression.len(), expression.len());
            PlanError::Syntax { message: "unexpected end of expression".to_owned(), span }
        }
    }
}

/// The first token with which no beginning can be completed any more.
fn first_unexpected(expression: &str, tokens: &[Token]) -> Option<Token> {
    let counts: Vec<usize> = (1..=tokens.len()).collect();
    let unexpected = tokens.get(counts.partition_point(|&count| {
        let beginning = beginning(expression, tokens, count);
        let mut completed = COMPLETIONS.iter().filter_map(|completion| closed(format!("{beginning}{completion}")));
        completed.any(|completed| said_of(&completed) != MALFORMED)
    }))?;
    let is_unexpected = |inner: &Token| {
        let begun = begun(expression, unexpected, inner);
        COMPLETIONS_OF_BRACES.iter().all(|completion| said_of(&format!("{begun}{completion}}}")) == MALFORMED)
    };
    let inner = inner(expression, unexpected).into_iter().find(is_unexpected);
    Some(inner.unwrap_or_else(|| unexpected.clone()))
}

/// The token with which the parser begins to say this. What is not complete says nothing; where it was right yet, the mistake is behind.
fn first_that_says(expression: &str, tokens: &[Token], message: &str) -> Option<Token> {
    let said = |count| {
        let beginning = beginning(expression, tokens, count);
        said_of(&closed(beginning.clone()).unwrap_or(beginning))
    };
    let all = (1..=tokens.len()).rev().map(|count| (count, said(count)));
    let same = all.take_while(|(_, said)| said == message || said == MALFORMED);
    let first = same.filter(|(_, said)| said == message).last().and_then(|(count, _)| tokens.get(count - 1))?;
    let says_so = |inner: &Token| said_of(&format!("{}}}", begun(expression, first, inner))) == message;
    let inner = inner(expression, first).into_iter().find(says_so);
    Some(inner.unwrap_or_else(|| first.clone()))
}

/// What the parser gets to see of the first tokens.
fn beginning(expression: &str, tokens: &[Token], count: usize) -> String {
    let tokens = tokens.get(..count).unwrap_or(tokens);
    let end = tokens.last().map_or(0, |token| token.end);
    disguised(expression.get(..end).unwrap_or(expression), tokens)
}

/// What the parser gets to see of braces that end with a token within.
fn begun(expression: &str, braces: &Token, last: &Token) -> String {
    let begun = Token { end: last.end, ..braces.clone() };
    let text = disguised(expression.get(..last.end).unwrap_or(expression), &[begun]);
    text.get(braces.start..).unwrap_or_default().to_owned()
}

/// The tokens within braces; none of another token.
fn inner(expression: &str, braces: &Token) -> Vec<Token> {
    let (TokenKind::Braces(_), start) = (&braces.kind, braces.start + 1) else { return Vec::new() };
    let inner = expression.get(start..braces.end.saturating_sub(1)).unwrap_or_default();
    let tokens = token::tokens(inner).unwrap_or_default().into_iter().take(TOKENS_MAX);
    tokens.map(|token| Token { start: start + token.start, end: start + token.end, ..token }).collect()
}

/// A token for a message, briefly.
fn named(token: &Token, expression: &str) -> String {
    let text = token.text(expression);
    let brief: String = match token.kind {
        TokenKind::String => return "string".to_owned(),
        TokenKind::Braces(_) | TokenKind::Brackets => text.chars().take(1).collect(),
        _ => text.chars().take(NAMED_CHARACTERS_MAX).collect(),
    };
    format!("`{brief}`")
}

/// What the parser says of a text; nothing if it takes it.
fn said_of(text: &str) -> String {
    promql_parser::parser::parse(text).err().unwrap_or_default()
}

/// The text with its parentheses closed; nothing if too many are.
fn closed(mut text: String) -> Option<String> {
    let tokens = token::tokens(&text).ok()?;
    let count = |kind: &TokenKind| tokens.iter().filter(|token| token.kind == *kind).count();
    let open = count(&TokenKind::Open).checked_sub(count(&TokenKind::Close))?;
    text.push_str(&")".repeat(open));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plan;

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (expression, expected) in [
            ("a b", "unexpected `b` at 1:3"),
            ("1 +", "unexpected end of expression at 1:4"),
            ("sum(a) by", "unexpected end of expression at 1:10"),
            ("a +\n  * b", "unexpected `*` at 2:3"),
            ("a == bool", "unexpected end of expression at 1:10"),
            ("sum without by (x) (a)", "unexpected `by` at 1:13"),
            ("rate(a[5m]) \"x\"", "unexpected string at 1:13"),
            ("a{} {b=\"c\"}", "unexpected `{` at 1:5"),
            ("sum by (a) b)", "unexpected right parenthesis ')' at 1:13"),
            ("rate(a[5m]) + rate(b)", "expected type matrix in call to function 'rate', got vector at 1:20"),
            ("a{b=c}", "unexpected identifier 'c' in label matching, expected string at 1:5"),
            ("a{b!=\"c\" d=\"e\"}", "unexpected `d` at 1:10"),
            ("sum(a{b=~`\\w`, c})", "invalid label matcher, expected label matching operator after 'c' at 1:16"),
            ("sum(a{x=\"1\", b!c})", "unexpected character after '!' inside braces: 'c' at 1:16"),
            ("a offset 5m offset 1m", "offset may not be set multiple times at 1:20"),
            ("a + $x", "unexpected character: '$' at 1:5"),
            ("a[0s]", "duration must be greater than 0 at 1:2"),
            ("# nothing", "no expression found in input at 1:1"),
        ] {
            let error = Plan::parse(expression).expect_err(expression);
            assert_eq!(error.to_string(), expected, "{expression}");
        }
    }

    #[test]
    fn whatever_is_well_formed_can_be_completed_from_each_of_its_beginnings() {
        for expression in [
            "a{b=\"c\"} * on (d, e) group_left (f) -sum by (g, h) (rate(i[5m] offset -1m)) ^ 2",
            "sum(a) without (b, c) / ignoring (d) group_right () (e @ start() offset 1h)",
            "topk by (a) (3, b @ end()) > bool 1 or (c[1h:5m] @ 1.5) unless on () d",
            "label_replace(a, \"b\", \"$1\", `c`, '(.*)') and on (d) e atan2 Inf",
            "a + on (b) fill (0) c - ignoring (d) group_left fill_left (1) fill_right (NaN) e",
            "max_over_time(sum(rate(a[1m])) by (b)[1h:] offset 1w) == time()",
            "histogram_quantile(0.9, sum by (le) ({\"a.b\", c!~\"d\"})) % -+1e3",
            "quantile(0.5, by) + sum + offset + start",
        ] {
            let tokens = token::tokens(expression).expect("well-formed tokens");
            for count in 1..=tokens.len() {
                let end = tokens[count - 1].end;
                let message = said_of(&disguised(&expression[..end], &tokens[..count]));
                if message == MALFORMED {
                    let error = located(&expression[..end], message);
                    assert!(
                        error.to_string().starts_with("unexpected end of expression"),
                        "{}: {error}",
                        &expression[..end]
                    );
                }
            }
        }
    }
}

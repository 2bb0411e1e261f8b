//! A look at an expression before the parser sees it.
//!
//! `promql-parser` gives no positions, recurses as deep as the expression, compiles regular expressions without a
//! bound and panics on odd durations. This scan bounds depth and length, checks durations, notes where each
//! part of the expression stands, and hands the parser a disguised text without regular expressions, which are
//! compiled once, by us. It accepts more than the language; the parser decides.

use super::PlanError;
use super::token::{self, Token, TokenKind};
use super::{disguise, duration};
use crate::limits::{EXPRESSION_BYTES_MAX, NESTING_DEPTH_MAX, OPERATORS_MAX, REGEXES_MAX};
use crate::{MatchOp, Span, functions};

/// What the scan found, each list in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The text for the parser.
    pub(super) text: String,
    pub(super) calls: Vec<Span>,
    pub(super) aggregations: Vec<Span>,
    pub(super) selectors: Vec<Span>,
    pub(super) numbers: Vec<Span>,
    pub(super) strings: Vec<Span>,
    pub(super) parentheses: Vec<Span>,
    /// The operators of each pair of braces that has any.
    pub(super) matchers: Vec<Vec<MatchOp>>,
}

/// Scans an expression.
pub(super) fn scan(expression: &str) -> Result<Scan, PlanError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(PlanError::TooLong { length: expression.len() });
    }
    let tokens = token::tokens(expression)?;
    bound(expression, &tokens)?;
    let mut scanner =
        Scanner { expression, tokens: &tokens, at: 0, found: Scan { text: expression.to_owned(), ..Scan::default() } };
    scanner.run()?;
    let mut found = scanner.found;
    found.text = disguise::disguised(expression, &tokens);
    if found.matchers.iter().flatten().filter(|op| matches!(op, MatchOp::Regex | MatchOp::NotRegex)).count()
        > REGEXES_MAX
    {
        return Err(PlanError::TooManyRegexes);
    }
    Ok(found)
}

/// Bounds the depth of the tree that the parser will build, and refuses what is not closed.
///
/// Brackets, unary operators and `^` nest to the right; every other operator makes a chain, which the
/// evaluator walks without recursion.
fn bound(expression: &str, tokens: &[Token]) -> Result<(), PlanError> {
    let mut levels = vec![0_usize];
    let mut open = Vec::new();
    let mut operators = 0;
    let mut operand_before = false;
    for token in tokens {
        let run = levels.last_mut();
        match token.kind {
            TokenKind::Open => {
                levels.push(0);
                open.push(token);
            }
            TokenKind::Close => {
                levels.pop();
                open.pop();
            }
            TokenKind::Operator | TokenKind::Word if token.is_operator(expression) => {
                operators += 1;
                let nests = !operand_before || token.text(expression) == "^";
                if let Some(run) = run {
                    *run = if nests { *run + 1 } else { 0 };
                }
            }
            TokenKind::Comma => {
                if let Some(run) = run {
                    *run = 0;
                }
            }
            _ => {}
        }
        operand_before = token.ends_operand(expression);
        if levels.len() + levels.iter().sum::<usize>() > NESTING_DEPTH_MAX {
            return Err(PlanError::TooDeep { span: token.span(expression) });
        }
        if operators > OPERATORS_MAX {
            return Err(PlanError::TooManyOperators { span: token.span(expression) });
        }
    }
    match open.last() {
        Some(token) => Err(PlanError::Unclosed { what: "parenthesis", span: token.span(expression) }),
        None => Ok(()),
    }
}

struct Scanner<'a> {
    expression: &'a str,
    tokens: &'a [Token],
    at: usize,
    found: Scan,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) -> Result<(), PlanError> {
        while let Some(token) = self.peek(0) {
            let span = token.span(self.expression);
            match &token.kind {
                TokenKind::Word => self.word(token)?,
                TokenKind::Number => self.found.numbers.push(span),
                TokenKind::String => self.found.strings.push(span),
                TokenKind::Open => {
                    let span = self.until_closed(self.at);
                    self.found.parentheses.push(span);
                }
                TokenKind::Braces(ops) => {
                    self.found.selectors.push(span);
                    self.matchers(ops.clone());
                }
                TokenKind::Brackets => duration::check_brackets(self.expression, span)?,
                TokenKind::Operator if token.text(self.expression) == "@" => self.skip_timestamp(),
                TokenKind::Operator | TokenKind::Close | TokenKind::Comma => {}
            }
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, token: &Token) -> Result<(), PlanError> {
        let expression = self.expression;
        let span = token.span(expression);
        let text = token.text(expression);
        let word = text.to_ascii_lowercase();
        let opens = self.next_is(&TokenKind::Open);
        match word.as_str() {
            "and" | "or" | "unless" | "atan2" | "bool" => {}
            "by" | "without" if opens => {
                self.skip_parentheses();
                self.at += usize::from(self.next_is(&TokenKind::Open));
            }
            "on" | "ignoring" | "group_left" | "group_right" if opens => self.skip_parentheses(),
            "group_left" | "group_right" => {}
            "fill" | "fill_left" | "fill_right" if opens => self.skip_parentheses(),
            "offset" => self.offset()?,
            "anchored" | "smoothed" => {
                return Err(PlanError::Unsupported { what: format!("`{word}`"), span });
            }
            _ if functions::is_aggregation(&word) && (opens || self.modifier_follows()) => {
                let span = self.until_closed(self.at);
                self.found.aggregations.push(span);
                self.at += usize::from(opens);
            }
            _ if opens => {
                known_function(text, span)?;
                let span = self.until_closed(self.at);
                self.found.calls.push(span);
                self.at += 1;
            }
            _ => self.metric(span),
        }
        Ok(())
    }

    /// A metric's name, and the braces behind it.
    fn metric(&mut self, name: Span) {
        let braces = self.peek(1).and_then(|next| match &next.kind {
            TokenKind::Braces(ops) => Some((next.end, ops.clone())),
            _ => None,
        });
        let end = braces.as_ref().map_or(name.end, |(end, _)| *end);
        self.found.selectors.push(Span::of(self.expression, name.start, end));
        if let Some((_, ops)) = braces {
            self.matchers(ops);
            self.at += 1;
        }
    }

    fn matchers(&mut self, ops: Vec<MatchOp>) {
        if !ops.is_empty() {
            self.found.matchers.push(ops);
        }
    }

    /// The duration behind `offset`, which is no number literal.
    fn offset(&mut self) -> Result<(), PlanError> {
        while self.next_is(&TokenKind::Operator) {
            self.at += 1;
        }
        match self.peek(1) {
            Some(next) if next.kind == TokenKind::Number => {
                let span = next.span(self.expression);
                self.at += 1;
                duration::check(self.expression, span)
            }
            Some(next) if matches!(next.kind, TokenKind::Open | TokenKind::Word) => Err(PlanError::Unsupported {
                what: "a calculated duration".to_owned(),
                span: next.span(self.expression),
            }),
            _ => Ok(()),
        }
    }

    /// The number or `start()` behind `@`.
    fn skip_timestamp(&mut self) {
        while self.next_is(&TokenKind::Operator) {
            self.at += 1;
        }
        if self.next_is(&TokenKind::Word) {
            self.at += 1;
            self.skip_parentheses();
        } else if self.next_is(&TokenKind::Number) {
            self.at += 1;
        }
    }

    fn skip_parentheses(&mut self) {
        while let Some(token) = self.peek(1) {
            self.at += 1;
            if token.kind == TokenKind::Close {
                return;
            }
        }
    }

    /// From a token to the bracket that closes the first one behind it.
    fn until_closed(&self, from: usize) -> Span {
        let start = self.tokens.get(from).map_or(0, |token| token.start);
        let mut depth = 0_usize;
        let mut end = self.expression.len();
        for token in self.tokens.get(from..).unwrap_or_default() {
            match token.kind {
                TokenKind::Open => depth += 1,
                TokenKind::Close => {
                    depth = depth.saturating_sub(1);
                    end = token.end;
                    if depth == 0 && !self.argument_list_follows(token) {
                        break;
                    }
                }
                _ => {}
            }
        }
        Span::of(self.expression, start, end)
    }

    /// Whether another bracket opens right behind one: `sum by (a) (x)`.
    fn argument_list_follows(&self, close: &Token) -> bool {
        self.tokens.iter().find(|token| token.start >= close.end).is_some_and(|token| token.kind == TokenKind::Open)
    }

    fn modifier_follows(&self) -> bool {
        self.peek(1).is_some_and(|next| {
            next.kind == TokenKind::Word
                && matches!(next.text(self.expression).to_ascii_lowercase().as_str(), "by" | "without")
        })
    }

    fn next_is(&self, kind: &TokenKind) -> bool {
        self.peek(1).is_some_and(|next| next.kind == *kind)
    }

    fn peek(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead)
    }
}

fn known_function(name: &str, span: Span) -> Result<(), PlanError> {
    if functions::find(name).is_some() {
        return Ok(());
    }
    if functions::PLANNED.contains(&name) {
        return Err(PlanError::Unsupported { what: format!("`{name}`"), span });
    }
    Err(PlanError::UnknownFunction { name: name.to_owned(), span })
}

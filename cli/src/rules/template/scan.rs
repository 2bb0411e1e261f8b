//! Cuts a template's text into literal parts and actions, and an action into tokens.

use super::{TemplateError, TemplateErrorKind};

/// A literal part of the text, or the inside of an action.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'t> {
    Text(&'t str),
    /// Between the braces, trim markers taken off, and where it begins.
    Action {
        inside: &'t str,
        start: usize,
    },
}

pub(super) fn split(text: &str) -> Result<Vec<Part<'_>>, TemplateError> {
    let mut parts = Vec::new();
    let mut at = 0;
    let mut trim = false;
    while let Some(found) = tail(text, at).find("{{") {
        let open = at + found;
        let mut literal = text.get(at..open).unwrap_or_default();
        let (close, end) = action_end(text, open)?;
        let mut start = open + 2;
        let mut inside = text.get(start..close).unwrap_or_default();
        if trim {
            literal = literal.trim_start();
        }
        if let Some(rest) = inside.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)) {
            literal = literal.trim_end();
            inside = rest;
            start += 1;
        }
        trim = inside.strip_suffix('-').is_some_and(|rest| rest.ends_with(char::is_whitespace));
        if trim {
            inside = inside.get(..inside.len() - 1).unwrap_or_default();
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        if !inside.trim_start().starts_with("/*") {
            parts.push(Part::Action { inside, start });
        }
        at = end;
    }
    let rest = tail(text, at);
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

/// Where the inside of an action ends, and where the text goes on. Braces within quotes do not count.
fn action_end(text: &str, open: usize) -> Result<(usize, usize), TemplateError> {
    let unclosed = |what| error(open, TemplateErrorKind::Unclosed { what });
    let inside = tail(text, open + 2);
    let lead = inside.strip_prefix("- ").unwrap_or(inside).trim_start();
    if lead.starts_with("/*") {
        let comment = inside.find("*/").ok_or_else(|| unclosed("the comment"))?;
        let close = tail(inside, comment).find("}}").ok_or_else(|| unclosed("the action"))?;
        return Ok((open + 2 + comment + close, open + 4 + comment + close));
    }
    let mut at = open + 2;
    while at < text.len() {
        let rest = tail(text, at);
        if rest.starts_with("}}") {
            return Ok((at, at + 2));
        }
        let c = rest.chars().next().unwrap_or_default();
        at += match c {
            '"' | '`' | '\'' => {
                quoted(rest, c).ok_or_else(|| error(at, TemplateErrorKind::Unclosed { what: "the quote" }))?
            }
            _ => c.len_utf8().max(1),
        };
    }
    Err(unclosed("the action"))
}

/// The length of a quoted text, its quotes included.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some(at + c.len_utf8()),
            '\\' if quote != '`' => _ = chars.next(),
            '\n' if quote != '`' => return None,
            _ => {}
        }
    }
    None
}

fn tail(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Text(String),
    Number(String),
    Word(String),
    /// `$`, `$name`
    Variable(String),
    /// `.name`, with white space in front or without
    Field {
        name: String,
        attached: bool,
    },
    Symbol(&'static str),
}

impl Token {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Number(text) | Self::Word(text) | Self::Variable(text) => format!("`{text}`"),
            Self::Field { name, .. } => format!("`.{name}`"),
            Self::Symbol(symbol) => format!("`{symbol}`"),
        }
    }
}

/// The tokens of one action, read from the front.
#[derive(Debug, Clone)]
pub(super) struct Line {
    tokens: std::iter::Peekable<std::vec::IntoIter<(Token, usize)>>,
    end: usize,
}

impl Line {
    /// Cuts the inside of an action, which begins at `start` of the template, into tokens.
    pub(super) fn new(inside: &str, start: usize) -> Result<Self, TemplateError> {
        let tokens = tokens(inside, start)?;
        Ok(Self { tokens: tokens.into_iter().peekable(), end: start + inside.len() })
    }

    pub(super) fn peek(&mut self) -> Option<&Token> {
        self.tokens.peek().map(|(token, _)| token)
    }

    pub(super) fn at(&mut self) -> usize {
        self.tokens.peek().map_or(self.end, |(_, at)| *at)
    }

    pub(super) fn next(&mut self) -> Option<(Token, usize)> {
        self.tokens.next()
    }

    /// The field right behind what was read last, without white space.
    pub(super) fn next_attached(&mut self) -> Option<(String, usize)> {
        match self.tokens.next_if(|(token, _)| matches!(token, Token::Field { attached: true, .. }))? {
            (Token::Field { name, .. }, at) => Some((name, at)),
            _ => None,
        }
    }

    pub(super) fn takes(&mut self, wanted: &Token) -> bool {
        self.tokens.next_if(|(token, _)| token == wanted).is_some()
    }

    pub(super) fn takes_word(&mut self, word: &str) -> bool {
        self.tokens.next_if(|(token, _)| matches!(token, Token::Word(found) if found == word)).is_some()
    }

    pub(super) fn finish(&mut self) -> Result<(), TemplateError> {
        match self.next() {
            None => Ok(()),
            Some((token, at)) => Err(error(at, TemplateErrorKind::Unexpected { found: token.shown() })),
        }
    }
}

fn tokens(inside: &str, start: usize) -> Result<Vec<(Token, usize)>, TemplateError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut blank = true;
    while let Some(c) = tail(inside, at).chars().next() {
        let rest = tail(inside, at);
        if c.is_whitespace() {
            at += c.len_utf8();
            blank = true;
            continue;
        }
        let (token, length) = token(rest, c, !blank, start + at)?;
        tokens.push((token, start + at));
        at += length;
        blank = false;
    }
    Ok(tokens)
}

/// The token that a text begins with, and its length.
fn token(rest: &str, c: char, attached: bool, at: usize) -> Result<(Token, usize), TemplateError> {
    let unexpected = || error(at, TemplateErrorKind::Unexpected { found: format!("{c:?}") });
    Ok(match c {
        '"' | '`' => {
            let length = quoted(rest, c).ok_or_else(|| error(at, TemplateErrorKind::Unclosed { what: "the quote" }))?;
            let inner = rest.get(1..length - 1).unwrap_or_default();
            (Token::Text(if c == '"' { unescaped(inner) } else { inner.to_owned() }), length)
        }
        '$' => {
            let length = 1 + word_length(tail(rest, 1));
            (Token::Variable(rest.get(..length).unwrap_or_default().to_owned()), length)
        }
        '.' if !tail(rest, 1).starts_with(|c: char| c.is_ascii_digit()) => {
            let length = 1 + word_length(tail(rest, 1));
            (Token::Field { name: rest.get(1..length).unwrap_or_default().to_owned(), attached }, length)
        }
        ':' if rest.starts_with(":=") => (Token::Symbol(":="), 2),
        '=' => (Token::Symbol("="), 1),
        '|' => (Token::Symbol("|"), 1),
        '(' => (Token::Symbol("("), 1),
        ')' => (Token::Symbol(")"), 1),
        ',' => (Token::Symbol(","), 1),
        '0'..='9' | '.' | '-' | '+' => {
            let length = number_length(rest);
            (Token::Number(rest.get(..length).unwrap_or_default().to_owned()), length)
        }
        _ if is_word(c) => {
            let length = word_length(rest);
            (Token::Word(rest.get(..length).unwrap_or_default().to_owned()), length)
        }
        _ => return Err(unexpected()),
    })
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !is_word(c)).unwrap_or(text.len())
}

/// A sign, then digits, letters and points, and a sign behind the `e` of an exponent.
fn number_length(text: &str) -> usize {
    let mut before = None;
    for (at, c) in text.char_indices() {
        let signs = at == 0 || matches!(before, Some('e' | 'E'));
        if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || (matches!(c, '+' | '-') && signs)) {
            return at;
        }
        before = Some(c);
    }
    text.len()
}

/// What a text between double quotes stands for. Escapes that are not known stand for themselves.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(c @ ('"' | '\\' | '\'')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

pub(super) fn error(offset: usize, kind: TemplateErrorKind) -> TemplateError {
    TemplateError { kind, offset }
}

//! From a template's text to its tree.
//!
//! Every name is resolved here: a tree that exists can be evaluated.

use regex::Regex;

use super::functions::{self, Function, Run};
use super::scan::{self, Line, Part, Token, error};
use super::{Template, TemplateError, TemplateErrorKind};
use crate::rules::limits;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Print(Expr),
    /// Gives a variable its value.
    Set {
        local: usize,
        expr: Expr,
    },
    If {
        branches: Vec<(Expr, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Expr {
    Text(String),
    Number(f64),
    Integer(i64),
    Bool(bool),
    Labels,
    ExternalLabels,
    Value,
    ExternalUrl,
    Local(usize),
    Label {
        of: Box<Expr>,
        name: String,
    },
    /// A regular expression that the template spells out is compiled once, and is not among the arguments.
    Call {
        function: &'static Function,
        pattern: Option<Regex>,
        arguments: Vec<Expr>,
    },
}

pub(super) fn parse(text: &str) -> Result<Template, TemplateError> {
    if text.len() > limits::TEMPLATE_BYTES_MAX {
        return Err(error(0, TemplateErrorKind::TooLong));
    }
    let mut parser =
        Parser { parts: scan::split(text)?.into_iter(), scopes: vec![Vec::new()], locals: 0, labels: Vec::new() };
    let (nodes, end) = parser.nodes(0)?;
    let unexpected = |word: &str| TemplateErrorKind::Unexpected { found: format!("`{word}`") };
    match end {
        End::Text => Ok(Template { source: text.to_owned(), nodes, locals: parser.locals, labels: parser.labels }),
        End::Else { at, .. } => Err(error(at, unexpected("else"))),
        End::Close { at } => Err(error(at, unexpected("end"))),
    }
}

/// What came behind a list of nodes.
enum End {
    /// Nothing: the template is over.
    Text,
    Else {
        line: Line,
        at: usize,
    },
    Close {
        at: usize,
    },
}

struct Parser<'t> {
    parts: std::vec::IntoIter<Part<'t>>,
    /// Variables of the template's own in each open block.
    scopes: Vec<Vec<(String, usize)>>,
    locals: usize,
    labels: Vec<(String, usize)>,
}

impl Parser<'_> {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.next() {
            let (inside, start) = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text.to_owned()));
                    continue;
                }
                Part::Action { inside, start } => (inside, start),
            };
            let mut line = Line::new(inside, start)?;
            let at = line.at();
            if depth > limits::TEMPLATE_DEPTH_MAX {
                return Err(error(at, TemplateErrorKind::TooDeep));
            }
            if line.takes_word("end") {
                line.finish()?;
                return Ok((nodes, End::Close { at }));
            }
            if line.takes_word("else") {
                return Ok((nodes, End::Else { line, at }));
            }
            nodes.push(if line.takes_word("if") { self.condition(line, at, depth)? } else { self.action(line)? });
        }
        Ok((nodes, End::Text))
    }

    fn condition(&mut self, mut line: Line, at: usize, depth: usize) -> Result<Node, TemplateError> {
        let unclosed = || error(at, TemplateErrorKind::Unclosed { what: "`if`" });
        let mut branches = Vec::new();
        loop {
            let condition = self.pipeline(&mut line, "`if`", 0)?;
            line.finish()?;
            let (nodes, end) = self.block(depth)?;
            branches.push((condition, nodes));
            let mut rest = match end {
                End::Text => return Err(unclosed()),
                End::Close { .. } => return Ok(Node::If { branches, otherwise: Vec::new() }),
                End::Else { line, .. } => line,
            };
            if rest.takes_word("if") {
                line = rest;
                continue;
            }
            rest.finish()?;
            let (otherwise, end) = self.block(depth)?;
            return match end {
                End::Close { .. } => Ok(Node::If { branches, otherwise }),
                End::Else { at, .. } => {
                    Err(error(at, TemplateErrorKind::Unexpected { found: "second `else`".to_owned() }))
                }
                End::Text => Err(unclosed()),
            };
        }
    }

    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, End), TemplateError> {
        self.scopes.push(Vec::new());
        let nodes = self.nodes(depth + 1);
        self.scopes.pop();
        nodes
    }

    /// A pipeline that is printed, or given to a variable.
    fn action(&mut self, mut line: Line) -> Result<Node, TemplateError> {
        let at = line.at();
        let variable = match line.peek() {
            Some(Token::Variable(name)) => Some(name.clone()),
            _ => None,
        };
        let mut ahead = line.clone();
        ahead.next();
        let (declares, assigns) = (ahead.takes(&Token::Symbol(":=")), ahead.takes(&Token::Symbol("=")));
        let Some(name) = variable.filter(|_| declares || assigns) else {
            let expr = self.pipeline(&mut line, "an action", 0)?;
            line.finish()?;
            return Ok(Node::Print(expr));
        };
        let expr = self.pipeline(&mut ahead, "a variable", 0)?;
        ahead.finish()?;
        let local = match (declares, self.local(&name)) {
            (false, None) => return Err(error(at, TemplateErrorKind::UnknownVariable { name })),
            (false, Some(local)) => local,
            (true, _) => {
                let local = self.locals;
                self.locals += 1;
                self.scopes.last_mut().into_iter().for_each(|scope| scope.push((name.clone(), local)));
                local
            }
        };
        Ok(Node::Set { local, expr })
    }

    /// Commands joined by `|`, each taking the value of the one before it as its last argument.
    fn pipeline(&mut self, line: &mut Line, place: &'static str, depth: usize) -> Result<Expr, TemplateError> {
        let mut expr = self.command(line, None, place, depth)?;
        let mut commands = 1;
        while line.takes(&Token::Symbol("|")) {
            commands += 1;
            if commands > limits::TEMPLATE_DEPTH_MAX {
                return Err(error(line.at(), TemplateErrorKind::TooDeep));
            }
            expr = self.command(line, Some(expr), "`|`", depth)?;
        }
        Ok(expr)
    }

    fn command(
        &mut self,
        line: &mut Line,
        piped: Option<Expr>,
        place: &'static str,
        depth: usize,
    ) -> Result<Expr, TemplateError> {
        let at = line.at();
        if let Some(Token::Word(name)) = line.peek() {
            let name = name.clone();
            if !matches!(name.as_str(), "true" | "false") {
                line.next();
                let function = function(name, at)?;
                let mut arguments = self.operands(line, depth)?;
                arguments.extend(piped);
                return call(function, arguments, at);
            }
        }
        let operand = self.operand(line, depth)?.ok_or_else(|| error(at, TemplateErrorKind::MissingValue { place }))?;
        if piped.is_some() {
            let found = "value where a function is needed".to_owned();
            return Err(error(at, TemplateErrorKind::Unexpected { found }));
        }
        Ok(operand)
    }

    fn operands(&mut self, line: &mut Line, depth: usize) -> Result<Vec<Expr>, TemplateError> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand(line, depth)? {
            operands.push(operand);
        }
        Ok(operands)
    }

    /// A value and the fields behind it; nothing where none begins.
    fn operand(&mut self, line: &mut Line, depth: usize) -> Result<Option<Expr>, TemplateError> {
        let at = line.at();
        let expr = match line.peek() {
            None | Some(Token::Symbol("|" | ")" | "=" | ":=" | ",")) => return Ok(None),
            Some(Token::Symbol(_)) => {
                line.next();
                if depth >= limits::TEMPLATE_DEPTH_MAX {
                    return Err(error(at, TemplateErrorKind::TooDeep));
                }
                let expr = self.pipeline(line, "`(`", depth + 1)?;
                if !line.takes(&Token::Symbol(")")) {
                    return Err(error(at, TemplateErrorKind::Unclosed { what: "the bracket" }));
                }
                expr
            }
            Some(Token::Word(word)) if matches!(word.as_str(), "true" | "false") => {
                let truth = word == "true";
                line.next();
                Expr::Bool(truth)
            }
            Some(Token::Word(name)) => {
                let function = function(name.clone(), at)?;
                line.next();
                call(function, Vec::new(), at)?
            }
            Some(Token::Text(text)) => {
                let expr = Expr::Text(text.clone());
                line.next();
                expr
            }
            Some(Token::Number(text)) => {
                let expr = number(text, at)?;
                line.next();
                expr
            }
            Some(Token::Variable(name)) => {
                let name = name.clone();
                line.next();
                self.variable(&name, line, at)?
            }
            Some(Token::Field { name, .. }) => {
                let name = name.clone();
                line.next();
                root_field(name, at)?
            }
        };
        self.fields(expr, line).map(Some)
    }

    fn variable(&self, name: &str, line: &mut Line, at: usize) -> Result<Expr, TemplateError> {
        if let Some(local) = self.local(name) {
            return Ok(Expr::Local(local));
        }
        Ok(match name {
            "$labels" => Expr::Labels,
            "$value" => Expr::Value,
            "$externalLabels" => Expr::ExternalLabels,
            "$externalURL" => Expr::ExternalUrl,
            "$" => match line.next_attached() {
                Some((field, at)) => root_field(field, at)?,
                None => return Err(unsupported("$", at)),
            },
            _ => return Err(error(at, TemplateErrorKind::UnknownVariable { name: name.to_owned() })),
        })
    }

    /// The fields behind a value: labels, and nothing below them.
    fn fields(&mut self, mut expr: Expr, line: &mut Line) -> Result<Expr, TemplateError> {
        while let Some((name, at)) = line.next_attached() {
            expr = match expr {
                Expr::Labels => {
                    self.labels.push((name.clone(), at));
                    Expr::Label { of: Box::new(Expr::Labels), name }
                }
                Expr::ExternalLabels | Expr::Local(_) => Expr::Label { of: Box::new(expr), name },
                _ => return Err(error(at, TemplateErrorKind::UnknownField { name })),
            };
        }
        Ok(expr)
    }

    fn local(&self, name: &str) -> Option<usize> {
        let mut visible = self.scopes.iter().rev().flat_map(|scope| scope.iter().rev());
        visible.find(|(known, _)| known == name).map(|(_, local)| *local)
    }
}

/// A field of what the template is about.
fn root_field(name: String, at: usize) -> Result<Expr, TemplateError> {
    match name.as_str() {
        "Labels" => Ok(Expr::Labels),
        "Value" => Ok(Expr::Value),
        "ExternalLabels" => Ok(Expr::ExternalLabels),
        "ExternalURL" => Ok(Expr::ExternalUrl),
        "" => Err(unsupported(".", at)),
        _ => Err(error(at, TemplateErrorKind::UnknownField { name })),
    }
}

fn function(name: String, at: usize) -> Result<&'static Function, TemplateError> {
    match functions::find(&name) {
        Some(function) => Ok(function),
        None if functions::UNSUPPORTED.contains(&name.as_str()) => Err(unsupported(&name, at)),
        None => Err(error(at, TemplateErrorKind::UnknownFunction { name })),
    }
}

fn call(function: &'static Function, mut arguments: Vec<Expr>, at: usize) -> Result<Expr, TemplateError> {
    let found = arguments.len();
    if found < function.arguments_min || found > function.arguments_max {
        let expected = match (function.arguments_min, function.arguments_max) {
            (1, 1) => "1 argument".to_owned(),
            (min, max) if min == max => format!("{min} arguments"),
            (1, _) => "at least 1 argument".to_owned(),
            (min, _) => format!("at least {min} arguments"),
        };
        return Err(error(at, TemplateErrorKind::Arguments { function: function.name, expected, found }));
    }
    let pattern = match (&function.run, arguments.first()) {
        (Run::Pattern(_), Some(Expr::Text(pattern))) => {
            let pattern = functions::compile(pattern).map_err(|kind| error(at, kind))?;
            arguments.remove(0);
            Some(pattern)
        }
        _ => None,
    };
    Ok(Expr::Call { function, pattern, arguments })
}

/// A number of the template: whole where it is written so.
fn number(text: &str, at: usize) -> Result<Expr, TemplateError> {
    let digits = text.replace('_', "");
    if let Some(hexadecimal) = digits.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok()) {
        return Ok(Expr::Integer(hexadecimal));
    }
    let starts_with_digit = digits.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if let Ok(number) = digits.parse() {
        return Ok(Expr::Integer(number));
    }
    match digits.parse() {
        Ok(number) if starts_with_digit => Ok(Expr::Number(number)),
        _ => Err(error(at, TemplateErrorKind::Unexpected { found: format!("`{text}`") })),
    }
}

fn unsupported(what: &str, at: usize) -> TemplateError {
    error(at, TemplateErrorKind::Unsupported { what: what.to_owned() })
}

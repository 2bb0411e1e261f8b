//! Templates in labels and annotations: the part of Go's `text/template` that people use in alerts.
//!
//! A template is parsed when its rule file is loaded, and yields text for each alert. What is not supported is refused
//! when parsing, with its position: a template that was accepted says the same as in Prometheus. The one difference:
//! numbers compare as numbers here, where Go refuses to compare `$value` with `5` and wants `5.0`.
//!
//! `scan` (text → tokens) → `parse` (tokens → tree) → `evaluate` (tree → text) with `functions` (one list of all)
//! and `format` (Go's ways of writing numbers) beside it. Absent: `range`, `with`, `define`, `template`, and the
//! functions that query the store.
//!
//! Own code, because the crates that port Go's templates are old or young and carry reflection, loops and recursion
//! that would have to be fenced off again.

mod evaluate;
mod format;
mod functions;
mod parse;
mod scan;
mod value;

use belfry_promql::Labels;
use thiserror::Error;

use super::limits;

pub(crate) use evaluate::RenderError;

/// A template that was understood.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    source: String,
    nodes: Vec<parse::Node>,
    locals: usize,
    /// Labels of the series that the template names, and where.
    labels: Vec<(String, usize)>,
}

/// What a template speaks about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Labels of the series, its metric's name included.
    pub(crate) labels: &'a Labels,
    pub(crate) value: f64,
    pub(crate) external_labels: &'a Labels,
    pub(crate) external_url: &'a str,
}

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::parse(text)
    }

    /// What was parsed.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text for one alert, of at most [`limits::TEMPLATE_OUTPUT_BYTES_MAX`] bytes.
    pub(crate) fn render(&self, subject: &Subject<'_>) -> Result<String, RenderError> {
        evaluate::render(self, subject)
    }

    /// The labels of the series that the template names, each with its byte offset in the template.
    pub(crate) fn labels(&self) -> &[(String, usize)] {
        &self.labels
    }
}

/// Why a template was refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{kind}")]
pub(crate) struct TemplateError {
    pub(crate) kind: TemplateErrorKind,
    /// The byte of the template that the error is at.
    pub(crate) offset: usize,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum TemplateErrorKind {
    #[error("template of more than {} bytes", limits::TEMPLATE_BYTES_MAX)]
    TooLong,
    #[error("template nests deeper than {} levels", limits::TEMPLATE_DEPTH_MAX)]
    TooDeep,
    #[error("{what} is not closed")]
    Unclosed { what: &'static str },
    #[error("unexpected {found}")]
    Unexpected { found: String },
    #[error("{place} needs a value")]
    MissingValue { place: &'static str },
    #[error("`{what}` is not supported yet in templates")]
    Unsupported { what: String },
    #[error("function {name:?} is not defined")]
    UnknownFunction { name: String },
    #[error("variable `{name}` is not defined")]
    UnknownVariable { name: String },
    #[error("there is no field `{name}` here")]
    UnknownField { name: String },
    #[error("`{function}` takes {expected}, not {found}")]
    Arguments { function: &'static str, expected: String, found: usize },
    #[error("invalid regular expression {pattern:?}: {message}")]
    Pattern { pattern: String, message: String },
}

impl TemplateError {
    /// What to do about it.
    pub(crate) fn help(&self) -> &'static str {
        match self.kind {
            TemplateErrorKind::TooLong | TemplateErrorKind::TooDeep => "shorten it",
            TemplateErrorKind::Unclosed { .. } => "close it",
            TemplateErrorKind::Unexpected { .. } | TemplateErrorKind::MissingValue { .. } => {
                "write actions like `{{ $labels.instance }}` or `{{ $value | humanize }}`"
            }
            TemplateErrorKind::Unsupported { .. } => "take it out",
            TemplateErrorKind::UnknownFunction { .. } => "check its spelling",
            TemplateErrorKind::UnknownVariable { .. } => "use $labels, $value, $externalLabels or $externalURL",
            TemplateErrorKind::UnknownField { .. } => "use .Labels, .Value, .ExternalLabels or .ExternalURL",
            TemplateErrorKind::Arguments { .. } => "check the call",
            TemplateErrorKind::Pattern { .. } => "mend the expression",
        }
    }
}

#[cfg(test)]
mod tests;

//! From text to a checked tree.
//!
//! `scan` bounds the text and notes positions, `promql-parser` builds its tree, `build` turns that into ours,
//! typed and with every name resolved. Where the parser refuses a text `locate` finds the place. What a plan tells
//! about itself is in `introspect`.

mod build;
mod disguise;
mod duration;
mod introspect;
mod locate;
mod node;
mod pretty;
mod scan;
mod selector;
mod token;

pub(crate) use node::{
    Aggregate, At, BinaryOp, Call, Cardinality, Expr, LabelChoice, Matching, RangeExpr, RangeKind, ScalarExpr,
    ScalarKind, Select, SelectId, SetOp, VectorExpr, VectorKind,
};

pub use introspect::Selector;
pub use pretty::prettified;

use crate::{PatternError, Span, ValueType};

/// What an expression means where it does not say so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// How far an instant selector looks back for a sample, in milliseconds.
    pub lookback_ms: i64,
    /// The step of subqueries that name none, in milliseconds.
    pub subquery_step_ms: i64,
}

impl Default for PlanOptions {
    /// Prometheus' defaults: five minutes of lookback, one minute of step.
    fn default() -> Self {
        Self { lookback_ms: 300_000, subquery_step_ms: 60_000 }
    }
}

/// An expression that was understood and can be evaluated, any number of times.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) root: Expr,
    pub(crate) options: PlanOptions,
    expression: String,
}

impl Plan {
    /// Plans an expression.
    ///
    /// # Errors
    /// What is malformed, ill-typed, not supported or beyond [`limits`](crate::limits), with its position.
    pub fn parse(expression: &str) -> Result<Self, PlanError> {
        Self::parse_with(expression, PlanOptions::default())
    }

    /// Plans an expression under other options than the default.
    ///
    /// # Errors
    /// As [`Plan::parse`].
    pub fn parse_with(expression: &str, options: PlanOptions) -> Result<Self, PlanError> {
        let scan = scan::scan(expression)?;
        let tree = promql_parser::parser::parse(&scan.text).map_err(|message| locate::located(expression, message))?;
        let root = build::build(&tree, expression, scan, options)?;
        Ok(Self { root, options, expression: expression.to_owned() })
    }

    /// The text that was planned.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The type of the expression: what [`evaluate_instant`](crate::evaluate_instant) will return.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        self.root.value_type()
    }
}

/// Why an expression was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The expression is longer than [`EXPRESSION_BYTES_MAX`](crate::limits::EXPRESSION_BYTES_MAX).
    #[error("expression of {length} bytes is too long")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Brackets or unary operators nest deeper than [`NESTING_DEPTH_MAX`](crate::limits::NESTING_DEPTH_MAX).
    #[error("expression nests too deep at {span}")]
    TooDeep {
        /// Where the limit is exceeded.
        span: Span,
    },
    /// More operators than [`OPERATORS_MAX`](crate::limits::OPERATORS_MAX).
    #[error("too many operators at {span}")]
    TooManyOperators {
        /// Where the limit is exceeded.
        span: Span,
    },
    /// More regular expressions than [`REGEXES_MAX`](crate::limits::REGEXES_MAX).
    #[error("too many regular expressions")]
    TooManyRegexes,
    /// A quote, bracket or brace without its counterpart.
    #[error("unclosed {what} at {span}")]
    Unclosed {
        /// What was not closed.
        what: &'static str,
        /// Where it opens.
        span: Span,
    },
    /// An escape in a text that stands for a byte which is no character in UTF-8.
    #[error("byte escape is not valid UTF-8 at {span}")]
    Escape {
        /// Where it stands.
        span: Span,
    },
    /// Not PromQL, or ill-typed.
    #[error("{message} at {span}")]
    Syntax {
        /// What is wrong.
        message: String,
        /// The part of the expression that shows it.
        span: Span,
    },
    /// An argument or operand of the wrong type.
    #[error("expected {expected} in {place}, got {found} at {span}")]
    Type {
        /// What is needed.
        expected: ValueType,
        /// What is there.
        found: ValueType,
        /// Who needs it.
        place: String,
        /// Where it stands.
        span: Span,
    },
    /// A function that PromQL does not have.
    #[error("unknown function `{name}` at {span}")]
    UnknownFunction {
        /// Its name.
        name: String,
        /// Where it is called.
        span: Span,
    },
    /// PromQL that this engine does not evaluate.
    #[error("{what} is not supported yet at {span}")]
    Unsupported {
        /// What it is.
        what: String,
        /// Where it stands.
        span: Span,
    },
    /// A duration or timestamp that is malformed or out of range.
    #[error("invalid duration or timestamp `{text}` at {span}")]
    Duration {
        /// The text.
        text: String,
        /// Where it stands.
        span: Span,
    },
    /// A malformed or oversized regular expression.
    #[error("invalid regular expression in {place} at {span}")]
    Regex {
        /// What it is for.
        place: String,
        /// The selector or argument.
        span: Span,
        /// What is wrong.
        #[source]
        source: PatternError,
    },
    /// An argument that no value of the data can make right.
    #[error("{message} at {span}")]
    Argument {
        /// What is wrong.
        message: String,
        /// The argument.
        span: Span,
    },
}

impl PlanError {
    /// Where in the expression the error is; nothing where it is about the whole of it.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::TooLong { .. } | Self::TooManyRegexes => None,
            Self::TooDeep { span }
            | Self::TooManyOperators { span }
            | Self::Unclosed { span, .. }
            | Self::Escape { span }
            | Self::Syntax { span, .. }
            | Self::Type { span, .. }
            | Self::UnknownFunction { span, .. }
            | Self::Unsupported { span, .. }
            | Self::Duration { span, .. }
            | Self::Regex { span, .. }
            | Self::Argument { span, .. } => Some(*span),
        }
    }
}

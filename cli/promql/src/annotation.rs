//! What a query has to say beside its result.

use std::fmt;

use crate::Span;

/// How serious an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Something that may be a mistake, though the result is what was asked for.
    Info,
    /// The result is not what was asked for.
    Warning,
}

/// A remark on a part of the expression.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Annotation {
    /// How serious it is.
    pub level: Level,
    /// The part of the expression it is about.
    pub span: Span,
    /// What there is to say.
    pub message: String,
}

impl fmt::Display for Annotation {
    /// As Prometheus writes them: `PromQL info: … (1:6)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Info => "info",
            Level::Warning => "warning",
        };
        write!(f, "PromQL {level}: {} ({})", self.message, self.span)
    }
}

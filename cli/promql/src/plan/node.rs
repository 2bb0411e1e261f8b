//! The tree that is evaluated: typed, so that no node can meet a value of the wrong type.

use std::sync::Arc;

use regex::Regex;

use crate::functions::{Aggregation, Function};
use crate::{Matcher, Span, ValueType};

/// An expression of any type.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Scalar(ScalarExpr),
    Vector(VectorExpr),
    Range(RangeExpr),
    Text(TextExpr),
}

impl Expr {
    pub(crate) fn value_type(&self) -> ValueType {
        match self {
            Self::Scalar(_) => ValueType::Scalar,
            Self::Vector(_) => ValueType::Vector,
            Self::Range(_) => ValueType::Matrix,
            Self::Text(_) => ValueType::String,
        }
    }

    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Scalar(scalar) => scalar.span,
            Self::Vector(vector) => vector.span,
            Self::Range(range) => range.span,
            Self::Text(text) => text.span,
        }
    }

    /// Whether the value is the same at every step.
    pub(crate) fn is_constant(&self) -> bool {
        match self {
            Self::Scalar(scalar) => scalar.constant,
            Self::Vector(vector) => vector.constant,
            Self::Range(range) => range.at.is_some(),
            Self::Text(_) => true,
        }
    }

    pub(crate) fn set_span(&mut self, span: Span) {
        match self {
            Self::Scalar(scalar) => scalar.span = span,
            Self::Vector(vector) => vector.span = span,
            Self::Range(range) => range.span = span,
            Self::Text(text) => text.span = span,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TextExpr {
    pub(crate) text: Arc<str>,
    pub(crate) span: Span,
}

/// One number per step.
#[derive(Debug, Clone)]
pub(crate) struct ScalarExpr {
    pub(crate) kind: ScalarKind,
    pub(crate) span: Span,
    /// Whether the value is the same at every step.
    pub(crate) constant: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum ScalarKind {
    Number(f64),
    Negate(Box<ScalarExpr>),
    Binary { op: BinaryOp, lhs: Box<ScalarExpr>, rhs: Box<ScalarExpr> },
    Call(Call),
}

/// One value per series and step.
#[derive(Debug, Clone)]
pub(crate) struct VectorExpr {
    pub(crate) kind: VectorKind,
    pub(crate) span: Span,
    /// Whether the value is the same at every step.
    pub(crate) constant: bool,
}

impl VectorExpr {
    /// Whether an operator yields nothing where its left side has nothing.
    pub(crate) fn needs_left(&self) -> bool {
        match &self.kind {
            VectorKind::Set { op, .. } => *op != SetOp::Or,
            VectorKind::Binary { matching, .. } => matching.fill == (None, None),
            VectorKind::WithScalar { .. } => true,
            VectorKind::Select(_) | VectorKind::Negate(_) | VectorKind::Aggregate(_) | VectorKind::Call(_) => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum VectorKind {
    Select(Select),
    Negate(Box<VectorExpr>),
    /// A vector and a number, in either order.
    WithScalar {
        op: BinaryOp,
        bool_result: bool,
        scalar_left: bool,
        vector: Box<VectorExpr>,
        scalar: Box<ScalarExpr>,
    },
    Binary {
        op: BinaryOp,
        bool_result: bool,
        matching: Matching,
        lhs: Box<VectorExpr>,
        rhs: Box<VectorExpr>,
    },
    Set {
        op: SetOp,
        on: LabelChoice,
        lhs: Box<VectorExpr>,
        rhs: Box<VectorExpr>,
    },
    Aggregate(Box<Aggregate>),
    Call(Call),
}

/// Samples of a stretch of time, per series and step.
#[derive(Debug, Clone)]
pub(crate) struct RangeExpr {
    pub(crate) kind: RangeKind,
    pub(crate) range_ms: i64,
    pub(crate) offset_ms: i64,
    pub(crate) at: Option<At>,
    pub(crate) span: Span,
}

#[derive(Debug, Clone)]
pub(crate) enum RangeKind {
    /// Samples as stored; time modifiers stand on the range.
    Select { id: SelectId, matchers: Arc<[Matcher]> },
    /// An expression evaluated at every multiple of `step_ms` within the range.
    Subquery { inner: Box<VectorExpr>, step_ms: i64 },
}

/// The number of a selector within its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SelectId(pub(crate) usize);

/// An instant selector.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    pub(crate) id: SelectId,
    pub(crate) matchers: Arc<[Matcher]>,
    pub(crate) offset_ms: i64,
    pub(crate) at: Option<At>,
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Time(i64),
    Start,
    End,
}

/// A call of a function, its arguments checked against its signature.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: &'static Function,
    pub(crate) arguments: Vec<Expr>,
    /// The argument that is a regular expression, compiled.
    pub(crate) pattern: Option<Regex>,
}

#[derive(Debug, Clone)]
pub(crate) struct Aggregate {
    pub(crate) op: Aggregation,
    pub(crate) parameter: Option<Expr>,
    pub(crate) group: LabelChoice,
    pub(crate) inner: VectorExpr,
}

/// `by`, `on` and their opposites `without`, `ignoring`.
#[derive(Debug, Clone)]
pub(crate) enum LabelChoice {
    Only(Arc<[Arc<str>]>),
    Without(Arc<[Arc<str>]>),
}

impl LabelChoice {
    pub(crate) fn labels(&self) -> &[Arc<str>] {
        match self {
            Self::Only(labels) | Self::Without(labels) => labels,
        }
    }

    /// Whether series that differ in this label are kept apart.
    pub(crate) fn keeps(&self, label: &str) -> bool {
        let named = self.labels().iter().any(|name| **name == *label);
        match self {
            Self::Only(_) => named,
            Self::Without(_) => !named,
        }
    }
}

/// How the series of two vectors find each other.
#[derive(Debug, Clone)]
pub(crate) struct Matching {
    pub(crate) on: LabelChoice,
    pub(crate) cardinality: Cardinality,
    /// Labels of the "one" side that the result takes.
    pub(crate) include: Arc<[Arc<str>]>,
    /// What stands in for a missing partner on the left and on the right.
    pub(crate) fill: (Option<f64>, Option<f64>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cardinality {
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetOp {
    And,
    Or,
    Unless,
}

/// An operator on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
}

impl BinaryOp {
    /// Whether the operator yields true or false rather than a number.
    pub(crate) fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal | Self::NotEqual | Self::Greater | Self::Less | Self::GreaterOrEqual | Self::LessOrEqual
        )
    }

    /// The result, a comparison's as 0 or 1.
    #[inline]
    pub(crate) fn apply(self, lhs: f64, rhs: f64) -> f64 {
        match self {
            Self::Add => lhs + rhs,
            Self::Subtract => lhs - rhs,
            Self::Multiply => lhs * rhs,
            Self::Divide => lhs / rhs,
            Self::Modulo => lhs % rhs,
            Self::Power => lhs.powf(rhs),
            Self::Atan2 => lhs.atan2(rhs),
            _ => f64::from(u8::from(self.holds(lhs, rhs))),
        }
    }

    /// Whether a comparison holds; arithmetic operators compare nothing and never do.
    #[inline]
    #[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
    pub(crate) fn holds(self, lhs: f64, rhs: f64) -> bool {
        match self {
            Self::Equal => lhs == rhs,
            Self::NotEqual => lhs != rhs,
            Self::Greater => lhs > rhs,
            Self::Less => lhs < rhs,
            Self::GreaterOrEqual => lhs >= rhs,
            Self::LessOrEqual => lhs <= rhs,
            _ => false,
        }
    }
}

//! Evaluation: a plan, a reader and steps in; rows of values out.
//!
//! `source` works out what the selectors need, so that each stretch is read once. Then every node of the plan turns into one
//! [`Block`]: all its series at all steps. Work on labels is thereby done once per series and not once per step.
//! A part that is the same at every step is evaluated at one.

mod aggregate;
mod binary;
mod block;
mod budget;
mod finish;
mod grid;
mod rank;
mod reduce;
mod select;
mod source;

pub(crate) use block::{ABSENT, Block, is_absent};
pub(crate) use budget::{Budget, Held};
pub(crate) use grid::{Grid, Period};

use std::rc::Rc;

use self::budget::{VALUE_BYTES, bytes_of};
use crate::functions::{Arguments, Body};
use crate::limits::{ANNOTATIONS_MAX, Limits, TIME_MS_MAX};
use crate::plan::{Call, Expr, Plan, PlanOptions, ScalarExpr, ScalarKind, VectorExpr, VectorKind};
use crate::{Annotation, Labels, Level, Output, ReadError, Sample, SeriesReader, Span, Value, ValueType};

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The store failed.
    #[error("failed to read what the query selects")]
    Read(#[source] ReadError),
    /// The query reads more than it may.
    #[error("query would load more than {limit} samples")]
    TooManySamples {
        /// The limit of the query.
        limit: usize,
    },
    /// The query selects more series than it may.
    #[error("query would load more than {limit} series")]
    TooManySeries {
        /// The limit of the query.
        limit: usize,
    },
    /// The query looks at more values than it may.
    #[error("query would look at more than {limit} values; use a longer step or shorter ranges")]
    TooMuchWork {
        /// The limit of the query.
        limit: u64,
    },
    /// The query holds more than it may.
    #[error("query would hold more than {limit} bytes; select fewer series or use a longer step")]
    TooManyBytes {
        /// The limit of the query.
        limit: usize,
    },
    /// The range and step of the query make too many steps.
    #[error("query has more than {limit} steps; use a longer step")]
    TooManySteps {
        /// The limit of the query.
        limit: usize,
    },
    /// The end lies before the start, the step is not positive, or a time is out of bounds.
    #[error("invalid range of time")]
    InvalidTimes,
    /// Only numbers and vectors can be evaluated over a range.
    #[error("invalid expression type \"{found}\" for range query, must be Scalar or instant Vector")]
    NotForRange {
        /// The type of the expression.
        found: ValueType,
    },
    /// The caller's [`Limits::cancelled`] said to stop.
    #[error("query was cancelled")]
    Cancelled,
    /// Two series of the result have the same labels at the same time.
    #[error("vector cannot contain metrics with the same labelset")]
    SameLabelset,
    /// Two series of the "one" side of a vector matching match each other's partner.
    #[error(
        "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
    )]
    ManyToMany {
        /// The labels that matched.
        group: Labels,
        /// `left` or `right`.
        side: &'static str,
        /// One of the two series.
        first: Labels,
        /// The other.
        second: Labels,
    },
    /// Several series of one side match one of the other without `group_left` or `group_right`.
    #[error("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")]
    ManyToOne,
    /// Two results of a many-to-one matching have the same labels.
    #[error("multiple matches for labels: grouping labels must ensure unique matches")]
    GroupingNotUnique,
    /// Two series of one info metric tell of the same target at the same time.
    #[error("found duplicate series for info metric: {first} and {second}")]
    InfoDuplicate {
        /// One of the two.
        first: Labels,
        /// The other.
        second: Labels,
    },
    /// Two info metrics tell different things of the same target.
    #[error("conflicting label: {label}")]
    InfoConflict {
        /// The label with two values.
        label: String,
    },
    /// The parameter of an aggregation is NaN or out of range.
    #[error("{0}")]
    Parameter(&'static str),
    /// A function makes a label longer than [`LABEL_BYTES_MAX`](crate::limits::LABEL_BYTES_MAX).
    #[error("value of label `{0}` grows too long")]
    LabelTooLong(String),
    /// A text that must be a label name is none.
    #[error("invalid label name {0:?}")]
    LabelName(String),
    /// A fault of this crate.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// Evaluates a plan at one instant.
///
/// Returns the type that [`Plan::value_type`] told.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate_instant(
    plan: &Plan,
    reader: &dyn SeriesReader,
    time_ms: i64,
    limits: &Limits<'_>,
) -> Result<Output, EvalError> {
    let grid = Grid::instant(checked_time(time_ms)?);
    let mut evaluator = Evaluator::new(plan, reader, (Period::instant(time_ms), grid), limits)?;
    let value = match &plan.root {
        Expr::Scalar(scalar) => {
            let value = evaluator.scalar(scalar, grid)?.first().copied().unwrap_or(f64::NAN);
            Value::Scalar(Sample { time_ms, value })
        }
        Expr::Vector(vector) => Value::Vector(finish::vector(&evaluator.vector(vector, grid)?, time_ms)?),
        Expr::Range(range) => Value::Matrix(finish::series(evaluator.range(range, time_ms)?)?),
        Expr::Text(text) => Value::String(text.text.to_string()),
    };
    Ok(evaluator.output(value))
}

/// Evaluates a plan at every step of a range: `start_ms`, `start_ms + step_ms`, … up to `end_ms`, which is included.
///
/// Always returns [`Value::Matrix`]; a scalar becomes a series without labels.
///
/// # Errors
/// See [`EvalError`]; plans of ranges and strings are refused with [`EvalError::NotForRange`].
pub fn evaluate_range(
    plan: &Plan,
    reader: &dyn SeriesReader,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
    limits: &Limits<'_>,
) -> Result<Output, EvalError> {
    let (start_ms, end_ms) = (checked_time(start_ms)?, checked_time(end_ms)?);
    if end_ms < start_ms || step_ms <= 0 {
        return Err(EvalError::InvalidTimes);
    }
    let too_many = EvalError::TooManySteps { limit: limits.steps_max };
    let Ok(steps) = usize::try_from((end_ms - start_ms) / step_ms + 1) else { return Err(too_many) };
    if steps > limits.steps_max {
        return Err(too_many);
    }
    let grid = Grid { start_ms, step_ms, steps };
    let found = plan.value_type();
    if matches!(found, ValueType::Matrix | ValueType::String) {
        return Err(EvalError::NotForRange { found });
    }
    let mut evaluator = Evaluator::new(plan, reader, (Period { start_ms, end_ms, step_ms }, grid), limits)?;
    let block = match &plan.root {
        Expr::Vector(vector) => evaluator.vector(vector, grid)?,
        Expr::Scalar(scalar) => {
            let values = evaluator.scalar(scalar, grid)?;
            let mut block = Block::new(steps);
            block.push(Labels::empty(), false, &values);
            block
        }
        Expr::Range(_) | Expr::Text(_) => return Err(EvalError::NotForRange { found }),
    };
    // Beside the block a copy in order of labels, then the samples.
    let (_block, _copy) = (evaluator.hold(&block)?, evaluator.hold(&block)?);
    evaluator.budget.check_bytes(block.cells().saturating_mul(size_of::<Sample>()))?;
    let value = Value::Matrix(finish::matrix(&block, grid)?);
    Ok(evaluator.output(value))
}

fn checked_time(time_ms: i64) -> Result<i64, EvalError> {
    if time_ms.unsigned_abs() <= TIME_MS_MAX.unsigned_abs() { Ok(time_ms) } else { Err(EvalError::InvalidTimes) }
}

/// One query under way.
pub(crate) struct Evaluator<'q> {
    options: PlanOptions,
    budget: Rc<Budget<'q>>,
    query: Period,
    sources: source::Sources<'q>,
    annotations: Vec<Annotation>,
}

impl<'q> Evaluator<'q> {
    fn new(
        plan: &'q Plan,
        reader: &'q dyn SeriesReader,
        (query, grid): (Period, Grid),
        limits: &'q Limits<'q>,
    ) -> Result<Self, EvalError> {
        let budget = Rc::new(Budget::new(limits));
        let sources = source::Sources::of(plan, reader, (query, grid), &budget)?;
        Ok(Self { options: plan.options, budget, query, sources, annotations: Vec::new() })
    }

    fn output(mut self, value: Value) -> Output {
        self.annotations.sort_by_key(|annotation| annotation.span);
        Output { value, annotations: self.annotations }
    }

    /// The times of the whole query.
    pub(crate) fn query(&self) -> Period {
        self.query
    }

    /// Adds a remark, unless it was made before or there are enough.
    pub(crate) fn annotate(&mut self, level: Level, span: Span, message: String) {
        let annotation = Annotation { level, span, message };
        if self.annotations.len() < ANNOTATIONS_MAX && !self.annotations.contains(&annotation) {
            self.annotations.push(annotation);
        }
    }

    fn check_cancelled(&self) -> Result<(), EvalError> {
        self.budget.check_cancelled()
    }

    /// Refuses intermediate results that are too large, before memory is taken for them.
    pub(crate) fn check_cells(&self, rows: usize, steps: usize) -> Result<(), EvalError> {
        self.budget.check_bytes(bytes_of(rows, steps))
    }

    /// Counts numbers as held until the result is dropped.
    pub(crate) fn hold_numbers(&self, numbers: &[f64]) -> Result<Held<'q>, EvalError> {
        self.budget.hold(numbers.len().saturating_mul(VALUE_BYTES))
    }

    /// Counts a block as held until the result is dropped.
    pub(crate) fn hold(&self, block: &Block) -> Result<Held<'q>, EvalError> {
        self.budget.hold(bytes_of(block.rows().len(), block.steps()))
    }

    /// Counts labels that a function made.
    pub(crate) fn keep_labels(&self, labels: &Labels) -> Result<(), EvalError> {
        self.budget.keep_labels(labels)
    }

    /// Counts values as looked at.
    pub(crate) fn scan(&self, values: usize) -> Result<(), EvalError> {
        self.budget.scan(values)
    }

    /// One number per step.
    pub(crate) fn scalar(&mut self, expr: &ScalarExpr, grid: Grid) -> Result<Vec<f64>, EvalError> {
        self.check_cells(1, grid.steps)?;
        if expr.constant && grid.steps > 1 {
            let value = self.scalar(expr, grid.first())?.first().copied().unwrap_or(f64::NAN);
            return Ok(vec![value; grid.steps]);
        }
        // A chain of operators leans to the left as far as it is long: it is walked, not recursed into.
        let mut links = Vec::new();
        let mut first = expr;
        while let ScalarKind::Binary { op, lhs, rhs } = &first.kind {
            links.push((op, rhs));
            first = lhs;
        }
        let mut values = match &first.kind {
            ScalarKind::Number(number) => vec![*number; grid.steps],
            ScalarKind::Negate(inner) => self.scalar(inner, grid)?.into_iter().map(|value| -value).collect(),
            ScalarKind::Call(call) => self.scalar_call(call, grid, first.span)?,
            ScalarKind::Binary { .. } => return Err(EvalError::Internal("a chain of operators has no beginning")),
        };
        let _held = self.hold_numbers(&values)?;
        for (op, rhs) in links.into_iter().rev() {
            self.scan(grid.steps)?;
            let rhs = self.scalar(rhs, grid)?;
            for (value, &other) in values.iter_mut().zip(&rhs) {
                *value = op.apply(*value, other);
            }
        }
        Ok(values)
    }

    fn scalar_call(&mut self, call: &Call, grid: Grid, span: Span) -> Result<Vec<f64>, EvalError> {
        match call.function.body {
            Body::Scalar(body) => body(&mut Arguments::new(self, call, grid, span)),
            _ => Err(EvalError::Internal("a scalar was planned where the function yields none")),
        }
    }

    /// One value per series and step.
    pub(crate) fn vector(&mut self, expr: &VectorExpr, grid: Grid) -> Result<Block, EvalError> {
        self.check_cancelled()?;
        let mut links = Vec::new();
        let mut first = expr;
        let mut steps = grid;
        loop {
            if first.constant && grid.steps > 1 {
                steps = grid.first();
                break;
            }
            let (VectorKind::Binary { lhs: left, .. }
            | VectorKind::Set { lhs: left, .. }
            | VectorKind::WithScalar { vector: left, .. }) = &first.kind
            else {
                break;
            };
            links.push(first);
            first = left;
        }
        let mut block = self.leaf(first, steps)?;
        self.scan(block.cells())?;
        if steps.steps != grid.steps {
            self.check_cells(block.rows().len(), grid.steps)?;
            block = block.repeated(grid.steps);
        }
        for link in links.into_iter().rev() {
            block = self.link(link, block, grid)?;
            self.scan(block.cells())?;
        }
        Ok(block)
    }

    /// Applies the operator of a chain to what stands left of it.
    ///
    /// Where an empty left side decides the result, the right side is not evaluated: a rule such as
    /// `cheap > 1 and costly > 2` costs what its left side does for as long as that does not hold.
    fn link(&mut self, link: &VectorExpr, left: Block, grid: Grid) -> Result<Block, EvalError> {
        self.check_cancelled()?;
        if left.rows().is_empty() && link.needs_left() {
            return Ok(left);
        }
        let _held = self.hold(&left)?;
        match &link.kind {
            VectorKind::Binary { op, bool_result, matching, rhs, .. } => {
                let right = self.vector(rhs, grid)?;
                self.check_cells(left.rows().len().max(right.rows().len()), grid.steps)?;
                binary::vectors(self, *op, *bool_result, matching, left, right)
            }
            VectorKind::Set { op, on, rhs, .. } => {
                let right = self.vector(rhs, grid)?;
                // Beside the left side, which is held: what `or` adds to it, or the marks of where there is a partner.
                self.check_cells(left.rows().len().saturating_add(right.rows().len()), grid.steps)?;
                Ok(binary::sets(*op, on, left, right))
            }
            VectorKind::WithScalar { op, bool_result, scalar_left, scalar, .. } => {
                let numbers = self.scalar(scalar, grid)?;
                Ok(binary::with_scalar(*op, *bool_result, *scalar_left, left, &numbers))
            }
            _ => Err(EvalError::Internal("a chain of operators has a link that is none")),
        }
    }

    /// Anything but a chain of operators, unless that is constant and evaluated at one step.
    fn leaf(&mut self, expr: &VectorExpr, grid: Grid) -> Result<Block, EvalError> {
        match &expr.kind {
            VectorKind::Select(select) => self.select(select, grid),
            VectorKind::Negate(inner) => {
                let mut block = self.vector(inner, grid)?;
                block.drop_names();
                block.map(|value| -value);
                Ok(block)
            }
            VectorKind::Aggregate(aggregate) => self.aggregate(aggregate, grid),
            VectorKind::Call(call) => self.vector_call(call, grid, expr.span),
            VectorKind::Binary { lhs: left, .. }
            | VectorKind::Set { lhs: left, .. }
            | VectorKind::WithScalar { vector: left, .. } => {
                let left = self.vector(left, grid)?;
                self.link(expr, left, grid)
            }
        }
    }

    fn vector_call(&mut self, call: &Call, grid: Grid, span: Span) -> Result<Block, EvalError> {
        let keeps_name = call.function.keeps_name;
        let mut arguments = Arguments::new(self, call, grid, span);
        match call.function.body {
            Body::Map(body) => {
                let mut block = arguments.vector(0)?;
                block.drop_names();
                block.map(body);
                Ok(block)
            }
            Body::Window(body) => {
                let mut block = arguments.over_time(body)?;
                if !keeps_name {
                    block.drop_names();
                }
                Ok(block)
            }
            Body::Vector(body) => body(&mut arguments),
            Body::Scalar(_) => Err(EvalError::Internal("a vector was planned where the function yields none")),
        }
    }
}

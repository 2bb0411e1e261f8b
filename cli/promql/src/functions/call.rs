//! How the body of a function gets at its arguments.

use std::cell::OnceCell;

use regex::Regex;

use crate::eval::{Block, EvalError, Evaluator, Grid, Held, Period};
use crate::plan::{Call, Expr, RangeExpr};
use crate::{Labels, Level, Samples, Span, Summary};

/// The samples of one series within one range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// Never empty; ascending in time; no stale markers.
    pub(crate) samples: Samples<'a>,
    /// Start of the range, excluded.
    pub(crate) start_ms: i64,
    /// End of the range, included.
    pub(crate) end_ms: i64,
    /// The place of the first sample within the series.
    pub(crate) from: usize,
    pub(crate) falls: &'a Falls<'a>,
}

impl<'a> Window<'a> {
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> + use<'a> {
        self.samples.values().iter().copied()
    }

    /// What counter resets within the window took away: the sum of the values before each.
    pub(crate) fn lost_to_resets(&self) -> f64 {
        if !self.falls.any_between(self.from, self.from + self.samples.len() - 1) {
            return 0.0;
        }
        let pairs = self.values().zip(self.values().skip(1));
        pairs.filter(|(before, after)| after < before).map(|(before, _)| before).sum()
    }
}

/// Where the values of a series fall, counted once for all windows over it and only if asked.
///
/// Windows mostly hold no reset, and then need not be walked. A running total of what resets took away would spare
/// the walk in any case, but one huge value would spoil it for all windows behind.
#[derive(Debug)]
pub(crate) struct Falls<'a> {
    values: &'a [f64],
    counts: OnceCell<Vec<u32>>,
}

impl<'a> Falls<'a> {
    pub(crate) fn new(values: &'a [f64]) -> Self {
        Self { values, counts: OnceCell::new() }
    }

    /// Whether a value after the one at `first`, up to that at `last`, is smaller than the one before it.
    fn any_between(&self, first: usize, last: usize) -> bool {
        let counts = self.counts.get_or_init(|| self.count());
        counts.get(first) != counts.get(last)
    }

    /// How many falls there are up to each value; nothing if there are none at all.
    fn count(&self) -> Vec<u32> {
        let later = self.values.get(1..).unwrap_or_default();
        let pairs = || self.values.iter().zip(later).map(|(before, after)| after < before);
        // Of two slices and without an early end the loop compiles to vector instructions.
        if !pairs().fold(false, |found, falls| found | falls) {
            return Vec::new();
        }
        let mut falls = 0_u32;
        let count = |fell: bool| {
            falls = falls.wrapping_add(u32::from(fell));
            falls
        };
        [false].into_iter().chain(pairs()).map(count).collect()
    }
}

/// The arguments of one call, evaluated when asked for.
pub(crate) struct Arguments<'e, 'q> {
    evaluator: &'e mut Evaluator<'q>,
    call: &'e Call,
    grid: Grid,
    span: Span,
    /// What was evaluated of the arguments so far.
    held: Vec<Held<'q>>,
}

impl<'e, 'q> Arguments<'e, 'q> {
    pub(crate) fn new(evaluator: &'e mut Evaluator<'q>, call: &'e Call, grid: Grid, span: Span) -> Self {
        Self { evaluator, call, grid, span, held: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.call.arguments.len()
    }

    /// The steps at which the call is evaluated.
    pub(crate) fn grid(&self) -> Grid {
        self.grid
    }

    /// The times of the whole query, whatever subqueries enclose the call.
    pub(crate) fn query(&self) -> Period {
        self.evaluator.query()
    }

    /// The argument as it is written.
    pub(crate) fn expr(&self, at: usize) -> Result<&'e Expr, EvalError> {
        self.call.arguments.get(at).ok_or(EvalError::Internal("a function misses an argument"))
    }

    /// Where the argument stands.
    pub(crate) fn span(&self, at: usize) -> Span {
        self.call.arguments.get(at).map_or(self.span, Expr::span)
    }

    /// One number per step.
    pub(crate) fn scalar(&mut self, at: usize) -> Result<Vec<f64>, EvalError> {
        match self.expr(at)? {
            Expr::Scalar(scalar) => {
                let values = self.evaluator.scalar(scalar, self.grid)?;
                self.held.push(self.evaluator.hold_numbers(&values)?);
                Ok(values)
            }
            _ => Err(EvalError::Internal("a function takes a scalar where its signature has none")),
        }
    }

    /// One value per series and step.
    pub(crate) fn vector(&mut self, at: usize) -> Result<Block, EvalError> {
        match self.expr(at)? {
            Expr::Vector(vector) => {
                let block = self.evaluator.vector(vector, self.grid)?;
                self.held.push(self.evaluator.hold(&block)?);
                Ok(block)
            }
            _ => Err(EvalError::Internal("a function takes a vector where its signature has none")),
        }
    }

    /// Instead of values, the times of the samples that an instant selector finds, in seconds.
    pub(crate) fn sample_times(&mut self, at: usize) -> Result<Option<Block>, EvalError> {
        match self.expr(at)? {
            Expr::Vector(vector) => self.evaluator.sample_times(vector, self.grid),
            _ => Ok(None),
        }
    }

    pub(crate) fn text(&self, at: usize) -> Result<&'e str, EvalError> {
        match self.expr(at)? {
            Expr::Text(text) => Ok(&text.text),
            _ => Err(EvalError::Internal("a function takes a string where its signature has none")),
        }
    }

    /// The regular expression among the arguments.
    pub(crate) fn pattern(&self) -> Result<&'e Regex, EvalError> {
        self.call.pattern.as_ref().ok_or(EvalError::Internal("a function's pattern was not compiled"))
    }

    pub(crate) fn range(&self, at: usize) -> Result<&'e RangeExpr, EvalError> {
        match self.expr(at)? {
            Expr::Range(range) => Ok(range),
            _ => Err(EvalError::Internal("a function takes a range where its signature has none")),
        }
    }

    /// One value from each window of a range argument; `body` also learns the number of the step.
    pub(crate) fn windows(
        &mut self,
        at: usize,
        body: impl Fn(&Window<'_>, usize) -> Option<f64> + Sync,
    ) -> Result<Block, EvalError> {
        let range = self.range(at)?;
        self.evaluator.windows(range, self.grid, (self.call.function.scans, Summary::Last), body)
    }

    /// One value from each window of the only argument: by `body`, or as the function says of samples that stand for several.
    pub(crate) fn over_time(&mut self, body: fn(&Window<'_>) -> Option<f64>) -> Result<Block, EvalError> {
        let range = self.range(0)?;
        if !self.evaluator.summarises(range) {
            return self.windows(0, |window, _| body(window));
        }
        let mut result: Option<Block> = None;
        for (summary, body) in self.call.function.of_summaries {
            let block = self.evaluator.windows(range, self.grid, (true, *summary), |window, _| body(window))?;
            self.held.push(self.evaluator.hold(&block)?);
            result = match result {
                None => Some(block),
                Some(mut dividends) => {
                    dividends.divide(&block);
                    Some(dividends)
                }
            };
        }
        result.ok_or(EvalError::Internal("a function says nothing of samples that stand for several"))
    }

    /// Refuses a result of so many rows if it is too large.
    pub(crate) fn check_rows(&self, rows: usize) -> Result<(), EvalError> {
        self.evaluator.check_cells(rows, self.grid.steps)
    }

    /// Counts labels that the function made.
    pub(crate) fn keep_labels(&self, labels: &Labels) -> Result<(), EvalError> {
        self.evaluator.keep_labels(labels)
    }

    /// Counts values that are looked at beyond one per series and step.
    pub(crate) fn scan(&self, values: usize) -> Result<(), EvalError> {
        self.evaluator.scan(values)
    }

    /// Says something about the result.
    pub(crate) fn annotate(&mut self, level: Level, at: usize, message: String) {
        let span = self.span(at);
        self.evaluator.annotate(level, span, message);
    }
}

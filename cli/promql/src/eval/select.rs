//! From samples to values at steps: instant selectors, and windows over ranges.

use std::borrow::Cow;

use super::budget::{Scan, VALUE_BYTES};
use super::{ABSENT, Block, EvalError, Evaluator, Grid, is_absent};
use crate::functions::{Falls, Window};
use crate::plan::{At, RangeExpr, RangeKind, Select, VectorExpr, VectorKind};
use crate::{Labels, Sample, Series, is_stale};

/// A run of samples that windows are cut from.
struct Run<'a> {
    labels: &'a Labels,
    drop_name: bool,
    samples: Cow<'a, [Sample]>,
}

impl Evaluator<'_> {
    /// At each step the newest sample within the lookback, unless that is a stale marker.
    pub(super) fn select(&self, select: &Select, grid: Grid) -> Result<Block, EvalError> {
        self.newest(select, grid, |sample| sample.value)
    }

    /// In place of values the times of the samples in seconds, if the expression is a bare instant selector.
    pub(crate) fn sample_times(&mut self, vector: &VectorExpr, grid: Grid) -> Result<Option<Block>, EvalError> {
        #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 milliseconds")]
        let seconds = |sample: &Sample| sample.time_ms as f64 / 1_000.0;
        match &vector.kind {
            VectorKind::Select(select) => self.newest(select, grid, seconds).map(Some),
            _ => Ok(None),
        }
    }

    fn newest(&self, select: &Select, grid: Grid, value: impl Fn(&Sample) -> f64) -> Result<Block, EvalError> {
        let lookback_ms = self.options.lookback_ms;
        let mut block = Block::new(grid.steps);
        self.sources.each(select.id, |labels, samples| {
            self.check_cells(block.rows().len() + 1, grid.steps)?;
            let mut next = Cursor::default();
            let values = self.times(grid, select.offset_ms, select.at).map(|time_ms| {
                let newest = next.advance(samples, time_ms).checked_sub(1).and_then(|at| samples.get(at));
                match newest {
                    Some(sample) if sample.time_ms > time_ms - lookback_ms && !is_stale(sample.value) => value(sample),
                    _ => ABSENT,
                }
            });
            block.push_if_present(labels, false, values);
            Ok(())
        })?;
        block.mark_distinct();
        Ok(block)
    }

    /// One value from each window: a window ends at each step. `scans` tells whether `body` walks whole windows.
    pub(crate) fn windows(
        &mut self,
        range: &RangeExpr,
        grid: Grid,
        scans: bool,
        mut body: impl FnMut(&Window<'_>, usize) -> Option<f64>,
    ) -> Result<Block, EvalError> {
        let ends: Vec<i64> = self.times(grid, range.offset_ms, range.at).collect();
        self.runs(range, grid, |evaluator, run, block| {
            evaluator.check_cells(block.rows().len() + 1, grid.steps)?;
            let falls = Falls::new(&run.samples);
            let (mut first, mut last) = (Cursor::default(), Cursor::default());
            let mut scan = Scan::new(&evaluator.budget);
            let values = ends.iter().enumerate().map(|(step, &end_ms)| {
                let start_ms = end_ms - range.range_ms;
                let to = last.advance(&run.samples, end_ms);
                let from = first.advance(&run.samples, start_ms).min(to);
                let samples = run.samples.get(from..to).unwrap_or_default();
                if samples.is_empty() || scan.is_over(if scans { samples.len() } else { 1 }) {
                    return ABSENT;
                }
                body(&Window { samples, start_ms, end_ms, from, falls: &falls }, step).unwrap_or(ABSENT)
            });
            block.push_if_present(run.labels, run.drop_name, values);
            scan.finish()
        })
    }

    /// The samples of a range at one instant: the value of a range selector as a query of its own.
    pub(super) fn range(&mut self, range: &RangeExpr, time_ms: i64) -> Result<Vec<(Series, bool)>, EvalError> {
        let grid = Grid::instant(time_ms);
        let end_ms = self.times(grid, range.offset_ms, range.at).next().unwrap_or(time_ms);
        let mut found = Vec::new();
        self.runs(range, grid, |evaluator, run, _| {
            let samples: Vec<Sample> = run
                .samples
                .iter()
                .filter(|sample| sample.time_ms > end_ms - range.range_ms && sample.time_ms <= end_ms)
                .copied()
                .collect();
            if !samples.is_empty() {
                evaluator.budget.keep_samples(samples.len())?;
                found.push((Series { labels: run.labels.clone(), samples }, run.drop_name));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Hands each series of a range to `body`, stale markers taken out.
    fn runs(
        &mut self,
        range: &RangeExpr,
        grid: Grid,
        mut body: impl FnMut(&Self, &Run<'_>, &mut Block) -> Result<(), EvalError>,
    ) -> Result<Block, EvalError> {
        let mut block = Block::new(grid.steps);
        match &range.kind {
            RangeKind::Select { id, .. } => {
                let evaluator = &*self;
                evaluator.sources.each(*id, |labels, samples| {
                    evaluator.budget.scan(samples.len())?;
                    let run = Run { labels, drop_name: false, samples: without_stale(samples) };
                    body(evaluator, &run, &mut block)
                })?;
            }
            RangeKind::Subquery { inner, step_ms } => {
                let (first, last) = self.bounds(grid, range);
                let Some(inner_grid) = Grid::multiples(first - range.range_ms, last, *step_ms) else {
                    return Ok(block);
                };
                let of_row = inner_grid.steps.saturating_mul(size_of::<Sample>());
                self.budget.check_bytes(of_row.saturating_add(inner_grid.steps.saturating_mul(VALUE_BYTES)))?;
                let values = self.vector(inner, inner_grid)?;
                let _values_held = self.hold(&values)?;
                let _row_held = self.budget.hold(of_row)?;
                for (row, values) in values.iter() {
                    self.budget.scan(inner_grid.steps)?;
                    let samples = present_samples(inner_grid, values);
                    let run = Run { labels: &row.labels, drop_name: row.drop_name, samples: samples.into() };
                    body(self, &run, &mut block)?;
                }
            }
        }
        Ok(block)
    }

    fn bounds(&self, grid: Grid, range: &RangeExpr) -> (i64, i64) {
        let mut times = self.times(grid, range.offset_ms, range.at);
        let first = times.next().unwrap_or(grid.start_ms);
        (first, times.last().unwrap_or(first))
    }

    /// The instants that a selector with these modifiers means at each step.
    fn times(&self, grid: Grid, offset_ms: i64, at: Option<At>) -> impl Iterator<Item = i64> + use<> {
        let pinned = at.map(|at| at.time_ms(self.query));
        grid.times().map(move |time_ms| pinned.unwrap_or(time_ms) - offset_ms)
    }
}

/// A place among samples that moves forward with the steps.
///
/// Series are mostly regular, so that it mostly moves by as many samples as the last time.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    at: usize,
    stride: usize,
}

impl Cursor {
    /// Moves to an instant, not before the last one, and returns how many samples lie up to it.
    #[inline]
    fn advance(&mut self, samples: &[Sample], time_ms: i64) -> usize {
        let guess = self.at + self.stride;
        let reached = guess == 0 || samples.get(guess - 1).is_some_and(|sample| sample.time_ms <= time_ms);
        let passed = reached && samples.get(guess).is_some_and(|sample| sample.time_ms <= time_ms);
        let from = if reached { guess } else { self.at };
        let at = if reached && !passed { guess } else { from + count_until(samples, from, time_ms) };
        self.stride = at - self.at;
        self.at = at;
        at
    }
}

/// How many samples from a place on lie up to an instant; near ones are found first.
fn count_until(samples: &[Sample], from: usize, time_ms: i64) -> usize {
    let rest = samples.get(from..).unwrap_or_default();
    let mut bound = 1;
    while rest.get(bound - 1).is_some_and(|sample| sample.time_ms <= time_ms) {
        bound *= 2;
    }
    let near = rest.get(..bound).unwrap_or(rest);
    near.partition_point(|sample| sample.time_ms <= time_ms)
}

fn without_stale(samples: &[Sample]) -> Cow<'_, [Sample]> {
    // Without an early end the loop compiles to vector instructions.
    if samples.iter().fold(false, |found, sample| found | is_stale(sample.value)) {
        samples.iter().filter(|sample| !is_stale(sample.value)).copied().collect()
    } else {
        Cow::Borrowed(samples)
    }
}

fn present_samples(grid: Grid, values: &[f64]) -> Vec<Sample> {
    grid.times()
        .zip(values)
        .filter(|(_, value)| !is_absent(**value))
        .map(|(time_ms, &value)| Sample { time_ms, value })
        .collect()
}

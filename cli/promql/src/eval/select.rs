//! From samples to values at steps: instant selectors, and windows over ranges.

use std::rc::Rc;

use super::block::Row;
use super::budget::{Scan, VALUE_BYTES};
use super::{ABSENT, Block, EvalError, Evaluator, Grid, is_absent};
use crate::functions::{Falls, Window};
use crate::plan::{At, RangeExpr, RangeKind, Select, VectorExpr, VectorKind};
use crate::sample::Columns;
use crate::{Labels, Sample, Samples, Series, Summary, is_stale};

impl Evaluator<'_> {
    /// At each step the newest sample within the lookback, unless that is a stale marker.
    pub(super) fn select(&self, select: &Select, grid: Grid) -> Result<Block, EvalError> {
        self.newest(select, grid, |sample| sample.value)
    }

    /// In place of values the times of the samples in seconds, if the expression is a bare instant selector.
    pub(crate) fn sample_times(&mut self, vector: &VectorExpr, grid: Grid) -> Result<Option<Block>, EvalError> {
        #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 milliseconds")]
        let seconds = |sample: Sample| sample.time_ms as f64 / 1_000.0;
        match &vector.kind {
            VectorKind::Select(select) => self.newest(select, grid, seconds).map(Some),
            _ => Ok(None),
        }
    }

    fn newest(&self, select: &Select, grid: Grid, value: impl Fn(Sample) -> f64 + Sync) -> Result<Block, EvalError> {
        let lookback_ms = self.options.lookback_ms;
        let times = self.times(grid, select.offset_ms, select.at);
        let reduce = |samples: Samples<'_>, values: &mut Vec<f64>| {
            let mut next = Cursor::default();
            values.extend(times.clone().map(|time_ms| {
                let newest = next.advance(samples.times_ms(), time_ms).checked_sub(1).and_then(|at| samples.get(at));
                match newest {
                    Some(sample) if sample.time_ms > time_ms - lookback_ms && !is_stale(sample.value) => value(sample),
                    _ => ABSENT,
                }
            }));
            Ok(())
        };
        let mut block = Block::new(grid.steps);
        self.sources.reduce((select.id, Summary::Last), &reduce, |labels, values| {
            self.check_cells(block.rows().len() + 1, grid.steps)?;
            block.push_if_present(labels, false, values.iter().copied());
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
        (scans, summary): (bool, Summary),
        body: impl Fn(&Window<'_>, usize) -> Option<f64> + Sync,
    ) -> Result<Block, EvalError> {
        let ends: Vec<i64> = self.times(grid, range.offset_ms, range.at).collect();
        let budget = Rc::clone(&self.budget);
        let budget = &*budget;
        // The values of a subquery were counted when they were made.
        let is_selected = matches!(range.kind, RangeKind::Select { .. });
        let reduce = |samples: Samples<'_>, values: &mut Vec<f64>| {
            if is_selected {
                budget.scan(samples.len())?;
            }
            let mut columns = Columns::default();
            let samples = without_stale(samples, &mut columns);
            let falls = Falls::new(samples.values());
            let (mut first, mut last) = (Cursor::default(), Cursor::default());
            let mut scan = Scan::new(budget);
            values.extend(ends.iter().enumerate().map(|(step, &end_ms)| {
                let start_ms = end_ms - range.range_ms;
                let to = last.advance(samples.times_ms(), end_ms);
                let from = first.advance(samples.times_ms(), start_ms).min(to);
                let samples = samples.part(from, to);
                if samples.is_empty() || scan.is_over(if scans { samples.len() } else { 1 }) {
                    return ABSENT;
                }
                body(&Window { samples, start_ms, end_ms, from, falls: &falls }, step).unwrap_or(ABSENT)
            }));
            scan.finish()
        };
        let mut block = Block::new(grid.steps);
        if let RangeKind::Select { id, .. } = &range.kind {
            self.sources.reduce((*id, summary), &reduce, |labels, values| {
                self.check_cells(block.rows().len() + 1, grid.steps)?;
                block.push_if_present(labels, false, values.iter().copied());
                Ok(())
            })?;
            return Ok(block);
        }
        let mut values = Vec::new();
        self.of_subquery(range, grid, |evaluator, row, samples| {
            evaluator.check_cells(block.rows().len() + 1, grid.steps)?;
            values.clear();
            reduce(samples, &mut values)?;
            block.push_if_present(&row.labels, row.drop_name, values.iter().copied());
            Ok(())
        })?;
        Ok(block)
    }

    /// Whether the samples of a range may stand for several, and a function wants to know more of these than the last.
    pub(crate) fn summarises(&self, range: &RangeExpr) -> bool {
        matches!(range.kind, RangeKind::Select { id, .. } if self.sources.summarises(id))
    }

    /// The samples of a range at one instant: the value of a range selector as a query of its own.
    pub(super) fn range(&mut self, range: &RangeExpr, time_ms: i64) -> Result<Vec<(Series, bool)>, EvalError> {
        let grid = Grid::instant(time_ms);
        let end_ms = self.times(grid, range.offset_ms, range.at).next().unwrap_or(time_ms);
        let start_ms = end_ms - range.range_ms;
        let budget = Rc::clone(&self.budget);
        let mut found = Vec::new();
        let mut add = |labels: &Labels, drop_name: bool, samples: Samples<'_>| {
            let is_wanted =
                |sample: &Sample| sample.time_ms > start_ms && sample.time_ms <= end_ms && !is_stale(sample.value);
            let samples: Vec<Sample> = samples.iter().filter(is_wanted).collect();
            if !samples.is_empty() {
                budget.keep_samples(samples.len())?;
                found.push((Series { labels: labels.clone(), samples }, drop_name));
            }
            Ok(())
        };
        match &range.kind {
            RangeKind::Select { id, .. } => self.sources.each(*id, |labels, samples| add(labels, false, samples))?,
            RangeKind::Subquery { .. } => {
                self.of_subquery(range, grid, |_, row, samples| add(&row.labels, row.drop_name, samples))?;
            }
        }
        Ok(found)
    }

    /// Hands to `body` what a subquery makes: each of its rows as samples.
    fn of_subquery(
        &mut self,
        range: &RangeExpr,
        grid: Grid,
        mut body: impl FnMut(&Self, &Row, Samples<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let RangeKind::Subquery { inner, step_ms } = &range.kind else { return Ok(()) };
        let (first, last) = self.bounds(grid, range);
        let Some(inner_grid) = Grid::multiples(first - range.range_ms, last, *step_ms) else { return Ok(()) };
        let of_row = inner_grid.steps.saturating_mul(size_of::<Sample>());
        self.budget.check_bytes(of_row.saturating_add(inner_grid.steps.saturating_mul(VALUE_BYTES)))?;
        let values = self.vector(inner, inner_grid)?;
        let _values_held = self.hold(&values)?;
        let _row_held = self.budget.hold(of_row)?;
        let mut columns = Columns::default();
        for (row, values) in values.iter() {
            self.budget.scan(inner_grid.steps)?;
            let samples = inner_grid.times().zip(values).map(|(time_ms, &value)| Sample { time_ms, value });
            body(self, row, columns.fill(samples.filter(|sample| !is_absent(sample.value))))?;
        }
        Ok(())
    }

    fn bounds(&self, grid: Grid, range: &RangeExpr) -> (i64, i64) {
        let mut times = self.times(grid, range.offset_ms, range.at);
        let first = times.next().unwrap_or(grid.start_ms);
        (first, times.last().unwrap_or(first))
    }

    /// The instants that a selector with these modifiers means at each step.
    fn times(&self, grid: Grid, offset_ms: i64, at: Option<At>) -> impl Iterator<Item = i64> + Clone + use<> {
        let pinned = at.map(|at| at.time_ms(self.query));
        grid.times().map(move |time_ms| pinned.unwrap_or(time_ms) - offset_ms)
    }
}

/// A place among times that moves forward with the steps.
///
/// Series are mostly regular, so that it mostly moves by as many samples as the last time.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    at: usize,
    stride: usize,
}

impl Cursor {
    /// Moves to an instant, not before the last one, and returns how many times lie up to it.
    #[inline]
    fn advance(&mut self, times_ms: &[i64], time_ms: i64) -> usize {
        let guess = self.at + self.stride;
        let reached = guess == 0 || times_ms.get(guess - 1).is_some_and(|&time| time <= time_ms);
        let passed = reached && times_ms.get(guess).is_some_and(|&time| time <= time_ms);
        let from = if reached { guess } else { self.at };
        let at = if reached && !passed { guess } else { from + count_until(times_ms, from, time_ms) };
        self.stride = at - self.at;
        self.at = at;
        at
    }
}

/// How many times from a place on lie up to an instant; near ones are found first.
fn count_until(times_ms: &[i64], from: usize, time_ms: i64) -> usize {
    let rest = times_ms.get(from..).unwrap_or_default();
    let mut bound = 1;
    while rest.get(bound - 1).is_some_and(|&time| time <= time_ms) {
        bound *= 2;
    }
    let near = rest.get(..bound).unwrap_or(rest);
    near.partition_point(|&time| time <= time_ms)
}

/// The same samples if none is a stale marker, or what is left of them in `columns`.
fn without_stale<'a>(samples: Samples<'a>, columns: &'a mut Columns) -> Samples<'a> {
    // Without an early end the loop compiles to vector instructions.
    if samples.values().iter().fold(false, |found, &value| found | is_stale(value)) {
        columns.fill(samples.iter().filter(|sample| !is_stale(sample.value)))
    } else {
        samples
    }
}

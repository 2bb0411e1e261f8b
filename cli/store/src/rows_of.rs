//! Rows of minutes and hours, from blocks where they are there, from raw samples where they are not yet. Pure.
//!
//! An hour's rows are made when its raw samples are merged for good. Until then, and again while late samples wait to be merged, they are
//! made of the raw samples when they are asked for.

use std::{collections::BTreeSet, sync::Arc};

use belfry_common::model::Timestamp;

use crate::{
    Pick,
    block::{Block, Tier},
    compact::row_ms,
    partition::HOUR_MS,
    selection::{Aggregate, Extent, Grain, Sample, Selection, TimeRange, put_in_order},
};

/// Which rows are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsOf {
    pub(crate) tier: Tier,
    pub(crate) aggregate: Aggregate,
    row_ms: i64,
}

/// The hours of a span of milliseconds, both ends included.
pub(crate) fn hours_of(first_ms: i64, last_ms: i64) -> impl Iterator<Item = i64> {
    first_ms.div_euclid(HOUR_MS)..=last_ms.div_euclid(HOUR_MS)
}

impl RowsOf {
    pub(crate) fn of(selection: &Selection<'_>) -> Option<Self> {
        let Grain::Rows(tier, aggregate) = selection.grain else { return None };
        Some(Self { tier, aggregate, row_ms: row_ms(tier)? })
    }

    /// What is to be read for the rows that are wanted: they begin before they are known.
    pub(crate) fn widened<'a>(self, selection: &Selection<'a>) -> Selection<'a> {
        let TimeRange { after, until } = selection.range;
        let start = Timestamp::from_millis(after.as_millis().div_euclid(self.row_ms).saturating_mul(self.row_ms));
        let range = TimeRange { after: start.plus_millis(-self.row_ms - 1), until };
        Selection { range, pick: Pick::All, ..*selection }
    }

    /// The hours of which there are rows, and nothing that is not in them.
    pub(crate) fn hours(self, blocks: &[Arc<Block>]) -> BTreeSet<i64> {
        let summaries = || blocks.iter().map(|block| block.summary());
        let rows = summaries().filter(|summary| summary.tier == self.tier);
        let mut hours: BTreeSet<i64> = rows.flat_map(|summary| hours_of(summary.first_ms, summary.last_ms)).collect();
        for waiting in summaries().filter(|summary| summary.tier == Tier::Raw && !summary.is_final) {
            for hour in hours_of(waiting.first_ms, waiting.last_ms) {
                hours.remove(&hour);
            }
        }
        hours
    }

    /// Makes rows of raw samples.
    pub(crate) fn of_samples(self, samples: &[Sample], wanted: Extent) -> Vec<Sample> {
        let row = |sample: &Sample| sample.time.as_millis().div_euclid(self.row_ms);
        let rows = samples.chunk_by(|a, b| row(a) == row(b)).filter_map(|samples| {
            let time = Timestamp::from_millis((row(samples.first()?) + 1).saturating_mul(self.row_ms));
            Some(Sample { time, value: self.value(samples) })
        });
        let mut rows: Vec<Sample> = rows.filter(|row| wanted.range.contains(row.time)).collect();
        wanted.pick.thin(&mut rows, 0);
        rows
    }

    fn value(self, samples: &[Sample]) -> Result<f64, Option<belfry_common::model::Reason>> {
        let values = || samples.iter().filter_map(|sample| sample.value.ok());
        let reason = samples.iter().rfind(|sample| sample.value != Err(None));
        let without = reason.map_or(Err(None), |sample| sample.value);
        match (self.aggregate, values().next_back()) {
            (Aggregate::Count, _) => Ok(values().count() as f64),
            (_, None) => without,
            (Aggregate::Min, Some(last)) => Ok(values().fold(last, f64::min)),
            (Aggregate::Max, Some(last)) => Ok(values().fold(last, f64::max)),
            (Aggregate::Sum, _) => Ok(values().sum()),
            (Aggregate::Last, Some(last)) => Ok(last),
        }
    }

    /// Puts rows of blocks and rows of raw samples together, each from the hours that are theirs.
    pub(crate) fn join(
        self,
        samples: &mut Vec<Sample>,
        from_blocks: &mut Vec<Sample>,
        hours: &BTreeSet<i64>,
        wanted: Extent,
    ) {
        let is_theirs = |sample: &Sample| hours.contains(&sample.time.as_millis().div_euclid(HOUR_MS));
        samples.retain(|sample| !is_theirs(sample));
        let made = self.of_samples(samples, Extent { pick: Pick::All, ..wanted });
        from_blocks.retain(is_theirs);
        // A row stands at its beginning in a block, and is known at its end.
        from_blocks.iter_mut().for_each(|row| row.time = row.time.plus_millis(self.row_ms));
        from_blocks.retain(|row| wanted.range.contains(row.time));
        samples.clear();
        samples.append(from_blocks);
        samples.extend(made);
        // What counts nothing yields to what counts something, as its other columns do.
        let counts = self.aggregate == Aggregate::Count;
        let replace = |samples: &mut [Sample], from, to| {
            samples.iter_mut().filter(|row| counts && row.value == from).for_each(|row| row.value = to);
        };
        replace(samples, Ok(0.0), Err(None));
        put_in_order(samples, 0);
        replace(samples, Err(None), Ok(0.0));
    }
}

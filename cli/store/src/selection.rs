//! What is asked of a store.

use belfry_common::model::{Reason, SeriesDefinition, Timestamp};

use crate::{NodeId, Pick, Tier, compact::row_ms};

/// A span of time, without its start and with its end, as PromQL has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// Samples are later than this.
    pub after: Timestamp,
    /// Samples are not later than this.
    pub until: Timestamp,
}

impl TimeRange {
    /// All of time, and not so much that sums with it overflow.
    pub const ALL: Self = Self { after: Timestamp::from_millis(-1 << 60), until: Timestamp::from_millis(1 << 60) };

    pub(crate) fn contains(&self, time: Timestamp) -> bool {
        self.after < time && time <= self.until
    }

    /// Whether it has something of the span from `first` to `last`, both included, in milliseconds.
    pub(crate) fn overlaps(&self, first: i64, last: i64) -> bool {
        last > self.after.as_millis() && first <= self.until.as_millis()
    }
}

/// Which series to read, and what of them.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// Only series of the metric with this name.
    pub metric: Option<&'a str>,
    /// Only series of which every condition holds. What is on disk is looked through by these, one value of a label once.
    pub conditions: &'a [Condition<'a>],
    /// Only series for which this holds. What is in memory is looked through by this alone, so that it must include the conditions.
    pub filter: &'a (dyn Fn(&SeriesDefinition) -> bool + Sync),
    /// Only samples of this span.
    pub range: TimeRange,
    /// Which of them.
    pub pick: Pick,
    /// How coarse the samples may be.
    pub grain: Grain,
}

/// What of each series is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) range: TimeRange,
    pub(crate) pick: Pick,
}

impl Selection<'_> {
    /// Every sample of every series, as it was read.
    pub const ALL: Self = Self {
        metric: None,
        conditions: &[],
        filter: &|_| true,
        range: TimeRange::ALL,
        pick: Pick::All,
        grain: Grain::Raw,
    };

    pub(crate) fn extent(&self) -> Extent {
        Extent { range: self.range, pick: self.pick }
    }
}

/// How coarse samples may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// As they were read.
    Raw,
    /// One for each row of this tier: minutes or hours. A row is known at its end, and that is its time.
    Rows(Tier, Aggregate),
}

impl Grain {
    /// The coarsest rows of which at least one falls on each step of so many milliseconds; raw samples if there are none such.
    #[must_use]
    pub fn for_step(step_ms: i64, aggregate: Aggregate) -> Self {
        let fits = |tier: &Tier| row_ms(*tier).is_some_and(|row| row <= step_ms);
        Tier::ALL.into_iter().rfind(fits).map_or(Self::Raw, |tier| Self::Rows(tier, aggregate))
    }
}

/// What of a row is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The least value.
    Min,
    /// The greatest.
    Max,
    /// The sum of all.
    Sum,
    /// How many there were.
    Count,
    /// The last.
    Last,
}

impl Aggregate {
    /// All, in the order of the columns.
    pub const ALL: [Self; 5] = [Self::Min, Self::Max, Self::Sum, Self::Count, Self::Last];

    pub(crate) fn column(self) -> usize {
        Self::ALL.iter().position(|known| *known == self).unwrap_or_default()
    }
}

impl std::fmt::Debug for Selection<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selection").field("metric", &self.metric).field("range", &self.range).finish_non_exhaustive()
    }
}

/// What is asked of one label.
#[derive(Clone, Copy)]
pub struct Condition<'a> {
    /// Its name; `__name__` is the metric's.
    pub label: &'a str,
    /// Whether a value fits; a series without the label has the empty one.
    pub fits: &'a (dyn Fn(&str) -> bool + Sync),
}

impl std::fmt::Debug for Condition<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition").field("label", &self.label).finish_non_exhaustive()
    }
}

/// The label under which a metric's name is asked for.
pub(crate) const METRIC_NAME: &str = "__name__";

/// What was known of a series at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it was read. Of a row that is selected its end, of one that is scanned its beginning.
    pub time: Timestamp,
    /// The value, in the unit that the metric's name ends with; or why there was none; or `Err(None)` when the series ended here.
    pub value: Result<f64, Option<Reason>>,
}

/// Nodes in ascending order, or all.
pub(crate) type Nodes<'a> = Option<&'a [NodeId]>;

/// Puts samples that came late in their place; of two at one time the one that came last counts, and an end only if it is alone: what goes
/// on elsewhere, as with another layout, has not ended.
///
/// What is read block by block are a few runs, each in order, of which most overlap no other: a merged block comes after smaller ones that
/// are newer, and memory has the end of what is on disk. Only runs that do overlap are sorted.
pub(crate) fn put_in_order(samples: &mut Vec<Sample>, from: usize) {
    let added = samples.get(from..).unwrap_or_default();
    let Some(late) = added.windows(2).position(|pair| matches!(pair, [a, b] if a.time >= b.time)) else { return };
    let (in_order, others) = added.split_at(late + 1);
    let earliest = others.iter().map(|sample| sample.time).min();
    let from = from + in_order.partition_point(|sample| Some(sample.time) < earliest);
    let mixed = samples.split_off(from);
    let mut runs: Vec<Run<'_>> = mixed.chunk_by(|a, b| a.time < b.time).enumerate().filter_map(Run::of).collect();
    runs.sort_by_key(|run| run.first);
    let mut rest = runs.as_mut_slice();
    while let Some(first) = rest.first() {
        let mut last = first.last;
        let overlap = rest.iter().skip(1).take_while(|run| {
            let overlaps = run.first <= last;
            last = last.max(run.last);
            overlaps
        });
        let (together, others) = rest.split_at_mut(1 + overlap.count());
        joined(together, samples);
        rest = others;
    }
}

/// Samples in order, and where they came among other runs.
struct Run<'a> {
    place: usize,
    samples: &'a [Sample],
    first: Timestamp,
    last: Timestamp,
}

impl<'a> Run<'a> {
    fn of((place, samples): (usize, &'a [Sample])) -> Option<Self> {
        Some(Self { place, samples, first: samples.first()?.time, last: samples.last()?.time })
    }
}

/// Appends what runs have that overlap.
fn joined(runs: &mut [Run<'_>], samples: &mut Vec<Sample>) {
    if let [run] = runs {
        return samples.extend_from_slice(run.samples);
    }
    runs.sort_by_key(|run| run.place);
    let mut mixed: Vec<Sample> = runs.iter().flat_map(|run| run.samples).copied().collect();
    mixed.sort_by_key(|sample| (sample.time, sample.value != Err(None)));
    mixed.reverse();
    mixed.dedup_by_key(|sample| sample.time);
    samples.extend(mixed.into_iter().rev());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn samples_are_put_in_order_and_the_one_that_came_last_counts(
            runs in proptest::collection::vec((0_i64..60, 1_i64..12, 1_i64..3), 0..8),
            kept in 0_usize..3,
        ) {
            // Some ends, which count only where nothing else is said of their time.
            let value = |time: i64, number: usize| if (time as usize + number).is_multiple_of(5) { Err(None) } else { Ok(number as f64) };
            let sample = |time: i64, number| Sample { time: Timestamp::from_millis(time), value: value(time, number) };
            let mut samples: Vec<Sample> = (0..kept).map(|at| sample(500 + at as i64, 0)).collect();
            let mut expected = BTreeMap::new();
            for (number, (start, count, step)) in (1..).zip(runs) {
                for time in (0..count).map(|at| start + at * step) {
                    samples.push(sample(time, number));
                    if !expected.contains_key(&time) || value(time, number) != Err(None) {
                        expected.insert(time, value(time, number));
                    }
                }
            }
            put_in_order(&mut samples, kept);
            let seen: Vec<_> =
                samples.iter().skip(kept).map(|sample| (sample.time.as_millis(), sample.value)).collect();
            prop_assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
        }
    }
}

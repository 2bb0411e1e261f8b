//! Hours of which there are rows of minutes or hours and no raw samples any more. Pure.

use std::collections::BTreeSet;

use belfry_common::model::Timestamp;

use crate::{
    block::{Summary, Tier},
    partition::HOUR_MS,
    rows_of::hours_of,
    selection::TimeRange,
};

/// Rows that stand alone: those of one tier, hour by hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsAlone {
    /// The tier of the rows: the finest that there is of these hours.
    pub tier: Tier,
    /// Hours since the Unix epoch.
    hours: BTreeSet<i64>,
}

impl RowsAlone {
    /// Of each tier of rows, of all these blocks; of minutes first.
    pub(crate) fn of(blocks: &[&Summary]) -> Vec<Self> {
        let hours = |tier: Tier| -> BTreeSet<i64> {
            let of_tier = blocks.iter().filter(|summary| summary.tier == tier);
            of_tier.flat_map(|summary| hours_of(summary.first_ms, summary.last_ms)).collect()
        };
        let mut finer = hours(Tier::Raw);
        let mut alone = Vec::new();
        for tier in [Tier::Minute, Tier::Hour] {
            let own = hours(tier);
            let hours: BTreeSet<i64> = own.difference(&finer).copied().collect();
            if !hours.is_empty() {
                alone.push(Self { tier, hours });
            }
            finer.extend(own);
        }
        alone
    }

    /// Those of the rows that a range of time can show, and the range that they lie in; nothing if there are none.
    pub(crate) fn within(&self, range: TimeRange) -> Option<Self> {
        let newest = self.hours.last()?;
        // What is asked most often is of the last minutes.
        if (newest + 1) * HOUR_MS <= range.after.as_millis() {
            return None;
        }
        let (first, last) = (range.after.as_millis().div_euclid(HOUR_MS), range.until.as_millis().div_euclid(HOUR_MS));
        let hours: BTreeSet<i64> = self.hours.range(first.min(last)..=last).copied().collect();
        (!hours.is_empty()).then_some(Self { tier: self.tier, hours })
    }

    /// The times at which these rows are known: a row is at its end.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        let time = |hour: Option<&i64>, more: i64| {
            Timestamp::from_millis((hour.copied().unwrap_or_default() + more) * HOUR_MS)
        };
        TimeRange { after: time(self.hours.first(), 0), until: time(self.hours.last(), 1) }
    }

    /// Whether a row that ends at this time is one of them.
    #[must_use]
    pub fn has(&self, end: Timestamp) -> bool {
        self.hours.contains(&(end.as_millis() - 1).div_euclid(HOUR_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(tier: Tier, hours: std::ops::RangeInclusive<i64>) -> Summary {
        Summary::example(1, tier, (hours.start() * HOUR_MS, hours.end() * HOUR_MS + 59 * 60_000))
    }

    #[test]
    fn the_finest_that_is_left_stands_for_each_hour() {
        // A late raw hour among those that are gone does not hide the rows of the others.
        let blocks = [
            block(Tier::Raw, 100..=110),
            block(Tier::Raw, 50..=50),
            block(Tier::Minute, 40..=105),
            block(Tier::Hour, 0..=105),
        ];
        let alone = RowsAlone::of(&blocks.iter().collect::<Vec<_>>());
        let at = |hour: i64| Timestamp::from_millis(hour * HOUR_MS);
        let has = |tier: Tier, hour: i64| {
            alone.iter().any(|rows| rows.tier == tier && rows.has(Timestamp::from_millis(hour * HOUR_MS + 60_000)))
        };
        assert!(has(Tier::Minute, 40) && has(Tier::Minute, 99) && !has(Tier::Minute, 50) && !has(Tier::Minute, 100));
        assert!(has(Tier::Hour, 0) && has(Tier::Hour, 39) && !has(Tier::Hour, 40));
        let range = |after: i64, until: i64| TimeRange { after: at(after), until: at(until) };
        assert_eq!(alone[0].within(range(100, 110)), None);
        assert_eq!(alone[0].within(range(0, 30)), None);
        let within = alone[0].within(range(60, 70)).expect("rows");
        assert_eq!((within.range(), within.has(at(60))), (range(60, 71), false));
        assert!(RowsAlone::of(&[&block(Tier::Minute, 1..=2)])[0].has(at(3)), "without any raw samples");
    }
}

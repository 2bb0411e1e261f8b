//! Which batches of an epoch are stored: the memory that makes delivery exactly-once.
//!
//! The collector keeps one for each epoch, to know a batch that comes again; the agent keeps one of what was acknowledged.

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::{limits, model::Sequence};

/// A peer left more holes in its numbers than anyone honest does.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("more than {} separate runs of sequence numbers in one epoch", limits::SEQUENCE_RUNS_MAX)]
pub struct TooManyRuns;

/// A set of sequence numbers, kept as ascending runs that never touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceSet {
    runs: Vec<(Sequence, Sequence)>,
}

impl SequenceSet {
    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, sequence: Sequence) -> bool {
        let after = self.runs.partition_point(|&(first, _)| first <= sequence);
        after.checked_sub(1).and_then(|place| self.runs.get(place)).is_some_and(|&(_, last)| sequence <= last)
    }

    /// Adds a run of numbers, some of which may be there already.
    ///
    /// # Errors
    /// [`TooManyRuns`] when it would stand alone and the set has as many runs as it may.
    pub fn insert(&mut self, run: RangeInclusive<Sequence>) -> Result<(), TooManyRuns> {
        let (mut first, mut last) = run.into_inner();
        // Runs that overlap the new one or touch it become one with it.
        let from = self.runs.partition_point(|&(_, end)| end < first.saturating_sub(1));
        let to = self.runs.partition_point(|&(start, _)| start <= last.saturating_add(1));
        if from >= to && self.runs.len() >= limits::SEQUENCE_RUNS_MAX {
            return Err(TooManyRuns);
        }
        for &(start, end) in self.runs.get(from..to).unwrap_or_default() {
            first = first.min(start);
            last = last.max(end);
        }
        self.runs.splice(from..to.max(from), [(first, last)]);
        Ok(())
    }

    /// The runs, ascending.
    pub fn runs(&self) -> impl Iterator<Item = (Sequence, Sequence)> {
        self.runs.iter().copied()
    }

    /// How many numbers of a run are not in the set.
    #[must_use]
    pub fn missing_of(&self, run: RangeInclusive<Sequence>) -> u64 {
        let (first, last) = run.into_inner();
        let known = self.runs.iter().map(|&(start, end)| {
            let (from, to) = (start.max(first), end.min(last));
            if from <= to { to - from + 1 } else { 0 }
        });
        (last - first).saturating_add(1).saturating_sub(known.sum())
    }

    /// The runs of the set without those numbers, ascending.
    #[must_use]
    pub fn runs_without(&self, others: &Self) -> Vec<(Sequence, Sequence)> {
        let mut left = Vec::new();
        for &(start, end) in &self.runs {
            let mut next = start;
            for &(first, last) in others.runs.iter().filter(|&&(first, last)| first <= end && start <= last) {
                if next < first {
                    left.push((next, first - 1));
                }
                next = last.saturating_add(1);
            }
            if next <= end {
                left.push((next, end));
            }
        }
        left
    }

    /// The highest number, if there is any.
    #[must_use]
    pub fn last(&self) -> Option<Sequence> {
        self.runs.last().map(|&(_, last)| last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(runs in proptest::collection::vec((0..60_u64, 0..8_u64), 0..40)) {
            let mut set = SequenceSet::default();
            let mut model = BTreeSet::new();
            for (first, more) in runs {
                set.insert(first..=first + more).unwrap();
                model.extend(first..=first + more);
            }
            let missing = (10..=50).filter(|number| !model.contains(number)).count();
            prop_assert_eq!(set.missing_of(10..=50), missing as u64);
            let mut others = SequenceSet::default();
            for first in [0, 7, 20, 41] {
                others.insert(first..=first + 5).unwrap();
            }
            let left: BTreeSet<u64> = set.runs_without(&others).into_iter().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(left, model.iter().copied().filter(|&number| !others.contains(number)).collect());
            for number in 0..70 {
                prop_assert_eq!(set.contains(number), model.contains(&number));
            }
            let runs: Vec<_> = set.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "runs touch: {:?}", runs);
        }
    }

    #[test]
    fn holes_are_limited_but_filling_them_is_not() {
        let mut set = SequenceSet::default();
        for number in 0..limits::SEQUENCE_RUNS_MAX as u64 {
            set.insert(number * 2..=number * 2).unwrap();
        }
        assert_eq!(set.insert(1 << 40..=1 << 40), Err(TooManyRuns));
        set.insert(1..=1).unwrap();
        assert!(set.contains(1));
        set.insert(0..=u64::MAX).unwrap();
        assert_eq!(set.runs().count(), 1);
    }
}

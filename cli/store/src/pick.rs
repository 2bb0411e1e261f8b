//! Which samples of a span are wanted: often far fewer than were read. Pure.

use std::ops::Range;

use belfry_common::model::Timestamp;

use crate::selection::{Sample, TimeRange};

/// Which samples of a span are wanted of each series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// All.
    All,
    /// Only the newest.
    Newest,
    /// Only the newest of each step, as a graph shows it. One step ends at `end`, which it includes; the others are as long, before and
    /// after it without a gap.
    EachStep {
        /// The end of one of the steps.
        end: Timestamp,
        /// How long each is, at least 1.
        step_ms: i64,
    },
}

impl Pick {
    /// Takes those that are not wanted from `samples[from..]`, which ascend.
    pub(crate) fn thin(self, samples: &mut Vec<Sample>, from: usize) {
        match self {
            Self::All => {}
            Self::Newest => drop(samples.drain(from..samples.len().saturating_sub(1).max(from))),
            Self::EachStep { .. } => {
                let mut kept = from;
                for at in from..samples.len() {
                    let Some(&sample) = samples.get(at) else { break };
                    let next = samples.get(at + 1).map(|next| next.time);
                    if next.is_none_or(|next| !self.is_passed_over(sample.time.as_millis(), next.as_millis())) {
                        samples.swap(kept, at);
                        kept += 1;
                    }
                }
                samples.truncate(kept);
            }
        }
    }

    /// The places of the times, which ascend, that are in the range and wanted.
    pub(crate) fn places(self, times: &[i64], range: TimeRange) -> Places {
        let from = times.partition_point(|&time| time <= range.after.as_millis());
        let to = times.partition_point(|&time| time <= range.until.as_millis()).max(from);
        match self {
            Self::All => Places::Run(from..to),
            Self::Newest => Places::Run(to.saturating_sub(1).max(from)..to),
            Self::EachStep { .. } => {
                let mut places = Vec::new();
                let mut at = from;
                while let Some(&time) = times.get(at..to).and_then(<[i64]>::first) {
                    let end = self.step_end(time);
                    let rest = times.get(at + 1..to).unwrap_or_default();
                    at += rest.iter().take_while(|&&next| next <= end).count();
                    places.push(at as u32);
                    at += 1;
                }
                Places::Single(places)
            }
        }
    }

    /// Whether a time, followed by another one, is of no interest beside that.
    fn is_passed_over(self, time: i64, next: i64) -> bool {
        match self {
            Self::All => false,
            Self::Newest => true,
            Self::EachStep { .. } => next <= self.step_end(time),
        }
    }

    /// The end of the step that a time is in.
    fn step_end(self, time: i64) -> i64 {
        let Self::EachStep { end, step_ms } = self else { return time };
        time.saturating_add(end.as_millis().saturating_sub(time).rem_euclid(step_ms.max(1)))
    }
}

/// Places of samples among those of a chunk.
#[derive(Debug)]
pub(crate) enum Places {
    Run(Range<usize>),
    Single(Vec<u32>),
}

impl Places {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Run(run) => run.is_empty(),
            Self::Single(places) => places.is_empty(),
        }
    }

    /// One past the last of them.
    pub(crate) fn end(&self) -> usize {
        match self {
            Self::Run(run) => run.end,
            Self::Single(places) => places.last().map_or(0, |&last| last as usize + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(time: i64) -> Timestamp {
        Timestamp::from_millis(time)
    }

    fn thinned(pick: Pick, times: &[i64]) -> Vec<i64> {
        let sample = |&time: &i64| Sample { time: at(time), value: Ok(1.0) };
        // What is before `from` stays as it is.
        let mut samples: Vec<Sample> = [0].iter().chain(times).map(sample).collect();
        pick.thin(&mut samples, 1);
        samples.into_iter().skip(1).map(|sample| sample.time.as_millis()).collect()
    }

    #[test]
    fn of_each_step_the_newest_is_wanted_and_its_end_belongs_to_it() {
        let pick = Pick::EachStep { end: at(1000), step_ms: 10 };
        assert_eq!(thinned(pick, &[970, 971, 980, 981, 989, 991, 1000, 1001, 1011]), [970, 980, 989, 1000, 1001, 1011]);
        assert_eq!(thinned(pick, &[]), []);
        assert_eq!(thinned(Pick::Newest, &[1, 2, 3]), [3]);
        assert_eq!(thinned(Pick::Newest, &[]), []);
    }

    proptest! {
        #[test]
        fn places_are_those_of_what_thinning_leaves(
            mut times in proptest::collection::vec(-50..50_i64, 0..60),
            (after, until, end, step_ms) in (-60..60_i64, -60..60_i64, -9..9_i64, 0..9_i64),
        ) {
            times.sort_unstable();
            times.dedup();
            let range = TimeRange { after: at(after), until: at(until) };
            for pick in [Pick::All, Pick::Newest, Pick::EachStep { end: at(end), step_ms }] {
                let places = pick.places(&times, range);
                let found: Vec<i64> = match &places {
                    Places::Run(run) => times[run.clone()].to_vec(),
                    Places::Single(places) => places.iter().map(|&place| times[place as usize]).collect(),
                };
                let in_range: Vec<i64> = times.iter().copied().filter(|&time| range.contains(at(time))).collect();
                prop_assert_eq!(&found, &thinned(pick, &in_range));
            }
        }
    }
}

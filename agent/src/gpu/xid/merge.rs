//! One count of errors that two sources report.
//!
//! Pure. An error of one source that the other reports within some seconds is the same; what only one reports counts as well.

use std::collections::{BTreeMap, VecDeque};

use belfry_common::model::Timestamp;

/// How far apart the two sources may be: one of them may wait in a queue behind a burst.
const SAME_WITHIN_MS: i64 = 10_000;
/// Reports that wait for their twin, for each GPU and error.
const WAITING_MAX: usize = 256;
/// Pairs of GPU and error: a dozen GPUs, and more codes than a node ever sees.
const ENTRIES_MAX: usize = 512;

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Nvml,
    KernelLog,
}

impl Source {
    pub(super) const ALL: [Self; 2] = [Self::Nvml, Self::KernelLog];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Nvml => "nvml",
            Self::KernelLog => "kernel_log",
        }
    }
}

/// All errors, by GPU and number.
#[derive(Debug, Default)]
pub(super) struct Merged {
    entries: BTreeMap<(String, u32), Errors>,
}

/// One error of one GPU.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// How often it happened.
    pub(super) count: u64,
    /// When it happened last.
    pub(super) last: Timestamp,
    reports: [u64; 2],
    /// Reports of one source that the other has not made yet. They are all of one source: a twin takes one away.
    waiting: VecDeque<(Source, Timestamp)>,
}

impl Errors {
    /// How often a source reported it.
    pub(super) fn reports(&self, source: Source) -> u64 {
        let [nvml, kernel_log] = self.reports;
        match source {
            Source::Nvml => nvml,
            Source::KernelLog => kernel_log,
        }
    }

    fn add(&mut self, source: Source, time: Timestamp) {
        let [nvml, kernel_log] = &mut self.reports;
        *match source {
            Source::Nvml => nvml,
            Source::KernelLog => kernel_log,
        } += 1;
        self.waiting.retain(|(_, earlier)| time.millis_since(*earlier).abs() <= SAME_WITHIN_MS);
        if let Some(twin) = self.waiting.iter().position(|(other, _)| *other != source) {
            self.waiting.remove(twin);
            return;
        }
        self.count += 1;
        self.last = self.last.max(time);
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((source, time));
        }
    }
}

impl Merged {
    /// A source reports an error of the GPU at this place.
    pub(super) fn add(&mut self, source: Source, place: &str, xid: u32, time: Timestamp) {
        let key = (place.to_owned(), xid);
        if self.entries.len() < ENTRIES_MAX || self.entries.contains_key(&key) {
            self.entries.entry(key).or_default().add(source, time);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32, &Errors)> {
        self.entries.iter().map(|((place, xid), errors)| (&**place, *xid, errors))
    }

    /// The error that a GPU had last.
    pub(super) fn last_of(&self, place: &str) -> Option<u32> {
        let of_gpu = self.iter().filter(|(other, ..)| *other == place);
        of_gpu.max_by_key(|(_, _, errors)| errors.last).map(|(_, xid, _)| xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn merged(reports: &[(Source, i64)]) -> (u64, [u64; 2]) {
        let mut merged = Merged::default();
        for (source, seconds) in reports {
            merged.add(*source, "0000:3b:00", 79, at(*seconds));
        }
        let (_, _, errors) = merged.iter().next().unwrap();
        (errors.count, Source::ALL.map(|source| errors.reports(source)))
    }

    #[test]
    fn what_both_report_counts_once_in_whatever_order_they_come() {
        use Source::{KernelLog, Nvml};
        assert_eq!(merged(&[(Nvml, 0), (KernelLog, 1)]), (1, [1, 1]));
        assert_eq!(merged(&[(KernelLog, 0), (Nvml, 0), (Nvml, 5), (KernelLog, 6)]), (2, [2, 2]));
        assert_eq!(merged(&[(KernelLog, 0), (KernelLog, 0), (KernelLog, 0), (Nvml, 1), (Nvml, 1)]), (3, [2, 3]));
    }

    #[test]
    fn what_only_one_reports_counts_too() {
        use Source::{KernelLog, Nvml};
        assert_eq!(merged(&[(Nvml, 0), (Nvml, 0)]), (2, [2, 0]));
        assert_eq!(merged(&[(Nvml, 0), (KernelLog, 60)]), (2, [1, 1]), "a minute apart they are two");
    }

    #[test]
    fn the_last_error_of_a_gpu_is_the_newest() {
        let mut merged = Merged::default();
        merged.add(Source::Nvml, "a", 79, at(0));
        merged.add(Source::Nvml, "a", 45, at(1));
        merged.add(Source::Nvml, "b", 13, at(2));
        assert_eq!((merged.last_of("a"), merged.last_of("b"), merged.last_of("c")), (Some(45), Some(13), None));
    }
}

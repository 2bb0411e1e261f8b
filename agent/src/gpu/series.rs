//! How what a GPU says becomes a reading: under its labels, and only if it can be believed.

use std::{ops::RangeInclusive, sync::Arc};

use belfry_common::model::{Metric, Reason};

use crate::readings::Readings;

/// Labels of one series behind `gpu` and `uuid`.
const MORE_LABELS_MAX: usize = 4;

/// Percent of time or of the possible.
pub(super) const PERCENT: RangeInclusive<f64> = 0.0..=100.0;
/// What is counted in hardware starts with the driver; nothing has come this far (2^62).
const COUNT_MAX: u64 = 1 << 62;

/// A value that the range does not hold is no value.
pub(super) fn within<T: PartialOrd>(value: Result<T, Reason>, range: &RangeInclusive<T>) -> Result<T, Reason> {
    value.and_then(|value| if range.contains(&value) { Ok(value) } else { Err(Reason::OutOfRange) })
}

/// A GPU whose readings are said: its index and its unique name come before the labels of each.
pub(super) trait Series {
    /// The labels `gpu` and `uuid`.
    fn names(&self) -> [&str; 2];

    /// A reading in a unit of its own: `scale` of them make one of the metric's base unit.
    fn scaled(
        &self,
        out: &mut Readings,
        metric: &Arc<Metric>,
        labels: &[&str],
        value: Result<f64, Reason>,
        scale: f64,
    ) {
        self.put(out, labels, |out, labels| match value {
            Ok(value) => out.float(metric, labels, value / scale),
            Err(reason) => out.missing(metric, labels, reason),
        });
    }

    /// A share in percent.
    fn percent(&self, out: &mut Readings, metric: &Arc<Metric>, labels: &[&str], percent: Result<f64, Reason>) {
        self.scaled(out, metric, labels, within(percent, &PERCENT), 100.0);
    }

    /// A count in steps of the metric's resolution.
    fn count(&self, out: &mut Readings, metric: &Arc<Metric>, labels: &[&str], count: Result<u64, Reason>) {
        let count = within(count, &(0..=COUNT_MAX));
        self.put(out, labels, |out, labels| match count {
            Ok(count) => out.unsigned(metric, labels, count),
            Err(reason) => out.missing(metric, labels, reason),
        });
    }

    /// Yes or no.
    fn flag(&self, out: &mut Readings, metric: &Arc<Metric>, labels: &[&str], flag: Result<bool, Reason>) {
        self.count(out, metric, labels, flag.map(u64::from));
    }

    /// Gives all labels of a series to `put`.
    fn put(&self, out: &mut Readings, labels: &[&str], put: impl FnOnce(&mut Readings, &[&str])) {
        let mut all = [""; 2 + MORE_LABELS_MAX];
        let count = 2 + labels.len();
        for (place, label) in all.iter_mut().zip(self.names().into_iter().chain(labels.iter().copied())) {
            *place = label;
        }
        put(out, all.get(..count).unwrap_or(&all));
    }
}

//! Collects what a sampler reads at one instant into a tick.
//!
//! A sampler says `put(metric, labels, value)` and nothing about numbers or layouts. Since it says the same
//! series in the same order nearly every time, each is compared with the one at the same
//! place of the last tick; only when that differs is a new layout made.

use std::sync::Arc;

use belfry_common::{
    limits,
    model::{Layout, Metric, Raw, Reason, SeriesDefinition, Tick, Timestamp},
};

/// The readings of one sampler, filled anew at each tick.
#[derive(Debug)]
pub(crate) struct Readings {
    group: u16,
    sampler: &'static str,
    interval_ms: u32,
    layout: Arc<Layout>,
    /// The series of this tick from the first one on that differs from `layout`; empty while none does.
    changed: Option<Vec<Arc<SeriesDefinition>>>,
    values: Vec<Raw>,
    missing: Vec<(Arc<Metric>, Reason)>,
}

impl Readings {
    pub(crate) fn new(group: u16, sampler: &'static str, interval_ms: u32) -> Self {
        let layout = Arc::new(Layout { group, sampler: sampler.into(), interval_ms, series: Box::default() });
        Self { group, sampler, interval_ms, layout, changed: None, values: Vec::new(), missing: Vec::new() }
    }

    /// An integer count of the metric's resolution.
    pub(crate) fn integer(&mut self, metric: &Arc<Metric>, labels: &[&str], count: i64) {
        self.put(metric, labels, Raw::integer(count));
    }

    /// An unsigned count of the metric's resolution; above `i64::MAX` it is out of range.
    pub(crate) fn unsigned(&mut self, metric: &Arc<Metric>, labels: &[&str], count: u64) {
        self.put(metric, labels, Raw::unsigned(count));
    }

    /// A value in base units, rounded to the metric's resolution.
    pub(crate) fn float(&mut self, metric: &Arc<Metric>, labels: &[&str], value: f64) {
        self.put(metric, labels, Raw::at(metric.resolution, value));
    }

    /// A reading that failed.
    pub(crate) fn missing(&mut self, metric: &Arc<Metric>, labels: &[&str], reason: Reason) {
        self.put(metric, labels, Raw::missing(reason));
    }

    /// A reading that another process took, with the series as it described it.
    pub(crate) fn copy(&mut self, series: &Arc<SeriesDefinition>, raw: Raw) {
        if let Some(reason) = raw.reason() {
            self.missing.push((Arc::clone(&series.metric), reason));
        }
        let place = self.values.len();
        self.values.push(raw);
        if let Some(changed) = &mut self.changed {
            changed.push(Arc::clone(series));
            return;
        }
        if self.layout.series.get(place).is_some_and(|known| Arc::ptr_eq(known, series) || known == series) {
            return;
        }
        let mut changed: Vec<_> = self.layout.series.iter().take(place).cloned().collect();
        changed.push(Arc::clone(series));
        self.changed = Some(changed);
    }

    fn put(&mut self, metric: &Arc<Metric>, labels: &[&str], raw: Raw) {
        if let Some(reason) = raw.reason() {
            self.missing.push((Arc::clone(metric), reason));
        }
        let place = self.values.len();
        self.values.push(raw);
        if let Some(changed) = &mut self.changed {
            changed.push(definition(&self.layout, place, metric, labels));
            return;
        }
        if self.layout.series.get(place).is_some_and(|known| is_same(known, metric, labels)) {
            return;
        }
        let mut series: Vec<_> = self.layout.series.iter().take(place).cloned().collect();
        series.push(definition(&self.layout, place, metric, labels));
        self.changed = Some(series);
    }

    /// Ends the tick. A sampler that read nothing at all gives none.
    pub(crate) fn finish(&mut self, time: Timestamp) -> Option<Tick> {
        let series = match self.changed.take() {
            Some(series) => Some(series),
            None if self.values.len() < self.layout.series.len() => {
                Some(self.layout.series.iter().take(self.values.len()).cloned().collect())
            }
            None => None,
        };
        if let Some(series) = series {
            self.layout = Arc::new(Layout {
                group: self.group,
                sampler: self.sampler.into(),
                interval_ms: self.interval_ms,
                series: series.into(),
            });
        }
        let capacity = self.values.len();
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(capacity));
        (!values.is_empty()).then(|| Tick { layout: Arc::clone(&self.layout), time, values })
    }

    /// Ends the tick of a sampler that failed as a whole: every series it had is missing for `reason`.
    pub(crate) fn fail(&mut self, time: Timestamp, reason: Reason) -> Option<Tick> {
        self.values.clear();
        self.changed = None;
        self.missing.clear();
        let values = vec![Raw::missing(reason); self.layout.series.len()];
        (!values.is_empty()).then(|| Tick { layout: Arc::clone(&self.layout), time, values })
    }

    /// The readings that failed since this was last called.
    pub(crate) fn take_missing(&mut self) -> Vec<(Arc<Metric>, Reason)> {
        std::mem::take(&mut self.missing)
    }
}

fn is_same(known: &SeriesDefinition, metric: &Arc<Metric>, labels: &[&str]) -> bool {
    (Arc::ptr_eq(&known.metric, metric) || known.metric == *metric)
        && known.label_values.iter().map(|value| &**value).eq(labels.iter().copied().map(cut))
}

/// The series that the layout has at or after `place`, or else a new one. One device less moves the
/// rest up: looking ahead keeps their definitions shared.
fn definition(layout: &Layout, place: usize, metric: &Arc<Metric>, labels: &[&str]) -> Arc<SeriesDefinition> {
    let known = layout.series.iter().skip(place).chain(layout.series.iter().take(place));
    known.into_iter().find(|known| is_same(known, metric, labels)).map_or_else(
        || {
            debug_assert_eq!(metric.label_names.len(), labels.len(), "labels of {}", metric.name);
            Arc::new(SeriesDefinition {
                metric: Arc::clone(metric),
                label_values: labels.iter().map(|&value| cut(value).into()).collect(),
            })
        },
        Arc::clone,
    )
}

/// Cuts a label's value at the wire's limit, on a character boundary.
fn cut(value: &str) -> &str {
    let end = value.floor_char_boundary(limits::LABEL_VALUE_BYTES_MAX);
    value.get(..end).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use belfry_common::model::{Kind, Resolution};

    use super::*;

    fn metric() -> Arc<Metric> {
        Arc::new(Metric::new("m", Kind::Gauge, Resolution::ONE, &["device"], "a metric"))
    }

    fn tick(readings: &mut Readings, metric: &Arc<Metric>, devices: &[&str]) -> Tick {
        for (count, device) in (0..).zip(devices) {
            readings.integer(metric, &[device], count);
        }
        readings.finish(Timestamp::from_millis(1000)).unwrap()
    }

    #[test]
    fn the_layout_is_shared_until_a_device_comes_or_goes() {
        let (metric, mut readings) = (metric(), Readings::new(1, "test", 1000));
        let first = tick(&mut readings, &metric, &["a", "b", "c"]);
        let again = tick(&mut readings, &metric, &["a", "b", "c"]);
        assert!(Arc::ptr_eq(&first.layout, &again.layout));

        let fewer = tick(&mut readings, &metric, &["a", "c"]);
        assert_eq!(fewer.layout.series.len(), 2);
        assert!(Arc::ptr_eq(&fewer.layout.series[1], &first.layout.series[2]), "c keeps its definition");

        let last_gone = tick(&mut readings, &metric, &["a"]);
        assert_eq!(last_gone.layout.series.len(), 1);
        let more = tick(&mut readings, &metric, &["a", "d"]);
        assert_eq!(&*more.layout.series[1].label_values[0], "d");
    }

    #[test]
    fn a_failed_sampler_keeps_its_series_as_missing() {
        let (metric, mut readings) = (metric(), Readings::new(1, "test", 1000));
        tick(&mut readings, &metric, &["a", "b"]);
        readings.integer(&metric, &["a"], 1);
        let failed = readings.fail(Timestamp::from_millis(2000), Reason::Timeout).unwrap();
        assert_eq!(failed.values, vec![Raw::missing(Reason::Timeout); 2]);
        let next = tick(&mut readings, &metric, &["a", "b"]);
        assert!(Arc::ptr_eq(&failed.layout, &next.layout));
    }
}

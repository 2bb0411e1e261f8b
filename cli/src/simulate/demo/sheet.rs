//! A group's readings of one instant, put together by name. The layout is shared as long as the series are the same.

use std::{collections::HashMap, sync::Arc};

use belfry_common::model::{Kind, Layout, Metric, Raw, Reason, Resolution, SeriesDefinition, Tick, Timestamp};

/// Label names of a metric and the series with them.
type Known = HashMap<(&'static str, Vec<String>), Arc<SeriesDefinition>>;

#[derive(Debug)]
pub(super) struct Sheet {
    group: u16,
    sampler: &'static str,
    interval_ms: u32,
    layout: Option<Arc<Layout>>,
    metrics: HashMap<&'static str, Arc<Metric>>,
    known: Known,
    series: Vec<Arc<SeriesDefinition>>,
    values: Vec<Raw>,
}

impl Sheet {
    pub(super) fn new(group: u16, sampler: &'static str, interval_ms: u32) -> Self {
        Self {
            group,
            sampler,
            interval_ms,
            layout: None,
            metrics: HashMap::new(),
            known: HashMap::new(),
            series: Vec::new(),
            values: Vec::new(),
        }
    }

    /// A value, rounded to this many decimal digits.
    pub(super) fn put(&mut self, metric: &'static str, digits: u8, labels: &[(&'static str, &str)], value: f64) {
        self.say(metric, digits, labels, Raw::at(Resolution::Decimal(digits), value));
    }

    /// A reading that failed.
    pub(super) fn miss(&mut self, metric: &'static str, digits: u8, labels: &[(&'static str, &str)], reason: Reason) {
        self.say(metric, digits, labels, Raw::missing(reason));
    }

    fn say(&mut self, metric: &'static str, digits: u8, labels: &[(&'static str, &str)], raw: Raw) {
        let values: Vec<String> = labels.iter().map(|(_, value)| (*value).to_owned()).collect();
        let metrics = &mut self.metrics;
        let definition = self.known.entry((metric, values)).or_insert_with_key(|(_, values)| {
            let describe = || {
                let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
                let kind = match metric {
                    _ if metric.ends_with("_total") => Kind::Counter,
                    _ if metric.ends_with("_info") => Kind::Info,
                    _ => Kind::Gauge,
                };
                Arc::new(Metric::new(metric, kind, Resolution::Decimal(digits), &names, "Simulated."))
            };
            let metric = Arc::clone(metrics.entry(metric).or_insert_with(describe));
            let label_values = values.iter().map(|value| value.as_str().into()).collect();
            Arc::new(SeriesDefinition { metric, label_values })
        });
        self.series.push(Arc::clone(definition));
        self.values.push(raw);
    }

    /// Ends the instant; there is no tick of nothing.
    pub(super) fn finish(&mut self, time: Timestamp) -> Option<Tick> {
        let (series, values) = (std::mem::take(&mut self.series), std::mem::take(&mut self.values));
        if values.is_empty() {
            return None;
        }
        let is_same = |layout: &Arc<Layout>| layout.series.iter().map(Arc::as_ptr).eq(series.iter().map(Arc::as_ptr));
        let layout = match self.layout.take().filter(is_same) {
            Some(layout) => layout,
            None => Arc::new(Layout {
                group: self.group,
                sampler: self.sampler.into(),
                interval_ms: self.interval_ms,
                series: series.into(),
            }),
        };
        self.layout = Some(Arc::clone(&layout));
        Some(Tick { layout, time, values })
    }
}

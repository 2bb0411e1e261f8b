//! What recording rules made, as batches for the head.
//!
//! Each recorded name is a group of its own, so that a rule which is evaluated alone does not end another's series. Recorded
//! series are not in the journal: a crash costs what of them is in no block yet.

use std::{collections::HashMap, sync::Arc};

use belfry_common::model::{Batch, Kind, Layout, Metric, Raw, Reason, Resolution, SeriesDefinition, Tick, Timestamp};
use belfry_promql::{Labels, METRIC_NAME, Sample, is_stale};
use belfry_store::{Head, NodeId};

use crate::series::JOB;

/// Groups below this are the collector's other series.
const GROUP_FIRST: u16 = 16;
/// Recorded names; more than this in one collector is a mistake in a rule file.
const NAMES_MAX: usize = 10_000;

/// Turns recorded samples into ticks.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    groups: HashMap<String, u16>,
}

impl Recorder {
    /// Shows samples to readers of the head; returns how many found no room.
    pub(crate) fn record(&mut self, samples: Vec<(Labels, Sample)>, head: &Head) -> usize {
        let mut ticks: HashMap<(String, i64), Vec<(Labels, Sample)>> = HashMap::new();
        for (labels, sample) in samples {
            let name = labels.metric_name().unwrap_or_default().to_string();
            ticks.entry((name, sample.time_ms)).or_default().push((labels, sample));
        }
        let mut left_out = 0;
        for ((name, time_ms), samples) in ticks {
            let Some(group) = self.group(&name) else {
                left_out += samples.len();
                continue;
            };
            let tick = tick(group, &name, Timestamp::from_millis(time_ms), samples);
            let received = tick.time;
            head.apply(NodeId::COLLECTOR, &Batch { ticks: vec![tick] }, received);
        }
        left_out
    }

    fn group(&mut self, name: &str) -> Option<u16> {
        if let Some(&group) = self.groups.get(name) {
            return Some(group);
        }
        if self.groups.len() >= NAMES_MAX {
            return None;
        }
        let group = GROUP_FIRST + self.groups.len() as u16;
        self.groups.insert(name.to_string(), group);
        Some(group)
    }
}

fn tick(group: u16, name: &str, time: Timestamp, mut samples: Vec<(Labels, Sample)>) -> Tick {
    samples.sort_by(|a, b| a.0.cmp(&b.0));
    let mut metrics: HashMap<Vec<String>, Arc<Metric>> = HashMap::new();
    let series = samples.iter().map(|(labels, _)| {
        let given = || labels.iter().filter(|&(label, value)| label != METRIC_NAME && (label, value) != JOB);
        let names: Vec<String> = given().map(|(label, _)| label.to_string()).collect();
        let metric = metrics.entry(names).or_insert_with_key(|names| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Arc::new(Metric::new(name, Kind::Gauge, Resolution::Float, &names, "Made by a recording rule."))
        });
        let label_values = given().map(|(_, value)| value.into()).collect();
        Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values })
    });
    let layout = Layout { group, sampler: "rules".into(), interval_ms: 1000, series: series.collect() };
    let values = samples
        .iter()
        .map(|(_, sample)| if is_stale(sample.value) { Raw::missing(Reason::Lost) } else { Raw::float(sample.value) });
    Tick { layout: Arc::new(layout), time, values: values.collect() }
}

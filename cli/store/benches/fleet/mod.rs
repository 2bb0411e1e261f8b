//! Nodes with the reference data, and what a process costs.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use belfry_common::{
    model::{Batch, Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick, Timestamp},
    wire::codec::LayoutPool,
};
use belfry_reference::Values;
use belfry_store::{MaintainOptions, StoreOptions};
use rustix::time::{ClockId, clock_gettime};

/// The beginning of an hour.
pub(crate) const START: i64 = 1_780_000_200_000 - 1_780_000_200_000 % 3_600_000;

/// A store whose merging need not be slow.
pub(crate) fn options() -> StoreOptions {
    let maintain = MaintainOptions { merge_bytes_per_second: u64::MAX, ..MaintainOptions::default() };
    StoreOptions { maintain, ..StoreOptions::default() }
}

pub(crate) struct Node {
    groups: Vec<(Arc<Layout>, Vec<Values>)>,
}

impl Node {
    /// The first series of a node, which are read that often. What nodes have in common is in memory once, as in a collector.
    pub(crate) fn new(node: u64, series: usize, interval_ms: u32, pool: &LayoutPool) -> Self {
        let mut families: BTreeMap<&str, (Vec<Arc<SeriesDefinition>>, Vec<Values>)> = BTreeMap::new();
        for (place, series) in belfry_reference::catalogue().iter().enumerate().take(series) {
            let labels = belfry_reference::labels(series, node);
            let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
            let kind = if series.shape.is_counter() { Kind::Counter } else { Kind::Gauge };
            let metric = Metric::new(&series.metric, kind, Resolution::Decimal(series.shape.digits()), &names, "");
            let label_values = labels.into_iter().map(|(_, value)| value.into()).collect();
            let (definitions, values) = families.entry(series.family).or_default();
            definitions.push(Arc::new(SeriesDefinition { metric: Arc::new(metric), label_values }));
            values.push(belfry_reference::values(series.shape, node, place));
        }
        let mut groups = Vec::new();
        for (group, (sampler, (series, values))) in (0..).zip(families) {
            let (sampler, series) = (sampler.into(), series.into());
            groups.push((pool.layout(Layout { group, sampler, interval_ms, series }), values));
        }
        Self { groups }
    }

    pub(crate) fn batch(&mut self, time: Timestamp) -> Batch {
        let tick = |(layout, values): &mut (Arc<Layout>, Vec<Values>)| Tick {
            layout: Arc::clone(layout),
            time,
            values: values.iter_mut().map(|values| Raw::integer(values.step())).collect(),
        };
        Batch { ticks: self.groups.iter_mut().map(tick).collect() }
    }
}

pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

pub(crate) fn rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

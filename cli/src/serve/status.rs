//! The status of the fleet, from the newest values in the head.

use std::collections::HashMap;

use belfry_common::{
    clock,
    model::{SeriesDefinition, Timestamp},
};
use belfry_store::{Grain, Head, NodeId, Pick, Selected, Selection, TimeRange};

use super::{ServeError, gpus};
use crate::{
    api::{
        self, AlertCounts, CpuStatus, DiskStatus, FilesystemStatus, MemoryStatus, NetworkStatus, NodeStatus,
        StatusDocument,
    },
    fleet::{Node, standing},
    services::Services,
};

/// Newest values older than this are not shown as present.
const FRESH_MS: i64 = 90_000;
/// Rates are taken over this span: long enough for several ticks, short enough to follow.
const RATE_MS: i64 = 5_500;
/// File systems that are full by nature.
const READ_ONLY_TYPES: [&str; 4] = ["squashfs", "iso9660", "erofs", "ramfs"];

/// The status of all nodes, or of one.
pub(super) fn document(services: &Services, node: Option<&str>) -> Result<StatusDocument, ServeError> {
    let now = clock::now();
    let nodes = match node {
        None => services.fleet.nodes(),
        Some(name) => {
            let found = services.fleet.by_name(name).and_then(|(id, _)| services.fleet.node(id));
            let missing = || ServeError::NotFound(format!("no node is called {name:?}; `belfry nodes` lists them"));
            vec![found.ok_or_else(missing)?]
        }
    };
    let nodes = nodes.iter().map(|known| status(services, known, now, node.is_some())).collect();
    Ok(StatusDocument { time: api::time(now), nodes })
}

fn status(services: &Services, node: &Node, now: Timestamp, is_alone: bool) -> NodeStatus {
    let (state, cause) = standing(&node.facts, now);
    let values = Values {
        head: &services.head,
        node: node.id,
        now: node.tick_time.unwrap_or(now).max(now.plus_millis(-FRESH_MS)),
    };
    let (firing, pending) = services.alerting.statistics.of_node(node.name.as_str());
    let filesystems = values.filesystems();
    NodeStatus {
        name: node.name.to_string(),
        state: state.as_str().to_string(),
        reason: Some(cause.as_str().to_string()).filter(|reason| !reason.is_empty()),
        last_seen: node.facts.heard_at.map(api::time),
        agent_version: node.agent_version.clone(),
        boot_time: values
            .one("node_boot_time_seconds")
            .map(|seconds| api::time(Timestamp::from_millis((seconds * 1000.0) as i64))),
        cpu: values.cpu(),
        memory: values.memory(),
        disk: DiskStatus {
            used_ratio_max: filesystems.first().map(|fullest| fullest.used_ratio),
            mountpoint: filesystems.first().map(|fullest| fullest.mountpoint.clone()),
        },
        filesystems: if is_alone { filesystems } else { Vec::new() },
        network: values.network(),
        gpus: gpus::gpus(&values, node.inventory.as_deref(), &services.catalogue),
        alerts: AlertCounts { firing, pending },
    }
}

/// A node's newest values.
pub(super) struct Values<'a> {
    head: &'a Head,
    node: NodeId,
    now: Timestamp,
}

impl Values<'_> {
    /// The time as of which they are the newest.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Calls `visit` with each series of a metric and its newest value.
    pub(super) fn each(&self, metric: &str, mut visit: impl FnMut(&SeriesDefinition, f64)) {
        let range = TimeRange { after: self.now.plus_millis(-FRESH_MS), until: self.now.plus_millis(FRESH_MS) };
        let selection = Selection {
            metric: Some(metric),
            conditions: &[],
            filter: &|_| true,
            range,
            pick: Pick::Newest,
            grain: Grain::Raw,
        };
        let mut found = Selected::default();
        self.head.select(self.node, &selection, &mut found);
        for (definition, samples) in found.iter() {
            if let Some(Ok(value)) = samples.last().map(|sample| sample.value) {
                visit(definition, value);
            }
        }
    }

    fn one(&self, metric: &str) -> Option<f64> {
        let mut found = None;
        self.each(metric, |_, value| found = Some(value));
        found
    }

    /// Calls `visit` with each series of a counter and its growth per second over the last seconds.
    fn each_rate(&self, metric: &str, mut visit: impl FnMut(&SeriesDefinition, f64)) {
        let range = TimeRange { after: self.now.plus_millis(-RATE_MS), until: self.now.plus_millis(FRESH_MS) };
        let selection = Selection {
            metric: Some(metric),
            conditions: &[],
            filter: &|_| true,
            range,
            pick: Pick::All,
            grain: Grain::Raw,
        };
        let mut found = Selected::default();
        self.head.select(self.node, &selection, &mut found);
        for (definition, samples) in found.iter() {
            let known = samples.iter().filter_map(|sample| Some((sample.time, sample.value.ok()?)));
            let known: Vec<(Timestamp, f64)> = known.collect();
            let (Some(first), Some(last)) = (known.first(), known.last()) else { continue };
            let seconds = last.0.millis_since(first.0) as f64 / 1000.0;
            if seconds > 0.0 && last.1 >= first.1 {
                visit(definition, (last.1 - first.1) / seconds);
            }
        }
    }

    fn cpu(&self) -> CpuStatus {
        let mut idle = 0.0;
        let mut cores = std::collections::HashSet::new();
        self.each_rate("node_cpu_seconds_total", |series, rate| {
            if let Some(cpu) = label(series, "cpu") {
                cores.insert(cpu.to_string());
            }
            if matches!(label(series, "mode"), Some("idle" | "iowait")) {
                idle += rate;
            }
        });
        let count = cores.len();
        let busy = (count > 0).then(|| (1.0 - idle / count as f64).clamp(0.0, 1.0));
        CpuStatus { utilization_ratio: busy, cores: (count > 0).then_some(count as u64), load1: self.one("node_load1") }
    }

    fn memory(&self) -> MemoryStatus {
        let total = self.one("node_memory_MemTotal_bytes");
        let available = self.one("node_memory_MemAvailable_bytes");
        let used = total.zip(available).map(|(total, available)| (total - available).max(0.0));
        MemoryStatus { used_bytes: used, total_bytes: total }
    }

    /// The file systems, the fullest first.
    fn filesystems(&self) -> Vec<FilesystemStatus> {
        let mut sizes: HashMap<String, (f64, f64, f64)> = HashMap::new();
        let mut take = |metric: &str, put: fn(&mut (f64, f64, f64), f64)| {
            self.each(metric, |series, value| {
                let is_full_by_nature = label(series, "fstype").is_some_and(|kind| READ_ONLY_TYPES.contains(&kind));
                if let Some(mount) = label(series, "mountpoint").filter(|_| !is_full_by_nature) {
                    put(sizes.entry(mount.to_string()).or_default(), value);
                }
            });
        };
        take("node_filesystem_size_bytes", |entry, value| entry.0 = value);
        take("node_filesystem_free_bytes", |entry, value| entry.1 = value);
        take("node_filesystem_avail_bytes", |entry, value| entry.2 = value);
        let status = |(mountpoint, (size_bytes, free, available_bytes)): (String, (f64, f64, f64))| {
            let used = size_bytes - free;
            let usable = used + available_bytes;
            let used_ratio = if usable > 0.0 { used / usable } else { 0.0 };
            FilesystemStatus { mountpoint, used_ratio, size_bytes, available_bytes }
        };
        let mut all: Vec<_> = sizes.into_iter().map(status).collect();
        all.sort_by(|a, b| b.used_ratio.total_cmp(&a.used_ratio).then_with(|| a.mountpoint.cmp(&b.mountpoint)));
        all
    }

    /// All interfaces but the loopback. What crosses a bond or bridge and its parts is counted at each; it is a hint, not a bill.
    fn network(&self) -> NetworkStatus {
        let sum = |metric: &str| {
            let mut total = None;
            self.each_rate(metric, |series, rate| {
                if label(series, "device") != Some("lo") {
                    *total.get_or_insert(0.0) += rate;
                }
            });
            total
        };
        NetworkStatus {
            receive_bytes_per_second: sum("node_network_receive_bytes_total"),
            transmit_bytes_per_second: sum("node_network_transmit_bytes_total"),
        }
    }
}

pub(super) fn label<'a>(series: &'a SeriesDefinition, name: &str) -> Option<&'a str> {
    let mut labels = series.metric.label_names.iter().zip(&series.label_values);
    labels.find(|(known, _)| &***known == name).map(|(_, value)| &**value)
}

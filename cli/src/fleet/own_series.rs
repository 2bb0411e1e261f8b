//! The series that the collector itself makes, each second: `up` and its like for every node, and its own counts.

use std::sync::Arc;

use belfry_common::model::{Batch, Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick, Timestamp};

use super::{Cause, Node, Standing, standing};

const GROUP_NODES: u16 = 1;
const GROUP_COLLECTOR: u16 = 2;
const INTERVAL_MS: u32 = 1000;

/// What the collector says of nodes: these series name one as their instance and are the collector's own.
const OF_NODES: [&str; 5] = [
    "up",
    "belfry_node_state",
    "belfry_node_clock_skew_seconds",
    "belfry_node_last_seen_timestamp_seconds",
    "belfry_node_series_left_out",
];

/// Whether series of this name are the collector's own, whatever their instance.
pub(crate) fn is_of_collector(metric: &str) -> bool {
    OF_NODES.contains(&metric)
}

/// What the collector says of itself: name, kind, resolution, help and value.
pub(crate) type OwnCount = (&'static str, Kind, Resolution, &'static str, Raw);

/// Makes a tick a second. Layouts are made anew only when a node comes, goes or changes its state.
#[derive(Debug)]
pub(crate) struct OwnSeries {
    up: Arc<Metric>,
    state: Arc<Metric>,
    skew: Arc<Metric>,
    last_seen: Arc<Metric>,
    left_out: Arc<Metric>,
    known: Vec<(super::NodeId, Standing, Cause)>,
    nodes: Option<Arc<Layout>>,
    collector: Option<Arc<Layout>>,
}

impl OwnSeries {
    pub(crate) fn new() -> Self {
        let metric = |name: &str, resolution, labels: &[&str], help: &str| {
            Arc::new(Metric::new(name, Kind::Gauge, resolution, labels, help))
        };
        let one = Resolution::ONE;
        Self {
            up: metric("up", one, &["instance"], "Whether ticks of the node arrive."),
            state: metric(
                "belfry_node_state",
                one,
                &["instance", "state", "reason"],
                "1 for the state that the node is in.",
            ),
            skew: metric(
                "belfry_node_clock_skew_seconds",
                Resolution::MILLI,
                &["instance"],
                "The node's clock less the collector's when it connected last.",
            ),
            last_seen: metric(
                "belfry_node_last_seen_timestamp_seconds",
                Resolution::MILLI,
                &["instance"],
                "When a batch of the node was last received.",
            ),
            left_out: metric(
                "belfry_node_series_left_out",
                one,
                &["instance"],
                "Series of the node that are left out because it has more than it may.",
            ),
            known: Vec::new(),
            nodes: None,
            collector: None,
        }
    }

    /// The tick of this second.
    pub(crate) fn batch(&mut self, nodes: &[Node], counts: &[OwnCount], now: Timestamp) -> Batch {
        let mut ticks = Vec::new();
        if !nodes.is_empty() {
            ticks.push(self.nodes_tick(nodes, now));
        }
        ticks.push(self.collector_tick(counts, now));
        Batch { ticks }
    }

    fn nodes_tick(&mut self, nodes: &[Node], now: Timestamp) -> Tick {
        let standings: Vec<_> = nodes
            .iter()
            .map(|node| {
                let (state, cause) = standing(&node.facts, now);
                (node.id, state, cause)
            })
            .collect();
        if self.known != standings || self.nodes.is_none() {
            let series = nodes.iter().zip(&standings).flat_map(|(node, &(_, state, cause))| {
                let name = node.name.as_str();
                [
                    define(&self.up, &[name]),
                    define(&self.state, &[name, state.as_str(), cause.as_str()]),
                    define(&self.skew, &[name]),
                    define(&self.last_seen, &[name]),
                    define(&self.left_out, &[name]),
                ]
            });
            self.nodes = Some(layout(GROUP_NODES, "fleet", series.collect()));
            self.known.clone_from(&standings);
        }
        let missing = Raw::missing(belfry_common::model::Reason::Unsupported);
        let values = nodes.iter().zip(&standings).flat_map(|(node, &(_, state, _))| {
            [
                Raw::integer(i64::from(state == Standing::Up)),
                Raw::integer(1),
                node.clock_skew_ms.map_or(missing, Raw::integer),
                node.facts.heard_at.map_or(missing, |heard_at| Raw::integer(heard_at.as_millis())),
                Raw::unsigned(node.series_left_out),
            ]
        });
        let values = values.collect();
        let layout = self.nodes.get_or_insert_with(|| layout(GROUP_NODES, "fleet", Vec::new()));
        Tick { layout: Arc::clone(layout), time: now, values }
    }

    fn collector_tick(&mut self, counts: &[OwnCount], now: Timestamp) -> Tick {
        let layout = self.collector.get_or_insert_with(|| {
            let series = counts.iter().map(|&(name, kind, resolution, help, _)| {
                define(&Arc::new(Metric::new(name, kind, resolution, &[], help)), &[])
            });
            layout(GROUP_COLLECTOR, "collector", series.collect())
        });
        let values = counts.iter().map(|&(.., value)| value).collect();
        Tick { layout: Arc::clone(layout), time: now, values }
    }
}

fn define(metric: &Arc<Metric>, values: &[&str]) -> Arc<SeriesDefinition> {
    let label_values = values.iter().map(|&value| value.into()).collect();
    Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values })
}

fn layout(group: u16, sampler: &str, series: Vec<Arc<SeriesDefinition>>) -> Arc<Layout> {
    Arc::new(Layout { group, sampler: sampler.into(), interval_ms: INTERVAL_MS, series: series.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_nodes_is_known_as_the_collectors_own() {
        let OwnSeries { up, state, skew, last_seen, left_out, .. } = OwnSeries::new();
        assert_eq!([up, state, skew, last_seen, left_out].map(|metric| metric.name.to_string()), OF_NODES);
    }
}

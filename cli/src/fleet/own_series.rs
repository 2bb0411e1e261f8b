//! The series that the collector itself makes, each second: `up` and its like for every node, and its own counts.

use std::{collections::BTreeMap, iter, sync::Arc};

use belfry_common::model::{Batch, Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick, Timestamp};

use super::{Cause, Node, NodeId, Standing, standing};

const GROUP_NODES: u16 = 1;
const GROUP_COLLECTOR: u16 = 2;
const GROUP_STATES: u16 = 3;
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

/// Makes ticks each second. Layouts are made anew only when a node comes or goes, that of states when one changes; in a large fleet that can be
/// each second, and the definitions of the nodes that stay what they are stay, too.
#[derive(Debug)]
pub(crate) struct OwnSeries {
    up: Arc<Metric>,
    state: Arc<Metric>,
    skew: Arc<Metric>,
    last_seen: Arc<Metric>,
    left_out: Arc<Metric>,
    known: BTreeMap<NodeId, Known>,
    nodes: Option<Arc<Layout>>,
    states: Option<Arc<Layout>>,
    collector: Option<Arc<Layout>>,
}

/// A node as it was a second ago, with its series.
#[derive(Debug)]
struct Known {
    standing: (Standing, Cause),
    of_node: [Arc<SeriesDefinition>; 4],
    state: Arc<SeriesDefinition>,
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
            known: BTreeMap::new(),
            nodes: None,
            states: None,
            collector: None,
        }
    }

    /// The tick of this second.
    pub(crate) fn batch(&mut self, nodes: &[Node], counts: &[OwnCount], now: Timestamp) -> Batch {
        let mut ticks = if nodes.is_empty() { Vec::new() } else { self.nodes_ticks(nodes, now).into() };
        ticks.push(self.collector_tick(counts, now));
        Batch { ticks }
    }

    /// Of nodes in ascending order.
    fn nodes_ticks(&mut self, nodes: &[Node], now: Timestamp) -> [Tick; 2] {
        self.learn(nodes, now);
        let of_nodes = || self.known.values().flat_map(|known| &known.of_node).cloned().collect();
        let nodes_layout = self.nodes.get_or_insert_with(|| layout(GROUP_NODES, "fleet", of_nodes()));
        let states = || self.known.values().map(|known| Arc::clone(&known.state)).collect();
        let states_layout = self.states.get_or_insert_with(|| layout(GROUP_STATES, "states", states()));
        let missing = Raw::missing(belfry_common::model::Reason::Unsupported);
        let values = nodes.iter().zip(self.known.values()).flat_map(|(node, known)| {
            [
                Raw::integer(i64::from(known.standing.0 == Standing::Up)),
                node.clock_skew_ms.map_or(missing, Raw::integer),
                node.facts.heard_at.map_or(missing, |heard_at| Raw::integer(heard_at.as_millis())),
                Raw::unsigned(node.series_left_out),
            ]
        });
        let tick = |layout: &Arc<Layout>, values| Tick { layout: Arc::clone(layout), time: now, values };
        let ones = iter::repeat_n(Raw::integer(1), nodes.len());
        [tick(nodes_layout, values.collect()), tick(states_layout, ones.collect())]
    }

    /// Takes in which nodes there are and how they stand.
    fn learn(&mut self, nodes: &[Node], now: Timestamp) {
        let (mut are_others, mut stand_otherwise) = (false, false);
        for node in nodes {
            let (name, standing) = (node.name.as_str(), standing(&node.facts, now));
            let state = || define(&self.state, &[name, standing.0.as_str(), standing.1.as_str()]);
            match self.known.get_mut(&node.id) {
                Some(known) if known.standing == standing => {}
                Some(known) => {
                    (known.standing, known.state) = (standing, state());
                    stand_otherwise = true;
                }
                None => {
                    let of_node =
                        [&self.up, &self.skew, &self.last_seen, &self.left_out].map(|metric| define(metric, &[name]));
                    self.known.insert(node.id, Known { standing, of_node, state: state() });
                    are_others = true;
                }
            }
        }
        if self.known.len() > nodes.len() {
            self.known.retain(|id, _| nodes.binary_search_by_key(id, |node| node.id).is_ok());
            are_others = true;
        }
        if are_others {
            self.nodes = None;
        }
        if are_others || stand_otherwise {
            self.states = None;
        }
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
    use belfry_common::model::NodeName;

    use super::*;
    use crate::fleet::Facts;

    #[test]
    fn what_is_said_of_nodes_is_known_as_the_collectors_own() {
        let OwnSeries { up, state, skew, last_seen, left_out, .. } = OwnSeries::new();
        assert_eq!([up, state, skew, last_seen, left_out].map(|metric| metric.name.to_string()), OF_NODES);
    }

    #[test]
    fn what_does_not_change_is_made_once() {
        let mut own = OwnSeries::new();
        let node =
            |id, name| Node::new(NodeId(id), NodeName::from_host_name(name), Facts::new(Timestamp::from_millis(0)));
        let mut nodes = vec![node(1, "a"), node(2, "b")];
        let mut layouts = |nodes: &[Node], millis| {
            let batch = own.batch(nodes, &[], Timestamp::from_millis(millis));
            let [of_nodes, states, _] = <[Tick; 3]>::try_from(batch.ticks).unwrap();
            assert_eq!((of_nodes.values.len(), states.values.len()), (4 * nodes.len(), nodes.len()));
            assert_eq!(of_nodes.layout.series.len(), of_nodes.values.len());
            [of_nodes.layout, states.layout]
        };
        let same =
            |one: &[Arc<Layout>; 2], other: &[Arc<Layout>; 2]| [0, 1].map(|at| Arc::ptr_eq(&one[at], &other[at]));
        let first = layouts(&nodes, 1000);
        let second = layouts(&nodes, 2000);
        assert_eq!(same(&first, &second), [true, true]);
        nodes[1].facts.heard_at = Some(Timestamp::from_millis(3000));
        nodes[1].facts.connection = Some(1);
        let third = layouts(&nodes, 3000);
        assert_eq!(same(&second, &third), [true, false]);
        assert!(Arc::ptr_eq(&second[1].series[0], &third[1].series[0]));
        nodes.remove(0);
        let fourth = layouts(&nodes, 4000);
        assert_eq!(same(&third, &fourth), [false, false]);
        assert!(Arc::ptr_eq(&third[1].series[1], &fourth[1].series[0]));
    }
}

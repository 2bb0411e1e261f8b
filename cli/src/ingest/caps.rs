//! Holds a node to its number of series and bytes of labels: those that it had first stay, what is beyond is left out and counted.
//!
//! A node's cap outlives its connections for as long as memory has something of the node, so that nobody comes back with other series in
//! place of the ones that were there. The
//! journal and the head never see what is left out. No I/O and no clock.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use belfry_common::{
    limits,
    model::{Batch, Layout, SeriesDefinition, Tick},
};
use belfry_store::NodeId;

/// A group that was not among so many batches is no more: at one a second, not for hours.
const FORGOTTEN_AFTER_BATCHES: u64 = 10_000;

/// What a node may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    /// Series.
    pub(crate) series_max: usize,
    /// Bytes of their labels' values.
    pub(crate) label_bytes_max: usize,
}

/// The caps of all nodes.
#[derive(Debug)]
pub(crate) struct SeriesCaps {
    quota: Quota,
    nodes: Mutex<HashMap<NodeId, Arc<NodeCap>>>,
}

impl SeriesCaps {
    /// Nothing is known of any node.
    pub(crate) fn new(series_max: usize) -> Self {
        let quota = Quota { series_max, label_bytes_max: limits::LABEL_BYTES_PER_NODE_MAX };
        Self { quota, nodes: Mutex::default() }
    }

    /// A node's cap. When it is asked for the first time, `known` says which layouts the node has had.
    pub(super) fn of(&self, node: NodeId, known: impl FnOnce() -> Vec<Arc<Layout>>) -> Arc<NodeCap> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let cap = nodes.entry(node).or_insert_with(|| {
            let mut cap = SeriesCap::new(self.quota);
            known().iter().for_each(|layout| cap.learn(layout));
            Arc::new(NodeCap(Mutex::new(cap)))
        });
        Arc::clone(cap)
    }

    /// Forgets the nodes that are not connected and of which this says no: what was known of them is gone elsewhere, too.
    pub(crate) fn keep(&self, is_known: impl Fn(NodeId) -> bool) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|&node, cap| Arc::strong_count(cap) > 1 || is_known(node));
        let room = 2 * nodes.len();
        nodes.shrink_to(room);
    }

    /// Forgets a node.
    pub(crate) fn forget(&self, node: NodeId) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }
}

/// One node's cap, for all its streams.
#[derive(Debug)]
pub(super) struct NodeCap(Mutex<SeriesCap>);

impl NodeCap {
    /// The batch as it may be, and how many series are left out of all groups if that has changed.
    pub(super) fn apply(&self, batch: Batch) -> (Batch, Option<u64>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply(batch)
    }
}

#[derive(Debug)]
struct SeriesCap {
    quota: Quota,
    groups: HashMap<u16, Group>,
    /// Batches so far.
    batches: u64,
    /// Reported last.
    left_out: u64,
}

#[derive(Debug)]
struct Group {
    given: Arc<Layout>,
    kept: Arc<Layout>,
    /// Places of the given layout that are kept; none if all are.
    places: Option<Vec<usize>>,
    label_bytes: usize,
    /// The number of the batch that it was last in.
    seen: u64,
}

impl SeriesCap {
    fn new(quota: Quota) -> Self {
        Self { quota, groups: HashMap::new(), batches: 0, left_out: 0 }
    }

    fn apply(&mut self, mut batch: Batch) -> (Batch, Option<u64>) {
        let mut has_changed = false;
        self.batches += 1;
        for tick in &mut batch.ticks {
            let known = self.groups.get(&tick.layout.group);
            if known.is_none_or(|group| !Arc::ptr_eq(&group.given, &tick.layout)) {
                has_changed = true;
                self.learn(&tick.layout);
            }
            if let Some(group) = self.groups.get_mut(&tick.layout.group) {
                group.seen = self.batches;
                group.trim(tick);
            }
        }
        if !has_changed {
            return (batch, None);
        }
        let left_out =
            self.groups.values().map(|group| (group.given.series.len() - group.kept.series.len()) as u64).sum();
        let news = (left_out != self.left_out).then_some(left_out);
        self.left_out = left_out;
        (batch, news)
    }

    fn learn(&mut self, given: &Arc<Layout>) {
        let batches = self.batches;
        self.groups.retain(|_, group| batches - group.seen < FORGOTTEN_AFTER_BATCHES);
        let before = self.groups.remove(&given.group);
        let series: usize = self.groups.values().map(|group| group.kept.series.len()).sum();
        let label_bytes: usize = self.groups.values().map(|group| group.label_bytes).sum();
        let room = Quota {
            series_max: self.quota.series_max.saturating_sub(series),
            label_bytes_max: self.quota.label_bytes_max.saturating_sub(label_bytes),
        };
        let mut group = Group::new(given, before.as_ref().map(|group| &*group.kept), room);
        group.seen = batches;
        self.groups.insert(given.group, group);
    }
}

impl Group {
    fn new(given: &Arc<Layout>, before: Option<&Layout>, room: Quota) -> Self {
        let label_bytes = given.series.iter().map(|series| label_bytes(series)).sum();
        if given.series.len() <= room.series_max && label_bytes <= room.label_bytes_max {
            return Self { given: Arc::clone(given), kept: Arc::clone(given), places: None, label_bytes, seen: 0 };
        }
        let before: HashSet<&Arc<SeriesDefinition>> = before.iter().flat_map(|before| &before.series).collect();
        let (old, new): (Vec<usize>, Vec<usize>) = (0..given.series.len())
            .partition(|&place| given.series.get(place).is_some_and(|series| before.contains(series)));
        let (mut places, mut label_bytes) = (Vec::new(), 0);
        for place in old.into_iter().chain(new) {
            let bytes = given.series.get(place).map_or(0, |series| self::label_bytes(series));
            if places.len() < room.series_max && label_bytes + bytes <= room.label_bytes_max {
                places.push(place);
                label_bytes += bytes;
            }
        }
        places.sort_unstable();
        let series = places.iter().filter_map(|&place| given.series.get(place).cloned()).collect();
        let kept = Layout { series, sampler: given.sampler.clone(), ..**given };
        Self { given: Arc::clone(given), kept: Arc::new(kept), places: Some(places), label_bytes, seen: 0 }
    }

    fn trim(&self, tick: &mut Tick) {
        if let Some(places) = &self.places {
            tick.values = places.iter().filter_map(|&place| tick.values.get(place).copied()).collect();
            tick.layout = Arc::clone(&self.kept);
        }
    }
}

fn label_bytes(series: &SeriesDefinition) -> usize {
    series.label_values.iter().map(|value| value.len()).sum()
}

#[cfg(test)]
mod tests {
    use belfry_common::model::{Kind, Metric, Raw, Resolution, Timestamp};

    use super::*;

    const QUOTA: Quota = Quota { series_max: 10, label_bytes_max: 100 };

    fn batch(group: u16, devices: std::ops::Range<i64>) -> Batch {
        let layout = layout(group, devices.clone().map(|device| device.to_string()));
        let values = devices.map(Raw::integer).collect();
        Batch { ticks: vec![Tick { layout, time: Timestamp::default(), values }] }
    }

    #[test]
    fn what_is_known_of_a_node_goes_with_its_connection_and_its_memory() {
        let caps = SeriesCaps::new(10);
        let known = |node| caps.nodes.lock().unwrap().contains_key(&NodeId(node));
        let connected = caps.of(NodeId(1), Vec::new);
        drop([NodeId(2), NodeId(3)].map(|node| caps.of(node, Vec::new)));
        caps.keep(|node| node == NodeId(2));
        assert_eq!([1, 2, 3].map(known), [true, true, false]);
        drop(connected);
        caps.keep(|_| false);
        assert_eq!([1, 2].map(known), [false, false]);
    }

    fn layout(group: u16, devices: impl Iterator<Item = String>) -> Arc<Layout> {
        let metric = Arc::new(Metric::new("m", Kind::Gauge, Resolution::ONE, &["d"], ""));
        let series = devices.map(|device| {
            Arc::new(SeriesDefinition { metric: Arc::clone(&metric), label_values: Box::new([device.into()]) })
        });
        Arc::new(Layout { group, sampler: "s".into(), interval_ms: 1000, series: series.collect() })
    }

    fn values(batch: &Batch) -> Vec<i64> {
        assert_eq!(batch.ticks[0].values.len(), batch.ticks[0].layout.series.len());
        batch.ticks[0].values.iter().map(|raw| raw.bits()).collect()
    }

    #[test]
    fn who_was_first_stays_and_the_rest_is_counted() {
        let mut cap = SeriesCap::new(QUOTA);
        let (first, left_out) = cap.apply(batch(1, 0..6));
        assert_eq!((values(&first), left_out), (vec![0, 1, 2, 3, 4, 5], None));
        let (bomb, left_out) = cap.apply(batch(2, 100..1_000));
        assert_eq!((values(&bomb), left_out), (vec![100, 101, 102, 103], Some(896)));
        let (grown, left_out) = cap.apply(batch(2, 50..200));
        assert_eq!(values(&grown), [100, 101, 102, 103], "the ones that were there");
        assert_eq!(left_out, Some(146));
        let (calm, left_out) = cap.apply(batch(2, 100..101));
        assert_eq!((values(&calm), left_out), (vec![100], Some(0)));
    }

    #[test]
    fn long_labels_are_left_out_and_cost_the_short_ones_nothing() {
        let mut cap = SeriesCap::new(QUOTA);
        let layout = layout(1, [1, 90, 20, 5].into_iter().map(|length| "x".repeat(length)));
        let values = (0..4).map(Raw::integer).collect();
        let (kept, left_out) = cap.apply(Batch { ticks: vec![Tick { layout, time: Timestamp::default(), values }] });
        assert_eq!((self::values(&kept), left_out), (vec![0, 1, 3], Some(1)));
    }

    #[test]
    fn a_node_that_comes_back_finds_its_own_series_kept() {
        let caps = SeriesCaps { quota: QUOTA, nodes: Mutex::default() };
        let node = NodeId(7);
        let known = || vec![layout(1, (0..6).map(|device: i64| device.to_string()))];
        // The bomb comes first on the new connection, in another group and in the group that is known.
        let (bomb, _) = caps.of(node, known).apply(batch(2, 100..1_000));
        assert_eq!(values(&bomb), [100, 101, 102, 103]);
        let again = || unreachable!("the node's cap is there");
        let (grown, _) = caps.of(node, again).apply(batch(1, -50..50));
        assert_eq!(values(&grown), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_group_that_is_no_more_gives_up_its_room() {
        let mut cap = SeriesCap::new(QUOTA);
        cap.apply(batch(1, 0..10));
        for _ in 0..FORGOTTEN_AFTER_BATCHES {
            cap.apply(batch(2, 0..0));
        }
        assert_eq!(values(&cap.apply(batch(3, 0..4)).0), [0, 1, 2, 3]);
    }
}

//! The newest value of every series and the last minutes at full resolution, in bounded memory.
//!
//! One thread applies batches, any number read. Each node has its own lock, held for the time of one batch or
//! of one node's part of a selection.
//!
//! A group's readings stand in *tiles*: the open one holds them tick by tick as they came, a sealed one holds a run of
//! ticks column by column in the codec's bits, about a byte a reading.

mod group;
mod layout;
mod node;
mod select;
mod tile;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use belfry_common::{
    model::{Batch, Layout, Metric, SeriesDefinition, Tick, Timestamp},
    wire::codec::LayoutPool,
};

use crate::{NodeId, selection::Selection};
pub use select::Selected;

pub(crate) use layout::IndexedLayout;
use layout::Indexes;
pub(crate) use node::GroupTiles;
use node::{Change, NodeHead, seal};
pub(crate) use tile::SealedTile;

/// Locked for the time of one batch, or of one node's part of a selection.
type SharedNode = Arc<RwLock<NodeHead>>;

/// A node's tiles that are in no block.
pub(crate) type NodeTiles = (NodeId, Vec<GroupTiles>);

/// How much the head holds.
#[derive(Debug, Clone, Copy)]
pub struct HeadOptions {
    /// Milliseconds of history at full resolution; of groups that are read seldom, up to twice as many, for 64 ticks.
    pub window_ms: i64,
    /// Bytes of history over all nodes; beyond this the oldest go early. Newest values are kept in any case.
    pub bytes_max: usize,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self { window_ms: 5 * 60 * 1000, bytes_max: 2 * 1024 * 1024 * 1024 }
    }
}

/// What the head holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadStatistics {
    /// Nodes with data.
    pub nodes: usize,
    /// Series in the newest layouts.
    pub series: usize,
    /// Bytes of history.
    pub bytes: usize,
    /// Readings applied since the start.
    pub readings: u64,
    /// Ticks that left before their time because memory was full.
    pub ticks_evicted: u64,
}

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicUsize,
    /// Of what is sealed and in no block.
    unstored: AtomicUsize,
    /// From how many bytes on there may be something to let go.
    room_from: AtomicUsize,
    readings: AtomicU64,
    ticks_evicted: AtomicU64,
}

/// The part of the store that is in memory.
#[derive(Debug)]
pub struct Head {
    options: HeadOptions,
    elsewhere: Elsewhere,
    pool: Arc<LayoutPool>,
    indexes: Indexes,
    nodes: RwLock<BTreeMap<NodeId, SharedNode>>,
    /// Nodes that were let go of, with the time of their last tick.
    silent: RwLock<HashMap<NodeId, Timestamp>>,
    counters: Counters,
}

impl Head {
    /// An empty head.
    #[must_use]
    pub fn new(options: HeadOptions) -> Self {
        Self::beside(options, Elsewhere::until(Timestamp::from_millis(i64::MIN)))
    }

    /// An empty head beside blocks that have these samples.
    pub(crate) fn beside(options: HeadOptions, elsewhere: Elsewhere) -> Self {
        let nodes = RwLock::default();
        let (pool, indexes, counters) = (Arc::default(), Indexes::default(), Counters::default());
        Self { options, elsewhere, pool, indexes, nodes, silent: RwLock::default(), counters }
    }

    /// Where decoders of what is applied are to have their layouts, so that nodes which are alike share one.
    #[must_use]
    pub fn pool(&self) -> &Arc<LayoutPool> {
        &self.pool
    }

    /// How much it is to hold.
    #[must_use]
    pub fn options(&self) -> HeadOptions {
        self.options
    }

    /// Takes in a batch that was received at this time.
    pub fn apply(&self, node: NodeId, batch: &Batch, received: Timestamp) {
        loop {
            let head = self.node_or_new(node);
            let mut head = head.write().unwrap_or_else(PoisonError::into_inner);
            // Let go of between these two lines: there is a new one by now.
            if !head.is_gone() {
                self.count(head.apply(batch, received, self.options.window_ms, &self.indexes));
                break;
            }
        }
        self.counters.readings.fetch_add(batch.readings() as u64, Relaxed);
        let bytes = self.counters.bytes.load(Relaxed);
        if bytes <= self.options.bytes_max {
            self.counters.room_from.store(0, Relaxed);
        } else if bytes > self.counters.room_from.load(Relaxed) {
            self.make_room();
        }
    }

    fn count(&self, change: Change) {
        self.counters.bytes.fetch_add(change.bytes_added, Relaxed);
        self.counters.bytes.fetch_sub(change.bytes_removed, Relaxed);
        self.counters.unstored.fetch_add(change.unstored_added, Relaxed);
        self.counters.unstored.fetch_sub(change.unstored_removed, Relaxed);
        self.counters.ticks_evicted.fetch_add(change.ticks_evicted, Relaxed);
    }

    /// Lets old history go, of the nodes that have most, down to an equal share: what one node makes, however much, costs the
    /// others nothing. A twentieth more than is needed goes, so that this is seldom.
    fn make_room(&self) {
        let step = self.options.bytes_max / 20;
        let target = self.options.bytes_max - step;
        let heads = self.all();
        let share = target / heads.len().max(1);
        let bytes = |head: &RwLock<NodeHead>| head.read().unwrap_or_else(PoisonError::into_inner).bytes();
        let mut sized: Vec<_> = heads.into_iter().map(|(_, head)| (bytes(&head), head)).collect();
        sized.sort_unstable_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
        for (bytes, head) in sized {
            let excess = self.counters.bytes.load(Relaxed).saturating_sub(target);
            if excess == 0 || bytes <= share {
                break;
            }
            let left = bytes.saturating_sub(excess).max(share);
            let mut head = head.write().unwrap_or_else(PoisonError::into_inner);
            self.count(head.evict(left));
        }
        // What cannot go, because it is the newest, is not looked for again before there is that much more.
        self.counters.room_from.store(self.counters.bytes.load(Relaxed) + step, Relaxed);
    }

    /// The nodes that have data.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Reads series of one node; `found` holds nothing else afterwards.
    pub fn select(&self, node: NodeId, selection: &Selection<'_>, found: &mut Selected) {
        found.clear();
        let head = self.node(node);
        if let Some(head) = head {
            head.read().unwrap_or_else(PoisonError::into_inner).select(selection, false, found);
        }
    }

    /// As [`Self::select`]: all there is, then it is true; or what is not in the blocks that are listed after this call.
    pub(crate) fn select_beside_blocks(&self, node: NodeId, selection: &Selection<'_>, found: &mut Selected) -> bool {
        found.clear();
        let head = self.node(node);
        let Some(head) = head else { return selection.range.after >= self.elsewhere_of(node) };
        let head = head.read().unwrap_or_else(PoisonError::into_inner);
        // Let go of since it was looked up: all of it is in blocks.
        let is_all = !head.is_gone() && head.has_all(selection);
        head.select(selection, !is_all, found);
        is_all
    }

    /// Seals what is open and gives all tiles that are in no block, node by node. Nobody is held up by sealing: who has to wait for a
    /// thread that lets all others go first waits long.
    pub(crate) fn unstored(&self) -> Vec<NodeTiles> {
        let unstored = self.all().into_iter().map(|(node, head)| (node, self.unstored_of(&head)));
        unstored.filter(|(_, groups)| !groups.is_empty()).collect()
    }

    fn unstored_of(&self, head: &RwLock<NodeHead>) -> Vec<GroupTiles> {
        let frozen = head.write().unwrap_or_else(PoisonError::into_inner).freeze();
        let sealed = seal(frozen);
        let mut head = head.write().unwrap_or_else(PoisonError::into_inner);
        let (groups, change) = head.unstored(&sealed);
        self.count(change);
        groups
    }

    /// Takes in ticks of a node that are in a block already.
    pub(crate) fn apply_stored(&self, node: NodeId, batch: &Batch, received: Timestamp) {
        self.apply(node, batch, received);
        let groups = self.unstored_of(&self.node_or_new(node));
        self.mark_stored(&[(node, groups)]);
    }

    /// The newest tick of each of a node's groups, and since when every group that had one is among them.
    pub(crate) fn newest_ticks(&self, node: NodeId) -> (Vec<Tick>, Timestamp) {
        let head = self.node(node);
        let newest = |head: &NodeHead| (head.newest_ticks(), head.newest_since());
        head.map_or_else(Default::default, |head| newest(&head.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Notes that a node's groups are here, every one that had a tick later than this.
    pub(crate) fn note_newest_since(&self, node: NodeId, since: Timestamp) {
        self.node_or_new(node).write().unwrap_or_else(PoisonError::into_inner).note_newest_since(since);
    }

    /// Notes that these tiles are in a block now, so that they may go when their time has come.
    pub(crate) fn mark_stored(&self, tiles: &[NodeTiles]) {
        for (node, groups) in tiles {
            let head = self.node(*node);
            if let Some(head) = head {
                let mut head = head.write().unwrap_or_else(PoisonError::into_inner);
                self.count(head.mark_stored(groups, self.options.window_ms));
            }
        }
    }

    /// Bytes of what is sealed and in no block.
    pub(crate) fn unstored_bytes(&self) -> usize {
        self.counters.unstored.load(Relaxed)
    }

    /// Calls `visit` with each series of a node's newest layouts.
    pub fn for_each_series(&self, node: NodeId, mut visit: impl FnMut(&Arc<SeriesDefinition>)) {
        let head = self.node(node);
        if let Some(head) = head {
            head.read().unwrap_or_else(PoisonError::into_inner).series().for_each(&mut visit);
        }
    }

    /// Whether it has something of a node.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    /// A node's newest layouts, one for each group.
    #[must_use]
    pub fn layouts(&self, node: NodeId) -> Vec<Arc<Layout>> {
        let head = self.node(node);
        head.map_or_else(Vec::new, |head| head.read().unwrap_or_else(PoisonError::into_inner).layouts())
    }

    /// The metrics of all nodes' newest layouts, each once: of two descriptions of one name both.
    #[must_use]
    pub fn metrics(&self) -> Vec<Arc<Metric>> {
        let mut layouts = HashSet::new();
        let mut metrics = HashMap::new();
        for node in self.nodes() {
            for layout in self.layouts(node) {
                // Nodes that are alike share theirs.
                if layouts.insert(Arc::as_ptr(&layout)) {
                    let of_layout = layout.series.iter().map(|series| &series.metric);
                    metrics.extend(of_layout.map(|metric| (Arc::as_ptr(metric), Arc::clone(metric))));
                }
            }
        }
        let mut metrics: Vec<Arc<Metric>> = metrics.into_values().collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics.dedup();
        metrics
    }

    /// Forgets a node.
    pub fn remove(&self, node: NodeId) {
        let head = self.nodes.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
        if let Some(head) = head {
            // Who still holds it finds nothing in it.
            self.count(head.write().unwrap_or_else(PoisonError::into_inner).let_go());
        }
        self.silent.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Lets go of nodes that were last heard of before the horizon: all that they said is in blocks. Nodes come and go, and memory is for
    /// those that are there.
    pub(crate) fn let_go_of_silent(&self, horizon: Timestamp) {
        for (node, head) in self.all() {
            let is_silent = |head: &NodeHead| head.stored_until().is_some_and(|until| until < horizon);
            if !is_silent(&head.read().unwrap_or_else(PoisonError::into_inner)) {
                continue;
            }
            let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
            let mut head = head.write().unwrap_or_else(PoisonError::into_inner);
            if head.is_gone() || !is_silent(&head) {
                continue;
            }
            let until = head.known_until();
            // It may have been back with what is older than what it was let go of with.
            let mut silent = self.silent.write().unwrap_or_else(PoisonError::into_inner);
            let known = silent.entry(node).or_insert(until);
            *known = until.max(*known);
            self.count(head.let_go());
            nodes.remove(&node);
        }
        self.indexes.sweep();
        self.pool.sweep();
    }

    /// Up to when there may be samples of a node that are only in blocks.
    fn elsewhere_of(&self, node: NodeId) -> Timestamp {
        let silent = self.silent.read().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        silent.unwrap_or(Timestamp::from_millis(i64::MIN)).max(self.elsewhere.of(node))
    }

    /// What it holds now.
    #[must_use]
    pub fn statistics(&self) -> HeadStatistics {
        let nodes = self.all();
        let series =
            |(_, head): &(NodeId, SharedNode)| head.read().unwrap_or_else(PoisonError::into_inner).series().count();
        HeadStatistics {
            nodes: nodes.len(),
            series: nodes.iter().map(series).sum(),
            bytes: self.counters.bytes.load(Relaxed),
            readings: self.counters.readings.load(Relaxed),
            ticks_evicted: self.counters.ticks_evicted.load(Relaxed),
        }
    }

    fn node(&self, node: NodeId) -> Option<SharedNode> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    fn all(&self) -> Vec<(NodeId, SharedNode)> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.iter().map(|(&node, head)| (node, Arc::clone(head))).collect()
    }

    fn node_or_new(&self, node: NodeId) -> SharedNode {
        if let Some(head) = self.node(node) {
            return head;
        }
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(RwLock::new(NodeHead::new(node, self.elsewhere_of(node))));
        Arc::clone(nodes.entry(node).or_insert_with(new))
    }
}

/// Up to when there may be samples that are only in blocks.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    /// Of any node.
    until: Timestamp,
    /// Later, of these.
    nodes: HashMap<NodeId, Timestamp>,
}

impl Elsewhere {
    pub(crate) fn until(until: Timestamp) -> Self {
        Self { until, nodes: HashMap::new() }
    }

    pub(crate) fn note(&mut self, node: NodeId, until: Timestamp) {
        if until > self.until {
            let known = self.nodes.entry(node).or_insert(until);
            *known = until.max(*known);
        }
    }

    fn of(&self, node: NodeId) -> Timestamp {
        self.nodes.get(&node).copied().unwrap_or(self.until)
    }
}

#[cfg(test)]
mod tests;

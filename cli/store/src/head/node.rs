//! One node's groups.

use std::{collections::BTreeMap, sync::Arc};

use belfry_common::model::{Batch, Layout, SeriesDefinition, Tick, Timestamp};

use super::{
    group::Group,
    layout::{IndexedLayout, Indexes, MetricKey},
    select::{Selected, Wanted},
    tile::{FrozenTile, SealedTile, TICKS_PER_TILE},
};
use crate::{NodeId, Pick, selection::Selection};

/// What applying a batch did to memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) bytes_added: usize,
    pub(super) bytes_removed: usize,
    /// Of what is sealed and in no block.
    pub(super) unstored_added: usize,
    pub(super) unstored_removed: usize,
    /// Ticks that went before their time.
    pub(super) ticks_evicted: u64,
    /// The latest time of what went and had another layout than its group has now.
    pub(super) dropped_until: Option<Timestamp>,
}

impl Change {
    pub(super) fn sealed(&mut self, tile: &SealedTile) {
        self.bytes_added += tile.bytes();
        self.unstored_added += tile.bytes();
    }

    pub(super) fn let_go(&mut self, tile: &SealedTile, is_early: bool) {
        self.bytes_removed += tile.bytes();
        self.ticks_evicted += if is_early { tile.len() as u64 } else { 0 };
    }
}

/// A frozen tile with what it was sealed to.
pub(super) type SealedLater = (Arc<FrozenTile>, Arc<SealedTile>);

/// Seals what [`NodeHead::freeze`] gave.
pub(super) fn seal(frozen: Vec<Arc<FrozenTile>>) -> Vec<SealedLater> {
    let sealed = |tile: Arc<FrozenTile>| {
        let sealed = Arc::new(tile.seal());
        (tile, sealed)
    };
    frozen.into_iter().map(sealed).collect()
}

#[derive(Debug)]
pub(super) struct NodeHead {
    groups: BTreeMap<u16, Group>,
    metrics: MetricIndex,
    /// First tiles end early by a different length for each node, so that a fleet that started together does not seal together.
    first_tile_ticks: usize,
    /// There may be samples up to here that are not in these groups: they came before this process did, or went with a layout that
    /// their group has no more. What else went, groups know.
    elsewhere_until: Timestamp,
    /// Every group that has something later than this is here.
    newest_since: Timestamp,
    /// Whether the head has let go of it: what is added here would be seen by nobody.
    is_gone: bool,
}

/// A group's tiles that are in no block.
#[derive(Debug)]
pub(crate) struct GroupTiles {
    pub(super) number: u16,
    /// The layout of what went to a block before them.
    pub(crate) before: Option<Arc<IndexedLayout>>,
    pub(crate) tiles: Vec<Arc<SealedTile>>,
}

impl NodeHead {
    /// A node of which other samples, up to `elsewhere_until`, may be in blocks.
    pub(super) fn new(node: NodeId, elsewhere_until: Timestamp) -> Self {
        let first_tile_ticks = 1 + node.0 as usize % TICKS_PER_TILE;
        let metrics = MetricIndex::default();
        let newest_since = elsewhere_until;
        Self { groups: BTreeMap::new(), metrics, first_tile_ticks, elsewhere_until, newest_since, is_gone: false }
    }

    pub(super) fn apply(&mut self, batch: &Batch, received: Timestamp, window_ms: i64, indexes: &Indexes) -> Change {
        let mut change = Change::default();
        for tick in &batch.ticks {
            let is_known = match self.groups.get_mut(&tick.layout.group) {
                Some(group) => group.push(tick, received, indexes, &mut change),
                None => {
                    let group = Group::new(tick, self.first_tile_ticks, indexes, &mut change);
                    self.groups.insert(tick.layout.group, group);
                    false
                }
            };
            if !is_known {
                self.metrics.learn(tick.layout.group, &self.groups);
            }
            if let Some(group) = self.groups.get_mut(&tick.layout.group) {
                group.expire(window_ms, &mut change);
            }
        }
        self.note_dropped(&change);
        change
    }

    fn note_dropped(&mut self, change: &Change) {
        self.elsewhere_until =
            change.dropped_until.map_or(self.elsewhere_until, |until| until.max(self.elsewhere_until));
    }

    /// Whether all that is selected is here.
    pub(super) fn has_all(&self, selection: &Selection<'_>) -> bool {
        let Selection { range, pick, .. } = *selection;
        let is_newest = || self.groups.values().all(|group| group.newest_time() <= range.until);
        range.after >= self.elsewhere_until_of(selection.metric)
            || (pick == Pick::Newest && range.after >= self.newest_since && is_newest())
    }

    /// Up to when there may be samples of a metric, or of all, that are not here.
    fn elsewhere_until_of(&self, metric: Option<&str>) -> Timestamp {
        let dropped_until = match metric {
            Some(metric) => {
                let groups = self.metrics.groups_of(MetricKey::new(metric));
                groups.filter_map(|number| self.groups.get(&number)?.dropped_until()).max()
            }
            None => self.groups.values().filter_map(Group::dropped_until).max(),
        };
        dropped_until.map_or(self.elsewhere_until, |until| until.max(self.elsewhere_until))
    }

    /// Every group that has something later than this is here.
    pub(super) fn newest_since(&self) -> Timestamp {
        self.newest_since
    }

    /// Notes that its groups were here before.
    pub(super) fn note_newest_since(&mut self, since: Timestamp) {
        self.newest_since = since;
    }

    /// Lets nothing be added to the tiles there are; gives those that are to be sealed before [`Self::unstored`].
    pub(super) fn freeze(&mut self) -> Vec<Arc<FrozenTile>> {
        let mut frozen = Vec::new();
        let next = self.first_tile_ticks;
        self.groups.values_mut().for_each(|group| group.freeze(next, &mut frozen));
        frozen
    }

    /// Puts sealed tiles in the place of frozen ones, and gives all that are in no block.
    pub(super) fn unstored(&mut self, sealed: &[SealedLater]) -> (Vec<GroupTiles>, Change) {
        let mut change = Change::default();
        let tiles = self.groups.iter_mut().map(|(&number, group)| group.unstored(number, sealed, &mut change));
        (tiles.filter(|group| !group.tiles.is_empty()).collect(), change)
    }

    /// Notes that these are in a block now; what is older than the window may go.
    pub(super) fn mark_stored(&mut self, groups: &[GroupTiles], window_ms: i64) -> Change {
        let mut change = Change::default();
        for GroupTiles { number, tiles, .. } in groups {
            if let Some(group) = self.groups.get_mut(number) {
                group.mark_stored(tiles, &mut change);
                group.expire_late(window_ms, &mut change);
            }
        }
        self.note_dropped(&change);
        change
    }

    /// Lets the oldest tiles go until no more than this is left, or only what is newest.
    pub(super) fn evict(&mut self, bytes_max: usize) -> Change {
        let mut change = Change::default();
        let bytes = self.bytes();
        while bytes - change.bytes_removed > bytes_max {
            let sealed = self.groups.values_mut().filter_map(|group| Some((group.oldest_stored()?, group)));
            let Some((_, group)) = sealed.min_by_key(|&(oldest, _)| oldest) else { break };
            group.drop_oldest(true, &mut change);
        }
        self.note_dropped(&change);
        change
    }

    pub(super) fn bytes(&self) -> usize {
        self.groups.values().map(Group::bytes).sum()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// The time of its newest tick, if all that it has is in blocks.
    pub(super) fn stored_until(&self) -> Option<Timestamp> {
        let are_stored = self.groups.values().all(Group::is_stored);
        self.groups.values().map(Group::newest_time).max().filter(|_| are_stored)
    }

    /// Up to when there may be samples of it in blocks, once all that it has is there.
    pub(super) fn known_until(&self) -> Timestamp {
        self.groups.values().map(Group::last_time).fold(self.elsewhere_until_of(None), Timestamp::max)
    }

    /// Forgets everything, for good.
    pub(super) fn let_go(&mut self) -> Change {
        self.is_gone = true;
        let bytes_removed = self.bytes();
        let unstored_removed = self.groups.values().map(Group::unstored_bytes).sum();
        self.groups.clear();
        Change { bytes_removed, unstored_removed, ..Change::default() }
    }

    pub(super) fn series(&self) -> impl Iterator<Item = &Arc<SeriesDefinition>> {
        self.groups.values().flat_map(|group| &group.newest_layout().series)
    }

    /// The newest tick of each group.
    pub(super) fn newest_ticks(&self) -> Vec<Tick> {
        self.groups.values().map(Group::newest_tick).collect()
    }

    pub(super) fn layouts(&self) -> Vec<Arc<Layout>> {
        self.groups.values().map(|group| Arc::clone(group.newest_layout())).collect()
    }

    /// Reads series; `is_rest`: only what is in no block.
    pub(super) fn select(&self, selection: &Selection<'_>, is_rest: bool, found: &mut Selected) {
        let memo = found.take_memo();
        let metric = selection.metric.map(MetricKey::new);
        let wanted = Wanted { selection, metric, memo: memo.as_deref(), is_rest };
        let is_shared = self.metrics.may_be_shared(metric);
        found.will_be_joined(is_shared);
        match wanted.metric {
            Some(metric) => self
                .metrics
                .groups_of(metric)
                .filter_map(|number| self.groups.get(&number))
                .for_each(|group| group.select(wanted, found)),
            None => self.groups.values().for_each(|group| group.select(wanted, found)),
        }
        if is_shared {
            found.join_same(selection.pick);
        }
        found.put_memo(memo);
    }
}

/// Which groups may have series of a metric: most selections are for one metric, and most groups have none of it.
#[derive(Debug, Default)]
struct MetricIndex {
    /// Hashes of names, with the groups, in ascending order. There may be some that are in no tile any more.
    pairs: Vec<(u64, u16)>,
    /// Whether several groups may have series of one metric.
    is_one_shared: bool,
    /// How many there were when it was last made anew.
    made_with: usize,
}

impl MetricIndex {
    fn groups_of(&self, metric: MetricKey<'_>) -> impl Iterator<Item = u16> {
        let from = self.pairs.partition_point(|&(hash, _)| hash < metric.hash());
        let found = self.pairs.iter().skip(from).take_while(move |(hash, _)| *hash == metric.hash());
        found.map(|&(_, group)| group)
    }

    /// Whether several groups may have series of the metric, or of any.
    fn may_be_shared(&self, metric: Option<MetricKey<'_>>) -> bool {
        metric.map_or(self.is_one_shared, |metric| self.groups_of(metric).nth(1).is_some())
    }

    /// Takes in the layouts of what came last of a group. What has gone is let go of once it may be the larger part.
    fn learn(&mut self, number: u16, groups: &BTreeMap<u16, Group>) {
        let Some(group) = groups.get(&number) else { return };
        let hashes = group.last_layouts().flat_map(IndexedLayout::metric_hashes);
        self.pairs.extend(hashes.map(|hash| (hash, number)));
        self.tidy();
        if self.pairs.len() > 2 * self.made_with {
            let all = groups.iter().flat_map(|(&number, group)| {
                group.layouts().flat_map(move |index| index.metric_hashes().map(move |hash| (hash, number)))
            });
            self.pairs = all.collect();
            self.tidy();
            self.made_with = self.pairs.len();
        }
    }

    fn tidy(&mut self) {
        self.pairs.sort_unstable();
        self.pairs.dedup();
        self.is_one_shared = self.pairs.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0));
    }
}

#[cfg(test)]
mod tests {
    use belfry_common::model::{Kind, Metric, Raw, Resolution, Tick};

    use super::*;
    use crate::{Grain, TimeRange};

    fn apply(head: &mut NodeHead, second: i64) {
        let metric = Arc::new(Metric::new(&format!("m{second}"), Kind::Gauge, Resolution::ONE, &[], ""));
        let series = Box::new([Arc::new(SeriesDefinition { metric, label_values: Box::default() })]);
        let layout = Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 100, series });
        let tick = Tick { layout, time: Timestamp::from_millis(second * 1000), values: vec![Raw::integer(second)] };
        head.apply(&Batch { ticks: vec![tick] }, Timestamp::from_millis(second * 1000), 10_000, &Indexes::default());
        let sealed = seal(head.freeze());
        let (unstored, _) = head.unstored(&sealed);
        head.mark_stored(&unstored, 10_000);
    }

    #[test]
    fn a_metric_is_found_while_it_is_in_a_tile_and_forgotten_later() {
        let mut head = NodeHead::new(NodeId(1), Timestamp::default());
        for second in 0..1000 {
            apply(&mut head, second);
        }
        let range = TimeRange { after: Timestamp::default(), until: Timestamp::from_millis(i64::MAX) };
        let is_found = |second: i64| {
            let name = format!("m{second}");
            let selection = Selection {
                metric: Some(&name),
                conditions: &[],
                filter: &|_| true,
                range,
                pick: Pick::All,
                grain: Grain::Raw,
            };
            let mut found = Selected::default();
            head.select(&selection, false, &mut found);
            found.iter().next().is_some()
        };
        assert!((990..1000).all(is_found));
        assert!(!(0..980).any(is_found));
        assert!(head.metrics.pairs.len() < 50, "{}", head.metrics.pairs.len());
    }
}

//! One node's groups and how they are read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use belfry_common::model::{Batch, Layout, Raw, SeriesDefinition, Tick, Timestamp};

use super::{
    Sample, Selection, SeriesData,
    tile::{IndexedLayout, MetricKey, OpenTile, Row, SealedTile},
};
use crate::NodeId;

/// Ticks in a sealed tile: enough that a column's first value is a small part of it, few enough that the open tile
/// (8 bytes a reading) stays below the sealed ones.
const TICKS_PER_TILE: usize = 64;

/// A tick that is older than this when it arrives is backlog.
const LIVE_AGE_MS_MAX: i64 = 10_000;

/// What applying a batch did to memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) bytes_added: usize,
    pub(super) bytes_removed: usize,
    pub(super) ticks_evicted: u64,
}

#[derive(Debug)]
pub(super) struct NodeHead {
    groups: BTreeMap<u16, Group>,
    metrics: MetricIndex,
    /// First tiles end early by a different length for each node, so that a fleet that started together does not seal together.
    first_tile_ticks: usize,
}

impl NodeHead {
    pub(super) fn new(node: NodeId) -> Self {
        let first_tile_ticks = 1 + node.0 as usize % TICKS_PER_TILE;
        Self { groups: BTreeMap::new(), metrics: MetricIndex::default(), first_tile_ticks }
    }

    pub(super) fn apply(&mut self, batch: &Arc<Batch>, received: Timestamp, window_ms: i64) -> Change {
        let mut change = Change::default();
        for (place, tick) in batch.ticks.iter().enumerate() {
            let row = Row::new(batch, place);
            let is_known = match self.groups.get_mut(&tick.layout.group) {
                Some(group) => group.push(tick, row, received, &mut change),
                None => {
                    let group = Group::new(tick, row, self.first_tile_ticks, &mut change);
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
        change
    }

    /// Lets the oldest tiles go until no more than this is left, or only what is newest.
    pub(super) fn evict(&mut self, bytes_max: usize) -> Change {
        let mut change = Change::default();
        let bytes = self.bytes();
        while bytes - change.bytes_removed > bytes_max {
            let oldest = |group: &&mut Group| group.sealed.front().map(SealedTile::last_time);
            let groups = self.groups.values_mut().filter(|group| !group.sealed.is_empty());
            let Some(group) = groups.min_by_key(oldest) else { break };
            group.drop_oldest(&mut change);
        }
        change
    }

    pub(super) fn bytes(&self) -> usize {
        self.groups.values().map(Group::bytes).sum()
    }

    pub(super) fn series(&self) -> impl Iterator<Item = &Arc<SeriesDefinition>> {
        self.groups.values().flat_map(|group| &group.newest_layout.layout.series)
    }

    pub(super) fn layouts(&self) -> Vec<Arc<Layout>> {
        self.groups.values().map(|group| Arc::clone(&group.newest_layout.layout)).collect()
    }

    pub(super) fn select(&self, selection: &Selection<'_>) -> Vec<SeriesData> {
        let wanted = Wanted { selection, metric: selection.metric.map(MetricKey::new) };
        let mut found = Vec::new();
        match wanted.metric {
            Some(metric) => self
                .metrics
                .groups_of(metric)
                .filter_map(|number| self.groups.get(&number))
                .for_each(|group| group.select(wanted, &mut found)),
            None => self.groups.values().for_each(|group| group.select(wanted, &mut found)),
        }
        found
    }
}

/// Which groups may have series of a metric: most selections are for one metric, and most groups have none of it.
#[derive(Debug, Default)]
struct MetricIndex {
    /// Hashes of names, with the groups. There may be some that are in no tile any more.
    pairs: BTreeSet<(u64, u16)>,
    /// How many there were when it was last made anew.
    made_with: usize,
}

impl MetricIndex {
    fn groups_of(&self, metric: MetricKey<'_>) -> impl Iterator<Item = u16> {
        self.pairs.range((metric.hash(), 0)..=(metric.hash(), u16::MAX)).map(|&(_, group)| group)
    }

    /// Takes in the newest layout of a group. What has gone is let go of once it may be the larger part.
    fn learn(&mut self, number: u16, groups: &BTreeMap<u16, Group>) {
        let Some(group) = groups.get(&number) else { return };
        self.pairs.extend(group.open.index.metric_hashes().map(|hash| (hash, number)));
        if self.pairs.len() > 2 * self.made_with {
            let all = groups.iter().flat_map(|(&number, group)| {
                group.layouts().flat_map(move |index| index.metric_hashes().map(move |hash| (hash, number)))
            });
            self.pairs = all.collect();
            self.made_with = self.pairs.len();
        }
    }
}

/// A selection with its metric's name hashed.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    selection: &'a Selection<'a>,
    metric: Option<MetricKey<'a>>,
}

#[derive(Debug)]
struct Group {
    /// Oldest first by arrival; times may overlap when a backlog came late.
    sealed: VecDeque<SealedTile>,
    open: OpenTile,
    open_ticks_max: usize,
    /// The tick with the latest time, which is not always the one that came last.
    newest: Row,
    newest_layout: Arc<IndexedLayout>,
}

impl Group {
    fn new(tick: &Tick, row: Row, open_ticks_max: usize, change: &mut Change) -> Self {
        let index = Arc::new(IndexedLayout::new(Arc::clone(&tick.layout)));
        let mut open = OpenTile::new(Arc::clone(&index));
        open.rows.push(row.clone());
        change.bytes_added += open.row_bytes();
        Self { sealed: VecDeque::new(), open, open_ticks_max, newest: row, newest_layout: index }
    }

    /// Adds a tick; false if its layout is another than that of the tick before.
    fn push(&mut self, tick: &Tick, row: Row, received: Timestamp, change: &mut Change) -> bool {
        let known = &self.open.index.layout;
        let is_same = Arc::ptr_eq(known, &tick.layout) || **known == *tick.layout;
        if !is_same {
            self.seal(Arc::new(IndexedLayout::new(Arc::clone(&tick.layout))), change);
        } else if self.open.rows.len() >= self.open_ticks_max || self.open.last_time() >= Some(tick.time) {
            self.seal(Arc::clone(&self.open.index), change);
        }
        change.bytes_added += self.open.row_bytes();
        // A clock that was ahead and is set back: what is live now is the newest, whatever the wrong clock said.
        let was_ahead = self.newest.time() > received && received.millis_since(tick.time) <= LIVE_AGE_MS_MAX;
        if tick.time >= self.newest.time() || was_ahead {
            self.newest = row.clone();
            self.newest_layout = Arc::clone(&self.open.index);
        }
        self.open.rows.push(row);
        is_same
    }

    /// The layouts of its tiles; neighbours mostly share one, which is named once.
    fn layouts(&self) -> impl Iterator<Item = &IndexedLayout> {
        let mut before = std::ptr::null();
        let all = self.sealed.iter().map(|tile| &tile.index).chain([&self.open.index, &self.newest_layout]);
        all.map(|index| &**index).filter(move |&index| !std::ptr::eq(std::mem::replace(&mut before, index), index))
    }

    fn seal(&mut self, next: Arc<IndexedLayout>, change: &mut Change) {
        let open = std::mem::replace(&mut self.open, OpenTile::new(next));
        change.bytes_removed += open.row_bytes() * open.rows.len();
        let is_first = self.sealed.back().is_none_or(|last| !Arc::ptr_eq(&last.index, &open.index));
        let sealed = open.seal(is_first);
        change.bytes_added += sealed.bytes();
        self.sealed.push_back(sealed);
        self.open_ticks_max = TICKS_PER_TILE;
    }

    /// Lets go of tiles that are older than the window.
    fn expire(&mut self, window_ms: i64, change: &mut Change) {
        let horizon = self.newest.time().plus_millis(-window_ms);
        while self.sealed.front().is_some_and(|oldest| oldest.last_time() < horizon) {
            change.bytes_removed += self.sealed.pop_front().map_or(0, |oldest| oldest.bytes());
        }
    }

    /// Lets the oldest tile go before its time.
    fn drop_oldest(&mut self, change: &mut Change) {
        if let Some(oldest) = self.sealed.pop_front() {
            change.bytes_removed += oldest.bytes();
            change.ticks_evicted += oldest.times.len() as u64;
        }
    }

    fn bytes(&self) -> usize {
        self.sealed.iter().map(SealedTile::bytes).sum::<usize>() + self.open.row_bytes() * self.open.rows.len()
    }

    fn select(&self, wanted: Wanted<'_>, found: &mut Vec<SeriesData>) {
        let selection = wanted.selection;
        if selection.newest_only && self.newest.time() <= selection.range.until {
            self.select_newest(wanted, found);
        } else {
            self.select_range(wanted, found);
        }
    }

    fn select_newest(&self, wanted: Wanted<'_>, found: &mut Vec<SeriesData>) {
        let time = self.newest.time();
        if !wanted.selection.range.contains(time) {
            return;
        }
        for place in matching(&self.newest_layout, wanted) {
            let Some(definition) = self.newest_layout.layout.series.get(place as usize) else { continue };
            let Some(raw) = self.newest.raw(place) else { continue };
            let samples = vec![sample(time, raw, definition)];
            found.push(SeriesData { definition: Arc::clone(definition), samples });
        }
    }

    fn select_range(&self, wanted: Wanted<'_>, found: &mut Vec<SeriesData>) {
        let selection = wanted.selection;
        let mut collector = Collector { wanted, from: found.len(), found, places: HashMap::new(), layout: None };
        let mut tiles: Vec<&SealedTile> = self.sealed.iter().collect();
        tiles.sort_by_key(|tile| tile.first_time());
        for tile in tiles {
            if tile.last_time() <= selection.range.after || tile.first_time() > selection.range.until {
                continue;
            }
            for (place, slot) in collector.enter(&tile.index, tile.first_time()) {
                tile.for_each(place, |time, raw| collector.push(slot, time, raw));
            }
        }
        if let Some(first) = self.open.first_time()
            && self.open.last_time() > Some(selection.range.after)
            && first <= selection.range.until
        {
            let slots = collector.enter(&self.open.index, first);
            // Row by row: the readings of one stand together.
            for row in &self.open.rows {
                let (time, values) = (row.time(), row.values());
                if !selection.range.contains(time) {
                    continue;
                }
                for &(place, slot) in &slots {
                    if let Some(&raw) = values.get(place as usize) {
                        collector.push(slot, time, raw);
                    }
                }
            }
        }
        collector.finish();
    }
}

/// Gathers a group's samples from its tiles, whose layouts may differ.
struct Collector<'a, 'b> {
    wanted: Wanted<'a>,
    found: &'b mut Vec<SeriesData>,
    from: usize,
    places: HashMap<Arc<SeriesDefinition>, usize>,
    layout: Option<Arc<IndexedLayout>>,
}

impl Collector<'_, '_> {
    /// The places to read in a tile and where their samples go. Series that the tile's layout has no more end at its beginning.
    fn enter(&mut self, index: &Arc<IndexedLayout>, first: Timestamp) -> Vec<(u32, usize)> {
        let mut slots = Vec::new();
        for place in matching(index, self.wanted) {
            let Some(definition) = index.layout.series.get(place as usize) else { continue };
            let slot = *self.places.entry(Arc::clone(definition)).or_insert_with(|| {
                self.found.push(SeriesData { definition: Arc::clone(definition), samples: Vec::new() });
                self.found.len() - 1
            });
            slots.push((place, slot));
        }
        let is_new_layout = self.layout.as_ref().is_some_and(|before| !Arc::ptr_eq(before, index));
        if is_new_layout && self.wanted.selection.range.contains(first) {
            for (slot, series) in self.found.iter_mut().enumerate().skip(self.from) {
                if slots.iter().all(|&(_, kept)| kept != slot)
                    && series.samples.last().is_some_and(|last| last.value != Err(None))
                {
                    series.samples.push(Sample { time: first, value: Err(None) });
                }
            }
        }
        self.layout = Some(Arc::clone(index));
        slots
    }

    fn push(&mut self, slot: usize, time: Timestamp, raw: Raw) {
        if !self.wanted.selection.range.contains(time) {
            return;
        }
        if let Some(series) = self.found.get_mut(slot) {
            let sample = sample(time, raw, &series.definition);
            series.samples.push(sample);
        }
    }

    /// Puts samples that came late in their place; of two at one time the one that came last counts.
    fn finish(self) {
        let newest_only = self.wanted.selection.newest_only;
        for series in self.found.iter_mut().skip(self.from) {
            if !series.samples.is_sorted_by(|a, b| a.time < b.time) {
                series.samples.sort_by_key(|sample| sample.time);
                series.samples.reverse();
                series.samples.dedup_by_key(|sample| sample.time);
                series.samples.reverse();
            }
            if newest_only && series.samples.len() > 1 {
                series.samples.drain(..series.samples.len() - 1);
            }
        }
        let from = self.from;
        let mut place = 0;
        self.found.retain(|series| {
            place += 1;
            place <= from || !series.samples.is_empty()
        });
    }
}

fn matching<'a>(index: &'a IndexedLayout, wanted: Wanted<'a>) -> impl Iterator<Item = u32> + 'a {
    let places = wanted.metric.map_or(index.all_places(), |metric| index.places(metric));
    places.iter().copied().filter(move |&place| {
        index.layout.series.get(place as usize).is_some_and(|definition| (wanted.selection.filter)(definition))
    })
}

fn sample(time: Timestamp, raw: Raw, definition: &SeriesDefinition) -> Sample {
    Sample { time, value: raw.value(definition.metric.resolution).map_err(Some) }
}

#[cfg(test)]
mod tests {
    use belfry_common::model::{Kind, Layout, Metric, Resolution};

    use super::*;
    use crate::{NodeId, TimeRange};

    fn apply(head: &mut NodeHead, second: i64) {
        let metric = Arc::new(Metric::new(&format!("m{second}"), Kind::Gauge, Resolution::ONE, &[], ""));
        let series = Box::new([Arc::new(SeriesDefinition { metric, label_values: Box::default() })]);
        let layout = Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series });
        let tick = Tick { layout, time: Timestamp::from_millis(second * 1000), values: vec![Raw::integer(second)] };
        head.apply(&Arc::new(Batch { ticks: vec![tick] }), Timestamp::from_millis(second * 1000), 10_000);
    }

    #[test]
    fn a_metric_is_found_while_it_is_in_a_tile_and_forgotten_later() {
        let mut head = NodeHead::new(NodeId(1));
        for second in 0..1000 {
            apply(&mut head, second);
        }
        let range = TimeRange { after: Timestamp::default(), until: Timestamp::from_millis(i64::MAX) };
        let is_found = |second: i64| {
            let name = format!("m{second}");
            let selection = Selection { metric: Some(&name), filter: &|_| true, range, newest_only: false };
            !head.select(&selection).is_empty()
        };
        assert!((990..1000).all(is_found));
        assert!(!(0..980).any(is_found));
        assert!(head.metrics.pairs.len() < 50, "{}", head.metrics.pairs.len());
    }
}

//! One group of a node: its tiles, and its newest tick.

use std::{collections::VecDeque, sync::Arc};

use belfry_common::model::{Layout, Raw, Tick, Timestamp};

use super::{
    layout::IndexedLayout,
    node::Change,
    select::{self, Selected, Tile, Wanted},
    tile::{OpenTile, SealedTile, sample},
};

/// Ticks in a sealed tile: enough that a column's first value is a small part of it, few enough that the open tile
/// (8 bytes a reading) stays below the sealed ones.
pub(super) const TICKS_PER_TILE: usize = 32;

/// A tick that is older than this when it arrives is backlog.
const LIVE_AGE_MS_MAX: i64 = 10_000;

#[derive(Debug)]
pub(super) struct Group {
    /// Oldest first by arrival; times may overlap when a backlog came late.
    sealed: VecDeque<SealedTile>,
    open: OpenTile,
    open_ticks_max: usize,
    newest: Newest,
}

/// The tick with the latest time, which is not always the one that came last.
#[derive(Debug)]
struct Newest {
    index: Arc<IndexedLayout>,
    time: Timestamp,
    values: Vec<Raw>,
}

impl Group {
    pub(super) fn new(tick: &Tick, open_ticks_max: usize, change: &mut Change) -> Self {
        let index = Arc::new(IndexedLayout::new(Arc::clone(&tick.layout)));
        let newest = Newest { index: Arc::clone(&index), time: tick.time, values: tick.values.clone() };
        let mut open = OpenTile::new(index);
        open.push(tick);
        change.bytes_added += open.bytes();
        Self { sealed: VecDeque::new(), open, open_ticks_max, newest }
    }

    /// Adds a tick; false if its layout is another than that of the tick before.
    pub(super) fn push(&mut self, tick: &Tick, received: Timestamp, change: &mut Change) -> bool {
        change.bytes_removed += self.open.bytes();
        let known = &self.open.index.layout;
        let is_same = Arc::ptr_eq(known, &tick.layout) || **known == *tick.layout;
        if !is_same {
            self.seal(change);
            self.open = OpenTile::new(Arc::new(IndexedLayout::new(Arc::clone(&tick.layout))));
        } else if self.open.len() >= self.open_ticks_max || self.open.last_time() >= Some(tick.time) {
            self.seal(change);
            self.open.clear();
        }
        self.open.push(tick);
        change.bytes_added += self.open.bytes();
        // A clock that was ahead and is set back: what is live now is the newest, whatever the wrong clock said.
        let was_ahead = self.newest.time > received && received.millis_since(tick.time) <= LIVE_AGE_MS_MAX;
        if tick.time >= self.newest.time || was_ahead {
            self.newest.time = tick.time;
            self.newest.values.clone_from(&tick.values);
            self.newest.index = Arc::clone(&self.open.index);
        }
        is_same
    }

    fn seal(&mut self, change: &mut Change) {
        let is_first = self.sealed.back().is_none_or(|last| !Arc::ptr_eq(&last.index, &self.open.index));
        let sealed = self.open.seal(is_first);
        change.bytes_added += sealed.bytes();
        self.sealed.push_back(sealed);
        self.open_ticks_max = TICKS_PER_TILE;
    }

    /// Lets go of tiles that are older than the window.
    pub(super) fn expire(&mut self, window_ms: i64, change: &mut Change) {
        let horizon = self.newest.time.plus_millis(-window_ms);
        while self.sealed.front().is_some_and(|oldest| oldest.last_time() < horizon) {
            change.bytes_removed += self.sealed.pop_front().map_or(0, |oldest| oldest.bytes());
        }
    }

    /// The time of what [`Self::drop_oldest`] would let go.
    pub(super) fn oldest_sealed(&self) -> Option<Timestamp> {
        self.sealed.front().map(SealedTile::last_time)
    }

    /// Lets the oldest tile go before its time.
    pub(super) fn drop_oldest(&mut self, change: &mut Change) {
        if let Some(oldest) = self.sealed.pop_front() {
            change.bytes_removed += oldest.bytes();
            change.ticks_evicted += oldest.times.len() as u64;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.sealed.iter().map(SealedTile::bytes).sum::<usize>() + self.open.bytes()
    }

    pub(super) fn newest_layout(&self) -> &Arc<Layout> {
        &self.newest.index.layout
    }

    /// The layout of the tick that came last.
    pub(super) fn open_layout(&self) -> &IndexedLayout {
        &self.open.index
    }

    /// The layouts of its tiles; neighbours mostly share one, which is named once.
    pub(super) fn layouts(&self) -> impl Iterator<Item = &IndexedLayout> {
        let mut before = std::ptr::null();
        let all = self.sealed.iter().map(|tile| &tile.index).chain([&self.open.index, &self.newest.index]);
        all.map(|index| &**index).filter(move |&index| !std::ptr::eq(std::mem::replace(&mut before, index), index))
    }

    pub(super) fn select(&self, wanted: Wanted<'_>, found: &mut Selected) {
        let selection = wanted.selection;
        if selection.newest_only && self.newest.time <= selection.range.until {
            self.newest.select(wanted, found);
        } else {
            let mut tiles: Vec<Tile<'_>> = self.sealed.iter().map(Tile::Sealed).collect();
            tiles.retain(|tile| tile.overlaps(selection.range));
            tiles.sort_by_key(Tile::first_time);
            tiles.extend(Some(Tile::Open(&self.open)).filter(|tile| tile.overlaps(selection.range)));
            select::from_tiles(&tiles, wanted, found);
        }
    }
}

impl Newest {
    fn select(&self, wanted: Wanted<'_>, found: &mut Selected) {
        if !wanted.selection.range.contains(self.time) {
            return;
        }
        for (place, definition) in wanted.matching(&self.index) {
            if let Some(&raw) = self.values.get(place as usize) {
                let newest = sample(self.time, raw, definition.metric.resolution);
                found.add(definition, true, |samples| samples.push(newest));
            }
        }
    }
}

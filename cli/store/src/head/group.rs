//! One group of a node: its tiles, and its newest tick.

use std::{collections::VecDeque, mem, sync::Arc};

use belfry_common::model::{Layout, Raw, Tick, Timestamp};

use super::{
    layout::{IndexedLayout, Indexes},
    node::{Change, GroupTiles, SealedLater},
    select::{self, Selected, Tile, Wanted},
    tile::{FrozenTile, FullTile, OpenTile, SealedTile, TICKS_PER_TILE, sample},
};
use crate::Pick;

/// A tick that is older than this when it arrives is backlog.
const LIVE_AGE_MS_MAX: i64 = 10_000;
/// What is read seldom is kept for as many ticks, up to twice the window: it takes little memory, and rules look further back on it.
const SELDOM_TICKS: i64 = 64;

#[derive(Debug)]
pub(super) struct Group {
    /// Oldest first by arrival; times may overlap when a backlog came late.
    full: VecDeque<FullTile>,
    /// How many of these, from the oldest on, are in blocks: they are sealed, and only they may go.
    stored: usize,
    /// The layout of the last tile that went to a block.
    stored_last: Option<Arc<IndexedLayout>>,
    open: OpenTile,
    /// What is older than the newest tick: a backlog comes between live ticks, and neither is to break the other's tiles.
    late: Option<OpenTile>,
    open_ticks_max: usize,
    newest: Newest,
    /// The latest time of a tile that went and had the layout that is open now.
    dropped_until: Option<Timestamp>,
}

/// The tick with the latest time, which is not always the one that came last.
#[derive(Debug)]
struct Newest {
    index: Arc<IndexedLayout>,
    time: Timestamp,
    values: Vec<Raw>,
}

impl Group {
    pub(super) fn new(tick: &Tick, open_ticks_max: usize, indexes: &Indexes, change: &mut Change) -> Self {
        let index = indexes.of(&tick.layout);
        let newest = Newest { index: Arc::clone(&index), time: tick.time, values: tick.values.clone() };
        let mut open = OpenTile::new(index);
        open.push(tick);
        change.bytes_added += open.bytes();
        let full = VecDeque::new();
        Self { full, stored: 0, stored_last: None, open, late: None, open_ticks_max, newest, dropped_until: None }
    }

    /// Adds a tick; false if its layout may be one that is not among [`Self::last_layouts`] before.
    pub(super) fn push(&mut self, tick: &Tick, received: Timestamp, indexes: &Indexes, change: &mut Change) -> bool {
        // A clock that was ahead and is set back: what is live now is the newest, whatever the wrong clock said.
        let was_ahead = self.newest.time > received && received.millis_since(tick.time) <= LIVE_AGE_MS_MAX;
        if tick.time < self.newest.time && !was_ahead {
            return self.push_late(tick, indexes, change);
        }
        let is_same = self.open.is_of(&tick.layout);
        let is_full = self.open.len() >= self.open_ticks_max;
        let before = self.open.bytes();
        if !is_same || is_full || !self.open.takes(tick.time) {
            self.seal_open(change);
            self.open_ticks_max = TICKS_PER_TILE;
        }
        if !is_same {
            self.open = OpenTile::new(indexes.of(&tick.layout));
            change.dropped_until = change.dropped_until.max(self.dropped_until.take());
        }
        self.open.push(tick);
        change.bytes_removed += before;
        change.bytes_added += self.open.bytes();
        self.newest.time = tick.time;
        self.newest.values.clone_from(&tick.values);
        self.newest.index = Arc::clone(&self.open.index);
        is_same
    }

    fn push_late(&mut self, tick: &Tick, indexes: &Indexes, change: &mut Change) -> bool {
        let is_open =
            |tile: &OpenTile| tile.is_of(&tick.layout) && tile.len() < TICKS_PER_TILE && tile.takes(tick.time);
        let was_late = self.late.as_ref().is_some_and(|tile| tile.is_of(&tick.layout));
        if !self.late.as_ref().is_some_and(is_open) {
            self.seal_late(change);
        }
        // Mostly the layout is the one that live ticks have, too.
        let is_live = self.open.is_of(&tick.layout);
        let index = || match is_live {
            true => Arc::clone(&self.open.index),
            false => indexes.of(&tick.layout),
        };
        let late = self.late.get_or_insert_with(|| OpenTile::new(index()));
        change.bytes_removed += late.bytes();
        late.push(tick);
        change.bytes_added += late.bytes();
        is_live || was_late
    }

    /// Lets nothing be added to the tiles there are; gives those that are to be sealed before [`Self::unstored`].
    pub(super) fn freeze(&mut self, next_open_ticks: usize, frozen: &mut Vec<Arc<FrozenTile>>) {
        let late = self.late.take();
        let open = (self.open.len() > 0).then(|| {
            self.open_ticks_max = next_open_ticks;
            let next = OpenTile::new(Arc::clone(&self.open.index));
            mem::replace(&mut self.open, next)
        });
        for tile in late.into_iter().chain(open) {
            let is_first_of_layout = self.is_first_of(&tile);
            let tile = Arc::new(FrozenTile { tile, is_first_of_layout });
            self.full.push_back(FullTile::Frozen(Arc::clone(&tile)));
            frozen.push(tile);
        }
    }

    /// Puts sealed tiles in the place of frozen ones, and gives all that are in no block yet.
    pub(super) fn unstored(&mut self, number: u16, sealed: &[SealedLater], change: &mut Change) -> GroupTiles {
        for tile in self.full.iter_mut().skip(self.stored) {
            let FullTile::Frozen(frozen) = tile else { continue };
            if let Some((_, sealed)) = sealed.iter().find(|(of, _)| Arc::ptr_eq(of, frozen)) {
                change.bytes_removed += frozen.tile.bytes();
                change.sealed(sealed);
                *tile = FullTile::Sealed(Arc::clone(sealed));
            }
        }
        let tiles = self.full.iter().skip(self.stored).map_while(FullTile::sealed).cloned().collect();
        GroupTiles { number, before: self.stored_last.clone(), tiles }
    }

    /// Notes that these tiles, which [`Self::unstored`] gave, are in a block now.
    pub(super) fn mark_stored(&mut self, tiles: &[Arc<SealedTile>], change: &mut Change) {
        let unstored = self.full.iter().skip(self.stored).map_while(FullTile::sealed);
        let stored = unstored.zip(tiles).take_while(|(known, stored)| Arc::ptr_eq(known, stored));
        let (mut count, mut last) = (0, self.stored_last.take());
        for (tile, _) in stored {
            count += 1;
            change.unstored_removed += tile.bytes();
            last = Some(Arc::clone(&tile.index));
        }
        self.stored += count;
        self.stored_last = last;
    }

    /// Whether all that there is is in blocks.
    pub(super) fn is_stored(&self) -> bool {
        self.stored == self.full.len() && self.open.len() == 0 && self.late.is_none()
    }

    pub(super) fn unstored_bytes(&self) -> usize {
        self.full.iter().skip(self.stored).filter_map(FullTile::sealed).map(|tile| tile.bytes()).sum()
    }

    fn seal_open(&mut self, change: &mut Change) {
        // As after a flush: a tile without ticks would be of no hour.
        if self.open.len() == 0 {
            return;
        }
        let sealed = self.open.seal(self.is_first_of(&self.open));
        self.open.clear();
        self.add_sealed(sealed, change);
    }

    fn seal_late(&mut self, change: &mut Change) {
        if let Some(late) = self.late.take() {
            change.bytes_removed += late.bytes();
            let sealed = late.seal(self.is_first_of(&late));
            self.add_sealed(sealed, change);
        }
    }

    fn is_first_of(&self, tile: &OpenTile) -> bool {
        self.full.back().is_none_or(|last| !Arc::ptr_eq(last.index(), &tile.index))
    }

    fn add_sealed(&mut self, sealed: SealedTile, change: &mut Change) {
        change.sealed(&sealed);
        self.full.push_back(FullTile::Sealed(Arc::new(sealed)));
    }

    /// Lets go of tiles that are in blocks and older than the window.
    pub(super) fn expire(&mut self, window_ms: i64, change: &mut Change) {
        let horizon = self.horizon(window_ms);
        while self.oldest_stored().is_some_and(|oldest| oldest < horizon) {
            self.drop_oldest(false, change);
        }
    }

    /// As [`Self::expire`], also of those that stand behind newer ones: what came late goes when it is stored.
    pub(super) fn expire_late(&mut self, window_ms: i64, change: &mut Change) {
        let horizon = self.horizon(window_ms);
        let mut at = 0;
        while at < self.stored {
            match self.full.get(at).and_then(FullTile::sealed) {
                Some(tile) if tile.last_time() < horizon => {
                    let tile = Arc::clone(tile);
                    self.full.remove(at);
                    self.let_go(&tile, false, change);
                }
                _ => at += 1,
            }
        }
    }

    /// What is older is let go of.
    fn horizon(&self, window_ms: i64) -> Timestamp {
        let seldom_ms = SELDOM_TICKS.saturating_mul(self.open.index.layout.interval_ms.into());
        self.newest.time.plus_millis(-window_ms.max(seldom_ms.min(window_ms.saturating_mul(2))))
    }

    /// Notes that a stored tile has gone.
    fn let_go(&mut self, tile: &SealedTile, is_early: bool, change: &mut Change) {
        self.stored -= 1;
        change.let_go(tile, is_early);
        let until = Some(tile.last_time());
        if Arc::ptr_eq(&tile.index, &self.open.index) {
            self.dropped_until = self.dropped_until.max(until);
        } else {
            change.dropped_until = change.dropped_until.max(until);
        }
    }

    /// There may be samples up to here of its present series that are not here any more.
    pub(super) fn dropped_until(&self) -> Option<Timestamp> {
        self.dropped_until
    }

    /// The time of what [`Self::drop_oldest`] would let go.
    pub(super) fn oldest_stored(&self) -> Option<Timestamp> {
        self.full.front().filter(|_| self.stored > 0).and_then(FullTile::sealed).map(|tile| tile.last_time())
    }

    /// Lets the oldest tile go, before its time perhaps; only if it is in a block.
    pub(super) fn drop_oldest(&mut self, is_early: bool, change: &mut Change) {
        if self.stored == 0 {
            return;
        }
        if let Some(FullTile::Sealed(oldest)) = self.full.pop_front() {
            self.let_go(&oldest, is_early, change);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let late = self.late.as_ref().map_or(0, OpenTile::bytes);
        self.full.iter().map(FullTile::bytes).sum::<usize>() + self.open.bytes() + late
    }

    pub(super) fn newest_time(&self) -> Timestamp {
        self.newest.time
    }

    pub(super) fn newest_tick(&self) -> Tick {
        let Newest { index, time, values } = &self.newest;
        Tick { layout: Arc::clone(&index.layout), time: *time, values: values.clone() }
    }

    pub(super) fn newest_layout(&self) -> &Arc<Layout> {
        &self.newest.index.layout
    }

    /// The layouts of what came last, live and late.
    pub(super) fn last_layouts(&self) -> impl Iterator<Item = &IndexedLayout> {
        [&self.open].into_iter().chain(&self.late).map(|tile| &*tile.index)
    }

    /// The latest time of what it has, which a clock that was ahead may have made later than the newest tick.
    pub(super) fn last_time(&self) -> Timestamp {
        self.full
            .iter()
            .filter_map(FullTile::sealed)
            .map(|tile| tile.last_time())
            .fold(self.newest.time, Timestamp::max)
    }

    /// The layouts of its tiles; neighbours mostly share one, which is named once.
    pub(super) fn layouts(&self) -> impl Iterator<Item = &IndexedLayout> {
        let mut before = std::ptr::null();
        let late = self.late.as_ref().map(|tile| &tile.index);
        let all = self.full.iter().map(FullTile::index).chain(late).chain([&self.open.index, &self.newest.index]);
        all.map(|index| &**index).filter(move |&index| !std::ptr::eq(mem::replace(&mut before, index), index))
    }

    pub(super) fn select(&self, wanted: Wanted<'_>, found: &mut Selected) {
        let selection = wanted.selection;
        // What has ended is not in it, and may be in blocks.
        if selection.pick == Pick::Newest && !wanted.is_rest && self.newest.time <= selection.range.until {
            self.newest.select(wanted, found);
        } else {
            let late = self.late.as_ref().map(Tile::Open);
            let skipped = if wanted.is_rest { self.stored.saturating_sub(1) } else { 0 };
            let full = self.full.iter().skip(skipped).map(Tile::from);
            let mut tiles: Vec<Tile<'_>> = full.chain(late).collect();
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
                found.add(definition, Pick::Newest, |samples| samples.push(newest));
            }
        }
    }
}

//! Reading series from tiles.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use belfry_common::model::{Identity, SeriesDefinition, Timestamp};
use rustc_hash::FxHashMap;

use super::{
    layout::{IndexedLayout, MetricKey},
    tile::{FullTile, OpenTile, SealedTile},
};
use crate::{
    Pick,
    selection::{Sample, Selection, TimeRange, put_in_order},
};

/// Series that were selected, each with its samples in ascending order of time. To be used for one selection after the other: its
/// memory stays.
#[derive(Debug, Default)]
pub struct Selected {
    series: Vec<(Arc<SeriesDefinition>, Range<usize>)>,
    samples: Vec<Sample>,
    /// How many were read for these, wanted or not.
    read: usize,
    memo: Option<Box<Memo>>,
    /// Whether [`Self::join_same`] comes when all are added.
    is_to_be_joined: bool,
}

/// Which series of a layout are wanted, as far as that was asked. Nodes that are alike share layouts.
#[derive(Debug, Default)]
pub(super) struct Memo(RefCell<FxHashMap<usize, Remembered>>);

/// A layout and the places in it.
type Remembered = (Arc<IndexedLayout>, Arc<[u32]>);

impl Memo {
    /// The places that `find` finds, unless that was asked before. A layout is kept, so that no other has its address.
    fn places(&self, index: &Arc<IndexedLayout>, find: impl FnOnce() -> Arc<[u32]>) -> Arc<[u32]> {
        let mut known = self.0.borrow_mut();
        let entry = known.entry(Arc::as_ptr(index) as usize);
        let (_, places) = entry.or_insert_with(|| (Arc::clone(index), find()));
        Arc::clone(places)
    }
}

impl Selected {
    /// The series, each with at least one sample.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<SeriesDefinition>, &[Sample])> {
        self.series.iter().map(|(definition, range)| (definition, self.samples.get(range.clone()).unwrap_or_default()))
    }

    /// What it occupies, filled or not.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.samples.capacity() * size_of::<Sample>() + self.series.capacity() * size_of::<(usize, Range<usize>)>()
    }

    /// How many samples were read, wanted or not.
    pub(crate) fn read(&self) -> usize {
        self.read
    }

    /// What was selected, to be kept; what is remembered stays.
    pub(crate) fn take(&mut self) -> Self {
        let memo = self.memo.take();
        let taken = std::mem::take(self);
        self.memo = memo;
        taken
    }

    pub(super) fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
        self.read = 0;
    }

    /// Notes whether [`Self::join_same`] comes when all are added.
    pub(super) fn will_be_joined(&mut self, will_be: bool) {
        self.is_to_be_joined = will_be;
    }

    /// Remembers what of each layout is wanted, for selections of one kind on several nodes, from now on or no longer.
    pub(crate) fn remember(&mut self, is_wanted: bool) {
        self.memo = is_wanted.then(Box::default);
    }

    pub(super) fn take_memo(&mut self) -> Option<Box<Memo>> {
        self.memo.take()
    }

    pub(super) fn put_memo(&mut self, memo: Option<Box<Memo>>) {
        self.memo = memo;
    }

    /// Makes one series of those that several groups have: an agent of another version may have moved it. Where it goes on in another
    /// group it has not ended.
    pub(super) fn join_same(&mut self, pick: Pick) {
        let mut places: FxHashMap<Identity<&SeriesDefinition>, usize> = FxHashMap::default();
        let mut same: Vec<Vec<usize>> = Vec::new();
        for (at, (definition, _)) in self.series.iter().enumerate() {
            let next = same.len();
            let place = *places.entry(Identity(&**definition)).or_insert(next);
            match same.get_mut(place) {
                Some(others) => others.push(at),
                None => same.push(vec![at]),
            }
        }
        let found = self.take();
        self.read = found.read;
        for places in same {
            let parts = || places.iter().filter_map(|&at| found.series.get(at));
            let Some((definition, _)) = parts().next() else { continue };
            let from = self.samples.len();
            let of_parts = parts().map(|(_, range)| found.samples.get(range.clone()).unwrap_or_default());
            join(of_parts, &mut self.samples);
            pick.thin(&mut self.samples, from);
            self.series.push((Arc::clone(definition), from..self.samples.len()));
        }
    }

    /// Adds a series with the wanted ones of the samples that `read` appends; without any it is not added. Whether an end counts that
    /// stands beside another group's samples can be told as long as all are there.
    pub(super) fn add(&mut self, definition: &Arc<SeriesDefinition>, pick: Pick, read: impl FnOnce(&mut Vec<Sample>)) {
        let from = self.samples.len();
        read(&mut self.samples);
        self.read += self.samples.len() - from;
        put_in_order(&mut self.samples, from);
        let added = self.samples.get(from..).unwrap_or_default();
        if !self.is_to_be_joined || added.iter().all(|sample| sample.value != Err(None)) {
            pick.thin(&mut self.samples, from);
        }
        if self.samples.len() > from {
            self.series.push((Arc::clone(definition), from..self.samples.len()));
        }
    }
}

/// Appends what groups have of one series, each in order. An end counts if what comes before it is of the same group; of two samples of
/// one time the last group's does.
fn join<'a>(groups: impl Iterator<Item = &'a [Sample]>, samples: &mut Vec<Sample>) {
    let mut all: Vec<(usize, Sample)> =
        groups.enumerate().flat_map(|(group, samples)| samples.iter().map(move |&sample| (group, sample))).collect();
    all.sort_by_key(|(_, sample)| sample.time);
    let mut joined: Vec<(usize, Sample)> = Vec::with_capacity(all.len());
    for (group, sample) in all {
        match joined.last_mut() {
            Some((before, _)) if sample.value == Err(None) && *before != group => {}
            Some((before, last)) if last.time == sample.time => (*before, *last) = (group, sample),
            _ => joined.push((group, sample)),
        }
    }
    samples.extend(joined.into_iter().map(|(_, sample)| sample));
}

/// A selection with its metric's name hashed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) selection: &'a Selection<'a>,
    pub(super) metric: Option<MetricKey<'a>>,
    pub(super) memo: Option<&'a Memo>,
    /// Only what is in no block, but for a tile before it, which tells what ended with it.
    pub(super) is_rest: bool,
}

impl<'a> Wanted<'a> {
    /// The series of a layout that are wanted, with their places.
    pub(super) fn matching(
        self,
        index: &'a Arc<IndexedLayout>,
    ) -> impl Iterator<Item = (u32, &'a Arc<SeriesDefinition>)> {
        let asked = move || {
            let places = self.metric.map_or(index.all_places(), |metric| index.places(metric)).iter().copied();
            let definition = |place: u32| index.layout.series.get(place as usize);
            places.filter(move |&place| definition(place).is_some_and(|series| (self.selection.filter)(series)))
        };
        // One of the two has something.
        let known = self.memo.map(|memo| memo.places(index, || asked().collect()));
        let unknown = self.memo.is_none().then(asked);
        let known =
            known.into_iter().flat_map(|places| (0..places.len()).filter_map(move |at| places.get(at).copied()));
        let places = known.chain(unknown.into_iter().flatten());
        places.filter_map(|place| Some((place, index.layout.series.get(place as usize)?)))
    }
}

/// A tile of either kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tile<'a> {
    Sealed(&'a SealedTile),
    Open(&'a OpenTile),
}

impl<'a> From<&'a FullTile> for Tile<'a> {
    fn from(full: &'a FullTile) -> Self {
        match full {
            FullTile::Sealed(tile) => Self::Sealed(tile),
            FullTile::Frozen(frozen) => Self::Open(&frozen.tile),
        }
    }
}

impl<'a> Tile<'a> {
    fn index(self) -> &'a Arc<IndexedLayout> {
        match self {
            Self::Sealed(tile) => &tile.index,
            Self::Open(tile) => &tile.index,
        }
    }

    pub(super) fn first_time(&self) -> Timestamp {
        match self {
            Self::Sealed(tile) => tile.first_time(),
            Self::Open(tile) => tile.first_time().unwrap_or_default(),
        }
    }

    fn last_time(self) -> Timestamp {
        match self {
            Self::Sealed(tile) => tile.last_time(),
            Self::Open(tile) => tile.last_time().unwrap_or_default(),
        }
    }

    pub(super) fn overlaps(self, range: TimeRange) -> bool {
        self.last_time() > range.after && self.first_time() <= range.until
    }

    fn read(self, place: u32, range: TimeRange, samples: &mut Vec<Sample>) {
        match self {
            Self::Sealed(tile) => tile.read(place, range, samples),
            Self::Open(tile) => tile.read(place, range, samples),
        }
    }
}

/// Reads what is wanted from tiles in the order of their first times.
pub(super) fn from_tiles(tiles: &[Tile<'_>], wanted: Wanted<'_>, found: &mut Selected) {
    let runs: Vec<&[Tile<'_>]> = tiles.chunk_by(|a, b| Arc::ptr_eq(a.index(), b.index())).collect();
    // By far the most common case: the layout has not changed.
    if let [run] = *runs {
        let Selection { range, pick, .. } = *wanted.selection;
        for (place, definition) in series_of(run, wanted) {
            found.add(definition, pick, |samples| run.iter().for_each(|tile| tile.read(place, range, samples)));
        }
    } else {
        across_layouts(&runs, wanted, found);
    }
}

/// Reads runs of tiles, each with a layout of its own. A series that a layout has no more ends at the beginning of that run.
fn across_layouts<'a>(runs: &[&[Tile<'a>]], wanted: Wanted<'a>, found: &mut Selected) {
    let Selection { range, pick, .. } = *wanted.selection;
    let places = |run: &&[Tile<'a>]| {
        series_of(run, wanted).map(|(place, definition)| (Identity(&**definition), place)).collect()
    };
    let places: Vec<HashMap<Identity<&SeriesDefinition>, u32>> = runs.iter().map(places).collect();
    let mut known = HashSet::new();
    for (_, definition) in
        runs.iter().flat_map(|run| series_of(run, wanted)).filter(|(_, new)| known.insert(Identity(&***new)))
    {
        found.add(definition, pick, |samples| {
            let from = samples.len();
            for (run, places) in runs.iter().zip(&places) {
                if let Some(&place) = places.get(&Identity(&**definition)) {
                    run.iter().for_each(|tile| tile.read(place, range, samples));
                } else if let Some(time) = run.first().map(Tile::first_time).filter(|time| range.contains(*time))
                    && samples.iter().skip(from).next_back().is_some_and(|last| last.value != Err(None))
                {
                    samples.push(Sample { time, value: Err(None) });
                }
            }
        });
    }
}

fn series_of<'a>(
    run: &[Tile<'a>],
    wanted: Wanted<'a>,
) -> impl Iterator<Item = (u32, &'a Arc<SeriesDefinition>)> + use<'a> {
    run.first().map(|tile| tile.index()).into_iter().flat_map(move |index| wanted.matching(index))
}

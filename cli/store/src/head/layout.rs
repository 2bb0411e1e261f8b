//! A layout made searchable by the names of its metrics.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use belfry_common::model::{Layout, Resolution, SeriesDefinition};

/// A layout and where each metric's series are in it.
///
/// A selection over the fleet asks every group of every node for one name; most have none of it. Hashes of names make that a
/// search among a few dozen integers.
#[derive(Debug)]
pub(crate) struct IndexedLayout {
    pub(crate) layout: Arc<Layout>,
    /// Places, those of one metric together.
    places: Box<[u32]>,
    /// The metrics by their hash: where their places begin in `places`, and how many there are.
    metrics: Box<[(u64, u32, u32)]>,
}

/// The indexes of layouts in use: nodes that are alike share a layout, and so its index.
#[derive(Debug, Default)]
pub(super) struct Indexes(Mutex<HashMap<usize, Weak<IndexedLayout>>>);

/// Beyond this, indexes of layouts that are gone are looked for.
const INDEXES_MIN: usize = 1024;

impl Indexes {
    /// The index of a layout.
    pub(super) fn of(&self, layout: &Arc<Layout>) -> Arc<IndexedLayout> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An index keeps its layout, so that an address with a living index is that layout's.
        let address = Arc::as_ptr(layout) as usize;
        if let Some(index) = known.get(&address).and_then(Weak::upgrade) {
            return index;
        }
        if known.len() >= INDEXES_MIN && known.len() == known.capacity() {
            known.retain(|_, index| index.strong_count() > 0);
        }
        let index = Arc::new(IndexedLayout::new(Arc::clone(layout)));
        known.insert(address, Arc::downgrade(&index));
        index
    }

    /// Gives back what is occupied for indexes that are gone.
    pub(super) fn sweep(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, index| index.strong_count() > 0);
        known.shrink_to(INDEXES_MIN);
    }
}

/// A metric's name, hashed once for all the layouts that it is looked for in.
#[derive(Debug, Clone, Copy)]
pub(super) struct MetricKey<'a> {
    name: &'a str,
    hash: u64,
}

impl<'a> MetricKey<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, hash: hash(name) }
    }

    pub(super) fn hash(self) -> u64 {
        self.hash
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): names are short and ours; a collision costs a comparison.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl IndexedLayout {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        let name = |place: u32| metric_name(&layout, place);
        let mut places: Vec<(u64, u32)> =
            (0..layout.series.len() as u32).map(|place| (hash(name(place)), place)).collect();
        places.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| name(a.1).cmp(name(b.1))).then(a.1.cmp(&b.1)));
        let mut metrics: Vec<(u64, u32, u32)> = Vec::new();
        let mut before = None;
        for (at, &(hash, place)) in (0..).zip(&places) {
            match metrics.last_mut().filter(|_| before == Some(name(place))) {
                Some((.., count)) => *count += 1,
                None => metrics.push((hash, at, 1)),
            }
            before = Some(name(place));
        }
        let places = places.into_iter().map(|(_, place)| place).collect();
        Self { places, metrics: metrics.into(), layout }
    }

    /// The places of the series of this metric.
    pub(super) fn places(&self, metric: MetricKey<'_>) -> &[u32] {
        let from = self.metrics.partition_point(|&(hash, ..)| hash < metric.hash);
        let same_hash = self.metrics.iter().skip(from).take_while(|&&(hash, ..)| hash == metric.hash);
        let mut runs = same_hash.filter_map(|&(_, at, count)| self.places.get(at as usize..(at + count) as usize));
        runs.find(|run| run.first().is_some_and(|&place| metric_name(&self.layout, place) == metric.name))
            .unwrap_or_default()
    }

    /// The hashes of the metrics' names, as [`MetricKey`] has them.
    pub(super) fn metric_hashes(&self) -> impl Iterator<Item = u64> {
        self.metrics.iter().map(|&(hash, ..)| hash)
    }

    /// How exact the readings of a series are.
    pub(super) fn resolution(&self, place: u32) -> Option<Resolution> {
        self.layout.series.get(place as usize).map(|series| series.metric.resolution)
    }

    pub(super) fn all_places(&self) -> &[u32] {
        &self.places
    }

    /// With the series' definitions, although other layouts may share some of them: rather too much than too little.
    pub(super) fn bytes(&self) -> usize {
        let labels =
            |series: &SeriesDefinition| series.label_values.iter().map(|value| value.len() + 32).sum::<usize>();
        let series: usize =
            self.layout.series.iter().map(|series| size_of::<SeriesDefinition>() + 24 + labels(series)).sum();
        size_of::<Self>() + series + self.places.len() * 4 + self.metrics.len() * size_of::<(u64, u32, u32)>()
    }
}

fn metric_name(layout: &Layout, place: u32) -> &str {
    layout.series.get(place as usize).map_or("", |series| &series.metric.name)
}

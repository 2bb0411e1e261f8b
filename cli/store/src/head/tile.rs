//! Runs of ticks of one group with one layout.

use std::sync::Arc;

use belfry_common::{
    model::{Batch, Layout, Raw, SeriesDefinition, Tick, Timestamp},
    wire::codec::column::{self, Column},
};

/// A layout and where each metric's series are in it.
///
/// A selection over the fleet asks every group of every node for one name; most have none of it. Hashes of names make that a
/// search among a few dozen integers.
#[derive(Debug)]
pub(super) struct IndexedLayout {
    pub(super) layout: Arc<Layout>,
    /// Places, those of one metric together.
    places: Box<[u32]>,
    /// The metrics by their hash: where their places begin in `places`, and how many there are.
    metrics: Box<[(u64, u32, u32)]>,
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

    pub(super) fn all_places(&self) -> &[u32] {
        &self.places
    }

    /// With the series' definitions, although other layouts may share some of them: rather too much than too little.
    fn bytes(&self) -> usize {
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

/// A tick where it came from: its batch, shared with whoever else still looks at it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    batch: Arc<Batch>,
    place: usize,
}

impl Row {
    pub(super) fn new(batch: &Arc<Batch>, place: usize) -> Self {
        Self { batch: Arc::clone(batch), place }
    }

    fn tick(&self) -> Option<&Tick> {
        self.batch.ticks.get(self.place)
    }

    pub(super) fn time(&self) -> Timestamp {
        self.tick().map_or(Timestamp::default(), |tick| tick.time)
    }

    pub(super) fn raw(&self, place: u32) -> Option<Raw> {
        self.values().get(place as usize).copied()
    }

    /// All readings of the tick. Whoever wants many asks once: it is three pointers away.
    pub(super) fn values(&self) -> &[Raw] {
        self.tick().map_or(&[], |tick| &tick.values)
    }
}

/// The tile that is being filled: ticks in ascending order of time.
#[derive(Debug)]
pub(super) struct OpenTile {
    pub(super) index: Arc<IndexedLayout>,
    pub(super) rows: Vec<Row>,
}

impl OpenTile {
    pub(super) fn new(index: Arc<IndexedLayout>) -> Self {
        Self { index, rows: Vec::new() }
    }

    pub(super) fn first_time(&self) -> Option<Timestamp> {
        self.rows.first().map(Row::time)
    }

    pub(super) fn last_time(&self) -> Option<Timestamp> {
        self.rows.last().map(Row::time)
    }

    /// Rough: the values; what else the batches hold is shared.
    pub(super) fn row_bytes(&self) -> usize {
        self.index.layout.series.len() * size_of::<Raw>() + size_of::<Row>() + size_of::<Tick>()
    }

    /// Seals the tile. The first of a layout bears the cost of the layout.
    pub(super) fn seal(&self, is_first_of_layout: bool) -> SealedTile {
        let mut bits = Vec::new();
        let mut starts = Vec::with_capacity(self.index.layout.series.len());
        let rows: Vec<&[Raw]> = self.rows.iter().map(Row::values).collect();
        for (place, series) in self.index.layout.series.iter().enumerate() {
            starts.push(bits.len() as u32);
            let column = rows.iter().filter_map(|values| values.get(place).copied());
            column::encode(series.metric.resolution, column, &mut bits);
        }
        let times: Box<[Timestamp]> = self.rows.iter().map(Row::time).collect();
        let own = size_of::<SealedTile>() + times.len() * 8 + starts.len() * 4 + bits.len();
        let bytes = own + if is_first_of_layout { self.index.bytes() } else { 0 };
        SealedTile { index: Arc::clone(&self.index), times, starts: starts.into(), bits: bits.into(), bytes }
    }
}

/// A tile that is full: one column of bits per series.
#[derive(Debug)]
pub(super) struct SealedTile {
    pub(super) index: Arc<IndexedLayout>,
    pub(super) times: Box<[Timestamp]>,
    /// Where each series' column begins.
    starts: Box<[u32]>,
    bits: Box<[u8]>,
    bytes: usize,
}

impl SealedTile {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn first_time(&self) -> Timestamp {
        self.times.first().copied().unwrap_or_default()
    }

    pub(super) fn last_time(&self) -> Timestamp {
        self.times.last().copied().unwrap_or_default()
    }

    /// Calls `visit` with each tick's time and the series' reading.
    pub(super) fn for_each(&self, place: u32, mut visit: impl FnMut(Timestamp, Raw)) {
        let place = place as usize;
        let Some(series) = self.index.layout.series.get(place) else { return };
        let Some(bytes) = self.starts.get(place).and_then(|&start| self.bits.get(start as usize..)) else { return };
        let Ok(mut column) = Column::new(series.metric.resolution, bytes) else { return };
        for &time in &self.times {
            // What this process encoded it can decode.
            let Ok(raw) = column.next_reading() else { return };
            visit(time, raw);
        }
    }
}

//! Runs of ticks of one group with one layout.

use std::{cell::RefCell, sync::Arc};

use belfry_common::{
    model::{Layout, Raw, Reason, Resolution, Tick, Timestamp},
    wire::codec::column::{self, Column},
};

use super::layout::IndexedLayout;
use crate::{
    partition::hour_of,
    selection::{Sample, TimeRange},
};

/// Ticks in a sealed tile: enough that a column's first value is a small part of it, few enough that the open tile
/// (8 bytes a reading) stays below the sealed ones.
pub(super) const TICKS_PER_TILE: usize = 32;
/// Ticks for which an open tile has room at first.
const TICKS_AT_FIRST: usize = 4;

/// The tile that is being filled: ticks in ascending order of time, one behind the other in one piece of memory. Rules read the last
/// seconds of a few series of every node each second; nothing of that is in a cache, so that what is read must stand where it is
/// looked for.
#[derive(Debug)]
pub(super) struct OpenTile {
    pub(super) index: Arc<IndexedLayout>,
    times: Vec<Timestamp>,
    /// As many for each tick as there are series.
    values: Vec<Raw>,
}

impl OpenTile {
    pub(super) fn new(index: Arc<IndexedLayout>) -> Self {
        Self { index, times: Vec::new(), values: Vec::new() }
    }

    pub(super) fn is_of(&self, layout: &Arc<Layout>) -> bool {
        Arc::ptr_eq(&self.index.layout, layout) || *self.index.layout == **layout
    }

    /// Whether a tick of this time can come next: it is later than all others, and of the same hour, as a block is.
    pub(super) fn takes(&self, time: Timestamp) -> bool {
        let Some((first, last)) = self.first_time().zip(self.last_time()) else { return true };
        last < time && hour_of(first) == hour_of(time)
    }

    /// Adds a tick that it takes.
    pub(super) fn push(&mut self, tick: &Tick) {
        self.make_room();
        self.times.push(tick.time);
        self.values.extend_from_slice(&tick.values);
        self.values.resize(self.times.len() * self.width(), Raw::missing(Reason::Error));
    }

    /// A few ticks at first, for a group that is read once a minute; then as many as a tile has, so that it moves only once.
    fn make_room(&mut self) {
        if self.values.capacity() < self.values.len() + self.width() {
            let ticks = if self.len() < TICKS_AT_FIRST { TICKS_AT_FIRST } else { TICKS_PER_TILE };
            self.values.reserve_exact(ticks.saturating_sub(self.len()).max(1) * self.width());
        }
    }

    /// Empties the tile and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn first_time(&self) -> Option<Timestamp> {
        self.times.first().copied()
    }

    pub(super) fn last_time(&self) -> Option<Timestamp> {
        self.times.last().copied()
    }

    /// What it occupies, filled or not.
    pub(super) fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<Raw>() + self.times.capacity() * size_of::<Timestamp>()
    }

    /// Appends the samples of one series that lie in the range.
    pub(super) fn read(&self, place: u32, range: TimeRange, samples: &mut Vec<Sample>) {
        let Some(resolution) = self.index.resolution(place) else { return };
        let from = self.times.partition_point(|&time| time <= range.after);
        let to = self.times.partition_point(|&time| time <= range.until);
        let read = self.times.iter().zip(self.column(place as usize)).take(to).skip(from);
        samples.extend(read.map(|(&time, raw)| sample(time, raw, resolution)));
    }

    fn width(&self) -> usize {
        self.index.layout.series.len()
    }

    fn column(&self, place: usize) -> impl Iterator<Item = Raw> {
        self.values.iter().skip(place).step_by(self.width().max(1)).copied()
    }

    /// Seals the tile. The first of a layout bears the cost of the layout, shared with other nodes that have it, too.
    pub(super) fn seal(&self, is_first_of_layout: bool) -> SealedTile {
        let mut bits = Vec::new();
        let mut starts = Vec::with_capacity(self.width());
        let mut column = Vec::with_capacity(self.times.len());
        for (place, series) in self.index.layout.series.iter().enumerate() {
            starts.push(bits.len() as u32);
            // Gathered once: it is gone over several times.
            column.clear();
            column.extend(self.column(place));
            column::encode(series.metric.resolution, &column, &mut bits);
        }
        let (times, starts) = (Times::new(&self.times), Starts::new(&starts));
        let own = size_of::<SealedTile>() + times.heap_bytes() + starts.heap_bytes() + bits.len();
        let bytes = own + if is_first_of_layout { self.index.bytes() / Arc::strong_count(&self.index) } else { 0 };
        // Copied: an allocator need not take back what a vector was given too much.
        let bits = bits.as_slice().into();
        SealedTile { index: Arc::clone(&self.index), times, starts, bits, bytes }
    }
}

thread_local! {
    /// What was decoded last: memory for one column after the other.
    static READINGS: RefCell<Vec<Raw>> = const { RefCell::new(Vec::new()) };
}

/// A tile that is full: one column of bits per series.
#[derive(Debug)]
pub(crate) struct SealedTile {
    pub(crate) index: Arc<IndexedLayout>,
    times: Times,
    starts: Starts,
    bits: Box<[u8]>,
    bytes: usize,
}

impl SealedTile {
    /// The coded readings of the series at this place, as [`column`] has them.
    pub(crate) fn column(&self, place: u32) -> &[u8] {
        let place = place as usize;
        let start = |place| self.starts.get(place).unwrap_or(self.bits.len());
        self.bits.get(start(place)..start(place + 1)).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many ticks it has.
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// Its ticks' times, ascending.
    pub(crate) fn times(&self) -> impl Iterator<Item = Timestamp> {
        self.times.iter()
    }

    pub(crate) fn first_time(&self) -> Timestamp {
        self.times.at(0)
    }

    pub(crate) fn last_time(&self) -> Timestamp {
        self.times.at(self.times.len().saturating_sub(1))
    }

    /// Appends the samples of one series that lie in the range.
    pub(super) fn read(&self, place: u32, range: TimeRange, samples: &mut Vec<Sample>) {
        let Some(resolution) = self.index.resolution(place) else { return };
        let from = self.times.iter().take_while(|&time| time <= range.after).count();
        let to = self.times.iter().take_while(|&time| time <= range.until).count();
        READINGS.with_borrow_mut(|readings| {
            readings.clear();
            // What this process encoded it can decode.
            let column = Column::new(resolution, self.column(place));
            if column.and_then(|mut column| column.read_run(to, readings)).is_ok() {
                let read = self.times.iter().zip(&*readings).skip(from);
                samples.extend(read.map(|(time, &raw)| sample(time, raw, resolution)));
            }
        });
    }
}

/// The times of a tile's ticks. Mostly one step lies between all of them.
#[derive(Debug)]
enum Times {
    Regular { first: Timestamp, step_ms: u32, count: u32 },
    Listed(Box<[Timestamp]>),
}

impl Times {
    fn new(times: &[Timestamp]) -> Self {
        let step = |pair: &[Timestamp]| pair.first().zip(pair.last()).map(|(one, next)| next.millis_since(*one));
        let mut steps = times.windows(2).map(step);
        let first_step = steps.next().flatten().unwrap_or(0);
        match (times.first(), u32::try_from(first_step)) {
            (Some(&first), Ok(step_ms)) if steps.all(|step| step == Some(first_step)) => {
                Self::Regular { first, step_ms, count: times.len() as u32 }
            }
            _ => Self::Listed(times.into()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Regular { count, .. } => *count as usize,
            Self::Listed(times) => times.len(),
        }
    }

    /// The time of a tick that there is.
    fn at(&self, tick: usize) -> Timestamp {
        match self {
            Self::Regular { first, step_ms, .. } => first.plus_millis(tick as i64 * i64::from(*step_ms)),
            Self::Listed(times) => times.get(tick).copied().unwrap_or_default(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Timestamp> {
        (0..self.len()).map(|tick| self.at(tick))
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Regular { .. } => 0,
            Self::Listed(times) => size_of_val(&**times),
        }
    }
}

/// Where each series' column begins.
#[derive(Debug)]
enum Starts {
    Short(Box<[u16]>),
    Long(Box<[u32]>),
}

impl Starts {
    fn new(starts: &[u32]) -> Self {
        match starts.iter().map(|&start| u16::try_from(start)).collect() {
            Ok(short) => Self::Short(short),
            Err(_) => Self::Long(starts.into()),
        }
    }

    fn get(&self, place: usize) -> Option<usize> {
        match self {
            Self::Short(starts) => starts.get(place).copied().map(usize::from),
            Self::Long(starts) => starts.get(place).map(|&start| start as usize),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Short(starts) => size_of_val(&**starts),
            Self::Long(starts) => size_of_val(&**starts),
        }
    }
}

/// A tile that gets no more ticks and is still to be sealed, which takes longer than anybody should wait for.
#[derive(Debug)]
pub(super) struct FrozenTile {
    pub(super) tile: OpenTile,
    pub(super) is_first_of_layout: bool,
}

impl FrozenTile {
    pub(super) fn seal(&self) -> SealedTile {
        self.tile.seal(self.is_first_of_layout)
    }
}

/// A tile that gets no more ticks.
#[derive(Debug)]
pub(super) enum FullTile {
    Sealed(Arc<SealedTile>),
    Frozen(Arc<FrozenTile>),
}

impl FullTile {
    pub(super) fn sealed(&self) -> Option<&Arc<SealedTile>> {
        match self {
            Self::Sealed(tile) => Some(tile),
            Self::Frozen(_) => None,
        }
    }

    pub(super) fn index(&self) -> &Arc<IndexedLayout> {
        match self {
            Self::Sealed(tile) => &tile.index,
            Self::Frozen(frozen) => &frozen.tile.index,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Sealed(tile) => tile.bytes(),
            Self::Frozen(frozen) => frozen.tile.bytes(),
        }
    }
}

/// A reading as it is handed out.
pub(super) fn sample(time: Timestamp, raw: Raw, resolution: Resolution) -> Sample {
    Sample { time, value: raw.value(resolution).map_err(Some) }
}

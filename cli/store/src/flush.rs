//! From the head to blocks: tiles that are in no block yet are put together metric by metric.
//!
//! Nothing is decoded on the way: a tile's columns are pieces of a block's columns as they are. Only where ticks overlap, as when a clock
//! was set back, they are merged one by one. What is written here is read back, and packed, with what follows it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    iter,
    sync::Arc,
};

use belfry_common::{
    model::{Layout, Metric, Raw, SeriesDefinition, Timestamp},
    wire::codec::column::Column,
};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{
    NodeId,
    block::{BlockError, BlockWriter, ENDED, Piece, Strings, encode_column, encode_pieces, metric_order},
    compact::CHUNK_TICKS_MAX,
    head::{GroupTiles, IndexedLayout, NodeTiles, SealedTile},
    partition::hour_of,
};

/// The tiles of one hour, group by group.
pub(crate) type Hours = BTreeMap<i64, Vec<Part>>;

/// What there is of one group of a node in one hour.
#[derive(Debug)]
pub(crate) struct Part {
    node: NodeId,
    /// The layout of what was put into a block before, which tells what has ended since.
    before: Option<Arc<IndexedLayout>>,
    /// In the order of their times.
    tiles: Vec<Arc<SealedTile>>,
}

/// Sorts tiles by the hour that they are of.
pub(crate) fn by_hour(nodes: &[NodeTiles]) -> Hours {
    let mut hours = Hours::new();
    for (node, groups) in nodes {
        for GroupTiles { before, tiles, .. } in groups {
            let mut parts: BTreeMap<i64, Vec<Arc<SealedTile>>> = BTreeMap::new();
            for tile in tiles {
                parts.entry(hour_of(tile.first_time())).or_default().push(Arc::clone(tile));
            }
            let newest = parts.keys().next_back().copied();
            for (hour, mut tiles) in parts {
                tiles.sort_by_key(|tile| tile.first_time());
                let before = before.clone().filter(|_| Some(hour) == newest);
                hours.entry(hour).or_default().push(Part { node: *node, before, tiles });
            }
        }
    }
    hours
}

/// All values of labels of these parts.
pub(crate) fn strings(parts: &[Part]) -> Strings {
    let mut seen = BTreeSet::new();
    let mut texts: HashSet<&str, FxBuildHasher> = HashSet::default();
    for layout in parts.iter().flat_map(Part::layouts) {
        // Tiles of one layout follow each other, and many nodes may have one.
        if seen.insert(Arc::as_ptr(layout)) {
            texts.extend(layout.series.iter().flat_map(|series| &series.label_values).map(|value| &**value));
        }
    }
    Strings::new(texts)
}

/// Writes the parts of one hour.
///
/// # Errors
/// [`BlockError::Io`]
pub(crate) fn write(writer: &mut BlockWriter<'_>, parts: &[Part], strings: &Strings) -> Result<(), BlockError> {
    let numbers: FxHashMap<&str, u32> = strings.iter().zip(0..).collect();
    let mut axes = Axes::default();
    let mut pieces = Vec::new();
    let mut column = vec![Vec::new()];
    for (metric, mut rows) in rows(parts) {
        rows.sort_unstable_by(|a, b| (&a.definition.label_values, a.node).cmp(&(&b.definition.label_values, b.node)));
        writer.metric(metric)?;
        for same in rows.chunk_by(|a, b| a.node == b.node && a.definition.label_values == b.definition.label_values) {
            let Some(Row { definition, node, .. }) = same.first() else { continue };
            let labels: Vec<u32> =
                definition.label_values.iter().filter_map(|value| numbers.get(&**value).copied()).collect();
            writer.series(&labels, *node)?;
            match same {
                [Row { source: Source::Pieces { part, place }, .. }] => {
                    let tiles = &parts.get(*part as usize).expect("rows are of these parts").tiles;
                    for (number, tiles) in (0..).zip(chunks(tiles)) {
                        pieces.clear();
                        pieces
                            .extend(tiles.iter().map(|tile| Piece { readings: tile.len(), bits: tile.column(*place) }));
                        column.iter_mut().for_each(|column| {
                            column.clear();
                            encode_pieces(&pieces, false, column);
                        });
                        let (axis, readings) = axes.of_tiles(writer, (*part, number), tiles);
                        writer.chunk(axis, readings, &column)?;
                    }
                }
                // The same series in two groups, or in ticks that overlap: the one that came last counts.
                rows => {
                    let (times, values): (Vec<i64>, Vec<Raw>) = merged(rows, parts).into_iter().unzip();
                    for (times, values) in times.chunks(CHUNK_TICKS_MAX).zip(values.chunks(CHUNK_TICKS_MAX)) {
                        column.iter_mut().for_each(|column| {
                            column.clear();
                            encode_column(definition.metric.resolution, values, column);
                        });
                        let axis = writer.axis(times);
                        writer.chunk(axis, times.len() as u64, &column)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// A series of one part.
struct Row<'a> {
    definition: &'a SeriesDefinition,
    node: NodeId,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// All tiles of the part have it at this place, and their times ascend.
    Pieces { part: u32, place: u32 },
    /// To be put together tick by tick.
    Ticks { part: u32, ticks: Vec<Stretch> },
}

/// Some tiles of a part in which a series has one place, or none.
#[derive(Debug, Clone)]
struct Stretch {
    tiles: std::ops::Range<usize>,
    place: Option<u32>,
}

/// The series of all parts by metric, in the order of the format.
fn rows<'a>(parts: &'a [Part]) -> Vec<(&'a Arc<Metric>, Vec<Row<'a>>)> {
    let mut by_metric: Vec<(&'a Arc<Metric>, Vec<Row<'a>>)> = Vec::new();
    let mut by_address: FxHashMap<*const Metric, usize> = FxHashMap::default();
    let mut by_content = FxHashMap::default();
    for (number, part) in (0..).zip(parts) {
        for (definition, source) in part.series(number) {
            let metric = &definition.metric;
            // Each connection has its own copy of a metric's definition.
            let place = *by_address.entry(Arc::as_ptr(metric)).or_insert_with(|| {
                let content = (&*metric.name, &*metric.label_names, metric.kind, metric.resolution);
                *by_content.entry(content).or_insert_with(|| {
                    by_metric.push((metric, Vec::new()));
                    by_metric.len() - 1
                })
            });
            if let Some((_, rows)) = by_metric.get_mut(place) {
                rows.push(Row { definition, node: part.node, source });
            }
        }
    }
    by_metric.sort_by(|(a, _), (b, _)| metric_order(a, b));
    by_metric
}

impl Part {
    fn layouts(&self) -> impl Iterator<Item = &Arc<Layout>> {
        self.before.iter().chain(self.tiles.iter().map(|tile| &tile.index)).map(|index| &index.layout)
    }

    fn series(&self, number: u32) -> Vec<(&SeriesDefinition, Source)> {
        let mut stretches: Vec<(usize, &[Arc<SealedTile>])> = Vec::new();
        for run in self.tiles.chunk_by(|a, b| Arc::ptr_eq(&a.index, &b.index)) {
            let from = stretches.last().map_or(0, |(from, run)| from + run.len());
            stretches.push((from, run));
        }
        let ascends = self.tiles.windows(2).all(|pair| matches!(pair, [a, b] if a.last_time() < b.first_time()));
        let is_as_before = match (&self.before, self.tiles.first()) {
            (Some(before), Some(first)) => Arc::ptr_eq(before, &first.index),
            _ => true,
        };
        if let ([(_, run)], true, true) = (stretches.as_slice(), ascends, is_as_before) {
            let series = run.first().map(|tile| &tile.index.layout.series).into_iter().flatten();
            return series
                .zip(0..)
                .map(|(series, place)| (&**series, Source::Pieces { part: number, place }))
                .collect();
        }
        self.series_of(&stretches, number)
    }

    /// Several layouts in one hour: a series that a later one does not have ends there.
    fn series_of<'a>(
        &'a self,
        stretches: &[(usize, &'a [Arc<SealedTile>])],
        number: u32,
    ) -> Vec<(&'a SeriesDefinition, Source)> {
        let mut all: BTreeMap<Key<'a>, Vec<Stretch>> = BTreeMap::new();
        let now = stretches.first().and_then(|(_, run)| run.first());
        let here: BTreeSet<Key<'_>> =
            now.iter().flat_map(|now| &now.index.layout.series).map(|series| Key(series)).collect();
        for series in self.before.iter().flat_map(|before| &before.layout.series) {
            if !here.contains(&Key(series)) {
                all.entry(Key(series)).or_default().push(Stretch { tiles: 0..1, place: None });
            }
        }
        for (at, &(from, run)) in stretches.iter().enumerate() {
            let Some(first) = run.first() else { continue };
            for (series, place) in first.index.layout.series.iter().zip(0..) {
                let known = all.entry(Key(series)).or_default();
                known.push(Stretch { tiles: from..from + run.len(), place: Some(place) });
            }
            let is_gone = |known: &&mut Vec<Stretch>| {
                known.last().is_some_and(|last| last.place.is_some() && last.tiles.end == from)
            };
            if at > 0 {
                all.values_mut().filter(is_gone).for_each(|known| {
                    known.push(Stretch { tiles: from..from + 1, place: None });
                });
            }
        }
        let source = |ticks| Source::Ticks { part: number, ticks };
        all.into_iter().map(|(Key(series), ticks)| (series, source(ticks))).collect()
    }
}

/// Series by what they are.
#[derive(PartialEq, Eq)]
struct Key<'a>(&'a SeriesDefinition);

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_metric = metric_order(&self.0.metric, &other.0.metric);
        by_metric.then_with(|| self.0.label_values.cmp(&other.0.label_values))
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// All readings of one series, by time. Where it goes on in another group it has not ended.
fn merged(rows: &[Row<'_>], parts: &[Part]) -> BTreeMap<i64, Raw> {
    let mut readings = BTreeMap::new();
    let mut ends = Vec::new();
    for (group, Row { definition, source, .. }) in rows.iter().enumerate() {
        let (part, stretches) = match source {
            Source::Pieces { part, place } => {
                let tiles = parts.get(*part as usize).map_or(0, |part| part.tiles.len());
                (*part, vec![Stretch { tiles: 0..tiles, place: Some(*place) }])
            }
            Source::Ticks { part, ticks } => (*part, ticks.clone()),
        };
        let Some(part) = parts.get(part as usize) else { continue };
        for Stretch { tiles, place } in stretches {
            for tile in part.tiles.get(tiles).unwrap_or_default() {
                match place {
                    Some(place) => {
                        let column = Column::new(definition.metric.resolution, tile.column(place));
                        let Ok(mut column) = column else { continue };
                        // What this process encoded it can decode.
                        let values = iter::from_fn(|| Some((column.next_reading().ok()?, group)));
                        readings.extend(tile.times().map(Timestamp::as_millis).zip(values));
                    }
                    None => ends.push((tile.first_time().as_millis(), group)),
                }
            }
        }
    }
    ends.sort_unstable();
    for (time, group) in ends {
        let before = readings.range(..=time).next_back();
        if before.is_none_or(|(&before, &(_, of))| before < time && of == group) {
            readings.insert(time, (ENDED, group));
        }
    }
    readings.into_iter().map(|(time, (reading, _))| (time, reading)).collect()
}

/// A part's tiles, as many together as one chunk may have ticks: a node can send any number of ticks in an hour.
fn chunks(tiles: &[Arc<SealedTile>]) -> impl Iterator<Item = &[Arc<SealedTile>]> {
    let mut rest = tiles;
    iter::from_fn(move || {
        let mut ticks = 0;
        let fits = |tile: &&Arc<SealedTile>| {
            ticks += tile.len();
            ticks <= CHUNK_TICKS_MAX
        };
        let count = rest.iter().take_while(fits).count();
        let (chunk, after) = rest.split_at(count);
        rest = after;
        Some(chunk).filter(|chunk| !chunk.is_empty())
    })
}

/// Axes of the chunks of parts, made once for all series of a part.
#[derive(Default)]
struct Axes {
    of_chunks: FxHashMap<(u32, u32), (u32, u64)>,
}

impl Axes {
    fn of_tiles(&mut self, writer: &mut BlockWriter<'_>, chunk: (u32, u32), tiles: &[Arc<SealedTile>]) -> (u32, u64) {
        *self.of_chunks.entry(chunk).or_insert_with(|| {
            let times: Vec<i64> = tiles.iter().flat_map(|tile| tile.times()).map(Timestamp::as_millis).collect();
            (writer.axis(&times), times.len() as u64)
        })
    }
}

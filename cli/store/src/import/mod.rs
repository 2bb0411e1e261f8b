//! Takes in history from elsewhere: samples of any order become blocks of an hour each.
//!
//! What comes is spilled to a file, sorted in runs there, and written hour by hour: memory holds what series there are, and one run. Nothing
//! is a block before all of it has come, so that a file with a mistake leaves nothing; a crash while blocks are written leaves the whole ones,
//! and the same import again changes nothing in them. Then what is too old to be kept as samples is merged, whereby it gets its rows of minutes
//! and hours: a collector removes it when it starts. All else is merged by the collector, beside its work.

mod sort;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use belfry_common::{
    model::{Metric, Raw, Resolution, SeriesDefinition, Timestamp},
    storage::{Disk, Failure, Storage},
};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::{
    CompactOptions, Keys, NodeId, ShelfError,
    block::{BlockError, BlockWriter, ENDED, Origin, Strings, Summary, Tier, encode_column, metric_order},
    compact::{self, CHUNK_TICKS_MAX},
    partition::HOUR_MS,
    selection::Sample,
    shelf::Shelf,
};
use sort::{Hour, Spill, Spilled};

/// Series of one import: they stay in memory with their labels, some 300 bytes each.
const SERIES_MAX: usize = 4_000_000;
/// What a collector can take until it has merged what is about to get too old.
const MARGIN_MS: i64 = 24 * HOUR_MS;
/// As the collector has it.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Why nothing, or not all, was imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// There is no such directory.
    #[error(transparent)]
    Directory(Failure),
    /// A collector runs, or another import.
    #[error(
        "the store is in use: stop the collector, import, and start it again; agents keep what they measure meanwhile"
    )]
    InUse,
    /// The blocks that there are cannot be used.
    #[error("blocks cannot be used")]
    Blocks(#[source] ShelfError),
    /// A block could not be read or written.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// More than is taken in at once.
    #[error("more than {SERIES_MAX} series at once: import a part of the files, or of the metrics, at a time")]
    Series,
}

/// What an import has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Series.
    pub series: u64,
    /// Samples, missing ones included; of several of one time the last counts.
    pub samples: u64,
    /// Hours that they are of.
    pub hours: u64,
    /// The first time, in milliseconds since 1970.
    pub first_ms: i64,
    /// The last.
    pub last_ms: i64,
}

/// What an import is doing, and how much of it is done: from 0 to 1.
pub type ImportProgress<'a> = &'a dyn Fn(&'static str, f64) -> Result<(), BlockError>;

/// An import that is under way. It owns the folder of blocks: no collector can start meanwhile.
#[derive(Debug)]
pub struct Importer {
    shelf: Shelf,
    spill: Spill,
    series: Vec<(Arc<SeriesDefinition>, NodeId)>,
    imported: Imported,
}

impl Importer {
    /// Begins an import into a collector's data directory.
    ///
    /// # Errors
    /// [`ImportError`]
    pub fn open(directory: &Path, keys: &Keys) -> Result<Self, ImportError> {
        let path = directory.join("blocks");
        let disk = Disk::create(&path);
        let disk = disk.map_err(|source| ImportError::Directory(Failure { operation: "open", path, source }))?;
        Self::open_in(Arc::new(disk), keys)
    }

    pub(crate) fn open_in(storage: Arc<dyn Storage>, keys: &Keys) -> Result<Self, ImportError> {
        let (shelf, _) = Shelf::open(storage, keys, CACHE_BYTES).map_err(|error| match error {
            ShelfError::Locked(_) => ImportError::InUse,
            error @ ShelfError::Block(_) => ImportError::Blocks(error),
        })?;
        let spill = Spill::new(shelf.scratch()?);
        let imported = Imported { first_ms: i64::MAX, last_ms: i64::MIN, ..Imported::default() };
        Ok(Self { shelf, spill, series: Vec::new(), imported })
    }

    /// The metrics that blocks have, the newest definitions last.
    ///
    /// # Errors
    /// [`BlockError`] for a block that cannot be read.
    pub fn metrics(&self) -> Result<Vec<Arc<Metric>>, BlockError> {
        let mut known = BTreeSet::new();
        let mut metrics = Vec::new();
        for block in self.shelf.blocks().iter().rev() {
            for entry in &block.catalog()?.metrics {
                if known.insert(ByOrder(Arc::clone(&entry.metric))) {
                    metrics.push(Arc::clone(&entry.metric));
                }
            }
        }
        metrics.reverse();
        Ok(metrics)
    }

    /// Notes a series, and gives the number under which its samples are to come. One that is noted twice is one series.
    ///
    /// # Errors
    /// [`ImportError::Series`]
    pub fn series(&mut self, node: NodeId, definition: Arc<SeriesDefinition>) -> Result<u32, ImportError> {
        if self.series.len() >= SERIES_MAX {
            return Err(ImportError::Series);
        }
        self.series.push((definition, node));
        Ok(self.series.len() as u32 - 1)
    }

    /// Takes in a sample of a series that [`Self::series`] gave, and says whether it is kept exactly: a metric that is measured in steps
    /// has only these. One of any other series is left out, and false.
    ///
    /// # Errors
    /// [`ImportError`]: it cannot be written down.
    pub fn add(&mut self, series: u32, sample: Sample) -> Result<bool, ImportError> {
        let Some((definition, _)) = self.series.get(series as usize) else { return Ok(false) };
        let resolution = definition.metric.resolution;
        let reading = match sample.value {
            Ok(value) => Raw::at(resolution, value),
            Err(Some(reason)) => Raw::missing(reason),
            Err(None) => ENDED,
        };
        let is_exact = match sample.value {
            Ok(value) => resolution == Resolution::Float || reading.value(resolution) == Ok(value),
            Err(_) => true,
        };
        let time = sample.time.as_millis();
        self.imported.samples += 1;
        self.imported.first_ms = self.imported.first_ms.min(time);
        self.imported.last_ms = self.imported.last_ms.max(time);
        self.spill.add(series, time, reading.bits())?;
        Ok(is_exact)
    }

    /// Writes blocks, and makes rows of what is older than so many milliseconds less a day: what retention would soon take.
    ///
    /// # Errors
    /// [`ImportError`]; blocks that were written by then stay.
    pub fn finish(
        self,
        now: Timestamp,
        raw_age_ms_max: i64,
        progress: ImportProgress<'_>,
    ) -> Result<Imported, ImportError> {
        let Self { shelf, spill, series, mut imported } = self;
        let (series, ranks) = ranked(&series);
        imported.series = series.len() as u64;
        let spilled = spill.sort(&ranks, &|part| progress("sorting", part))?;
        imported.hours = spilled.hours().len() as u64;
        for (done, hour) in spilled.hours().into_iter().enumerate() {
            progress("writing blocks", done as f64 / imported.hours as f64)?;
            write_hour(&shelf, &spilled, hour, &series, now)?;
        }
        drop(spilled);
        merge_old(&shelf, now.plus_millis(MARGIN_MS - raw_age_ms_max), now, progress)?;
        Ok(imported)
    }
}

/// Metrics as blocks tell them apart.
struct ByOrder(Arc<Metric>);

impl PartialEq for ByOrder {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByOrder {}

impl PartialOrd for ByOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        metric_order(&self.0, &other.0)
    }
}

type Series = (Arc<SeriesDefinition>, NodeId);

fn series_order((a, on_a): &Series, (b, on_b): &Series) -> std::cmp::Ordering {
    metric_order(&a.metric, &b.metric).then_with(|| (&a.label_values, on_a).cmp(&(&b.label_values, on_b)))
}

/// The series in the order of a block, each once, and the place among them of each as it came.
fn ranked(series: &[Series]) -> (Vec<Series>, Vec<u32>) {
    let mut order: Vec<u32> = (0..series.len() as u32).collect();
    let of = |number: &u32| series.get(*number as usize);
    let compare = |a: &u32, b: &u32| match (of(a), of(b)) {
        (Some(a), Some(b)) => series_order(a, b),
        _ => std::cmp::Ordering::Equal,
    };
    order.sort_by(compare);
    let (mut sorted, mut ranks) = (Vec::new(), vec![0; series.len()]);
    for same in order.chunk_by(|a, b| compare(a, b).is_eq()) {
        for number in same {
            if let Some(rank) = ranks.get_mut(*number as usize) {
                *rank = sorted.len() as u32;
            }
        }
        sorted.extend(same.first().and_then(of).cloned());
    }
    (sorted, ranks)
}

/// Writes the block of one hour.
fn write_hour(
    shelf: &Shelf,
    spilled: &Spilled,
    hour: i64,
    series: &[Series],
    now: Timestamp,
) -> Result<(), BlockError> {
    let mut texts = BTreeSet::new();
    let (mut times, mut readings) = (Vec::new(), Vec::new());
    let mut samples = spilled.hour(hour)?;
    while let Some(rank) = samples.next_series(&mut times, &mut readings)? {
        let definition = series.get(rank as usize).map(|(definition, _)| definition);
        texts.extend(definition.iter().flat_map(|definition| &definition.label_values).map(|value| &**value));
    }
    let strings = Strings::new(texts);
    let origin = Origin { created: now.as_millis(), ..Origin::default() };
    let samples = spilled.hour(hour)?;
    shelf.write(Tier::Raw, &strings, &|_| Ok(()), |writer| {
        write_samples(writer, samples, series, &strings).map(|()| origin)
    })?;
    Ok(())
}

fn write_samples(
    writer: &mut BlockWriter<'_>,
    mut samples: Hour<'_>,
    series: &[Series],
    strings: &Strings,
) -> Result<(), BlockError> {
    let numbers: FxHashMap<&str, u32> = strings.iter().zip(0..).collect();
    let (mut times, mut readings, mut column) = (Vec::new(), Vec::new(), vec![Vec::new()]);
    let mut open: Option<&Arc<Metric>> = None;
    while let Some(rank) = samples.next_series(&mut times, &mut readings)? {
        let Some((definition, node)) = series.get(rank as usize) else { continue };
        let metric = &definition.metric;
        if open.is_none_or(|open| metric_order(open, metric).is_ne()) {
            writer.metric(metric)?;
            open = Some(metric);
        }
        let labels = definition.label_values.iter().filter_map(|value| numbers.get(&**value).copied());
        writer.series(&labels.collect::<Vec<u32>>(), *node)?;
        for (times, readings) in times.chunks(CHUNK_TICKS_MAX).zip(readings.chunks(CHUNK_TICKS_MAX)) {
            if let Some(column) = column.first_mut() {
                column.clear();
                encode_column(metric.resolution, readings, column);
            }
            let axis = writer.axis(times);
            writer.chunk(axis, times.len() as u64, &column)?;
        }
    }
    Ok(())
}

/// Does all merges of blocks that end before the horizon, however new they are.
fn merge_old(
    shelf: &Shelf,
    horizon: Timestamp,
    now: Timestamp,
    progress: ImportProgress<'_>,
) -> Result<(), BlockError> {
    let options = CompactOptions { quiet_ms: 0, ..CompactOptions::default() };
    let is_old = |summary: &&Summary| summary.last_ms < horizon.as_millis();
    let unmerged = || {
        let blocks = shelf.blocks();
        blocks.iter().map(|block| block.summary()).filter(is_old).filter(|summary| !summary.is_final).count()
    };
    let all = unmerged().max(1);
    let told = || progress("merging", 1.0 - (unmerged() as f64 / all as f64).min(1.0));
    loop {
        let blocks = shelf.blocks();
        let summaries: Vec<&Summary> = blocks.iter().map(|block| block.summary()).filter(is_old).collect();
        let Some(job) = compact::next(&summaries, &options, now) else { return Ok(()) };
        drop(blocks);
        match compact::run(shelf, &job, &|_| told(), now, 0) {
            // It costs itself alone, as in a collector.
            Err(error @ BlockError::Damaged { .. }) => shelf.quarantine_damaged(&error),
            result => result?,
        }
    }
}

/// The hour of a time, in hours since 1970.
fn hour_of(time: i64) -> i64 {
    time.div_euclid(HOUR_MS)
}

#[cfg(test)]
mod tests;

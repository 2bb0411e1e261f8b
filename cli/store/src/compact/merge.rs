//! Merges blocks into one, series by series, in the memory of a series and a page of each block.
//!
//! Of two samples of one time the one in the later block counts. What has no overlap and is packed for good is copied as it is.

use std::{collections::BTreeSet, sync::Arc};

use belfry_common::model::{Metric, Raw, Resolution, Timestamp};

use super::{
    plan::Job,
    rows::{Rows, row_ms},
    source::Source,
};
use crate::{
    NodeId,
    block::{
        Block, BlockError, BlockWriter, ENDED, Origin, Pace, Strings, Tier, column_resolution, encode_column,
        metric_order,
    },
    partition::{Length, Span},
    shelf::Shelf,
};

/// Samples in one chunk of ten ticks a second and more: what is read for a minute is not an hour.
pub(crate) const CHUNK_TICKS_MAX: usize = 8192;
/// Bytes read before the pace is kept.
const PACE_BYTES: u64 = 1024 * 1024;

/// Does a job. Readers see the old blocks or the new one. All of the journal's segments before `stored_before` are in blocks; 0 if that is
/// not known.
///
/// # Errors
/// [`BlockError`]; the old blocks are as they were.
pub(crate) fn run(
    shelf: &Shelf,
    job: &Job,
    pace: Pace<'_>,
    now: Timestamp,
    stored_before: u64,
) -> Result<(), BlockError> {
    let blocks = shelf.blocks();
    let blocks: Vec<&Arc<Block>> = blocks.iter().filter(|block| job.sources.contains(&block.number())).collect();
    let mut texts = BTreeSet::new();
    let tables: Vec<Arc<Strings>> =
        blocks.iter().map(|block| block.strings(&*block.catalog()?)).collect::<Result<_, _>>()?;
    tables.iter().for_each(|strings| texts.extend(strings.iter()));
    let strings = Strings::new(texts);
    let sources = blocks.iter().map(|block| Source::open(block, &strings)).collect::<Result<_, _>>()?;
    // Blocks made of the journal say how far it is in blocks: this one takes their place. Those that say more are of another journal.
    let told = blocks.iter().map(|block| block.summary().journal_segment);
    let journal_segment = told.filter(|&told| told <= stored_before).max().unwrap_or(0);
    let origin =
        Origin { journal_segment, replaced: job.sources.clone(), created: now.as_millis(), is_final: job.is_final };
    let row = Origin { created: now.as_millis(), is_final: true, ..Origin::default() };
    let mut merge = Merge { sources, tier: job.tier, pace, paced: 0, series: SeriesBuffer::default() };
    let makes_rows = job.tier == Tier::Raw && job.is_final && blocks.iter().any(|block| !block.summary().is_final);
    if !makes_rows {
        let write = |writer: &mut BlockWriter<'_>| merge.run(writer, None).map(|()| origin);
        shelf.write(job.tier, &strings, pace, write)?;
        return Ok(());
    }
    // The inner ones come into service first: as long as the raw samples are not merged, a crash lets all be done again.
    shelf.write(Tier::Raw, &strings, pace, |raw| {
        shelf.write(Tier::Minute, &strings, pace, |minute| {
            shelf.write(Tier::Hour, &strings, pace, |hour| {
                merge.run(raw, Some(Coarser { minute, hour })).map(|()| row.clone())
            })?;
            Ok(row.clone())
        })?;
        Ok(origin)
    })?;
    Ok(())
}

struct Merge<'a> {
    /// In the order of their numbers.
    sources: Vec<Source>,
    tier: Tier,
    pace: Pace<'a>,
    paced: u64,
    series: SeriesBuffer,
}

/// Writers of minutes and of hours.
struct Coarser<'w, 'm, 'h> {
    minute: &'w mut BlockWriter<'m>,
    hour: &'w mut BlockWriter<'h>,
}

impl Coarser<'_, '_, '_> {
    fn metric(&mut self, metric: &Arc<Metric>) -> Result<(), BlockError> {
        self.minute.metric(metric)?;
        self.hour.metric(metric)
    }

    fn series(
        &mut self,
        (labels, node): (&[u32], NodeId),
        resolution: Resolution,
        series: &mut SeriesBuffer,
    ) -> Result<(), BlockError> {
        self.minute.series(labels, node)?;
        series.write_rows(resolution, Tier::Minute, self.minute)?;
        self.hour.series(labels, node)?;
        series.write_rows(resolution, Tier::Hour, self.hour)
    }
}

impl Merge<'_> {
    fn run(&mut self, out: &mut BlockWriter<'_>, mut coarser: Option<Coarser<'_, '_, '_>>) -> Result<(), BlockError> {
        while let Some(metric) = self.next_metric() {
            for source in &mut self.sources {
                source.open_metric(&metric)?;
            }
            out.metric(&metric)?;
            if let Some(coarser) = &mut coarser {
                coarser.metric(&metric)?;
            }
            while let Some((labels, node)) = self.next_series() {
                self.series(&metric, (&labels, node), out, coarser.as_mut())?;
                self.keep_pace()?;
            }
        }
        Ok(())
    }

    fn next_metric(&self) -> Option<Arc<Metric>> {
        self.sources.iter().filter_map(Source::next_metric).min_by(|a, b| metric_order(a, b)).cloned()
    }

    fn next_series(&self) -> Option<(Vec<u32>, NodeId)> {
        let (labels, node) = self.sources.iter().filter_map(Source::key).min()?;
        Some((labels.to_vec(), node))
    }

    fn keep_pace(&mut self) -> Result<(), BlockError> {
        let read = self.sources.iter().map(Source::bytes).sum::<u64>();
        if read - self.paced >= PACE_BYTES {
            (self.pace)((read - self.paced) as usize)?;
            self.paced = read;
        }
        Ok(())
    }

    fn series(
        &mut self,
        metric: &Metric,
        (labels, node): (&[u32], NodeId),
        out: &mut BlockWriter<'_>,
        coarser: Option<&mut Coarser<'_, '_, '_>>,
    ) -> Result<(), BlockError> {
        let of_it = |source: &&mut Source| source.key() == Some((labels, node));
        let mut holders: Vec<&mut Source> = self.sources.iter_mut().filter(of_it).collect();
        out.series(labels, node)?;
        // Packed for good: then order is all that counts. Chunks of rows grow with their block.
        let are_packed = self.tier == Tier::Raw && holders.iter().all(|source| source.is_final());
        if !(are_packed && copy(&mut holders, self.tier, out)?) {
            let series = &mut self.series;
            series.read(&mut holders, metric, self.tier)?;
            series.write(metric.resolution, self.tier, out)?;
            if let Some(coarser) = coarser.filter(|_| holders.iter().any(|source| !source.is_final())) {
                coarser.series((labels, node), metric.resolution, series)?;
            }
        }
        holders.into_iter().try_for_each(Source::advance)
    }
}

/// Copies the chunks of a series as they are; false, and nothing is written, if their times overlap.
fn copy(holders: &mut [&mut Source], tier: Tier, out: &mut BlockWriter<'_>) -> Result<bool, BlockError> {
    let mut before = i64::MIN;
    let mut chunks = Vec::new();
    for (at, source) in holders.iter_mut().enumerate() {
        for chunk in source.chunks() {
            let times = source.times(chunk)?;
            if times.first().is_none_or(|first| *first <= before) {
                return Ok(false);
            }
            before = times.last().copied().unwrap_or(before);
            chunks.push((at, chunk, times));
        }
    }
    let mut columns = vec![Vec::new(); tier.columns()];
    for (at, chunk, times) in chunks {
        let Some(source) = holders.get_mut(at) else { continue };
        for (number, column) in columns.iter_mut().enumerate() {
            column.clear();
            column.extend_from_slice(source.column(number, chunk)?);
        }
        let axis = out.axis(&times);
        out.chunk(axis, times.len() as u64, &columns)?;
    }
    Ok(true)
}

/// One series, decoded.
#[derive(Debug, Default)]
struct SeriesBuffer {
    times: Vec<i64>,
    columns: Vec<Vec<Raw>>,
    rows: Rows,
    coded: Vec<Vec<u8>>,
}

impl SeriesBuffer {
    fn read(&mut self, holders: &mut [&mut Source], metric: &Metric, tier: Tier) -> Result<(), BlockError> {
        self.times.clear();
        self.columns.resize_with(tier.columns(), Vec::new);
        self.columns.iter_mut().for_each(Vec::clear);
        for source in holders {
            for chunk in source.chunks() {
                let times = source.times(chunk)?;
                self.times.extend_from_slice(&times);
                for (number, column) in self.columns.iter_mut().enumerate() {
                    source.readings((number, chunk), metric, times.len(), column)?;
                }
            }
        }
        if !self.times.is_sorted_by(|a, b| a < b) {
            self.put_in_order();
        }
        Ok(())
    }

    /// Orders by time; of two at one time the later one counts, and an end only if it is alone.
    fn put_in_order(&mut self) {
        let mut order: Vec<usize> = (0..self.times.len()).collect();
        let time = |at: &usize| self.times.get(*at).copied().unwrap_or(i64::MAX);
        let is_end = |at: usize| self.columns.first().and_then(|column| column.get(at)) == Some(&ENDED);
        order.sort_by_key(|at| (time(at), !is_end(*at)));
        let last_of_each = order.chunk_by(|a, b| time(a) == time(b)).filter_map(<[usize]>::last);
        let order: Vec<usize> = last_of_each.copied().collect();
        self.times = order.iter().filter_map(|&at| self.times.get(at).copied()).collect();
        for column in &mut self.columns {
            *column = order.iter().filter_map(|&at| column.get(at).copied()).collect();
        }
    }

    fn write(&mut self, resolution: Resolution, tier: Tier, out: &mut BlockWriter<'_>) -> Result<(), BlockError> {
        write(&self.times, &self.columns, (resolution, tier), &mut self.coded, out)
    }

    /// Writes the rows of raw samples.
    fn write_rows(&mut self, resolution: Resolution, tier: Tier, out: &mut BlockWriter<'_>) -> Result<(), BlockError> {
        let (Some(row_ms), Some(readings)) = (row_ms(tier), self.columns.first()) else { return Ok(()) };
        self.rows.clear();
        self.rows.add(&self.times, readings, row_ms, resolution == Resolution::Float);
        write(&self.rows.times, &self.rows.columns, (resolution, tier), &mut self.coded, out)
    }
}

/// Writes a series chunk by chunk.
fn write(
    times: &[i64],
    columns: &[Vec<Raw>],
    (resolution, tier): (Resolution, Tier),
    coded: &mut Vec<Vec<u8>>,
    out: &mut BlockWriter<'_>,
) -> Result<(), BlockError> {
    // A thousand rows or a few: chunks of a tier are as long as they can be read at once.
    let length = match tier {
        Tier::Raw => Length::Hour,
        Tier::Minute => Length::Day,
        Tier::Hour => Length::Month,
    };
    coded.resize_with(columns.len(), Vec::new);
    let mut from = 0;
    for span in times.chunk_by(|a, b| Span::of(length, *a) == Span::of(length, *b)) {
        for chunk in span.chunks(CHUNK_TICKS_MAX) {
            for (number, (column, coded)) in columns.iter().zip(&mut *coded).enumerate() {
                coded.clear();
                let readings = column.get(from..from + chunk.len()).unwrap_or_default();
                encode_column(column_resolution(tier, number, resolution), readings, coded);
            }
            let axis = out.axis(chunk);
            out.chunk(axis, chunk.len() as u64, coded)?;
            from += chunk.len();
        }
    }
    Ok(())
}

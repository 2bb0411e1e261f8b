//! Sorts more samples than memory holds: by hour, series and time.
//!
//! ```text
//! sample = series u32 · time i64 · reading i64, little-endian
//! ```
//! They are written as they come, then read again, sorted in runs of some million, and each run written in its place. In a run an hour is one
//! piece: an hour is read by merging its pieces. Of samples of one series and time the one that came last counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use belfry_common::model::Raw;

use super::hour_of;
use crate::{block::BlockError, scratch::Scratch};

const SAMPLE_BYTES: usize = 20;
/// Samples that are sorted at once: 24 bytes each.
const RUN_SAMPLES: usize = 4 * 1024 * 1024;
/// Samples that are read or written at once; of each run that an hour is in there is one such buffer.
const BUFFER_SAMPLES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    series: u32,
    time: i64,
    bits: i64,
}

impl Record {
    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.series.to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.bits.to_le_bytes());
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let (series, rest) = bytes.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (bits, _) = rest.split_first_chunk()?;
        let [time, bits] = [*time, *bits].map(i64::from_le_bytes);
        Some(Self { series: u32::from_le_bytes(*series), time, bits })
    }
}

/// Samples as they came.
#[derive(Debug)]
pub(super) struct Spill {
    scratch: Scratch,
    samples: u64,
    buffer: Vec<u8>,
    run_samples: usize,
}

impl Spill {
    pub(super) fn new(scratch: Scratch) -> Self {
        Self { scratch, samples: 0, buffer: Vec::new(), run_samples: RUN_SAMPLES }
    }

    #[cfg(test)]
    pub(super) fn with_runs_of(self, run_samples: usize) -> Self {
        Self { run_samples, ..self }
    }

    pub(super) fn add(&mut self, series: u32, time: i64, bits: i64) -> Result<(), BlockError> {
        Record { series, time, bits }.put(&mut self.buffer);
        if self.buffer.len() >= BUFFER_SAMPLES * SAMPLE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.scratch.write(&self.buffer, self.samples * SAMPLE_BYTES as u64)?;
        self.samples += (self.buffer.len() / SAMPLE_BYTES) as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Sorts all; `ranks` has the place of each series among all, in the order in which they are wanted.
    pub(super) fn sort(
        mut self,
        ranks: &[u32],
        progress: &dyn Fn(f64) -> Result<(), BlockError>,
    ) -> Result<Spilled, BlockError> {
        self.flush()?;
        let mut pieces: BTreeMap<i64, Vec<Piece>> = BTreeMap::new();
        let (mut run, mut bytes) = (Vec::new(), Vec::new());
        let mut from = 0;
        while from < self.samples {
            progress(from as f64 / self.samples as f64)?;
            let count = (self.samples - from).min(self.run_samples as u64);
            self.read_run(from, count, ranks, &mut run)?;
            // Stable: what came last stays last.
            run.sort_by_key(|sample: &Record| (hour_of(sample.time), sample.series, sample.time));
            let mut at = from;
            for of_hour in run.chunk_by(|a, b| hour_of(a.time) == hour_of(b.time)) {
                let Some(first) = of_hour.first() else { continue };
                let end = at + of_hour.len() as u64;
                pieces.entry(hour_of(first.time)).or_default().push(Piece { from: at, end });
                at = end;
            }
            let mut written = from;
            for some in run.chunks(BUFFER_SAMPLES) {
                bytes.clear();
                some.iter().for_each(|sample| sample.put(&mut bytes));
                self.scratch.write(&bytes, written * SAMPLE_BYTES as u64)?;
                written += some.len() as u64;
            }
            from += count;
        }
        Ok(Spilled { scratch: self.scratch, pieces })
    }

    fn read_run(&self, from: u64, count: u64, ranks: &[u32], run: &mut Vec<Record>) -> Result<(), BlockError> {
        run.clear();
        let mut reader = Reader::new(&self.scratch, Piece { from, end: from + count });
        while let Some(sample) = reader.next()? {
            let series = ranks.get(sample.series as usize).copied().unwrap_or(u32::MAX);
            run.push(Record { series, ..sample });
        }
        Ok(())
    }
}

/// Samples of one hour in one run, as numbers of samples in the file.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: u64,
    end: u64,
}

/// Samples in order, hour by hour.
#[derive(Debug)]
pub(super) struct Spilled {
    scratch: Scratch,
    /// In the order of the runs.
    pieces: BTreeMap<i64, Vec<Piece>>,
}

impl Spilled {
    pub(super) fn hours(&self) -> Vec<i64> {
        self.pieces.keys().copied().collect()
    }

    /// Begins to read an hour.
    pub(super) fn hour(&self, hour: i64) -> Result<Hour<'_>, BlockError> {
        let pieces = self.pieces.get(&hour).map(Vec::as_slice).unwrap_or_default();
        let mut hour = Hour {
            readers: pieces.iter().map(|piece| Reader::new(&self.scratch, *piece)).collect(),
            heads: BinaryHeap::new(),
        };
        for run in 0..hour.readers.len() {
            hour.advance(run)?;
        }
        Ok(hour)
    }
}

/// An hour that is read.
pub(super) struct Hour<'a> {
    readers: Vec<Reader<'a>>,
    /// The next sample of each run: series, time, run, and the reading.
    heads: BinaryHeap<Reverse<(u32, i64, usize, i64)>>,
}

impl Hour<'_> {
    fn advance(&mut self, run: usize) -> Result<(), BlockError> {
        if let Some(reader) = self.readers.get_mut(run) {
            self.heads.extend(reader.next()?.map(|sample| Reverse((sample.series, sample.time, run, sample.bits))));
        }
        Ok(())
    }

    /// The next series, with its times, which ascend, and its readings.
    pub(super) fn next_series(
        &mut self,
        times: &mut Vec<i64>,
        readings: &mut Vec<Raw>,
    ) -> Result<Option<u32>, BlockError> {
        times.clear();
        readings.clear();
        let Some(&Reverse((series, ..))) = self.heads.peek() else { return Ok(None) };
        while let Some(&Reverse((_, time, run, bits))) = self.heads.peek().filter(|Reverse(head)| head.0 == series) {
            self.heads.pop();
            self.advance(run)?;
            if times.last() == Some(&time) {
                readings.pop();
            } else {
                times.push(time);
            }
            readings.push(Raw::from_bits(bits));
        }
        Ok(Some(series))
    }
}

/// Reads a piece from its beginning to its end.
struct Reader<'a> {
    scratch: &'a Scratch,
    piece: Piece,
    buffer: Vec<u8>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(scratch: &'a Scratch, piece: Piece) -> Self {
        Self { scratch, piece, buffer: Vec::new(), at: 0 }
    }

    fn next(&mut self) -> Result<Option<Record>, BlockError> {
        if self.at >= self.buffer.len() {
            let count = (self.piece.end - self.piece.from).min(BUFFER_SAMPLES as u64);
            self.buffer.resize(count as usize * SAMPLE_BYTES, 0);
            self.scratch.read(&mut self.buffer, self.piece.from * SAMPLE_BYTES as u64)?;
            self.piece.from += count;
            self.at = 0;
        }
        let sample = self.buffer.get(self.at..).and_then(Record::take);
        self.at += SAMPLE_BYTES;
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use belfry_common::storage::simulated::Simulated;
    use proptest::prelude::*;

    use super::*;
    use crate::{Keys, scratch::Scratch};

    proptest! {
        #[test]
        fn samples_come_back_in_order_and_the_last_of_a_time_counts(
            samples in proptest::collection::vec((0..4_u32, -3..12_i64, any::<i64>()), 0..200),
            run_samples in 1..50_usize,
        ) {
            let scratch = Scratch::create(Arc::new(Simulated::new(1)), "scratch".to_owned(), &Keys::default()).unwrap();
            let mut spill = Spill::new(scratch).with_runs_of(run_samples);
            let mut expected = BTreeMap::new();
            // Ranks are the other way round than numbers.
            for &(series, minutes, bits) in &samples {
                let time = minutes * 20 * 60_000;
                spill.add(series, time, bits).unwrap();
                expected.insert((hour_of(time), 3 - series, time), bits);
            }
            let spilled = spill.sort(&[3, 2, 1, 0], &|_| Ok(())).unwrap();
            let mut read = BTreeMap::new();
            for hour in spilled.hours() {
                let mut of_hour = spilled.hour(hour).unwrap();
                let (mut times, mut readings) = (Vec::new(), Vec::new());
                let mut before = None;
                while let Some(series) = of_hour.next_series(&mut times, &mut readings).unwrap() {
                    prop_assert!(before < Some(series) && times.is_sorted_by(|a, b| a < b));
                    before = Some(series);
                    read.extend(times.iter().zip(&readings).map(|(&time, raw)| ((hour, series, time), raw.bits())));
                }
            }
            prop_assert_eq!(read, expected);
        }
    }
}

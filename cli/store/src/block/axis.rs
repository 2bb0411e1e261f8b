//! The times of chunks, shared by all series that were sampled together.
//!
//! ```text
//! axes = axes varint, for each: first time signed · milliseconds to the last varint · ticks varint · bytes varint
//!        then all axes one behind the other
//! axis = 0, runs varint, [ first: milliseconds after the time before, signed · step varint · further ticks varint ]
//!      | 1, ticks varint, pco chunk of the times as signed 64-bit integers
//! ```
//! A node that samples each second without a gap has one run. The second form is for times without a pattern, as imports have.

use std::{collections::HashMap, ops::Range};

use super::{
    bytes::{Bytes, Malformed, put_signed, put_varint},
    pco,
};

const RUNS: u8 = 0;
const PACKED: u8 = 1;

/// Ticks of one chunk. An hour at one a second has 3,600; who samples ten times a second has 36,000.
pub(crate) const TICKS_PER_CHUNK_MAX: usize = 65_536;

/// Appends an axis. The times ascend.
fn encode(times: &[i64], out: &mut Vec<u8>) {
    let runs = runs(times);
    if runs.len() > 8 && runs.len() > times.len() / 4 {
        out.push(PACKED);
        put_varint(times.len() as u64, out);
        pco::encode(times, out);
        return;
    }
    out.push(RUNS);
    put_varint(runs.len() as u64, out);
    let mut before = 0_i64;
    for Run { first, step, further } in runs {
        put_signed(first.wrapping_sub(before), out);
        put_varint(step.cast_unsigned(), out);
        put_varint(further, out);
        before = first.wrapping_add(step.wrapping_mul(further.cast_signed()));
    }
}

struct Run {
    first: i64,
    step: i64,
    further: u64,
}

fn runs(times: &[i64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut before = 0;
    for &time in times {
        match runs.last_mut() {
            Some(run) if run.further == 0 => {
                run.step = time.wrapping_sub(before);
                run.further = 1;
            }
            Some(run) if time.wrapping_sub(before) == run.step => run.further += 1,
            _ => runs.push(Run { first: time, step: 0, further: 0 }),
        }
        before = time;
    }
    runs
}

/// When an axis begins and ends, and how many times it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AxisSpan {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) ticks: usize,
}

/// Gathers the axes of a block, each once.
#[derive(Debug, Default)]
pub(crate) struct AxisWriter {
    numbers: HashMap<Box<[u8]>, u32>,
    table: Vec<u8>,
    coded: Vec<u8>,
    /// Of each axis.
    last_times: Vec<i64>,
    /// The axis asked for last: neighbouring series mostly share one.
    last: Option<(Vec<i64>, u32)>,
}

impl AxisWriter {
    /// The number of the axis with these times, which ascend and are at least one.
    pub(crate) fn number(&mut self, times: &[i64]) -> u32 {
        if let Some((_, number)) = self.last.as_ref().filter(|(last, _)| last == times) {
            return *number;
        }
        let mut coded = Vec::new();
        encode(times, &mut coded);
        let next = self.numbers.len() as u32;
        let number = match self.numbers.get(coded.as_slice()) {
            Some(&number) => number,
            None => {
                let (first, last) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
                put_signed(first, &mut self.table);
                put_varint(last.wrapping_sub(first).cast_unsigned(), &mut self.table);
                put_varint(times.len() as u64, &mut self.table);
                put_varint(coded.len() as u64, &mut self.table);
                self.coded.extend_from_slice(&coded);
                self.last_times.push(last);
                self.numbers.insert(coded.into(), next);
                next
            }
        };
        let (last, last_number) = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(times);
        *last_number = number;
        number
    }

    /// The last time of an axis.
    pub(crate) fn last_time(&self, number: u32) -> Option<i64> {
        self.last_times.get(number as usize).copied()
    }

    /// The section.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.table.len() + self.coded.len() + 5);
        put_varint(self.numbers.len() as u64, &mut out);
        out.extend_from_slice(&self.table);
        out.extend_from_slice(&self.coded);
        out
    }
}

/// The axes of a block as they are read: not decoded before they are needed.
#[derive(Debug, Default)]
pub(crate) struct Axes {
    spans: Box<[(AxisSpan, Range<usize>)]>,
    coded: Box<[u8]>,
}

impl Axes {
    /// Reads the section.
    ///
    /// # Errors
    /// [`Malformed`]
    pub(crate) fn parse(section: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(section);
        let mut at = 0_usize;
        let mut spans = Vec::new();
        for _ in 0..bytes.count()? {
            let (first, length, ticks) = (bytes.signed()?, bytes.varint()?, bytes.u32()? as usize);
            if ticks > TICKS_PER_CHUNK_MAX {
                return Err(Malformed);
            }
            let end = at.checked_add(bytes.u32()? as usize).ok_or(Malformed)?;
            spans.push((AxisSpan { first, last: first.wrapping_add(length.cast_signed()), ticks }, at..end));
            at = end;
        }
        if at == bytes.0.len() { Ok(Self { spans: spans.into(), coded: bytes.0.into() }) } else { Err(Malformed) }
    }

    pub(crate) fn span(&self, number: u32) -> Result<AxisSpan, Malformed> {
        self.spans.get(number as usize).map(|(span, _)| *span).ok_or(Malformed)
    }

    /// The times of an axis.
    ///
    /// # Errors
    /// [`Malformed`] if they are not what the table says.
    pub(crate) fn times(&self, number: u32) -> Result<Vec<i64>, Malformed> {
        let (span, range) = self.spans.get(number as usize).ok_or(Malformed)?;
        let times = decode(self.coded.get(range.clone()).ok_or(Malformed)?)?;
        let is_as_said =
            (times.first(), times.last(), times.len()) == (Some(&span.first), Some(&span.last), span.ticks);
        if is_as_said { Ok(times) } else { Err(Malformed) }
    }

    /// What it occupies.
    pub(crate) fn bytes(&self) -> usize {
        self.coded.len() + self.spans.len() * size_of::<(AxisSpan, Range<usize>)>()
    }
}

/// Reads an axis.
///
/// # Errors
/// [`Malformed`], also when times do not ascend or are more than a chunk has.
fn decode(bytes: &[u8]) -> Result<Vec<i64>, Malformed> {
    let mut bytes = Bytes(bytes);
    let mut times = Vec::new();
    if bytes.u8()? == RUNS {
        let mut before = 0_i64;
        for _ in 0..bytes.count()? {
            let first = before.wrapping_add(bytes.signed()?);
            let (step, further) = (bytes.varint()?.cast_signed(), bytes.varint()?);
            if further >= (TICKS_PER_CHUNK_MAX - times.len()) as u64 {
                return Err(Malformed);
            }
            times.extend((0..=further.cast_signed()).map(|tick| first.wrapping_add(step.wrapping_mul(tick))));
            before = times.last().copied().unwrap_or_default();
        }
        bytes.end()?;
    } else {
        let ticks = bytes.u32()? as usize;
        if ticks > TICKS_PER_CHUNK_MAX {
            return Err(Malformed);
        }
        pco::decode(bytes.0, ticks, &mut times)?;
    }
    if times.is_sorted_by(|a, b| a < b) { Ok(times) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(times: &[i64]) -> usize {
        let mut out = Vec::new();
        encode(times, &mut out);
        assert_eq!(decode(&out).unwrap(), times);
        for end in (0..out.len()).step_by(1 + out.len() / 16) {
            // Cut short it is refused or, in the second form, at least not taken for something longer.
            if let Ok(cut) = decode(&out[..end]) {
                assert!(cut.len() <= times.len());
            }
        }
        out.len()
    }

    #[test]
    fn an_hour_of_seconds_takes_a_dozen_bytes_and_a_gap_a_few_more() {
        let start = 1_780_000_000_000;
        let hour: Vec<i64> = (0..3600).map(|second| start + second * 1000).collect();
        assert!(round(&hour) <= 14);
        let with_gap: Vec<i64> =
            hour.iter().copied().filter(|time| !(start + 50_000..start + 61_000).contains(time)).collect();
        assert!(round(&with_gap) <= 24);
    }

    #[test]
    fn an_axis_that_is_known_is_stored_once() {
        let mut writer = AxisWriter::default();
        let numbers = [&[1, 2, 3][..], &[1, 2, 4], &[1, 2, 3], &[1, 2, 3]].map(|times| writer.number(times));
        assert_eq!(numbers, [0, 1, 0, 0]);
        let section = writer.finish();
        let axes = Axes::parse(&section).unwrap();
        assert_eq!(axes.times(1), Ok(vec![1, 2, 4]));
        assert_eq!(axes.span(0), Ok(AxisSpan { first: 1, last: 3, ticks: 3 }));
        assert_eq!(axes.times(2), Err(Malformed));
        for end in 0..section.len() {
            assert!(Axes::parse(&section[..end]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_ascending_times_come_back(mut times: Vec<i64>) {
            times.sort_unstable();
            times.dedup();
            round(&times);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = Axes::parse(&bytes);
        }
    }
}

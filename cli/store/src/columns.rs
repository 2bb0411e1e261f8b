//! Samples of one series as two columns, times and values: what long reads are made of.

use belfry_common::model::{Reason, Timestamp};

use crate::{
    Pick,
    pick::Places,
    selection::{Sample, TimeRange, put_in_order},
};

/// NaNs with these bits say why there is no value: the lowest byte has the code of the reason, or [`ENDED`].
const MISSING: u64 = 0xFFF8_4245_4C46_5900;
const CODE: u64 = 0xFF;
const ENDED: u64 = 15;

/// Whether there is no value: of [`Samples::values`].
#[inline]
#[must_use]
pub fn is_missing(value: f64) -> bool {
    value.to_bits() & !CODE == MISSING
}

/// A value, or why there is none, in eight bytes.
#[inline]
pub(crate) fn coded(value: Result<f64, Option<Reason>>) -> f64 {
    match value {
        // What was measured says nothing of the kind, whatever its bits are.
        Ok(value) if is_missing(value) => f64::NAN,
        Ok(value) => value,
        Err(reason) => f64::from_bits(MISSING | reason.map_or(ENDED, |reason| reason.code().into())),
    }
}

fn decoded(value: f64) -> Result<f64, Option<Reason>> {
    if !is_missing(value) {
        return Ok(value);
    }
    let code = (value.to_bits() & CODE) as u8;
    Err(if u64::from(code) == ENDED { None } else { Some(Reason::from_code(code).unwrap_or(Reason::Error)) })
}

/// Samples of one series, ascending in time.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    times: &'a [i64],
    values: &'a [f64],
    may_miss: bool,
}

impl<'a> Samples<'a> {
    pub(crate) const NONE: Self = Self { times: &[], values: &[], may_miss: false };

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.times.is_empty()
    }

    /// Their times, in milliseconds since 1970.
    #[must_use]
    pub fn times_ms(self) -> &'a [i64] {
        self.times
    }

    /// As many values, in the units that metrics' names end with. A NaN that [`is_missing`] knows stands where there is none.
    #[must_use]
    pub fn values(self) -> &'a [f64] {
        self.values
    }

    /// Whether there may be some without a value.
    #[must_use]
    pub fn may_miss(self) -> bool {
        self.may_miss
    }

    /// Puts copies of them in the place of what a vector has.
    pub fn copy_to(self, copies: &mut Vec<Sample>) {
        copies.clear();
        copies.extend(self.iter());
    }

    /// One after the other.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Sample> + ExactSizeIterator + use<'a> {
        let sample = |(&time, &value)| Sample { time: Timestamp::from_millis(time), value: decoded(value) };
        self.times.iter().zip(self.values).map(sample)
    }
}

/// Memory for samples of one series. They come in runs, each ascending in time.
#[derive(Debug, Default)]
pub struct Columns {
    times: Vec<i64>,
    values: Vec<f64>,
    /// Where runs begin that are not the first.
    runs: Vec<usize>,
    may_miss: bool,
}

impl Columns {
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.runs.clear();
        self.may_miss = false;
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// All.
    #[must_use]
    pub fn samples(&self) -> Samples<'_> {
        Samples { times: &self.times, values: &self.values, may_miss: self.may_miss }
    }

    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Samples<'_> {
        let times = self.times.get(range.clone()).unwrap_or_default();
        let values = self.values.get(range).unwrap_or_default();
        Samples { times, values, may_miss: self.may_miss && values.iter().any(|&value| is_missing(value)) }
    }

    /// What comes next may be earlier than what there is.
    pub(crate) fn begin_run(&mut self) {
        if self.len() > 0 && self.runs.last() != Some(&self.len()) {
            self.runs.push(self.len());
        }
    }

    pub(crate) fn push(&mut self, sample: &Sample) {
        self.times.push(sample.time.as_millis());
        self.values.push(coded(sample.value));
        self.may_miss |= sample.value.is_err();
    }

    /// Notes that there may be values among those that come which are missing.
    pub(crate) fn note_missing(&mut self) {
        self.may_miss = true;
    }

    /// Divides the values from this place on.
    pub(crate) fn divide(&mut self, from: usize, divisor: f64) {
        // Of a slice the loop compiles to vector instructions.
        self.values.get_mut(from..).unwrap_or_default().iter_mut().for_each(|value| *value /= divisor);
    }

    /// Appends a run of values at their times, of which there are as many.
    #[inline]
    pub(crate) fn extend(&mut self, times: &[i64], values: impl ExactSizeIterator<Item = f64>) {
        debug_assert_eq!(times.len(), values.len());
        self.begin_run();
        self.times.extend_from_slice(times);
        self.values.extend(values);
    }

    /// Appends a run of values at some of their times.
    pub(crate) fn extend_at(&mut self, samples: impl Iterator<Item = (i64, f64)>) {
        self.begin_run();
        for (time, value) in samples {
            self.times.push(time);
            self.values.push(value);
        }
    }

    /// Appends a run.
    pub(crate) fn append(&mut self, samples: Samples<'_>) {
        self.extend(samples.times, samples.values.iter().copied());
        self.may_miss |= samples.may_miss;
    }

    /// Puts these samples, which ascend, in the place of those there are.
    pub fn fill(&mut self, samples: &[Sample]) {
        self.clear();
        samples.iter().for_each(|sample| self.push(sample));
    }

    /// Makes one run of all, as [`put_in_order`] does. Mostly one is after the other as it is.
    pub(crate) fn put_in_order(&mut self) {
        let time = |at: usize| self.times.get(at).copied();
        let is_late = |&start: &usize| start < self.len() && time(start - 1) >= time(start);
        let late = self.runs.iter().position(is_late).and_then(|late| self.runs.get(late..)).unwrap_or_default();
        if let Some(&first) = late.first() {
            let earliest = late.iter().filter_map(|&start| time(start)).min();
            let in_order = self.times.get(..first).unwrap_or_default();
            let from = in_order.partition_point(|&time| Some(time) < earliest);
            if late.iter().filter(|start| is_late(start)).count() == 1 {
                self.merge(from, first);
            } else {
                let mut mixed: Vec<Sample> = self.part(from..self.len()).iter().collect();
                put_in_order(&mut mixed, 0);
                self.times.truncate(from);
                self.values.truncate(from);
                mixed.iter().for_each(|sample| self.push(sample));
            }
        }
        self.runs.clear();
    }

    /// Merges what begins at `from` with what begins at `late`, each of which ascends: what memory has with the end of what is on disk.
    fn merge(&mut self, from: usize, late: usize) {
        let (late_times, late_values) = (self.times.split_off(late), self.values.split_off(late));
        let (times, values) = (self.times.split_off(from), self.values.split_off(from));
        let mut early = times.into_iter().zip(values).peekable();
        for (time, value) in late_times.into_iter().zip(late_values) {
            while let Some((time, value)) = early.next_if(|(early, _)| *early < time) {
                self.times.push(time);
                self.values.push(value);
            }
            // Of two of one time the later counts, unless it is an end.
            let same = early.next_if(|(early, _)| *early == time).filter(|_| decoded(value) == Err(None));
            self.times.push(time);
            self.values.push(same.map_or(value, |(_, same)| same));
        }
        let (times, values): (Vec<i64>, Vec<f64>) = early.unzip();
        self.times.extend(times);
        self.values.extend(values);
    }

    /// Takes those that are not wanted from samples that ascend.
    pub(crate) fn thin(&mut self, pick: Pick) {
        match pick.places(&self.times, TimeRange::ALL) {
            Places::Run(run) => {
                for drained in [run.end..self.len(), 0..run.start] {
                    self.times.drain(drained.clone());
                    self.values.drain(drained);
                }
            }
            Places::Single(places) => {
                for (kept, place) in places.iter().enumerate() {
                    self.times.swap(kept, *place as usize);
                    self.values.swap(kept, *place as usize);
                }
                self.times.truncate(places.len());
                self.values.truncate(places.len());
            }
        }
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(time: i64, value: f64) -> Sample {
        Sample { time: Timestamp::from_millis(time), value: Ok(value) }
    }

    #[test]
    fn a_value_that_is_missing_comes_back_with_its_reason_and_a_measured_nan_as_a_nan() {
        for value in Reason::ALL.map(|reason| Err(Some(reason))).into_iter().chain([Err(None), Ok(1.5), Ok(-0.0)]) {
            assert_eq!(decoded(coded(value)), value);
            assert_eq!(is_missing(coded(value)), value.is_err());
        }
        for nan in [f64::NAN, -f64::NAN, f64::from_bits(MISSING), f64::from_bits(MISSING | 3)] {
            assert!(decoded(coded(Ok(nan))).is_ok_and(f64::is_nan));
        }
    }

    proptest! {
        #[test]
        fn runs_are_put_in_order_and_thinned_as_samples_are(
            runs in proptest::collection::vec((0_i64..60, 0_i64..12, 1_i64..3), 0..8),
            (end, step_ms) in (-9..9_i64, 1..9_i64),
        ) {
            let (mut columns, mut samples) = (Columns::default(), Vec::new());
            for (number, (start, count, step)) in (0..).zip(runs) {
                let ended = |sample: Sample| if sample.time.as_millis() % 7 == 0 { Sample { value: Err(None), ..sample } } else { sample };
                let sample = |nth| at(start + nth * step, f64::from(number));
                let run: Vec<Sample> =
                    (0..count).map(sample).map(|sample| if number % 2 == 0 { ended(sample) } else { sample }).collect();
                columns.begin_run();
                run.iter().for_each(|sample| columns.push(sample));
                samples.extend(run);
            }
            columns.put_in_order();
            put_in_order(&mut samples, 0);
            prop_assert_eq!(columns.samples().iter().collect::<Vec<_>>(), samples.clone());
            for pick in [Pick::EachStep { end: Timestamp::from_millis(end), step_ms }, Pick::Newest] {
                columns.thin(pick);
                pick.thin(&mut samples, 0);
                prop_assert_eq!(columns.samples().iter().collect::<Vec<_>>(), samples.clone());
            }
        }
    }
}

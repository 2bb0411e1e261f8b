//! One series' readings over many ticks, as bits that stand alone.
//!
//! For data at rest in memory: the same codes as in bodies, but series by series, so that one can be read without
//! the others.
//!
//! ```text
//! column  = 1 bit: all readings are the same · 1 bit: some reading is missing · reading, for each one or once
//! reading = [ if some is missing: reason, 4 bits ] value
//! ```
//!
//! Most counters of errors and most settings stay what they are for minutes: such a column is one reading.

use super::{
    CodecError, REASON_BITS,
    bits::{BitReader, BitWriter},
    predictor::Predictor,
};
use crate::model::{Raw, Reason, Resolution};

/// Appends the column of these readings to `out`.
pub fn encode(resolution: Resolution, readings: &[Raw], out: &mut Vec<u8>) {
    let mut bits = BitWriter::new(out);
    let is_constant = readings.first().is_none_or(|first| readings.iter().all(|reading| reading == first));
    let written = if is_constant { readings.get(..1).unwrap_or_default() } else { readings };
    let has_missing = written.iter().any(|reading| reading.reason().is_some());
    bits.write_flag(is_constant);
    bits.write_flag(has_missing);
    let mut predictor = Predictor::new(resolution);
    for reading in written {
        if has_missing {
            bits.write(u64::from(reading.reason().map_or(0, Reason::code)), REASON_BITS);
        }
        if reading.reason().is_none() {
            predictor.encode(reading.bits(), &mut bits);
        }
    }
    bits.finish();
}

/// Reads a column.
#[derive(Debug, Clone)]
pub struct Column<'a> {
    bits: BitReader<'a>,
    has_missing: bool,
    is_constant: bool,
    /// The reading of a constant column, once it is read.
    constant: Option<Raw>,
    predictor: Predictor,
}

impl<'a> Column<'a> {
    /// Begins to read a column of this resolution.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when there is nothing.
    pub fn new(resolution: Resolution, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut bits = BitReader::new(bytes);
        let is_constant = bits.read_flag()?;
        let has_missing = bits.read_flag()?;
        Ok(Self { bits, has_missing, is_constant, constant: None, predictor: Predictor::new(resolution) })
    }

    /// Whether some of its readings may be missing.
    #[must_use]
    pub fn may_miss(&self) -> bool {
        self.has_missing
    }

    /// The next reading. The column does not know how many it has: its owner does.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] past the end, which a constant column has none of.
    pub fn next_reading(&mut self) -> Result<Raw, CodecError> {
        if let Some(constant) = self.constant {
            return Ok(constant);
        }
        let reading = self.read()?;
        if self.is_constant {
            self.constant = Some(reading);
        }
        Ok(reading)
    }

    /// Appends the next readings, so many.
    ///
    /// # Errors
    /// As [`Column::next_reading`]; what was read before the error may be there.
    pub fn read_run(&mut self, count: usize, readings: &mut Vec<Raw>) -> Result<(), CodecError> {
        if self.is_constant && count > 0 {
            let constant = self.next_reading()?;
            readings.resize(readings.len() + count, constant);
            return Ok(());
        }
        if !self.has_missing {
            return self.predictor.decode_run(&mut self.bits, count, readings);
        }
        for _ in 0..count {
            readings.push(self.read()?);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Raw, CodecError> {
        if self.has_missing {
            let reason = self.bits.read(REASON_BITS)? as u8;
            if reason != 0 {
                return Ok(Raw::missing(Reason::from_code(reason).unwrap_or(Reason::Error)));
            }
        }
        Ok(Raw::from_bits(self.predictor.decode(&mut self.bits)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading() -> impl Strategy<Value = Raw> {
        prop_oneof![any::<i64>().prop_map(Raw::integer), (0..6_usize).prop_map(|i| Raw::missing(Reason::ALL[i]))]
    }

    fn readings() -> impl Strategy<Value = Vec<Raw>> {
        let constant = (reading(), 0..100_usize).prop_map(|(reading, count)| vec![reading; count]);
        // As they mostly are: a counter, or what wanders about, and now and then a leap.
        let steps = proptest::collection::vec(prop_oneof![20 => -50..50_i64, 1 => any::<i64>()], 0..100);
        let walk = (any::<i64>(), 0..1_000_000_000_i64, steps).prop_map(|(start, rate, steps)| {
            let walked = steps.into_iter().scan(start, |at, step| {
                *at = at.wrapping_add(rate).wrapping_add(step);
                Some(Raw::integer(*at))
            });
            walked.collect()
        });
        prop_oneof![proptest::collection::vec(reading(), 0..100), constant, walk]
    }

    proptest! {
        #[test]
        fn columns_come_back(values in readings(), float: bool) {
            let resolution = if float { Resolution::Float } else { Resolution::ONE };
            let mut out = vec![1, 2, 3];
            encode(resolution, &values, &mut out);
            let mut column = Column::new(resolution, &out[3..]).unwrap();
            let mut whole = column.clone();
            for &value in &values {
                prop_assert_eq!(column.next_reading().unwrap(), value);
            }
            let mut read = Vec::new();
            let first = values.len() / 2;
            whole.read_run(first, &mut read).unwrap();
            whole.read_run(values.len() - first, &mut read).unwrap();
            prop_assert_eq!(read, values);
        }
    }

    #[test]
    fn a_column_that_stays_what_it_is_costs_one_reading() {
        let mut out = Vec::new();
        encode(Resolution::ONE, &[Raw::integer(3); 1000], &mut out);
        assert!(out.len() <= 2, "{}", out.len());
    }
}

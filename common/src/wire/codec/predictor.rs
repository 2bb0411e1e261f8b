//! Foretells a series' next value from its past, and codes only the surprise.
//!
//! Integers: the next value is foretold as the last one plus the drift, a running mean of past
//! steps. Gauges have a drift near zero, counters near their rate. What is left is coded as a Rice code whose
//! parameter follows the size of past surprises, so that a series that does as foretold costs one bit.
//! (R. F. Rice, "Some practical universal noiseless coding techniques", JPL 79-22; the adaptation is ours.)
//!
//! Floats: the bits that differ from the last value's, with their position (the scheme of T. Pelkonen et
//! al., "Gorilla", VLDB 2015, without its window).
//!
//! Both ends run the same integer arithmetic on the same past, so nothing about the model travels.

use super::{
    CodecError,
    bits::{BITS_PER_CALL_MAX, BitReader, BitWriter},
};
use crate::model::{Raw, Resolution};

/// What both ends remember of one series: 24 bytes. All that coding a value needs is here: at fleet scale the series'
/// definitions are not in any cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Predictor {
    last: i64,
    /// Running mean of the steps, times 2^[`DRIFT_SHIFT`].
    drift: i64,
    /// Rice parameter, times [`SPREAD_UNIT`].
    spread: u8,
    /// Code of the reason for which the series is missing now; 0 while it has values.
    pub(super) reason: u8,
    /// Values seen: none, one (no step yet), or more.
    age: Age,
    is_float: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    One,
    Grown,
}

/// The mean forgets a step at 15/16 a tick: long enough to average noise, short enough to follow a load.
const DRIFT_SHIFT: u32 = 4;
/// Steps beyond this don't move the drift further: it must not overflow when shifted.
const STEP_MAX: i64 = 1 << 56;
/// The spread moves in quarters of a bit.
const SPREAD_UNIT: u8 = 4;
const SPREAD_MAX: u8 = 56 * SPREAD_UNIT;
/// Up to this parameter a surprise that is not written in full is far below [`STEP_MAX`].
const PARAMETER_SHORT_MAX: u32 = 32;
/// From this quotient on the surprise is written in full: a code never has more than 20 + 6 + 64 bits.
const QUOTIENT_MAX: u32 = 20;

impl Predictor {
    pub(super) fn new(resolution: Resolution) -> Self {
        let is_float = resolution == Resolution::Float;
        Self { last: 0, drift: 0, spread: 0, reason: 0, age: Age::New, is_float }
    }

    /// The predictor of a group's times.
    pub(super) fn of_times() -> Self {
        Self::new(Resolution::ONE)
    }

    #[inline]
    pub(super) fn encode(&mut self, value: i64, bits: &mut BitWriter<'_>) {
        if self.is_float { self.encode_float(value, bits) } else { self.encode_integer(value, bits) }
    }

    #[inline]
    pub(super) fn decode(&mut self, bits: &mut BitReader<'_>) -> Result<i64, CodecError> {
        if self.is_float { self.decode_float(bits) } else { self.decode_integer(bits) }
    }

    /// Reads a run of values. What changes from one to the next stays in registers.
    pub(super) fn decode_run(
        &mut self,
        bits: &mut BitReader<'_>,
        count: usize,
        values: &mut Vec<Raw>,
    ) -> Result<(), CodecError> {
        let (mut predictor, mut reader) = (*self, bits.clone());
        values.reserve(count);
        if predictor.is_float {
            for _ in 0..count {
                values.push(Raw::from_bits(predictor.decode_float(&mut reader)?));
            }
        } else {
            for _ in 0..count {
                let is_short = predictor.age == Age::Grown && predictor.decode_short(&mut reader);
                let value = if is_short { predictor.last } else { predictor.decode_integer(&mut reader)? };
                values.push(Raw::from_bits(value));
            }
        }
        (*self, *bits) = (predictor, reader);
        Ok(())
    }

    /// Makes the next integer the last one, as [`Self::decode_integer`] does, if its code is one of those that nearly all are. What it learns
    /// depends on chance, which no branch foretells: there is none.
    #[inline]
    fn decode_short(&mut self, bits: &mut BitReader<'_>) -> bool {
        let parameter = self.parameter();
        // A drift that may make a step too large to be learnt in full.
        if self.drift.unsigned_abs() >= (STEP_MAX / 2).unsigned_abs() << DRIFT_SHIFT || parameter > PARAMETER_SHORT_MAX
        {
            return false;
        }
        let Some((zeros, rest)) = bits.read_rice(parameter, QUOTIENT_MAX) else { return false };
        let surprise = unzigzag((u64::from(zeros) << parameter) | rest);
        self.last = self.last.wrapping_add((self.drift >> DRIFT_SHIFT).wrapping_add(surprise));
        // The step less what of it was foretold.
        self.drift = self.drift.wrapping_add(surprise);
        let raise = (zeros | 1).ilog2() * u32::from(SPREAD_UNIT / 2);
        let drop = u32::from(zeros == 0) * u32::from(SPREAD_UNIT / 2);
        self.spread = (u32::from(self.spread) + raise).min(u32::from(SPREAD_MAX)).saturating_sub(drop) as u8;
        true
    }

    fn encode_integer(&mut self, value: i64, bits: &mut BitWriter<'_>) {
        let surprise = zigzag(value.wrapping_sub(self.foretold()));
        let parameter = self.parameter();
        let quotient = surprise >> parameter;
        if quotient < u64::from(QUOTIENT_MAX) {
            let (unary, rest) = (quotient as u32 + 1, surprise & ((1 << parameter) - 1));
            if unary + parameter <= BITS_PER_CALL_MAX {
                bits.write((1 << quotient) | (rest << unary), unary + parameter);
            } else {
                bits.write(1 << quotient, unary);
                bits.write(rest, parameter);
            }
        } else {
            bits.write(0, QUOTIENT_MAX);
            write_sized(surprise, bits);
        }
        self.learn_integer(value, quotient);
    }

    #[inline]
    fn decode_integer(&mut self, bits: &mut BitReader<'_>) -> Result<i64, CodecError> {
        let parameter = self.parameter();
        let zeros = bits.read_unary(QUOTIENT_MAX)?;
        let surprise = if zeros < QUOTIENT_MAX {
            (u64::from(zeros) << parameter) | bits.read(parameter)?
        } else {
            read_sized(bits)?
        };
        let value = self.foretold().wrapping_add(unzigzag(surprise));
        self.learn_integer(value, surprise >> parameter);
        Ok(value)
    }

    fn encode_float(&mut self, value: i64, bits: &mut BitWriter<'_>) {
        let difference = (value ^ self.last).cast_unsigned();
        bits.write_flag(difference != 0);
        if difference != 0 {
            let trailing = difference.trailing_zeros();
            bits.write(u64::from(trailing), 6);
            write_sized(difference >> trailing, bits);
        }
        self.last = value;
    }

    #[inline]
    fn decode_float(&mut self, bits: &mut BitReader<'_>) -> Result<i64, CodecError> {
        if bits.read_flag()? {
            let trailing = bits.read(6)? as u32;
            self.last ^= (read_sized(bits)? << trailing).cast_signed();
        }
        Ok(self.last)
    }

    fn foretold(&self) -> i64 {
        self.last.wrapping_add(self.drift >> DRIFT_SHIFT)
    }

    fn parameter(&self) -> u32 {
        u32::from(self.spread / SPREAD_UNIT)
    }

    #[inline]
    fn learn_integer(&mut self, value: i64, quotient: u64) {
        let step = value.wrapping_sub(self.last).clamp(-STEP_MAX, STEP_MAX);
        self.last = value;
        match self.age {
            // The first value is no step from anything: nothing is learnt from its size.
            Age::New => {
                self.age = Age::One;
                return;
            }
            // The first step is the best guess at the mean.
            Age::One => {
                self.age = Age::Grown;
                self.drift = step << DRIFT_SHIFT;
                return;
            }
            Age::Grown => self.drift += step - (self.drift >> DRIFT_SHIFT),
        }
        match quotient {
            0 => self.spread = self.spread.saturating_sub(SPREAD_UNIT / 2),
            1 => {}
            more => {
                let raise = more.ilog2() as u8 * (SPREAD_UNIT / 2);
                self.spread = self.spread.saturating_add(raise).min(SPREAD_MAX);
            }
        }
    }
}

/// Six bits for the length less one, then the bits. Zero takes one bit.
pub(super) fn write_sized(value: u64, bits: &mut BitWriter<'_>) {
    let length = (64 - value.leading_zeros()).max(1);
    bits.write(u64::from(length - 1), 6);
    if length <= BITS_PER_CALL_MAX {
        bits.write(value, length);
    } else {
        bits.write_word(value);
    }
}

pub(super) fn read_sized(bits: &mut BitReader<'_>) -> Result<u64, CodecError> {
    let length = bits.read(6)? as u32 + 1;
    if length <= BITS_PER_CALL_MAX { bits.read(length) } else { bits.read_word() }
}

/// Small numbers of either sign become small numbers: 0, -1, 1, -2 … are 0, 1, 2, 3 …
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coded_bits(values: &[i64], resolution: Resolution) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        let mut predictor = Predictor::new(resolution);
        for &value in values {
            predictor.encode(value, &mut writer);
        }
        writer.finish();
        bytes
    }

    proptest! {
        #[test]
        fn integers_come_back(values in proptest::collection::vec(prop_oneof![any::<i64>(), -1000..1000_i64, Just(i64::MAX), Just(i64::MIN)], 0..200)) {
            let bytes = coded_bits(&values, Resolution::ONE);
            let (mut reader, mut predictor) = (BitReader::new(&bytes), Predictor::new(Resolution::ONE));
            for &value in &values {
                prop_assert_eq!(predictor.decode(&mut reader).unwrap(), value);
            }
        }

        #[test]
        fn floats_come_back(values in proptest::collection::vec(any::<i64>(), 0..200)) {
            let bytes = coded_bits(&values, Resolution::Float);
            let (mut reader, mut predictor) = (BitReader::new(&bytes), Predictor::new(Resolution::Float));
            for &value in &values {
                prop_assert_eq!(predictor.decode(&mut reader).unwrap(), value);
            }
        }
    }

    #[test]
    fn what_goes_as_foretold_costs_a_bit() {
        let constant = vec![123_456_789; 801];
        assert!(coded_bits(&constant, Resolution::ONE).len() < 110);
        let steady: Vec<i64> = (0..8001).map(|i| i * 1_000_000).collect();
        assert!(coded_bits(&steady, Resolution::ONE).len() < 1600);
    }
}

//! One series' readings over many ticks, as bits that stand alone.
//!
//! For data at rest in memory: the same codes as in bodies, but series by series, so that one can be read without
//! the others.
//!
//! ```text
//! column = 1 bit: some reading is missing · for each reading: [ if so: reason, 4 bits ] value
//! ```

use super::{
    CodecError, REASON_BITS,
    bits::{BitReader, BitWriter},
    predictor::Predictor,
};
use crate::model::{Raw, Reason, Resolution};

/// Appends the column of these readings to `out`.
pub fn encode(resolution: Resolution, readings: impl Iterator<Item = Raw> + Clone, out: &mut Vec<u8>) {
    let mut bits = BitWriter::new(out);
    let has_missing = readings.clone().any(|raw| raw.reason().is_some());
    bits.write_flag(has_missing);
    let mut predictor = Predictor::new(resolution);
    for raw in readings {
        if has_missing {
            bits.write(u64::from(raw.reason().map_or(0, Reason::code)), REASON_BITS);
        }
        if raw.reason().is_none() {
            predictor.encode(raw.bits(), &mut bits);
        }
    }
    bits.finish();
}

/// Reads a column.
#[derive(Debug)]
pub struct Column<'a> {
    bits: BitReader<'a>,
    has_missing: bool,
    predictor: Predictor,
}

impl<'a> Column<'a> {
    /// Begins to read a column of this resolution.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when there is nothing.
    pub fn new(resolution: Resolution, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut bits = BitReader::new(bytes);
        let has_missing = bits.read_flag()?;
        Ok(Self { bits, has_missing, predictor: Predictor::new(resolution) })
    }

    /// The next reading. The column does not know how many it has: its owner does.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] past the end.
    pub fn next_reading(&mut self) -> Result<Raw, CodecError> {
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

    proptest! {
        #[test]
        fn columns_come_back(values in proptest::collection::vec(prop_oneof![any::<i64>().prop_map(Raw::integer), (0..6_usize).prop_map(|i| Raw::missing(Reason::ALL[i]))], 0..100), float: bool) {
            let resolution = if float { Resolution::Float } else { Resolution::ONE };
            let mut out = vec![1, 2, 3];
            encode(resolution, values.iter().copied(), &mut out);
            let mut column = Column::new(resolution, &out[3..]).unwrap();
            for value in values {
                prop_assert_eq!(column.next_reading().unwrap(), value);
            }
        }
    }
}

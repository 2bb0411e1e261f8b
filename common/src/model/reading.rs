//! One reading in eight bytes: a value at its metric's resolution, or the reason why there is none.

use super::Resolution;

/// Why a reading has no value. Missing is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The device or kernel does not offer this reading.
    Unsupported = 1,
    /// The source did not answer before its deadline.
    Timeout = 2,
    /// The agent may not read it.
    Permission = 3,
    /// The device is gone.
    Lost = 4,
    /// The source gave a value that cannot be true.
    OutOfRange = 5,
    /// Anything else; the agent's log has the error.
    Error = 6,
}

impl Reason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 6] =
        [Self::Unsupported, Self::Timeout, Self::Permission, Self::Lost, Self::OutOfRange, Self::Error];

    /// The word used in labels and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Timeout => "timeout",
            Self::Permission => "permission",
            Self::Lost => "lost",
            Self::OutOfRange => "out_of_range",
            Self::Error => "error",
        }
    }

    /// The number that travels.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// A reading in 64 bits, to be understood with its metric's [`Resolution`].
///
/// For a decimal resolution the bits are a signed integer, for floats they are the float's own. The
/// patterns `i64::MIN + 1 ..= i64::MIN + 15` mean a missing reading in both: as an integer nobody counts that
/// low, as floats they are the negative subnormals nearest to zero, which [`Raw::float`] turns into zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Raw(i64);

const MISSING_BASE: i64 = i64::MIN;
const MISSING_CODES: i64 = 15;

impl Raw {
    /// An integer count of the metric's resolution. What would collide with the codes for missing is out of range.
    #[must_use]
    #[inline]
    pub fn integer(count: i64) -> Self {
        if count <= MISSING_BASE + MISSING_CODES { Self::missing(Reason::OutOfRange) } else { Self(count) }
    }

    /// An unsigned count; above `i64::MAX` it is out of range.
    #[must_use]
    #[inline]
    pub fn unsigned(count: u64) -> Self {
        i64::try_from(count).map_or(Self::missing(Reason::OutOfRange), Self)
    }

    /// A true float. Never a missing reading, whatever its bits.
    #[must_use]
    #[inline]
    pub fn float(value: f64) -> Self {
        let raw = Self(value.to_bits().cast_signed());
        if raw.reason().is_some() { Self(0) } else { raw }
    }

    /// A float brought to `resolution`, rounded to its nearest step; not finite or too large is out of range.
    #[must_use]
    pub fn at(resolution: Resolution, value: f64) -> Self {
        let Resolution::Decimal(_) = resolution else { return Self::float(value) };
        let steps = (value * resolution.divisor()).round();
        // 2^62 leaves room for deltas and is far beyond what a float holds exactly.
        if steps.abs() < 4.611_686_018_427_388e18 { Self(steps as i64) } else { Self::missing(Reason::OutOfRange) }
    }

    /// No value, for this reason.
    #[must_use]
    #[inline]
    pub fn missing(reason: Reason) -> Self {
        Self(MISSING_BASE + i64::from(reason.code()))
    }

    /// Why there is no value; `None` when there is one.
    #[must_use]
    #[inline]
    pub fn reason(self) -> Option<Reason> {
        if self.0 > MISSING_BASE + MISSING_CODES || self.0 == MISSING_BASE {
            return None;
        }
        let code = (self.0 - MISSING_BASE) as u8;
        Some(Reason::from_code(code).unwrap_or(Reason::Error))
    }

    /// The value in base units, or why there is none.
    ///
    /// # Errors
    /// The reason, when the reading is missing.
    #[inline]
    pub fn value(self, resolution: Resolution) -> Result<f64, Reason> {
        if let Some(reason) = self.reason() {
            return Err(reason);
        }
        Ok(match resolution {
            Resolution::Decimal(_) => self.0 as f64 / resolution.divisor(),
            Resolution::Float => f64::from_bits(self.0.cast_unsigned()),
        })
    }

    /// The bits as they are coded.
    #[must_use]
    #[inline]
    pub fn bits(self) -> i64 {
        self.0
    }

    /// The reading with these bits; every pattern is one.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: i64) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn floats_never_read_as_missing(bits: u64) {
            prop_assert!(Raw::float(f64::from_bits(bits)).reason().is_none());
        }

        #[test]
        fn integers_come_back_exactly(count in -(1_i64 << 52)..(1_i64 << 52)) {
            prop_assert_eq!(Raw::integer(count).value(Resolution::ONE), Ok(count as f64));
            prop_assert_eq!(Raw::integer(count).value(Resolution::CENTI), Ok(count as f64 / 100.0));
        }
    }

    #[test]
    fn every_reason_survives() {
        for reason in Reason::ALL {
            assert_eq!(Raw::missing(reason).reason(), Some(reason));
            assert_eq!(Raw::missing(reason).value(Resolution::Float), Err(reason));
        }
    }

    #[test]
    fn the_immense_and_the_infinite_are_out_of_range() {
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e300] {
            assert_eq!(Raw::at(Resolution::MICRO, value).reason(), Some(Reason::OutOfRange));
        }
        assert_eq!(Raw::unsigned(u64::MAX).reason(), Some(Reason::OutOfRange));
        assert_eq!(Raw::integer(i64::MIN).reason(), Some(Reason::OutOfRange));
    }
}

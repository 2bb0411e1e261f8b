//! Samples, series and the stale marker.

use crate::Labels;

/// The bit pattern that marks the end of a series: a signalling NaN that no arithmetic produces.
///
/// The same pattern as Prometheus writes, so that its markers are understood as they are.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a number. Compare with [`is_stale`], never with `==`.
pub const STALE_NAN: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a value is the stale marker, as opposed to any other number, other NaNs included.
#[inline]
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One value at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The value; [`STALE_NAN`] says that the series ended here.
    pub value: f64,
}

/// A series: its labels and its samples, oldest first, at most one per instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The labels, `__name__` among them.
    pub labels: Labels,
    /// Samples in strictly ascending order of time.
    pub samples: Vec<Sample>,
}

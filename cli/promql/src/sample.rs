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

/// Samples of one series as columns, oldest first, at most one per instant.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Samples<'a> {
    times_ms: &'a [i64],
    values: &'a [f64],
}

impl<'a> Samples<'a> {
    /// Times in milliseconds since the Unix epoch, strictly ascending, each with its value; [`STALE_NAN`] says that the series ended there.
    /// Of two columns that are not of one length the longer one is cut.
    #[must_use]
    pub fn new(times_ms: &'a [i64], values: &'a [f64]) -> Self {
        let both = Self { times_ms, values };
        both.part(0, times_ms.len().min(values.len()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.times_ms.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.times_ms.is_empty()
    }

    /// The times.
    #[must_use]
    pub fn times_ms(self) -> &'a [i64] {
        self.times_ms
    }

    /// The values.
    #[must_use]
    pub fn values(self) -> &'a [f64] {
        self.values
    }

    /// One of them, counted from the oldest.
    #[inline]
    #[must_use]
    pub fn get(self, at: usize) -> Option<Sample> {
        Some(Sample { time_ms: *self.times_ms.get(at)?, value: *self.values.get(at)? })
    }

    /// The oldest.
    #[inline]
    #[must_use]
    pub fn first(self) -> Option<Sample> {
        self.get(0)
    }

    /// The newest.
    #[inline]
    #[must_use]
    pub fn last(self) -> Option<Sample> {
        self.get(self.len().wrapping_sub(1))
    }

    /// All, one after the other.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Sample> + Clone {
        self.times_ms.iter().zip(self.values).map(|(&time_ms, &value)| Sample { time_ms, value })
    }

    /// Those from one place up to another, the latter excluded; none if there are not so many.
    #[inline]
    pub(crate) fn part(self, from: usize, to: usize) -> Self {
        let times_ms = self.times_ms.get(from..to).unwrap_or_default();
        Self { times_ms, values: self.values.get(from..to).unwrap_or_default() }
    }
}

/// Memory for columns of samples.
#[derive(Debug, Clone, Default)]
pub(crate) struct Columns {
    times_ms: Vec<i64>,
    values: Vec<f64>,
}

impl Columns {
    /// Puts these samples in the place of those it has.
    pub(crate) fn fill(&mut self, samples: impl IntoIterator<Item = Sample>) -> Samples<'_> {
        self.times_ms.clear();
        self.values.clear();
        for Sample { time_ms, value } in samples {
            self.times_ms.push(time_ms);
            self.values.push(value);
        }
        self.samples()
    }

    /// A copy that is kept.
    pub(crate) fn of(samples: Samples<'_>) -> Self {
        Self { times_ms: samples.times_ms.to_vec(), values: samples.values.to_vec() }
    }

    pub(crate) fn samples(&self) -> Samples<'_> {
        Samples::new(&self.times_ms, &self.values)
    }
}

/// A series: its labels and its samples, oldest first, at most one per instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The labels, `__name__` among them.
    pub labels: Labels,
    /// Samples in strictly ascending order of time.
    pub samples: Vec<Sample>,
}

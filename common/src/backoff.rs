//! How long to wait before trying again: full jitter over an exponentially growing span.
//!
//! Thousands of agents lose one collector at the same moment; only chance spreads their return. (M. Brooker,
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
//!
//! Pure: the caller brings the random number and does the waiting.

use std::time::Duration;

use thiserror::Error;

/// Spans that make no sense.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BackoffError {
    /// The first span is zero: the tries would come without a pause.
    #[error("backoff must begin above zero")]
    Zero,
    /// The last span is shorter than the first.
    #[error("backoff must not end below its beginning")]
    Inverted,
}

/// The spans of one sequence of tries.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    tries: u32,
}

impl Backoff {
    /// A sequence whose spans double from `first` to `last`.
    ///
    /// # Errors
    /// [`BackoffError`] when `first` is zero or `last` is shorter.
    pub fn try_new(first: Duration, last: Duration) -> Result<Self, BackoffError> {
        if first.is_zero() {
            return Err(BackoffError::Zero);
        }
        if last < first {
            return Err(BackoffError::Inverted);
        }
        Ok(Self { first, last, tries: 0 })
    }

    /// The wait before the next try: anything from zero to the span, as `chance` (0 to 1) says.
    pub fn next(&mut self, chance: f64) -> Duration {
        let span = self.first.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.last);
        self.tries = self.tries.saturating_add(1);
        span.mul_f64(chance.clamp(0.0, 1.0))
    }

    /// Begins again after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn senseless_spans_are_refused() {
        assert_eq!(Backoff::try_new(Duration::ZERO, SECOND).unwrap_err(), BackoffError::Zero);
        assert_eq!(Backoff::try_new(SECOND * 2, SECOND).unwrap_err(), BackoffError::Inverted);
    }

    #[test]
    fn spans_double_up_to_the_last_and_begin_again() {
        let mut backoff = Backoff::try_new(SECOND, SECOND * 60).unwrap();
        let spans: Vec<u64> = (0..40).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(spans[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(spans[39], 60);
        backoff.reset();
        assert_eq!(backoff.next(1.0), SECOND);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_its_span(tries in 0..100_u32, chance: f64) {
            let mut backoff = Backoff::try_new(SECOND, SECOND * 60).unwrap();
            for _ in 0..tries {
                prop_assert!(backoff.next(chance) <= SECOND * 60);
            }
        }
    }
}

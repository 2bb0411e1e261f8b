//! Numbers as the kernel writes them, and what is said when they are none.
//!
//! Whatever cannot be a reading becomes a reason, never a zero.

use std::{num::IntErrorKind, sync::Arc};

use belfry_common::model::{Metric, Reason};

use crate::readings::Readings;

/// How a file's text becomes a count of its metric's resolution.
pub(super) type Parse = fn(&str) -> Result<i64, Reason>;

/// A count that cannot be negative.
pub(crate) fn unsigned(text: &str) -> Result<i64, Reason> {
    match text.parse::<u64>() {
        Ok(count) => i64::try_from(count).map_err(|_| Reason::OutOfRange),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(Reason::OutOfRange),
        Err(_) if text.parse::<i64>().is_ok() => Err(Reason::OutOfRange),
        Err(_) => Err(Reason::Error),
    }
}

/// A level that may be negative.
pub(crate) fn signed(text: &str) -> Result<i64, Reason> {
    text.parse::<i64>().map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => Reason::OutOfRange,
        _ => Reason::Error,
    })
}

/// A count in a unit that is `factor` of the metric's.
pub(super) fn times(count: Result<i64, Reason>, factor: i64) -> Result<i64, Reason> {
    count?.checked_mul(factor).ok_or(Reason::OutOfRange)
}

/// Says a reading, or why there is none.
pub(super) fn put(readings: &mut Readings, metric: &Arc<Metric>, labels: &[&str], count: Result<i64, Reason>) {
    match count {
        Ok(count) => readings.integer(metric, labels, count),
        Err(reason) => readings.missing(metric, labels, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_count_says_why() {
        assert_eq!(unsigned("42"), Ok(42));
        assert_eq!(unsigned("-1"), Err(Reason::OutOfRange));
        assert_eq!(unsigned("18446744073709551615"), Err(Reason::OutOfRange));
        assert_eq!(unsigned("99999999999999999999999"), Err(Reason::OutOfRange));
        assert_eq!(unsigned(""), Err(Reason::Error));
        assert_eq!(unsigned("N/A (no PMA)"), Err(Reason::Error));
        assert_eq!(signed("-5000"), Ok(-5000));
        assert_eq!(times(Ok(i64::MAX), 4), Err(Reason::OutOfRange));
    }
}

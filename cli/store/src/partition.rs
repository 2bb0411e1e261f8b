//! Which block a sample belongs to: raw samples are kept hour by hour.

use belfry_common::model::Timestamp;

/// Milliseconds of an hour.
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The number of the hour since 1970 that a time is in.
pub(crate) fn hour_of(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(HOUR_MS)
}

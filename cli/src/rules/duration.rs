//! Prometheus durations: `1h30m`, `15s`, `0`.
//!
//! A file's durations are not those of an expression: units descend, each at most once, and a bare number is
//! refused except for `0`. See `model.ParseDuration` of Prometheus' common library.

use std::fmt;

use thiserror::Error;

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Longest duration: what Prometheus' 64 bits of nanoseconds hold, about 292 years.
const DURATION_MS_MAX: u64 = i64::MAX.unsigned_abs() / 1_000_000;

/// A duration that was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum DurationError {
    #[error("duration is empty")]
    Empty,
    #[error("{0:?} is not a valid duration")]
    Malformed(String),
    #[error("duration {0:?} is out of range")]
    OutOfRange(String),
}

/// Reads a duration as milliseconds.
pub(crate) fn parse(text: &str) -> Result<i64, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text == "0" {
        return Ok(0);
    }
    let malformed = || DurationError::Malformed(text.to_owned());
    let out_of_range = || DurationError::OutOfRange(text.to_owned());
    let mut total = 0_u64;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&digits| digits > 0).ok_or_else(malformed)?;
        let (number, tail) = rest.split_at(digits);
        let length = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(length);
        // The iterator goes on where it stopped: units must descend.
        let (_, unit_ms) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        let number: u64 = number.parse().map_err(|_| out_of_range())?;
        total = number.checked_mul(*unit_ms).and_then(|ms| total.checked_add(ms)).ok_or_else(out_of_range)?;
        rest = next;
    }
    if total > DURATION_MS_MAX {
        return Err(out_of_range());
    }
    i64::try_from(total).map_err(|_| out_of_range())
}

/// Shows milliseconds as Prometheus writes them: `5400000` is `1h30m`.
pub(crate) fn show(ms: i64) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        if ms == 0 {
            return f.write_str("0s");
        }
        let mut rest = ms.unsigned_abs();
        for (unit, unit_ms) in UNITS {
            // Years and weeks only where nothing is left over, as Prometheus does.
            let exact_only = matches!(unit, "y" | "w");
            if rest < unit_ms || (exact_only && !rest.is_multiple_of(unit_ms)) {
                continue;
            }
            write!(f, "{}{unit}", rest / unit_ms)?;
            rest %= unit_ms;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_accepts() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("324ms", 324),
            ("1y2w3d4h5m6s7ms", 31_536_000_000 + 1_209_600_000 + 273_906_007),
        ] {
            assert_eq!(parse(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn what_prometheus_refuses() {
        for text in
            ["", "5", "1.5h", "-1m", "1", "m", "1m1h", "1m1m", "1 m", "1hm", "300y", "99999999999999999999s", "1é"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_as_prometheus_shows_them() {
        for (ms, text) in [
            (0, "0s"),
            (5_400_000, "1h30m"),
            (86_400_000, "1d"),
            (604_800_000, "1w"),
            (691_200_000, "8d"),
            (1_001, "1s1ms"),
        ] {
            assert_eq!(show(ms).to_string(), text);
            assert_eq!(parse(text), Ok(ms));
        }
    }
}

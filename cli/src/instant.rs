//! Instants as people and programs write them.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since the Unix epoch: of seconds, with a fraction or not, or of RFC 3339. As large as queries take them.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return milliseconds(seconds);
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// Seconds, to the millisecond.
pub(crate) fn milliseconds(seconds: f64) -> Option<i64> {
    let ms = (seconds * 1000.0).round();
    (ms.abs() <= belfry_promql::limits::TIME_MS_MAX as f64).then_some(ms as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_in_their_forms() {
        for (text, expected) in [
            ("1435781430.781", Some(1_435_781_430_781)),
            ("-1", Some(-1_000)),
            ("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781)),
            ("2015-07-01T22:10:51+02:00", Some(1_435_781_451_000)),
            ("yesterday", None),
            ("NaN", None),
            ("1e300", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}

//! Numbers, durations and sequences of values as the scripts write them.

use belfry_promql::notation::{self, NotationError};

/// A point of a series: a value, or nothing.
pub(crate) type Point = Option<f64>;

/// What a list of values stands for.
pub(crate) enum Values {
    Points(Vec<Point>),
    /// At least one of them is a native histogram.
    NativeHistograms,
}

/// Milliseconds of `5m`, `1h30m`, `10` (seconds) or `-1m`.
pub(crate) fn duration_ms(text: &str) -> Result<i64, String> {
    let malformed = || format!("malformed duration {text:?}");
    if let Some(rest) = text.strip_prefix('-') {
        return duration_ms(rest).map(|ms| -ms);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "scripts hold small numbers")]
        return Ok((seconds * 1_000.0).round() as i64);
    }
    let mut rest = text;
    let mut total = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return Err(malformed()),
        };
        total += number.parse::<i64>().map_err(|_| malformed())? * ms;
        rest = tail;
    }
    Ok(total)
}

pub(crate) fn float(text: &str) -> Result<f64, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        let number = u32::from_str_radix(digits, 16).map_err(|_| format!("malformed number {text:?}"))?;
        return Ok(f64::from(number));
    }
    lower.parse().map_err(|_| format!("malformed number {text:?}"))
}

/// `1 2+3x2 _ stale _x3` and so on.
pub(crate) fn values(text: &str) -> Result<Values, String> {
    match notation::values(text) {
        Ok(points) => Ok(Values::Points(points)),
        Err(NotationError::NativeHistogram { .. }) => Ok(Values::NativeHistograms),
        Err(error) => Err(error.to_string()),
    }
}

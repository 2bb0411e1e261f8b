//! Numbers, durations and sequences of values as the scripts write them.

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
    if text.contains("{{") {
        return Ok(Values::NativeHistograms);
    }
    let mut points = Vec::new();
    for item in text.split_whitespace() {
        expand(item, &mut points)?;
    }
    Ok(Values::Points(points))
}

fn expand(item: &str, points: &mut Vec<Point>) -> Result<(), String> {
    let (base, times) = match item.rsplit_once('x') {
        Some((base, times)) => (base, Some(times.parse::<usize>().map_err(|_| format!("malformed values {item:?}"))?)),
        None => (item, None),
    };
    if base == "_" {
        points.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
        return Ok(());
    }
    if base == "stale" {
        points.extend(std::iter::repeat_n(Some(belfry_promql::STALE_NAN), times.unwrap_or(0) + 1));
        return Ok(());
    }
    let sign = base.char_indices().skip(1).find(|&(at, c)| matches!(c, '+' | '-') && !base[..at].ends_with(['e', 'E']));
    let (start, step) = match sign.filter(|_| times.is_some()) {
        Some((at, _)) => (float(&base[..at])?, float(&base[at..])?),
        None => (float(base)?, 0.0),
    };
    let mut value = start;
    for _ in 0..=times.unwrap_or(0) {
        points.push(Some(value));
        value += step;
    }
    Ok(())
}

//! Durations as they stand in an expression, checked before the parser converts them.

use super::PlanError;
use crate::Span;
use crate::limits::TIME_MS_MAX;

/// Milliseconds in each unit, largest first: the order in which they must be written.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("ms", 1),
    ("m", 60_000),
    ("s", 1_000),
];

/// Checks the one or two durations of `[5m]` or `[1h:30s]`.
pub(super) fn check_brackets(expression: &str, span: Span) -> Result<(), PlanError> {
    let Some(inner) = expression.get(span.start + 1..span.end.saturating_sub(1)) else { return Ok(()) };
    let mut start = span.start + 1;
    for part in inner.split(':') {
        let text = part.trim();
        let from = start + (part.len() - part.trim_start().len());
        start += part.len() + 1;
        if text.is_empty() {
            continue;
        }
        let part_span = Span::of(expression, from, from + text.len());
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') {
            return Err(PlanError::Unsupported { what: "a calculated duration".to_owned(), span: part_span });
        }
        check(expression, part_span)?;
    }
    Ok(())
}

/// Checks one duration: a number of seconds, or numbers with units.
pub(super) fn check(expression: &str, span: Span) -> Result<(), PlanError> {
    let text = expression.get(span.start..span.end).unwrap_or_default();
    match milliseconds(text) {
        Some(ms) if ms <= TIME_MS_MAX.unsigned_abs() => Ok(()),
        _ => Err(PlanError::Duration { text: text.to_owned(), span }),
    }
}

/// The length of a duration, rounded down, or nothing if it is none or too large to represent.
fn milliseconds(text: &str) -> Option<u64> {
    if let Some(hexadecimal) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hexadecimal, 16).ok()?.checked_mul(1_000);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1_000.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
        return (0.0..1e18).contains(&ms).then_some(ms as u64);
    }
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let (unit, ms) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        // The parser ignores what does not fit 32 bits.
        total = total.checked_add(u64::from(number.parse::<u32>().ok()?).checked_mul(*ms)?)?;
        rest = tail.get(unit.len()..)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_their_many_forms() {
        for (text, expected) in [
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("1.5", Some(1_500)),
            ("0x10", Some(16_000)),
            ("5000000000s", None),
            ("NaN", None),
            ("inf", None),
            ("1e300", None),
            ("-1", None),
            ("5", Some(5_000)),
            ("5x", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }
}

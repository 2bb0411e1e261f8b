//! Numbers as Prometheus writes them.

use std::fmt::Write as _;

/// As few digits as tell the number from its neighbours, and an exponent for the very small and the very large.
pub(super) fn number(text: &mut String, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if size == 0.0 || (1e-6..1e21).contains(&size) {
        // Writing to a string does not fail.
        let _ = write!(text, "{value}");
    } else {
        let short = format!("{value:e}");
        let (digits, exponent) = short.split_once('e').unwrap_or((&short, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        let _ = write!(text, "{digits}e{sign}{exponent:0>2}");
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_as_prometheus_writes_them() {
        for (value, expected) in [
            (1.5, "1.5"),
            (-0.0, "-0"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-07"),
            (123456789012.0, "123456789012"),
            (1e21, "1e+21"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            let mut text = String::new();
            number(&mut text, value);
            assert_eq!(text, expected);
        }
    }
}

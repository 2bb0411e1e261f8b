//! Results of queries.

use crate::{Annotation, Labels, Sample, Series};

/// The type of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number.
    Scalar,
    /// One value for each of several series.
    Vector,
    /// Several values for each of several series.
    Matrix,
    /// A text.
    String,
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::String => "string",
        })
    }
}

/// What an expression amounts to.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// One number at one instant.
    Scalar(Sample),
    /// One value for each series. In no particular order unless the expression sorts.
    Vector(Vec<(Labels, Sample)>),
    /// Several values for each series: every range query, and instant queries of range selectors.
    Matrix(Vec<Series>),
    /// A text.
    String(String),
}

/// A result and the remarks on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The result.
    pub value: Value,
    /// Remarks, each once, in the order of the expression.
    pub annotations: Vec<Annotation>,
}

/// A number as Prometheus writes it in texts: `NaN`, `+Inf`, and as many digits as it takes.
pub(crate) fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if value.is_nan() || magnitude == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_written_as_prometheus_does() {
        for (value, text) in [
            (1.1, "1.1"),
            (-3.0, "-3"),
            (0.0, "0"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-07"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}

//! Whether a result is what a script expects.

use std::collections::BTreeMap;

use belfry_promql::{Labels, Output, Sample, Series, Value};

use super::number::{Point, Values};
use super::script::{Eval, Expectation, Text};

/// Relative difference up to which two numbers count as equal.
const EPSILON: f64 = 1e-6;

/// Checks the value of an instant query.
pub(crate) fn instant(eval: &Eval, value: &Value) -> Result<(), String> {
    match (value, eval.matrix) {
        (Value::Matrix(series), Some((start_ms, step_ms))) => range(eval, series, start_ms, step_ms),
        (Value::Matrix(_), None) => Err("the result is a range vector".to_owned()),
        (Value::String(text), _) => match &eval.string {
            Some(expected) if expected == text => Ok(()),
            expected => Err(format!("expected the string {expected:?}, got {text:?}")),
        },
        (Value::Scalar(sample), _) => match eval.scalar {
            Some(expected) if equal(expected, sample.value) => Ok(()),
            expected => Err(format!("expected the scalar {expected:?}, got {}", sample.value)),
        },
        (Value::Vector(rows), _) => vector(eval, rows),
    }
}

fn vector(eval: &Eval, rows: &[(Labels, Sample)]) -> Result<(), String> {
    if eval.scalar.is_some() {
        return Err("the result is a vector, not a scalar".to_owned());
    }
    let mut left: BTreeMap<&Labels, (usize, f64)> =
        rows.iter().enumerate().map(|(at, (labels, sample))| (labels, (at, sample.value))).collect();
    for (at, (labels, values)) in eval.series.iter().enumerate() {
        let Values::Points(points) = values else { return Err("a native histogram is expected".to_owned()) };
        let Some(expected) = points.first().copied().flatten() else { continue };
        let Some((place, value)) = left.remove(labels) else {
            return Err(format!("{labels} is missing; got {}", shown(rows)));
        };
        if !equal(expected, value) {
            return Err(format!("expected {labels} {expected}, got {value}"));
        }
        if eval.ordered && place != at {
            return Err(format!("{labels} is at place {place} instead of {at}; got {}", shown(rows)));
        }
    }
    match left.first_key_value() {
        Some((labels, (_, value))) => Err(format!("unexpected {labels} {value}")),
        None => Ok(()),
    }
}

fn shown(rows: &[(Labels, Sample)]) -> String {
    rows.iter().map(|(labels, sample)| format!("{labels} {}", sample.value)).collect::<Vec<_>>().join("; ")
}

/// Checks the series of a range query.
pub(crate) fn range(eval: &Eval, series: &[Series], start_ms: i64, step_ms: i64) -> Result<(), String> {
    let mut left: BTreeMap<&Labels, &Series> = series.iter().map(|series| (&series.labels, series)).collect();
    for (labels, values) in &eval.series {
        let Values::Points(points) = values else { return Err("a native histogram is expected".to_owned()) };
        let expected: Vec<(i64, f64)> = (0..)
            .zip(points)
            .filter_map(|(step, point): (i64, &Point)| Some((start_ms + step * step_ms, (*point)?)))
            .collect();
        if expected.is_empty() {
            continue;
        }
        let Some(found) = left.remove(labels) else { return Err(format!("{labels} is missing; got {series:?}")) };
        let same = expected.len() == found.samples.len()
            && expected
                .iter()
                .zip(&found.samples)
                .all(|(&(time_ms, value), sample)| time_ms == sample.time_ms && equal(value, sample.value));
        if !same {
            return Err(format!("expected {labels} {expected:?}, got {:?}", found.samples));
        }
    }
    match left.first_key_value() {
        Some((_, series)) => Err(format!("unexpected {series:?}")),
        None => Ok(()),
    }
}

/// Checks what is said beside a result.
pub(crate) fn annotations(eval: &Eval, output: &Output) -> Result<(), String> {
    let said = |level: &str| -> Vec<String> {
        let all = output.annotations.iter().map(ToString::to_string);
        all.filter(|text| text.starts_with(level)).collect()
    };
    let (warnings, infos) = (said("PromQL warning"), said("PromQL info"));
    for expectation in &eval.expectations {
        let (expected, said) = match expectation {
            Expectation::NoWarning if warnings.is_empty() => continue,
            Expectation::NoInfo if infos.is_empty() => continue,
            Expectation::NoWarning | Expectation::NoInfo => {
                return Err(format!("unexpected annotations {warnings:?} {infos:?}"));
            }
            Expectation::Warning(text) => (text, &warnings),
            Expectation::Info(text) => (text, &infos),
            Expectation::FailWith(_) => continue,
        };
        let found = match expected {
            None => !said.is_empty(),
            Some(text) => said.iter().any(|said| matches(text, said)),
        };
        if !found {
            return Err(format!("an annotation is missing; there are {warnings:?} {infos:?}"));
        }
    }
    Ok(())
}

/// Checks the message of an error.
pub(crate) fn failure(eval: &Eval, message: &str) -> Result<(), String> {
    let wrong = eval.expectations.iter().find_map(|expectation| match expectation {
        Expectation::FailWith(text) if !matches(text, message) => Some(message),
        _ => None,
    });
    wrong.map_or(Ok(()), |message| Err(format!("failed with another message: {message}")))
}

fn matches(expected: &Text, text: &str) -> bool {
    match expected {
        Text::Exactly(expected) => expected == text,
        Text::Matching(pattern) => regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(text)),
    }
}

#[expect(clippy::float_cmp, reason = "infinities are equal only exactly")]
pub(crate) fn equal(expected: f64, value: f64) -> bool {
    if expected == value || (expected.is_nan() && value.is_nan()) {
        return true;
    }
    let difference = (expected - value).abs();
    let total = expected.abs() + value.abs();
    if expected == 0.0 || value == 0.0 || total < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / total.min(f64::MAX) < EPSILON
}

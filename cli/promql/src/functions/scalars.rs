//! Functions that yield or take scalars.

use crate::Labels;
use crate::eval::{Block, EvalError, is_absent};
use crate::functions::Arguments;

/// The time of evaluation in seconds.
pub(super) fn time(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    Ok(arguments.grid().times().map(seconds).collect())
}

pub(super) fn pi(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    Ok(vec![std::f64::consts::PI; arguments.grid().steps])
}

/// Start of the query in seconds.
pub(super) fn start(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    Ok(vec![seconds(arguments.query().start_ms); arguments.grid().steps])
}

/// End of the query in seconds.
pub(super) fn end(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    Ok(vec![seconds(arguments.query().end_ms); arguments.grid().steps])
}

/// The time from the start to the end of the query in seconds.
pub(super) fn range(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    let query = arguments.query();
    Ok(vec![seconds(query.end_ms - query.start_ms); arguments.grid().steps])
}

/// The step of the query in seconds; 0 for an instant query.
pub(super) fn step(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    Ok(vec![seconds(arguments.query().step_ms); arguments.grid().steps])
}

pub(super) fn max_of(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    choose(arguments, |a, b| a > b)
}

pub(super) fn min_of(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    choose(arguments, |a, b| a < b)
}

fn choose(arguments: &mut Arguments<'_, '_>, first: impl Fn(f64, f64) -> bool) -> Result<Vec<f64>, EvalError> {
    let (a, b) = (arguments.scalar(0)?, arguments.scalar(1)?);
    let pick = |(a, b): (f64, f64)| {
        if a.is_nan() || b.is_nan() {
            f64::NAN
        } else if first(a, b) {
            a
        } else {
            b
        }
    };
    Ok(a.into_iter().zip(b).map(pick).collect())
}

/// The value of the only series, or NaN where there is not exactly one.
pub(super) fn scalar(arguments: &mut Arguments<'_, '_>) -> Result<Vec<f64>, EvalError> {
    let block = arguments.vector(0)?;
    let mut found: Vec<(usize, f64)> = vec![(0, f64::NAN); block.steps()];
    for values in block.values() {
        for (found, &value) in found.iter_mut().zip(values) {
            if !is_absent(value) {
                *found = (found.0 + 1, value);
            }
        }
    }
    Ok(found.into_iter().map(|(count, value)| if count == 1 { value } else { f64::NAN }).collect())
}

/// A series without labels.
pub(super) fn vector(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let values = arguments.scalar(0)?;
    let mut block = Block::new(values.len());
    block.push(Labels::empty(), false, &values);
    Ok(block)
}

/// Milliseconds as the language counts time.
#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 milliseconds")]
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

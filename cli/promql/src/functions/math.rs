//! Functions of one value that take further numbers.

use crate::eval::{Block, EvalError, is_absent};
use crate::functions::Arguments;

/// -1, 0 or 1; zero keeps its sign and NaN stays NaN.
pub(super) fn sgn(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

pub(super) fn clamp(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let mut block = arguments.vector(0)?;
    let (low, high) = (arguments.scalar(1)?, arguments.scalar(2)?);
    block.drop_names();
    for values in block.values_mut() {
        for ((value, &low), &high) in values.iter_mut().zip(&low).zip(&high) {
            if low > high {
                *value = crate::STALE_NAN;
            } else if !is_absent(*value) {
                *value = bounded_below(bounded_above(*value, high), low);
            }
        }
    }
    Ok(block)
}

pub(super) fn clamp_max(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    with_scalar(arguments, bounded_above)
}

pub(super) fn clamp_min(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    with_scalar(arguments, bounded_below)
}

/// Rounds to a multiple of a number, halves upwards.
///
/// Multiplying by the inverse rather than dividing keeps fractions such as 0.1 exact where they can be.
pub(super) fn round(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let to_nearest = |value: f64, nearest: f64| {
        let inverse = 1.0 / nearest;
        (value * inverse + 0.5).floor() / inverse
    };
    if arguments.len() > 1 {
        return with_scalar(arguments, to_nearest);
    }
    let mut block = arguments.vector(0)?;
    block.drop_names();
    block.map(|value| to_nearest(value, 1.0));
    Ok(block)
}

fn with_scalar(arguments: &mut Arguments<'_, '_>, body: impl Fn(f64, f64) -> f64) -> Result<Block, EvalError> {
    let mut block = arguments.vector(0)?;
    let numbers = arguments.scalar(1)?;
    block.drop_names();
    for values in block.values_mut() {
        for (value, &number) in values.iter_mut().zip(&numbers) {
            if !is_absent(*value) {
                *value = body(*value, number);
            }
        }
    }
    Ok(block)
}

/// The smaller of two; NaN if either is.
fn bounded_above(value: f64, limit: f64) -> f64 {
    if value.is_nan() || limit.is_nan() { f64::NAN } else { value.min(limit) }
}

/// The larger of two; NaN if either is.
fn bounded_below(value: f64, limit: f64) -> f64 {
    if value.is_nan() || limit.is_nan() { f64::NAN } else { value.max(limit) }
}

//! Trends: linear regression and smoothing.

use crate::Samples;
use crate::eval::{Block, EvalError};
use crate::functions::statistics::KahanSum;
use crate::functions::{Arguments, Window};

/// Change per second by the line of least squares.
pub(super) fn deriv(window: &Window<'_>) -> Option<f64> {
    let first = window.samples.first()?;
    Some(Line::through(window.samples, first.time_ms)?.slope)
}

/// Where the line of least squares will be a number of seconds after the time of evaluation.
pub(super) fn predict_linear(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let ahead: Vec<(i64, f64)> = arguments.grid().times().zip(arguments.scalar(1)?).collect();
    let mut block = arguments.windows(0, |window, step| {
        let (now_ms, seconds) = *ahead.get(step)?;
        let line = Line::through(window.samples, now_ms)?;
        Some(line.slope * seconds + line.intercept)
    })?;
    block.drop_names();
    Ok(block)
}

/// Holt's double exponential smoothing, by a factor for the level and one for the trend.
pub(super) fn smoothing(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let (levels, trends) = (arguments.scalar(1)?, arguments.scalar(2)?);
    let is_factor = |factor: &f64| *factor > 0.0 && *factor < 1.0;
    if !levels.iter().all(is_factor) {
        return Err(EvalError::Parameter("smoothing factor must lie between 0 and 1"));
    }
    if !trends.iter().all(is_factor) {
        return Err(EvalError::Parameter("trend factor must lie between 0 and 1"));
    }
    let factors: Vec<(f64, f64)> = levels.into_iter().zip(trends).collect();
    let mut block = arguments.windows(0, |window, step| {
        let (level_factor, trend_factor) = *factors.get(step)?;
        smoothed(window, level_factor, trend_factor)
    })?;
    block.drop_names();
    Ok(block)
}

fn smoothed(window: &Window<'_>, level_factor: f64, trend_factor: f64) -> Option<f64> {
    let mut values = window.values();
    let mut level = values.next()?;
    let second = values.next()?;
    let mut trend = second - level;
    let step = |level: f64, trend: f64, value: f64| level_factor * value + (1.0 - level_factor) * (level + trend);
    let mut previous = level;
    level = step(level, trend, second);
    for value in values {
        trend = trend_factor * (level - previous) + (1.0 - trend_factor) * trend;
        previous = level;
        level = step(level, trend, value);
    }
    Some(level)
}

struct Line {
    /// Change per second.
    slope: f64,
    /// Value at the origin.
    intercept: f64,
}

impl Line {
    /// The line of least squares through at least two samples.
    #[expect(clippy::float_cmp, reason = "a constant series has one value exactly")]
    fn through(samples: Samples<'_>, origin_ms: i64) -> Option<Self> {
        let first = samples.first().filter(|_| samples.len() > 1)?;
        if samples.values().iter().all(|&value| value == first.value) {
            if first.value.is_infinite() {
                return Some(Self { slope: f64::NAN, intercept: f64::NAN });
            }
            return Some(Self { slope: 0.0, intercept: first.value });
        }
        let [mut x, mut y, mut xy, mut xx] = [KahanSum::default(); 4];
        for sample in samples.iter() {
            #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 milliseconds")]
            let seconds = (sample.time_ms - origin_ms) as f64 / 1_000.0;
            x.add(seconds);
            y.add(sample.value);
            xy.add(seconds * sample.value);
            xx.add(seconds * seconds);
        }
        #[expect(clippy::cast_precision_loss, reason = "no window has 2^53 samples")]
        let count = samples.len() as f64;
        let (x, y) = (x.value(), y.value());
        let covariance = xy.value() - x * y / count;
        let variance = xx.value() - x * x / count;
        let slope = covariance / variance;
        Some(Self { slope, intercept: y / count - slope * x / count })
    }
}

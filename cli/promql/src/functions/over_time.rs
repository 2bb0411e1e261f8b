//! Functions that reduce the samples of a range to one number.

use crate::eval::{Block, EvalError};
use crate::functions::scalars::seconds;
use crate::functions::statistics::{KahanSum, Mean, Moments, quantile, quantile_message, sort_nan_first};
use crate::functions::{Arguments, Window};
use crate::{Level, Sample};

#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
pub(super) fn count(window: &Window<'_>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "no window has 2^53 samples")]
    let count = window.samples.len() as f64;
    Some(count)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
pub(super) fn present(_: &Window<'_>) -> Option<f64> {
    Some(1.0)
}

pub(super) fn first(window: &Window<'_>) -> Option<f64> {
    window.samples.first().map(|sample| sample.value)
}

pub(super) fn last(window: &Window<'_>) -> Option<f64> {
    window.samples.last().map(|sample| sample.value)
}

pub(super) fn first_time(window: &Window<'_>) -> Option<f64> {
    window.samples.first().map(|sample| seconds(sample.time_ms))
}

pub(super) fn last_time(window: &Window<'_>) -> Option<f64> {
    window.samples.last().map(|sample| seconds(sample.time_ms))
}

#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
pub(super) fn sum(window: &Window<'_>) -> Option<f64> {
    let mut sum = KahanSum::default();
    window.values().for_each(|value| sum.add(value));
    Some(sum.value())
}

#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
pub(super) fn avg(window: &Window<'_>) -> Option<f64> {
    let mut mean = Mean::default();
    window.values().for_each(|value| mean.add(value));
    Some(mean.value())
}

/// NaN only if there is nothing else.
pub(super) fn min(window: &Window<'_>) -> Option<f64> {
    window.values().reduce(|least, value| if value < least || least.is_nan() { value } else { least })
}

/// NaN only if there is nothing else.
pub(super) fn max(window: &Window<'_>) -> Option<f64> {
    window.values().reduce(|most, value| if value > most || most.is_nan() { value } else { most })
}

/// Of several equal extremes the last counts.
pub(super) fn min_time(window: &Window<'_>) -> Option<f64> {
    extreme_time(window, |sample, least| sample.value <= least.value)
}

/// Of several equal extremes the last counts.
pub(super) fn max_time(window: &Window<'_>) -> Option<f64> {
    extreme_time(window, |sample, most| sample.value >= most.value)
}

fn extreme_time(window: &Window<'_>, replaces: impl Fn(Sample, Sample) -> bool) -> Option<f64> {
    let pick = |best: Sample, sample| if replaces(sample, best) || best.value.is_nan() { sample } else { best };
    window.samples.iter().reduce(pick).map(|sample| seconds(sample.time_ms))
}

#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
pub(super) fn stdvar(window: &Window<'_>) -> Option<f64> {
    let mut moments = Moments::default();
    window.values().for_each(|value| moments.add(value));
    Some(moments.variance())
}

pub(super) fn stddev(window: &Window<'_>) -> Option<f64> {
    stdvar(window).map(f64::sqrt)
}

/// The median distance from the median; NaN if any value is.
#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
pub(super) fn mad(window: &Window<'_>) -> Option<f64> {
    let mut values: Vec<f64> = window.values().collect();
    if values.iter().any(|value| value.is_nan()) {
        return Some(f64::NAN);
    }
    sort_nan_first(&mut values);
    let median = quantile(0.5, &values);
    for value in &mut values {
        *value = (*value - median).abs();
    }
    sort_nan_first(&mut values);
    Some(quantile(0.5, &values))
}

pub(super) fn quantile_over_time(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let phis = arguments.scalar(0)?;
    let mut block = arguments.windows(1, |window, step| {
        let mut values = window.samples.values().to_vec();
        sort_nan_first(&mut values);
        phis.get(step).map(|&phi| quantile(phi, &values))
    })?;
    block.drop_names();
    if !block.rows().is_empty() {
        for message in phis.into_iter().filter_map(quantile_message) {
            arguments.annotate(Level::Warning, 0, message);
        }
    }
    Ok(block)
}

/// How often the value changed; from NaN to NaN is no change.
#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
#[expect(clippy::float_cmp, reason = "any difference is a change")]
pub(super) fn changes(window: &Window<'_>) -> Option<f64> {
    Some(count_pairs(window, |before, after| before != after && !(before.is_nan() && after.is_nan())))
}

/// How often the value fell.
#[expect(clippy::unnecessary_wraps, reason = "the signature that all functions of windows share")]
pub(super) fn resets(window: &Window<'_>) -> Option<f64> {
    Some(count_pairs(window, |before, after| after < before))
}

fn count_pairs(window: &Window<'_>, counts: impl Fn(f64, f64) -> bool) -> f64 {
    let pairs = window.values().zip(window.values().skip(1));
    pairs.map(|(before, after)| f64::from(u8::from(counts(before, after)))).sum()
}

//! How fast counters and gauges change.
//!
//! `rate`, `increase` and `delta` estimate the change over the whole range from the samples within it: the range
//! seldom begins or ends on a sample, so the change between the first and the last is extrapolated towards the
//! ends, by Prometheus' rule (see [`extrapolated`]).

use std::collections::BTreeSet;

use crate::eval::{Block, EvalError};
use crate::functions::{Arguments, Window};
use crate::{Level, Sample};

/// Endings of names that tell a counter.
const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

/// Per second.
pub(super) fn rate(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    counter(arguments, |window| extrapolated(window, true).map(|increase| increase / range_seconds(window)))
}

pub(super) fn increase(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    counter(arguments, |window| extrapolated(window, true))
}

pub(super) fn delta(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, false)
}

/// The change between the last two samples per second, of a counter.
pub(super) fn irate(window: &Window<'_>) -> Option<f64> {
    let (before, last) = last_two(window)?;
    let increase = if last.value < before.value { last.value } else { last.value - before.value };
    let interval = seconds_between(before.time_ms, last.time_ms);
    (interval > 0.0).then(|| increase / interval)
}

/// The change between the last two samples.
pub(super) fn idelta(window: &Window<'_>) -> Option<f64> {
    let (before, last) = last_two(window)?;
    Some(last.value - before.value)
}

fn counter(
    arguments: &mut Arguments<'_, '_>,
    body: impl Fn(&Window<'_>) -> Option<f64> + Sync,
) -> Result<Block, EvalError> {
    let mut block = arguments.windows(0, |window, _| body(window))?;
    let suspects: BTreeSet<String> = block
        .rows()
        .iter()
        .filter_map(|row| row.labels.metric_name())
        .filter(|name| !COUNTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)))
        .map(str::to_owned)
        .collect();
    for name in suspects {
        let endings = COUNTER_SUFFIXES.join("/");
        let message = format!("metric might not be a counter, name does not end in {endings}: {name:?}");
        arguments.annotate(Level::Info, 0, message);
    }
    block.drop_names();
    Ok(block)
}

/// The change over the whole range.
///
/// Towards an end that lies within 1.1 average intervals of a sample the samples are assumed to go on; towards one
/// that is farther away, for half an interval. A counter is not extrapolated to below zero.
fn extrapolated(window: &Window<'_>, counter: bool) -> Option<f64> {
    let (first, last) = (window.samples.first()?, window.samples.last()?);
    let intervals = window.samples.len().checked_sub(1).filter(|&intervals| intervals > 0)?;
    let mut change = last.value - first.value;
    if counter {
        change += window.lost_to_resets();
    }
    let sampled = seconds_between(first.time_ms, last.time_ms);
    #[expect(clippy::cast_precision_loss, reason = "no window has 2^53 samples")]
    let average = sampled / intervals as f64;
    let reach = |gap: f64| if gap >= average * 1.1 { average / 2.0 } else { gap };
    let mut to_start = reach(seconds_between(window.start_ms, first.time_ms));
    let to_end = reach(seconds_between(last.time_ms, window.end_ms));
    if counter && change > 0.0 && first.value >= 0.0 {
        to_start = to_start.min(sampled * (first.value / change));
    }
    Some(change * ((sampled + to_start + to_end) / sampled))
}

fn last_two(window: &Window<'_>) -> Option<(Sample, Sample)> {
    let before = window.samples.len().checked_sub(2)?;
    Some((window.samples.get(before)?, window.samples.last()?))
}

fn range_seconds(window: &Window<'_>) -> f64 {
    seconds_between(window.start_ms, window.end_ms)
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 milliseconds")]
fn seconds_between(from_ms: i64, to_ms: i64) -> f64 {
    (to_ms - from_ms) as f64 / 1_000.0
}

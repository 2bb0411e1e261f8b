//! Classic histograms: series whose label `le` names the upper bound of a bucket, counts cumulative.

use std::collections::BTreeSet;

use crate::eval::{ABSENT, Block, EvalError, is_absent};
use crate::functions::Arguments;
use crate::functions::statistics::quantile_message;
use crate::hash::FastMap;
use crate::value::number;
use crate::{Labels, Level};

const BOUND_LABEL: &str = "le";

/// Counts that differ by less than this share are taken to be equal but for rounding.
const ROUNDING: f64 = 1e-12;

/// The value below which a share of the observations lies, interpolated within its bucket.
pub(super) fn quantile(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let histograms = Histograms::of(arguments, 1)?;
    let phis = shares(arguments, 0)?;
    let mut out = Block::with_capacity(phis.len(), histograms.list.len());
    for histogram in &histograms.list {
        let values = histogram.quantiles(arguments, 1, &histograms.block, &phis);
        out.push_if_present(&histogram.labels, true, values.into_iter());
    }
    Ok(out)
}

/// Several quantiles at once, told apart by a label.
pub(super) fn quantiles(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let label = arguments.text(1)?;
    if label.is_empty() {
        return Err(EvalError::LabelName(label.to_owned()));
    }
    let histograms = Histograms::of(arguments, 0)?;
    let mut out = Block::new(arguments.grid().steps);
    for at in 2..arguments.len() {
        let phis = shares(arguments, at)?;
        let texts: Vec<String> = phis.iter().map(|&phi| share_text(phi)).collect();
        let distinct: BTreeSet<&String> = texts.iter().collect();
        for histogram in &histograms.list {
            let values = histogram.quantiles(arguments, 0, &histograms.block, &phis);
            for &text in &distinct {
                arguments.check_rows(out.rows().len() + 1)?;
                let labels = histogram.labels.with(label, text);
                let of_text = values.iter().zip(&texts).map(|(&value, own)| if own == text { value } else { ABSENT });
                out.push_if_present(&labels, true, of_text);
            }
        }
    }
    out.merged()
}

/// The shares that an argument asks for, and a warning if any is none.
fn shares(arguments: &mut Arguments<'_, '_>, at: usize) -> Result<Vec<f64>, EvalError> {
    let phis = arguments.scalar(at)?;
    for message in phis.iter().filter_map(|&phi| quantile_message(phi)) {
        arguments.annotate(Level::Warning, at, message);
    }
    Ok(phis)
}

/// A share as a label says it: a whole number with a decimal point.
fn share_text(phi: f64) -> String {
    let text = number(phi);
    let whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if whole { format!("{text}.0") } else { text }
}

/// What only native histograms have: of classic ones, which are plain numbers, nothing.
pub(super) fn of_native(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    arguments.vector(0)?;
    Ok(Block::new(arguments.grid().steps))
}

/// The share of observations between two values.
pub(super) fn fraction(arguments: &mut Arguments<'_, '_>) -> Result<Block, EvalError> {
    let (lower, upper) = (arguments.scalar(0)?, arguments.scalar(1)?);
    let histograms = Histograms::of(arguments, 2)?;
    let mut out = Block::with_capacity(lower.len(), histograms.list.len());
    for histogram in &histograms.list {
        let values = lower.iter().zip(&upper).enumerate().map(|(step, (&lower, &upper))| {
            let buckets = histogram.at(&histograms.block, step);
            buckets.map_or(ABSENT, |buckets| bucket_fraction(lower, upper, &buckets))
        });
        out.push_if_present(&histogram.labels, true, values);
    }
    Ok(out)
}

/// Observations up to and including a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// The rows of a vector, put together to histograms.
struct Histograms {
    block: Block,
    list: Vec<Histogram>,
}

struct Histogram {
    labels: Labels,
    /// Bounds and rows, by bound ascending.
    rows: Vec<(f64, usize)>,
}

impl Histograms {
    fn of(arguments: &mut Arguments<'_, '_>, at: usize) -> Result<Self, EvalError> {
        let block = arguments.vector(at)?;
        let mut list: Vec<Histogram> = Vec::new();
        let mut places: FastMap<Labels, usize> = FastMap::default();
        for (index, row) in block.rows().iter().enumerate() {
            let text = row.labels.value(BOUND_LABEL);
            let Some(bound) = parse_bound(text) else {
                let name = row.labels.metric_name().unwrap_or_default();
                let message = format!(
                    "bucket label {BOUND_LABEL:?} is missing or has a malformed value of {text:?} for metric name {name:?}"
                );
                arguments.annotate(Level::Warning, at, message);
                continue;
            };
            let labels = row.labels.without(&[BOUND_LABEL]);
            let next = list.len();
            let place = *places.entry(labels.clone()).or_insert(next);
            if place == next {
                list.push(Histogram { labels, rows: Vec::new() });
            }
            if let Some(histogram) = list.get_mut(place) {
                histogram.rows.push((bound, index));
            }
        }
        for histogram in &mut list {
            histogram.rows.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        }
        Ok(Self { block, list })
    }
}

impl Histogram {
    /// The quantile at each step; `at` is the argument that the buckets come from.
    fn quantiles(&self, arguments: &mut Arguments<'_, '_>, at: usize, block: &Block, phis: &[f64]) -> Vec<f64> {
        let mut repaired = false;
        let values = phis.iter().enumerate().map(|(step, &phi)| {
            let Some(mut buckets) = self.at(block, step) else { return ABSENT };
            repaired |= make_monotonic(&mut buckets);
            bucket_quantile(phi, &buckets)
        });
        let values = values.collect();
        if repaired {
            let name = self.labels.metric_name().unwrap_or_default();
            let message =
                format!("input to histogram_quantile needed to be fixed for monotonicity for metric name {name:?}");
            arguments.annotate(Level::Info, at, message);
        }
        values
    }

    /// The buckets at a step, those with one bound put together; nothing if there are none.
    fn at(&self, block: &Block, step: usize) -> Option<Vec<Bucket>> {
        let mut buckets: Vec<Bucket> = Vec::with_capacity(self.rows.len());
        for &(bound, row) in &self.rows {
            let Some(&count) = block.row_values(row).get(step).filter(|&&count| !is_absent(count)) else { continue };
            match buckets.last_mut() {
                #[expect(clippy::float_cmp, reason = "bounds are equal if their texts mean the same number")]
                Some(last) if last.bound == bound => last.count += count,
                _ => buckets.push(Bucket { bound, count }),
            }
        }
        (!buckets.is_empty()).then_some(buckets)
    }
}

fn parse_bound(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|bound| !bound.is_nan())
}

/// Lifts counts that are smaller than those before them; tells whether any differed by more than rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut repaired = false;
    let mut most = f64::NEG_INFINITY;
    for bucket in buckets {
        let rounded = (bucket.count - most).abs() <= ROUNDING * bucket.count.abs().max(most.abs());
        if bucket.count < most || (rounded && most.is_finite()) {
            repaired |= !rounded;
            bucket.count = most;
        } else {
            most = bucket.count;
        }
    }
    repaired
}

fn bucket_quantile(phi: f64, buckets: &[Bucket]) -> f64 {
    let [.., before_last, last] = buckets else { return f64::NAN };
    if phi.is_nan() || last.bound != f64::INFINITY || last.count == 0.0 || last.count.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    let rank = phi * last.count;
    let at = buckets.partition_point(|bucket| bucket.count < rank);
    let below = at.checked_sub(1).and_then(|below| buckets.get(below));
    match (below, buckets.get(at)) {
        (_, None) => before_last.bound,
        (_, Some(bucket)) if bucket.bound == f64::INFINITY => before_last.bound,
        (None, Some(bucket)) if bucket.bound <= 0.0 => bucket.bound,
        (below, Some(bucket)) => {
            let (start, already) = below.map_or((0.0, 0.0), |below| (below.bound, below.count));
            start + (bucket.bound - start) * ((rank - already) / (bucket.count - already))
        }
    }
}

fn bucket_fraction(lower: f64, upper: f64, buckets: &[Bucket]) -> f64 {
    let Some(last) = buckets.last() else { return f64::NAN };
    let malformed = last.bound != f64::INFINITY || last.count == 0.0 || last.count.is_nan();
    if malformed || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets, last.count) - rank_of(lower, buckets, last.count)) / last.count
}

/// How many observations lie below a value, interpolated within its bucket.
fn rank_of(value: f64, buckets: &[Bucket], total: f64) -> f64 {
    let mut below = 0.0;
    let mut start = f64::NEG_INFINITY;
    for bucket in buckets {
        if start == f64::NEG_INFINITY && bucket.bound > 0.0 {
            start = 0.0;
        }
        if start >= value {
            return below;
        }
        if bucket.bound > value {
            let share = (value - start) / (bucket.bound - start);
            // A bucket without a finite side holds its observations at the other.
            let share = if bucket.bound == f64::INFINITY {
                0.0
            } else if start == f64::NEG_INFINITY {
                1.0
            } else {
                share
            };
            return (below + (bucket.count - below) * share).min(total);
        }
        (below, start) = (bucket.count, bucket.bound);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(list: &[(f64, f64)]) -> Vec<Bucket> {
        list.iter().map(|&(bound, count)| Bucket { bound, count }).collect()
    }

    #[test]
    fn quantiles_interpolate_within_buckets() {
        let histogram = buckets(&[(1.0, 10.0), (2.0, 20.0), (f64::INFINITY, 25.0)]);
        assert_eq!(bucket_quantile(0.2, &histogram), 0.5);
        assert_eq!(bucket_quantile(0.6, &histogram), 1.5);
        assert_eq!(bucket_quantile(0.99, &histogram), 2.0);
        assert!(bucket_quantile(0.5, &buckets(&[(1.0, 10.0), (2.0, 20.0)])).is_nan());
        assert!(bucket_quantile(0.5, &buckets(&[(f64::INFINITY, 20.0)])).is_nan());
    }

    #[test]
    fn falling_counts_are_repaired_and_rounding_is_not_told() {
        let mut histogram = buckets(&[(1.0, 10.0), (2.0, 9.0), (3.0, 12.0)]);
        assert!(make_monotonic(&mut histogram));
        assert_eq!(histogram, buckets(&[(1.0, 10.0), (2.0, 10.0), (3.0, 12.0)]));
        assert!(!make_monotonic(&mut buckets(&[(1.0, 10.0), (2.0, 10.0 - 1e-13)])));
    }

    #[test]
    fn fractions_interpolate_within_buckets() {
        let histogram = buckets(&[(1.0, 10.0), (2.0, 20.0), (f64::INFINITY, 20.0)]);
        assert_eq!(bucket_fraction(0.5, 1.5, &histogram), 0.5);
        assert_eq!(bucket_fraction(f64::NEG_INFINITY, f64::INFINITY, &histogram), 1.0);
        assert_eq!(bucket_fraction(2.0, 1.0, &histogram), 0.0);
    }
}

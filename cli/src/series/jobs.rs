//! `gpu_job_info`: which job had which GPU, as a series to join with.
//!
//! `gpu_utilization_ratio * on (instance, uuid) group_left (job_id, user) gpu_job_info`
//!
//! Made of the intervals when it is read; stored nowhere.

use std::collections::BTreeMap;

use belfry_promql::{Labels, METRIC_NAME, STALE_NAN, Sample};
use belfry_store::{NodeId, Pick, TimeRange};

use super::{INSTANCE, JOB};
use crate::gpu_jobs::{GpuJobs, Interval, JobLabels};

/// The name of the series.
pub(super) const METRIC: &str = "gpu_job_info";

/// Between two samples: inventories come as often. Far within any lookback.
const STEP_MS: i64 = 10_000;

/// The series of a node's jobs in this range. Intervals of one job on one GPU are one series.
pub(super) fn series(
    jobs: &GpuJobs,
    node: NodeId,
    name: &str,
    range: TimeRange,
    pick: Pick,
) -> Vec<(Labels, Vec<Sample>)> {
    let mut found: BTreeMap<JobLabels, Vec<Sample>> = BTreeMap::new();
    jobs.each(node, |interval| {
        let mut samples = samples(interval, range);
        if pick == Pick::Newest {
            samples.drain(..samples.len().saturating_sub(1));
        }
        if !samples.is_empty() {
            let all = found.entry(interval.labels.clone()).or_default();
            all.extend(samples);
            all.sort_by_key(|sample| sample.time_ms);
            all.dedup_by_key(|sample| sample.time_ms);
        }
    });
    found.into_iter().map(|(labels, samples)| (with_names(&labels, name), samples)).collect()
}

/// 1 from the start on, in steps, and a stale marker at the end.
fn samples(interval: &Interval, range: TimeRange) -> Vec<Sample> {
    let (start, end) = (interval.start.as_millis(), interval.known_until().as_millis());
    let from = start.max(range.after.as_millis() + 1);
    let until = end.min(range.until.as_millis());
    let on_the_grid = from.div_euclid(STEP_MS) * STEP_MS + STEP_MS;
    let steps = (0..).map(|step| on_the_grid + step * STEP_MS).take_while(|time| *time <= until);
    let first = (from <= until).then_some(from);
    let mut samples: Vec<Sample> =
        first.into_iter().chain(steps).map(|time_ms| Sample { time_ms, value: 1.0 }).collect();
    if interval.end.is_some() && end > range.after.as_millis() && end <= range.until.as_millis() {
        samples.retain(|sample| sample.time_ms < end);
        samples.push(Sample { time_ms: end, value: STALE_NAN });
    }
    samples
}

fn with_names(labels: &JobLabels, node: &str) -> Labels {
    let own = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // A job's labels cannot pass it off as another node's.
    let own = own.filter(|(name, _)| ![METRIC_NAME, INSTANCE, JOB.0].contains(name));
    Labels::from_pairs(own.chain([(METRIC_NAME, METRIC), (INSTANCE, node), JOB]))
}

//! The last step: names that were marked are removed, and what is then the same series becomes one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::block::Row;
use super::{Block, EvalError, Grid, is_absent};
use crate::hash::FastSet;
use crate::{Labels, Sample, Series};

/// The result of an instant query, in the order of evaluation.
pub(super) fn vector(block: &Block, time_ms: i64) -> Result<Vec<(Labels, Sample)>, EvalError> {
    let mut seen: FastSet<Labels> = FastSet::default();
    let mut result = Vec::with_capacity(block.rows().len());
    for (row, values) in block.iter() {
        let Some(&value) = values.first().filter(|&&value| !is_absent(value)) else { continue };
        let labels = final_labels(row);
        if !block.is_distinct() && !seen.insert(labels.clone()) {
            return Err(EvalError::SameLabelset);
        }
        result.push((labels, Sample { time_ms, value }));
    }
    Ok(result)
}

/// The result of a range query, sorted by labels.
pub(super) fn matrix(block: &Block, grid: Grid) -> Result<Vec<Series>, EvalError> {
    let mut merged: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for (row, values) in block.iter() {
        match merged.entry(final_labels(row)) {
            Entry::Vacant(entry) => {
                entry.insert(values.to_vec());
            }
            Entry::Occupied(mut entry) => {
                for (place, &value) in entry.get_mut().iter_mut().zip(values) {
                    if is_absent(*place) {
                        *place = value;
                    } else if !is_absent(value) {
                        return Err(EvalError::SameLabelset);
                    }
                }
            }
        }
    }
    let series = merged.into_iter().map(|(labels, values)| {
        let samples = grid.times().zip(values).filter(|(_, value)| !is_absent(*value));
        Series { labels, samples: samples.map(|(time_ms, value)| Sample { time_ms, value }).collect() }
    });
    Ok(series.filter(|series| !series.samples.is_empty()).collect())
}

/// The result of a range selector or subquery, sorted by labels.
pub(super) fn series(found: Vec<(Series, bool)>) -> Result<Vec<Series>, EvalError> {
    let mut result: Vec<Series> = found
        .into_iter()
        .map(|(series, drop_name)| {
            let labels = if drop_name { series.labels.without_metric_name() } else { series.labels };
            Series { labels, samples: series.samples }
        })
        .collect();
    result.sort_by(|a, b| a.labels.cmp(&b.labels));
    if result.is_sorted_by(|a, b| a.labels < b.labels) { Ok(result) } else { Err(EvalError::SameLabelset) }
}

fn final_labels(row: &Row) -> Labels {
    if row.drop_name { row.labels.without_metric_name() } else { row.labels.clone() }
}

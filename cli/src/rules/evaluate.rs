//! One rule at one instant: from its expression to rows, and from rows to recorded samples.

use std::collections::HashSet;

use belfry_promql::{
    Annotation, EvalError, Labels, Limits, METRIC_NAME, Sample, SeriesReader, Value, evaluate_instant,
};
use thiserror::Error;

use super::rule::{RecordRule, Rule};

/// A series of a rule's result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

/// Why a rule has no result.
#[derive(Debug, Error)]
pub(crate) enum RuleError {
    #[error("failed to evaluate the expression")]
    Evaluate(#[from] EvalError),
    #[error("failed to read the store")]
    Read(#[from] belfry_promql::ReadError),
    #[error("two series have the labels {0} after the rule's labels are applied; keep a label that tells them apart")]
    SameLabels(Labels),
    #[error("limit of {limit} reached: {more} more are left out")]
    Limit { limit: usize, more: usize },
    #[error("labels of an alert of {bytes} bytes are more than {bytes_max}; shorten or drop some")]
    LabelsTooLarge { bytes: usize, bytes_max: usize },
    #[error("the expression yields neither a vector nor a number")]
    Type,
}

/// The labels under which the series of a row is found again.
pub(crate) fn series_labels(row: &Row) -> Labels {
    row.labels.without_metric_name()
}

/// Evaluates the expression of a rule.
pub(crate) fn evaluate(
    rule: &Rule,
    reader: &dyn SeriesReader,
    time_ms: i64,
    limits: &Limits<'_>,
) -> Result<(Vec<Row>, Vec<Annotation>), RuleError> {
    let output = evaluate_instant(&rule.plan, reader, time_ms, limits)?;
    let rows = match output.value {
        Value::Scalar(sample) => vec![Row { labels: Labels::empty(), value: sample.value }],
        Value::Vector(rows) => rows.into_iter().map(|(labels, sample)| Row { labels, value: sample.value }).collect(),
        Value::Matrix(_) | Value::String(_) => return Err(RuleError::Type),
    };
    Ok((rows, output.annotations))
}

/// The samples that a recording rule makes of its rows.
pub(crate) fn record(
    name: &str,
    rule: &RecordRule,
    rows: Vec<Row>,
    time_ms: i64,
) -> Result<Vec<(Labels, Sample)>, RuleError> {
    let mut seen = HashSet::with_capacity(rows.len());
    let mut samples = Vec::with_capacity(rows.len());
    for row in rows {
        let named = row.labels.with(METRIC_NAME, name);
        let labels = rule.labels.iter().fold(named, |labels, (name, value)| labels.with(name, value));
        if !seen.insert(labels.clone()) {
            return Err(RuleError::SameLabels(labels));
        }
        samples.push((labels, Sample { time_ms, value: row.value }));
    }
    Ok(samples)
}

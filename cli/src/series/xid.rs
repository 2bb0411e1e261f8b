//! What the catalogue says of an XID, as labels of the series that count it: `class`, `action` and `xid_name`.
//!
//! Joined when a series is read and not stored: the catalogue belongs to the collector, and a change in it holds at once
//! for what came before.

use belfry_common::model::SeriesDefinition;

use crate::xid::{Action, Catalogue, Class};

/// Metrics with an `xid` that is judged.
const METRICS: [&str; 2] = ["gpu_xid_errors_total", "gpu_xid_last_timestamp_seconds"];

/// The labels that are added.
const LABELS: [&str; 3] = ["class", "action", "xid_name"];

/// Of an error that a driver newer than the catalogue reports.
const UNKNOWN: [&str; 3] = [Class::Warning.as_str(), Action::Inspect.as_str(), "not in the catalogue"];

/// What is known of the XID that a series counts; `None` for all other series.
fn of<'a>(catalogue: &'a Catalogue, series: &SeriesDefinition) -> Option<[&'a str; 3]> {
    if !METRICS.contains(&&*series.metric.name) {
        return None;
    }
    let mut labels = series.metric.label_names.iter().zip(&series.label_values);
    let (_, code) = labels.find(|(name, _)| &***name == "xid")?;
    let known = catalogue.of(code.parse().ok()?);
    Some(known.map_or(UNKNOWN, |xid| [xid.class.as_str(), xid.action.as_str(), &xid.name]))
}

/// Whether a label of this name may be an added one.
pub(super) fn is_joined(name: &str) -> bool {
    LABELS.contains(&name)
}

/// Whether series of this metric have an added label of this name.
pub(super) fn is_joined_to(metric: &str, name: &str) -> bool {
    METRICS.contains(&metric) && is_joined(name)
}

/// The added label of this name.
pub(super) fn label<'a>(catalogue: &'a Catalogue, series: &SeriesDefinition, name: &str) -> Option<&'a str> {
    if !is_joined(name) {
        return None;
    }
    let (_, value) = pairs(catalogue, series).find(|(known, _)| *known == name)?;
    Some(value)
}

/// All added labels.
pub(super) fn pairs<'a>(
    catalogue: &'a Catalogue,
    series: &SeriesDefinition,
) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    LABELS.into_iter().zip(of(catalogue, series).into_iter().flatten())
}

//! Short forms to declare metrics with.

use std::sync::Arc;

use belfry_common::model::{Kind, Metric, Resolution};

pub(crate) fn metric(name: &str, kind: Kind, resolution: Resolution, label_names: &[&str], help: &str) -> Arc<Metric> {
    Arc::new(Metric::new(name, kind, resolution, label_names, help))
}

/// A counter of whole things: bytes, packets, events.
pub(crate) fn counter(name: &str, label_names: &[&str], help: &str) -> Arc<Metric> {
    metric(name, Kind::Counter, Resolution::ONE, label_names, help)
}

/// A gauge of whole things: bytes, entries, states.
pub(crate) fn gauge(name: &str, label_names: &[&str], help: &str) -> Arc<Metric> {
    metric(name, Kind::Gauge, Resolution::ONE, label_names, help)
}

/// Facts in labels; the value is always 1.
pub(crate) fn info(name: &str, label_names: &[&str], help: &str) -> Arc<Metric> {
    metric(name, Kind::Info, Resolution::ONE, label_names, help)
}

/// `text` with everything that a metric's name may not contain replaced by `_`.
pub(crate) fn name_part(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

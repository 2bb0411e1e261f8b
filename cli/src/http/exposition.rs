//! Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;

use belfry_common::model::Raw;
use belfry_promql::{Labels, METRIC_NAME};

use super::number::number;
use crate::fleet::OwnCount;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the collector counts of itself.
pub(super) fn own(counts: &[OwnCount]) -> String {
    let mut text = String::new();
    for &(name, kind, resolution, help, raw) in counts {
        let Ok(value) = Raw::value(raw, resolution) else { continue };
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}\n{name} {value}", kind.prometheus_type());
    }
    text
}

/// One sample with its time. A series without `instance` says so: who federates would otherwise give it the collector's.
pub(super) fn sample(text: &mut String, labels: &Labels, value: f64, time_ms: i64) {
    text.push_str(labels.value(METRIC_NAME));
    let others = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
    let mut separator = '{';
    for (name, value) in others {
        text.push(separator);
        text.push_str(name);
        text.push_str("=\"");
        escape(text, value);
        text.push('"');
        separator = ',';
    }
    if labels.get("instance").is_none() {
        let _ = write!(text, "{separator}instance=\"\"");
        separator = ',';
    }
    text.push_str(if separator == ',' { "} " } else { " " });
    number(text, value);
    let _ = writeln!(text, " {time_ms}");
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_in_the_text_format() {
        let mut text = String::new();
        let labels = Labels::from_pairs([(METRIC_NAME, "a_total"), ("instance", "x\"y\\\n"), ("z", "1")]);
        sample(&mut text, &labels, 0.5, 1_000);
        sample(&mut text, &Labels::from_pairs([(METRIC_NAME, "b")]), f64::INFINITY, -1);
        assert_eq!(text, "a_total{instance=\"x\\\"y\\\\\\n\",z=\"1\"} 0.5 1000\nb{instance=\"\"} +Inf -1\n");
    }
}

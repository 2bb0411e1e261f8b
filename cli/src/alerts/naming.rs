//! From a row of a rule's result to the labels and annotations of an alert.

use std::collections::BTreeMap;

use belfry_promql::Labels;

use super::limits;
use crate::rules::limits::LABEL_VALUE_BYTES_MAX;
use crate::rules::{AlertRule, Row, RuleError, Subject, Template};

/// The label that holds the rule's name.
pub(super) const ALERT_NAME: &str = "alertname";

/// What templates may speak about beside the alert itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct External {
    pub(crate) labels: Labels,
    pub(crate) url: String,
}

/// The labels of the alert for a row: those of the series less the metric's name, the rule's over them, and its name.
pub(crate) fn labels(name: &str, rule: &AlertRule, row: &Row, external: &External) -> Result<Labels, RuleError> {
    let mut labels = row.labels.without_metric_name();
    for (label, template) in &rule.labels {
        let value = cut(rendered(template, row, external), LABEL_VALUE_BYTES_MAX);
        labels = labels.with(label, &value);
    }
    let labels = labels.with(ALERT_NAME, name);
    let size: usize = labels.iter().map(|(name, value)| json_length(name) + json_length(value)).sum();
    if size > limits::LABELS_JSON_BYTES_MAX {
        return Err(RuleError::LabelsTooLarge { bytes: size, bytes_max: limits::LABELS_JSON_BYTES_MAX });
    }
    Ok(labels)
}

/// The annotations of the alert for a row.
pub(super) fn annotations(rule: &AlertRule, row: &Row, external: &External) -> BTreeMap<String, String> {
    let mut left = limits::ANNOTATIONS_JSON_BYTES_MAX;
    let mut annotations = BTreeMap::new();
    for (name, template) in &rule.annotations {
        let mut text = rendered(template, row, external);
        if json_length(&text) > left {
            // A byte is at most six in JSON.
            text = cut(text, left / 6);
        }
        left = left.saturating_sub(json_length(&text) + json_length(name));
        annotations.insert(name.clone(), text);
    }
    annotations
}

/// A template that fails says so in place of its text, as in Prometheus: an alert with a flaw is better than none.
fn rendered(template: &Template, row: &Row, external: &External) -> String {
    let subject = Subject {
        labels: &row.labels,
        value: row.value,
        external_labels: &external.labels,
        external_url: &external.url,
    };
    template.render(&subject).unwrap_or_else(|error| format!("<error expanding template: {error}>"))
}

fn cut(mut text: String, bytes_max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() > bytes_max {
        let end = text.floor_char_boundary(bytes_max.saturating_sub(ELLIPSIS.len()));
        text.truncate(end);
        if bytes_max >= ELLIPSIS.len() {
            text.push_str(ELLIPSIS);
        }
    }
    text
}

/// How long a text is as JSON, its quotes and a separator included.
fn json_length(text: &str) -> usize {
    let inner: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum();
    inner + 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(cut("äöü".to_owned(), 6), "äöü");
        assert_eq!(cut("äöüß".to_owned(), 6), "ä…");
        assert_eq!(cut("abc".to_owned(), 0), "");
    }
}

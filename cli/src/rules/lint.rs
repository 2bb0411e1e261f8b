//! Doubts about rules that are valid: warnings of `rules check`.
//!
//! A lint looks at one rule. It reads the expression's text rather than its plan, and keeps silent where it is not
//! sure. Absent: whatever needs the data, such as a metric that nobody sends.

use super::checker::{Checker, Label, Text};
use super::rule::{INSTANCE, Rule, RuleKind};
use super::{Position, duration};

/// Families of node_exporter that are counters although their names do not end like one.
const COUNTERS: [&str; 4] = ["node_netstat_", "node_vmstat_", "node_snmp_", "node_procs_"];

const RATES: [&str; 3] = ["rate", "irate", "increase"];

/// Aggregations that drop labels. The others (`topk`, …) keep those of the series.
const DROPPING: [&str; 9] = ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "quantile"];

/// What may bring a label in, or makes an expression inseparable for other reasons than a dropped label.
const UNSURE: [&str; 16] = [
    "topk",
    "bottomk",
    "limitk",
    "limit_ratio",
    "sort",
    "sort_desc",
    "sort_by_label",
    "sort_by_label_desc",
    "scalar",
    "vector",
    "absent",
    "absent_over_time",
    "label_replace",
    "label_join",
    "count_values",
    "info",
];

/// Checks one rule.
pub(super) fn check(
    checker: &mut Checker<'_>,
    rule: &Rule,
    labels: &[Label<'_>],
    expression: Text<'_>,
    interval_ms: Option<i64>,
) {
    let outline = Outline::new(expression.text);
    rate_of_gauge(checker, expression, &outline);
    label_names(checker, labels);
    let RuleKind::Alert(alert) = &rule.kind else { return };
    if !outline.decides() {
        let message = "the expression compares nothing: it alerts for every series there is".to_owned();
        checker.warning(expression.node.position, message, "add a comparison such as `> 0`");
    }
    if !labels.iter().any(|label| label.name == "severity") {
        let help = "add `severity: critical`, `warning` or `info`";
        checker.warning(rule.position, "the alert has no label `severity`".to_owned(), help);
    }
    if !alert.annotations.iter().any(|(name, _)| name == "summary") {
        let help = "say in one line what is wrong, and where";
        checker.warning(rule.position, "the alert has no annotation `summary`".to_owned(), help);
    }
    if let Some(interval_ms) = interval_ms.filter(|&interval_ms| alert.for_ms > 0 && alert.for_ms < interval_ms) {
        let (held, interval) = (duration::show(alert.for_ms), duration::show(interval_ms));
        let message = format!("`for: {held}` is shorter than the group's interval of {interval}");
        checker.warning(rule.position, message, "Prometheus would wait for a whole interval");
    }
    if outline.drops_labels() {
        let templates = alert.labels.iter().chain(&alert.annotations);
        for (name, template) in templates {
            for (label, _) in template.labels().iter().filter(|(label, _)| !rule.plan.is_separable_by(label)) {
                let message = format!("{name:?} names the label {label:?}, which the aggregation drops");
                let help = format!("write `by ({label}, …)`, or leave it out");
                checker.warning(expression.node.position, message, &help);
            }
        }
    }
}

fn rate_of_gauge(checker: &mut Checker<'_>, expression: Text<'_>, outline: &Outline) {
    for (function, metric, at) in outline.calls() {
        let is_counter = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| metric.ends_with(end))
            || COUNTERS.iter().any(|family| metric.starts_with(family))
            || metric.contains(':');
        if RATES.contains(&function) && !is_counter {
            let position = checker.locate(expression, at);
            let message =
                format!("`{function}` of {metric:?}, which may be no counter: its name does not end in `_total`");
            checker.warning(position, message, "use `deriv` or `delta` for a gauge");
        }
    }
}

fn label_names(checker: &mut Checker<'_>, labels: &[Label<'_>]) {
    for label in labels {
        let position: Position = label.key.position;
        let plain = label
            .name
            .chars()
            .enumerate()
            .all(|(at, c)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()));
        if !plain {
            let message = format!("label {:?} must be quoted wherever it is used", label.name);
            checker.warning(position, message, "use letters, digits and underscores");
        }
        if matches!(label.name, "alertname" | INSTANCE) {
            let message = format!("label {:?} hides the one the alert has already", label.name);
            checker.warning(position, message, "remove it, or rename it");
        }
    }
}

/// An expression with everything blanked out that is quoted, in braces or brackets, or a comment. Offsets stay.
struct Outline {
    text: String,
}

impl Outline {
    fn new(expression: &str) -> Self {
        let mut text = String::with_capacity(expression.len());
        let mut closing: Option<char> = None;
        let mut escaped = false;
        let mut within = 0_usize;
        for c in expression.chars() {
            let visible = closing.is_none() && within == 0 && !matches!(c, '"' | '\'' | '`' | '{' | '[' | '#');
            match closing {
                Some(_) if escaped => escaped = false,
                Some('\n') if c == '\n' => closing = None,
                Some(quote) if c == quote => closing = None,
                Some(quote) => escaped = c == '\\' && matches!(quote, '"' | '\''),
                None => match c {
                    '"' | '\'' | '`' => closing = Some(c),
                    '#' => closing = Some('\n'),
                    '{' | '[' => within += 1,
                    '}' | ']' => within = within.saturating_sub(1),
                    _ => {}
                },
            }
            if visible && !matches!(c, '}' | ']') {
                text.push(c);
            } else {
                text.extend(std::iter::repeat_n(' ', c.len_utf8()));
            }
        }
        Self { text }
    }

    /// Whether anything in the expression tells good from bad.
    fn decides(&self) -> bool {
        self.text.contains(['<', '>', '='])
            || self.text.contains("!=")
            || self.words().any(|(word, _)| matches!(word, "and" | "unless" | "absent" | "absent_over_time" | "ALERTS"))
    }

    /// Whether labels are dropped by an aggregation and by nothing that would make this uncertain.
    fn drops_labels(&self) -> bool {
        self.words().any(|(word, _)| DROPPING.contains(&word))
            && !self
                .words()
                .any(|(word, _)| UNSURE.contains(&word) || matches!(word, "or" | "group_left" | "group_right"))
    }

    /// Functions and the metric that each is applied to directly: `rate(a[1m])`, where `a` stands.
    fn calls(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        let mut before: Option<(&str, usize)> = None;
        self.words().filter_map(move |(word, at)| {
            let (function, function_at) = before.replace((word, at))?;
            let between = self.text.get(function_at + function.len()..at)?;
            (between.trim() == "(").then_some((function, word, at))
        })
    }

    /// Names and keywords, with their offsets.
    fn words(&self) -> impl Iterator<Item = (&str, usize)> {
        let is_part = |c: char| c == '_' || c == ':' || c.is_ascii_alphanumeric();
        let mut at = 0;
        std::iter::from_fn(move || {
            at += self.text.get(at..)?.find(is_part)?;
            let rest = self.text.get(at..)?;
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let word = (rest.get(..length)?, at);
            at += length;
            Some(word)
        })
    }
}

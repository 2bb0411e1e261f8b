//! Runs tests of rules: what promtool's unit tests do, with our engine.

use std::fmt;
use std::sync::Arc;

use belfry_promql::{Labels, Limits, Value, evaluate_instant};
use serde::Serialize;

use super::Rehearsal;
use crate::alerts::{AlertView, External};
use crate::rules::{AlertCheck, ExpectedAlert, ExpressionCheck, Position, RuleSet, Suite, Test, duration};

/// What one check of a test came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) position: Position,
    /// The test's name, or its number.
    pub(crate) test: String,
    pub(crate) check: CheckKind,
    /// The alert, or the expression.
    pub(crate) subject: String,
    pub(crate) time_seconds: f64,
    pub(crate) passed: bool,
    /// What was to be found, and what was; nothing where the check passed.
    pub(crate) expected: Vec<String>,
    pub(crate) found: Vec<String>,
    /// What there is to say of the difference.
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckKind {
    Alert,
    Expression,
    /// That the rules can be evaluated: told only where they cannot.
    Rules,
}

impl Verdict {
    /// A check that passed.
    fn new(check: CheckKind, position: Position, test: &str, subject: &str, time_ms: i64) -> Self {
        let (test, subject, time_seconds) = (test.to_owned(), subject.to_owned(), seconds(time_ms));
        let (expected, found) = (Vec::new(), Vec::new());
        Self { position, test, check, subject, time_seconds, passed: true, expected, found, note: None }
    }

    fn failed(self, expected: Vec<String>, found: Vec<String>, note: Option<String>) -> Self {
        Self { passed: false, expected, found, note, ..self }
    }
}

/// Runs one test of a file, the number of which counts from 1.
pub(crate) fn run(suite: &Suite, (number, test): (usize, &Test), rules: &Arc<RuleSet>) -> Vec<Verdict> {
    let name = test.name.clone().unwrap_or_else(|| number.to_string());
    let external = External { labels: test.external_labels.clone(), url: test.external_url.clone() };
    let mut rehearsal = Rehearsal::new(Arc::clone(rules), external, test.series.clone(), test.start_ms);
    let mut verdicts = Vec::new();
    let interval_ms = suite.evaluation_interval_ms;
    for offset_ms in (0..=test.end_ms()).step_by(usize::try_from(interval_ms).unwrap_or(usize::MAX)) {
        if let Err(failures) = rehearsal.step(test.start_ms + offset_ms) {
            let verdict = Verdict::new(CheckKind::Rules, test.position, &name, "evaluation", offset_ms);
            verdicts.push(verdict.failed(Vec::new(), failures, Some("a rule cannot be evaluated".to_owned())));
            return verdicts;
        }
        let due = test.alerts.iter().filter(|check| (offset_ms..offset_ms + interval_ms).contains(&check.time_ms));
        verdicts.extend(due.map(|check| check_alert(check, &name, rules, &rehearsal)));
    }
    let expressions = test.expressions.iter();
    verdicts.extend(expressions.map(|check| check_expression(check, &name, test.start_ms, &rehearsal, suite.is_fuzzy)));
    verdicts
}

fn check_alert(check: &AlertCheck, test: &str, rules: &RuleSet, rehearsal: &Rehearsal) -> Verdict {
    let firing = rehearsal.firing(&check.name);
    let mut expected: Vec<ExpectedAlert> = check.expected.clone();
    let mut found: Vec<ExpectedAlert> = firing.iter().map(labels_and_annotations).collect();
    expected.sort();
    found.sort();
    let passed = expected == found;
    let note = match firing.iter().find(|alert| alert.no_data_since.is_some()) {
        Some(alert) if !passed => Some(format!(
            "{} lacks data, and stands because nothing contradicted it; Prometheus would end it: annotate the rule with \
             `belfry_no_data: ok`, or test with --prometheus",
            labels_of(alert).selector()
        )),
        _ => (!rules.iter().any(|(_, _, rule)| rule.name() == check.name)).then(|| "no rule has this name".to_owned()),
    };
    let show = |alerts: &[ExpectedAlert]| -> Vec<String> { alerts.iter().map(shown_alert).collect() };
    let verdict = Verdict::new(CheckKind::Alert, check.position, test, &check.name, check.time_ms);
    if passed { Verdict { note, ..verdict } } else { verdict.failed(show(&expected), show(&found), note) }
}

fn check_expression(
    check: &ExpressionCheck,
    test: &str,
    start_ms: i64,
    rehearsal: &Rehearsal,
    is_fuzzy: bool,
) -> Verdict {
    let mut expected = check.expected.clone();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let result = evaluate_instant(&check.plan, rehearsal.series(), start_ms + check.time_ms, &Limits::default());
    let (found, note) = match result.map(|output| output.value) {
        Ok(Value::Scalar(sample)) => (vec![(Labels::empty(), sample.value)], None),
        Ok(Value::Vector(rows)) => {
            let mut rows: Vec<_> = rows.into_iter().map(|(labels, sample)| (labels, sample.value)).collect();
            rows.sort_by(|a, b| a.0.cmp(&b.0));
            (rows, None)
        }
        Ok(_) => (Vec::new(), Some("the expression yields neither a vector nor a number".to_owned())),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let reads_alerts = check.plan.expression().contains("ALERTS");
    let is_same = |(a, b): (&(Labels, f64), &(Labels, f64))| a.0 == b.0 && is_equal(a.1, b.1, is_fuzzy);
    let passed = note.is_none() && expected.len() == found.len() && expected.iter().zip(&found).all(is_same);
    let note =
        note.or_else(|| (!passed && reads_alerts).then(|| "alerts are no series: there is no ALERTS".to_owned()));
    let show = |samples: &[(Labels, f64)]| -> Vec<String> { samples.iter().map(shown_sample).collect() };
    let subject = check.plan.expression().trim();
    let verdict = Verdict::new(CheckKind::Expression, check.position, test, subject, check.time_ms);
    if passed { verdict } else { verdict.failed(show(&expected), show(&found), note) }
}

/// Equal, or, if so wished, neighbours among the numbers there are.
#[expect(clippy::float_cmp, reason = "what is expected is written out")]
fn is_equal(a: f64, b: f64, is_fuzzy: bool) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (is_fuzzy && (a.next_up() == b || a.next_down() == b))
}

fn labels_and_annotations(alert: &AlertView) -> ExpectedAlert {
    (labels_of(alert), alert.annotations.clone())
}

fn labels_of(alert: &AlertView) -> Labels {
    Labels::from_pairs(alert.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

fn shown_alert((labels, annotations): &ExpectedAlert) -> String {
    let annotations = annotations.iter().map(|(name, value)| format!(" {name}={value:?}"));
    format!("{}{}", labels.selector(), annotations.collect::<String>())
}

fn shown_sample((labels, value): &(Labels, f64)) -> String {
    format!("{} {value}", labels.selector())
}

#[expect(clippy::cast_precision_loss, reason = "times of tests are far below 2^53 milliseconds")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

impl fmt::Display for Verdict {
    /// `test "down": alert "InstanceDown" at 10m`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.check {
            CheckKind::Alert => "alert",
            CheckKind::Expression => "expression",
            CheckKind::Rules => "rules",
        };
        #[expect(clippy::cast_possible_truncation, reason = "made of whole milliseconds")]
        let time_ms = (self.time_seconds * 1000.0).round() as i64;
        write!(f, "test {:?}: {what} {:?} at {}", self.test, self.subject, duration::show(time_ms))
    }
}

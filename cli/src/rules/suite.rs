//! Files of tests for rules, in the form of promtool's unit tests: from text to what can be run.
//!
//! Source of the format: "Unit testing for rules" of Prometheus' documentation. Instants are milliseconds from the
//! beginning of a test.

use std::collections::{BTreeMap, BTreeSet};

use belfry_promql::{Labels, Plan, STALE_NAN, Series, notation};

use super::checker::{Checker, Fields, Text};
use super::problem::Problem;
use super::yaml::{self, Node};
use super::{Position, limits};

/// A file of tests.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The files or patterns of files under test, as they are written.
    pub(crate) rule_files: Vec<(String, Position)>,
    pub(crate) evaluation_interval_ms: i64,
    /// The groups in the order in which they are to be evaluated; others go before them.
    pub(crate) group_order: Vec<String>,
    /// Whether values that differ by no more than rounding are equal.
    pub(crate) is_fuzzy: bool,
    pub(crate) tests: Vec<Test>,
}

/// One test: series, and what must come of them.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) name: Option<String>,
    pub(crate) position: Position,
    /// When it begins, in milliseconds since the Unix epoch.
    pub(crate) start_ms: i64,
    pub(crate) external_labels: Labels,
    pub(crate) external_url: String,
    /// At absolute times.
    pub(crate) series: Vec<Series>,
    pub(crate) alerts: Vec<AlertCheck>,
    pub(crate) expressions: Vec<ExpressionCheck>,
}

/// Which alerts of a rule must be firing.
#[derive(Debug)]
pub(crate) struct AlertCheck {
    pub(crate) position: Position,
    pub(crate) time_ms: i64,
    pub(crate) name: String,
    pub(crate) expected: Vec<ExpectedAlert>,
}

/// Labels, the rule's name among them, and annotations.
pub(crate) type ExpectedAlert = (Labels, BTreeMap<String, String>);

/// What an expression must yield.
#[derive(Debug)]
pub(crate) struct ExpressionCheck {
    pub(crate) position: Position,
    pub(crate) time_ms: i64,
    pub(crate) plan: Plan,
    pub(crate) expected: Vec<(Labels, f64)>,
}

impl Test {
    /// The last instant that anything is checked at.
    pub(crate) fn end_ms(&self) -> i64 {
        let times = self.alerts.iter().map(|check| check.time_ms);
        times.chain(self.expressions.iter().map(|check| check.time_ms)).max().unwrap_or_default()
    }
}

impl Suite {
    /// Reads a file of tests.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let mut checker = Checker::new(file, text);
        let suite = match yaml::parse(text) {
            Ok(Some(root)) => checker.suite(&root),
            Ok(None) => {
                let message = "the file has no tests".to_owned();
                checker.error(Position { line: 1, column: 1 }, message, "add `rule_files:` and `tests:`");
                None
            }
            Err(error) => {
                checker.error(error.position, error.message, error.help);
                None
            }
        };
        let problems = checker.finish();
        suite.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

const DEFAULT_INTERVAL_MS: i64 = 60_000;

impl Checker<'_> {
    fn suite(&mut self, root: &Node) -> Option<Suite> {
        const KEYS: [&str; 5] = ["rule_files", "evaluation_interval", "group_eval_order", "fuzzy_compare", "tests"];
        let fields = self.fields(root, "a file of tests", &KEYS)?;
        let interval = self.duration(fields.get("evaluation_interval"), "evaluation_interval");
        let evaluation_interval_ms = interval.filter(|&ms| ms > 0).unwrap_or(DEFAULT_INTERVAL_MS);
        let is_fuzzy = self.switch(&fields, "fuzzy_compare");
        let rule_files = self.texts(&fields, "rule_files");
        let group_order = self.texts(&fields, "group_eval_order");
        let mut seen = BTreeSet::new();
        for (name, position) in &group_order {
            if !seen.insert(name) {
                self.error(*position, format!("group {name:?} stands here twice"), "remove one");
            }
        }
        let items = self.items(fields.get("tests"), "tests");
        Some(Suite {
            rule_files,
            evaluation_interval_ms,
            group_order: group_order.into_iter().map(|(name, _)| name).collect(),
            is_fuzzy,
            tests: items.iter().filter_map(|node| self.test(node, evaluation_interval_ms)).collect(),
        })
    }

    fn test(&mut self, node: &Node, evaluation_interval_ms: i64) -> Option<Test> {
        const KEYS: [&str; 8] = [
            "name",
            "interval",
            "input_series",
            "alert_rule_test",
            "promql_expr_test",
            "external_labels",
            "external_url",
            "start_timestamp",
        ];
        let fields = self.fields(node, "a test", &KEYS)?;
        let interval = self.duration(fields.get("interval"), "interval");
        let interval_ms = interval.filter(|&ms| ms > 0).unwrap_or(evaluation_interval_ms);
        let start_ms = self.instant(&fields, "start_timestamp");
        let external = self.labels(fields.get("external_labels"), "label");
        let series = self.items(fields.get("input_series"), "input_series");
        let alerts = self.items(fields.get("alert_rule_test"), "alert_rule_test");
        let expressions = self.items(fields.get("promql_expr_test"), "promql_expr_test");
        let test = Test {
            name: self.text(fields.get("name"), "name").map(|(name, _)| name.to_owned()),
            position: node.position,
            start_ms,
            external_labels: Labels::from_pairs(external.iter().map(|label| (label.name, label.value.text))),
            external_url: self
                .text(fields.get("external_url"), "external_url")
                .map_or_else(String::new, |(url, _)| url.to_owned()),
            series: series.iter().filter_map(|node| self.series(node, start_ms, interval_ms)).collect(),
            alerts: alerts.iter().filter_map(|node| self.alert_check(node)).collect(),
            expressions: expressions.iter().filter_map(|node| self.expression_check(node)).collect(),
        };
        if test.end_ms() / evaluation_interval_ms > limits::TEST_EVALUATIONS_MAX {
            let message = format!("the test takes more than {} evaluations", limits::TEST_EVALUATIONS_MAX);
            self.error(node.position, message, "make `evaluation_interval` longer, or the times of the checks shorter");
        }
        Some(test)
    }

    fn series(&mut self, node: &Node, start_ms: i64, interval_ms: i64) -> Option<Series> {
        let fields = self.fields(node, "a series", &["series", "values"])?;
        let labels = self.notation(node, &fields, "series", notation::labels)?;
        let values = self.notation(node, &fields, "values", notation::values)?;
        if labels.metric_name().is_none() {
            self.error(node.position, "the series has no name".to_owned(), "write it like `up{job=\"node\"}`");
        }
        let times = (0..).map(|at: i64| start_ms.saturating_add(at.saturating_mul(interval_ms)));
        let samples =
            times.zip(values).filter_map(|(time_ms, value)| Some(belfry_promql::Sample { time_ms, value: value? }));
        Some(Series { labels, samples: samples.collect() })
    }

    fn alert_check(&mut self, node: &Node) -> Option<AlertCheck> {
        let fields = self.fields(node, "a test of alerts", &["eval_time", "alertname", "exp_alerts"])?;
        let time_ms = self.duration(fields.get("eval_time"), "eval_time").unwrap_or_default();
        let name = self.text(fields.get("alertname"), "alertname").filter(|(name, _)| !name.is_empty());
        let Some((name, _)) = name else {
            self.error(node.position, "the test does not name its alert".to_owned(), "add `alertname: …`");
            return None;
        };
        let expected = self.items(fields.get("exp_alerts"), "exp_alerts");
        let expected = expected.iter().filter_map(|node| self.expected_alert(node, name)).collect();
        Some(AlertCheck { position: node.position, time_ms, name: name.to_owned(), expected })
    }

    fn expected_alert(&mut self, node: &Node, name: &str) -> Option<ExpectedAlert> {
        let fields = self.fields(node, "an expected alert", &["exp_labels", "exp_annotations"])?;
        let labels = self.labels(fields.get("exp_labels"), "label");
        let annotations = self.labels(fields.get("exp_annotations"), "annotation");
        let labels = Labels::from_pairs(labels.iter().map(|label| (label.name, label.value.text)));
        let annotations = annotations.iter().map(|label| (label.name.to_owned(), label.value.text.to_owned()));
        Some((labels.with("alertname", name), annotations.collect()))
    }

    fn expression_check(&mut self, node: &Node) -> Option<ExpressionCheck> {
        let fields = self.fields(node, "a test of an expression", &["expr", "eval_time", "exp_samples"])?;
        let time_ms = self.duration(fields.get("eval_time"), "eval_time").unwrap_or_default();
        let (plan, text) = self.expression("the test", node, fields.get("expr"))?;
        let expected = self.items(fields.get("exp_samples"), "exp_samples");
        let expected = expected.iter().filter_map(|node| self.expected_sample(node)).collect();
        Some(ExpressionCheck { position: text.node.position, time_ms, plan, expected })
    }

    fn expected_sample(&mut self, node: &Node) -> Option<(Labels, f64)> {
        let fields = self.fields(node, "an expected sample", &["labels", "value", "histogram"])?;
        if let Some(node) = fields.get("histogram") {
            self.error(node.position, "native histograms are not supported".to_owned(), "expect a number");
        }
        let labels = match fields.get("labels") {
            Some(_) => self.notation(node, &fields, "labels", notation::labels)?,
            None => Labels::empty(),
        };
        let value = match fields.get("value") {
            Some(_) => {
                self.notation(node, &fields, "value", |text| match notation::values(in_notation(text))?[..] {
                    [Some(value)] if value.to_bits() != STALE_NAN.to_bits() => Ok(value),
                    _ => Err(notation::NotationError::Value { word: text.to_owned(), offset: 0 }),
                })?
            }
            None => 0.0,
        };
        Some((labels, value))
    }

    /// A field in the notation of series; what is wrong is told with its place in the text.
    fn notation<T>(
        &mut self,
        owner: &Node,
        fields: &Fields<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, notation::NotationError>,
    ) -> Option<T> {
        let Some((text, node)) = self.text(fields.get(key), key) else {
            self.error(owner.position, format!("`{key}` is missing"), "add it");
            return None;
        };
        match parse(text) {
            Ok(found) => Some(found),
            Err(error) => {
                let position = self.locate(Text { text, node }, error.offset());
                self.error(
                    position,
                    format!("`{key}`: {error}"),
                    "write series like `up{job=\"node\"}`, values like `0 1+1x10 _ stale`",
                );
                None
            }
        }
    }

    /// A list of texts and where they stand.
    fn texts(&mut self, fields: &Fields<'_>, key: &str) -> Vec<(String, Position)> {
        let items = self.items(fields.get(key), key);
        items
            .iter()
            .filter_map(|node| self.text(Some(node), key).map(|(text, node)| (text.to_owned(), node.position)))
            .collect()
    }

    fn switch(&mut self, fields: &Fields<'_>, key: &str) -> bool {
        let Some((text, node)) = self.text(fields.get(key), key) else { return false };
        if !matches!(text, "true" | "false") {
            self.error(node.position, format!("`{key}` is {text:?}"), "it must be true or false");
        }
        text == "true"
    }

    fn instant(&mut self, fields: &Fields<'_>, key: &str) -> i64 {
        let Some((text, node)) = self.text(fields.get(key), key) else { return 0 };
        crate::instant::parse(text).unwrap_or_else(|| {
            self.error(
                node.position,
                format!("`{key}` is {text:?}"),
                "write seconds since 1970, or a time such as 2026-01-31T12:00:00Z",
            );
            0
        })
    }
}

/// A number as YAML writes it, as the notation does: YAML has a point before what is no number or has no end.
fn in_notation(text: &str) -> &str {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => "Inf",
        "-.inf" | "-.Inf" | "-.INF" => "-Inf",
        ".nan" | ".NaN" | ".NAN" => "NaN",
        text => text,
    }
}

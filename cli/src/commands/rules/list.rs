//! `belfry rules list`

use std::{collections::BTreeMap, process::ExitCode};

use serde::Deserialize;

use crate::{
    api::Request,
    commands::{Global, with_client},
    render::{
        Look,
        listing::{self, Listed},
        machine::field,
        output::Output,
        style::Style,
        table::{Cell, Column, Fit, Table},
        units::age_of,
    },
};

pub(super) fn execute(global: &Global, output: &Output) -> anyhow::Result<ExitCode> {
    with_client(global, async |client| {
        listing::print::<RuleRow>(&client.text(&Request::Rules).await?, output)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// A rule as the collector lists it.
#[derive(Debug, Deserialize)]
pub(crate) struct RuleRow {
    file: String,
    group: String,
    pub(crate) rule: String,
    r#type: String,
    state: Option<String>,
    /// `unknown`, `ok` or `err`.
    pub(crate) health: String,
    pub(crate) last_error: Option<String>,
    warnings: Vec<String>,
    last_evaluation: Option<String>,
    evaluation_seconds: f64,
    evaluations: u64,
    evaluation_seconds_total: f64,
    alerts: u64,
    pub(crate) left_out: u64,
    expression: String,
    for_seconds: f64,
    keep_firing_for_seconds: f64,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    interval_seconds: Option<f64>,
    limit: Option<u64>,
}

const COLUMNS: &[Column] = &[
    Column::left("RULE", Fit::Flexible(20)),
    Column::left("STATE", Fit::Always),
    Column::right("ALERTS", Fit::Always),
    Column::left("HEALTH", Fit::Always),
    Column::right("EVALUATED", Fit::Droppable),
    Column::right("TOOK", Fit::Droppable),
    Column::left("GROUP", Fit::Droppable),
    Column::left("FILE", Fit::Droppable),
    Column::left("NOTE", Fit::Flexible(30)),
];

impl Listed for RuleRow {
    const CSV_NAMES: &'static [&'static str] = &[
        "file",
        "group",
        "rule",
        "type",
        "state",
        "health",
        "last_error",
        "warnings",
        "last_evaluation",
        "evaluation_seconds",
        "evaluations",
        "evaluation_seconds_total",
        "alerts",
        "left_out",
        "expression",
        "for_seconds",
        "keep_firing_for_seconds",
        "labels",
        "annotations",
        "interval_seconds",
        "limit",
    ];

    fn csv_row(&self) -> Vec<String> {
        vec![
            self.file.clone(),
            self.group.clone(),
            self.rule.clone(),
            self.r#type.clone(),
            field(self.state.as_ref()),
            self.health.clone(),
            field(self.last_error.as_ref()),
            self.warnings.join("; "),
            field(self.last_evaluation.as_ref()),
            self.evaluation_seconds.to_string(),
            self.evaluations.to_string(),
            self.evaluation_seconds_total.to_string(),
            self.alerts.to_string(),
            self.left_out.to_string(),
            self.expression.clone(),
            self.for_seconds.to_string(),
            self.keep_firing_for_seconds.to_string(),
            as_json(&self.labels),
            as_json(&self.annotations),
            field(self.interval_seconds),
            field(self.limit),
        ]
    }

    fn table(list: &[Self], look: &Look) -> String {
        if list.is_empty() {
            return "no rules are loaded\n".to_string();
        }
        let rows = list.iter().map(|rule| {
            let state = rule.state.as_deref().unwrap_or("recording");
            let (health, health_style) = match rule.health.as_str() {
                "err" => ("failing", Style::Bad),
                "ok" => ("ok", Style::Good),
                other => (other, Style::Dim),
            };
            let is_firing = matches!(state, "firing" | "recovering");
            vec![
                Cell::plain(&rule.rule),
                Cell::new(state, if is_firing { Style::Warning } else { Style::Plain }),
                if rule.state.is_some() { Cell::plain(&rule.alerts.to_string()) } else { Cell::default() },
                Cell::new(health, health_style),
                Cell::known(
                    rule.last_evaluation
                        .as_deref()
                        .and_then(|time| age_of(time, look.now))
                        .map(|age| format!("{age} ago")),
                ),
                Cell::plain(&format!("{:.1} ms", rule.evaluation_seconds * 1000.0)),
                Cell::plain(&rule.group),
                Cell::plain(&rule.file),
                Cell::new(&rule.note(), health_style),
            ]
        });
        Table { columns: COLUMNS, rows: rows.collect() }.render(look)
    }
}

/// Names and values in one field.
fn as_json(pairs: &BTreeMap<String, String>) -> String {
    serde_json::to_string(pairs).unwrap_or_default()
}

impl RuleRow {
    fn note(&self) -> String {
        let left_out =
            (self.left_out > 0).then(|| format!("{} alerts left out: over the limit of a rule", self.left_out));
        let notes: Vec<String> =
            self.last_error.iter().cloned().chain(left_out).chain(self.warnings.iter().cloned()).collect();
        notes.join("; ")
    }
}

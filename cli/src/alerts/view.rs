//! The alerts that stand and the rules as they fare, for lists.

use std::collections::BTreeMap;

use serde::Serialize;

use super::alert::State;
use super::engine::Engine;
use super::fingerprint::Fingerprint;
use super::json::{Number, Time};
use super::record::to_map;
use super::running::Running;
use crate::rules::{INSTANCE, Rule, RuleKind, Template};

/// An alert that stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AlertView {
    pub(crate) state: State,
    pub(crate) rule: String,
    pub(crate) group: String,
    pub(crate) severity: Option<String>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The value when the condition last held.
    pub(crate) value: Number,
    pub(crate) active_at: Time,
    pub(crate) fired_at: Option<Time>,
    /// Since when the condition does not hold, for an alert that is kept firing.
    pub(crate) keep_firing_since: Option<Time>,
    /// Since when there is no data that could confirm or contradict the condition.
    pub(crate) no_data_since: Option<Time>,
}

/// A rule and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RuleView {
    pub(crate) file: String,
    pub(crate) group: String,
    pub(crate) rule: String,
    #[serde(rename = "type")]
    pub(crate) kind: RuleType,
    /// The most urgent state of its alerts; nothing for a recording rule.
    pub(crate) state: Option<RuleState>,
    pub(crate) health: RuleHealth,
    pub(crate) last_error: Option<String>,
    /// Remarks of the query engine on the last evaluation.
    pub(crate) warnings: Vec<String>,
    pub(crate) last_evaluation: Option<Time>,
    pub(crate) evaluation_seconds: f64,
    /// How often it was evaluated since the rules were loaded, and how long that took in all.
    pub(crate) evaluations: u64,
    pub(crate) evaluation_seconds_total: f64,
    pub(crate) alerts: usize,
    /// Alerts that a limit left out since the rules were loaded.
    pub(crate) left_out: u64,
    pub(crate) expression: String,
    /// How long the condition must hold, and how long an alert stays after it; 0 for a recording rule.
    pub(crate) for_seconds: f64,
    pub(crate) keep_firing_for_seconds: f64,
    /// As they are written, templates among them.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// How often the group is evaluated by its file; nothing where data decides.
    pub(crate) interval_seconds: Option<f64>,
    /// Most alerts or series that each rule of the group may have.
    pub(crate) limit: Option<usize>,
    /// Its alerts that stand.
    #[serde(skip)]
    pub(crate) standing: Vec<AlertView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuleType {
    Alerting,
    Recording,
}

/// States in order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuleState {
    Inactive,
    Pending,
    Recovering,
    Firing,
}

/// Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuleHealth {
    /// Not evaluated yet.
    Unknown,
    Ok,
    Err,
}

impl Engine {
    /// The rules that could not be evaluated when they last were, and why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter_map(|(_, rule, running)| Some((rule.name(), &*running.health.failure.as_ref()?.message)))
    }

    /// All alerts that stand, in the order of the rules.
    pub(crate) fn alerts(&self) -> Vec<AlertView> {
        self.iter().flat_map(|(_, rule, running)| alerts_of(rule, running)).collect()
    }

    /// The node and state of each alert that is about one.
    pub(crate) fn states_of_nodes(&self) -> impl Iterator<Item = (&str, State)> {
        let alerts = self.iter().flat_map(|(_, _, running)| running.standing.iter());
        alerts.filter_map(|(_, alert)| Some((alert.labels.get(INSTANCE)?, alert.state)))
    }

    /// All rules, in the order of their files.
    pub(crate) fn rule_views(&self) -> Vec<RuleView> {
        self.iter()
            .map(|(group, rule, running)| {
                let health = &running.health;
                let last_error = health.failure.as_ref().map(|failure| failure.message.clone());
                let is_alert = matches!(rule.kind, RuleKind::Alert(_));
                let (for_seconds, keep_firing_for_seconds) = match &rule.kind {
                    RuleKind::Alert(alert) => (seconds(alert.for_ms), seconds(alert.keep_firing_for_ms)),
                    RuleKind::Record(_) => (0.0, 0.0),
                };
                let (labels, annotations) = match &rule.kind {
                    RuleKind::Alert(alert) => (sources(&alert.labels), sources(&alert.annotations)),
                    RuleKind::Record(record) => (record.labels.iter().cloned().collect(), BTreeMap::new()),
                };
                let states = running.standing.iter().map(|(_, alert)| alert.state.into());
                RuleView {
                    file: group.file.to_string(),
                    group: group.name.clone(),
                    rule: rule.name().to_owned(),
                    kind: if is_alert { RuleType::Alerting } else { RuleType::Recording },
                    state: is_alert.then(|| states.max().unwrap_or(RuleState::Inactive)),
                    health: match (health.evaluated_at_ms, &last_error) {
                        (None, _) => RuleHealth::Unknown,
                        (Some(_), None) => RuleHealth::Ok,
                        (Some(_), Some(_)) => RuleHealth::Err,
                    },
                    last_error,
                    warnings: health.remarks.clone(),
                    last_evaluation: health.evaluated_at_ms.map(Time),
                    evaluation_seconds: health.took.as_secs_f64(),
                    evaluations: health.evaluations,
                    evaluation_seconds_total: health.took_in_all.as_secs_f64(),
                    alerts: running.standing.len(),
                    left_out: health.left_out,
                    expression: rule.plan.expression().to_owned(),
                    interval_seconds: group.interval_ms.map(seconds),
                    limit: group.limit,
                    standing: alerts_of(rule, running).collect(),
                    for_seconds,
                    keep_firing_for_seconds,
                    labels,
                    annotations,
                }
            })
            .collect()
    }
}

fn alerts_of<'a>(rule: &'a Rule, running: &'a Running) -> impl Iterator<Item = AlertView> + 'a {
    running.standing.iter().map(|(id, alert)| AlertView {
        state: alert.state,
        rule: rule.name().to_owned(),
        group: rule.key.group.clone(),
        severity: alert.labels.get("severity").map(str::to_owned),
        fingerprint: *id,
        labels: to_map(&alert.labels),
        annotations: alert.annotations.clone(),
        value: Number(alert.value),
        active_at: Time(alert.active_at_ms),
        fired_at: alert.fired_at_ms.map(Time),
        keep_firing_since: alert.recovering_since_ms.map(Time),
        no_data_since: alert.no_data_since_ms.map(Time),
    })
}

fn sources(templates: &[(String, Template)]) -> BTreeMap<String, String> {
    templates.iter().map(|(name, template)| (name.clone(), template.source().to_owned())).collect()
}

#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 milliseconds")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

impl From<State> for RuleState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Firing => Self::Firing,
            State::Recovering => Self::Recovering,
        }
    }
}

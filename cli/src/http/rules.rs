//! `rules` and `alerts`: what the collector evaluates and what stands, as Prometheus tells it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use axum::extract::State;
use belfry_promql::{Labels, Matcher};
use serde::Serialize;

use super::{
    App,
    envelope::{ApiError, Data},
    number::number,
    parameters::{Parameters, invalid},
    series::Selectors,
};
use crate::{
    alerts::{AlertView, RuleHealth, RuleState, RuleType, RuleView, Time},
    queries::TIMEOUT_MAX,
};

#[derive(Debug, Serialize)]
pub(super) struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    file: String,
    rules: Vec<Rule>,
    /// Seconds; 0 where data decides when the group is evaluated.
    interval: f64,
    limit: usize,
    evaluation_time: f64,
    last_evaluation: Option<Time>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    name: String,
    query: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_for: Option<f64>,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<Vec<Alert>>,
    health: RuleHealth,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    evaluation_time: f64,
    last_evaluation: Option<Time>,
    r#type: RuleType,
}

#[derive(Debug, Serialize)]
pub(super) struct Alerts {
    alerts: Vec<Alert>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// `pending` or `firing`: who is kept firing fires.
    state: &'static str,
    active_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_since: Option<Time>,
    value: String,
}

/// Which rules are asked for.
struct Wanted {
    kind: Option<RuleType>,
    names: HashSet<String>,
    groups: HashSet<String>,
    files: HashSet<String>,
    selectors: Vec<Arc<[Matcher]>>,
    with_alerts: bool,
}

impl Wanted {
    async fn of(app: &App, parameters: &Parameters) -> Result<Self, ApiError> {
        let kind = match parameters.first("type") {
            None => None,
            Some("alert") => Some(RuleType::Alerting),
            Some("record") => Some(RuleType::Recording),
            Some(other) => return Err(invalid("type", &format!("not supported value {other:?}"))),
        };
        let selectors = Selectors::of(parameters)?;
        let selectors = app.services.queries.read(TIMEOUT_MAX, move |_, _| selectors.parsed()).await??;
        let set = |name: &str| parameters.all(name).map(str::to_owned).collect();
        Ok(Self {
            kind,
            names: set("rule_name[]"),
            groups: set("rule_group[]"),
            files: set("file[]"),
            selectors,
            with_alerts: !parameters.is_on("exclude_alerts")?,
        })
    }

    fn wants(&self, rule: &RuleView) -> bool {
        let named = |wanted: &HashSet<String>, name: &str| wanted.is_empty() || wanted.contains(name);
        let labels: Labels = rule.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let matches =
            |matchers: &Arc<[Matcher]>| matchers.iter().all(|matcher| matcher.matches(labels.value(matcher.name())));
        self.kind.is_none_or(|kind| kind == rule.kind)
            && named(&self.names, &rule.rule)
            && named(&self.groups, &rule.group)
            && named(&self.files, &rule.file)
            && (self.selectors.is_empty() || self.selectors.iter().any(matches))
    }
}

/// `rules`: groups with their rules, and with the alerts of these.
pub(super) async fn rules(State(app): State<App>, parameters: Parameters) -> Result<Data<Groups>, ApiError> {
    let wanted = Wanted::of(&app, &parameters).await?;
    let mut groups: Vec<Group> = Vec::new();
    for rule in app.services.alerting.rules().await {
        if !wanted.wants(&rule) {
            continue;
        }
        let is_same = |group: &&mut Group| group.name == rule.group && group.file == rule.file;
        match groups.last_mut().filter(is_same) {
            Some(group) => group.add(rule, wanted.with_alerts),
            None => {
                let mut group = Group::of(&rule);
                group.add(rule, wanted.with_alerts);
                groups.push(group);
            }
        }
    }
    Ok(Data::new(Groups { groups }))
}

/// `alerts`: those that stand.
pub(super) async fn alerts(State(app): State<App>) -> Data<Alerts> {
    let alerts = app.services.alerting.alerts().await;
    Data::new(Alerts { alerts: alerts.into_iter().map(Alert::of).collect() })
}

impl Group {
    fn of(rule: &RuleView) -> Self {
        Self {
            name: rule.group.clone(),
            file: rule.file.clone(),
            rules: Vec::new(),
            interval: rule.interval_seconds.unwrap_or_default(),
            limit: rule.limit.unwrap_or_default(),
            evaluation_time: 0.0,
            last_evaluation: None,
        }
    }

    fn add(&mut self, rule: RuleView, with_alerts: bool) {
        self.evaluation_time += rule.evaluation_seconds;
        self.last_evaluation = self.last_evaluation.max(rule.last_evaluation);
        self.rules.push(Rule::of(rule, with_alerts));
    }
}

impl Rule {
    fn of(rule: RuleView, with_alerts: bool) -> Self {
        let is_alerting = rule.kind == RuleType::Alerting;
        let alerts = || rule.standing.into_iter().map(Alert::of).collect();
        Self {
            state: rule.state.map(|state| match state {
                RuleState::Inactive => "inactive",
                RuleState::Pending => "pending",
                RuleState::Firing | RuleState::Recovering => "firing",
            }),
            name: rule.rule,
            query: rule.expression,
            duration: is_alerting.then_some(rule.for_seconds),
            keep_firing_for: is_alerting.then_some(rule.keep_firing_for_seconds),
            labels: rule.labels,
            annotations: is_alerting.then_some(rule.annotations),
            alerts: (is_alerting && with_alerts).then(alerts),
            health: rule.health,
            last_error: rule.last_error,
            evaluation_time: rule.evaluation_seconds,
            last_evaluation: rule.last_evaluation,
            r#type: rule.kind,
        }
    }
}

impl Alert {
    fn of(alert: AlertView) -> Self {
        let mut value = String::new();
        number(&mut value, alert.value.0);
        let state = match RuleState::from(alert.state) {
            RuleState::Pending => "pending",
            _ => "firing",
        };
        Self {
            labels: alert.labels,
            annotations: alert.annotations,
            state,
            active_at: alert.active_at,
            keep_firing_since: alert.keep_firing_since,
            value,
        }
    }
}

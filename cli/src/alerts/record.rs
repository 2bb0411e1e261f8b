//! The state of an alert as plain data: what is written down with every change and read back on a restart.

use std::collections::BTreeMap;
use std::fmt;

use belfry_promql::Labels;
use serde::{Deserialize, Serialize};

use super::alert::{Alert, State};
use super::fingerprint::Fingerprint;
use super::json::Number;
use crate::rules::RuleKey;

/// What tells an alert from every other: its rule and its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct AlertId {
    pub(crate) rule: Fingerprint,
    pub(crate) alert: Fingerprint,
}

impl fmt::Display for AlertId {
    /// 33 characters, fit for the key of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.rule, self.alert)
    }
}

/// An alert that stands. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AlertRecord {
    pub(crate) rule: RuleKey,
    pub(crate) labels: BTreeMap<String, String>,
    /// Labels of the series in the rule's result.
    pub(crate) series: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) value: Number,
    pub(crate) state: State,
    pub(crate) active_at_ms: i64,
    pub(crate) fired_at_ms: Option<i64>,
    pub(crate) recovering_since_ms: Option<i64>,
    pub(crate) no_data_since_ms: Option<i64>,
    pub(crate) give_up_at_ms: Option<i64>,
    pub(crate) unseen_ms: i64,
    pub(crate) held_at_ms: i64,
    pub(crate) looked_at_ms: Option<i64>,
}

impl AlertRecord {
    pub(super) fn new(rule: &RuleKey, alert: &Alert) -> Self {
        Self {
            rule: rule.clone(),
            labels: to_map(&alert.labels),
            series: to_map(&alert.series),
            annotations: alert.annotations.clone(),
            value: Number(alert.value),
            state: alert.state,
            active_at_ms: alert.active_at_ms,
            fired_at_ms: alert.fired_at_ms,
            recovering_since_ms: alert.recovering_since_ms,
            no_data_since_ms: alert.no_data_since_ms,
            give_up_at_ms: alert.give_up_at_ms,
            unseen_ms: alert.unseen_ms,
            held_at_ms: alert.held_at_ms,
            looked_at_ms: alert.looked_at_ms,
        }
    }

    /// The key to keep the record under.
    pub(crate) fn id(&self) -> AlertId {
        let labels: Labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        AlertId { rule: Fingerprint::of_rule(&self.rule), alert: Fingerprint::of(&labels) }
    }

    pub(super) fn into_alert(self) -> (RuleKey, Alert) {
        let alert = Alert {
            labels: self.labels.into_iter().collect(),
            series: self.series.into_iter().collect(),
            annotations: self.annotations,
            value: self.value.0,
            state: self.state,
            active_at_ms: self.active_at_ms,
            fired_at_ms: self.fired_at_ms,
            recovering_since_ms: self.recovering_since_ms,
            no_data_since_ms: self.no_data_since_ms,
            give_up_at_ms: self.give_up_at_ms,
            unseen_ms: self.unseen_ms,
            held_at_ms: self.held_at_ms,
            looked_at_ms: self.looked_at_ms,
        };
        (self.rule, alert)
    }
}

pub(super) fn to_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

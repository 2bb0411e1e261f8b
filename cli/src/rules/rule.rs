//! Rules that were checked: what a rule file says, as types that cannot be wrong.

use std::fmt;
use std::sync::Arc;

use belfry_promql::{METRIC_NAME, Plan};
use serde::{Deserialize, Serialize};

use super::{Position, Template};

/// A group of rules: what they have in common.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// The file, as it was named when loading.
    pub(crate) file: Arc<str>,
    /// How often its rules are evaluated whatever arrives; nothing where the file does not say.
    pub(crate) interval_ms: Option<i64>,
    /// Most alerts, or recorded series, of each rule.
    pub(crate) limit: Option<usize>,
    /// How far before the time of evaluation expressions are evaluated.
    pub(crate) query_offset_ms: i64,
    pub(crate) rules: Vec<Rule>,
}

/// An alerting or recording rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// What tells this rule from every other, across restarts and reloads.
    pub(crate) key: RuleKey,
    pub(crate) position: Position,
    pub(crate) plan: Plan,
    pub(crate) kind: RuleKind,
}

/// What a rule does with the result of its expression.
#[derive(Debug, Clone)]
pub(crate) enum RuleKind {
    Alert(AlertRule),
    Record(RecordRule),
}

/// An alert for each series of the result.
#[derive(Debug, Clone)]
pub(crate) struct AlertRule {
    /// How long the condition must hold before the alert fires.
    pub(crate) for_ms: i64,
    /// How long the alert goes on firing after the condition ceased.
    pub(crate) keep_firing_for_ms: i64,
    /// Labels the alert gets beside those of the series, those of the group included.
    pub(crate) labels: Vec<(String, Template)>,
    pub(crate) annotations: Vec<(String, Template)>,
    pub(crate) no_data: NoData,
}

/// A sample for each series of the result.
#[derive(Debug, Clone)]
pub(crate) struct RecordRule {
    /// Labels set on each sample, those of the group included.
    pub(crate) labels: Vec<(String, String)>,
}

/// What becomes of an alert when the series it is about ends without having contradicted it.
///
/// Prometheus' format has no field for it: the annotation [`NoData::ANNOTATION`] chooses. It is an instruction, and is
/// not among the annotations of the alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum NoData {
    /// The alert keeps its state: a device that vanished did not recover.
    #[default]
    Keep,
    /// The end of the series is the end of the condition, as in Prometheus: right for series whose mere presence is
    /// the message, such as those of jobs.
    Ok,
}

impl NoData {
    pub(crate) const ANNOTATION: &str = "belfry_no_data";
}

/// What tells a rule from every other. Its expression and durations are not part of it: an alert outlives a change
/// of these, and of the file that the rule stands in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct RuleKey {
    pub(crate) group: String,
    pub(crate) name: String,
    /// The rule's own labels as the file has them (not yet expanded), in order of their names, one `name=value` a line.
    pub(crate) labels: String,
    /// Tells apart rules that agree in all of that, in the order of the files.
    pub(crate) ordinal: u32,
}

impl fmt::Display for RuleKey {
    /// `group/name`, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.name)
    }
}

/// Which metrics an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Only these.
    Named(Vec<String>),
    /// Perhaps any: a selector does not name its metric.
    Everything,
}

impl Rule {
    pub(crate) fn name(&self) -> &str {
        &self.key.name
    }

    /// The metrics that the expression reads, each once.
    pub(crate) fn reads(&self) -> Reads {
        let mut names: Vec<String> = Vec::new();
        for selector in self.plan.selectors() {
            let on_name = selector.matchers.iter().filter(|matcher| matcher.name() == METRIC_NAME);
            let Some(possible) = on_name.filter_map(|matcher| matcher.possible_values()).next() else {
                return Reads::Everything;
            };
            names.extend(possible.into_iter().map(str::to_owned));
        }
        names.sort_unstable();
        names.dedup();
        Reads::Named(names)
    }

    /// Whether the rule can be evaluated for each node separately.
    pub(crate) fn is_separable(&self) -> bool {
        self.plan.is_separable_by(INSTANCE)
    }
}

/// The label that names the node a series is of.
pub(crate) const INSTANCE: &str = "instance";

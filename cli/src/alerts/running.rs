//! A rule at work: when it is due, what its last evaluation came to, and its alerts.

use std::collections::HashSet;
use std::time::Duration;

use belfry_promql::{Annotation, Labels, STALE_NAN, Sample};

use super::Options;
use super::standing::Standing;
use crate::rules::{Group, Reads, Rule, RuleError, RuleKind};

/// The state of one rule between two evaluations.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) is_separable: bool,
    /// Whether the result for a node is the same while what is read of the node is.
    is_steady: bool,
    interval_ms: i64,
    /// When the rule is to be evaluated over everything whatever arrives.
    next_ms: i64,
    /// Whether data arrived that the rule reads and that is not evaluated for its node alone.
    is_touched: bool,
    evaluated_at_ms: Option<i64>,
    pub(super) standing: Standing,
    /// The series of the last result of a recording rule.
    recorded: HashSet<Labels>,
    pub(super) health: Health,
}

/// How a rule fares.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) failure: Option<Failure>,
    pub(super) evaluated_at_ms: Option<i64>,
    pub(super) took: Duration,
    pub(super) took_in_all: Duration,
    pub(super) evaluations: u64,
    pub(super) failures: u64,
    /// Alerts that were left out because of a limit, in all.
    pub(super) left_out: u64,
    /// Remarks of the query engine on the last evaluation.
    pub(super) remarks: Vec<String>,
}

/// What failed, and for which nodes: a success for others does not mend it.
#[derive(Debug)]
pub(super) struct Failure {
    nodes: Option<Vec<String>>,
    pub(super) message: String,
}

impl Running {
    pub(super) fn new(group: &Group, rule: &Rule, options: &Options, first_ms: i64) -> Self {
        let is_record = matches!(rule.kind, RuleKind::Record(_));
        let waits_for_time = is_record || rule.plan.depends_on_clock();
        let default_ms = if waits_for_time { options.interval_ms } else { options.idle_interval_ms };
        Self {
            is_separable: rule.is_separable(),
            is_steady: rule.is_separable()
                && !waits_for_time
                && group.query_offset_ms == 0
                && reads_only_ticks(rule, options),
            interval_ms: group.interval_ms.unwrap_or(default_ms),
            next_ms: first_ms,
            is_touched: false,
            evaluated_at_ms: None,
            standing: Standing::default(),
            recorded: HashSet::new(),
            health: Health::default(),
        }
    }

    /// Whether nothing stands for a node, and nothing can begin before something that is read of it changes.
    pub(super) fn is_idle_on(&self, node: &str) -> bool {
        self.is_steady && self.health.failure.is_none() && !self.standing.is_on(node)
    }

    /// Data arrived that this rule reads.
    pub(super) fn touch(&mut self) {
        self.is_touched = true;
    }

    /// When the rule is to be evaluated over everything.
    pub(super) fn due_ms(&self, coalesce_ms: i64) -> i64 {
        if !self.is_touched {
            return self.next_ms;
        }
        let earliest = self.evaluated_at_ms.map_or(i64::MIN, |at| at.saturating_add(coalesce_ms));
        self.next_ms.min(earliest)
    }

    /// The rule is evaluated over everything now.
    pub(super) fn begin(&mut self, now_ms: i64) {
        self.is_touched = false;
        self.evaluated_at_ms = Some(now_ms);
        self.next_ms = now_ms.saturating_add(self.interval_ms);
    }

    /// Keeps what an evaluation came to.
    pub(super) fn finish(&mut self, nodes: Option<&[&str]>, error: Option<&RuleError>, now_ms: i64, took: Duration) {
        let health = &mut self.health;
        health.evaluations += 1;
        health.evaluated_at_ms = Some(now_ms);
        health.took = took;
        health.took_in_all += took;
        if let Some(error) = error {
            health.failures += 1;
            let nodes = nodes.map(|nodes| nodes.iter().map(|&node| node.to_owned()).collect());
            health.failure = Some(Failure { nodes, message: chain(error) });
        } else if health.failure.as_ref().is_some_and(|failure| failure.is_mended_by(nodes)) {
            health.failure = None;
        }
    }

    pub(super) fn remark(&mut self, annotations: &[Annotation]) {
        let remarks = annotations.iter().take(super::limits::REMARKS_MAX).map(ToString::to_string);
        self.health.remarks = remarks.collect();
    }

    /// The samples of a recording rule together with stale markers for what its last result had and this one lacks.
    pub(super) fn record(&mut self, mut samples: Vec<(Labels, Sample)>, time_ms: i64) -> Vec<(Labels, Sample)> {
        let present: HashSet<Labels> = samples.iter().map(|(labels, _)| labels.clone()).collect();
        let ended = self.recorded.difference(&present).cloned();
        samples.extend(ended.map(|labels| (labels, Sample { time_ms, value: STALE_NAN })));
        self.recorded = present;
        samples
    }
}

fn reads_only_ticks(rule: &Rule, options: &Options) -> bool {
    match rule.reads() {
        Reads::Named(names) => !names.iter().any(|name| (options.is_made_when_read)(name)),
        Reads::Everything => false,
    }
}

impl Failure {
    fn is_mended_by(&self, nodes: Option<&[&str]>) -> bool {
        match (&self.nodes, nodes) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(failed), Some(nodes)) => failed.iter().all(|node| nodes.contains(&node.as_str())),
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

//! The engine: rules and alerts, driven by ticks and by time.
//!
//! - [`Engine::on_tick`] when data of a node arrived: rules that can be evaluated for the node alone are, at once;
//!   the others are marked.
//! - [`Engine::on_time`] when [`Engine::next_deadline_ms`] has come: marked rules, intervals, and deadlines of
//!   alerts. Here rules go in the order of their groups, so that a rule sees what the rules above it just recorded.
//!
//! Both are complete when they return. What must be written down and told is in the [`Outcome`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use belfry_promql::{Labels, Sample, SeriesReader};

use super::alert::When;
use super::context::ReadBy;
use super::event::Reason;
use super::no_data::{self, View};
use super::record::AlertRecord;
use super::running::Running;
use super::standing::{Scope, Subject};
use super::transition::{Outcome, Transition, ended};
use super::{Context, Interest, Options, Tick, limits};
use crate::rules::{
    AlertRule, Group, OnNodes, RecordRule, Recorded, Rule, RuleError, RuleId, RuleKey, RuleKind, RuleSet, WithRecorded,
    evaluate, record,
};

/// How long the first evaluations after a start are spread over.
const SPREAD_MS: i64 = 15_000;

/// Rules and the alerts that stand.
#[derive(Debug)]
pub(crate) struct Engine {
    rules: Arc<RuleSet>,
    /// One for each rule, in the same order.
    running: Vec<Running>,
    options: Options,
    /// How many alerts stand.
    standing: usize,
    /// Counts the changes of `rules`.
    generation: u64,
}

impl Engine {
    pub(crate) fn new(rules: Arc<RuleSet>, options: Options, now_ms: i64) -> Self {
        let running = start(&rules, &options, now_ms);
        Self { rules, running, options, standing: 0, generation: 0 }
    }

    /// The rules that read any of these metrics, each given with all its names: what a tick is told with.
    pub(crate) fn interest<'a>(&self, metrics: impl IntoIterator<Item: IntoIterator<Item = &'a str>>) -> Interest {
        let mut read_by: BTreeMap<RuleId, Vec<usize>> = BTreeMap::new();
        for (run, names) in metrics.into_iter().enumerate() {
            for rule in self.rules.readers_of(names) {
                read_by.entry(rule).or_default().push(run);
            }
        }
        let rules = read_by.into_iter().map(|(rule, runs)| ReadBy { rule, runs: runs.into() });
        Interest { generation: self.generation, rules: rules.collect() }
    }

    /// Whether an interest was found with the rules in force. One that was not is taken for an interest in everything.
    pub(crate) fn is_current(&self, interest: &Interest) -> bool {
        interest.generation == self.generation
    }

    /// Data of a node arrived and can be read.
    pub(crate) fn on_tick(&mut self, tick: &Tick<'_>, context: &Context<'_>) -> Outcome {
        let ids = self.to_evaluate(tick);
        let mut outcome = Outcome::default();
        let rules = Arc::clone(&self.rules);
        let reader = OnNodes::one(context.reader, tick.node);
        let on_node = Context { reader: &reader, ..*context };
        for id in ids {
            let Some((group, rule)) = rules.get(id) else { continue };
            let Some(running) = self.running.get_mut(id.0) else { continue };
            match &rule.kind {
                RuleKind::Record(_) => {}
                RuleKind::Alert(alert) if running.is_separable => {
                    let work = Work { id, group, rule, time_ms: tick.time_ms, is_tick: true };
                    outcome.transitions.extend(self.alert(&work, alert, Scope::Nodes(&[tick.node]), &on_node));
                }
                RuleKind::Alert(_) => running.touch(),
            }
        }
        outcome
    }

    /// Data of many nodes arrived at once, such as the collector's own about each of them. The rules that read it
    /// are evaluated over everything when [`Engine::on_time`] is called next, rather than for each node.
    pub(crate) fn touch(&mut self, interest: &Interest) {
        for id in self.of_interest(interest) {
            self.running.get_mut(id.0).into_iter().for_each(Running::touch);
        }
    }

    /// Does what has become due.
    pub(crate) fn on_time(&mut self, context: &Context<'_>) -> Outcome {
        let rules = Arc::clone(&self.rules);
        let mut outcome = Outcome::default();
        let mut recorded = Recorded::default();
        for (id, group, rule) in rules.iter() {
            let Some(running) = self.running.get_mut(id.0) else { continue };
            let is_due = running.due_ms(self.options.coalesce_ms) <= context.now_ms;
            let has_deadline = running.standing.deadline_ms().is_some_and(|at| at <= context.now_ms);
            if !is_due && !has_deadline {
                continue;
            }
            let work = Work { id, group, rule, time_ms: context.now_ms, is_tick: false };
            let with_recorded = WithRecorded { reader: context.reader, recorded: &recorded };
            let context = Context { reader: &with_recorded, ..*context };
            match &rule.kind {
                RuleKind::Alert(alert) if is_due => {
                    running.begin(context.now_ms);
                    outcome.transitions.extend(self.alert(&work, alert, Scope::Everything, &context));
                }
                RuleKind::Alert(alert) => outcome.transitions.extend(self.deadlines(&work, alert, &context)),
                RuleKind::Record(record) => {
                    running.begin(context.now_ms);
                    let samples = self.record(&work, record, &context);
                    self.touch_readers(rule.name());
                    recorded.add(rule.name(), &samples);
                    outcome.samples.extend(samples);
                }
            }
        }
        outcome
    }

    /// When [`Engine::on_time`] has something to do. Ticks may make it earlier.
    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        let due = |running: &Running| {
            let due_ms = running.due_ms(self.options.coalesce_ms);
            running.standing.deadline_ms().map_or(due_ms, |at| at.min(due_ms))
        };
        self.running.iter().map(due).min()
    }

    /// Puts alerts back that stood when the collector ended, into an engine that has just been made.
    ///
    /// `down_since_ms` is when the collector was last known to be at work, such as the time of the newest sample: what
    /// happened since is evidence of nothing, and does not count towards any duration. Alerts of rules that are
    /// gone resolve.
    pub(crate) fn restore(&mut self, records: Vec<AlertRecord>, down_since_ms: Option<i64>, now_ms: i64) -> Outcome {
        let rules = Arc::clone(&self.rules);
        let by_key: HashMap<&RuleKey, (RuleId, &AlertRule)> = rules
            .iter()
            .filter_map(|(id, _, rule)| match &rule.kind {
                RuleKind::Alert(alert) => Some((&rule.key, (id, alert))),
                RuleKind::Record(_) => None,
            })
            .collect();
        let mut outcome = Outcome::default();
        for record in records {
            let (key, mut alert) = record.into_alert();
            let found = by_key.get(&key).and_then(|(id, rule)| Some((self.running.get_mut(id.0)?, *rule)));
            let Some((running, rule)) = found else {
                outcome.transitions.extend(ended(&key, &alert, Reason::RuleRemoved, now_ms));
                continue;
            };
            if let Some(down_since_ms) = down_since_ms {
                alert.was_unwatched(down_since_ms, now_ms);
            }
            running.standing.restore(alert, rule);
        }
        self.count();
        outcome
    }

    /// All alerts that stand, as [`Engine::restore`] takes them.
    pub(crate) fn export(&self) -> Vec<AlertRecord> {
        let rules = self.rules.iter().zip(&self.running);
        rules
            .flat_map(|((_, _, rule), running)| {
                running.standing.iter().map(|(_, alert)| AlertRecord::new(&rule.key, alert))
            })
            .collect()
    }

    /// Puts other rules in force. Alerts of rules that stay keep their state; the others resolve.
    pub(crate) fn reload(&mut self, rules: Arc<RuleSet>, now_ms: i64) -> Outcome {
        let records = self.export();
        self.running = start(&rules, &self.options, now_ms);
        self.rules = rules;
        self.generation += 1;
        self.restore(records, None, now_ms)
    }

    /// Ends all alerts of a node that is no more.
    pub(crate) fn forget_node(&mut self, node: &str, now_ms: i64) -> Outcome {
        let rules = Arc::clone(&self.rules);
        let external = &self.options.external;
        let mut outcome = Outcome::default();
        for ((_, _, rule), running) in rules.iter().zip(&mut self.running) {
            if let RuleKind::Alert(alert) = &rule.kind {
                let subject = Subject { key: &rule.key, rule: alert, external };
                outcome.transitions.extend(running.standing.forget(node, subject, now_ms));
            }
        }
        self.count();
        outcome
    }

    /// Every rule with its state.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Group, &Rule, &Running)> {
        self.rules.iter().zip(&self.running).map(|((_, group, rule), running)| (group, rule, running))
    }

    /// Evaluates a rule for the nodes whose alerts have a deadline, or for all where that is not possible.
    fn deadlines(&mut self, work: &Work<'_>, alert: &AlertRule, context: &Context<'_>) -> Vec<Transition> {
        let Some(running) = self.running.get_mut(work.id.0) else { return Vec::new() };
        let due = || running.standing.due(context.now_ms);
        let nodes: BTreeSet<String> = due().filter_map(|alert| alert.node().map(str::to_owned)).collect();
        let is_local =
            running.is_separable && nodes.len() <= limits::SCOPE_NODES_MAX && due().all(|alert| alert.node().is_some());
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let restricted = is_local.then(|| OnNodes::some(context.reader, &nodes));
        let transitions = match &restricted {
            Some(reader) => self.alert(work, alert, Scope::Nodes(&nodes), &Context { reader, ..*context }),
            None => {
                running.begin(context.now_ms);
                self.alert(work, alert, Scope::Everything, context)
            }
        };
        if let Some(running) = self.running.get_mut(work.id.0) {
            running.standing.put_off(context.now_ms, context.now_ms + limits::RETRY_MS);
        }
        transitions
    }

    /// Evaluates an alerting rule. The reader shows what is in scope.
    fn alert(
        &mut self,
        work: &Work<'_>,
        alert: &AlertRule,
        scope: Scope<'_>,
        context: &Context<'_>,
    ) -> Vec<Transition> {
        let standing = |engine: &Self| engine.running.get(work.id.0).map_or(0, |running| running.standing.len());
        let (started, before) = ((context.stopwatch)(), standing(self));
        let mut transitions = Vec::new();
        let result = self.try_alert(work, alert, scope, context, &mut transitions);
        let took = (context.stopwatch)().saturating_sub(started);
        self.standing = self.standing.saturating_sub(before) + standing(self);
        let nodes = match scope {
            Scope::Everything => None,
            Scope::Nodes(nodes) => Some(nodes),
        };
        if let Some(running) = self.running.get_mut(work.id.0) {
            running.finish(nodes, result.as_ref().err(), context.now_ms, took);
        }
        transitions
    }

    fn try_alert(
        &mut self,
        work: &Work<'_>,
        alert: &AlertRule,
        scope: Scope<'_>,
        context: &Context<'_>,
        transitions: &mut Vec<Transition>,
    ) -> Result<(), RuleError> {
        let query_ms = work.query_ms();
        let (rows, annotations) = evaluate(work.rule, context.reader, query_ms, &context.limits)?;
        let Self { running, options, standing, .. } = self;
        let Some(running) = running.get_mut(work.id.0) else { return Ok(()) };
        running.remark(&annotations);
        let limit = work.group.limit.unwrap_or(usize::MAX);
        let room = limit.saturating_sub(running.standing.len()).min(options.alerts_max.saturating_sub(*standing));
        let when = When { now_ms: context.now_ms, data_ms: query_ms, is_tick: work.is_tick };
        let subject = Subject { key: &work.rule.key, rule: alert, external: &options.external };
        let applied = running.standing.apply(subject, scope, &rows, room, when)?;
        transitions.extend(applied.transitions);
        let view = View {
            rule: work.rule,
            is_separable: running.is_separable,
            reader: context.reader,
            limits: &context.limits,
            keep_ms: options.no_data_keep_ms,
        };
        no_data::settle(&mut running.standing, subject, &view, &applied.absent, when, transitions)?;
        if applied.left_out > 0 {
            running.health.left_out += applied.left_out as u64;
            return Err(RuleError::Limit { limit: limit.min(options.alerts_max), more: applied.left_out });
        }
        Ok(())
    }

    /// Evaluates a recording rule.
    fn record(&mut self, work: &Work<'_>, rule: &RecordRule, context: &Context<'_>) -> Vec<(Labels, Sample)> {
        let started = (context.stopwatch)();
        let result = work.record(rule, context.reader, &context.limits);
        let took = (context.stopwatch)().saturating_sub(started);
        let Some(running) = self.running.get_mut(work.id.0) else { return Vec::new() };
        running.finish(None, result.as_ref().err(), context.now_ms, took);
        match result {
            Ok(samples) => running.record(samples, work.query_ms()),
            Err(_) => Vec::new(),
        }
    }

    /// Marks the rules that read a metric which was recorded.
    fn touch_readers(&mut self, metric: &str) {
        for id in self.rules.readers_of([metric]) {
            self.running.get_mut(id.0).into_iter().for_each(Running::touch);
        }
    }

    /// The rules that are not certain to find the same as with the node's tick before.
    fn to_evaluate(&self, tick: &Tick<'_>) -> Vec<RuleId> {
        let Some(changed) = tick.changed.filter(|_| self.is_current(tick.interest)) else {
            return self.of_interest(tick.interest);
        };
        let is_other = |read_by: &&ReadBy| {
            let is_idle = self.running.get(read_by.rule.0).is_some_and(|running| running.is_idle_on(tick.node));
            !is_idle || read_by.runs.iter().any(|run| changed.get(*run).is_none_or(|changed| *changed))
        };
        tick.interest.rules.iter().filter(is_other).map(|read_by| read_by.rule).collect()
    }

    fn of_interest(&self, interest: &Interest) -> Vec<RuleId> {
        match self.is_current(interest) {
            true => interest.rules.iter().map(|read_by| read_by.rule).collect(),
            false => (0..self.rules.len()).map(RuleId).collect(),
        }
    }

    fn count(&mut self) {
        self.standing = self.running.iter().map(|running| running.standing.len()).sum();
    }
}

/// One rule to evaluate.
#[derive(Clone, Copy)]
struct Work<'a> {
    id: RuleId,
    group: &'a Group,
    rule: &'a Rule,
    /// The time of evaluation, before the group's offset.
    time_ms: i64,
    is_tick: bool,
}

impl Work<'_> {
    fn query_ms(&self) -> i64 {
        self.time_ms.saturating_sub(self.group.query_offset_ms)
    }

    fn record(
        &self,
        rule: &RecordRule,
        reader: &dyn SeriesReader,
        limits: &belfry_promql::Limits<'_>,
    ) -> Result<Vec<(Labels, Sample)>, RuleError> {
        let (rows, _) = evaluate(self.rule, reader, self.query_ms(), limits)?;
        let samples = record(self.rule.name(), rule, rows, self.query_ms())?;
        match self.group.limit {
            Some(limit) if samples.len() > limit => Err(RuleError::Limit { limit, more: samples.len() - limit }),
            _ => Ok(samples),
        }
    }
}

/// The rules at work, their first evaluations spread so that they do not come at once.
fn start(rules: &RuleSet, options: &Options, now_ms: i64) -> Vec<Running> {
    let names: Vec<_> = rules.iter().map(|(_, group, _)| (&group.file, &group.name)).collect();
    let groups: Vec<_> = {
        let mut groups = names.clone();
        groups.dedup();
        groups
    };
    let count = i64::try_from(groups.len()).unwrap_or(i64::MAX).max(1);
    rules
        .iter()
        .zip(names)
        .map(|((_, group, rule), name)| {
            let at = groups.iter().position(|other| *other == name).unwrap_or_default();
            let at = i64::try_from(at).unwrap_or_default();
            let spread_ms = group.interval_ms.unwrap_or(options.interval_ms).min(SPREAD_MS);
            Running::new(group, rule, options, now_ms + spread_ms * at / count)
        })
        .collect()
}

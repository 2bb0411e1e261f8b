//! The alerts of one rule, and how a result of its expression moves them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use belfry_promql::Labels;

use super::alert::{Alert, State, Step, When};
use super::event::Reason;
use super::fingerprint::Fingerprint;
use super::limits;
use super::naming::{self, External};
use super::transition::{Transition, began, stepped};
use crate::rules::{AlertRule, Row, RuleError, RuleKey, series_labels};

/// Whose alerts a result speaks about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    Everything,
    Nodes(&'a [&'a str]),
}

impl Scope<'_> {
    fn contains(self, node: Option<&str>) -> bool {
        match self {
            Self::Everything => true,
            Self::Nodes(nodes) => node.is_some_and(|node| nodes.contains(&node)),
        }
    }
}

/// A rule that alerts, by all its names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) key: &'a RuleKey,
    pub(super) rule: &'a AlertRule,
    pub(super) external: &'a External,
}

/// Alerts by fingerprint, by node and by deadline.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Standing {
    alerts: BTreeMap<Fingerprint, Held>,
    by_node: BTreeMap<String, BTreeSet<Fingerprint>>,
    deadlines: BTreeSet<(i64, Fingerprint)>,
    /// The last of the moments that were looked back to, see [`Standing::next_moments`].
    last_moment_ms: i64,
}

/// An alert and the deadline it is listed under.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    alert: Alert,
    deadline_ms: Option<i64>,
}

/// What rows did to the alerts of a rule.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) transitions: Vec<Transition>,
    /// Alerts of the scope whose condition does not hold: it is to be found out why.
    pub(super) absent: Vec<Fingerprint>,
    /// Alerts that the limit left out.
    pub(super) left_out: usize,
}

impl Standing {
    pub(super) fn len(&self) -> usize {
        self.alerts.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Fingerprint, &Alert)> {
        self.alerts.iter().map(|(id, held)| (id, &held.alert))
    }

    pub(super) fn get(&self, id: Fingerprint) -> Option<&Alert> {
        self.alerts.get(&id).map(|held| &held.alert)
    }

    /// Whether any alert is about this node.
    pub(super) fn is_on(&self, node: &str) -> bool {
        self.by_node.contains_key(node)
    }

    /// The earliest deadline.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Alerts whose deadline has come.
    pub(super) fn due(&self, now_ms: i64) -> impl Iterator<Item = &Alert> {
        let due = self.deadlines.iter().take_while(move |(at, _)| *at <= now_ms);
        due.filter_map(|(_, id)| self.get(*id))
    }

    /// Puts deadlines off that have come and were not dealt with.
    pub(super) fn put_off(&mut self, now_ms: i64, until_ms: i64) {
        while let Some(&(at, id)) = self.deadlines.first().filter(|(at, _)| *at <= now_ms) {
            self.deadlines.remove(&(at, id));
            if let Some(held) = self.alerts.get_mut(&id) {
                held.deadline_ms = Some(until_ms);
                self.deadlines.insert((until_ms, id));
            }
        }
    }

    /// Applies the rows of a result: alerts begin, go on or fire. `room` bounds how many may begin.
    pub(super) fn apply(
        &mut self,
        subject: Subject<'_>,
        scope: Scope<'_>,
        rows: &[Row],
        room: usize,
        when: When,
    ) -> Result<Applied, RuleError> {
        let found = self.named(subject, scope, rows)?;
        let mut applied = Applied { absent: self.absent(scope, &found), ..Applied::default() };
        let mut room = room;
        for (id, (labels, row)) in found {
            if self.alerts.contains_key(&id) {
                applied.transitions.extend(self.go_on(id, subject, row, when));
            } else if room > 0 {
                room -= 1;
                applied.transitions.push(self.begin(id, subject, labels, row, when));
            } else {
                applied.left_out += 1;
            }
        }
        Ok(applied)
    }

    /// The alert of each row. Two rows with one alert are an error, and so is a row with the alert of another node.
    fn named<'r>(
        &self,
        subject: Subject<'_>,
        scope: Scope<'_>,
        rows: &'r [Row],
    ) -> Result<BTreeMap<Fingerprint, (Labels, &'r Row)>, RuleError> {
        let mut found = BTreeMap::new();
        for row in rows {
            let labels = naming::labels(&subject.key.name, subject.rule, row, subject.external)?;
            let id = Fingerprint::of(&labels);
            let foreign = self.get(id).is_some_and(|alert| !scope.contains(alert.node()));
            if foreign || found.contains_key(&id) {
                return Err(RuleError::SameLabels(labels));
            }
            found.insert(id, (labels, row));
        }
        Ok(found)
    }

    /// In the order of fingerprints, whatever the scope: the same alerts end in the same order.
    fn absent(&self, scope: Scope<'_>, found: &BTreeMap<Fingerprint, (Labels, &Row)>) -> Vec<Fingerprint> {
        let is_absent = |id: &&Fingerprint| !found.contains_key(id);
        match scope {
            Scope::Everything => self.alerts.keys().filter(is_absent).copied().collect(),
            Scope::Nodes(nodes) => {
                let on_nodes = nodes.iter().filter_map(|node| self.by_node.get(*node)).flatten();
                let mut absent: Vec<Fingerprint> = on_nodes.filter(is_absent).copied().collect();
                absent.sort_unstable();
                absent
            }
        }
    }

    fn begin(&mut self, id: Fingerprint, subject: Subject<'_>, labels: Labels, row: &Row, when: When) -> Transition {
        let fires = subject.rule.for_ms == 0;
        let alert = Alert {
            labels,
            series: series_labels(row),
            annotations: naming::annotations(subject.rule, row, subject.external),
            value: row.value,
            state: if fires { State::Firing } else { State::Pending },
            active_at_ms: when.now_ms,
            fired_at_ms: fires.then_some(when.now_ms),
            recovering_since_ms: None,
            no_data_since_ms: None,
            give_up_at_ms: None,
            unseen_ms: 0,
            held_at_ms: when.data_ms,
            looked_at_ms: when.is_tick.then_some(when.data_ms),
        };
        let transition = began(subject.key, &alert, when.now_ms);
        self.insert(id, alert, subject.rule);
        transition
    }

    fn go_on(&mut self, id: Fingerprint, subject: Subject<'_>, row: &Row, when: When) -> Option<Transition> {
        let series = series_labels(row);
        if self.get(id).is_some_and(|alert| alert.series != series) {
            // A label of the rule hides the one that changed.
            let alert = self.remove(id)?;
            self.insert(id, Alert { series, ..alert }, subject.rule);
        }
        self.step(id, subject, when.now_ms, |alert| {
            if alert.is_newer_than(when) {
                return Step::Same;
            }
            let step = alert.holds(when, subject.rule.for_ms);
            if alert.value.to_bits() != row.value.to_bits() || step != Step::Same {
                alert.value = row.value;
                alert.annotations = naming::annotations(subject.rule, row, subject.external);
            }
            step
        })
    }

    /// Data contradicts the condition of an alert.
    pub(super) fn ceased(&mut self, id: Fingerprint, subject: Subject<'_>, when: When) -> Option<Transition> {
        let keep_ms = subject.rule.keep_firing_for_ms;
        self.step(id, subject, when.now_ms, |alert| alert.ceased(when, keep_ms))
    }

    /// The condition of an alert is not met only because data is missing.
    pub(super) fn lacks_data(
        &mut self,
        id: Fingerprint,
        subject: Subject<'_>,
        when: When,
        held_at_ms: i64,
        keep_ms: Option<i64>,
    ) -> Option<Transition> {
        self.step(id, subject, when.now_ms, |alert| alert.lacks_data(when, held_at_ms, keep_ms))
    }

    /// The moments to look back to now: a few at a time, and all of them in turn.
    pub(super) fn next_moments<T>(&mut self, moments: &BTreeMap<i64, T>) -> Vec<i64> {
        let behind = (Bound::Excluded(self.last_moment_ms), Bound::Unbounded);
        let in_turn = moments.range(behind).chain(moments.range(..=self.last_moment_ms));
        let next: Vec<i64> = in_turn.map(|(at, _)| *at).take(limits::MOMENTS_MAX).collect();
        self.last_moment_ms = next.last().copied().unwrap_or_default();
        next
    }

    /// Ends the alerts of a node that is no more.
    pub(super) fn forget(&mut self, node: &str, subject: Subject<'_>, now_ms: i64) -> Vec<Transition> {
        let ids: Vec<_> = self.by_node.get(node).into_iter().flatten().copied().collect();
        let forgotten = |id| self.step(id, subject, now_ms, |_| Step::Resolved(Reason::NodeForgotten));
        ids.into_iter().filter_map(forgotten).collect()
    }

    /// Puts an alert back that stood before a restart or reload.
    pub(super) fn restore(&mut self, alert: Alert, rule: &AlertRule) {
        self.insert(Fingerprint::of(&alert.labels), alert, rule);
    }

    fn step(
        &mut self,
        id: Fingerprint,
        subject: Subject<'_>,
        now_ms: i64,
        take: impl FnOnce(&mut Alert) -> Step,
    ) -> Option<Transition> {
        let held = self.alerts.get_mut(&id)?;
        let before = held.alert.state;
        let step = take(&mut held.alert);
        let transition = stepped(subject.key, &held.alert, before, step, now_ms);
        if matches!(step, Step::Resolved(_)) {
            self.remove(id);
            return transition;
        }
        let deadline_ms = held.alert.deadline_ms(subject.rule.for_ms, subject.rule.keep_firing_for_ms);
        if deadline_ms != held.deadline_ms {
            let before = std::mem::replace(&mut held.deadline_ms, deadline_ms);
            before.into_iter().for_each(|at| _ = self.deadlines.remove(&(at, id)));
            self.deadlines.extend(deadline_ms.map(|at| (at, id)));
        }
        transition
    }

    fn insert(&mut self, id: Fingerprint, alert: Alert, rule: &AlertRule) {
        if let Some(node) = alert.node() {
            self.by_node.entry(node.to_owned()).or_default().insert(id);
        }
        let deadline_ms = alert.deadline_ms(rule.for_ms, rule.keep_firing_for_ms);
        self.deadlines.extend(deadline_ms.map(|at| (at, id)));
        self.alerts.insert(id, Held { alert, deadline_ms });
    }

    fn remove(&mut self, id: Fingerprint) -> Option<Alert> {
        let Held { alert, deadline_ms } = self.alerts.remove(&id)?;
        deadline_ms.into_iter().for_each(|at| _ = self.deadlines.remove(&(at, id)));
        if let Some(node) = alert.node()
            && let Some(ids) = self.by_node.get_mut(node)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_node.remove(node);
            }
        }
        Some(alert)
    }
}

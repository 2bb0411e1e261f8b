//! What the engine hands out: changes to write down, events to tell, samples to store.

use belfry_promql::{Labels, Sample};

use super::alert::{Alert, State, Step};
use super::event::{Event, EventKind, Previous, Reason};
use super::fingerprint::Fingerprint;
use super::json::{Number, Time};
use super::record::{AlertId, AlertRecord, to_map};
use crate::rules::RuleKey;

/// Everything that one call of the engine brought about.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outcome {
    /// In the order in which they happened. Changes are to be durable before their events are told.
    pub(crate) transitions: Vec<Transition>,
    /// Samples of recording rules, to be stored as they are, stale markers included.
    pub(crate) samples: Vec<(Labels, Sample)>,
}

/// One change of one alert.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Transition {
    pub(crate) change: Change,
    /// What to tell about it; nothing where only the memory of the engine changed.
    pub(crate) event: Option<Event>,
}

/// What to write down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// The alert stands, in this state.
    Put(Box<AlertRecord>),
    /// The alert is over.
    Remove(AlertId),
}

/// What an alert that just began did.
pub(super) fn began(rule: &RuleKey, alert: &Alert, now_ms: i64) -> Transition {
    let kind = if alert.state == State::Pending { EventKind::Pending } else { EventKind::Firing };
    let event = event(rule, alert, kind, Previous::Inactive, Reason::ConditionTrue, now_ms);
    Transition { change: Change::Put(Box::new(AlertRecord::new(rule, alert))), event: Some(event) }
}

/// What a step of an alert amounts to. `before` is the state it was in.
pub(super) fn stepped(rule: &RuleKey, alert: &Alert, before: State, step: Step, now_ms: i64) -> Option<Transition> {
    let previous = if before == State::Pending { Previous::Pending } else { Previous::Firing };
    let put = || Change::Put(Box::new(AlertRecord::new(rule, alert)));
    match step {
        Step::Same => None,
        Step::Changed => Some(Transition { change: put(), event: None }),
        Step::Fired(reason) => {
            let event = event(rule, alert, EventKind::Firing, previous, reason, now_ms);
            Some(Transition { change: put(), event: Some(event) })
        }
        Step::Resolved(reason) => {
            let id = AlertId { rule: Fingerprint::of_rule(rule), alert: Fingerprint::of(&alert.labels) };
            let mut event = event(rule, alert, EventKind::Resolved, previous, reason, now_ms);
            event.ends_at = Some(Time(now_ms.max(alert.active_at_ms)));
            Some(Transition { change: Change::Remove(id), event: Some(event) })
        }
    }
}

/// What the end of an alert amounts to whose rule or node is no more.
pub(super) fn ended(rule: &RuleKey, alert: &Alert, reason: Reason, now_ms: i64) -> Option<Transition> {
    stepped(rule, alert, alert.state, Step::Resolved(reason), now_ms)
}

fn event(rule: &RuleKey, alert: &Alert, kind: EventKind, previous: Previous, reason: Reason, now_ms: i64) -> Event {
    let fingerprint = Fingerprint::of(&alert.labels);
    Event {
        event: kind,
        previous: Some(previous),
        reason: Some(reason),
        rule: Some(rule.name.clone()),
        severity: alert.labels.get("severity").map(str::to_owned),
        fingerprint: Some(fingerprint),
        dedup_key: Some(dedup_key(rule, fingerprint, alert.active_at_ms)),
        labels: to_map(&alert.labels),
        annotations: alert.annotations.clone(),
        value: Some(Number(alert.value)),
        starts_at: Some(Time(alert.active_at_ms)),
        ..Event::heartbeat(now_ms, 0)
    }
}

/// Fingerprint, rule and start: two rules whose alerts have the same labels stay apart at whoever receives them.
fn dedup_key(rule: &RuleKey, alert: Fingerprint, active_at_ms: i64) -> String {
    let rule = Fingerprint::of_rule(rule).0;
    format!("{alert}-{:08x}-{active_at_ms}", (rule >> 32) ^ (rule & 0xffff_ffff))
}

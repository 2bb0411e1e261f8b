//! One alert: its states, and what moves it from one to the next.
//!
//! ```text
//!              holds, `for` > 0             has held for `for`
//!  inactive ──────────────────────▶ pending ──────────────────▶ firing ◀──────────┐ holds
//!      ▲ └───────────────────────────── holds, `for` = 0 ───────▶ │ │ contradicted │
//!      │                              │ contradicted              │ └▶ recovering ─┘
//!      └──────────────────────────────┴───────────────────────────┴───────┘ `keep_firing_for` over
//! ```
//!
//! *No data* is a condition of its own beside the state. An alert has it while its condition is not met only because
//! series are missing. It then neither resolves nor fires: time without data counts as evidence of nothing, and is
//! left out when `for` is counted. A recovering alert was contradicted by data before, so it goes on to recover.

use std::collections::BTreeMap;

use belfry_promql::Labels;
use serde::{Deserialize, Serialize};

use super::event::Reason;
use crate::rules::INSTANCE;

/// How much older than what was looked at a late tick can be.
const LATE_MS_MAX: i64 = 60_000;

/// The state of an alert that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The condition holds, but not for long enough yet.
    Pending,
    Firing,
    /// The condition ceased, and the alert goes on firing for the rule's `keep_firing_for`.
    Recovering,
}

/// An alert that stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alert {
    /// What names the alert: the labels of the series and the rule's, `alertname` among them.
    pub(super) labels: Labels,
    /// Labels of the series in the rule's result.
    pub(super) series: Labels,
    pub(super) annotations: BTreeMap<String, String>,
    /// The value when the condition last held.
    pub(super) value: f64,
    pub(super) state: State,
    /// Since when the condition holds.
    pub(super) active_at_ms: i64,
    pub(super) fired_at_ms: Option<i64>,
    pub(super) recovering_since_ms: Option<i64>,
    pub(super) no_data_since_ms: Option<i64>,
    /// When an alert without data is given up.
    pub(super) give_up_at_ms: Option<i64>,
    /// How much of the time since `active_at_ms` was without data, and does not count towards `for`.
    pub(super) unseen_ms: i64,
    /// The data's time when the condition was last seen to hold.
    pub(super) held_at_ms: i64,
    /// The newest tick that the condition was looked at for, by the node's clock. What is older than it tells nothing.
    pub(super) looked_at_ms: Option<i64>,
}

/// The times of an evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    /// The collector's clock: what durations are counted by.
    pub(super) now_ms: i64,
    /// The instant at which the expression is evaluated: for a tick the node's clock, else the collector's.
    pub(super) data_ms: i64,
    pub(super) is_tick: bool,
}

/// What an observation did to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing worth keeping.
    Same,
    /// Something to remember, nothing to tell.
    Changed,
    Fired(Reason),
    Resolved(Reason),
}

impl Alert {
    /// The node that the alert is about, if it is about one.
    pub(super) fn node(&self) -> Option<&str> {
        self.series.get(INSTANCE)
    }

    /// The condition holds.
    pub(super) fn holds(&mut self, when: When, for_ms: i64) -> Step {
        let had_data = self.no_data_since_ms.take();
        self.give_up_at_ms = None;
        if let Some(since) = had_data {
            self.add_unseen(when.now_ms.saturating_sub(since));
        }
        self.held_at_ms = when.data_ms;
        self.look(when);
        match self.state {
            State::Pending if self.held_for_ms(when.now_ms) >= for_ms => {
                self.state = State::Firing;
                self.fired_at_ms = Some(when.now_ms);
                Step::Fired(if for_ms == 0 { Reason::ConditionTrue } else { Reason::Held })
            }
            State::Recovering => {
                self.state = State::Firing;
                self.recovering_since_ms = None;
                Step::Changed
            }
            State::Pending | State::Firing if had_data.is_some() => Step::Changed,
            State::Pending | State::Firing => Step::Same,
        }
    }

    /// Data contradicts the condition.
    pub(super) fn ceased(&mut self, when: When, keep_firing_for_ms: i64) -> Step {
        self.look(when);
        match self.state {
            State::Pending => Step::Resolved(Reason::ConditionFalse),
            State::Firing if keep_firing_for_ms == 0 => Step::Resolved(Reason::ConditionFalse),
            State::Firing => {
                self.state = State::Recovering;
                self.recovering_since_ms = Some(when.now_ms);
                (self.no_data_since_ms, self.give_up_at_ms) = (None, None);
                Step::Changed
            }
            State::Recovering => {
                let since = self.recovering_since_ms.unwrap_or(when.now_ms);
                let over = when.now_ms.saturating_sub(since) >= keep_firing_for_ms;
                if over { Step::Resolved(Reason::KeptLongEnough) } else { Step::Same }
            }
        }
    }

    /// The condition is not met only because data is missing: it held at a moment. `keep_ms` bounds how long the
    /// alert stands; nothing where the node itself is away, for it will come back or be forgotten.
    pub(super) fn lacks_data(&mut self, when: When, held_at_ms: i64, keep_ms: Option<i64>) -> Step {
        self.look(when);
        self.held_at_ms = self.held_at_ms.min(held_at_ms);
        if self.give_up_at_ms.is_some_and(|at| keep_ms.is_some() && when.now_ms >= at) {
            return Step::Resolved(Reason::NoData);
        }
        let before = (self.no_data_since_ms, self.give_up_at_ms);
        self.no_data_since_ms = before.0.or(Some(when.now_ms));
        self.give_up_at_ms = keep_ms.map(|keep_ms| before.1.unwrap_or(when.now_ms.saturating_add(keep_ms)));
        if before == (self.no_data_since_ms, self.give_up_at_ms) { Step::Same } else { Step::Changed }
    }

    /// The collector was away and saw nothing for a while.
    pub(super) fn was_unwatched(&mut self, from_ms: i64, to_ms: i64) {
        let gap_ms = to_ms.saturating_sub(from_ms.max(self.active_at_ms)).max(0);
        if self.no_data_since_ms.is_some() {
            return;
        }
        match self.state {
            State::Pending => self.add_unseen(gap_ms),
            State::Firing => {}
            State::Recovering => {
                self.recovering_since_ms =
                    self.recovering_since_ms.map(|since| since.saturating_add(gap_ms).min(to_ms));
            }
        }
        if self.state != State::Recovering {
            self.held_at_ms = self.held_at_ms.max(from_ms);
        }
    }

    /// Whether a view of the data at this instant is older than one that was looked at: then it tells nothing. So
    /// it is for a node whose clock is ahead of the collector's, between its ticks. A tick that is much older is no late one, which
    /// come within a round: its node's clock was set back.
    pub(super) fn is_newer_than(&self, when: When) -> bool {
        let ahead_ms = self.looked_at_ms.map_or(0, |looked_at_ms| looked_at_ms - when.data_ms);
        ahead_ms > 0 && !(when.is_tick && ahead_ms > LATE_MS_MAX)
    }

    fn look(&mut self, when: When) {
        if when.is_tick {
            self.looked_at_ms = Some(when.data_ms);
        }
    }

    /// For how long the condition was seen to hold.
    fn held_for_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.active_at_ms).saturating_sub(self.unseen_ms)
    }

    fn add_unseen(&mut self, ms: i64) {
        self.unseen_ms = self.unseen_ms.saturating_add(ms.max(0));
    }

    /// When time alone will move the alert.
    pub(super) fn deadline_ms(&self, for_ms: i64, keep_firing_for_ms: i64) -> Option<i64> {
        if self.no_data_since_ms.is_some() {
            return self.give_up_at_ms;
        }
        match self.state {
            State::Pending => Some(self.active_at_ms.saturating_add(self.unseen_ms).saturating_add(for_ms)),
            State::Firing => None,
            State::Recovering => self.recovering_since_ms.map(|since| since.saturating_add(keep_firing_for_ms)),
        }
    }
}

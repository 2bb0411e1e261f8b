//! Alerts: what becomes of the results of rules over time.
//!
//! [`Engine`] holds the rules and the alerts that stand. Driven by ticks and by time, it evaluates rules, moves
//! alerts from state to state (`alert`) and hands out what changed ([`Outcome`]): records to write down, events to
//! tell, samples to store. `standing` keeps the alerts of one rule, `no_data` tells a condition that ceased from
//! one that lost its data, `naming` makes labels and annotations.
//!
//! Pure: no clock, no I/O, no channels, no store; `now` and a reader come with each call, and the same calls yield the
//! same events. Absent: numbers of events and their log, silences, acknowledgements, routing, sinks.

mod alert;
mod context;
mod engine;
mod event;
mod fingerprint;
mod json;
pub(crate) mod limits;
mod naming;
mod no_data;
mod record;
mod running;
mod standing;
mod transition;
mod view;

pub(crate) use alert::State;
pub(crate) use context::{Context, Interest, Options, Tick};
pub(crate) use engine::Engine;
pub(crate) use event::Event;
pub(crate) use json::{Number, Time};
pub(crate) use naming::{External, labels as alert_labels};
pub(crate) use record::{AlertId, AlertRecord};
pub(crate) use transition::{Change, Outcome};
pub(crate) use view::{AlertView, RuleHealth, RuleState, RuleType, RuleView};

#[cfg(test)]
mod tests;

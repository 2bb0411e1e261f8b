//! Why a condition does not hold any more: because data says so, or because data is missing?
//!
//! The expression is evaluated once more over a view of the store in which every series that brought nothing new
//! since the condition last held is as it was then ([`AsItWas`]). What holds in that view was not contradicted by
//! data: it lacks data. So
//!
//! - a comparison that turned false resolves its alert, and so does one that turned false while another series of the
//!   expression went missing;
//! - a series that ended (stale marker, five minutes of silence, the node away) leaves its alert as it is, and so
//!   does a member of a sum;
//! - `absent(x)` resolves as soon as `x` is there, `x unless y` as soon as `y` is.
//!
//! The limits of this: a series whose *end* is the good news (a job's, a state's) looks like a lost one. Its alert
//! stands until the series is back with another value, the node is forgotten, or for a day on a node that is up;
//! rules about such series say `belfry_no_data: ok`. And where the view cannot be evaluated (two generations of a
//! series at once), the alert resolves, as in Prometheus.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use belfry_promql::{EvalError, Limits, SeriesReader};

use super::alert::{Alert, State, When};
use super::fingerprint::Fingerprint;
use super::limits;
use super::naming;
use super::standing::{Standing, Subject};
use super::transition::Transition;
use crate::rules::{AsItWas, NoData, OnNodes, Rule, RuleError, evaluate, is_up};

/// What an absent alert is looked at with.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) rule: &'a Rule,
    pub(super) is_separable: bool,
    pub(super) reader: &'a dyn SeriesReader,
    pub(super) limits: &'a Limits<'a>,
    pub(super) keep_ms: i64,
}

/// Finds out about each alert whose condition does not hold, and moves it. What was moved before an error is told all
/// the same.
pub(super) fn settle(
    standing: &mut Standing,
    subject: Subject<'_>,
    view: &View<'_>,
    absent: &[Fingerprint],
    when: When,
    transitions: &mut Vec<Transition>,
) -> Result<(), RuleError> {
    let mut by_moment: BTreeMap<i64, Vec<Fingerprint>> = BTreeMap::new();
    for id in absent {
        let Some(alert) = standing.get(*id) else { continue };
        if alert.is_newer_than(when) {
            continue;
        }
        if alert.state == State::Recovering || subject.rule.no_data == NoData::Ok {
            transitions.extend(standing.ceased(*id, subject, when));
        } else {
            by_moment.entry(alert.held_at_ms).or_default().push(*id);
        }
    }
    for held_at_ms in standing.next_moments(&by_moment) {
        let ids = by_moment.remove(&held_at_ms).unwrap_or_default();
        let alerts: Vec<&Alert> = ids.iter().filter_map(|id| standing.get(*id)).collect();
        // Two ticks of one instant: what the second brought is new.
        let back_ms = when.data_ms.saturating_sub(held_at_ms).max(1);
        let still_held = view.held_then(subject, when.data_ms, back_ms, &alerts)?;
        for id in ids {
            let Some(alert) = standing.get(id) else { continue };
            transitions.extend(if still_held.contains(&id) {
                let keep_ms = view.keep_ms(alert.node(), when.data_ms)?;
                standing.lacks_data(id, subject, when, when.data_ms.saturating_sub(back_ms), keep_ms)
            } else {
                standing.ceased(id, subject, when)
            });
        }
    }
    Ok(())
}

impl View<'_> {
    /// The alerts whose condition holds if what is missing is as it was at a moment.
    fn held_then(
        &self,
        subject: Subject<'_>,
        data_ms: i64,
        back_ms: i64,
        alerts: &[&Alert],
    ) -> Result<HashSet<Fingerprint>, RuleError> {
        let nodes: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert.node()).collect();
        let nodes: Vec<&str> = nodes.into_iter().collect();
        let is_local = self.is_separable
            && nodes.len() <= limits::SCOPE_NODES_MAX
            && alerts.iter().all(|alert| alert.node().is_some());
        let restricted = is_local.then(|| OnNodes::some(self.reader, &nodes));
        let reader = restricted.as_ref().map_or(self.reader, |restricted| restricted);
        let rows = match evaluate(self.rule, &AsItWas { reader, back_ms }, data_ms, self.limits) {
            Ok((rows, _)) => rows,
            Err(error @ RuleError::Evaluate(EvalError::Read(_) | EvalError::Cancelled)) => return Err(error),
            Err(_) => Vec::new(),
        };
        let name = |row| naming::labels(&subject.key.name, subject.rule, row, subject.external);
        rows.iter().map(|row| Ok(Fingerprint::of(&name(row)?))).collect()
    }

    /// How long an alert of this node may go without data; nothing where it may for ever.
    fn keep_ms(&self, node: Option<&str>, data_ms: i64) -> Result<Option<i64>, RuleError> {
        let bounded = match node {
            Some(node) => is_up(self.reader, node, data_ms)?,
            None => true,
        };
        Ok(bounded.then_some(self.keep_ms))
    }
}

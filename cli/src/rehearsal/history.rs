//! What alerts would have come of an expression's values over time.
//!
//! Prometheus' rules: where the expression yields nothing, the condition does not hold, whether data contradicts it or is missing. The
//! engine looks at the data anew to tell the two apart, and keeps an alert that merely lacks it; here there are values alone.

use std::collections::BTreeMap;

use belfry_promql::{Labels, Series};

use crate::alerts::{External, alert_labels};
use crate::rules::{AlertRule, Row, RuleError};

/// One time that an alert stood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Episode {
    pub(crate) labels: Labels,
    pub(crate) active_at_ms: i64,
    /// When the condition had held for long enough; nothing if it ceased before.
    pub(crate) fired_at_ms: Option<i64>,
    /// Nothing while it still stands at the end.
    pub(crate) ended_at_ms: Option<i64>,
    /// When it fired, else when it began.
    pub(crate) value: f64,
}

impl Episode {
    /// How long the alert fired, up to a moment if it still does.
    pub(crate) fn firing_ms(&self, until_ms: i64) -> i64 {
        self.fired_at_ms.map_or(0, |fired_at_ms| self.ended_at_ms.unwrap_or(until_ms) - fired_at_ms)
    }
}

/// An alert that stands where the values seen so far end.
#[derive(Debug)]
struct Standing {
    episode: Episode,
    /// When the condition last held.
    held_at_ms: i64,
}

/// A rule going through time. Values come piece by piece, each piece after the one before.
#[derive(Debug)]
pub(crate) struct History<'r> {
    name: &'r str,
    rule: &'r AlertRule,
    step_ms: i64,
    standing: BTreeMap<Labels, Standing>,
    ended: Vec<Episode>,
}

impl<'r> History<'r> {
    /// A rule that is evaluated at these steps.
    pub(crate) fn new(name: &'r str, rule: &'r AlertRule, step_ms: i64) -> Self {
        Self { name, rule, step_ms, standing: BTreeMap::new(), ended: Vec::new() }
    }

    /// Goes through the values that follow.
    ///
    /// # Errors
    /// The labels of an alert are too large.
    pub(crate) fn add(&mut self, values: &[Series]) -> Result<(), RuleError> {
        for series in values {
            for sample in &series.samples {
                self.holds(&series.labels, sample.time_ms, sample.value)?;
            }
        }
        Ok(())
    }

    /// All times that alerts stood, in their order, seen to the end.
    pub(crate) fn finish(mut self, end_ms: i64) -> Vec<Episode> {
        for (_, standing) in std::mem::take(&mut self.standing) {
            let ended_at_ms = self.end_of(&standing);
            let ended_at_ms = (ended_at_ms <= end_ms).then_some(ended_at_ms);
            self.ended.push(Episode { ended_at_ms, ..standing.episode });
        }
        self.ended.sort_by(|a, b| (a.active_at_ms, &a.labels).cmp(&(b.active_at_ms, &b.labels)));
        self.ended
    }

    fn holds(&mut self, series: &Labels, time_ms: i64, value: f64) -> Result<(), RuleError> {
        let is_over = self.standing.get(series).is_some_and(|standing| self.end_of(standing) < time_ms);
        if is_over && let Some(standing) = self.standing.remove(series) {
            let ended_at_ms = Some(self.end_of(&standing));
            self.ended.push(Episode { ended_at_ms, ..standing.episode });
        }
        let for_ms = self.rule.for_ms;
        if let Some(Standing { episode, held_at_ms }) = self.standing.get_mut(series) {
            *held_at_ms = time_ms;
            if episode.fired_at_ms.is_none() && time_ms - episode.active_at_ms >= for_ms {
                (episode.fired_at_ms, episode.value) = (Some(time_ms), value);
            }
            return Ok(());
        }
        let row = Row { labels: series.clone(), value };
        let labels = alert_labels(self.name, self.rule, &row, &External::default())?;
        let fired_at_ms = (for_ms == 0).then_some(time_ms);
        let episode = Episode { labels, active_at_ms: time_ms, fired_at_ms, ended_at_ms: None, value };
        self.standing.insert(series.clone(), Standing { episode, held_at_ms: time_ms });
        Ok(())
    }

    /// When an alert ends if its condition does not hold again: a step later, and what it is kept firing after that.
    fn end_of(&self, standing: &Standing) -> i64 {
        let kept_ms = if standing.episode.fired_at_ms.is_some() { self.rule.keep_firing_for_ms } else { 0 };
        standing.held_at_ms + self.step_ms + kept_ms
    }
}

#[cfg(test)]
mod tests {
    use belfry_promql::Sample;

    use super::*;
    use crate::rules::{RuleKind, RuleSet, Source};

    /// What becomes of a condition that holds at these seconds, looked at each second from 0 to 20, in two pieces.
    fn check(rule: &str, seconds: &[i64], expected: &[(i64, Option<i64>, Option<i64>)]) {
        let text = format!("groups: [{{name: g, rules: [{{alert: A, expr: up, {rule}}}]}}]");
        let rules = RuleSet::load(&[Source { name: "a.yml".into(), text }]).expect("a rule");
        let (_, _, rule) = rules.iter().next().expect("a rule");
        let RuleKind::Alert(alert) = &rule.kind else { panic!("an alert") };
        let labels = Labels::from_pairs([("__name__", "up"), ("instance", "i")]);
        let sample = |&second: &i64| Sample { time_ms: second * 1000, value: second as f64 };
        let piece = |range: std::ops::Range<i64>| Series {
            labels: labels.clone(),
            samples: seconds.iter().filter(|second| range.contains(second)).map(sample).collect(),
        };
        let mut history = History::new(rule.name(), alert, 1000);
        history.add(&[piece(0..10)]).expect("small labels");
        history.add(&[piece(10..21)]).expect("small labels");
        let found: Vec<_> = history
            .finish(20_000)
            .into_iter()
            .inspect(|episode| assert_eq!(episode.labels.get("alertname"), Some("A")))
            .map(|episode| {
                let second = |ms: i64| ms / 1000;
                (second(episode.active_at_ms), episode.fired_at_ms.map(second), episode.ended_at_ms.map(second))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn alerts_begin_fire_and_end() {
        check("for: 0s", &[3, 4, 5, 8], &[(3, Some(3), Some(6)), (8, Some(8), Some(9))]);
        check("for: 2s", &[3, 4, 5, 8], &[(3, Some(5), Some(6)), (8, None, Some(9))]);
        check("for: 2s", &[8, 9, 10, 11], &[(8, Some(10), Some(12))]);
        check("for: 2s", &[17, 18, 19, 20], &[(17, Some(19), None)]);
        check("for: 5s", &[18, 19, 20], &[(18, None, None)]);
        check("for: 0s", &[], &[]);
    }

    #[test]
    fn alerts_are_kept_firing() {
        check("keep_firing_for: 3s", &[3, 6, 12], &[(3, Some(3), Some(10)), (12, Some(12), Some(16))]);
        check("for: 2s, keep_firing_for: 3s", &[3, 4, 6], &[(3, None, Some(5)), (6, None, Some(7))]);
        check("keep_firing_for: 3s", &[18], &[(18, Some(18), None)]);
    }
}

//! Rules run through a stretch of time at instants that the caller chooses, over samples at hand, with the engine that the
//! collector runs.
//!
//! `unit` runs tests of rules; `history` takes values that an expression had to the alerts that would have come of them. Pure: no clock, no I/O, no store.

mod history;
mod unit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use belfry_promql::{Labels, Limits, ReadError, ReadRequest, Series, SeriesReader};

use crate::alerts::{AlertView, Context, Engine, External, Options, State};
use crate::rules::RuleSet;

pub(crate) use history::{Episode, History};
pub(crate) use unit::{CheckKind, Verdict, run};

/// Rules and the samples they see: those given, and what they recorded themselves.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    engine: Engine,
    series: Vec<Series>,
    places: HashMap<Labels, usize>,
}

impl Rehearsal {
    /// Rules as [`RuleSet::rehearsed`] makes them, before the first instant.
    pub(crate) fn new(rules: Arc<RuleSet>, external: External, series: Vec<Series>, start_ms: i64) -> Self {
        // Every rule is due at every instant, the first included.
        let options = Options { interval_ms: 1, idle_interval_ms: 1, coalesce_ms: 0, external, ..Options::default() };
        let engine = Engine::new(rules, options, start_ms.saturating_sub(1));
        let places = series.iter().enumerate().map(|(at, series)| (series.labels.clone(), at)).collect();
        Self { engine, series, places }
    }

    /// Evaluates all rules at an instant later than those before.
    ///
    /// # Errors
    /// What each rule that failed says.
    pub(crate) fn step(&mut self, now_ms: i64) -> Result<(), Vec<String>> {
        let reader = Until { series: &self.series, now_ms };
        let context = Context { now_ms, reader: &reader, limits: Limits::default(), stopwatch: &|| Duration::ZERO };
        let outcome = self.engine.on_time(&context);
        for (labels, sample) in outcome.samples {
            let place = *self.places.entry(labels).or_insert_with_key(|labels| {
                self.series.push(Series { labels: labels.clone(), samples: Vec::new() });
                self.series.len() - 1
            });
            let samples = self.series.get_mut(place).map(|series| &mut series.samples);
            // A series that was given keeps its own samples.
            if let Some(samples) = samples
                && samples.last().is_none_or(|last| last.time_ms < sample.time_ms)
            {
                samples.push(sample);
            }
        }
        let failures: Vec<String> =
            self.engine.failures().map(|(rule, message)| format!("rule {rule:?}: {message}")).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// The alerts of a rule that fire.
    pub(crate) fn firing(&self, name: &str) -> Vec<AlertView> {
        let mut alerts = self.engine.alerts();
        alerts.retain(|alert| alert.rule == name && alert.state != State::Pending);
        alerts
    }

    /// All samples, recorded ones included.
    pub(crate) fn series(&self) -> &Vec<Series> {
        &self.series
    }
}

/// Samples up to now: what is still to come, a rule cannot see.
struct Until<'a> {
    series: &'a [Series],
    now_ms: i64,
}

impl SeriesReader for Until<'_> {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        self.series.select(&ReadRequest { end_ms: request.end_ms.min(self.now_ms), ..*request })
    }
}

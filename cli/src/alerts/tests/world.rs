//! A collector in miniature: series that grow by the second, an engine, and the records that it asked to write down.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use belfry_promql::{Labels, Limits, METRIC_NAME, ReadError, ReadRequest, STALE_NAN, Sample, Series, SeriesReader};

use super::super::*;
use crate::rules::{INSTANCE, RuleSet, Source};

/// When every test begins.
pub(super) const START_MS: i64 = 1_700_000_000_000;

pub(super) fn rules(text: &str) -> Arc<RuleSet> {
    let source = Source { name: "test.yml".to_owned(), text: text.to_owned() };
    Arc::new(RuleSet::load(&[source]).expect("valid rules"))
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) options: Options,
    pub(super) rules: Arc<RuleSet>,
    pub(super) store: Vec<Series>,
    pub(super) second: i64,
    /// What survives a crash.
    pub(super) durable: BTreeMap<AlertId, AlertRecord>,
    pub(super) events: Vec<Event>,
    pub(super) log: String,
    /// Whether the collector is running.
    pub(super) is_up: bool,
    last_seen_ms: i64,
    /// How far the clocks of the nodes are ahead of the collector's.
    pub(super) skew_ms: i64,
    /// How many reads of the store succeed in each call before all fail.
    pub(super) fail_after: Option<usize>,
    /// What the last tick of each node held.
    pub(super) former: HashMap<String, HashMap<Labels, u64>>,
}

impl World {
    pub(super) fn new(rule_file: &str) -> Self {
        Self::with(rule_file, Options::default())
    }

    pub(super) fn with(rule_file: &str, options: Options) -> Self {
        let rules = rules(rule_file);
        Self {
            engine: Engine::new(Arc::clone(&rules), options.clone(), START_MS),
            options,
            rules,
            store: Vec::new(),
            second: 0,
            durable: BTreeMap::new(),
            events: Vec::new(),
            log: String::new(),
            is_up: true,
            last_seen_ms: START_MS,
            skew_ms: 0,
            fail_after: None,
            former: HashMap::new(),
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        START_MS + self.second * 1_000
    }

    /// One second passes: samples arrive, nodes tick, time is told.
    pub(super) fn step(&mut self, samples: &[(Labels, Option<f64>)]) {
        let now_ms = self.now_ms();
        let mut ticks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (labels, value) in samples {
            let Some(value) = value else { continue };
            self.store(labels, *value);
            let metric = labels.metric_name().unwrap_or_default().to_owned();
            ticks.entry(labels.value(INSTANCE).to_owned()).or_default().insert(metric);
        }
        if self.is_up {
            for (node, metrics) in &ticks {
                self.tick(node, metrics, now_ms + self.skew_ms);
            }
            self.time();
            self.last_seen_ms = now_ms;
        }
        self.second += 1;
    }

    pub(super) fn store(&mut self, labels: &Labels, value: f64) {
        let sample = Sample { time_ms: self.now_ms() + self.skew_ms, value };
        match self.store.iter_mut().find(|series| series.labels == *labels) {
            Some(series) => series.samples.push(sample),
            None => self.store.push(Series { labels: labels.clone(), samples: vec![sample] }),
        }
    }

    /// One sample arrives in a tick of its own.
    pub(super) fn tick_of(&mut self, labels: &Labels, value: f64) {
        self.store(labels, value);
        let metrics = labels.metric_name().map(str::to_owned).into_iter().collect();
        self.tick(labels.value(INSTANCE), &metrics, self.now_ms() + self.skew_ms);
    }

    fn tick(&mut self, node: &str, metrics: &BTreeSet<String>, time_ms: i64) {
        let interest = self.engine.interest(metrics.iter().map(|metric| [metric.as_str()]));
        // The collector's own series, which are no node's.
        if node.is_empty() {
            return self.engine.touch(&interest);
        }
        let changed = self.changed(node, metrics, time_ms);
        let tick = Tick { node, time_ms, interest: &interest, changed: changed.as_deref() };
        let store = std::mem::take(&mut self.store);
        let reader = Failing { store: &store, reads_left: Cell::new(self.fail_after.unwrap_or(usize::MAX)) };
        let context = Context { reader: &reader, ..context(&store, self.now_ms()) };
        let outcome = self.engine.on_tick(&tick, &context);
        self.store = store;
        self.keep(outcome);
    }

    /// Of each metric, whether the tick has other values than the one before; `None` if it has other series.
    fn changed(&mut self, node: &str, metrics: &BTreeSet<String>, time_ms: i64) -> Option<Vec<bool>> {
        let arrived = |series: &&Series| {
            series.labels.value(INSTANCE) == node && series.samples.last().is_some_and(|last| last.time_ms == time_ms)
        };
        let bits = |series: &Series| series.samples.last().map_or(0, |last| last.value.to_bits());
        let tick: HashMap<Labels, u64> =
            self.store.iter().filter(arrived).map(|series| (series.labels.clone(), bits(series))).collect();
        let before = self.former.insert(node.to_owned(), tick.clone())?;
        let is_same = tick.len() == before.len() && tick.keys().all(|labels| before.contains_key(labels));
        let is_of = |labels: &Labels, metric: &str| labels.metric_name() == Some(metric);
        let is_other =
            |metric: &String| tick.iter().any(|(labels, now)| is_of(labels, metric) && before.get(labels) != Some(now));
        is_same.then(|| metrics.iter().map(is_other).collect())
    }

    fn time(&mut self) {
        let now_ms = self.now_ms();
        for _ in 0..5 {
            if self.engine.next_deadline_ms().is_none_or(|at| at > now_ms) {
                return;
            }
            let store = std::mem::take(&mut self.store);
            let outcome = self.engine.on_time(&context(&store, now_ms));
            self.store = store;
            self.keep(outcome);
        }
        let due = self.engine.next_deadline_ms().map(|at| at - now_ms);
        // A rule that was touched again by what was recorded waits for its turn.
        assert!(due.is_none_or(|at| at > 0), "the engine asks to be called at once, again and again: {due:?}");
    }

    pub(super) fn restart(&mut self) {
        self.former.clear();
        self.engine = Engine::new(Arc::clone(&self.rules), self.options.clone(), self.now_ms());
        let records = self.durable.values().cloned().collect();
        let outcome = self.engine.restore(records, Some(self.last_seen_ms), self.now_ms());
        self.is_up = true;
        self.keep(outcome);
    }

    pub(super) fn reload(&mut self, rule_file: &str) {
        self.former.clear();
        self.rules = rules(rule_file);
        let outcome = self.engine.reload(Arc::clone(&self.rules), self.now_ms());
        self.keep(outcome);
    }

    pub(super) fn keep(&mut self, outcome: Outcome) {
        for (labels, sample) in outcome.samples {
            let shown =
                if belfry_promql::is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            writeln!(self.log, "{}s record {} {shown}", self.second, labels.selector()).expect("written");
            match self.store.iter_mut().find(|series| series.labels == labels) {
                Some(series) => series.samples.push(sample),
                None => self.store.push(Series { labels, samples: vec![sample] }),
            }
        }
        for transition in outcome.transitions {
            match transition.change {
                Change::Put(record) => _ = self.durable.insert(record.id(), *record),
                Change::Remove(id) => assert!(self.durable.remove(&id).is_some(), "an alert ends that did not stand"),
            }
            if let Some(event) = transition.event {
                writeln!(self.log, "{}s {}", self.second, line(&event)).expect("written");
                self.events.push(event);
            }
        }
        let standing: Vec<_> = self.engine.export().iter().map(AlertRecord::id).collect();
        assert_eq!(standing.into_iter().collect::<BTreeSet<_>>(), self.durable.keys().copied().collect());
    }

    /// The states of all alerts, for tests of what is not told.
    pub(super) fn states(&self) -> String {
        let alerts = self.engine.alerts();
        let lines = alerts.iter().map(|alert| {
            let no_data = if alert.no_data_since.is_some() { " without data" } else { "" };
            let name = |label: &str| alert.labels.get(label).map_or("", String::as_str).to_owned();
            let state = serde_json::to_string(&alert.state).expect("JSON");
            format!("{} {} {}{no_data}", alert.rule, name(INSTANCE), state.trim_matches('"'))
        });
        lines.collect::<Vec<_>>().join(", ")
    }
}

/// A store that fails after a number of reads.
struct Failing<'a> {
    store: &'a Vec<Series>,
    reads_left: Cell<usize>,
}

impl SeriesReader for Failing<'_> {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        match self.reads_left.get() {
            0 => Err(ReadError::new("the disk is gone")),
            left => {
                self.reads_left.set(left - 1);
                self.store.select(request)
            }
        }
    }
}

pub(super) fn context(store: &Vec<Series>, now_ms: i64) -> Context<'_> {
    Context { now_ms, reader: store, limits: Limits::default(), stopwatch: &|| Duration::from_millis(5) }
}

/// An event as the tests show it: only what differs from alert to alert.
pub(super) fn line(event: &Event) -> String {
    let name = |value: serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let json = |value: &dyn erased::Json| name(value.json());
    let since = event.starts_at.map(|at| (at.0 - START_MS) / 1_000);
    let ends = event.ends_at.map_or(String::new(), |at| format!(" ends={}s", (at.0 - START_MS) / 1_000));
    let labels: Vec<_> = event
        .labels
        .iter()
        .filter(|(name, _)| name.as_str() != "alertname")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!(
        "{} {} {{{}}} after {} because {} value={} starts={}s{ends}",
        json(&event.event),
        event.rule.as_deref().unwrap_or_default(),
        labels.join(","),
        json(&event.previous),
        json(&event.reason),
        event.value.map_or(f64::NAN, |value| value.0),
        since.unwrap_or(-1),
    )
}

mod erased {
    pub(super) trait Json {
        fn json(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).expect("JSON")
        }
    }
}

/// A line of a script: a series and its value in each second. `5x10` is ten times 5, `^5+2x10` ten values that
/// begin with 5 and grow by 2, `_` no sample, `stale` the end of the series.
pub(super) fn series(line: &str) -> (Labels, Vec<Option<f64>>) {
    let end = line.find('}').map_or_else(|| line.find(' ').unwrap_or(line.len()), |at| at + 1);
    let (selector, values) = line.split_at(end);
    let (name, labels) = selector.split_once('{').unwrap_or((selector, "}"));
    let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    let mut labels = Labels::from_pairs(pairs.map(|(name, value)| (name.trim(), value.trim())));
    labels = labels.with(METRIC_NAME, name.trim());
    let values = values.split_whitespace().flat_map(|text| {
        let (value, times) = text.split_once('x').unwrap_or((text, "1"));
        let number = |text: &str| text.parse::<f64>().expect("a number");
        let (first, step) = match value {
            "_" => (None, 0.0),
            "stale" => (Some(STALE_NAN), 0.0),
            ramp if ramp.starts_with('^') => {
                let at = ramp.rfind(['+', '-']).expect("a step");
                (Some(number(&ramp[1..at])), number(&ramp[at..]))
            }
            value => (Some(number(value)), 0.0),
        };
        let times: u32 = times.parse().expect("a count");
        (0..times).map(move |at| first.map(|first| if step == 0.0 { first } else { first + step * f64::from(at) }))
    });
    (labels, values.collect())
}

/// Runs a script and shows what was told. Lines that begin with `@` do something in that second, before its samples.
pub(super) fn run(world: &mut World, script: &str) {
    let lines: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let (commands, rows): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|line| line.starts_with('@'));
    let rows: Vec<_> = rows.into_iter().map(series).collect();
    let seconds = rows.iter().map(|(_, values)| values.len()).max().unwrap_or_default();
    for second in 0..seconds {
        for command in &commands {
            let (at, what) = command.trim_start_matches('@').split_once(' ').expect("a second and a command");
            if at.parse() == Ok(second) {
                act(world, what);
            }
        }
        let value = |values: &[Option<f64>]| values.get(second).copied().flatten();
        let samples: Vec<_> = rows.iter().map(|(labels, values)| (labels.clone(), value(values))).collect();
        world.step(&samples);
    }
}

fn act(world: &mut World, what: &str) {
    match what.split_once(' ').unwrap_or((what, "")) {
        ("restart", _) => world.restart(),
        ("crash", _) => world.is_up = false,
        ("forget", node) => {
            world.former.clear();
            let outcome = world.engine.forget_node(node, world.now_ms());
            world.keep(outcome);
        }
        ("states", _) => {
            let states = world.states();
            writeln!(world.log, "{}s states: {states}", world.second).expect("written");
        }
        ("health", _) => {
            for rule in world.engine.rule_views() {
                let error = rule.last_error.unwrap_or_default();
                let health = serde_json::to_string(&rule.health).expect("JSON");
                writeln!(world.log, "{}s health of {}: {health} {error}", world.second, rule.rule).expect("written");
            }
        }
        other => panic!("unknown command {other:?}"),
    }
}

//! Drives the rule engine: with arrivals as they become durable, and with time.
//!
//! A thread of its own, because evaluation is computation. What the engine hands out is durable before anybody is
//! told; followers read events from the log, so that nobody can miss one.

mod interests;
mod statistics;

use std::{
    collections::HashMap,
    iter,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    model::{BatchKey, Timestamp},
};
use belfry_promql::{Limits, SeriesReader};
use belfry_store::NodeId;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, info, warn};

pub(crate) use statistics::AlertingStatistics;

use interests::{Interests, News};

use crate::{
    alerts::{AlertRecord, AlertView, Change, Context, Engine, Options, Outcome, RuleView, Tick},
    allocator,
    fleet::Fleet,
    hub::{Arrival, Arrivals, Subscription},
    recorded::Recorder,
    rule_files::{AlertingError, RuleFiles},
    rules::RuleSet,
    series::{self, StoreReader},
    state::{
        State, StateError,
        alerts::{self as alert_table, AlertChange, AlertKey},
        events::{self, NewEvent},
    },
};

/// Commits that wait for evaluation: about a second's worth at full load. What is beyond is evaluated with the next tick.
pub(crate) const ARRIVALS_MAX: usize = 256;
/// Requests of clients that wait.
const REQUESTS_MAX: usize = 64;
/// The longest sleep: what nobody announces is looked for at least this often.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// One evaluation of a rule may look at this much, in some tenths of a second; a fleet of 5,000 nodes has about 3 million series in all.
const SCANNED_MAX: u64 = 100_000_000;
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often what is remembered of nodes that are gone is let go of.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
/// Commits that are evaluated before requests and the time have their turn.
const COMMITS_AT_ONCE: usize = 16;

enum Request {
    Alerts(oneshot::Sender<Vec<AlertView>>),
    Rules(oneshot::Sender<Vec<RuleView>>),
    Reload(oneshot::Sender<Result<usize, AlertingError>>),
    Forget(String),
}

/// How clients reach the engine.
#[derive(Debug, Clone)]
pub(crate) struct AlertingHandle {
    requests: mpsc::Sender<Request>,
    /// The number that the next event will have.
    next_event: watch::Receiver<u64>,
    pub(crate) statistics: Arc<AlertingStatistics>,
}

impl AlertingHandle {
    pub(crate) async fn alerts(&self) -> Vec<AlertView> {
        self.ask(Request::Alerts).await.unwrap_or_default()
    }

    pub(crate) async fn rules(&self) -> Vec<RuleView> {
        self.ask(Request::Rules).await.unwrap_or_default()
    }

    /// Reads the rule files again; says how many rules are in force.
    pub(crate) async fn reload(&self) -> Option<Result<usize, AlertingError>> {
        self.ask(Request::Reload).await
    }

    pub(crate) async fn forget(&self, node: String) {
        // Alerting that has ended forgets everything.
        drop(self.requests.send(Request::Forget(node)).await);
    }

    /// Whether rules are evaluated: the thread takes something up again and again.
    pub(crate) fn is_alive(&self) -> bool {
        self.statistics.is_alive(clock::now())
    }

    /// Tells when there are new events.
    pub(crate) fn next_event(&self) -> watch::Receiver<u64> {
        self.next_event.clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// The engine and all that it needs, before its thread runs.
#[derive(Debug)]
pub(crate) struct Alerting {
    engine: Engine,
    files: RuleFiles,
    reader: StoreReader,
    fleet: Arc<Fleet>,
    state: State,
    requests: mpsc::Receiver<Request>,
    next_event: watch::Sender<u64>,
    statistics: Arc<AlertingStatistics>,
    interests: Interests,
    newest: HashMap<NodeId, BatchKey>,
    recorder: Recorder,
    /// What has happened and is not on disk yet, so that nobody was told. While there is any, nothing is evaluated.
    unwritten: Unwritten,
}

/// Changes of alerts and their events, to be written together.
#[derive(Debug, Default)]
struct Unwritten {
    changes: Vec<AlertChange>,
    events: Vec<NewEvent>,
    /// When the next try is due, after one that failed.
    again_at: Option<Instant>,
}

impl Alerting {
    /// Loads rules and the alerts that stood when the collector ended.
    pub(crate) async fn open(
        (files, rules): (RuleFiles, RuleSet),
        reader: StoreReader,
        fleet: Arc<Fleet>,
        state: State,
        down_since: Option<Timestamp>,
    ) -> Result<(AlertingHandle, Self), AlertingError> {
        let rules = Arc::new(rules);
        info!(rules = rules.len(), "rules loaded");
        let now = clock::now();
        let options = Options { is_made_when_read: series::is_made_when_read, ..Options::default() };
        let mut engine = Engine::new(rules, options, now.as_millis());
        let (rows, next) =
            state.read(|view| Ok::<_, StateError>((alert_table::all(view)?, events::kept(view)?.end))).await?;
        let records: Result<Vec<AlertRecord>, _> = rows.iter().map(|(_, body)| serde_json::from_str(body)).collect();
        let outcome = engine.restore(
            records.map_err(AlertingError::Record)?,
            down_since.map(Timestamp::as_millis),
            now.as_millis(),
        );
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (next_event, watch) = watch::channel(next);
        let statistics = Arc::new(AlertingStatistics::new(now));
        let handle = AlertingHandle { requests, next_event: watch, statistics: Arc::clone(&statistics) };
        let mut alerting = Self {
            engine,
            files,
            reader,
            fleet,
            state,
            requests: inbox,
            next_event,
            statistics,
            interests: Interests::default(),
            newest: HashMap::new(),
            recorder: Recorder::default(),
            unwritten: Unwritten::default(),
        };
        alerting.keep(outcome).await;
        Ok((handle, alerting))
    }

    /// Runs until the subscription ends. Blocking: for a thread of its own, with the runtime for its waits.
    pub(crate) fn run(mut self, mut subscription: Subscription, runtime: &Handle) {
        runtime.block_on(async {
            let mut tidy_at = clock::monotonic() + TIDY_INTERVAL;
            loop {
                self.statistics.note_alive(clock::now());
                allocator::give_back();
                if clock::monotonic() >= tidy_at {
                    self.tidy();
                    tidy_at = clock::monotonic() + TIDY_INTERVAL;
                }
                let sleep = self.sleep();
                // A fixed moment, which requests do not put off.
                let again_at = self.unwritten.again_at;
                // In no order of precedence: however many requests come, arrivals and time have their turn.
                tokio::select! {
                    request = self.requests.recv() => match request {
                        Some(request) => self.serve(request).await,
                        None => return,
                    },
                    // Arrivals wait meanwhile, as many as there is room for: what was lost is evaluated with the next tick.
                    () = sleep_until(again_at.unwrap_or_else(|| Instant::from_std(clock::monotonic()))), if again_at.is_some() => {
                        self.write_down().await;
                        continue;
                    }
                    arrivals = timeout(sleep, subscription.arrivals.recv()), if again_at.is_none() => match arrivals {
                        Ok(Some(first)) => self.arrived(first, &mut subscription).await,
                        Ok(None) => return,
                        Err(_) => {}
                    },
                }
                let lost = subscription.take_lost();
                if lost > 0 {
                    warn!(lost, "evaluation is behind: arrivals skipped");
                    self.statistics.arrivals_lost.fetch_add(lost, Relaxed);
                }
                if self.unwritten.again_at.is_none() {
                    self.pass_time().await;
                }
            }
        });
    }

    fn sleep(&self) -> Duration {
        let now = clock::now().as_millis();
        let until = self.engine.next_deadline_ms().map_or(i64::MAX, |at| at.saturating_sub(now));
        Duration::from_millis(until.max(0).unsigned_abs()).min(SLEEP_MAX)
    }

    /// Evaluates what has arrived, what waits in one go, and keeps the outcome once.
    async fn arrived(&mut self, first: Arrivals, subscription: &mut Subscription) {
        let waiting = || subscription.arrivals.try_recv().ok();
        let mut outcome = Outcome::default();
        for arrivals in iter::once(first).chain(iter::from_fn(waiting)).take(COMMITS_AT_ONCE) {
            for arrival in &*arrivals {
                self.evaluate(arrival, &mut outcome);
            }
            if !outcome.transitions.is_empty() {
                break;
            }
        }
        self.keep(outcome).await;
    }

    fn evaluate(&mut self, arrival: &Arrival, outcome: &mut Outcome) {
        let Some(time) = crate::ingest::newest(&arrival.batch) else { return };
        if let Some(key) = arrival.key {
            let is_late = |newest: &BatchKey| newest.epoch == key.epoch && newest.sequence >= key.sequence;
            // What comes late says nothing about now. By number: a clock can be set back.
            if self.newest.get(&arrival.node).is_some_and(is_late) {
                return;
            }
            self.newest.insert(arrival.node, key);
        }
        let name = match arrival.node {
            NodeId::COLLECTOR => None,
            node => match self.fleet.name(node) {
                Some(name) => Some(name),
                None => return,
            },
        };
        // All rules of one node after the other: what they read of it is then still in the cache.
        for tick in &arrival.batch.ticks {
            let News { interest, changed, gone } = self.interests.of(&self.engine, arrival.node, tick);
            let told = [(Some(interest), changed.as_deref()), (gone, None)];
            for (interest, changed) in told.into_iter().filter_map(|(interest, changed)| Some((interest?, changed))) {
                if interest.is_empty() && self.engine.is_current(&interest) {
                    continue;
                }
                // The collector's own series are about many nodes at once.
                let Some(name) = &name else {
                    self.engine.touch(&interest);
                    continue;
                };
                let began = clock::monotonic();
                let now_ms = clock::now().as_millis();
                let tick = Tick { node: name.as_str(), time_ms: tick.time.as_millis(), interest: &interest, changed };
                let found = self.engine.on_tick(&tick, &context(&self.reader, now_ms, &|| began.elapsed()));
                outcome.transitions.extend(found.transitions);
                outcome.samples.extend(found.samples);
                self.statistics.note_evaluation(began.elapsed());
            }
        }
        let lag = clock::now().millis_since(time).max(0).unsigned_abs();
        self.statistics.lag_ms.store(lag, Relaxed);
    }

    /// Forgets nodes that memory has nothing of: should one come back, all its series are news.
    fn tidy(&mut self) {
        self.interests.keep(|node| self.reader.head().contains(node));
        self.newest.retain(|&node, _| self.fleet.contains(node));
    }

    async fn pass_time(&mut self) {
        let now = clock::now().as_millis();
        if self.engine.next_deadline_ms().is_some_and(|at| at <= now) {
            let began = clock::monotonic();
            let outcome = self.engine.on_time(&context(&self.reader, now, &|| began.elapsed()));
            self.keep(outcome).await;
        }
    }

    async fn serve(&mut self, request: Request) {
        // Whoever asked may have gone meanwhile.
        match request {
            Request::Alerts(reply) => drop(reply.send(self.engine.alerts())),
            Request::Rules(reply) => drop(reply.send(self.engine.rule_views())),
            Request::Reload(reply) => {
                let result = self.reload().await;
                drop(reply.send(result));
            }
            Request::Forget(node) => {
                let outcome = self.engine.forget_node(&node, clock::now().as_millis());
                // What ended although it holds begins anew if the node still speaks.
                self.interests = Interests::default();
                self.keep(outcome).await;
            }
        }
    }

    async fn reload(&mut self) -> Result<usize, AlertingError> {
        let loaded = self.files.load();
        let refused = loaded.as_ref().err().map(|error| ErrorChain(error).to_string());
        self.statistics.set_rules_refused(refused);
        let rules = Arc::new(loaded?);
        let count = rules.len();
        let outcome = self.engine.reload(rules, clock::now().as_millis());
        self.keep(outcome).await;
        Ok(count)
    }

    /// Makes an outcome durable and lets followers know. What cannot be written now waits: an alert must not be forgotten.
    async fn keep(&mut self, outcome: Outcome) {
        if !outcome.samples.is_empty() {
            let left_out = self.recorder.record(outcome.samples, self.reader.head());
            if left_out > 0 {
                warn!(left_out, "recording rules make too many names");
            }
        }
        if outcome.transitions.is_empty() {
            return;
        }
        let Unwritten { changes, events: new, .. } = &mut self.unwritten;
        for transition in outcome.transitions {
            match row(&transition.change) {
                Ok(change) => changes.push(change),
                Err(error) => error!(%error, "alert cannot be written down"),
            }
            if let Some(event) = transition.event {
                let time = Timestamp::from_millis(event.time.0);
                match event.body().map(|body| NewEvent::new(time, event.schema, body)) {
                    Ok(Ok(event)) => new.push(event),
                    Ok(Err(error)) => error!(error = %ErrorChain(&error), "event cannot be logged"),
                    Err(error) => error!(%error, "event cannot be written down"),
                }
            }
        }
        self.write_down().await;
    }

    async fn write_down(&mut self) {
        let (events, changes) = (self.unwritten.events.clone(), self.unwritten.changes.clone());
        let count = events.len() as u64;
        match self.state.write(move |transaction| events::append(transaction, &events, &changes)).await {
            Ok(range) => {
                self.next_event.send_replace(range.end);
            }
            Err(error) if error.is_retryable() => {
                warn!(error = %ErrorChain(&error), "alerts cannot be written down: trying again");
                self.unwritten.again_at = Some(Instant::from_std(clock::monotonic() + RETRY_INTERVAL));
                return;
            }
            // The database ends the process for it.
            Err(error) => error!(error = %ErrorChain(&error), "alerts cannot be written down"),
        }
        self.statistics.events.fetch_add(count, Relaxed);
        self.unwritten = Unwritten::default();
        self.count();
    }

    fn count(&self) {
        let mut by_node: HashMap<String, (u64, u64)> = HashMap::new();
        for (node, state) in self.engine.states_of_nodes() {
            let counts = match by_node.get_mut(node) {
                Some(counts) => counts,
                None => by_node.entry(node.to_string()).or_default(),
            };
            match state {
                crate::alerts::State::Pending => counts.1 += 1,
                _ => counts.0 += 1,
            }
        }
        self.statistics.set_by_node(by_node);
    }
}

fn context<'a>(reader: &'a dyn SeriesReader, now_ms: i64, stopwatch: &'a dyn Fn() -> Duration) -> Context<'a> {
    let limits = Limits { scanned_max: SCANNED_MAX, ..Limits::default() };
    Context { now_ms, reader, limits, stopwatch }
}

fn row(change: &Change) -> Result<AlertChange, serde_json::Error> {
    Ok(match change {
        Change::Put(record) => {
            let id = record.id();
            AlertChange::Put { key: key(id), body: serde_json::to_string(record)? }
        }
        Change::Remove(id) => AlertChange::Delete { key: key(*id) },
    })
}

fn key(id: crate::alerts::AlertId) -> AlertKey {
    AlertKey { rule: id.rule.to_string(), fingerprint: id.alert.to_string() }
}

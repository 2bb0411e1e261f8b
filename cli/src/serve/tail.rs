//! Live samples, as they become durable.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use belfry_common::{
    clock,
    model::{Layout, Reason, SeriesDefinition, Timestamp},
};
use belfry_promql::{Labels, METRIC_NAME};
use belfry_store::{NodeId, ReadLimits, Sample, Selected, Selection, TimeRange};
use serde_json::json;
use tokio::task::block_in_place;

use super::{Reply, ServeError};
use crate::{
    api::{self, TailLine},
    hub::Arrival,
    listen::Member,
    series::{self, Joined, dcgm::Alias, wishes::Wishes},
    services::Services,
};

/// Commits that wait for a slow reader.
const ARRIVALS_MAX: usize = 256;
/// Lines are sent when this much has come together, or when there is no more.
const LINES_BYTES: usize = 64 * 1024;

/// Which samples are wanted.
#[derive(Debug)]
struct Wanted {
    wishes: Wishes,
    node: Option<String>,
}

impl Wanted {
    fn parse(selectors: &[String], node: Option<&str>) -> Result<Self, ServeError> {
        let wishes = Wishes::parse(selectors).map_err(|error| ServeError::Invalid(error.to_string()))?;
        Ok(Self { wishes, node: node.map(str::to_string) })
    }

    /// The labels under which a series is wanted; those by which it is itself come first.
    fn shown(&self, joined: &Joined<'_>, definition: &SeriesDefinition) -> Vec<(Labels, Option<&'static Alias>)> {
        let mut all = joined.labels(definition);
        all.retain(|(labels, _)| self.matches(labels));
        all
    }

    fn matches(&self, labels: &Labels) -> bool {
        let is_on_node = self.node.as_deref().is_none_or(|node| labels.value(series::INSTANCE) == node);
        is_on_node && self.wishes.matches(labels)
    }
}

/// Sends samples until the client goes.
pub(super) async fn run(
    member: &Member,
    selectors: &[String],
    node: Option<&str>,
    since_ms: Option<u64>,
    reply: &mut Reply,
) -> Result<(), ServeError> {
    let services = &member.services;
    let wanted = Wanted::parse(selectors, node)?;
    if let Some(node) = node
        && services.fleet.by_name(node).is_none()
    {
        return Err(ServeError::NotFound(format!("no node is called {node:?}; `belfry nodes` lists them")));
    }
    // Subscribed before the past is read, so that nothing falls between; what is in both is told apart by its time.
    let mut subscription = services.hub.subscribe(ARRIVALS_MAX);
    let mut tail = Tail { services, wanted, layouts: HashMap::new(), known_places: 0, shown: Shown::default() };
    if let Some(since_ms) = since_ms {
        tail.past(since_ms, reply).await?;
        // The writer may just be on its way from the head to the hub with one more.
        tail.shown.commits = subscription.arrivals.len() + 1;
    }
    loop {
        let arrivals = tokio::select! {
            biased;
            () = member.token.cancelled() => return Ok(()),
            arrivals = subscription.arrivals.recv() => arrivals,
            () = reply.closed() => return Ok(()),
        };
        let Some(arrivals) = arrivals else { return Ok(()) };
        let mut lines = String::new();
        for arrival in &*arrivals {
            tail.arrived(arrival, &mut lines)?;
            if lines.len() >= LINES_BYTES {
                reply.bytes(std::mem::take(&mut lines).as_bytes()).await?;
            }
        }
        if !lines.is_empty() {
            reply.bytes(lines.as_bytes()).await?;
        }
        tail.shown.pass_commit();
        let lost = subscription.take_lost();
        if lost > 0 {
            let note = json!({"time": api::time(clock::now()), "lost_batches": lost});
            reply.bytes(format!("{note}\n").as_bytes()).await?;
        }
    }
}

struct Tail<'a> {
    services: &'a Services,
    wanted: Wanted,
    /// The places of each layout that are wanted, with their labels ready.
    layouts: HashMap<(NodeId, usize), Places>,
    known_places: usize,
    shown: Shown,
}

/// Up to which time the past has shown each series, for as long as arrivals may have been among the past as well. What comes later
/// is new, however old its time.
#[derive(Debug, Default)]
struct Shown {
    until: HashMap<(NodeId, Arc<SeriesDefinition>), Timestamp>,
    /// Commits that may hold what was shown.
    commits: usize,
}

impl Shown {
    fn note(&mut self, node: NodeId, definition: &Arc<SeriesDefinition>, samples: &[Sample]) {
        if let Some(last) = samples.last() {
            self.until.insert((node, Arc::clone(definition)), last.time);
        }
    }

    fn has(&self, node: NodeId, definition: &Arc<SeriesDefinition>, time: Timestamp) -> bool {
        self.commits > 0 && self.until.get(&(node, Arc::clone(definition))).is_some_and(|&until| time <= until)
    }

    fn pass_commit(&mut self) {
        self.commits = self.commits.saturating_sub(1);
        if self.commits == 0 {
            self.until = HashMap::new();
        }
    }
}

#[derive(Debug, Clone)]
struct Places {
    /// Keeps the layout alive, so that no other takes its address.
    _layout: Arc<Layout>,
    places: Arc<[Place]>,
}

/// A series that is wanted, under one name.
#[derive(Debug)]
struct Place {
    /// In its layout.
    place: usize,
    metric: String,
    labels: BTreeMap<String, String>,
    alias: Option<&'static Alias>,
}

/// Layouts and series in them that are remembered; beyond that all are found again.
const PLACES_MAX: usize = 200_000;

/// Of one node's past: half a day of 500 series, which takes half a gigabyte until it is sent.
const PAST_LIMITS: ReadLimits = ReadLimits { samples: 20_000_000, ..ReadLimits::NONE };

impl Tail<'_> {
    async fn past(&mut self, since_ms: u64, reply: &mut Reply) -> Result<(), ServeError> {
        let now = clock::now();
        let after = now.plus_millis(-i64::try_from(since_ms).unwrap_or(i64::MAX));
        let mut nodes = self.services.fleet.names();
        nodes.push((NodeId::COLLECTOR, "".into()));
        for (node, name) in nodes {
            let range = TimeRange { after, until: now };
            // What is not in memory is read from files.
            for lines in block_in_place(|| self.past_of(node, &name, range))? {
                reply.bytes(lines.as_bytes()).await?;
            }
        }
        Ok(())
    }

    /// One node's past in the order of time, in pieces to be sent.
    fn past_of(&mut self, node: NodeId, name: &str, range: TimeRange) -> Result<Vec<String>, ServeError> {
        let Services { head, reader, catalogue, .. } = self.services;
        let joined = Joined::new(head, catalogue, (node, name), self.wanted.wishes.with_dcgm(), range.until);
        let filter = |definition: &SeriesDefinition| !self.wanted.shown(&joined, definition).is_empty();
        let selection = Selection { filter: &filter, range, ..Selection::ALL };
        let mut samples = Vec::new();
        let mut shown: Vec<Place> = Vec::new();
        let mut of_series = |_, definition: &Arc<SeriesDefinition>, of_series: &[Sample]| {
            for place in self.wanted.shown(&joined, definition).into_iter().map(|shown| Place::new(0, shown)) {
                samples.extend(of_series.iter().map(|sample| (sample.time, shown.len(), sample.value)));
                shown.push(place);
            }
            self.shown.note(node, definition, of_series);
            ControlFlow::Continue(())
        };
        let _ = reader.visit(&[node], &selection, PAST_LIMITS, &mut Selected::default(), &mut of_series)?;
        samples.sort_by_key(|&(time, place, _)| (time, place));
        let mut pieces = vec![String::new()];
        for (time, place, value) in samples {
            let Some(place) = shown.get(place) else { continue };
            if pieces.last().is_none_or(|lines| lines.len() >= LINES_BYTES) {
                pieces.push(String::new());
            }
            if let Some(lines) = pieces.last_mut() {
                place.write_line(time, value, lines)?;
            }
        }
        pieces.retain(|lines| !lines.is_empty());
        Ok(pieces)
    }

    fn arrived(&mut self, arrival: &Arrival, lines: &mut String) -> Result<(), ServeError> {
        for tick in &arrival.batch.ticks {
            let places = self.places(arrival.node, &tick.layout);
            for place in &*places {
                let reading = tick.values.get(place.place).zip(tick.layout.series.get(place.place));
                let Some((raw, definition)) = reading else { continue };
                if self.shown.has(arrival.node, definition, tick.time) {
                    continue;
                }
                place.write_line(tick.time, raw.value(definition.metric.resolution).map_err(Some), lines)?;
            }
        }
        Ok(())
    }

    fn places(&mut self, node: NodeId, layout: &Arc<Layout>) -> Arc<[Place]> {
        let key = (node, Arc::as_ptr(layout) as usize);
        if let Some(known) = self.layouts.get(&key) {
            return Arc::clone(&known.places);
        }
        let name = self.services.fleet.node(node).map(|node| node.name.to_string()).unwrap_or_default();
        let Services { head, catalogue, .. } = self.services;
        let joined = Joined::new(head, catalogue, (node, &name), self.wanted.wishes.with_dcgm(), clock::now());
        let places = layout.series.iter().enumerate().flat_map(|(place, definition)| {
            self.wanted.shown(&joined, definition).into_iter().map(move |shown| Place::new(place, shown))
        });
        let places: Arc<[Place]> = places.collect();
        self.known_places += places.len() + 1;
        if self.known_places > PLACES_MAX {
            self.layouts.clear();
            self.known_places = places.len() + 1;
        }
        self.layouts.insert(key, Places { _layout: Arc::clone(layout), places: Arc::clone(&places) });
        places
    }
}

impl Place {
    fn new(place: usize, (labels, alias): (Labels, Option<&'static Alias>)) -> Self {
        let shown = labels.iter().filter(|&(name, _)| name != METRIC_NAME);
        let map = shown.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self { place, metric: labels.value(METRIC_NAME).to_owned(), labels: map, alias }
    }

    fn write_line(
        &self,
        time: Timestamp,
        value: Result<f64, Option<Reason>>,
        lines: &mut String,
    ) -> Result<(), ServeError> {
        let value = value.map(|value| self.alias.map_or(value, |alias| alias.value(value)));
        let (value, reason) = match value {
            Ok(value) if value.is_finite() => (json!(value), None),
            Ok(value) if value.is_nan() => (json!("NaN"), None),
            Ok(value) => (json!(if value > 0.0 { "+Inf" } else { "-Inf" }), None),
            Err(Some(reason)) => (serde_json::Value::Null, Some(reason.as_str().to_string())),
            Err(None) => (serde_json::Value::Null, Some("ended".to_string())),
        };
        let (metric, labels) = (self.metric.clone(), self.labels.clone());
        let line = TailLine { time: api::time(time), metric, labels, value, reason };
        let json = serde_json::to_string(&line).map_err(|error| ServeError::Failed(error.to_string()))?;
        lines.push_str(&json);
        lines.push('\n');
        Ok(())
    }
}

//! The store's head as the query engine sees it: every series with `instance` and `job`, missing readings as stale markers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use belfry_common::model::{SeriesDefinition, Timestamp};
use belfry_promql::{
    Labels, METRIC_NAME, MatchOp, Matcher, ReadError, ReadRequest, STALE_NAN, Sample, Series, SeriesReader,
};
use belfry_store::{Head, NodeId, Selection, SeriesData, TimeRange};

use crate::fleet::Fleet;

/// The label that names the node.
pub(crate) const INSTANCE: &str = "instance";
/// The label and value that every series carries, as those of a scrape job do.
pub(crate) const JOB: (&str, &str) = ("job", "belfry");

/// Reads the head on behalf of the query engine.
#[derive(Debug, Clone)]
pub(crate) struct HeadReader {
    head: Arc<Head>,
    fleet: Arc<Fleet>,
    label_sets: Arc<Mutex<LabelSets>>,
}

impl HeadReader {
    pub(crate) fn new(head: Arc<Head>, fleet: Arc<Fleet>) -> Self {
        Self { head, fleet, label_sets: Arc::default() }
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The nodes whose series can match, with their names. The collector's own series name other nodes as their instance.
    fn candidates(&self, instance: &[&Matcher]) -> Vec<(NodeId, Arc<str>)> {
        let named = instance.iter().find_map(|matcher| matcher.possible_values());
        let mut nodes: Vec<(NodeId, Arc<str>)> = match named {
            Some(names) => names.iter().filter_map(|name| self.fleet.by_name(name)).collect(),
            None => self.fleet.names(),
        };
        nodes.retain(|(_, name)| instance.iter().all(|matcher| matcher.matches(name)));
        nodes.push((NodeId::COLLECTOR, Arc::from("")));
        nodes
    }
}

impl SeriesReader for HeadReader {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let mut metric = None;
        let (mut instance, mut others) = (Vec::new(), Vec::new());
        for matcher in request.matchers {
            match matcher.name() {
                METRIC_NAME if matcher.op() == MatchOp::Equal && metric.is_none() => metric = Some(matcher.value()),
                INSTANCE => instance.push(matcher),
                name if name == JOB.0 && matcher.matches(JOB.1) => {}
                name if name == JOB.0 => return Ok(Vec::new()),
                _ => others.push(matcher),
            }
        }
        let range = TimeRange {
            after: Timestamp::from_millis(request.start_ms),
            until: Timestamp::from_millis(request.end_ms),
        };
        let mut found = Vec::new();
        for (node, name) in self.candidates(&instance) {
            let is_own = node == NodeId::COLLECTOR;
            let filter = |series: &SeriesDefinition| {
                (!is_own || instance.iter().all(|matcher| matcher.matches(label(series, INSTANCE, true))))
                    && others.iter().all(|matcher| matcher.matches(label(series, matcher.name(), is_own)))
            };
            let selection = Selection { metric, filter: &filter, range, newest_only: request.last_only };
            let selected = self.head.select(node, &selection);
            let mut label_sets = self.label_sets.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(selected.iter().map(|data| series(data, label_sets.of(&data.definition, node, &name))));
        }
        Ok(found)
    }
}

/// The value of a label; empty if the series has none of that name.
fn label<'a>(series: &'a SeriesDefinition, name: &str, is_own: bool) -> &'a str {
    if name == METRIC_NAME {
        return &series.metric.name;
    }
    let mut labels = series.metric.label_names.iter().zip(&series.label_values);
    labels.find(|(known, _)| shown_name(known, is_own) == name).map_or("", |(_, value)| value)
}

/// A node must not pass its series off as another's: labels that belong to the collector are moved aside, as Prometheus does.
fn shown_name(name: &str, is_own: bool) -> &str {
    match name {
        INSTANCE if !is_own => "exported_instance",
        "job" if !is_own => "exported_job",
        name => name,
    }
}

/// All labels of a series of the node with this name.
pub(crate) fn labels(series: &SeriesDefinition, node: &str, is_own: bool) -> Labels {
    let given = series.metric.label_names.iter().zip(&series.label_values);
    let given = given.map(|(name, value)| (shown_name(name, is_own), &**value));
    let instance = (!is_own).then_some((INSTANCE, node));
    Labels::from_pairs([(METRIC_NAME, &*series.metric.name), JOB].into_iter().chain(instance).chain(given))
}

fn series(data: &SeriesData, labels: Labels) -> Series {
    let samples = data
        .samples
        .iter()
        .map(|sample| Sample { time_ms: sample.time.as_millis(), value: sample.value.unwrap_or(STALE_NAN) })
        .collect();
    Series { labels, samples }
}

/// Label sets of series that were read before. Rules read the same series each second, and making a set costs more than
/// all else that reading its newest value does.
#[derive(Debug, Default)]
struct LabelSets {
    /// By the address of the definition. The weak reference keeps the address from being given to another.
    sets: HashMap<(NodeId, usize), (Weak<SeriesDefinition>, Labels)>,
}

/// About 40 series of each of 5,000 nodes. Beyond that all are forgotten and made again.
const LABEL_SETS_MAX: usize = 200_000;

impl LabelSets {
    fn of(&mut self, definition: &Arc<SeriesDefinition>, node: NodeId, name: &str) -> Labels {
        let key = (node, Arc::as_ptr(definition) as usize);
        if let Some((_, labels)) = self.sets.get(&key) {
            return labels.clone();
        }
        if self.sets.len() >= LABEL_SETS_MAX {
            self.sets.clear();
        }
        let labels = labels(definition, name, node == NodeId::COLLECTOR);
        self.sets.insert(key, (Arc::downgrade(definition), labels.clone()));
        labels
    }
}

//! The store as the query engine sees it: every series with `instance` and `job`, missing readings as stale markers.

pub(crate) mod dcgm;
mod jobs;
pub(crate) mod origin;
#[cfg(test)]
mod scripts;
mod tiers;
mod wanted;
pub(crate) mod wishes;
mod xid;

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZero,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
};

use belfry_common::model::{SeriesDefinition, Timestamp};
use belfry_promql::{
    Labels, METRIC_NAME, Matcher, ReadError, ReadRequest, STALE_NAN, Sample, Samples, Series, SeriesReader, Summary,
};
use belfry_store::{
    Condition, Grain, Head, NodeId, Pick, ReadLimits, Reader, Selected, Selection, TimeRange, is_missing,
};
use rustc_hash::FxHashMap;

use crate::{fleet::Fleet, gpu_jobs::GpuJobs, xid::Catalogue};
use dcgm::{Alias, Fact, Facts, Gathered};
use wanted::Wanted;

/// The label that names the node.
pub(crate) const INSTANCE: &str = "instance";
/// The label and value that every series carries, as those of a scrape job do.
pub(crate) const JOB: (&str, &str) = ("job", "belfry");

/// Reads the store on behalf of the query engine.
#[derive(Debug, Clone)]
pub(crate) struct StoreReader {
    store: Reader,
    fleet: Arc<Fleet>,
    catalogue: Arc<Catalogue>,
    gpu_jobs: Arc<GpuJobs>,
    label_sets: Arc<Mutex<LabelSets>>,
    /// Memory of the reader that reads now; another one at the same time makes its own.
    selected: Arc<Mutex<Selected>>,
    limits: ReadLimits,
}

/// Gets what was made of each series, with its node and that node's name.
type NamedVisitor<'a, T> = &'a mut dyn FnMut(NodeId, &str, &Arc<SeriesDefinition>, &T) -> ControlFlow<()>;

/// Makes something of the samples of a series, as the query engine sees them.
type Reduce<'a, T> = &'a (dyn Fn(Samples<'_>, &mut T) + Sync);

/// Gets each series with what was made of it.
type Visitor<'a, T> = &'a mut dyn FnMut(&Labels, &T) -> ControlFlow<()>;

/// What one query may read from disk. The engine counts what it keeps in memory; this bounds what it lets pass: a day of one metric of
/// 5,000 nodes with 8 GPUs is 3.5 billion samples and 3 GB.
fn read_limits() -> ReadLimits {
    ReadLimits { series: 2_000_000, samples: 4_000_000_000, bytes: 8 * 1024 * 1024 * 1024, threads: 1 }
}

/// Rules read far less of a node; who once reads much more gives the memory back.
const SELECTED_BYTES_KEPT: usize = 4 * 1024 * 1024;

/// Facts of GPUs come once a minute.
const FACTS_MS: i64 = 5 * 60_000;

impl StoreReader {
    pub(crate) fn new(store: Reader, fleet: Arc<Fleet>, catalogue: Arc<Catalogue>, gpu_jobs: Arc<GpuJobs>) -> Self {
        Self {
            store,
            fleet,
            catalogue,
            gpu_jobs,
            label_sets: Arc::default(),
            selected: Arc::default(),
            limits: read_limits(),
        }
    }

    /// The same one, for a thread that gives way to all others: it may have every core that nobody needs.
    pub(crate) fn with_all_cores(mut self) -> Self {
        self.limits.threads = thread::available_parallelism().map_or(1, NonZero::get);
        self
    }

    pub(crate) fn head(&self) -> &Head {
        self.store.head()
    }

    /// The nodes whose series can match, with their names. The collector's own series name other nodes as their instance.
    fn candidates(&self, instance: &[&Matcher]) -> Vec<(NodeId, Arc<str>)> {
        let listed = instance.iter().enumerate().find_map(|(at, matcher)| Some((at, matcher.possible_values()?)));
        let (by_list, mut nodes): (_, Vec<(NodeId, Arc<str>)>) = match listed {
            Some((at, names)) => (Some(at), names.iter().filter_map(|name| self.fleet.by_name(name)).collect()),
            None => (None, self.fleet.names()),
        };
        let others = || instance.iter().enumerate().filter(|(at, _)| Some(*at) != by_list);
        nodes.retain(|(_, name)| others().all(|(_, matcher)| matcher.matches(name)));
        nodes.push((NodeId::COLLECTOR, Arc::from("")));
        nodes.sort_unstable_by_key(|(node, _)| *node);
        nodes.dedup_by_key(|(node, _)| *node);
        nodes
    }

    /// The value of a label, of the series itself or of what is joined to it; empty if there is none of that name.
    fn label<'a>(&'a self, series: &'a SeriesDefinition, name: &str, is_own: bool) -> &'a str {
        match label(series, name, is_own) {
            "" => xid::label(&self.catalogue, series, name).unwrap_or_default(),
            value => value,
        }
    }
}

impl SeriesReader for StoreReader {
    fn select(&self, request: &ReadRequest<'_>) -> Result<Vec<Series>, ReadError> {
        let mut found = Vec::new();
        self.visit(request, &mut |labels, samples| {
            found.push(Series { labels: labels.clone(), samples: samples.iter().collect() });
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn summarises(&self, start_ms: i64, end_ms: i64) -> bool {
        let [after, until] = [start_ms, end_ms].map(Timestamp::from_millis);
        !self.store.rows_alone(TimeRange { after, until }).is_empty()
    }

    fn visit(
        &self,
        request: &ReadRequest<'_>,
        visitor: &mut dyn FnMut(&Labels, Samples<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let copied = |samples: Samples<'_>, (times, values): &mut (Vec<i64>, Vec<f64>)| {
            times.clear();
            values.clear();
            times.extend_from_slice(samples.times_ms());
            values.extend_from_slice(samples.values());
        };
        let mut visitor = |labels: &_, (times, values): &(Vec<_>, Vec<_>)| visitor(labels, Samples::new(times, values));
        self.read(request, &copied, &mut visitor)
    }

    fn reduce(
        &self,
        request: &ReadRequest<'_>,
        reduce: belfry_promql::Reduce<'_>,
        visitor: &mut dyn FnMut(&Labels, &[f64]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let reduce = |samples: Samples<'_>, values: &mut Vec<f64>| {
            values.clear();
            reduce(samples, values);
        };
        self.read(request, &reduce, &mut |labels, values: &Vec<f64>| visitor(labels, values))
    }
}

impl StoreReader {
    /// Visits what `reduce` makes of the series that are asked for.
    fn read<T: Default + Send>(
        &self,
        request: &ReadRequest<'_>,
        reduce: Reduce<'_, T>,
        visitor: Visitor<'_, T>,
    ) -> Result<(), ReadError> {
        let Some(wanted) = Wanted::of(request) else { return Ok(()) };
        let mut selected = std::mem::take(&mut *self.selected.lock().unwrap_or_else(PoisonError::into_inner));
        let nodes = self.candidates(&wanted.instance);
        let mut flow = self.read_stored(&wanted, &nodes, &mut selected, (reduce, visitor))?;
        let mut reduced = T::default();
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let mut made = |labels: &Labels, samples: &[Sample]| {
            times.clear();
            values.clear();
            times.extend(samples.iter().map(|sample| sample.time_ms));
            values.extend(samples.iter().map(|sample| sample.value));
            reduce(Samples::new(&times, &values), &mut reduced);
            visitor(labels, &reduced)
        };
        if flow.is_continue() && wanted.may_be(jobs::METRIC) {
            flow = self.visit_jobs(&wanted, &nodes, &mut made);
        }
        for alias in wanted.aliases() {
            if flow.is_continue() {
                flow = self.visit_alias(alias, &wanted, &nodes, &mut selected, &mut made)?;
            }
        }
        if selected.bytes() <= SELECTED_BYTES_KEPT {
            *self.selected.lock().unwrap_or_else(PoisonError::into_inner) = selected;
        }
        Ok(())
    }

    fn read_stored<T: Default + Send>(
        &self,
        wanted: &Wanted<'_>,
        nodes: &[(NodeId, Arc<str>)],
        selected: &mut Selected,
        (reduce, visitor): (Reduce<'_, T>, Visitor<'_, T>),
    ) -> Result<ControlFlow<()>, ReadError> {
        let reduce = |samples: belfry_store::Samples<'_>, reduced: &mut T| with_markers(samples, reduce, reduced);
        // The collector's own series, which name other nodes as their instance, come first.
        let (own, others) = nodes.split_at(nodes.partition_point(|(node, _)| *node == NodeId::COLLECTOR));
        for (is_own, nodes) in [(true, own), (false, others)] {
            let filter = |series: &SeriesDefinition| {
                (!is_own || wanted.instance.iter().all(|matcher| matcher.matches(label(series, INSTANCE, true))))
                    && wanted.others.iter().all(|matcher| matcher.matches(self.label(series, matcher.name(), is_own)))
            };
            let asked = wanted.others.iter().filter(|matcher| is_as_stored(matcher.name(), is_own));
            let asked: Vec<_> =
                asked.map(|matcher| (matcher.name(), move |value: &str| matcher.matches(value))).collect();
            let conditions: Vec<Condition<'_>> = asked.iter().map(|(label, fits)| Condition { label, fits }).collect();
            let selection = Selection { conditions: &conditions, ..wanted.selection(wanted.metric, &filter) };
            let mut visitor = |node, name: &str, definition: &_, reduced: &T| {
                let mut label_sets = self.label_sets.lock().unwrap_or_else(PoisonError::into_inner);
                let labels = label_sets.of(definition, node, name, &self.catalogue);
                drop(label_sets);
                visitor(&labels, reduced)
            };
            let asked = (&selection, wanted.summary);
            let flow = self.reduce_nodes(nodes, asked, selected, (&reduce, &mut visitor))?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_jobs(
        &self,
        wanted: &Wanted<'_>,
        nodes: &[(NodeId, Arc<str>)],
        visitor: &mut dyn FnMut(&Labels, &[Sample]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for (node, name) in nodes {
            for (labels, samples) in jobs::series(&self.gpu_jobs, *node, name, wanted.range, wanted.pick) {
                if wanted.others.iter().all(|matcher| matcher.matches(labels.value(matcher.name()))) {
                    visitor(&labels, &samples)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn visit_alias(
        &self,
        alias: &Alias,
        wanted: &Wanted<'_>,
        nodes: &[(NodeId, Arc<str>)],
        selected: &mut Selected,
        visitor: &mut dyn FnMut(&Labels, &[Sample]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let others = nodes.get(nodes.partition_point(|(node, _)| *node == NodeId::COLLECTOR)..).unwrap_or_default();
        let facts = self.gpu_facts(others, wanted.range.until, selected)?;
        let none = Facts::default();
        let mut gathered: BTreeMap<NodeId, Gathered> = BTreeMap::new();
        let filter = |series: &SeriesDefinition| alias.takes(series);
        let selection = wanted.selection(Some(alias.metric), &filter);
        let asked = (&selection, wanted.summary);
        let _ = self.visit_nodes(others, asked, selected, &mut |node, name, definition, found| {
            let labels = alias.labels(definition, name, facts.get(&node).unwrap_or(&none));
            if wanted.others.iter().all(|matcher| matcher.matches(labels.value(matcher.name()))) {
                let is_counted = wanted.summary == Summary::Count;
                gathered.entry(node).or_default().add(alias, labels, found.iter().map(sample), is_counted);
            }
            ControlFlow::Continue(())
        })?;
        for (labels, samples) in gathered.into_values().flat_map(Gathered::into_series) {
            if visitor(&labels, &samples).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What nodes said of their GPUs, as of then; for some minutes after a node has stopped, too.
    fn gpu_facts(
        &self,
        nodes: &[(NodeId, Arc<str>)],
        until: Timestamp,
        selected: &mut Selected,
    ) -> Result<BTreeMap<NodeId, Facts>, ReadError> {
        let mut facts: BTreeMap<NodeId, Facts> = BTreeMap::new();
        let asked = (&facts_selection(until), Summary::Last);
        let _ = self.visit_nodes(nodes, asked, selected, &mut |node, _, definition, _| {
            facts.entry(node).or_default().extend([Fact::of(definition)]);
            ControlFlow::Continue(())
        })?;
        Ok(facts)
    }
}

fn facts_selection(until: Timestamp) -> Selection<'static> {
    let range = TimeRange { after: until.plus_millis(-FACTS_MS), until };
    Selection {
        metric: Some("gpu_info"),
        conditions: &[],
        filter: &|_| true,
        range,
        pick: Pick::Newest,
        grain: Grain::Raw,
    }
}

/// What a node in memory last said of its GPUs.
fn gpu_facts(head: &Head, node: NodeId, until: Timestamp, selected: &mut Selected) -> Facts {
    head.select(node, &facts_selection(until), selected);
    selected.iter().map(|(definition, _)| Fact::of(definition)).collect()
}

/// Whether what is asked of a label is asked of the series' own label of that name.
fn is_as_stored(name: &str, is_own: bool) -> bool {
    !xid::is_joined(name) && (is_own || !matches!(name, "exported_instance" | "exported_job"))
}

/// Whether series of this name are not in any tick, but made from others when they are read.
pub(crate) fn is_made_when_read(metric: &str) -> bool {
    metric == jobs::METRIC || metric.starts_with(dcgm::PREFIX)
}

fn sample(sample: &belfry_store::Sample) -> Sample {
    Sample { time_ms: sample.time.as_millis(), value: sample.value.unwrap_or(STALE_NAN) }
}

/// Hands on the store's samples with stale markers where there is no value.
fn with_markers<T>(samples: belfry_store::Samples<'_>, reduce: Reduce<'_, T>, reduced: &mut T) {
    let values = samples.values();
    if samples.may_miss() {
        let marked = |&value| if is_missing(value) { STALE_NAN } else { value };
        let values: Vec<f64> = values.iter().map(marked).collect();
        reduce(Samples::new(samples.times_ms(), &values), reduced);
    } else {
        reduce(Samples::new(samples.times_ms(), values), reduced);
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

/// What is joined to the series of a node when they are shown one by one.
#[derive(Debug)]
pub(crate) struct Joined<'a> {
    catalogue: &'a Catalogue,
    node: &'a str,
    is_own: bool,
    /// What DCGM's names need to know of the GPUs; nothing if nobody asks for them.
    facts: Option<Facts>,
}

impl<'a> Joined<'a> {
    pub(crate) fn new(
        head: &Head,
        catalogue: &'a Catalogue,
        (node, name): (NodeId, &'a str),
        with_dcgm: bool,
        until: Timestamp,
    ) -> Self {
        let facts = with_dcgm.then(|| gpu_facts(head, node, until, &mut Selected::default()));
        Self { catalogue, node: name, is_own: node == NodeId::COLLECTOR, facts }
    }

    /// All labels of a series: as itself, and under each of DCGM's names that it alone answers to.
    pub(crate) fn labels(&self, series: &SeriesDefinition) -> Vec<(Labels, Option<&'static Alias>)> {
        let mut all = vec![(labels(series, self.node, self.is_own, self.catalogue), None)];
        if let Some(facts) = self.facts.as_ref().filter(|_| !self.is_own) {
            let aliases = dcgm::ALIASES.iter().filter(|alias| !alias.is_sum && alias.takes(series));
            all.extend(aliases.map(|alias| (alias.labels(series, self.node, facts), Some(alias))));
        }
        all
    }
}

/// The labels of a series as itself, with what is joined to it.
pub(crate) fn labels(series: &SeriesDefinition, node: &str, is_own: bool, catalogue: &Catalogue) -> Labels {
    let own: Vec<(&str, &str)> = pairs(series, node, is_own).collect();
    Labels::from_pairs(own.into_iter().chain(xid::pairs(catalogue, series)))
}

fn pairs<'a>(series: &'a SeriesDefinition, node: &'a str, is_own: bool) -> impl Iterator<Item = (&'a str, &'a str)> {
    let given = series.metric.label_names.iter().zip(&series.label_values);
    let given = given.map(move |(name, value)| (shown_name(name, is_own), &**value));
    let instance = (!is_own).then_some((INSTANCE, node));
    [(METRIC_NAME, &*series.metric.name), JOB].into_iter().chain(instance).chain(given)
}

/// Label sets of series that were read before. Rules read the same series each second, and making a set costs more than
/// all else that reading its newest value does.
#[derive(Debug, Default)]
struct LabelSets {
    /// By the address of the definition. The weak reference keeps the address from being given to another.
    sets: FxHashMap<(NodeId, usize), (Weak<SeriesDefinition>, Labels)>,
    /// Names and values of all these sets: a fleet has few different ones.
    texts: HashSet<Arc<str>>,
}

/// About 40 series of each of 5,000 nodes. Beyond that all are forgotten and made again.
const LABEL_SETS_MAX: usize = 200_000;

impl LabelSets {
    fn of(&mut self, definition: &Arc<SeriesDefinition>, node: NodeId, name: &str, catalogue: &Catalogue) -> Labels {
        let key = (node, Arc::as_ptr(definition) as usize);
        if let Some((_, labels)) = self.sets.get(&key) {
            return labels.clone();
        }
        if self.sets.len() >= LABEL_SETS_MAX {
            *self = Self::default();
        }
        let own =
            pairs(definition, name, node == NodeId::COLLECTOR).map(|(name, value)| (self.text(name), self.text(value)));
        let mut all: Vec<(Arc<str>, Arc<str>)> = own.collect();
        all.extend(xid::pairs(catalogue, definition).map(|(name, value)| (self.text(name), self.text(value))));
        let labels = Labels::from_pairs(all);
        self.sets.insert(key, (Arc::downgrade(definition), labels.clone()));
        labels
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }
}

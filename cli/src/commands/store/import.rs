//! `belfry store import`: history from elsewhere.
//!
//! The collector must be stopped: its store is written. A file is read as a whole before anything of it is written, so that one with a mistake
//! changes nothing; what is imported twice is there once.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use belfry_common::{
    clock, limits,
    model::{Metric, Resolution, SeriesDefinition, Timestamp},
};
use belfry_store::{BlockError, ImportError, Imported, Importer, Keys, NodeId, RetentionOptions, Sample, Tier};

use super::{progress, progress_parts};
use crate::{
    api,
    exchange::{self, Format, Intake, SeriesText},
    exit::{UsageError, note},
    fleet::store_id,
    render::units::count,
    series::origin::{Owner, origin},
    state,
};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// What to import: OpenMetrics text with times, as of `promtool tsdb dump-openmetrics`, or what `belfry store export` wrote as Parquet
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// In which format they are [default: by the name of each]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The label that names the node of a series; what is behind a `:` in its value is left out if need be
    #[arg(long, value_name = "LABEL", default_value = "instance")]
    node_label: String,
    /// All series are of this node, whatever their labels
    #[arg(long, value_name = "NODE", conflicts_with = "node_label")]
    node: Option<String>,
    /// Leave out a label, such as `job`, so that series continue those of the node's agent; may be given more than once
    #[arg(long, value_name = "LABEL")]
    drop: Vec<String>,
    /// Leave out series of nodes that never joined, instead of refusing the file
    #[arg(long)]
    skip_unknown: bool,
}

impl Args {
    fn format_of(&self, file: &Path) -> Result<Format, UsageError> {
        let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let format = self.format.or_else(|| Format::of_name(&name));
        format.ok_or_else(|| UsageError(format!("the name of {name:?} tells no format: add --format")))
    }
}

/// Imports until it is done or told to stop.
pub(super) fn run(
    args: &Args,
    (directory, keys): (&Path, &Keys),
    kept: &RetentionOptions,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let formats: Vec<Format> = args.files.iter().map(|file| args.format_of(file)).collect::<Result<_, _>>()?;
    let names = state::node_names(directory).map_err(anyhow::Error::from_boxed);
    let names = names.context("the names of nodes cannot be read")?;
    let nodes: BTreeMap<String, NodeId> = names.into_iter().map(|(id, name)| (name, store_id(id))).collect();
    let node = args.node.as_ref().map(|name| known_node(&nodes, name)).transpose()?;
    let importer = Importer::open(directory, keys)?;
    let mut import = Import::new(args, importer, (nodes, node), (kept, clock::now()), stop)?;
    let bytes = args.files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
    let bar = progress(bytes, "reading");
    for (file, format) in args.files.iter().zip(formats) {
        let before = bar.position();
        exchange::read(format, file, &mut import, &|read| bar.set_position(before + read))
            .with_context(|| format!("nothing is imported: `{}`", file.display()))?;
    }
    bar.finish_and_clear();
    import.finish()
}

fn known_node(nodes: &BTreeMap<String, NodeId>, name: &str) -> Result<NodeId, UsageError> {
    let unknown =
        || UsageError(format!("no node is called {name:?}; `belfry nodes` lists them, and one joins with a token"));
    nodes.get(name).copied().ok_or_else(unknown)
}

/// Labels: names and values.
type Pairs = Vec<(String, String)>;

/// What is known of a series of the store.
#[derive(Clone, Copy)]
struct Known {
    number: u32,
    /// Of the labels that it has in the files.
    hash: u64,
}

struct Import<'a> {
    args: &'a Args,
    importer: Importer,
    nodes: BTreeMap<String, NodeId>,
    /// Whose all series are.
    node: Option<NodeId>,
    /// What the store has, by name; the newest last.
    metrics: HashMap<String, Vec<Arc<Metric>>>,
    known: HashMap<(NodeId, Arc<SeriesDefinition>), Known>,
    hasher: RandomState,
    now: Timestamp,
    /// Samples before the first are not kept in any form, those before the second only as minutes and hours.
    horizons: [Timestamp; 2],
    raw_age_ms_max: i64,
    counts: Counts,
    stop: &'a AtomicBool,
}

/// What is to be told of what was imported.
#[derive(Debug, Default)]
struct Counts {
    /// Series of nodes that nobody knows.
    unknown: usize,
    /// Samples older than anything that is kept.
    too_old: usize,
    /// Samples of which only rows stay.
    only_rows: usize,
    /// Values that are not exactly those of the file.
    rounded: usize,
}

impl<'a> Import<'a> {
    fn new(
        args: &'a Args,
        importer: Importer,
        (nodes, node): (BTreeMap<String, NodeId>, Option<NodeId>),
        (kept, now): (&RetentionOptions, Timestamp),
        stop: &'a AtomicBool,
    ) -> anyhow::Result<Self> {
        let mut metrics: HashMap<String, Vec<Arc<Metric>>> = HashMap::new();
        for metric in importer.metrics().context("a block became unreadable")? {
            metrics.entry(metric.name.to_string()).or_default().push(metric);
        }
        let age = |tier| kept.of(tier).age_ms_max;
        let longest = Tier::ALL.map(age).into_iter().max().unwrap_or(0);
        let horizons = [longest, age(Tier::Raw)].map(|age| now.plus_millis(-age));
        Ok(Self {
            args,
            importer,
            nodes,
            node,
            metrics,
            known: HashMap::new(),
            hasher: RandomState::new(),
            now,
            horizons,
            raw_age_ms_max: age(Tier::Raw),
            counts: Counts::default(),
            stop,
        })
    }

    /// Whose a series is and with which labels; nobody's if its node is unknown.
    fn origin(&self, series: &SeriesText) -> anyhow::Result<(Option<NodeId>, Pairs)> {
        let (owner, mut labels) = origin(&series.metric, series.labels.clone(), &self.args.node_label);
        labels.retain(|(name, _)| !self.args.drop.contains(name));
        let node = match (self.node, owner) {
            (Some(node), _) => Some(node),
            (None, Owner::Collector) => Some(NodeId::COLLECTOR),
            (None, Owner::Node(name)) => {
                let without_port = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
                let known = self.nodes.get(&name).or_else(|| self.nodes.get(without_port)).copied();
                if known.is_none() && !self.args.skip_unknown {
                    anyhow::bail!(
                        "{}: no node is called {without_port:?}; let it join, name another label with --node-label, or leave such series out with \
                         --skip-unknown",
                        series.text()
                    );
                }
                known
            }
            (None, Owner::Nobody) => anyhow::bail!(
                "{}: it has no label `{}` that names its node: name another one with --node-label, or its node with --node",
                series.text(),
                self.args.node_label
            ),
        };
        Ok((node, labels))
    }

    /// The definition of the metric that has a place for these labels: as the store has it, so that what comes continues what there is, or as
    /// the file has it, or a new one.
    fn metric(&mut self, series: &SeriesText, labels: &[(String, String)]) -> Arc<Metric> {
        let fits = |metric: &&Arc<Metric>| {
            labels.iter().all(|(name, _)| metric.label_names.iter().any(|known| **known == *name))
        };
        let of_name = self.metrics.entry(series.metric.clone()).or_default();
        // The one with the fewest places that stay empty; of these the newest.
        let best = |list: &[Arc<Metric>]| {
            list.iter().rev().filter(fits).min_by_key(|metric| metric.label_names.len()).cloned()
        };
        if let Some(known) = best(of_name) {
            return known;
        }
        let made = best(&series.declared).unwrap_or_else(|| {
            let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
            Arc::new(Metric::new(&series.metric, series.kind, Resolution::Float, &names, &series.help))
        });
        of_name.push(Arc::clone(&made));
        made
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self { importer, counts, now, raw_age_ms_max, stop, .. } = self;
        let bar = progress_parts();
        let told = |verb: &'static str, part: f64| {
            bar.set_message(verb);
            bar.set_position((part * 100.0) as u64);
            if stop.load(Relaxed) { Err(BlockError::Stopped) } else { Ok(()) }
        };
        let imported = importer.finish(now, raw_age_ms_max, &told).map_err(|error| match error {
            ImportError::Block(BlockError::Stopped) => {
                anyhow::anyhow!("interrupted: hours that are written stay, and the same import again does the rest")
            }
            error => error.into(),
        })?;
        bar.finish_and_clear();
        counts.tell(imported);
        Ok(())
    }
}

impl Intake for Import<'_> {
    fn series(&mut self, series: &SeriesText) -> anyhow::Result<Option<u32>> {
        let (node, labels) = self.origin(series)?;
        let Some(node) = node else {
            self.counts.unknown += 1;
            return Ok(None);
        };
        let metric = self.metric(series, &labels);
        let value = |name: &str| labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        let label_values = metric.label_names.iter().map(|name| value(name).into()).collect();
        let definition = Arc::new(SeriesDefinition { metric, label_values });
        let hash = self.hasher.hash_one(&series.labels);
        match self.known.get(&(node, Arc::clone(&definition))) {
            Some(known) if known.hash == hash => Ok(Some(known.number)),
            Some(_) => anyhow::bail!(
                "{}: there is another series that differs only in labels which are left out: with --drop or --node they become one",
                series.text()
            ),
            None => {
                let number = self.importer.series(node, Arc::clone(&definition))?;
                self.known.insert((node, definition), Known { number, hash });
                Ok(Some(number))
            }
        }
    }

    fn sample(&mut self, series: u32, sample: Sample) -> anyhow::Result<()> {
        anyhow::ensure!(!self.stop.load(Relaxed), "interrupted");
        let [first, first_raw] = self.horizons;
        if sample.time < first {
            self.counts.too_old += 1;
            return Ok(());
        }
        let future_max = i64::try_from(limits::FUTURE_MAX.as_millis()).unwrap_or(i64::MAX);
        if sample.time.millis_since(self.now) > future_max {
            anyhow::bail!(
                "a sample is of {}, which is in the future: its clock, or this one, is wrong",
                api::time(sample.time)
            );
        }
        self.counts.only_rows += usize::from(sample.time < first_raw);
        let is_exact = self.importer.add(series, sample)?;
        self.counts.rounded += usize::from(!is_exact);
        Ok(())
    }
}

impl Counts {
    /// Says what was imported, and above all what was not.
    fn tell(&self, imported: Imported) {
        let number = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
        let Imported { series, samples, hours, first_ms, last_ms } = imported;
        let time = |ms| api::time(Timestamp::from_millis(ms));
        let span = if samples > 0 { format!(", from {} to {}", time(first_ms), time(last_ms)) } else { String::new() };
        note(&format!("{} of {series} series in {}{span}", number(samples, "sample"), number(hours, "hour")));
        for (count_of, noun, what) in [
            (self.unknown, "series", "left out: nobody knows their nodes"),
            (self.too_old, "sample", "left out: older than anything that is kept"),
            (
                self.only_rows,
                "sample",
                "older than `raw_age_max`: a collector removes them and keeps their minutes and hours",
            ),
            (self.rounded, "value", "rounded to the step in which the metric is measured, or out of its range"),
        ] {
            if count_of > 0 {
                let plural = if noun == "series" { format!("{count_of} series") } else { count(count_of, noun) };
                note(&format!("{plural} {what}"));
            }
        }
    }
}

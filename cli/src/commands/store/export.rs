//! `belfry store export`: samples on disk, in a format that other programs read.
//!
//! Works on the files: reads, locks nothing, and a collector may run meanwhile. What is only in its memory is not in them.

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use belfry_common::{
    clock,
    model::{SeriesDefinition, Timestamp},
};
use belfry_store::{Keys, NodeId, Sample, Scan, StoreFiles, Tier, TimeRange, Use};

use super::progress;
use crate::{
    api,
    commands::times::Moment,
    exchange::{self, Format, Sink, Target, Written},
    exit::{UsageError, note},
    fleet::store_id,
    render::{
        output::{self, Output, OutputError},
        units::count,
    },
    series::{self, wishes::Wishes},
    state,
    xid::Catalogue,
};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// What to export: PromQL selectors such as `gpu_temperature_celsius{gpu="3"}`, or globs of metric names such as `gpu_*` [default: everything]
    #[arg(value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// Where to: a file, or `-` for standard output. The file appears, and replaces what has its name, when it is whole
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// In which format [default: by the name of the file]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only what was read at this time or later: `2026-11-23T14:00:00Z`, `2026-11-23`, or `2h` for two hours ago
    #[arg(long, value_name = "TIME|DURATION")]
    since: Option<Moment>,
    /// Only what was read before this time
    #[arg(long, value_name = "TIME|DURATION")]
    until: Option<Moment>,
    /// Samples as they were read, or the least, greatest, sum, count and last of each minute or hour, at its beginning
    #[arg(long, value_enum, default_value_t = Grain::Raw)]
    tier: Grain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Grain {
    Raw,
    #[value(name = "1m")]
    Minute,
    #[value(name = "1h")]
    Hour,
}

impl Grain {
    fn tier(self) -> Tier {
        match self {
            Self::Raw => Tier::Raw,
            Self::Minute => Tier::Minute,
            Self::Hour => Tier::Hour,
        }
    }
}

impl Args {
    fn format(&self) -> Result<Format, UsageError> {
        let name = self.to.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let format = self.format.or_else(|| Format::of_name(&name));
        let format = format.ok_or_else(|| UsageError("the name of the file tells no format: add --format".into()))?;
        if self.tier != Grain::Raw && !format.has_rows() {
            let words =
                "OpenMetrics has one value for a time, and rows have five: choose another format, or leave --tier out";
            return Err(UsageError(words.into()));
        }
        if format == Format::Parquet && self.to == Path::new("-") && output::is_terminal() {
            return Err(UsageError("Parquet is nothing to look at: give a file, or pass it on".into()));
        }
        Ok(format)
    }

    /// From the beginning, which is part of it, to the end, which is not.
    fn range(&self, now: Timestamp) -> TimeRange {
        let time = |moment: Moment| moment.time(now).plus_millis(-1);
        let TimeRange { after, until } = TimeRange::ALL;
        TimeRange { after: self.since.map_or(after, time), until: self.until.map_or(until, time) }
    }
}

/// Exports until it is done or told to stop; whether nothing was damaged.
pub(super) fn run(
    args: &Args,
    (directory, keys): (&Path, &Keys),
    catalogue: &Catalogue,
    output: Output,
    stop: &AtomicBool,
) -> anyhow::Result<bool> {
    let format = args.format()?;
    let wishes = Wishes::parse(&args.selectors).map_err(|error| UsageError(error.to_string()))?;
    let files = StoreFiles::hold(directory, keys)?;
    let nodes = Nodes::read(&files, directory, &wishes)?;
    let mut metrics = files.metrics().context("a block became unreadable")?;
    metrics.retain(|name, _| wishes.may_be_of_metric(name));
    let range = args.range(clock::now());
    let export = Export { files: &files, catalogue, wishes, nodes, range, tier: args.tier.tier() };
    let exported = export.run(&metrics, format, Target::create(&args.to, output)?, stop);
    let exported = exported.map_err(|error| if args.to == Path::new("-") { closed_or(error) } else { error })?;
    exported.tell(&export, &args.to);
    Ok(exported.damaged.is_empty() && files.damaged().is_empty())
}

/// Standard output that nobody reads any more is the end and no error.
fn closed_or(error: anyhow::Error) -> anyhow::Error {
    let is_closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_closed) { OutputError::Closed.into() } else { error }
}

/// The nodes that are exported, and their names.
struct Nodes {
    names: BTreeMap<NodeId, String>,
    numbers: Vec<NodeId>,
    /// Nodes on disk that the database does not know any more.
    forgotten: usize,
}

impl Nodes {
    fn read(files: &StoreFiles, directory: &Path, wishes: &Wishes) -> anyhow::Result<Self> {
        let names = state::node_names(directory).map_err(anyhow::Error::from_boxed);
        let names = names.context("the names of nodes cannot be read")?;
        let names: BTreeMap<NodeId, String> = names.into_iter().map(|(id, name)| (store_id(id), name)).collect();
        let on_disk = files.nodes().context("a block became unreadable")?;
        let others = on_disk.keys().filter(|node| **node != NodeId::COLLECTOR);
        let forgotten = others.clone().filter(|node| !names.contains_key(node)).count();
        let is_wanted = |node: &&NodeId| names.get(node).is_some_and(|name| wishes.may_be_of_node(name));
        let numbers = others.filter(is_wanted).copied().collect();
        Ok(Self { names, numbers, forgotten })
    }
}

struct Export<'a> {
    files: &'a StoreFiles,
    catalogue: &'a Catalogue,
    wishes: Wishes,
    nodes: Nodes,
    range: TimeRange,
    tier: Tier,
}

/// What came of it.
#[derive(Debug, Default)]
struct Exported {
    series: usize,
    damaged: Vec<String>,
    written: Written,
}

impl Export<'_> {
    fn run(
        &self,
        metrics: &BTreeMap<String, Use>,
        format: Format,
        target: Target,
        stop: &AtomicBool,
    ) -> anyhow::Result<Exported> {
        let mut sink = exchange::sink(format, self.tier, target)?;
        let bar = progress(metrics.values().map(|of| of.bytes).sum(), "exporting");
        let mut exported = Exported::default();
        for (metric, of) in metrics {
            self.metric(metric, &[NodeId::COLLECTOR], &mut *sink, stop, &mut exported)?;
            self.metric(metric, &self.nodes.numbers, &mut *sink, stop, &mut exported)?;
            bar.inc(of.bytes);
        }
        let (target, written) = sink.finish()?;
        target.finish()?;
        bar.finish_and_clear();
        exported.written = written;
        exported.damaged.sort_unstable();
        exported.damaged.dedup();
        Ok(exported)
    }

    /// One metric of the collector itself, or of these nodes.
    fn metric(
        &self,
        metric: &str,
        nodes: &[NodeId],
        sink: &mut dyn Sink,
        stop: &AtomicBool,
        exported: &mut Exported,
    ) -> anyhow::Result<()> {
        let is_own = nodes == [NodeId::COLLECTOR];
        let labels =
            |definition: &SeriesDefinition, name: &str| series::labels(definition, name, is_own, self.catalogue);
        let filter = |definition: &SeriesDefinition| {
            let labels = labels(definition, "");
            if is_own { self.wishes.matches(&labels) } else { self.wishes.may_be_series(&labels) }
        };
        let scan = Scan { metric, nodes, filter: &filter, range: self.range, tier: self.tier };
        let mut open: Option<Open> = None;
        let mut put = |node, definition: &Arc<SeriesDefinition>, columns: &[Vec<Sample>]| -> anyhow::Result<()> {
            anyhow::ensure!(!stop.load(Relaxed), "interrupted: nothing was exported");
            let known = open.take().filter(|open| open.node == node && Arc::ptr_eq(&open.definition, definition));
            let now = match known {
                Some(known) => known,
                None => {
                    let labels = labels(definition, self.nodes.names.get(&node).map_or("", String::as_str));
                    let is_wanted = self.wishes.matches(&labels);
                    if is_wanted {
                        sink.series(&definition.metric, &labels)?;
                        exported.series += 1;
                    }
                    Open { node, definition: Arc::clone(definition), is_wanted }
                }
            };
            if now.is_wanted {
                sink.samples(columns)?;
            }
            open = Some(now);
            Ok(())
        };
        let mut result = Ok(());
        let damaged = self.files.scan(&scan, &mut |node, definition, columns| {
            result = put(node, definition, columns);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        exported.damaged.extend(damaged.into_iter().map(|(block, _)| block));
        result
    }
}

/// The series of which stretches are coming.
struct Open {
    node: NodeId,
    definition: Arc<SeriesDefinition>,
    is_wanted: bool,
}

impl Exported {
    /// Says what is in the file, and above all what is not.
    fn tell(&self, export: &Export<'_>, to: &Path) {
        let Written { samples, left_out } = self.written;
        let rows = if export.tier == Tier::Raw { "sample" } else { "row" };
        let number = |number: u64, noun| count(usize::try_from(number).unwrap_or(usize::MAX), noun);
        let place = if to == Path::new("-") { String::new() } else { format!(" in {}", to.display()) };
        note(&format!("{} of {} series{place}", number(samples, rows), self.series));
        if let Some(last) = export.files.blocks().map(|block| block.last_ms).max() {
            let last = api::time(Timestamp::from_millis(last));
            note(&format!(
                "the newest sample on disk is of {last}: what is later is in the memory of a collector that runs"
            ));
        }
        if left_out > 0 {
            note(&format!(
                "{}, which have a reason and no value, left out: OpenMetrics cannot say that",
                number(left_out, "missing reading")
            ));
        }
        if export.nodes.forgotten > 0 {
            note(&format!("{} left out: no query sees them", count(export.nodes.forgotten, "forgotten node")));
        }
        let unusable = export.files.damaged().iter().map(|(block, _)| block);
        for block in unusable.chain(&self.damaged) {
            note(&format!(
                "{block} is damaged: of what it has, some or all is left out; `belfry store verify` says more"
            ));
        }
    }
}

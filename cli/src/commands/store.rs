//! `belfry store`: the files of a collector's store. Works on the directory, whether a collector runs on it or not.

mod backup;
mod export;
mod import;
mod repair;
mod restore;

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use belfry_common::{error_chain::ErrorChain, model::Timestamp};
use belfry_store::{BackupError, KeyNumber, Keys, NodeId, Step, StoreFiles, Use};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{Global, collect};
use crate::{
    api, exit,
    fleet::store_id,
    render::{
        Look,
        listing::{self, Listed},
        machine::field,
        output::{Format, Output},
        style::Style,
        table::{Cell, Column, Fit, Table},
        units::{bytes, count},
    },
    state,
    store_keys::KeySource,
    xid_files,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The collector's data directory [default: that of the configuration]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The keys that its files are encrypted with [default: `store.key_file` of the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Shows what is on disk: block by block, or what each metric or node takes. The last minutes are in the collector's memory and not here
    Info {
        /// What the lines are
        #[arg(long, value_enum, default_value_t = By::Block)]
        by: By,
    },
    /// Reads every byte and compares it with its checksums, of a backup as well, if --data-dir names one; ends with 1 if something is damaged
    Verify,
    /// Writes samples to a file that other programs read. What is only in a collector's memory, the last minutes, is not in it; ends with 1 if
    /// something is damaged
    Export(export::Args),
    /// Takes in history from other programs. The collector must be stopped
    Import(import::Args),
    /// Copies the data directory while the collector runs: samples up to now, nodes, alerts, the authority. What the backup before has is linked;
    /// ends with 1 if something is damaged
    Backup(backup::Args),
    /// Makes a backup a data directory, where there is none: then a collector can start on it
    Restore(restore::Args),
    /// Moves what is damaged aside, says what is lost with it, and removes what was never finished. The collector must be stopped
    Repair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Block,
    Metric,
    Node,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let mut settings = collect::settings(None, &collect::Overrides::default())?;
    if let Some(directory) = &args.data_dir {
        settings.data_directory.clone_from(directory);
    }
    let directory = settings.data_directory.clone();
    let keys = args.key_file.clone().map(KeySource::from).or_else(|| settings.keys.clone());
    let keys = || keys.as_ref().map_or_else(|| Ok(Keys::default()), KeySource::read);
    let output = global.output(Format::Table);
    match &args.command {
        Command::Info { by } => info(&StoreFiles::open(&directory, &keys()?)?, &directory, *by, &output),
        Command::Verify if crate::backup::is_backup(&directory) => {
            whole(until_interrupted(global, move |stop: &AtomicBool| backup::verify(&directory, output, stop)))
        }
        Command::Verify => verify(&StoreFiles::open(&directory, &keys()?)?, &output),
        Command::Export(args) => {
            let (args, keys, catalogue) = (args.clone(), keys()?, xid_files::load(&settings.xid_catalogue)?);
            let work = move |stop: &AtomicBool| export::run(&args, (&directory, &keys), &catalogue, output, stop);
            whole(until_interrupted(global, work))
        }
        Command::Import(args) => {
            let (args, keys, kept) = (args.clone(), keys()?, settings.store.maintain.retention);
            until_interrupted(global, move |stop: &AtomicBool| import::run(&args, (&directory, &keys), &kept, stop))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Backup(args) => {
            let (args, keys) = (args.clone(), keys()?);
            let work = move |stop: &AtomicBool| backup::run(&args, (&directory, &keys), output, stop);
            whole(until_interrupted(global, work))
        }
        Command::Repair => {
            let keys = keys()?;
            whole(until_interrupted(global, move |stop: &AtomicBool| repair::run((&directory, &keys), output, stop)))
        }
        Command::Restore(args) => {
            let args = args.clone();
            whole(until_interrupted(global, move |stop: &AtomicBool| restore::run(&args, &directory, output, stop)))
        }
    }
}

/// What was done ends with, if it could leave out what is damaged.
fn whole(is_whole: anyhow::Result<bool>) -> anyhow::Result<ExitCode> {
    Ok(if is_whole? { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Does long work, which is told when somebody interrupts it, so that it can leave nothing half done.
fn until_interrupted<T: Send + 'static>(
    global: &Global,
    work: impl FnOnce(&AtomicBool) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    super::run(global, async {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut working = tokio::task::spawn_blocking(move || work(&told));
        let result = tokio::select! {
            biased;
            result = &mut working => result,
            () = super::interrupted() => {
                stop.store(true, Relaxed);
                working.await
            }
        };
        result.context("the work broke off")?
    })
}

/// A bar of bytes on standard error, if somebody watches.
fn progress(bytes: u64, verb: &str) -> ProgressBar {
    let template = format!("{verb} {{bytes}}/{{total_bytes}} [{{wide_bar}}] {{eta}}");
    bar(bytes, &template)
}

/// Tells a bar of bytes what is found and done, and whoever does it that it is no longer wanted.
fn copying<'a>(bar: &'a ProgressBar, stop: &'a AtomicBool) -> impl Fn(Step) -> Result<(), BackupError> + 'a {
    move |step| {
        match step {
            Step::Found(bytes) => bar.inc_length(bytes),
            Step::Done(bytes) => bar.inc(bytes),
        }
        if stop.load(Relaxed) { Err(BackupError::Stopped) } else { Ok(()) }
    }
}

/// A bar of hundredths, with what is being done as its message.
fn progress_parts() -> ProgressBar {
    bar(100, "{msg} {percent}% [{wide_bar}] {eta}")
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn info(files: &StoreFiles, directory: &Path, by: By, output: &Output) -> anyhow::Result<ExitCode> {
    match by {
        By::Block => print(&files.blocks().map(BlockRow::from).collect::<Vec<_>>(), output)?,
        By::Metric => {
            let metrics = files.metrics().context("a block became unreadable")?;
            print(&used(metrics.into_iter().map(|(name, of)| UseRow::new(name, "metric", of))), output)?;
        }
        By::Node => {
            let names = names(directory);
            let nodes = files.nodes().context("a block became unreadable")?;
            let name = |node: NodeId| names.get(&node).cloned().unwrap_or_else(|| format!("node {node}"));
            print(&used(nodes.into_iter().map(|(node, of)| UseRow::new(name(node), "node", of))), output)?;
        }
    }
    let notes = [(files.damaged().len(), "damaged block"), (files.quarantined().len(), "block")];
    let [damaged, quarantined] = notes.map(|(number, noun)| count(number, noun));
    if output.format == Format::Table && !files.damaged().is_empty() {
        output.print(&format!("{damaged}: `belfry store verify` says which\n"))?;
    }
    if output.format == Format::Table && !files.quarantined().is_empty() {
        output.print(&format!("{quarantined} in quarantine: not served, kept as found\n"))?;
    }
    if let Some(encryption) = encryption(files).filter(|_| output.format == Format::Table) {
        output.print(&encryption)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How many blocks are encrypted with which key, if any is: which keys are needed, and whether a change of keys is through.
fn encryption(files: &StoreFiles) -> Option<String> {
    let mut by_key: BTreeMap<Option<KeyNumber>, usize> = BTreeMap::new();
    files.blocks().for_each(|block| *by_key.entry(block.key).or_default() += 1);
    let words = by_key.iter().map(|(key, blocks)| match key {
        Some(key) => format!("{} encrypted with key {key}", count(*blocks, "block")),
        None => format!("{} not encrypted", count(*blocks, "block")),
    });
    by_key.keys().any(Option::is_some).then(|| words.collect::<Vec<_>>().join(", ") + "\n")
}

fn print<T: Listed + Serialize>(rows: &[T], output: &Output) -> anyhow::Result<()> {
    listing::print::<T>(&serde_json::to_string(rows)?, output)
}

/// What takes most, first.
fn used(rows: impl Iterator<Item = UseRow>) -> Vec<UseRow> {
    let mut rows: Vec<UseRow> = rows.collect();
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    rows
}

/// Nodes' names, if there is a database that knows them.
fn names(directory: &Path) -> BTreeMap<NodeId, String> {
    let mut names = match state::node_names(directory) {
        Ok(names) => names.into_iter().map(|(id, name)| (store_id(id), name)).collect(),
        Err(error) => {
            tracing::debug!(error = %ErrorChain(&*error), "nodes are shown by their numbers");
            BTreeMap::new()
        }
    };
    names.insert(NodeId::COLLECTOR, "(collector)".to_owned());
    names
}

fn verify(files: &StoreFiles, output: &Output) -> anyhow::Result<ExitCode> {
    let bytes_all: u64 = files.blocks().map(|block| block.bytes).sum();
    let bar = progress(bytes_all, "verifying");
    let damaged = files.verify(&|bytes| {
        bar.inc(bytes as u64);
        Ok(())
    });
    bar.finish_and_clear();
    let rows: Vec<DamageRow> = damaged?
        .into_iter()
        .map(|(block, error)| DamageRow { block, damage: ErrorChain(&error).to_string() })
        .collect();
    if rows.is_empty() && output.format == Format::Table {
        let blocks = count(files.blocks().count(), "block");
        output.print(&format!("{blocks}, {}: all as they were written\n", bytes(bytes_all as f64)))?;
    } else {
        print(&rows, output)?;
    }
    Ok(if rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// A block, for people and scripts.
#[derive(Debug, Serialize, Deserialize)]
struct BlockRow {
    block: String,
    tier: String,
    first: String,
    last: String,
    series: u64,
    samples: u64,
    bytes: u64,
    written_at: String,
    merged: bool,
    /// The number of the key that it is encrypted with.
    key: Option<String>,
}

impl From<&belfry_store::Summary> for BlockRow {
    fn from(block: &belfry_store::Summary) -> Self {
        let time = |ms| api::time(Timestamp::from_millis(ms));
        Self {
            block: format!("{:016x}", block.number),
            tier: block.tier.as_str().to_owned(),
            first: time(block.first_ms),
            last: time(block.last_ms),
            series: block.series,
            samples: block.readings,
            bytes: block.bytes,
            written_at: time(block.created_ms),
            merged: block.is_final,
            key: block.key.map(|key| key.to_string()),
        }
    }
}

const BLOCK_COLUMNS: &[Column] = &[
    Column::left("TIER", Fit::Always),
    Column::left("FROM", Fit::Always),
    Column::left("TO", Fit::Always),
    Column::right("SIZE", Fit::Always),
    Column::right("SERIES", Fit::Droppable),
    Column::right("SAMPLES", Fit::Droppable),
    Column::right("B/SAMPLE", Fit::Droppable),
    Column::left("BLOCK", Fit::Droppable),
];

impl Listed for BlockRow {
    const CSV_NAMES: &'static [&'static str] =
        &["block", "tier", "first", "last", "series", "samples", "bytes", "written_at", "merged", "key"];

    fn csv_row(&self) -> Vec<String> {
        let numbers = [self.series, self.samples, self.bytes].map(|number| number.to_string());
        let [series, samples, bytes] = numbers;
        let (block, tier, first, last) = (self.block.clone(), self.tier.clone(), self.first.clone(), self.last.clone());
        let (written_at, key) = (self.written_at.clone(), self.key.clone().unwrap_or_default());
        vec![block, tier, first, last, series, samples, bytes, written_at, self.merged.to_string(), key]
    }

    fn table(list: &[Self], look: &Look) -> String {
        if list.is_empty() {
            return "no blocks yet: the first is written some minutes after data arrives\n".to_owned();
        }
        let rows = list.iter().map(|row| {
            let style = if row.merged { Style::Plain } else { Style::Dim };
            let per_sample = row.bytes as f64 / row.samples.max(1) as f64;
            vec![
                Cell::new(&row.tier, style),
                Cell::plain(&second(&row.first)),
                Cell::plain(&second(&row.last)),
                Cell::plain(&bytes(row.bytes as f64)),
                Cell::plain(&row.series.to_string()),
                Cell::plain(&row.samples.to_string()),
                Cell::plain(&format!("{per_sample:.2}")),
                Cell::new(&row.block, Style::Dim),
            ]
        });
        let total: u64 = list.iter().map(|row| row.bytes).sum();
        let table = Table { columns: BLOCK_COLUMNS, rows: rows.collect() }.render(look);
        format!("{table}{} in {}\n", bytes(total as f64), count(list.len(), "block"))
    }
}

/// A time without its milliseconds.
fn second(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(second, _)| format!("{second}Z"))
}

/// What a metric or a node takes.
#[derive(Debug, Serialize, Deserialize)]
struct UseRow {
    name: String,
    kind: String,
    series: u64,
    samples: u64,
    bytes: u64,
}

impl UseRow {
    fn new(name: String, kind: &str, of: Use) -> Self {
        Self { name, kind: kind.to_owned(), series: of.series, samples: of.readings, bytes: of.bytes }
    }
}

const USE_COLUMNS: &[Column] = &[
    Column::left("NAME", Fit::Name(30)),
    Column::right("SIZE", Fit::Always),
    Column::right("SERIES", Fit::Always),
    Column::right("SAMPLES", Fit::Droppable),
    Column::right("B/SAMPLE", Fit::Droppable),
];

impl Listed for UseRow {
    const CSV_NAMES: &'static [&'static str] = &["name", "kind", "series", "samples", "bytes"];

    fn csv_row(&self) -> Vec<String> {
        let [series, samples, bytes] = [self.series, self.samples, self.bytes].map(|number| number.to_string());
        vec![self.name.clone(), self.kind.clone(), series, samples, bytes]
    }

    fn table(list: &[Self], look: &Look) -> String {
        let rows = list.iter().map(|row| {
            let per_sample = (row.samples > 0).then(|| format!("{:.2}", row.bytes as f64 / row.samples as f64));
            vec![
                Cell::plain(&row.name),
                Cell::plain(&bytes(row.bytes as f64)),
                Cell::plain(&row.series.to_string()),
                Cell::plain(&row.samples.to_string()),
                Cell::known(per_sample),
            ]
        });
        Table { columns: USE_COLUMNS, rows: rows.collect() }.render(look)
    }
}

/// A block that is not as it was written.
#[derive(Debug, Serialize, Deserialize)]
struct DamageRow {
    block: String,
    damage: String,
}

impl Listed for DamageRow {
    const CSV_NAMES: &'static [&'static str] = &["block", "damage"];

    fn csv_row(&self) -> Vec<String> {
        vec![self.block.clone(), field(Some(&self.damage))]
    }

    fn table(list: &[Self], look: &Look) -> String {
        let columns = &[Column::left("BLOCK", Fit::Always), Column::left("DAMAGE", Fit::Flexible(40))];
        let rows = list.iter().map(|row| vec![Cell::plain(&row.block), Cell::new(&row.damage, Style::Bad)]);
        Table { columns, rows: rows.collect() }.render(look)
    }
}

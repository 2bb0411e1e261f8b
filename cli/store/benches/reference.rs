//! What an hour of the reference data costs in the store: bytes on disk, CPU, time to read.
//!
//! `cargo bench -p belfry-store --bench reference -- [NODES] [SECONDS] [DIRECTORY] [--encrypted]`, 20 nodes and an hour by default. No
//! network is in the way: see `belfry simulate --reference` for that. CPU is this process' own, in nanoseconds a sample. A directory is kept, and when it
//! is there already only its reading is measured.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

mod fleet;

use std::{fs, ops::ControlFlow, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use belfry_common::{
    clock,
    model::{Batch, BatchKey, Epoch, SeriesDefinition, Timestamp},
};
use belfry_store::{
    Aggregate, Condition, Entry, Grain, Keys, NodeId, Pick, ReadLimits, Reader, Selected, Selection, Store,
    StoreOptions, Tier, TimeRange,
};
use fleet::{Node, START, cpu, options, rss_kib};

/// Of a node.
const SERIES: usize = 500;

fn main() {
    // Cargo adds a flag of its own.
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let is_encrypted = arguments.iter().any(|argument| argument == "--encrypted");
    arguments.retain(|argument| argument != "--encrypted");
    let keys = if is_encrypted { keys() } else { Keys::default() };
    let number = |place: usize| arguments.get(place).map(|argument| argument.parse().unwrap());
    let (nodes, seconds) = (number(0).unwrap_or(20), number(1).unwrap_or(3600));
    match arguments.get(2).map(Path::new) {
        Some(kept) if kept.exists() => queries(kept, keys, nodes, seconds),
        Some(kept) => measure(kept, keys, nodes, seconds),
        None => measure(tempfile::tempdir().unwrap().path(), keys, nodes, seconds),
    }
}

/// The same key each time, so that what is kept can be read.
fn keys() -> Keys {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    fs::write(&path, "07".repeat(32)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Keys::read(&path).unwrap()
}

/// Fills a store, and reads it.
fn measure(directory: &Path, keys: Keys, nodes: u64, seconds: u64) {
    let samples = (nodes * seconds) as f64 * 500.0;
    println!("{nodes} nodes x 500 series x {seconds} s: {:.1} million samples", samples / 1e6);
    let options = StoreOptions { keys: keys.clone(), ..options() };
    let (mut store, _) = Store::open(directory, options.clone(), Timestamp::from_millis(START)).unwrap();
    let maintainer = store.maintainer();
    let mut fleet: Vec<Node> = (0..nodes).map(|node| Node::new(node, SERIES, 1000, store.head().pool())).collect();
    let (mut ingest, mut maintain) = (Duration::ZERO, Duration::ZERO);
    for second in 0..seconds {
        let time = Timestamp::from_millis(START + second as i64 * 1000);
        let batches: Vec<Batch> = fleet.iter_mut().map(|node| node.batch(time)).collect();
        let began = cpu();
        for (number, batch) in (1..).zip(batches) {
            let key = BatchKey { epoch: Epoch(1), sequence: second + 1 };
            store.add(Entry { node: NodeId(number), key, received: time, batch: Arc::new(batch) }).unwrap();
        }
        store.commit().unwrap();
        ingest += cpu() - began;
        let began = cpu();
        maintainer.run(time).unwrap();
        store.cut(time).unwrap();
        maintain += cpu() - began;
    }
    let per_sample = |spent: Duration| spent.as_nanos() as f64 / samples;
    println!(
        "journal and head     {:6.1} ns of CPU a sample, {:.0} bytes resident a series",
        per_sample(ingest),
        rss_kib() as f64 * 1024.0 / (nodes as f64 * 500.0)
    );
    queries_of_memory(&store, nodes, seconds);
    let end = Timestamp::from_millis(START + seconds as i64 * 1000);
    // As after a kill: nothing was put into blocks at last.
    drop((store, maintainer));
    let (began, began_cpu) = (clock::monotonic(), cpu());
    let (store, _) = Store::open(directory, options, end).unwrap();
    println!("start after a kill   {:.2?}, {:.2?} of CPU", began.elapsed(), cpu() - began_cpu);
    let maintainer = store.maintainer();
    let began = cpu();
    maintainer.flush(end).unwrap();
    maintain += cpu() - began;
    println!(
        "blocks from memory   {:6.1} ns, {:.3} bytes a sample",
        per_sample(maintain),
        bytes(directory) as f64 / samples
    );
    let began = cpu();
    let later = end.plus_millis(2 * 3_600_000);
    while maintainer.compact(later).unwrap() {}
    println!("merging and rows     {:6.1} ns", per_sample(cpu() - began));
    for tier in Tier::ALL {
        let bytes: u64 = store.blocks().iter().filter(|block| block.tier == tier).map(|block| block.bytes).sum();
        println!("{:3} on disk          {:6.4} bytes a sample, index included", tier.as_str(), bytes as f64 / samples);
    }
    drop((store, maintainer));
    queries(directory, keys, nodes, seconds);
}

fn bytes(directory: &Path) -> u64 {
    fs::read_dir(directory.join("blocks")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// What queries of one store are measured with.
struct Queries {
    reader: Reader,
    selected: Selected,
}

impl Queries {
    fn new(store: &Store) -> Self {
        Self { reader: store.reader(), selected: Selected::default() }
    }

    fn run(&mut self, what: &str, nodes: &[NodeId], selection: &Selection<'_>, threads: usize) {
        let (mut times, mut spent) = (Vec::new(), Vec::new());
        let (mut series, mut samples) = (0, 0);
        let limits = ReadLimits { threads, ..ReadLimits::NONE };
        for _ in 0..9 {
            (series, samples) = (0, 0);
            let (began, began_cpu) = (clock::monotonic(), cpu());
            let visited = self.reader.visit(nodes, selection, limits, &mut self.selected, &mut |_, _, found| {
                series += 1;
                samples += found.len();
                ControlFlow::Continue(())
            });
            let _ = visited.unwrap();
            times.push(began.elapsed());
            spent.push(cpu() - began_cpu);
        }
        let first = times[0];
        times.sort();
        spent.sort();
        let (median, spent) = (times[times.len() / 2], spent[spent.len() / 2]);
        println!(
            "{what}: {series} series, {samples} samples, first {first:.2?}, median {median:.2?}, {spent:.2?} of CPU"
        );
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(START + second * 1000)
}

/// The newest samples of one metric.
fn newest(end: i64) -> Selection<'static> {
    Selection {
        metric: Some("gpu_power_watts"),
        conditions: &[],
        filter: &|_| true,
        range: TimeRange { after: at(end - 300), until: at(end) },
        pick: Pick::Newest,
        grain: Grain::Raw,
    }
}

fn all(nodes: u64) -> Vec<NodeId> {
    (1..=nodes as u32).map(NodeId).collect()
}

/// Reads what a collector has in memory.
fn queries_of_memory(store: &Store, nodes: u64, seconds: u64) {
    let (mut queries, nodes) = (Queries::new(store), all(nodes));
    let newest = newest(seconds as i64 - 1);
    queries.run("in memory: latest of one metric", &nodes, &newest, 1);
    let of_third = |series: &SeriesDefinition| series.label_values.iter().any(|value| &**value == "3");
    queries.run(
        "in memory: latest of all of GPU 3",
        &nodes,
        &Selection { metric: None, filter: &of_third, ..newest },
        1,
    );
}

/// Reads as a collector does that was started long after: everything comes from disk.
fn queries(directory: &Path, keys: Keys, nodes: u64, seconds: u64) {
    let later = at(seconds as i64).plus_millis(2 * 3_600_000);
    let (store, _) = Store::open(directory, StoreOptions { keys, ..StoreOptions::default() }, later).unwrap();
    let (mut queries, all) = (Queries::new(&store), all(nodes));
    let end = seconds as i64 - 1;
    let base = newest(end);
    queries.run("latest of one metric", &all, &base, 1);
    // At another time it is in no table of newest values.
    queries.run("latest of one metric, a minute before", &all, &newest(end - 60), 1);
    let hour = Selection { range: TimeRange { after: at(end - 3600), until: at(end) }, pick: Pick::All, ..base };
    queries.run("an hour of one metric", &all, &hour, 1);
    queries.run("an hour of one metric, on two threads", &all, &hour, 2);
    let each_step = Pick::EachStep { end: at(end), step_ms: 15_000 };
    queries.run("an hour of one metric at a step of 15 s", &all, &Selection { pick: each_step, ..hour }, 1);
    let rows = Grain::Rows(Tier::Minute, Aggregate::Max);
    queries.run("an hour of one metric in minutes", &all, &Selection { grain: rows, ..hour }, 1);
    let third = |value: &str| value == "3";
    let conditions = [Condition { label: "gpu", fits: &third }];
    let one = Selection {
        conditions: &conditions,
        filter: &|series| &*series.label_values[0] == "3",
        range: TimeRange { after: at(-1), until: at(end) },
        ..hour
    };
    queries.run("all of one series", &all[..1], &one, 1);
}

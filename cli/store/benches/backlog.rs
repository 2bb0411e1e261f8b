//! What a day of backlog costs: nodes come back after a day without a collector, and go on living while their spools are read.
//!
//! `cargo bench -p belfry-store --bench backlog -- [NODES] [HOURS]`, 20 nodes and 24 hours by default. Each second brings what is now and a
//! minute of what was. The clock is simulated.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

mod fleet;

use std::{iter, ops::ControlFlow, sync::Arc, time::Duration};

use belfry_common::model::{BatchKey, Epoch, Timestamp};
use belfry_store::{Entry, NodeId, ReadLimits, Selected, Selection, Store, Tier};
use fleet::{Node, START, cpu, options, rss_kib};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seconds of the past that come within a second.
const RATE: u64 = 60;
/// Of a node.
const SERIES: usize = 500;

fn main() {
    // Cargo adds a flag of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut number = |default: u64| arguments.next().map_or(default, |argument| argument.parse().unwrap());
    let (nodes, hours) = (number(20), number(24));
    let directory = tempfile::tempdir().unwrap();
    let seconds = hours * 3600;
    let past = |second: u64| Timestamp::from_millis(START + second as i64 * 1000);
    let (mut store, _) = Store::open(directory.path(), options(), past(seconds)).unwrap();
    let maintainer = store.maintainer();
    let fleet = |store: &Store| -> Vec<Node> {
        (0..nodes).map(|node| Node::new(node, SERIES, 1000, store.head().pool())).collect()
    };
    let (mut backlog, mut live) = (fleet(&store), fleet(&store));
    let (mut ingest, mut maintenance, mut blocks, mut resident) = (Duration::ZERO, Duration::ZERO, 0, 0);
    for step in 0..seconds / RATE {
        let now = past(seconds + step);
        let mut entries = Vec::new();
        for (number, (backlog, live)) in (1..).zip(backlog.iter_mut().zip(&mut live)) {
            let older = (step * RATE..(step + 1) * RATE).map(|second| (second + 1, backlog.batch(past(second))));
            let newest = iter::once_with(|| (seconds + step + 1, live.batch(now)));
            for (sequence, batch) in newest.chain(older) {
                let key = BatchKey { epoch: Epoch(1), sequence };
                entries.push(Entry { node: NodeId(number), key, received: now, batch: Arc::new(batch) });
            }
        }
        let began = cpu();
        for entry in entries {
            store.add(entry).unwrap();
        }
        store.commit().unwrap();
        ingest += cpu() - began;
        let began = cpu();
        maintainer.run(now).unwrap();
        store.cut(now).unwrap();
        maintenance += cpu() - began;
        blocks = store.blocks().len().max(blocks);
        resident = rss_kib().max(resident);
    }
    let began = cpu();
    let later = past(seconds + seconds / RATE).plus_millis(2 * 3_600_000);
    maintainer.flush(later).unwrap();
    while maintainer.compact(later).unwrap() {}
    maintenance += cpu() - began;

    let samples = (nodes * (seconds + seconds / RATE)) as f64 * SERIES as f64;
    let per_sample = |spent: Duration| spent.as_nanos() as f64 / samples;
    println!(
        "{nodes} nodes x {SERIES} series: {hours} h of backlog, {RATE} s of it a second: {:.0} million samples",
        samples / 1e6
    );
    println!("journal and head     {:6.1} ns of CPU a sample", per_sample(ingest));
    println!("blocks and merging   {:6.1} ns", per_sample(maintenance));
    println!("at most              {blocks} blocks, {:.0} MiB resident", resident as f64 / 1024.0);
    for tier in Tier::ALL {
        let bytes: u64 = store.blocks().iter().filter(|block| block.tier == tier).map(|block| block.bytes).sum();
        println!("{:3} on disk          {:6.4} bytes a sample, index included", tier.as_str(), bytes as f64 / samples);
    }
    println!("samples of one node that are read back: {}", read(&store));
}

/// How many samples of the first node there are.
fn read(store: &Store) -> u64 {
    let mut count = 0;
    let mut visitor = |_: NodeId, _: &Arc<_>, samples: &[_]| {
        count += samples.len() as u64;
        ControlFlow::Continue(())
    };
    let visited =
        store.reader().visit(&[NodeId(1)], &Selection::ALL, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
    assert!(visited.unwrap().is_continue());
    count
}

//! What is left in memory of nodes that came and went within a day.
//!
//! `cargo bench -p belfry-store --bench churn -- [NODES] [SERIES]`, 10,000 nodes with 100 series each by default. A node lives for an hour,
//! is read every 30 s, and never comes back. The clock is simulated, and the allocator is the collector's.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

mod fleet;

use std::{collections::VecDeque, sync::Arc};

use belfry_common::model::{BatchKey, Epoch, Timestamp};
use belfry_store::{Entry, NodeId, Store};
use fleet::{Node, START, cpu, options, rss_kib};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAY_S: u64 = 86_400;
const LIFE_S: u64 = 3600;
const INTERVAL_S: u64 = 30;

fn main() {
    // Cargo adds a flag of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut number = |default: u64| arguments.next().map_or(default, |argument| argument.parse().unwrap());
    let (nodes, series) = (number(10_000), number(100));
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), Timestamp::from_millis(START)).unwrap();
    let maintainer = store.maintainer();
    println!("{nodes} nodes x {series} series come and go within a day, each for an hour");
    report("before", &store);

    let mut alive: VecDeque<(u64, u64, Node)> = VecDeque::new();
    let mut come = 0;
    // Two hours more, without anybody.
    for second in (0..DAY_S + 3 * LIFE_S).step_by(INTERVAL_S as usize) {
        while come < nodes && come * DAY_S / nodes <= second {
            alive.push_back((
                come,
                second,
                Node::new(come, series as usize, INTERVAL_S as u32 * 1000, store.head().pool()),
            ));
            come += 1;
        }
        while alive.front().is_some_and(|(_, since, _)| since + LIFE_S <= second) {
            alive.pop_front();
        }
        let time = Timestamp::from_millis(START + second as i64 * 1000);
        for (node, since, source) in &mut alive {
            let key = BatchKey { epoch: Epoch(1), sequence: 1 + (second - *since) / INTERVAL_S };
            let batch = Arc::new(source.batch(time));
            store.add(Entry { node: NodeId(*node as u32 + 1), key, received: time, batch }).unwrap();
        }
        store.commit().unwrap();
        maintainer.run(time).unwrap();
        store.cut(time).unwrap();
        if second % (4 * LIFE_S) == 0 && second > 0 {
            report(&format!("hour {}", second / LIFE_S), &store);
        }
    }
    report("after", &store);
    println!("{:.1?} of CPU", cpu());
}

fn report(when: &str, store: &Store) {
    let head = store.head().statistics();
    println!(
        "{when:8} {:5} nodes and {:6} series in memory, {:5.1} MiB of samples, {:6.1} MiB resident",
        head.nodes,
        head.series,
        head.bytes as f64 / 1048576.0,
        rss_kib() as f64 / 1024.0
    );
}

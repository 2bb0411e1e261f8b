//! What connections cost that say nothing, and how soon a fleet is back.
//!
//! `cargo bench -p belfry-tests --bench idle_connections [-- NODES]`
//!
//! `belfry simulate --series 0` enrols and connects nodes. Then the collector is killed and started again on its address.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark says what it measured, and fails by panicking"
)]

use std::{process::Command, time::Duration};

use belfry_common::clock;
use belfry_tests::{binaries, collector::Collector, process::Process, wait::eventually};

const NODES: usize = 4000;
/// Enrolment makes a key and a certificate for each node.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let nodes = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(NODES);
    tokio::runtime::Runtime::new().unwrap().block_on(run(nodes));
}

async fn run(nodes: usize) {
    let mut collector = Collector::start_with("").await;
    let empty = collector.process().resident_bytes();
    let mut simulation = Command::new(binaries::belfry());
    simulation.args(["simulate", "--series", "0", "--nodes", &nodes.to_string(), "--identity"]);
    simulation.arg(collector.data_directory());
    let simulation = Process::start(&mut simulation, &collector.scratch().join("simulation.log"));
    are_connected(&collector, nodes).await;
    // With what the handshakes left behind, and after the first keep-alives.
    tokio::time::sleep(Duration::from_secs(15)).await;
    println!("{nodes} idle enrolled connections");
    report("resident", &collector, nodes, empty);

    for (name, is_killed) in [("killed", true), ("stopped", false)] {
        let address = collector.address();
        if is_killed {
            collector.kill();
        } else {
            collector.stop().await;
        }
        collector.listen_on(address);
        collector.restart().await;
        let began = clock::monotonic();
        are_connected(&collector, nodes).await;
        println!("{name} and started again: all back after {:.1} s", began.elapsed().as_secs_f64());
    }
    report("resident then", &collector, nodes, empty);
    drop(simulation);
    collector.stop().await;
}

fn report(name: &str, collector: &Collector, nodes: usize, empty: u64) {
    let bytes = collector.process().resident_bytes();
    let each = bytes.saturating_sub(empty) as f64 / nodes as f64 / 1024.0;
    println!("{name:14} {:.0} MB, {each:.1} KiB a connection", bytes as f64 / 1e6);
}

async fn are_connected(collector: &Collector, nodes: usize) {
    eventually("all nodes are connected", PATIENCE, async || {
        (collector.own_metric("belfry_collector_connections") as usize >= nodes).then_some(())
    })
    .await;
}

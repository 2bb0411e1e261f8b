//! What eight GPUs cost the machine that they are in: the agent and its worker, sending included.
//!
//! `cargo bench -p belfry-tests --bench gpu_cost [-- SECONDS]`
//!
//! Two real agents at their defaults, at the same time on the same machine: one has no GPU library, the other loads the stub that
//! plays eight H100, each with a process on it. The difference is what the GPUs cost.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark says what it measured, and fails by panicking"
)]

use std::time::Duration;

use belfry_common::clock;
use belfry_tests::{
    agent::Agent,
    cli::Cli,
    collector::Collector,
    gpus::Gpus,
    process::{cpu, resident_bytes},
    wait::{SOON, eventually},
};

const SECONDS: u64 = 120;
/// Joining, definitions, first values and asking what the driver supports are not what it costs.
const WARM_UP: Duration = Duration::from_secs(75);
const GPUS: usize = 8;
const MIB: f64 = (1 << 20) as f64;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(SECONDS);
    tokio::runtime::Runtime::new().unwrap().block_on(run(Duration::from_secs(seconds)));
}

async fn run(span: Duration) {
    let mut collector = Collector::start_with("").await;
    let mut plain = Agent::join(&collector, "host", collector.address()).await;
    plain.configure("");
    plain.start();
    let gpus = Gpus::new(&scenario());
    let mut equipped = Agent::join(&collector, "gpus", collector.address()).await;
    equipped.equip(&gpus, "");
    equipped.start();
    let cli = Cli::admin(&collector);
    eventually("the GPUs are read", SOON, async || {
        let node = cli.json(&["status", "gpus"]).await["nodes"][0].clone();
        let states = node["gpus"].as_array()?.iter().filter(|gpu| gpu["state"] == "ok").count();
        (states == GPUS).then_some(())
    })
    .await;
    tokio::time::sleep(WARM_UP).await;
    let children = equipped.process().children();
    assert_eq!(children.len(), 1, "one worker: {children:?}");
    let processes = [plain.process().id(), equipped.process().id(), children[0]];
    let (began, before) = (clock::monotonic(), processes.map(cpu));
    tokio::time::sleep(span).await;
    let (took, after) = (began.elapsed().as_secs_f64(), processes.map(cpu));
    let percent = |place: usize| (after[place] - before[place]).as_secs_f64() / took * 100.0;
    let resident = processes.map(|process| resident_bytes(process) as f64 / MIB);
    println!("{GPUS} H100 played by the stub, all families at 1 s, over {} s", span.as_secs());
    for (place, name) in ["agent without GPUs", "agent with them", "its worker"].into_iter().enumerate() {
        println!("{name:20} {:.3} % of a core, {:.1} MiB resident", percent(place), resident[place]);
    }
    println!(
        "{:20} {:.3} % of a core beyond the host's, {:.1} MiB resident together",
        "GPUs",
        percent(1) + percent(2) - percent(0),
        resident[1] + resident[2]
    );
    equipped.stop().await;
    plain.stop().await;
    collector.stop().await;
}

/// Eight GPUs at work, each with a process: this one, which is as good as any.
fn scenario() -> String {
    let pid = std::process::id();
    let process = format!("[[gpu.process]]\npid = {pid}\nmemory = 70000000000\nsm = 97\n");
    format!("[[gpu]]\nkind = \"h100\"\ncount = {GPUS}\n{process}")
}

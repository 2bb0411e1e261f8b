//! What the agent costs the machine that it watches, sending included.
//!
//! `cargo bench -p belfry-tests --bench agent_cost [-- SECONDS]`
//!
//! A real agent at its defaults streams to a real collector through a relay that counts what passes. Once as the machine is,
//! once with 500 more processes on it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark says what it measured, and fails by panicking"
)]

use std::{
    fs,
    process::{Child, Command},
    time::Duration,
};

use belfry_common::clock;
use belfry_tests::{agent::Agent, collector::Collector, relay::Relay};

const SECONDS: u64 = 60;
/// Joining, definitions and first values are not what it costs.
const WARM_UP: Duration = Duration::from_secs(20);
const PROCESSES: usize = 500;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(SECONDS);
    tokio::runtime::Runtime::new().unwrap().block_on(run(Duration::from_secs(seconds)));
}

async fn run(span: Duration) {
    let mut collector = Collector::start_with("").await;
    let relay = Relay::to(collector.address()).await;
    let mut agent = Agent::join(&collector, "bench", relay.address()).await;
    agent.configure("");
    agent.start();
    tokio::time::sleep(WARM_UP).await;
    println!("agent, all families at 1 s, sending included, over {} s each", span.as_secs());
    measure("as it is", span, &collector, &relay, &agent).await;
    let crowd = Crowd::gather();
    measure("500 more processes", span, &collector, &relay, &agent).await;
    drop(crowd);
    agent.stop().await;
    collector.stop().await;
}

async fn measure(name: &str, span: Duration, collector: &Collector, relay: &Relay, agent: &Agent) {
    let state =
        || (agent.process().cpu(), relay.bytes_passed(), collector.own_metric("belfry_collector_samples_total"));
    let (began, (cpu, bytes, samples)) = (clock::monotonic(), state());
    tokio::time::sleep(span).await;
    let (took, (cpu_then, bytes_then, samples_then)) = (began.elapsed().as_secs_f64(), state());
    let (bytes, samples) = ((bytes_then - bytes) as f64, samples_then - samples);
    println!(
        "{name:20} {:.3} % of a core, {:.1} MiB resident, {:.0} samples/s, {:.2} bytes of UDP payload per sample, both directions",
        (cpu_then - cpu).as_secs_f64() / took * 100.0,
        agent.process().resident_bytes() as f64 / f64::from(1 << 20),
        samples / took,
        bytes / samples,
    );
}

/// Processes that do nothing but be there.
struct Crowd(Vec<Child>);

impl Crowd {
    fn gather() -> Self {
        Self((0..PROCESSES).map(|_| Command::new("sleep").arg("3600").spawn().unwrap()).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // As many directories as before: nobody else is to measure them.
        assert!(self.0.iter().all(|child| fs::metadata(format!("/proc/{}", child.id())).is_err()));
    }
}

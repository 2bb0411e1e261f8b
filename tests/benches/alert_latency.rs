//! From a threshold that is crossed on a node to the line in a script's hands.
//!
//! `cargo bench -p belfry-tests --bench alert_latency [-- TRIALS]`
//!
//! A real agent samples this machine at its defaults; the rule watches the number of UDP sockets in use. Each trial opens
//! sockets at a random moment and waits for the line that `belfry alerts --follow | while read` passes on.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark says what it measured, and fails by panicking"
)]

use std::{fs, net::UdpSocket, thread, time::Duration};

use belfry_common::{clock, model::Timestamp};
use belfry_tests::{agent::Agent, collector::Collector, figures::Figures, script::Script};

const TRIALS: usize = 40;
/// Far more than other programs open and close meanwhile.
const SOCKETS: usize = 200;
/// The agent samples on whole seconds.
const TICK_MS: i64 = 1000;

fn main() {
    let trials = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(TRIALS);
    tokio::runtime::Runtime::new().unwrap().block_on(run(trials));
}

async fn run(trials: usize) {
    let mut collector = Collector::prepare("");
    let rules = collector.scratch().join("rules.yml");
    let expr = format!("node_sockstat_UDP_inuse > {}", udp_sockets() + SOCKETS / 2);
    fs::write(&rules, format!("groups:\n- name: bench\n  rules:\n  - alert: ManySockets\n    expr: {expr}\n")).unwrap();
    collector.configure(&format!("rules = [{:?}]", rules.to_str().unwrap()));
    collector.restart().await;
    let mut agent = Agent::join(&collector, "bench", collector.address()).await;
    agent.configure("");
    agent.start();
    let mut script = Script::start(&collector);

    let (mut crossing, mut tick) = (Figures::default(), Figures::default());
    for _ in 0..trials {
        thread::sleep(Duration::from_millis(fastrand::u64(1500..2500)));
        let crossed = clock::now();
        let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let told = heard(&mut script, "firing");
        crossing.add(told.millis_since(crossed) as f64);
        tick.add(told.millis_since(tick_that_saw(crossed, told)) as f64);
        drop(sockets);
        heard(&mut script, "resolved");
    }
    println!("{trials} trials, 1-second sampling, milliseconds");
    println!("from the crossing     {crossing}");
    println!("from the tick's time  {tick}");
    drop(script);
    agent.stop().await;
    collector.stop().await;
}

/// When the script had the next event of this kind about our rule in its hands.
fn heard(script: &mut Script, event: &str) -> Timestamp {
    script.wait_for(|line| line["event"] == event && line["rule"] == "ManySockets").0
}

/// The first tick after the crossing; or, where sampling was under way just then, the one before it.
fn tick_that_saw(crossed: Timestamp, told: Timestamp) -> Timestamp {
    let after = Timestamp::from_millis((crossed.as_millis() / TICK_MS + 1) * TICK_MS);
    if told < after { after.plus_millis(-TICK_MS) } else { after }
}

fn udp_sockets() -> usize {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("UDP: inuse ")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

//! From a threshold that is crossed on a node to the line in a script's hands.
//!
//! `cargo bench -p belfry-tests --bench alert_latency [-- TRIALS]`
//!
//! A real agent samples this machine at its defaults; the rule watches the number of UDP sockets in use. Each trial opens
//! sockets at a random moment and waits for the line that `belfry alerts --follow | while read` passes on.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark says what it measured, and fails by panicking"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use belfry_common::{clock, model::Timestamp};
use belfry_tests::{agent::Agent, binaries, collector::Collector, figures::Figures};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

const TRIALS: usize = 40;
/// Far more than other programs open and close meanwhile.
const SOCKETS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(20);
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
        let told = script.wait_for("firing");
        crossing.add(told.millis_since(crossed) as f64);
        tick.add(told.millis_since(tick_that_saw(crossed, told)) as f64);
        drop(sockets);
        script.wait_for("resolved");
    }
    println!("{trials} trials, 1-second sampling, milliseconds");
    println!("from the crossing     {crossing}");
    println!("from the tick's time  {tick}");
    drop(script);
    agent.stop().await;
    collector.stop().await;
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

/// `belfry alerts --follow | while read`
struct Script {
    shell: Child,
    lines: Receiver<(Timestamp, Value)>,
}

impl Script {
    fn start(collector: &Collector) -> Self {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            r#""$0" alerts --follow --identity "$1" | while read -r line; do printf '%s\n' "$line"; done"#,
        ]);
        shell.arg(binaries::belfry()).arg(collector.data_directory()).stdin(Stdio::null()).stdout(Stdio::piped());
        // The shell and what it runs end together.
        shell.process_group(0);
        let mut shell = shell.spawn().unwrap();
        let output = BufReader::new(shell.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let told = clock::now();
                if sender.send((told, serde_json::from_str(&line).unwrap())).is_err() {
                    return;
                }
            }
        });
        let mut script = Self { shell, lines };
        // The stream has begun.
        script.wait_for("heartbeat");
        script
    }

    /// When the script had the next event of this kind in its hands.
    fn wait_for(&mut self, event: &str) -> Timestamp {
        loop {
            let (told, line) = self.lines.recv_timeout(PATIENCE).unwrap();
            let is_ours = event == "heartbeat" || line["rule"] == "ManySockets";
            if line["event"] == event && is_ours {
                return told;
            }
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        kill_process_group(Pid::from_child(&self.shell), Signal::KILL).unwrap();
        self.shell.wait().unwrap();
    }
}

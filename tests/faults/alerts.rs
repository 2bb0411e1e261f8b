//! What a script is told about alerts: every event once, in order, whatever dies in between.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use belfry_common::{clock, identity::Identity, model::Epoch};
use belfry_tests::{
    binaries,
    collector::Collector,
    hostile::Live,
    process::Process,
    relay::Relay,
    samples::batch_of,
    wait::{SOON, eventually},
};
use serde_json::{Value, json};

const DEVICES: usize = 3;
const RULES: &str = "groups:\n- name: test\n  rules:\n  - alert: High\n    expr: test_value > 0\n";

/// A collector with one rule, and a node that makes it fire.
struct Scene {
    collector: Collector,
    relay: Relay,
    identity: Identity,
    epoch: u64,
    /// How many events there must be by now.
    events: usize,
}

impl Scene {
    async fn begin() -> Self {
        let collector = Collector::start_with_rules(RULES).await;
        let relay = Relay::to(collector.address()).await;
        let identity = collector.join("node").await;
        Self { collector, relay, identity, epoch: 0, events: 0 }
    }

    /// Makes every device fire and resolve this many times.
    async fn toggle(&mut self, times: usize) {
        self.epoch += 1;
        let mut live = Live::open(self.collector.address(), &self.identity, Epoch(self.epoch)).await.unwrap();
        let mut sequence = 0;
        for value in [1.0, 0.0].repeat(times) {
            sequence += 1;
            live.store(sequence, &batch_of(1, "test_value", 0..DEVICES, clock::now(), value)).await;
            self.events += DEVICES;
            let expected = self.events;
            eventually("the events are made", SOON, async || (self.log().await.len() >= expected).then_some(())).await;
        }
        assert_eq!(self.log().await.len(), self.events, "no event without a reason");
    }

    async fn kill(&mut self) {
        self.collector.kill();
        self.collector.restart().await;
        self.relay.lead_to(self.collector.address());
    }

    /// Every event, as the collector has it.
    async fn log(&self) -> Vec<Value> {
        let request = json!({"request": "follow", "from": {"after": 0}, "cursor": null, "is_once": true});
        let mut lines = self.collector.admin().follow(&request).await;
        let mut events = Vec::new();
        while let Some(event) = lines.next(SOON).await {
            events.push(event);
        }
        events
    }

    fn follower(&self, name: &str, start: [&str; 2]) -> Follower {
        let output = self.collector.scratch().join(name).with_extension("jsonl");
        Follower::start(self.relay.address(), &self.collector.data_directory(), output, start)
    }
}

/// `belfry alerts --follow`
struct Follower {
    process: Process,
    output: PathBuf,
}

impl Follower {
    fn start(address: SocketAddr, identity: &Path, output: PathBuf, start: [&str; 2]) -> Self {
        let mut command = Command::new(binaries::belfry());
        command.args(["alerts", "--follow", "-o", "jsonl", "--collector", &address.to_string(), "--identity"]);
        command.arg(identity).args(start);
        let process = Process::start_split(&mut command, &output, &output.with_extension("log"));
        Self { process, output }
    }

    /// What it has printed.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.output).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
    }

    /// What it has printed, without heartbeats.
    fn printed(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|event| event["event"] != "heartbeat").collect()
    }

    /// Kills it; what it had printed by then.
    fn kill(&mut self) -> Vec<Value> {
        self.process.kill();
        self.printed()
    }

    async fn has_printed(&self, events: usize) {
        eventually("the events are printed", Duration::from_secs(60), async || {
            (self.printed().len() >= events).then_some(())
        })
        .await;
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

/// Rows 57 and 58: the collector is killed under a script that follows: it gets every event once, in order, with one command.
#[tokio::test]
async fn the_event_stream_goes_on_through_kills_without_gap_or_repetition() {
    let mut scene = Scene::begin().await;
    let follower = scene.follower("script", ["--since", "0"]);
    for _ in 0..3 {
        scene.toggle(2).await;
        scene.kill().await;
    }
    scene.toggle(1).await;
    follower.has_printed(scene.events).await;
    let (printed, log) = (follower.printed(), scene.log().await);
    assert_eq!(numbers(&printed), (1..=scene.events as u64).collect::<Vec<_>>());
    assert_eq!(printed, log, "what is printed is what is on record");
}

/// Row 57: the script is killed, before its first event and at any moment after: its cursor goes on with the first event that it
/// has not written.
#[tokio::test]
async fn a_cursor_goes_on_where_a_killed_script_stopped_writing() {
    let mut scene = Scene::begin().await;
    let first = scene.follower("run-0", ["--cursor", "script"]);
    eventually("the stream begins", SOON, async || first.lines().first().map(|_| ())).await;
    drop(first);
    let mut next = 1;
    for run in 1..=6 {
        scene.toggle(2).await;
        let mut script = scene.follower(&format!("run-{run}"), ["--cursor", "script"]);
        // Killed with the first line, while others and the cursor are under way; the last run may finish.
        let enough = if run < 6 { next + 1 } else { scene.events };
        eventually("the events come", SOON, async || {
            let last = numbers(&script.printed()).last().copied()?;
            (last >= enough as u64).then_some(())
        })
        .await;
        let printed = numbers(&script.kill());
        let (from, to) = (printed[0], printed[printed.len() - 1]);
        assert!(from as usize <= next, "run {run} begins with {from}, and {next} was not written");
        assert_eq!(printed, (from..=to).collect::<Vec<_>>(), "run {run}");
        next = to as usize + 1;
    }
    assert_eq!(next, scene.events + 1);
}

/// Row 58: an alert that fires when the collector is killed fires afterwards; nobody is told that it was resolved.
#[tokio::test]
async fn a_kill_is_no_resolve() {
    let mut scene = Scene::begin().await;
    let mut live = Live::open(scene.collector.address(), &scene.identity, Epoch(1)).await.unwrap();
    live.store(1, &batch_of(1, "test_value", 0..1, clock::now(), 1.0)).await;
    eventually("it fires", SOON, async || (scene.log().await.len() == 1).then_some(())).await;
    for sequence in 2..5 {
        scene.kill().await;
        let mut live = Live::open(scene.collector.address(), &scene.identity, Epoch(1)).await.unwrap();
        live.store(sequence, &batch_of(1, "test_value", 0..1, clock::now(), 1.0)).await;
        let standing = scene.collector.admin().ask(json!({"request": "alerts", "states": ["firing"]})).await;
        assert_eq!(standing.as_array().unwrap().len(), 1, "{standing}");
    }
    let log = scene.log().await;
    assert_eq!(log.len(), 1, "{log:?}");
}

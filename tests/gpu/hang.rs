//! A driver that hangs: in any call, without costing the host a tick.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use belfry_common::clock;
use belfry_tests::{
    agent::Agent,
    cli::{Cli, Stream},
    collector::Collector,
    gpus::Gpus,
    wait::{SOON, eventually},
};
use serde_json::Value;

const ONE: &str = "[[gpu]]\nkind = \"h100\"\ncount = 2\n";
const MIG: &str = "[[gpu]]\nkind = \"h100_mig\"\n";
/// From the moment in which a call begins to hang to the alert.
const TOLD_WITHIN_MS: i64 = 5_000;
/// How far from its second a tick of the host may be.
const LATE_MAX_MS: i64 = 700;
/// Agents at a time.
const AT_ONCE: usize = 8;

/// Calls that hang in the short form; all of them with `BELFRY_ALL_CALLS=1`.
const SOME: [&str; 6] = [
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetVbiosVersion",
    "nvmlInit_v2",
];

/// Calls that are made each second. Of the others it is not waited for when they are next made: their agent starts anew.
const EACH_SECOND: [&str; 14] = [
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetEncoderUtilization",
    "nvmlDeviceGetDecoderUtilization",
    "nvmlDeviceGetJpgUtilization",
    "nvmlDeviceGetOfaUtilization",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetFieldValues",
];

/// Every call that an agent makes of such GPUs.
async fn calls(scenario: &str) -> BTreeSet<String> {
    let gpus = Gpus::new("");
    let log = gpus.file("calls.log");
    gpus.set(&format!("log = {log:?}\n{scenario}"));
    gpus.sampled().await;
    let text = std::fs::read_to_string(log).unwrap();
    // The wait for errors is meant to last.
    let calls = text.lines().filter_map(|line| line.split(' ').next()).filter(|name| *name != "nvmlEventSetWait_v2");
    calls.map(str::to_owned).collect()
}

/// Calls that NVML's bindings make together with another, which is the one that is named.
const NAMED_AS: [(&str, &str); 4] = [
    ("nvmlDeviceGetRetiredPages", "nvmlDeviceGetRetiredPages_v2"),
    ("nvmlGpmSampleAlloc", "nvmlGpmSampleGet"),
    ("nvmlGpmSampleFree", "nvmlGpmMetricsGet"),
    ("nvmlSystemGetDriverVersion", "nvmlInit_v2"),
];

struct Trial {
    call: String,
    gpus: Gpus,
    agent: Agent,
    /// When the call begins to hang, or the agent starts that makes it.
    began: i64,
}

#[tokio::test]
async fn a_hang_in_any_call_is_told_and_costs_the_host_nothing() {
    let mut all: BTreeMap<String, &str> = BTreeMap::new();
    for scenario in [MIG, ONE] {
        all.extend(calls(scenario).await.into_iter().map(|call| (call, scenario)));
    }
    assert!(all.len() > 50, "{all:?}");
    if std::env::var_os("BELFRY_ALL_CALLS").is_none() {
        all.retain(|call, _| SOME.contains(&call.as_str()));
    }
    let collector = Collector::start_with("").await;
    let cli = Cli::admin(&collector);
    let events = cli.start(&["alerts", "--follow"]);
    let ticks = cli.start(&["tail", "node_load1", "-o", "jsonl"]);
    let all: Vec<(String, &str)> = all.into_iter().collect();
    for some in all.chunks(AT_ONCE) {
        let mut trials = Vec::new();
        for (call, scenario) in some {
            let gpus = Gpus::new(scenario);
            let mut agent = Agent::join(&collector, call, collector.address()).await;
            agent.equip(&gpus, "");
            agent.start();
            trials.push(Trial { call: call.clone(), gpus, agent, began: 0 });
        }
        for trial in &trials {
            eventually("the GPUs are read", Duration::from_secs(30), async || {
                let status = cli.json(&["status", &trial.call]).await;
                status["nodes"][0]["gpus"][0]["temperature_celsius"].is_number().then_some(())
            })
            .await;
        }
        hang(&mut trials, &events, some).await;
    }
    let ticks = ticks.objects();
    let mut seen: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for tick in &ticks {
        let node = tick["labels"]["instance"].as_str().unwrap();
        if EACH_SECOND.contains(&node) {
            seen.entry(node).or_default().push(time(&tick["time"]));
        }
    }
    assert!(!seen.is_empty());
    for (node, mut times) in seen {
        // The first is made at the start, whenever that is; it may arrive after the second.
        times.sort_unstable();
        let late: Vec<i64> = times[1..].iter().map(|time| time % 1000).filter(|late| *late > LATE_MAX_MS).collect();
        assert_eq!(late, [0; 0], "{node}: ticks of the host came late");
        let gaps: Vec<i64> =
            times[1..].windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1000 + LATE_MAX_MS).collect();
        assert_eq!(gaps, [0; 0], "{node}: ticks of the host are missing");
    }
    drop(collector);
}

/// All calls of these trials hang at once; then they go on.
async fn hang(trials: &mut [Trial], events: &Stream, some: &[(String, &str)]) {
    for (trial, (call, scenario)) in trials.iter_mut().zip(some) {
        trial.gpus.set(&format!("{scenario}[[fault]]\ncall = {call:?}\nhang = true\n"));
        if !EACH_SECOND.contains(&call.as_str()) {
            trial.agent.kill();
            trial.agent.start();
        }
        trial.began = clock::now().as_millis();
    }
    for trial in trials.iter() {
        let fired = told(events, &trial.call, "firing", SOON).await;
        let named = NAMED_AS.iter().find(|(call, _)| *call == trial.call).map_or(&*trial.call, |(_, named)| named);
        assert_eq!(fired["labels"]["call"], named, "{fired}");
        let took = time(&fired["time"]) - trial.began;
        assert!(took <= TOLD_WITHIN_MS, "{}: told after {took} ms", trial.call);
    }
    for (trial, (_, scenario)) in trials.iter().zip(some) {
        trial.gpus.set(scenario);
    }
    for trial in trials.iter_mut() {
        told(events, &trial.call, "resolved", SOON).await;
        trial.agent.kill();
    }
}

/// The event of the alert about this node's driver.
async fn told(events: &Stream, node: &str, event: &str, within: Duration) -> Value {
    eventually(&format!("{node}: {event}"), within, async || {
        let is_it = |told: &Value| {
            told["rule"] == "GpuDriverUnresponsive" && told["labels"]["instance"] == node && told["event"] == event
        };
        events.objects().into_iter().find(is_it)
    })
    .await
}

fn time(time: &Value) -> i64 {
    let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

//! `belfry-agent sample`: the machine's readings, without a collector and without leaving a trace.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use belfry_tests::{
    binaries,
    cli::{self, assert_fields, assert_time, csv_rows, objects},
    process::read_one_line,
};
use serde_json::Value;

fn load1() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn memory_bytes(field: &str) -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Every sampler once, in this form.
async fn sample(state: &Path, form: &str) -> String {
    cli::agent(state, &["sample", "--once", "-o", form]).await.done()
}

/// The kernel's metrics. What the agent says of itself depends on what it has done so far.
fn kernel<'a>(metrics: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    metrics.into_iter().filter(|metric| metric.starts_with("node_")).map(str::to_string).collect()
}

fn of_objects(samples: &[Value]) -> BTreeSet<String> {
    kernel(samples.iter().map(|sample| sample["metric"].as_str().unwrap()))
}

#[tokio::test]
async fn one_round_of_samples_says_what_the_kernel_says() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (load_before, free_before) = (load1(), memory_bytes("MemAvailable"));
    let samples: Vec<Value> = serde_json::from_str(&sample(&state, "json").await).unwrap();
    let load_after = load1();
    for sample in &samples {
        let has_failed = sample["value"].is_null();
        assert_fields(sample, if has_failed { "time metric labels value reason" } else { "time metric labels value" });
        assert_time(&sample["time"]);
    }
    let value = |name: &str| {
        let mut found = samples.iter().filter(|sample| sample["metric"] == name);
        let value = found.next().unwrap_or_else(|| panic!("no {name}"))["value"].as_f64().unwrap();
        assert!(found.next().is_none(), "{name} twice");
        value
    };
    // The kernel may have made a new average, but not a wholly other one.
    let (low, high) = (load_before.min(load_after) - 0.5, load_before.max(load_after) + 0.5);
    assert!((low..=high).contains(&value("node_load1")), "{} is not from {low} to {high}", value("node_load1"));
    assert_eq!(value("node_memory_MemTotal_bytes"), memory_bytes("MemTotal"));
    let ratio = value("node_memory_MemAvailable_bytes") / free_before;
    assert!((0.5..2.0).contains(&ratio), "{ratio} of what was available just before");
    assert!(!state.exists(), "a look leaves nothing behind");
}

#[tokio::test]
async fn every_form_has_the_same_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let samples: Vec<Value> = serde_json::from_str(&sample(&state, "json").await).unwrap();
    let expected = of_objects(&samples);
    let check = |found: &BTreeSet<String>| {
        assert_eq!(found.symmetric_difference(&expected).collect::<Vec<_>>(), [""; 0]);
    };
    check(&of_objects(&objects(&sample(&state, "jsonl").await)));
    let text = sample(&state, "csv").await;
    assert!(text.starts_with("time,metric,labels,value,reason\n"), "{text}");
    let rows = csv_rows(&text);
    check(&kernel(rows.iter().map(|row| row["metric"].as_str())));
    for row in &rows {
        let labels: Value = serde_json::from_str(&row["labels"]).unwrap();
        assert!(labels.is_object() && (row["value"].is_empty() != row["reason"].is_empty()), "{row:?}");
    }
    let table = sample(&state, "table").await;
    check(&kernel(table.lines().map(|line| line.split(['{', ' ']).next().unwrap())));
}

#[tokio::test]
async fn a_closed_pipe_ends_sampling_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binaries::belfry_agent());
    command.arg("--state-dir").arg(directory.path().join("state")).args(["sample", "-o", "jsonl"]);
    let said = read_one_line(&mut command).await;
    assert!(said.code == Some(0) && said.error.is_empty(), "{said:?}");
    assert_fields(&objects(&said.output)[0], "time metric labels value");
}

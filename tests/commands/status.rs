//! `belfry status`: the table, the documents and the verdict.

use std::{collections::BTreeMap, fs};

use belfry_tests::{
    agent::Agent,
    cli::{Cli, assert_fields, assert_time, csv_rows, objects},
    collector::Collector,
    process::{finish, read_one_line},
    wait::{SOON, eventually},
};
use serde_json::Value;

use crate::node::Node;

const WIDTH: usize = 80;
const RULES: &str = r#"groups:
- name: test
  rules:
  - alert: Warm
    expr: test_value == 1
    labels: {severity: warning}
    annotations: {summary: "{{ $labels.instance }} is warm"}
  - alert: Hot
    expr: test_value == 2
    labels: {severity: critical}
    annotations: {summary: "{{ $labels.instance }} is hot"}
"#;

/// A collector with this machine's agent, and the status when its readings have come.
async fn this_machine(name: &str) -> (Collector, Agent, Value) {
    let collector = Collector::start().await;
    let mut agent = Agent::join(&collector, name, collector.address()).await;
    agent.start();
    let cli = Cli::admin(&collector);
    let document = eventually("the node has said what it has", SOON, async || {
        let document = cli.json(&["status"]).await;
        let node = &document["nodes"][0];
        // A rate is known from the second tick on. Disks and network cards are not everywhere.
        let is_known = node["cpu"]["utilization_ratio"].is_number() && node["memory"]["used_bytes"].is_number();
        is_known.then_some(document)
    })
    .await;
    (collector, agent, document)
}

#[tokio::test]
async fn tables_in_a_pipe_are_plain_text_and_fit() {
    let name = "a-node-with-a-rather-long-name-in-rack-17";
    let (collector, _agent, _) = this_machine(name).await;
    let cli = Cli::admin(&collector);
    for words in [&["status"][..], &["status", name]] {
        let text = cli.done(words).await;
        assert!(text.contains(name) && text.contains("up"), "{text}");
        assert!(!text.contains('\u{1b}'), "an escape code in a pipe: {text:?}");
        let narrow = finish(cli.command(words).env("COLUMNS", WIDTH.to_string())).await.done();
        let widest = narrow.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(WIDTH), "{widest:?} columns:\n{narrow}");
        let coloured = cli.done(&[words, &["--color", "always"]].concat()).await;
        assert!(coloured.contains("\u{1b}["), "{coloured:?}");
    }
    let text = cli.done(&["status"]).await;
    assert!(text.starts_with("1 node up  "), "{text}");
    let said = read_one_line(&mut cli.command(&["status"])).await;
    assert!(said.code == Some(0) && said.error.is_empty(), "the reader has seen enough: {said:?}");
}

#[tokio::test]
async fn documents_have_the_promised_fields_and_this_machines_values() {
    let (collector, _agent, mut document) = this_machine("node").await;
    assert_fields(&document, "time nodes");
    assert_time(&document["time"]);
    let node = &mut document["nodes"][0];
    // Why a node is not up, beyond what is promised.
    assert_eq!(node.as_object_mut().unwrap().remove("reason"), Some(Value::Null));
    check_node(node);

    let cli = Cli::admin(&collector);
    let lines = objects(&cli.done(&["status", "-o", "jsonl"]).await);
    assert_eq!((lines.len(), &lines[0]["name"], &lines[0]["state"]), (1, &node["name"], &node["state"]));
    let rows = cli.csv(&["status"]).await;
    let cell = |name: &str| rows[0][name].as_str();
    assert_eq!((rows.len(), cell("name"), cell("state"), cell("alerts_firing")), (1, "node", "up", "0"));
    assert_eq!(cell("memory_total_bytes").parse::<f64>().ok(), node["memory"]["total_bytes"].as_f64());
}

fn check_node(node: &Value) {
    let fields = "name state last_seen agent_version boot_time cpu memory disk network gpus alerts";
    assert_fields(node, fields);
    assert_fields(&node["cpu"], "utilization_ratio cores load1");
    assert_fields(&node["memory"], "used_bytes total_bytes");
    assert_fields(&node["disk"], "used_ratio_max mountpoint");
    assert_fields(&node["network"], "receive_bytes_per_second transmit_bytes_per_second");
    assert_fields(&node["alerts"], "firing pending");
    assert_eq!((&node["name"], &node["state"]), (&"node".into(), &"up".into()));
    assert_time(&node["last_seen"]);
    assert_time(&node["boot_time"]);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB")).unwrap();
    let total = total.trim().parse::<f64>().unwrap() * 1024.0;
    assert_eq!(node["memory"]["total_bytes"].as_f64(), Some(total));
    let used = node["memory"]["used_bytes"].as_f64().unwrap();
    assert!(used > 0.0 && used < total, "{used} of {total}");
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let cores = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    assert_eq!(node["cpu"]["cores"].as_u64(), Some(cores as u64));
    let busy = node["cpu"]["utilization_ratio"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&busy), "{busy}");
}

#[tokio::test]
async fn one_node_can_be_asked_for_and_an_unknown_one_is_an_error() {
    let collector = Collector::start().await;
    let _one = Node::join(&collector, "one").await;
    let _two = Node::join(&collector, "two").await;
    let cli = Cli::admin(&collector);
    let both = cli.json(&["status"]).await;
    assert_eq!(both["nodes"].as_array().unwrap().len(), 2);
    let one = cli.json(&["status", "two"]).await;
    assert_eq!((one["nodes"].as_array().unwrap().len(), &one["nodes"][0]["name"]), (1, &"two".into()));
    for form in ["table", "json", "jsonl", "csv"] {
        let error = cli.run(&["status", "three", "-o", form]).await.refused(1);
        assert_eq!(error, "belfry: no node is called \"three\"; `belfry nodes` lists them\n");
    }
}

#[tokio::test]
async fn an_empty_fleet_says_what_to_do_next() {
    let collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let text = cli.done(&["status"]).await;
    assert!(text.contains("belfry token create"), "{text}");
    assert_eq!(cli.json(&["status"]).await["nodes"], Value::Array(Vec::new()));
    assert_eq!(cli.done(&["status", "-o", "jsonl"]).await, "");
    let header = cli.done(&["status", "-o", "csv"]).await;
    assert!(header.starts_with("name,state,") && csv_rows(&header).is_empty(), "{header}");
}

/// A check's verdict, as monitoring systems read it: `BELFRY OK - words | figures`.
async fn verdict(cli: &Cli) -> (i32, String, BTreeMap<String, String>) {
    let said = cli.run(&["status", "--check"]).await;
    assert!(said.error.is_empty() && said.output.lines().count() == 1, "{said:?}");
    let (words, figures) = said.output.split_once(" | ").unwrap_or((&said.output, ""));
    let figures = figures.split_whitespace().map(|figure| figure.split_once('=').unwrap());
    let figures = figures.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    (said.code.unwrap(), words.to_string(), figures)
}

#[tokio::test]
async fn a_check_tells_by_its_exit_code_how_it_stands() {
    let mut collector = Collector::start_with_rules(RULES).await;
    let cli = Cli::admin(&collector);
    let (code, words, _) = verdict(&cli).await;
    assert_eq!((code, words.as_str()), (3, "BELFRY UNKNOWN - no node has joined"));

    let mut node = Node::join(&collector, "node").await;
    let steps = [
        (0.0, 0, "BELFRY OK - 1 node up", "0"),
        (1.0, 1, "BELFRY WARNING - 1 node up: Warm: node is warm", "1"),
        (2.0, 2, "BELFRY CRITICAL - 1 node up: Hot: node is hot", "1"),
        (0.0, 0, "BELFRY OK - 1 node up", "0"),
    ];
    for (value, code, words, firing) in steps {
        node.say("test_value", 1, value).await;
        let found = eventually(words, SOON, async || {
            let found = verdict(&cli).await;
            (found.1 == words).then_some(found)
        });
        let (found, _, figures) = found.await;
        assert_eq!((found, figures["alerts_firing"].as_str(), figures["nodes_up"].as_str()), (code, firing, "1"));
    }

    node.leave().await;
    let left = eventually("the node is down", SOON, async || {
        let (code, words, figures) = verdict(&cli).await;
        (figures["nodes_down"] == "1").then_some((code, words))
    });
    let (code, words) = left.await;
    assert!(code == 2 && words.starts_with("BELFRY CRITICAL - 0 nodes up, 1 down: node down"), "{code}: {words}");

    collector.kill();
    let (code, words, _) = verdict(&cli).await;
    assert!(code == 3 && words.starts_with("BELFRY UNKNOWN - nothing answers at 127.0.0.1:"), "{code}: {words}");
}

#[tokio::test]
async fn who_cannot_ask_is_told_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = Cli::of(&missing).run(&["status"]).await.refused(1);
    assert!(error.contains("no identity in") && error.contains(missing.to_str().unwrap()), "{error}");
    assert!(!missing.exists(), "to ask is not to create");

    let mut collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let address = collector.address().to_string();
    collector.kill();
    let error = cli.run(&["status"]).await.refused(1);
    assert!(error.contains(&address) && error.contains("is the collector running?"), "{error}");
}

//! `belfry alerts`: those that stand, and the stream of what happens to them.

use std::collections::BTreeSet;

use belfry_tests::{
    cli::{Cli, assert_fields, assert_time, objects},
    collector::Collector,
    process::read_one_line,
    wait::{SOON, eventually},
};
use serde_json::{Value, json};

use crate::node::Node;

const DEVICES: usize = 2;
const RULES: &str = r#"groups:
- name: test
  rules:
  - alert: High
    expr: test_value > 0
    labels: {severity: critical}
    annotations: {summary: "{{ $labels.device }} is at {{ $value }}"}
  - alert: Long
    expr: test_value > 0
    for: 1h
"#;
const EVENT: &str = "schema seq time event previous reason rule severity fingerprint dedup_key labels annotations value starts_at ends_at";

/// A collector with two rules, and a node that makes them hold.
struct Scene {
    collector: Collector,
    node: Node,
    cli: Cli,
    /// How many events there are.
    events: u64,
}

impl Scene {
    async fn begin() -> Self {
        let collector = Collector::start_with_rules(RULES).await;
        let node = Node::join(&collector, "node").await;
        let cli = Cli::admin(&collector);
        Self { collector, node, cli, events: 0 }
    }

    /// Makes the rules hold or not, each device an event of each rule, and waits until that is on record.
    async fn say(&mut self, value: f64) {
        self.node.say("test_value", DEVICES, value).await;
        self.events += 2 * DEVICES as u64;
        let admin = self.collector.admin();
        eventually("the events are made", SOON, async || {
            (admin.health("next_event").await > self.events).then_some(())
        })
        .await;
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn alerts_that_stand_are_listed_the_urgent_first() {
    let mut scene = Scene::begin().await;
    assert_eq!(scene.cli.done(&["alerts"]).await, "no alerts\n");
    assert_eq!(scene.cli.json(&["alerts"]).await, json!([]));
    scene.say(1.5).await;
    let listed = scene.cli.json(&["alerts"]).await;
    let fields = "state rule group severity fingerprint labels annotations value active_at fired_at keep_firing_since no_data_since";
    for alert in listed.as_array().unwrap() {
        assert_fields(alert, fields);
        assert_time(&alert["active_at"]);
    }
    let high = &listed[0];
    assert_eq!(
        (&high["state"], &high["rule"], &high["severity"]),
        (&"firing".into(), &"High".into(), &"critical".into())
    );
    assert_eq!((&high["value"], &high["labels"]["instance"]), (&1.5.into(), &"node".into()));
    assert_time(&high["fired_at"]);
    let table = scene.cli.done(&["alerts"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 1 + 2 * DEVICES && lines[0].starts_with("STATE "), "{table}");
    assert!(lines[1].starts_with("firing ") && lines[1].contains(" is at 1.5"), "{table}");
    assert!(lines[4].starts_with("pending ") && lines[4].contains("Long"), "{table}");
    assert!(!table.contains('\u{1b}'), "an escape code in a pipe: {table:?}");

    let states = async |words: &[&str]| -> BTreeSet<String> {
        let listed = scene.cli.json(&[&["alerts"], words].concat()).await;
        listed.as_array().unwrap().iter().map(|alert| alert["state"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(states(&["--state", "firing"]).await, ["firing".to_string()].into());
    assert_eq!(states(&["--state", "pending"]).await, ["pending".to_string()].into());
    assert_eq!(states(&["--state", "recovering"]).await, BTreeSet::new());
    assert_eq!(states(&["--state", "firing", "--state", "pending"]).await.len(), 2);
    let rows = scene.cli.csv(&["alerts", "--state", "firing"]).await;
    assert!(rows.len() == DEVICES && rows.iter().all(|row| row["rule"] == "High"), "{rows:?}");
    assert_eq!(objects(&scene.cli.done(&["alerts", "-o", "jsonl"]).await), *listed.as_array().unwrap());
    scene.say(0.0).await;
    assert_eq!(scene.cli.done(&["alerts"]).await, "no alerts\n");
}

#[tokio::test]
async fn the_stream_tells_each_event_with_the_promised_fields() {
    let mut scene = Scene::begin().await;
    let mut stream = scene.cli.start(&["alerts", "--follow"]);
    let lines = stream.until("the stream begins", |lines| !lines.is_empty()).await;
    assert_fields(&lines[0], EVENT);
    assert_time(&lines[0]["time"]);
    assert_eq!(
        (&lines[0]["event"], &lines[0]["seq"], &lines[0]["schema"]),
        (&"heartbeat".into(), &0.into(), &1.into())
    );
    scene.say(1.5).await;
    scene.say(0.0).await;
    let is_event = |line: &&Value| line["event"] != "heartbeat";
    let lines = stream.until("the events come", |lines| lines.iter().filter(is_event).count() == 4 * DEVICES).await;
    let events: Vec<Value> = lines.iter().filter(is_event).cloned().collect();
    assert_eq!(numbers(&events), (1..=scene.events).collect::<Vec<_>>(), "no gap");
    for event in &events {
        assert_fields(event, EVENT);
        assert_time(&event["time"]);
        assert_time(&event["starts_at"]);
    }
    let of = |rule: &str| -> Vec<&Value> {
        let is_it = |event: &&Value| event["rule"] == rule && event["labels"]["device"] == "d1";
        events.iter().filter(is_it).collect()
    };
    let [firing, resolved] = of("High")[..] else { panic!("{events:?}") };
    assert_eq!((&firing["event"], &firing["previous"]), (&"firing".into(), &"inactive".into()));
    assert_eq!((&firing["severity"], &firing["value"]), (&"critical".into(), &1.5.into()));
    assert_eq!((&firing["annotations"]["summary"], &firing["ends_at"]), (&"d1 is at 1.5".into(), &Value::Null));
    assert_eq!((&resolved["event"], &resolved["previous"]), (&"resolved".into(), &"firing".into()));
    assert_time(&resolved["ends_at"]);
    for same in ["fingerprint", "dedup_key", "starts_at", "labels"] {
        assert!(firing[same] == resolved[same] && !firing[same].is_null(), "{same}: {firing} {resolved}");
    }
    let events_of_long: Vec<&str> = of("Long").iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events_of_long, ["pending", "resolved"]);
    stream.stop().await;

    let said = read_one_line(&mut scene.cli.command(&["alerts", "--follow"])).await;
    assert!(said.code == Some(0) && said.error.is_empty(), "the reader has seen enough: {said:?}");
    let heartbeat = &objects(&said.output)[0];
    assert_eq!((&heartbeat["event"], &heartbeat["seq"]), (&"heartbeat".into(), &scene.events.into()));
}

#[tokio::test]
async fn a_stream_begins_where_since_says() {
    let mut scene = Scene::begin().await;
    scene.say(1.0).await;
    scene.say(0.0).await;
    let since = async |words: &[&str]| scene.cli.done(&[&["alerts", "--since"], words].concat()).await;
    let all = objects(&since(&["0"]).await);
    assert_eq!(numbers(&all), (1..=scene.events).collect::<Vec<_>>());
    assert_eq!(numbers(&objects(&since(&["5"]).await)), (6..=scene.events).collect::<Vec<_>>());
    assert_eq!(since(&[&scene.events.to_string()]).await, "");
    assert_eq!(objects(&since(&["1h"]).await), all);
    let table = since(&["0", "-o", "table"]).await;
    assert!(table.lines().count() == all.len() && table.contains("resolved"), "{table}");
    let rows = scene.cli.csv(&["alerts", "--since", "0"]).await;
    assert!(rows.len() == all.len() && rows[0]["seq"] == "1" && rows[0]["event"] == all[0]["event"], "{rows:?}");
    let mut stream = scene.cli.start(&["alerts", "--follow", "--since", "5"]);
    let lines = stream.until("the past comes", |lines| numbers(lines).contains(&scene.events)).await;
    assert_eq!(numbers(&lines)[0], 6);
}

#[tokio::test]
async fn a_cursor_goes_on_where_the_last_run_ended() {
    let mut scene = Scene::begin().await;
    scene.say(1.0).await;
    let cli = scene.cli.clone();
    let run = async |words: &[&str]| {
        let text = cli.done(&[&["alerts", "--cursor", "pager"], words].concat()).await;
        numbers(&objects(&text))
    };
    assert_eq!(run(&["--since", "0"]).await, [1, 2, 3, 4]);
    assert_eq!(run(&[]).await, [0; 0], "nothing has happened since");
    scene.say(0.0).await;
    scene.say(1.0).await;
    assert_eq!(run(&[]).await, [5, 6, 7, 8, 9, 10, 11, 12]);
    scene.say(0.0).await;
    let mut stream = cli.start(&["alerts", "--follow", "--cursor", "pager"]);
    let lines = stream.until("what was missed comes", |lines| numbers(lines).contains(&16)).await;
    assert_eq!(numbers(&lines)[..4], [13, 14, 15, 16]);
    stream.stop().await;
    // Another reader's place is its own, and a new one begins now.
    let text = cli.done(&["alerts", "--cursor", "other"]).await;
    assert_eq!(text, "");
    assert_eq!(run(&["--since", "14"]).await, [15, 16], "a place that is given counts more");
}

//! `belfry nodes`: listed, shut out, forgotten.

use belfry_tests::{
    cli::{Cli, assert_fields, assert_time, objects},
    collector::Collector,
    hostile::refusal,
    wait::{SOON, eventually},
};
use serde_json::{Value, json};

use crate::node::Node;

#[tokio::test]
async fn nodes_are_listed_in_every_form() {
    let collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    assert!(cli.done(&["nodes"]).await.contains("belfry token create"), "an empty list says what to do");
    let mut node = Node::join(&collector, "node-b").await;
    node.say("test_value", 3, 1.0).await;
    let _silent = collector.join("node-a").await;
    let listed = cli.json(&["nodes", "list"]).await;
    assert_eq!(listed, cli.json(&["nodes"]).await);
    let fields =
        "id name state reason address agent_version joined_at last_seen series series_left_out clock_skew_seconds";
    for node in listed.as_array().unwrap() {
        assert_fields(node, fields);
        assert_time(&node["joined_at"]);
    }
    let of = |name: &str| listed.as_array().unwrap().iter().find(|node| node["name"] == name).unwrap();
    assert_eq!((&of("node-b")["state"], &of("node-b")["series"]), (&"up".into(), &3.into()));
    assert_eq!((&of("node-b")["agent_version"], &of("node-a")["last_seen"]), (&"test".into(), &Value::Null));
    assert_eq!(objects(&cli.done(&["nodes", "-o", "jsonl"]).await).len(), 2);
    let rows = cli.csv(&["nodes"]).await;
    assert!(rows.iter().any(|row| row["name"] == "node-b" && row["state"] == "up" && row["series"] == "3"), "{rows:?}");
    let table = cli.done(&["nodes"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("NODE "), "{table}");
    assert!(lines[1].starts_with("node-a ") && lines[2].starts_with("node-b "), "{table}");
}

#[tokio::test]
async fn a_revoked_node_is_shut_out_at_once_and_keeps_its_data() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 1.0).await;
    let cli = Cli::admin(&collector);
    let done = cli.json(&["nodes", "revoke", "node"]).await;
    assert_eq!(done, json!({"node": "node", "done": "revoked"}));
    let (live, _) = node.live();
    let closed = refusal(&live.connection, SOON).await.to_string();
    assert!(closed.contains("revoked"), "{closed}");
    let listed = cli.json(&["nodes"]).await;
    let row = (&listed[0]["state"], &listed[0]["reason"], &listed[0]["series"]);
    assert_eq!(row, (&"down".into(), &"revoked".into(), &1.into()));
    assert_eq!(cli.run(&["status", "--check"]).await.code, Some(0), "somebody has decided so");
}

#[tokio::test]
async fn a_forgotten_node_is_gone_and_its_name_is_free() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 1.0).await;
    let cli = Cli::admin(&collector);
    let text = cli.done(&["nodes", "forget", "node"]).await;
    assert!(text.starts_with("forgotten: node (") && text.contains("belfry-agent join --force"), "{text}");
    let (live, _) = node.live();
    refusal(&live.connection, SOON).await;
    assert_eq!(cli.json(&["nodes"]).await, json!([]));
    assert_eq!(cli.json(&["status"]).await["nodes"], json!([]));
    for change in ["revoke", "forget"] {
        let error = cli.run(&["nodes", change, "node"]).await.refused(1);
        assert!(error.contains("no node is called"), "{error}");
    }
    let mut again = Node::join(&collector, "node").await;
    again.say("test_value", 2, 1.0).await;
    let back = eventually("it is back", SOON, async || {
        let listed = cli.json(&["nodes"]).await;
        (listed[0]["series"] == 2).then_some(listed)
    });
    assert_eq!(back.await[0]["state"], "up");
}

//! `belfry rules`: what the collector has loaded, and what is wrong with a file.

use std::{fs, path::PathBuf};

use belfry_tests::{
    cli::{Cli, assert_fields, objects},
    collector::Collector,
    wait::{SOON, eventually},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::Node;

const GOOD: &str = r#"groups:
- name: test
  rules:
  - record: test:max
    expr: max(test_value)
  - alert: High
    expr: test_value > 1
    labels: {severity: warning}
    annotations: {summary: "{{ $labels.instance }} is high"}
"#;

/// Somebody without an identity, with rule files.
struct Files {
    directory: TempDir,
    cli: Cli,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cli = Cli::of(&directory.path().join("nobody"));
        Self { directory, cli }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

#[tokio::test]
async fn a_good_file_passes_without_a_collector() {
    let files = Files::new();
    let good = files.write("good.yml", GOOD);
    let words = ["rules", "check", good.to_str().unwrap()];
    assert_eq!(files.cli.done(&words).await, "2 rules in 1 file: no problems\n");
    assert_eq!(files.cli.json(&words).await, json!([]));
    assert_eq!(files.cli.done(&[&words[..], &["--strict"]].concat()).await, "2 rules in 1 file: no problems\n");
}

#[tokio::test]
async fn a_bad_file_fails_by_file_line_and_column() {
    let files = Files::new();
    let cases = [
        ("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum by (\n", "5:18: error: "),
        (
            "groups:\n- name: g\n  rulez: []\n",
            "3:3: error: unknown field \"rulez\" in a group; did you mean \"rules\"?",
        ),
        ("groups: [\n", "1:9: error: not valid YAML"),
    ];
    for (text, message) in cases {
        let bad = files.write("bad.yml", text);
        let words = ["rules", "check", bad.to_str().unwrap()];
        let said = files.cli.run(&words).await;
        assert!(said.code == Some(1) && said.error.is_empty(), "{said:?}");
        assert!(said.output.starts_with(&format!("{}:{message}", bad.display())), "{}", said.output);
        assert!(said.output.ends_with("1 file: 1 error\n"), "{}", said.output);

        let said = files.cli.run(&[&words[..], &["-o", "jsonl"]].concat()).await;
        let problem = &objects(&said.output)[0];
        assert_fields(problem, "severity file position group rule message help");
        assert_fields(&problem["position"], "line column");
        let place = format!("{}:{}: ", problem["position"]["line"], problem["position"]["column"]);
        assert!(said.code == Some(1) && message.starts_with(&place), "{problem}");
        assert_eq!((&problem["severity"], problem["file"].as_str()), (&"error".into(), bad.to_str()));
    }
}

#[tokio::test]
async fn one_bad_file_among_good_ones_is_found() {
    let files = Files::new();
    let good = files.write("good.yml", GOOD);
    let missing = files.directory.path().join("missing.yml");
    let said = files.cli.run(&["rules", "check", good.to_str().unwrap(), missing.to_str().unwrap()]).await;
    assert!(said.code == Some(1) && said.output.contains(missing.to_str().unwrap()), "{said:?}");
    assert!(said.output.ends_with("2 files: 1 error\n"), "{}", said.output);
}

#[tokio::test]
async fn warnings_fail_only_if_that_is_asked_for() {
    let files = Files::new();
    let text = "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up == 0\n    labels: {severity: info}\n";
    let odd = files.write("odd.yml", text);
    let words = ["rules", "check", odd.to_str().unwrap()];
    let text = files.cli.done(&words).await;
    assert!(text.contains("odd.yml:4:5: warning: ") && text.ends_with("1 rule in 1 file: 1 warning\n"), "{text}");
    let said = files.cli.run(&[&words[..], &["--strict"]].concat()).await;
    assert_eq!((said.code, said.output.as_str()), (Some(1), text.as_str()));
}

#[tokio::test]
async fn loaded_rules_are_listed_with_their_state() {
    let collector = Collector::start_with_rules(GOOD).await;
    let rules = collector.scratch().join("rules.yml");
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 2.0).await;
    let cli = Cli::admin(&collector);
    let firing = eventually("the rule fires", SOON, async || {
        let listed = cli.json(&["rules", "list"]).await;
        (listed[1]["state"] == "firing").then_some(listed)
    });
    let listed = firing.await;
    let fields = "file group rule type state health last_error warnings last_evaluation evaluation_seconds evaluations evaluation_seconds_total alerts left_out expression for_seconds keep_firing_for_seconds labels annotations interval_seconds limit";
    for rule in listed.as_array().unwrap() {
        assert_fields(rule, fields);
        assert_eq!((&rule["health"], rule["file"].as_str()), (&"ok".into(), rules.to_str()));
    }
    assert_eq!((&listed[0]["rule"], &listed[0]["type"]), (&"test:max".into(), &"recording".into()));
    assert_eq!((&listed[0]["state"], &listed[1]["alerts"]), (&Value::Null, &1.into()));
    let table = cli.done(&["rules", "list"]).await;
    assert!(table.lines().any(|line| line.starts_with("High ") && line.contains("firing")), "{table}");
    let rows = cli.csv(&["rules", "list"]).await;
    assert_eq!((rows.len(), rows[1]["expression"].as_str()), (2, "test_value > 1"));
}

#[tokio::test]
async fn the_rules_that_ship_are_there_unless_they_are_switched_off() {
    let collector = Collector::start_with("").await;
    let listed = Cli::admin(&collector).json(&["rules", "list"]).await;
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|rule| rule["rule"].as_str().unwrap()).collect();
    assert!(names.contains(&"NodeDown") && names.contains(&"DiskFillingUp"), "{names:?}");
    let collector = Collector::start().await;
    assert_eq!(Cli::admin(&collector).done(&["rules", "list"]).await, "no rules are loaded\n");
}

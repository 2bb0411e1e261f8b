//! `belfry rules`: what the collector has loaded, and what is wrong with a file.

use std::{fs, path::PathBuf};

use belfry_tests::{
    cli::{Cli, assert_fields, csv_rows, objects},
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

const TESTS: &str = r#"rule_files: ['g*.yml']
tests:
- name: high
  interval: 1m
  input_series:
  - {series: 'test_value{instance="a"}', values: '0 2x3 stale'}
  - {series: 'test_value{instance="b"}', values: '1x5'}
  alert_rule_test:
  - {eval_time: 0m, alertname: High}
  - eval_time: 2m
    alertname: High
    exp_alerts:
    - exp_labels: {instance: a, severity: warning}
      exp_annotations: {summary: a is high}
  promql_expr_test:
  - {expr: 'test:max', eval_time: 3m, exp_samples: [{labels: 'test:max', value: 2}]}
- name: ended
  input_series:
  - {series: 'test_value{instance="a"}', values: '2 stale'}
  alert_rule_test:
  - {eval_time: 1m, alertname: High}
"#;

#[tokio::test]
async fn tests_of_rules_pass_and_fail_without_a_collector() {
    let files = Files::new();
    files.write("good.yml", GOOD);
    let tests = files.write("tests.yml", TESTS);
    let words = ["rules", "test", tests.to_str().unwrap()];
    let passed = [&words[..], &["--prometheus"]].concat();
    assert_eq!(files.cli.done(&passed).await, "2 tests, 4 checks in 1 file: all passed\n");
    let passed = [&words[..], &["--run", "^hi"]].concat();
    assert_eq!(files.cli.done(&passed).await, "1 test, 3 checks in 1 file: all passed\n");

    // Not contradicted by data, the alert stands, and why is said.
    let said = files.cli.run(&words).await;
    let lines: Vec<&str> = said.output.lines().collect();
    let file = tests.display();
    assert_eq!((said.code, lines.len()), (Some(1), 5), "{said:?}");
    assert_eq!(lines[0], format!("{file}:21:5: failed: test \"ended\": alert \"High\" at 1m"));
    assert_eq!(lines[1], "  expected  nothing");
    assert!(
        lines[2].starts_with("  found     {alertname=\"High\", instance=\"a\", severity=\"warning\"} summary="),
        "{said:?}"
    );
    assert!(lines[3].contains("lacks data") && lines[3].contains("belfry_no_data: ok"), "{said:?}");
    assert_eq!(lines[4], "2 tests, 4 checks in 1 file: 1 failed");

    let said = files.cli.run(&[&words[..], &["-o", "json"]].concat()).await;
    let report = &serde_json::from_str::<Value>(&said.output).unwrap()[0];
    assert_fields(report, "file tests problems checks");
    let fields = "position test check subject time_seconds passed expected found note";
    let checks = report["checks"].as_array().unwrap();
    checks.iter().for_each(|check| assert_fields(check, fields));
    assert_eq!(
        (&report["tests"], &checks[2]["subject"], &checks[3]["passed"]),
        (&json!(2), &json!("test:max"), &json!(false))
    );
}

#[tokio::test]
async fn tests_that_cannot_be_run_fail_with_their_place() {
    let files = Files::new();
    files.write("good.yml", GOOD);
    let cases = [
        ("rule_files: [missing.yml]", "1:14: error: "),
        ("rule_files: ['none*.yml']", "1:14: error: no rule file matches"),
        (
            "tests: [{input_series: [{series: up, values: '1 2 zwei'}]}]",
            "1:51: error: `values`: malformed value `zwei`",
        ),
        (
            "tests: [{input_series: [{series: 'up{a=~\"b\"}', values: 1}]}]",
            "1:35: error: `series`: labels must be given",
        ),
        ("tests: [{promql_expr_test: [{expr: 'sum(up', eval_time: 1m}]}]", "1:40: error: the expression is not valid"),
        (
            "tests: [{alert_rule_test: [{alertname: A, eval_time: 9y}], interval: 1s}]\nevaluation_interval: 1s",
            "1:9: error: the test takes more than",
        ),
        ("tests: [{alert_rule_test: [{eval_time: 1m}]}]", "1:28: error: the test does not name its alert"),
        ("", "1:1: error: the file has no tests"),
    ];
    for (text, message) in cases {
        let bad = files.write("tests.yml", text);
        let said = files.cli.run(&["rules", "test", bad.to_str().unwrap()]).await;
        let expected =
            if text.contains("missing.yml") { String::new() } else { format!("{}:{message}", bad.display()) };
        assert!(said.code == Some(1) && said.output.starts_with(&expected), "{text}: {said:?}");
        assert!(said.output.ends_with("1 file could not be run\n"), "{said:?}");
    }
    let good = files.write("tests.yml", TESTS);
    let said = files.cli.run(&["rules", "test", good.to_str().unwrap(), "--run", "nosuch"]).await;
    assert!(said.code == Some(1) && said.error.contains("no test has a name that matches"), "{said:?}");
}

#[tokio::test]
async fn rules_are_tried_on_what_the_collector_has() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 1, 2.0).await;
    let cli = Cli::admin(&collector);
    let file = collector.scratch().join("tried.yml");
    let two = r#"vector(1) or label_replace(vector(2), "a", "b", "", "")"#;
    let broken = format!("\n  - {{alert: Broken, expr: 'test_value + on() ({two})'}}");
    fs::write(&file, format!("{GOOD}{broken}\n  - {{alert: Never, expr: 'test:max > 9'}}\n")).unwrap();
    let words = ["rules", "backtest", file.to_str().unwrap(), "--since", "1m", "--step", "1s"];
    let tried = eventually("the alert would have fired", SOON, async || {
        let said = cli.run(&[&words[..], &["-o", "json"]].concat()).await;
        let tried: Value = serde_json::from_str(&said.output).unwrap();
        (tried[0]["fired"] == 1).then_some(tried)
    });
    let tried = tried.await;
    let rules: Vec<&str> = tried.as_array().unwrap().iter().map(|rule| rule["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["High", "Broken", "Never"]);
    assert_fields(&tried[0], "file group rule error fired pending_only firing_seconds longest_seconds episodes");
    let episode = &tried[0]["episodes"][0];
    assert_fields(episode, "labels active_at fired_at ended_at value");
    let labels =
        json!({"alertname": "High", "device": "d0", "instance": "node", "job": "belfry", "severity": "warning"});
    assert_eq!((&episode["labels"], &episode["value"], &episode["ended_at"]), (&labels, &json!(2.0), &Value::Null));
    assert!(tried[1]["error"].as_str().unwrap().contains("duplicate series"), "{tried}");

    let said = cli.run(&words).await;
    assert!(said.error.contains("test:max: read as the collector recorded it"), "{said:?}");
    assert!(said.code == Some(1) && said.output.contains("still firing at the end"), "{said:?}");
    assert!(
        said.output.contains(
            "\n1 rule of 3 would have fired, 1 alert in all, 1 rule could not be evaluated; evaluated each 1s from "
        ),
        "{said:?}"
    );
    let rows = csv_rows(&cli.run(&[&words[..], &["-o", "csv"]].concat()).await.output);
    assert_eq!((&*rows[0]["rule"], &*rows[0]["fired"], &*rows[1]["rule"]), ("High", "true", "Broken"));
    let error = cli.run(&["rules", "backtest", file.to_str().unwrap(), "--since", "0s"]).await.refused(2);
    assert!(error.contains("must be at least 1ms"), "{error}");
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
    assert_eq!((&*rows[1]["labels"], &*rows[1]["for_seconds"]), (r#"{"severity":"warning"}"#, "0"));
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

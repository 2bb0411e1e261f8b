//! `belfry doctor` and `belfry-agent doctor`: what they find, and that the exit code says whether it matters.

use std::path::Path;

use belfry_tests::{
    agent::Agent,
    cli::{self, Cli, assert_fields, csv_rows, objects},
    collector::Collector,
    process::Said,
    wait::{SOON, eventually},
};
use serde_json::Value;

use crate::node::Node;

/// The verdict on each subject.
fn verdicts(findings: &[Value]) -> Vec<(&str, &str)> {
    findings
        .iter()
        .map(|finding| (finding["subject"].as_str().unwrap(), finding["verdict"].as_str().unwrap()))
        .collect()
}

fn array(said: &Said) -> Vec<Value> {
    assert!(said.error.is_empty(), "{said:?}");
    serde_json::from_str(&said.output).unwrap()
}

#[tokio::test]
async fn a_healthy_installation_is_told_so() {
    let collector = Collector::start_with("").await;
    let mut agent = Agent::join(&collector, "node", collector.address()).await;
    agent.start();
    let cli = Cli::admin(&collector);
    eventually("the node is up", SOON, async || (collector.admin().node("node").await["state"] == "up").then_some(()))
        .await;
    let findings = cli.json(&["doctor"]).await;
    let findings = findings.as_array().unwrap();
    for finding in findings {
        assert_fields(finding, "subject verdict detail help");
        assert!(finding["verdict"] == "ok" && finding["help"].is_null(), "{finding}");
    }
    let subjects: Vec<&str> = verdicts(findings).iter().map(|(subject, _)| *subject).collect();
    let expected = ["identity", "collector", "version", "clocks", "disk", "database", "audit log", "rules", "nodes"];
    assert_eq!(subjects, expected);
    let table = cli.done(&["doctor"]).await;
    assert!(table.starts_with("VERDICT ") && table.contains("1 of 1 node up"), "{table}");
    assert_eq!(objects(&cli.done(&["doctor", "-o", "jsonl"]).await).len(), expected.len());
    assert_eq!(cli.csv(&["doctor"]).await.len(), expected.len());

    let said = cli::agent(&agent.state_directory(), &["doctor", "-o", "json"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let findings = array(&said);
    for finding in &findings {
        assert_fields(finding, "subject verdict detail");
    }
    for subject in ["state", "identity", "collector", "samplers"] {
        assert!(verdicts(&findings).contains(&(subject, "ok")), "{subject}: {findings:?}");
    }
    let address = collector.address().to_string();
    let is_accepted = |finding: &Value| finding["detail"].as_str().unwrap().starts_with(&format!("{address} accepts"));
    assert!(findings.iter().any(is_accepted), "{findings:?}");
}

#[tokio::test]
async fn a_collector_that_is_absent_is_a_failure_with_advice() {
    let mut collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let address = collector.address().to_string();
    collector.kill();
    let said = cli.run(&["doctor", "-o", "json"]).await;
    let findings = array(&said);
    assert_eq!(said.code, Some(1));
    assert_eq!(verdicts(&findings), [("identity", "ok"), ("collector", "failure")]);
    assert!(findings[1]["detail"].as_str().unwrap().contains(&address), "{findings:?}");
    assert!(findings[1]["help"].as_str().unwrap().starts_with("start the collector"), "{findings:?}");
    let said = cli.run(&["doctor"]).await;
    assert!(said.code == Some(1) && said.error.is_empty() && said.output.contains("→ start the collector"), "{said:?}");
}

#[tokio::test]
async fn what_deserves_attention_is_a_warning_and_no_failure() {
    let collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let _silent = collector.join("silent").await;
    let mut gone = Node::join(&collector, "gone").await;
    gone.leave().await;
    let said = eventually("both are noticed", SOON, async || {
        let said = cli.run(&["doctor"]).await;
        said.output.contains("1 down: gone").then_some(said)
    });
    let said = said.await;
    assert!(said.code == Some(0) && said.error.is_empty(), "{said:?}");
    assert!(said.output.contains("1 joined and never sent anything: silent"), "{}", said.output);
    assert!(said.output.contains("warning  rules ") && said.output.contains("none are loaded"), "{}", said.output);
}

#[tokio::test]
async fn who_has_not_joined_is_told_how_to() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nobody");
    let said = Cli::of(&nowhere).run(&["doctor", "-o", "json"]).await;
    assert_eq!(said.code, Some(1));
    let findings = array(&said);
    assert_eq!(verdicts(&findings), [("identity", "failure")]);
    assert!(findings[0]["help"].as_str().unwrap().contains("belfry join TOKEN --collector HOST:PORT"), "{findings:?}");
    assert!(!nowhere.exists(), "to look is not to create");

    let said = of_agent(directory.path(), "csv").await;
    let rows = csv_rows(&said.output);
    let row = rows.iter().find(|row| row["subject"] == "identity").unwrap();
    assert!(row["verdict"] == "failure" && row["detail"].contains("belfry-agent join TOKEN"), "{row:?}");
    let said = of_agent(directory.path(), "table").await;
    assert!(said.output.lines().any(|line| line.starts_with("failure  identity ")), "{}", said.output);
    assert!(!said.output.contains('\u{1b}'), "an escape code in a pipe: {said:?}");
}

#[tokio::test]
async fn a_revoked_agent_is_told_so() {
    let collector = Collector::start().await;
    let agent = Agent::join(&collector, "node", collector.address()).await;
    Cli::admin(&collector).done(&["nodes", "revoke", "node"]).await;
    let said = of_agent(&agent.state_directory(), "jsonl").await;
    let findings = objects(&said.output);
    assert!(verdicts(&findings).contains(&("collector", "failure")), "{findings:?}");
    assert!(said.output.contains("this identity is revoked"), "{}", said.output);
}

/// The agent's doctor, which must find a failure.
async fn of_agent(state: &Path, form: &str) -> Said {
    let said = cli::agent(state, &["doctor", "-o", form]).await;
    assert!(said.code == Some(1) && said.error.is_empty(), "{said:?}");
    said
}

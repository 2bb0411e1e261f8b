//! SIGHUP: what can be read again is, and what is wrong changes nothing.

use std::fs;

use belfry_common::{clock, model::Epoch};
use belfry_tests::{
    agent::Agent,
    collector::Collector,
    hostile::Live,
    oracle::Stored,
    samples::batch_of,
    wait::{SOON, eventually},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::network::data_flows;

/// An agent goes on with the new configuration, in the same epoch and without losing a batch; a wrong one is refused by line.
#[tokio::test]
async fn an_agent_reads_its_configuration_again() {
    let mut collector = Collector::start().await;
    let mut agent = Agent::join(&collector, "agent", collector.address()).await;
    agent.configure("[samplers.load]\ninterval = \"250ms\"\n[labels]\nrack = \"old\"\n");
    agent.start();
    data_flows(&collector, SOON).await;

    agent.configure("[samplers.load]\ninterval = \"never\"\n");
    agent.process().signal(Signal::HUP);
    eventually("the agent refuses it", SOON, async || {
        let log = agent.process().log();
        (log.contains("agent.toml:2") && log.contains("going on with the one before")).then_some(())
    })
    .await;
    data_flows(&collector, SOON).await;

    agent.configure("[samplers.load]\nenabled = false\n[labels]\nrack = \"new\"\n");
    let request = json!({"request": "tail", "selectors": ["node_labels_info"], "node": "agent", "since_ms": null});
    let mut lines = collector.admin().follow(&request).await;
    let reloaded = clock::now();
    agent.process().signal(Signal::HUP);
    while lines.next(SOON).await.expect("the labels are said again")["labels"]["rack"] != "new" {}
    collector.admin().spool_is_sent("agent", SOON).await;
    agent.stop().await;
    collector.stop().await;

    let stored = Stored::read(&collector.data_directory());
    let node = agent.identity.subject.id;
    let epochs = stored.epochs(node);
    assert_eq!(epochs.len(), 1, "a reload is no new spool");
    stored.check_complete(node, epochs[0]);
    let last = *stored.times(node, "load").last().unwrap();
    assert!(last < reloaded.plus_millis(5_000), "the sampler was switched off");
    let vmstat = *stored.times(node, "vmstat").last().unwrap();
    assert!(vmstat > last, "the others go on");
}

/// A collector evaluates new rules from the signal on; wrong ones are refused by line, and the ones before stay in force.
#[tokio::test]
async fn a_collector_reads_its_rules_again() {
    let rule =
        |name: &str, expr: &str| format!("groups:\n- name: test\n  rules:\n  - alert: {name}\n    expr: {expr}\n");
    let mut collector = Collector::prepare("");
    let rules = collector.scratch().join("rules.yml");
    fs::write(&rules, rule("Old", "test_value > 10")).unwrap();
    collector.configure(&format!("shipped_rules = false\nrules = [{:?}]", rules.to_str().unwrap()));
    collector.restart().await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, Epoch(1)).await.unwrap();

    fs::write(&rules, rule("New", "test_value >")).unwrap();
    collector.process().signal(Signal::HUP);
    eventually("the rules are refused", SOON, async || {
        let log = collector.process().log();
        (log.contains("rules refused") && log.contains("rules.yml:5")).then_some(())
    })
    .await;
    live.store(1, &batch_of(1, "test_value", 0..1, clock::now(), 11.0)).await;
    has_fired(&collector, "Old").await;

    fs::write(&rules, rule("New", "test_value > 5")).unwrap();
    collector.process().signal(Signal::HUP);
    eventually("the rules are read", SOON, async || {
        collector.process().log().contains("rules read again").then_some(())
    })
    .await;
    live.store(2, &batch_of(1, "test_value", 0..1, clock::now(), 6.0)).await;
    has_fired(&collector, "New").await;
}

async fn has_fired(collector: &Collector, rule: &str) {
    eventually("the alert fires", SOON, async || {
        let standing = collector.admin().ask(json!({"request": "alerts", "states": ["firing"]})).await;
        let names: Vec<&Value> = standing.as_array().unwrap().iter().map(|alert| &alert["rule"]).collect();
        names.contains(&&json!(rule)).then_some(())
    })
    .await;
}

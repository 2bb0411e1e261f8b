//! What a shell is offered while somebody types.

use std::{path::Path, process::Command};

use belfry_tests::{
    binaries,
    collector::Collector,
    wait::{SOON, eventually},
};

use crate::node::Node;

/// What is offered for the last of these words, as bash asks for it.
fn offered(identity: &Path, words: &[&str]) -> Vec<String> {
    let mut command = Command::new(binaries::belfry());
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    command.env("BELFRY_IDENTITY", identity).args(["--", "belfry"]).args(words);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn names_are_those_that_the_collector_has() {
    let collector = Collector::start().await;
    let mut node = Node::join(&collector, "gpu-01").await;
    node.say("test_value_watts", 1, 2.0).await;
    let data = collector.data_directory();
    eventually("the metric is offered", SOON, async || {
        (offered(&data, &["query", "test_val"]) == ["test_value_watts"]).then_some(())
    })
    .await;
    for (typed, expected) in [
        ("sum(rate(test_val", "sum(rate(test_value_watts"),
        ("'sum(test_val", "sum(test_value_watts"),
        ("test_value_watts{dev", "test_value_watts{device"),
        ("test_value_watts{instance=\"g", "test_value_watts{instance=\"gpu-01"),
        ("avg by (devi", "avg by (device"),
        ("histogram_q", "histogram_quantile"),
    ] {
        let offers = offered(&data, &["query", typed]);
        assert!(offers.iter().any(|offer| offer == expected), "{typed}: {offers:?}");
    }
    assert_eq!(offered(&data, &["status", "g"]), ["gpu-01"]);
    assert_eq!(offered(&data, &["rules", "back"]), ["backtest"]);
}

#[test]
fn without_a_collector_there_are_no_names_and_no_error() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(offered(directory.path(), &["query", "sum(node_"]), Vec::<String>::new());
    assert_eq!(offered(directory.path(), &["stat"]), ["status"]);
}

//! `belfry store`: what is on disk, and whether it is as it was written.

use std::fs;

use belfry_tests::{
    cli::{Cli, assert_fields, assert_time, csv_rows},
    collector::Collector,
};
use serde_json::json;

const BLOCK: &str = "block tier first last series samples bytes written_at merged";

#[tokio::test]
async fn what_is_on_disk_is_shown_and_a_flipped_bit_is_found() {
    let mut collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let report = cli.json(&["simulate", "--nodes", "2", "--series", "500", "--duration", "3s", "--keep"]).await;
    let sent = report["batches_acked"].as_u64().unwrap() * 500;
    let data = collector.data_directory();
    let directory = data.to_str().unwrap();
    let of = async |words: &[&str]| cli.run(&[&["store", "--data-dir", directory], words].concat()).await;
    // A collector that ends puts what it has in memory on disk.
    collector.stop().await;

    let text = of(&["info", "-o", "json"]).await.done();
    let blocks: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(!blocks.is_empty());
    for block in &blocks {
        assert_fields(block, BLOCK);
        assert_time(&block["first"]);
        assert_eq!((&block["tier"], &block["merged"]), (&json!("raw"), &json!(false)));
    }
    let samples: u64 = blocks.iter().map(|block| block["samples"].as_u64().unwrap()).sum();
    assert!(samples >= sent, "{samples} of {sent}, and the collector's own");
    let nodes = csv_rows(&of(&["info", "--by", "node", "-o", "csv"]).await.done());
    let of_node = |name: &str| nodes.iter().find(|row| row["name"] == name).map(|row| row["samples"].clone());
    assert_eq!(of_node("sim-00000"), Some((sent / 2).to_string()), "{nodes:?}");
    assert!(of_node("(collector)").is_some());
    let metrics = csv_rows(&of(&["info", "--by", "metric", "-o", "csv"]).await.done());
    let cpu = metrics.iter().find(|row| row["name"] == "node_cpu_seconds_total").unwrap();
    assert_eq!(cpu["series"], "256", "{cpu:?}");
    let verified = of(&["verify"]).await.done();
    assert!(verified.contains("all as they were written"), "{verified}");

    let path = data.join("blocks").join(format!("{}.block", blocks[0]["block"].as_str().unwrap()));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let said = of(&["verify", "-o", "csv"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(csv_rows(&said.output).len(), 1, "{said:?}");
}

#[tokio::test]
async fn a_directory_without_a_store_is_named() {
    let collector = Collector::prepare("");
    let cli = Cli::of(collector.scratch());
    let said = cli.run(&["store", "info", "--data-dir", collector.scratch().to_str().unwrap()]).await;
    let error = said.refused(1);
    assert!(error.contains("blocks") && error.contains("data directory"), "{error}");
}

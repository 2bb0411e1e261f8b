//! `belfry simulate`: a load that is acknowledged, and that leaves nothing behind.

use belfry_tests::{
    cli::{Cli, assert_fields, csv_rows},
    collector::Collector,
    wait::{SOON, eventually},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const REPORT: &str = "seconds nodes series_per_node connections_lost batches_sent batches_acked batches_refused \
    batches_given_up batches_per_second samples_per_second ack_seconds_p50 ack_seconds_p90 ack_seconds_p99 ack_seconds_max \
    bytes_per_sample collector_cpu_seconds_per_million_samples collector_resident_bytes";
/// What is known of a GPU that works.
const NUMBERS: [&str; 5] =
    ["utilization_ratio", "memory_used_bytes", "memory_total_bytes", "temperature_celsius", "power_watts"];

#[tokio::test]
async fn everything_is_acknowledged_and_the_nodes_are_removed() {
    let collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let report = cli.json(&["simulate", "--nodes", "3", "--series", "60", "--duration", "3s"]).await;
    assert_fields(&report, REPORT);
    let number = |name: &str| report[name].as_f64().unwrap();
    assert_eq!((number("nodes"), number("series_per_node")), (3.0, 60.0));
    assert!(number("batches_sent") >= 6.0, "{report}");
    assert_eq!(number("batches_acked"), number("batches_sent"));
    for none in ["batches_refused", "batches_given_up", "connections_lost"] {
        assert_eq!(number(none), 0.0, "{none}");
    }
    assert!(number("seconds") >= 3.0 && number("ack_seconds_max") > 0.0, "{report}");
    assert!(number("ack_seconds_p50") <= number("ack_seconds_p99"), "{report}");
    assert!(collector.admin().health("batches").await >= number("batches_acked") as u64);
    assert_eq!(cli.json(&["nodes"]).await, json!([]));
}

#[tokio::test]
async fn simulated_nodes_have_gpus_and_go_when_they_are_told_to() {
    let collector = Collector::start().await;
    let cli = Cli::admin(&collector);
    let mut simulation = cli.start(&["simulate", "--nodes", "1", "--series", "500", "-o", "csv"]);
    let node = eventually("its GPUs are seen", SOON, async || {
        let mut document = cli.json(&["status"]).await;
        let node = document["nodes"].get_mut(0)?.take();
        let is_known = |gpu: &Value| NUMBERS.iter().all(|name| gpu[*name].is_number());
        let gpus = node["gpus"].as_array()?;
        (gpus.len() == 8 && gpus.iter().all(is_known)).then_some(node)
    });
    let node = node.await;
    for gpu in node["gpus"].as_array().unwrap() {
        check_gpu(gpu);
    }
    let table = cli.done(&["status"]).await;
    assert!(table.starts_with("1 node up · 8 GPUs: 8 ok") && table.contains("sim-00000"), "{table}");
    simulation.process_mut().signal(Signal::INT);
    let status = simulation.process_mut().end(SOON).await;
    assert!(status.success(), "{status}: {}", simulation.error());
    let rows = csv_rows(&simulation.text());
    assert_eq!((rows.len(), rows[0]["nodes"].as_str()), (1, "1"));
    assert_eq!(cli.json(&["nodes"]).await, json!([]));
}

fn check_gpu(gpu: &Value) {
    let fields = "index uuid model state causes utilization_ratio memory_used_bytes memory_total_bytes temperature_celsius power_watts processes";
    assert_fields(gpu, fields);
    assert_eq!(gpu["state"], "ok");
    for text in ["index", "uuid", "model"] {
        assert!(!gpu[text].as_str().unwrap().is_empty(), "{text}: {gpu}");
    }
    let number = |name: &str| gpu[name].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&number("utilization_ratio")), "{gpu}");
    assert!(number("memory_used_bytes") <= number("memory_total_bytes"), "{gpu}");
    assert!(number("temperature_celsius") > 0.0 && number("power_watts") > 0.0, "{gpu}");
    for process in gpu["processes"].as_array().unwrap() {
        assert_fields(process, "pid user command job memory_bytes");
    }
}

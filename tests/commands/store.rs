//! `belfry store`: what is on disk, whether it is as it was written, how it goes to other programs, and how it is mended.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use belfry_common::{
    clock,
    model::{Raw, Reason, Timestamp},
};
use belfry_tests::{
    cli::{Cli, assert_fields, assert_time, csv_rows},
    collector::Collector,
    process::Said,
    samples::batch_of,
};
use serde_json::json;

use crate::node::Node;

const BLOCK: &str = "block tier first last series samples bytes written_at merged key";

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
    // Each sends at its own time in the second, so that one may have sent once more.
    let [first, second] = ["sim-00000", "sim-00001"].map(|name| of_node(name).unwrap().parse::<u64>().unwrap());
    assert_eq!((first + second, first % 500), (sent, 0), "{nodes:?}");
    assert!(first.abs_diff(second) <= 500, "{nodes:?}");
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

#[tokio::test]
async fn an_encrypted_store_is_read_with_its_keys_alone_and_a_new_key_replaces_the_old() {
    let mut collector = Collector::prepare("");
    let keys = collector.scratch().join("store.keys");
    let write_keys = |text: &str| {
        fs::write(&keys, text).unwrap();
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let config = format!("[store]\nkey_file = {:?}", keys.to_str().unwrap());
    let (old, new) = ("01".repeat(32), "ab".repeat(32));
    write_keys(&old);
    collector.configure(&config);
    collector.restart().await;
    let cli = Cli::admin(&collector);
    let data = collector.data_directory();
    cli.json(&["simulate", "--nodes", "1", "--series", "500", "--duration", "3s", "--keep"]).await;
    collector.stop().await;

    let said = store(&cli, &data, &["info"]).await.refused(1);
    assert!(said.contains("is encrypted with key") && said.contains("store.key_file"), "{said}");
    let with_keys = ["--key-file", keys.to_str().unwrap()];
    let info = done(&cli, &data, &[&["info", "-o", "csv"], &with_keys[..]].concat()).await;
    let key = csv_rows(&info)[0]["key"].clone();
    assert!(!key.is_empty() && csv_rows(&info).iter().all(|row| row["key"] == key), "{info}");
    assert!(done(&cli, &data, &[&["verify"], &with_keys[..]].concat()).await.contains("all as they were written"));
    let export = ["export", "node_*", "--to", "-", "--format", "csv"];
    let before = done(&cli, &data, &[&export, &with_keys[..]].concat()).await;
    assert!(csv_rows(&before).len() >= 50, "{before}");

    write_keys(&new);
    let said = collector.refuse_to_start().await;
    assert!(said.contains("is encrypted with key") && said.contains("below the newest"), "{said}");
    write_keys(&format!("{new}\n{old}\n"));
    collector.restart().await;
    collector.stop().await;
    let info = done(&cli, &data, &[&["info", "-o", "csv"], &with_keys[..]].concat()).await;
    let keys_used: Vec<String> = csv_rows(&info).iter().map(|row| row["key"].clone()).collect();
    assert!(keys_used.len() >= 2 && keys_used.first() != keys_used.last(), "{info}");
    assert_eq!(done(&cli, &data, &[&export, &with_keys[..]].concat()).await, before);
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(collector.refuse_to_start().await.contains("chmod 600"));
}

/// A collector that has stopped, with five seconds of four series of two nodes on its disk; a reading has failed.
async fn stopped_with_samples() -> (Collector, Timestamp) {
    let mut collector = Collector::start().await;
    let begin = clock::now().plus_millis(-10_000);
    for name in ["one", "two"] {
        let mut node = Node::join(&collector, name).await;
        for second in 0..5_u32 {
            let time = begin.plus_millis(i64::from(second) * 1000);
            let mut batch = batch_of(1, "test_value", 0..4, time, f64::from(second) + 0.25);
            if second == 3 {
                batch.ticks[0].values[0] = Raw::missing(Reason::Timeout);
            }
            let (live, sequence) = node.live();
            live.store(sequence, &batch).await;
        }
    }
    collector.stop().await;
    (collector, begin)
}

async fn store(cli: &Cli, data: &Path, words: &[&str]) -> Said {
    cli.run(&[&["store", "--data-dir", data.to_str().unwrap()], words].concat()).await
}

/// What a command prints that must be done, and that says something beside it.
async fn done(cli: &Cli, data: &Path, words: &[&str]) -> String {
    let said = store(cli, data, words).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    said.output
}

#[tokio::test]
async fn samples_are_exported_each_once_with_the_labels_that_queries_see() {
    let (collector, begin) = stopped_with_samples().await;
    let (cli, data) = (Cli::admin(&collector), collector.data_directory());
    let said = store(&cli, &data, &["export", "test_*", "--to", "-", "--format", "csv"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.error.contains("40 samples of 8 series") && said.error.contains("newest sample on disk"), "{said:?}");
    let rows = csv_rows(&said.output);
    assert_eq!(rows.len(), 40, "{rows:?}");
    let missing: Vec<_> = rows.iter().filter(|row| !row["reason"].is_empty()).collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing.iter().all(|row| row["reason"] == "timeout" && row["value"].is_empty()), "{missing:?}");
    for row in &rows {
        let labels: serde_json::Value = serde_json::from_str(&row["labels"]).unwrap();
        assert_fields(&labels, "device instance job");
        assert_eq!((&*row["metric"], &labels["job"]), ("test_value", &json!("belfry")));
    }

    // What is asked of labels, of nodes and of time decides; a file tells its format by its name.
    let path = collector.scratch().join("part.om");
    let since = humantime::format_rfc3339_millis(
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(begin.as_millis() as u64 + 2000),
    );
    let selector = r#"test_value{instance="two",device=~"d0|d1"}"#;
    let words = ["export", selector, "--since", &since.to_string(), "--to", path.to_str().unwrap()];
    let said = store(&cli, &data, &words).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.error.contains("5 samples of 2 series") && said.error.contains("1 missing reading"), "{said:?}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# TYPE test_value gauge\n") && text.ends_with("# EOF\n"), "{text}");
    assert!(text.lines().filter(|line| line.contains(r#"instance="two""#)).count() == 5, "{text}");

    // Rows have five columns.
    let rows =
        csv_rows(&done(&cli, &data, &["export", selector, "--tier", "1h", "--to", "-", "--format", "csv"]).await);
    let sum: f64 = rows.iter().map(|row| row["sum"].parse::<f64>().unwrap()).sum();
    assert!((sum - (11.25 - 3.25 + 11.25)).abs() < 1e-9, "{rows:?}");
    assert!(rows.iter().all(|row| row["time"].ends_with(":00:00.000Z")), "{rows:?}");
    let refused = store(&cli, &data, &["export", "--tier", "1h", "--to", path.to_str().unwrap()]).await.refused(2);
    assert!(refused.contains("rows have five"), "{refused}");

    // Damage costs what it is in, and is told.
    let blocks = fs::read_dir(data.join("blocks")).unwrap().map(|entry| entry.unwrap().path());
    for path in blocks.filter(|path| path.extension().is_some_and(|extension| extension == "block")) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let said = store(&cli, &data, &["export", "--to", "-", "--format", "csv"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.error.contains("is damaged") && said.output.starts_with("time,metric"), "{said:?}");
}

#[tokio::test]
async fn history_comes_along_into_another_store_once() {
    let (collector, begin) = stopped_with_samples().await;
    let (cli, data) = (Cli::admin(&collector), collector.data_directory());
    let path = collector.scratch().join("history.parquet");
    let history = path.to_str().unwrap();
    done(&cli, &data, &["export", "test_*", "--to", history]).await;
    let csv = async |cli: &Cli, data: &Path| {
        let text = done(cli, data, &["export", "test_*", "--to", "-", "--format", "csv"]).await;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let exported = csv(&cli, &data).await;

    let mut other = Collector::start().await;
    let (cli, data) = (Cli::admin(&other), other.data_directory());
    let refused = store(&cli, &data, &["import", history]).await.refused(1);
    assert!(refused.contains("stop the collector"), "{refused}");
    other.join("one").await;
    other.stop().await;
    let refused = store(&cli, &data, &["import", history]).await.refused(1);
    assert!(refused.contains("no node is called \"two\"") && refused.contains("nothing is imported"), "{refused}");
    assert_eq!(csv(&cli, &data).await.len(), 1, "nothing but the names");
    other.restart().await;
    other.join("two").await;
    other.stop().await;
    for _ in 0..2 {
        let said = store(&cli, &data, &["import", history]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.error.contains("40 samples of 8 series"), "{said:?}");
        assert_eq!(csv(&cli, &data).await, exported);
    }

    // What Prometheus has is of other labels, and continues the same series all the same.
    let later = begin.plus_millis(5000).as_millis();
    let line = |device: &str, job: &str| {
        format!(
            "test_value{{device={device:?},instance=\"one:9100\",job={job:?}}} 7.5 {}.{:03}\n",
            later / 1000,
            later % 1000
        )
    };
    let path = collector.scratch().join("prometheus.om");
    fs::write(&path, format!("{}{}# EOF\n", line("d0", "a"), line("d1", "a"))).unwrap();
    let words = ["import", path.to_str().unwrap(), "--drop", "job"];
    done(&cli, &data, &words).await;
    let now = csv(&cli, &data).await;
    let new: Vec<&String> = now.iter().filter(|line| !exported.contains(line)).collect();
    assert_eq!(now.len(), exported.len() + 2);
    assert!(new.iter().all(|line| line.contains("\"\"instance\"\":\"\"one\"\"") && line.ends_with(",7.5,")), "{new:?}");
    assert!(new.iter().all(|line| !line.contains("exported_job")), "{new:?}");
    fs::write(&path, format!("{}{}# EOF\n", line("d0", "a"), line("d0", "b"))).unwrap();
    let refused = store(&cli, &data, &words).await.refused(1);
    assert!(refused.contains("line 2") && refused.contains("they become one"), "{refused}");
    fs::write(&path, "test_value 1 1700000000\n").unwrap();
    let refused = store(&cli, &data, &words).await.refused(1);
    assert!(refused.contains("line 1") && refused.contains("--node-label"), "{refused}");

    // A collector starts on it, and leaves it as it is.
    other.restart().await;
    other.stop().await;
    assert_eq!(csv(&cli, &data).await, now);
}

#[tokio::test]
async fn what_is_damaged_is_moved_aside_and_a_collector_starts_on_the_rest() {
    let (mut collector, _) = stopped_with_samples().await;
    let (cli, data) = (Cli::admin(&collector), collector.data_directory());
    let said = done(&cli, &data, &["repair"]).await;
    assert!(said.contains("nothing to mend"), "{said}");
    let entries = fs::read_dir(data.join("blocks")).unwrap().map(|entry| entry.unwrap().path());
    let block = entries.filter(|path| path.extension().is_some_and(|extension| extension == "block")).min().unwrap();
    let mut bytes = fs::read(&block).unwrap();
    bytes[70] ^= 1;
    fs::write(&block, &bytes).unwrap();
    fs::write(data.join("blocks/00000000000000ff.tmp"), "half").unwrap();

    let said = store(&cli, &data, &["repair", "-o", "json"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.error.contains("a backup may have"), "{said:?}");
    let rows: serde_json::Value = serde_json::from_str(&said.output).unwrap();
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    assert_fields(&rows[0], "what file found done tier first last series samples bytes covered_by");
    assert_eq!(
        (&rows[0]["what"], &rows[0]["tier"], &rows[0]["covered_by"]),
        (&json!("block"), &json!("raw"), &json!([]))
    );
    assert!(rows[0]["found"].as_str().unwrap().contains("damaged") && rows[0]["samples"].as_u64() > Some(0), "{rows}");
    assert_time(&rows[0]["first"]);
    assert_eq!((&rows[1]["file"], &rows[1]["done"]), (&json!("00000000000000ff.tmp"), &json!("removed")));
    let evidence = data.join("blocks/quarantine").join(block.file_name().unwrap());
    assert!(fs::read(&evidence).unwrap() == bytes && !block.exists());
    assert!(done(&cli, &data, &["verify"]).await.contains("as they were written"));
    assert!(done(&cli, &data, &["repair"]).await.contains("nothing to mend"));

    collector.restart().await;
    assert_eq!(collector.own_metric("belfry_collector_blocks_quarantined"), 1.0);
    let refused = store(&cli, &data, &["repair"]).await.refused(1);
    assert!(refused.contains("stop the collector"), "{refused}");
    let refused = store(&cli, &collector.scratch().join("none"), &["repair"]).await.refused(1);
    assert!(refused.contains("data directory"), "{refused}");
}

//! `belfry store backup` and `restore`, as words and answers. What is in a backup is in `faults/backup.rs`.

use std::{fs, path::Path};

use belfry_tests::{
    cli::{Cli, assert_fields, assert_time, csv_rows},
    collector::Collector,
    process::Said,
};
use serde_json::Value;

use crate::node::Node;

async fn store(data: &Path, words: &[&str]) -> Said {
    Cli::of(data).run(&[&["store", "--data-dir", data.to_str().unwrap()], words].concat()).await
}

#[tokio::test]
async fn a_data_directory_is_copied_and_made_again() {
    let mut collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 3, 1.5).await;
    let data = collector.data_directory();
    let scratch = collector.scratch().to_path_buf();
    let [backups, other, none] = ["backups", "other", "none"].map(|name| scratch.join(name));
    let [to, from_none] = [&backups, &none].map(|path| path.to_str().unwrap());

    let taken: Value = serde_json::from_str(&store(&data, &["backup", to, "-o", "json"]).await.done()).unwrap();
    let verified = store(Path::new(taken[0]["backup"].as_str().unwrap()), &["verify"]).await.done();
    assert!(verified.contains("all as they were copied"), "{verified}");
    assert_fields(&taken[0], "backup created files bytes new_bytes");
    assert_time(&taken[0]["created"]);
    node.say("test_value", 3, 2.5).await;
    collector.stop().await;
    let said = store(&data, &["backup", to, "--keep", "1", "-o", "table"]).await;
    assert!(said.output.starts_with(to) && said.output.contains("are new"), "{said:?}");
    assert!(said.error.contains("1 older backup removed"), "{said:?}");

    let refused = store(&other, &["restore", from_none]).await.refused(1);
    assert!(refused.contains("is not restored") && refused.contains("none"), "{refused}");
    let refused = store(&data, &["restore", to]).await.refused(1);
    assert!(refused.contains("is not empty") && refused.contains("nothing was changed"), "{refused}");
    let said = store(&other, &["restore", to, "-o", "csv"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.error.contains("revoked after that") && said.error.contains("send again"), "{said:?}");
    let rows = csv_rows(&said.output);
    assert_eq!(rows[0]["data_directory"], other.to_str().unwrap());
    assert!(rows[0]["backup"].starts_with(to), "{rows:?}");
    let exported = |said: Said| {
        assert_eq!(said.code, Some(0), "{said:?}");
        csv_rows(&said.output).len()
    };
    let words = ["export", "test_value", "--to", "-", "--format", "csv"];
    assert_eq!(exported(store(&data, &words).await), exported(store(&other, &words).await));

    collector.restart().await;
    let refused = store(&data, &["restore", to]).await.refused(1);
    assert!(refused.contains("is in use: stop the collector"), "{refused}");
    let inside = data.join("backups");
    let refused = store(&data, &["backup", inside.to_str().unwrap()]).await.refused(1);
    assert!(refused.contains("no backup was taken") && refused.contains("another place"), "{refused}");
    assert!(!inside.exists());
}

#[tokio::test]
async fn damage_is_told_and_ends_with_one() {
    let mut collector = Collector::start().await;
    let mut node = Node::join(&collector, "node").await;
    node.say("test_value", 3, 1.5).await;
    collector.stop().await;
    let data = collector.data_directory();
    let [backups, restored] = ["backups", "restored"].map(|name| collector.scratch().join(name));
    let to = backups.to_str().unwrap();
    let whole = store(&data, &["backup", to, "-o", "csv"]).await.done();
    let copy = csv_rows(&whole)[0]["backup"].clone();
    let blocks = |place: &Path| fs::read_dir(place.join("blocks")).unwrap().map(|entry| entry.unwrap().path());
    let block = blocks(Path::new(&copy)).next().unwrap();
    // Of another file than that of the store: they are one.
    let mut bytes = fs::read(&block).unwrap();
    bytes[70] ^= 1;
    fs::remove_file(&block).unwrap();
    fs::write(&block, &bytes).unwrap();
    let said = store(Path::new(&copy), &["verify", "-o", "csv"]).await;
    assert!(said.code == Some(1) && said.output.contains(".block,\"it is missing"), "{said:?}");
    let refused = store(&restored, &["restore", &copy]).await.refused(1);
    assert!(refused.contains("--skip-damaged") && !restored.exists(), "{refused}");
    let said = store(&restored, &["restore", &copy, "--skip-damaged"]).await;
    assert!(said.code == Some(1) && said.error.contains("left out"), "{said:?}");
    assert_eq!(blocks(&restored).count(), blocks(&data).filter(|path| path.is_file()).count() - 2, "lock and block");

    // What the backup before has is not read again.
    fs::remove_dir_all(&backups).unwrap();
    fs::write(data.join("blocks").join(block.file_name().unwrap()), &bytes).unwrap();
    let said = store(&data, &["backup", to]).await;
    assert!(said.code == Some(1) && said.error.contains("is not in it") && said.error.contains("repair"), "{said:?}");
    let said = store(&collector.scratch().join("again"), &["restore", to]).await;
    assert_eq!(said.code, Some(0), "what is left is whole: {said:?}");
}

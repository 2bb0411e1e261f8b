//! Backups that are taken under load, and collectors that start on them.
//!
//! `BELFRY_BACKUP_ROUNDS` says how many are taken; 20 is the full form.

use std::{collections::BTreeSet, env, fs, path::Path, time::Duration};

use belfry_common::{clock, model::Sequence};
use belfry_tests::{
    agent::Agent,
    cli::Cli,
    collector::Collector,
    oracle::{Ledger, Stored},
    process::Said,
    recorder::Recorder,
    relay::Relay,
    samples::Samples,
    skip::{SmallDisk, skipped},
    wait::{SOON, eventually},
};
use serde_json::Value;

use crate::storage::{check, flowing};

/// Blocks every second, and a journal that is cut all the time. Nothing is too old.
const CONFIG: &str =
    "shipped_rules = false\n[store]\nflush_interval = \"1s\"\nmemory_window = \"1m\"\nraw_age_max = \"3650days\"\n";
const ROUNDS: u32 = 4;
const PACE: Duration = Duration::from_millis(5);
/// The past begins so long ago, and its samples are so far apart: a second of the test is some two hours of it.
const PAST_MS: i64 = 60 * 86_400_000;
const PAST_STEP_MS: i64 = 37_000;

/// `belfry store` on this data directory.
async fn store(data: &Path, words: &[&str]) -> Said {
    Cli::of(data).run(&[&["store", "--data-dir", data.to_str().unwrap()], words].concat()).await
}

async fn back_up(data: &Path, to: &Path) -> Value {
    let said = store(data, &["backup", to.to_str().unwrap(), "-o", "json"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str::<Value>(&said.output).unwrap()[0].take()
}

async fn restore(from: &Path, data: &Path) {
    let said = store(data, &["restore", from.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// Row 7: whatever a collector writes, flushes, cuts and merges while a backup is taken, it has all that was acknowledged before.
#[tokio::test]
async fn a_backup_under_load_has_all_that_was_acknowledged_before_it() {
    let rounds = env::var("BELFRY_BACKUP_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let collector = Collector::start_with(CONFIG).await;
    let past = Samples::new(107, clock::now().plus_millis(-PAST_MS), PAST_STEP_MS);
    let mut recorder = Recorder::new(collector.join("recorder").await, 107, PACE);
    let mut historian = Recorder::of(collector.join("historian").await, past, 108, PACE);
    let (data, backups) = (collector.data_directory(), collector.scratch().join("backups"));
    let mut merged = 0;
    for round in 0..rounds {
        let [mut of_recorder, mut of_historian] = [recorder.progress(), historian.progress()];
        let flows = async {
            flowing(&mut of_recorder, 100).await;
            flowing(&mut of_historian, 100).await;
        };
        let address = collector.address();
        historian.sessions_until(address, recorder.sessions_until(address, flows)).await;
        let before = [&recorder, &historian].map(|node| node.ledger.acknowledged.clone());
        let taken = back_up(&data, &backups);
        let taken = historian.sessions_until(address, recorder.sessions_until(address, taken)).await;

        let restored = collector.scratch().join(format!("restored-{round}"));
        restore(Path::new(taken["backup"].as_str().unwrap()), &restored).await;
        assert!(store(&restored, &["verify"]).await.done().contains("as they were written"));
        let stored = Stored::read(&restored);
        for (node, acknowledged) in [&recorder, &historian].into_iter().zip(before) {
            let ledger = Ledger { acknowledged, sent: node.ledger.sent.clone() };
            stored.check_journal(node.identity.subject.id, node.epoch, &ledger);
            stored.check_samples(node.identity.subject.id, node.epoch, &ledger);
        }
        merged += stored.blocks().iter().filter(|block| block.is_final).count();
        drop(stored);
        fs::remove_dir_all(restored).unwrap();
    }
    assert!(merged > 0, "blocks were merged");
}

/// Row 7: a collector is restored from a backup. It says what it has, and nodes send again what they still have.
#[tokio::test]
async fn a_collector_goes_on_from_a_backup() {
    let mut collector = Collector::start_with(CONFIG).await;
    let relay = Relay::to(collector.address()).await;
    // The first that says a metric is whose help stays with it.
    let mut recorder = Recorder::new(collector.join("recorder").await, 117, PACE);
    let mut agent = Agent::join(&collector, "agent", relay.address()).await;
    agent.start();
    collector.admin().spool_is_sent("agent", SOON).await;
    let mut progress = recorder.progress();
    recorder.sessions_until(collector.address(), flowing(&mut progress, 100)).await;
    let before: BTreeSet<Sequence> = recorder.ledger.acknowledged.clone();
    let (data, backups) = (collector.data_directory(), collector.scratch().join("backups"));
    back_up(&data, &backups).await;
    recorder.sessions_until(collector.address(), flowing(&mut progress, 100)).await;
    collector.kill();
    let lost = collector.scratch().join("lost");
    fs::rename(&data, &lost).unwrap();
    restore(&backups, &data).await;

    // The node has everything still, and takes nothing for acknowledged that was so after the backup.
    recorder.ledger.acknowledged = before;
    collector.restart().await;
    relay.lead_to(collector.address());
    let sent: BTreeSet<Sequence> = recorder.ledger.sent.keys().copied().collect();
    let again = async {
        progress.changed().await.unwrap();
        progress.wait_for(|&now| now >= sent.len() + 100).await.unwrap();
    };
    let again = tokio::time::timeout(SOON, recorder.sessions_until(collector.address(), again)).await;
    again.expect("data flows again");
    assert!(recorder.ledger.acknowledged.is_superset(&sent), "what was lost came again");
    eventually("the agent is back", Duration::from_secs(90), async || {
        (collector.admin().node("agent").await["state"] == "up").then_some(())
    })
    .await;
    collector.admin().spool_is_sent("agent", SOON).await;
    assert_eq!(fs::read(lost.join("ca.pem")).unwrap(), fs::read(data.join("ca.pem")).unwrap());
    // A node that joins gets a number that nobody has.
    let newcomer = collector.join("newcomer").await.subject.id;
    assert!(![agent.identity.subject.id, recorder.identity.subject.id].contains(&newcomer));
    agent.stop().await;
    assert!(collector.stop().await.success());
    let stored = Stored::read(&data);
    let Recorder { identity, epoch, ledger, .. } = &recorder;
    stored.check_journal(identity.subject.id, *epoch, ledger);
    stored.check_samples(identity.subject.id, *epoch, ledger);
    // What the agent's spool still has came again, although it was acknowledged.
    let node = agent.identity.subject.id;
    let [epoch] = stored.epochs(node)[..] else { panic!("the agent was reinstalled") };
    stored.check_complete(node, epoch);
    assert_eq!(stored.gaps(node, epoch), [], "all of it was in one segment");
}

/// On another disk blocks are copied once, and linked from one backup to the next.
#[tokio::test]
async fn a_backup_on_another_disk_is_copied_once() {
    let mut collector = Collector::start_with(CONFIG).await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 127, PACE);
    let mut progress = recorder.progress();
    let (data, backups) = (collector.data_directory(), collector.scratch().join("backups"));
    fs::create_dir(&backups).unwrap();
    let disk = match SmallDisk::mount(&backups, 64 * 1024 * 1024) {
        Ok(disk) => disk,
        Err(why) => return skipped("a_backup_on_another_disk_is_copied_once", &why),
    };
    recorder.sessions_until(collector.address(), flowing(&mut progress, 100)).await;
    collector.stop().await;
    let first = back_up(&data, &backups).await;
    let second = back_up(&data, &backups).await;
    assert_eq!(first["new_bytes"], first["bytes"]);
    assert!(second["new_bytes"].as_u64().unwrap() < second["bytes"].as_u64().unwrap(), "{second}");
    disk.fill(4096);
    let full = store(&data, &["backup", backups.to_str().unwrap()]).await.refused(1);
    assert!(full.contains("No space left"), "{full}");
    disk.free();
    let names = fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: BTreeSet<String> = names.filter(|name| name != "lock").collect();
    assert_eq!(left.len(), 2, "what did not fit leaves nothing: {left:?}");
    fs::rename(&data, collector.scratch().join("lost")).unwrap();
    restore(&backups, &data).await;
    check(&collector, &recorder).await;
}

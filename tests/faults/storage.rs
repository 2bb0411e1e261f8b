//! Disks that are full, slow or broken under a running collector.

use std::{fs, path::Path, process::Command, sync::LazyLock, time::Duration};

use belfry_common::{clock, model::Epoch};
use belfry_tests::{
    collector::{Collector, Lines},
    hostile::Live,
    oracle::Stored,
    process::Process,
    recorder::Recorder,
    samples::batch_of,
    skip::{SmallDisk, skipped, strace},
    wait::{SOON, eventually, timed},
};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;
static FOLLOW: LazyLock<Value> =
    LazyLock::new(|| json!({"request": "follow", "from": {"after": 0}, "cursor": null, "is_once": false}));

/// Makes this system call do something else on the journal of a running collector, from when this returns.
async fn inject(collector: &Collector, injection: &str) -> Process {
    let journal = collector.data_directory().join("journal");
    let newest = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.extension().is_some_and(|end| end == "journal")).max().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=fdatasync,fsync", "-e", &format!("inject=fdatasync,fsync:{injection}"), "-P"]);
    command.arg(newest).args(["-p", &collector.process().id().to_string()]);
    let log = collector.scratch().join(format!("strace-{}.log", injection.len()));
    let tracer = Process::start(&mut command, &log);
    eventually("strace holds every thread", SOON, async || tracer.log().contains(" attached").then_some(())).await;
    tracer
}

/// What was acknowledged is there once, in the journal and for queries, and nothing else is.
pub(crate) async fn check(collector: &Collector, recorder: &Recorder) {
    let stored = Stored::read(&collector.data_directory());
    let Recorder { identity, epoch, ledger, .. } = recorder;
    stored.check(identity.subject.id, *epoch, ledger);
    stored.check_samples(identity.subject.id, *epoch, ledger);
}

/// Ready when this many more batches are acknowledged.
pub(crate) async fn flowing(progress: &mut tokio::sync::watch::Receiver<usize>, more: usize) {
    let before = *progress.borrow_and_update();
    let flowing = tokio::time::timeout(SOON, progress.wait_for(|&now| now >= before + more)).await;
    flowing.expect("data flows").unwrap();
}

/// Rows 21 and 30: after an fsync that failed nothing is acknowledged, the process ends with an error, and a restart has all
/// that was acknowledged before.
#[tokio::test]
async fn a_failed_fsync_ends_the_collector_and_acknowledges_nothing() {
    if let Err(why) = strace() {
        return skipped("a_failed_fsync_ends_the_collector_and_acknowledges_nothing", &why);
    }
    let mut collector = Collector::start().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 21, Duration::from_millis(20));
    let mut progress = recorder.progress();
    recorder.sessions_until(collector.address(), flowing(&mut progress, 20)).await;

    let tracer = inject(&collector, "error=EIO").await;
    // Of what was sent before, the last batch may be on disk and its acknowledgement still to be seen.
    let sent = recorder.ledger.sent.len() as u64;
    let address = collector.address();
    let status = recorder.sessions_until(address, collector.process_mut().end(SOON)).await;
    assert!(!status.success(), "{status}");
    let acknowledged = recorder.ledger.acknowledged.last();
    assert!(acknowledged <= Some(&sent), "something was acknowledged after the fsync failed");
    assert!(recorder.ledger.sent.len() as u64 > sent, "something was sent");
    let log = collector.process().log();
    assert!(log.contains("journal") && log.contains("Input/output error"), "the log says why");
    drop(tracer);

    collector.restart().await;
    recorder.sessions_until(collector.address(), flowing(&mut progress, 20)).await;
    collector.stop().await;
    check(&collector, &recorder).await;
}

/// Row 13: a disk that takes its time slows senders down; memory stays where it was and questions are answered.
#[tokio::test]
async fn a_slow_disk_slows_senders_and_nothing_else() {
    if let Err(why) = strace() {
        return skipped("a_slow_disk_slows_senders_and_nothing_else", &why);
    }
    let mut collector = Collector::start().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 13, Duration::from_millis(2));
    let mut progress = recorder.progress();
    recorder.sessions_until(collector.address(), flowing(&mut progress, 100)).await;
    let before = collector.process().resident_bytes();

    let tracer = inject(&collector, "delay_enter=400000").await;
    let admin = collector.admin();
    let slow = async {
        for _ in 0..6 {
            let (took, _) = timed(admin.health("batches")).await;
            assert!(took < Duration::from_secs(2), "an answer took {took:?}");
            flowing(&mut progress, 5).await;
        }
    };
    recorder.sessions_until(collector.address(), slow).await;
    let grown = collector.process().resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "the collector has grown by {} MiB", grown / MIB);
    drop(tracer);

    recorder.sessions_until(collector.address(), flowing(&mut progress, 200)).await;
    collector.stop().await;
    check(&collector, &recorder).await;
}

/// A collector with a rule, and a node that is up.
async fn watched(
    disk: impl FnOnce(&Path) -> Result<SmallDisk, String>,
) -> Result<(Collector, SmallDisk, Live), String> {
    let mut collector = Collector::prepare("");
    let disk = disk(&collector.data_directory())?;
    let rules = collector.scratch().join("rules.yml");
    fs::write(&rules, "groups:\n- name: test\n  rules:\n  - alert: Gone\n    expr: up == 0\n").unwrap();
    collector.configure(&format!(
        "shipped_rules = false\nrules = [{:?}]\n[store]\nflush_interval = \"1s\"",
        rules.to_str().unwrap()
    ));
    collector.restart().await;
    let identity = collector.join("node").await;
    let mut live = Live::open(collector.address(), &identity, Epoch(1)).await.unwrap();
    live.store(1, &batch_of(1, "test_value", 0..1, clock::now(), 1.0)).await;
    Ok((collector, disk, live))
}

/// The next event that says something.
async fn event(events: &mut Lines) -> Value {
    eventually("an event is told", SOON, async || events.next(SOON).await.filter(|event| event["event"] != "heartbeat"))
        .await
}

/// Row 22: the store leaves some of the disk to the database: when it takes nothing more in, alerts are still evaluated and told.
#[tokio::test]
async fn alerting_goes_on_when_the_store_is_full() {
    let (collector, disk, live) = match watched(|path| SmallDisk::mount(path, 64 * MIB)).await {
        Ok(watched) => watched,
        Err(why) => return skipped("alerting_goes_on_when_the_store_is_full", &why),
    };
    let admin = collector.admin();
    let mut events = admin.follow(&FOLLOW).await;
    let late = collector.join("late").await;
    disk.fill(2 * MIB);
    let mut recorder = Recorder::new(collector.join("recorder").await, 22, Duration::from_millis(2));
    let told = async {
        eventually("the store is full", SOON, async || {
            (admin.ask(json!({"request": "health"})).await["is_full"] == true).then_some(())
        })
        .await;
        let late = Live::open(collector.address(), &late, Epoch(1)).await;
        assert!(late.is_ok(), "a node that connects now is answered");
        drop(live);
        event(&mut events).await
    };
    let mut result = None;
    recorder.sessions_until(collector.address(), async { result = Some(told.await) }).await;
    let told = result.unwrap();
    assert_eq!(told["event"], "firing", "{told}");
    assert_eq!(told["labels"]["instance"], "node", "nobody who is connected is suspected");
    assert!(recorder.ledger.acknowledged.is_empty(), "something was acknowledged");
}

/// Row 22: what becomes of alerts while nothing at all can be written is told when it can, and questions are answered until then.
#[tokio::test]
async fn alerts_that_cannot_be_written_are_told_when_they_can() {
    let (collector, disk, live) = match watched(|path| SmallDisk::mount(path, 24 * MIB)).await {
        Ok(watched) => watched,
        Err(why) => return skipped("alerts_that_cannot_be_written_are_told_when_they_can", &why),
    };
    let admin = collector.admin();
    let mut events = admin.follow(&FOLLOW).await;
    disk.fill(0);
    drop(live);
    eventually("the collector cannot write what it finds", Duration::from_secs(60), async || {
        collector.process().log().contains("alerts cannot be written down").then_some(())
    })
    .await;
    for request in
        [json!({"request": "alerts", "states": []}), json!({"request": "rules"}), json!({"request": "health"})]
    {
        let (took, _) = timed(admin.ask(request.clone())).await;
        assert!(took < Duration::from_secs(2), "{request} took {took:?}");
    }
    disk.free();
    let told = event(&mut events).await;
    assert_eq!((&told["seq"], &told["event"], &told["rule"]), (&json!(1), &json!("firing"), &json!("Gone")));
}

/// Row 22: on a full disk nothing is acknowledged that is not stored, questions are answered, and all goes on by itself when
/// there is space again.
#[tokio::test]
async fn a_full_disk_stops_acknowledgements_until_there_is_space() {
    // Blocks are written all the time, too.
    let mut collector = Collector::prepare("shipped_rules = false\n[store]\nflush_interval = \"1s\"");
    let data = collector.data_directory();
    let disk = match SmallDisk::mount(&data, 24 * MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("a_full_disk_stops_acknowledgements_until_there_is_space", &why),
    };
    collector.restart().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 22, Duration::from_millis(2));
    let mut progress = recorder.progress();
    recorder.sessions_until(collector.address(), flowing(&mut progress, 100)).await;

    disk.fill(0);
    let (admin, address) = (collector.admin(), collector.address());
    let request = serde_json::json!({"request": "health"});
    let full = async {
        eventually("the store is full", Duration::from_secs(60), async || {
            (admin.try_ask(&request).await.unwrap()["is_full"] == true).then_some(())
        })
        .await;
        let acknowledged = *progress.borrow_and_update();
        assert_eq!(collector.get("/-/ready").0, 503, "it says that it is not ready");
        assert_eq!(collector.get("/-/healthy").0, 200, "and that it lives");
        assert_eq!(admin.node("recorder").await["name"], "recorder", "questions are answered");
        // Nothing is what must happen, for as long as anything would take.
        let anything = tokio::time::timeout(Duration::from_secs(2), progress.wait_for(|&now| now > acknowledged));
        assert!(anything.await.is_err(), "something was acknowledged on a full disk");
        disk.free();
        flowing(&mut progress, 100).await;
    };
    recorder.sessions_until(address, full).await;
    assert_eq!(collector.get("/-/ready").0, 200, "it is ready again");
    collector.stop().await;
    check(&collector, &recorder).await;
}

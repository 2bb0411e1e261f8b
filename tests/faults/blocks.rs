//! Blocks on a disk that fails, is full, loses files or flips bits, under a running collector.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use belfry_common::{
    clock,
    identity::Identity,
    model::{Batch, Epoch, Timestamp},
};
use belfry_store::{Keys, StoreFiles, Summary, Tier};
use belfry_tests::{
    cli::Cli,
    collector::{Collector, Lines},
    hostile::{Live, hello},
    oracle::{Ledger, Stored},
    process::Process,
    recorder::Recorder,
    samples::{Samples, batch_of},
    skip::{SmallDisk, skipped, strace},
    wait::{SOON, eventually},
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::storage::{check, flowing};

/// What is in memory is put into blocks as often as that may be, and the past is never too old.
const BRISK: &str = "[store]\nflush_interval = \"1s\"\nraw_age_max = \"3650days\"\n";
const QUIET: &str = "shipped_rules = false\n";
const EPOCH: Epoch = Epoch(0xB1);
/// Blocks are merged into none that is longer.
const MONTH_MS: i64 = 30 * 86_400_000;
/// A disk that was full is left alone for ten seconds.
const RETRY: Duration = Duration::from_secs(40);
const METRIC: &str = "past_value";
/// What is said now, and its value.
const NOW_METRIC: &str = "present_value";
const MARK: f64 = 77.0;

async fn brisk() -> Collector {
    Collector::start_with(&format!("{QUIET}{BRISK}")).await
}

/// A node that nobody takes for silent.
async fn connect(collector: &Collector, identity: &Identity) -> Live {
    let mut greeting = hello(EPOCH);
    greeting.interval_ms = 3_600_000;
    Live::open_with(collector.address(), identity, greeting).await.unwrap()
}

/// The beginnings of two hours whose blocks are never merged into one.
fn hours() -> [Timestamp; 2] {
    let month = clock::now().as_millis() / MONTH_MS;
    [month - 2, month - 1].map(|month| Timestamp::from_millis(month * MONTH_MS))
}

/// Sixty values of each of these hours: 1 in the first one, 2 in the second.
fn past() -> Batch {
    let [first, second] = hours();
    batches([batch_of(1, METRIC, 0..60, first, 1.0), batch_of(2, METRIC, 60..120, second, 2.0)])
}

/// Two batches as one.
fn batches(two: [Batch; 2]) -> Batch {
    Batch { ticks: two.into_iter().flat_map(|batch| batch.ticks).collect() }
}

/// The block of raw samples, merged for good, that has this time.
async fn merged_block(collector: &Collector, time: Timestamp) -> (PathBuf, Summary) {
    let data = collector.data_directory();
    let block = eventually("the hour is merged", SOON, async || {
        let files = StoreFiles::open(&data, &Keys::default()).unwrap();
        let is_it = |block: &&Summary| {
            let Summary { tier, first_ms, last_ms, is_final, .. } = block;
            *tier == Tier::Raw && *is_final && (*first_ms..=*last_ms).contains(&time.as_millis())
        };
        files.blocks().find(is_it).cloned()
    })
    .await;
    (data.join("blocks").join(format!("{:016x}.block", block.number)), block)
}

/// All values of the metric that there are, by way of a query that ends with what is said now; `None` if it was broken off.
async fn values(collector: &Collector, live: &mut Live, sequence: u64) -> Option<Vec<f64>> {
    // With what comes now, what is in blocks leaves the memory of its groups.
    let now = batches(
        [(1, 0..1), (2, 1..2)].map(|(group, devices)| batch_of(group, NOW_METRIC, devices, clock::now(), MARK)),
    );
    let request =
        json!({"request": "tail", "selectors": [METRIC, NOW_METRIC], "node": "node", "since_ms": 4 * MONTH_MS});
    let mut lines = collector.admin().follow(&request).await;
    live.store(sequence, &now).await;
    let mut values = Vec::new();
    loop {
        match lines.next(SOON).await?["value"].as_f64() {
            Some(MARK) => return Some(values),
            Some(value) => values.push(value),
            None => {}
        }
    }
}

/// Waits until this becomes of an alert.
async fn told(events: &mut Lines, rule: &str, event: &str) -> Value {
    eventually("the alert is told", SOON, async || {
        events.next(SOON).await.filter(|told| told["rule"] == rule && told["event"] == event)
    })
    .await
}

/// Row 25: a bit flips in a block under a running collector. The block is moved aside and counted, a rule that ships says so, and
/// everything else is answered as before.
#[tokio::test]
async fn a_flipped_bit_costs_its_block_and_is_told() {
    let mut collector = Collector::start_with(BRISK).await;
    let identity = collector.join("node").await;
    let mut live = connect(&collector, &identity).await;
    live.store(1, &past()).await;
    let [first, second] = hours();
    merged_block(&collector, second).await;
    let (path, _) = merged_block(&collector, first).await;
    let both = [[1.0; 60], [2.0; 60]].concat();
    assert_eq!(values(&collector, &mut live, 2).await, Some(both));
    let from = json!({"request": "follow", "from": {"after": 0}, "cursor": null, "is_once": false});
    let mut events = collector.admin().follow(&from).await;

    // The first page stands behind the header.
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 70).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 70).unwrap();
    let flipped = fs::read(&path).unwrap();

    assert_eq!(values(&collector, &mut live, 3).await, None, "an answer that is not whole is none");
    let left = values(&collector, &mut live, 4).await.unwrap();
    // Of the damaged hour its rows may be there already: each minute's last sample then stands for it.
    let (whole, rows): (Vec<f64>, Vec<f64>) = left.iter().partition(|&&value| value == 2.0);
    assert!(whole.len() == 60 && rows.len() < 10 && rows.iter().all(|&value| value == 1.0), "{left:?}");
    let firing = told(&mut events, "CollectorBlocksQuarantined", "firing").await;
    assert_eq!(firing["labels"]["severity"], "warning");
    assert_eq!(collector.own_metric("belfry_collector_blocks_quarantined"), 1.0);
    let evidence = collector.data_directory().join("blocks/quarantine").join(path.file_name().unwrap());
    assert!(!path.exists());
    assert!(fs::read(&evidence).unwrap() == flipped, "the evidence is as it was found");
    let (cli, data) = (Cli::admin(&collector), collector.data_directory());
    let store = ["store", "--data-dir", data.to_str().unwrap()];
    let info = cli.done(&[&store[..], &["info", "-o", "table"]].concat()).await;
    assert!(info.contains("1 block in quarantine"), "{info}");
    cli.done(&[&store[..], &["verify"]].concat()).await;

    // It is counted for as long as the file is there.
    collector.restart().await;
    assert_eq!(collector.own_metric("belfry_collector_blocks_quarantined"), 1.0);
    collector.stop().await;
    fs::remove_file(evidence).unwrap();
    collector.restart().await;
    assert_eq!(collector.own_metric("belfry_collector_blocks_quarantined"), 0.0);
    told(&mut collector.admin().follow(&from).await, "CollectorBlocksQuarantined", "resolved").await;
}

/// Makes these system calls do something else in the thread that writes blocks, from when this returns.
async fn inject(collector: &Collector, calls: &str, injection: &str) -> Process {
    let tasks = fs::read_dir(format!("/proc/{}/task", collector.process().id())).unwrap();
    let is_it = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "maintenance");
    let task = tasks.map(|task| task.unwrap().path()).find(is_it).expect("blocks have a thread");
    let mut command = Command::new("strace");
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{injection}"), "-p"]);
    command.arg(task.file_name().unwrap());
    let tracer = Process::start(&mut command, &collector.scratch().join("strace-blocks.log"));
    eventually("strace holds the thread", SOON, async || tracer.log().contains(" attached").then_some(())).await;
    tracer
}

/// Rows 21 and 30: when the fsync of a block fails nobody knows what the disk has: the process ends with an error, and a restart has
/// all that was acknowledged.
#[tokio::test]
async fn a_failed_fsync_of_a_block_ends_the_collector() {
    if let Err(why) = strace() {
        return skipped("a_failed_fsync_of_a_block_ends_the_collector", &why);
    }
    let mut collector = brisk().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 121, Duration::from_millis(5));
    let mut progress = recorder.progress();
    recorder.sessions_until(collector.address(), flowing(&mut progress, 20)).await;
    let tracer = inject(&collector, "fdatasync,fsync", "error=EIO").await;
    let address = collector.address();
    let status = recorder.sessions_until(address, collector.process_mut().end(SOON)).await;
    assert!(!status.success(), "{status}");
    let log = collector.process().log();
    assert!(log.contains("maintenance") && log.contains("Input/output error"), "the log says why: {log}");
    drop(tracer);
    let files = StoreFiles::open(&collector.data_directory(), &Keys::default()).unwrap();
    assert!(files.damaged().is_empty(), "{files:?}");

    collector.restart().await;
    recorder.sessions_until(collector.address(), flowing(&mut progress, 20)).await;
    collector.stop().await;
    check(&collector, &recorder).await;
}

/// Row 23: with no more files to open, everything is acknowledged, and blocks are written when files can be opened again.
#[tokio::test]
async fn blocks_wait_for_files_that_can_be_opened() {
    let mut collector = brisk().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 23, Duration::from_millis(20));
    let mut progress = recorder.progress();
    let address = collector.address();
    recorder.sessions_until(address, flowing(&mut progress, 20)).await;
    let id = collector.process().id();
    let process = Pid::from_raw(id.try_into().unwrap());
    let spare = (0..).find(|number| !Path::new(&format!("/proc/{id}/fd/{number}")).exists());
    let before = getrlimit(Resource::Nofile);
    let none = prlimit(process, Resource::Nofile, Rlimit { current: spare, maximum: before.maximum }).unwrap();
    let log = async |text: &str| {
        let said = async || collector.process().log().contains(text).then_some(());
        eventually("the log says so", RETRY, said).await;
    };
    let refused = async {
        log("blocks cannot be written").await;
        log("Too many open files").await;
        flowing(&mut progress, 100).await;
    };
    recorder.sessions_until(address, refused).await;
    prlimit(process, Resource::Nofile, none).unwrap();
    recorder.sessions_until(address, log("blocks can be written again")).await;
    assert!(collector.stop().await.success());
    check(&collector, &recorder).await;
}

/// Row 23: calls that a signal interrupts are made again.
#[tokio::test]
async fn interrupted_calls_are_made_again() {
    if let Err(why) = strace() {
        return skipped("interrupted_calls_are_made_again", &why);
    }
    let mut collector = brisk().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 123, Duration::from_millis(5));
    let mut progress = recorder.progress();
    let address = collector.address();
    recorder.sessions_until(address, flowing(&mut progress, 20)).await;
    let calls = "openat,pread64,pwrite64,ftruncate,fallocate,fdatasync,fsync";
    let tracer = inject(&collector, calls, "error=EINTR:when=2+3").await;
    let before = collector.own_metric("belfry_collector_blocks_bytes");
    let written = async || (collector.own_metric("belfry_collector_blocks_bytes") > before).then_some(());
    recorder.sessions_until(address, eventually("blocks are written", SOON, written)).await;
    drop(tracer);
    assert!(collector.stop().await.success());
    check(&collector, &recorder).await;
}

/// Row 22: the disk of the blocks is full, that of the journal is not. Everything is acknowledged and answered, also after a kill, and
/// goes to blocks once there is space.
#[tokio::test]
async fn a_full_disk_of_the_blocks_loses_and_stops_nothing() {
    let mut collector = Collector::prepare(&format!("{QUIET}{BRISK}"));
    let blocks = collector.data_directory().join("blocks");
    fs::create_dir(&blocks).unwrap();
    let disk = match SmallDisk::mount(&blocks, 4 * 1024 * 1024) {
        Ok(disk) => disk,
        Err(why) => return skipped("a_full_disk_of_the_blocks_loses_and_stops_nothing", &why),
    };
    collector.restart().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 122, Duration::from_millis(5));
    let mut progress = recorder.progress();
    recorder.sessions_until(collector.address(), flowing(&mut progress, 20)).await;
    disk.fill(0);
    // The second start finds the disk full.
    for _ in 0..2 {
        let before = collector.process().log().matches("blocks cannot be written").count();
        let full = async {
            eventually("a block cannot be written", SOON, async || {
                (collector.process().log().matches("blocks cannot be written").count() > before).then_some(())
            })
            .await;
            flowing(&mut progress, 100).await;
            assert_eq!(collector.admin().node("recorder").await["state"], "up");
            assert_eq!(collector.own_metric("belfry_collector_store_writable"), 1.0);
        };
        recorder.sessions_until(collector.address(), full).await;
        collector.kill();
        collector.restart().await;
    }
    disk.free();
    let written = async {
        eventually("blocks are written", RETRY, async || {
            (collector.own_metric("belfry_collector_blocks") > 0.0).then_some(())
        })
        .await;
    };
    recorder.sessions_until(collector.address(), written).await;
    collector.stop().await;
    check(&collector, &recorder).await;
}

/// Row 29: blocks are counted and checked while a collector writes and merges them.
#[tokio::test]
async fn blocks_are_checked_beside_a_running_collector() {
    let mut collector = brisk().await;
    let samples = Samples::new(129, hours()[0], 37_000);
    let mut recorder = Recorder::of(collector.join("recorder").await, samples, 129, Duration::from_millis(5));
    let (cli, data) = (Cli::admin(&collector), collector.data_directory());
    let store = ["store", "--data-dir", data.to_str().unwrap()];
    let checked = async {
        let mut merged = 0;
        while merged < 3 {
            let said = cli.done(&[&store[..], &["verify"]].concat()).await;
            assert!(said.contains("as they were written") || said.contains("no blocks"), "{said}");
            cli.done(&[&store[..], &["info", "--by", "metric", "-o", "csv"]].concat()).await;
            let files = StoreFiles::open(&data, &Keys::default()).unwrap();
            merged = files.blocks().filter(|block| block.tier == Tier::Raw && block.is_final).count();
        }
    };
    recorder.sessions_until(collector.address(), tokio::time::timeout(SOON, checked)).await.expect("blocks are merged");
    collector.stop().await;
    check(&collector, &recorder).await;
}

/// Every file below a directory, by its path from there.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(directory).unwrap().to_path_buf());
            }
        }
    }
    files.sort();
    files
}

/// Makes one directory like another.
fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// What stands for all nodes that have ever joined: without it a collector does not start.
const IRREPLACEABLE: [&str; 3] = ["belfry.db", "ca.key.pem", "ca.pem"];

/// Row 26: whichever file of a collector is gone, its next start does without or says which one is missing, and what was acknowledged
/// is there, but for what only that file had.
#[tokio::test]
async fn each_file_may_be_missing() {
    let mut collector = brisk().await;
    let mut recorder = Recorder::new(collector.join("recorder").await, 126, Duration::from_millis(5));
    let mut progress = recorder.progress();
    recorder.sessions_until(collector.address(), flowing(&mut progress, 50)).await;
    collector.stop().await;
    let (data, kept) = (collector.data_directory(), collector.scratch().join("kept"));
    copy(&data, &kept);
    let sent = Ledger { acknowledged: BTreeSet::new(), ..recorder.ledger.clone() };
    let files = files_of(&kept);
    assert!(files.iter().any(|name| is_block(name)), "{files:?}");
    for name in files {
        copy(&kept, &data);
        fs::remove_file(data.join(&name)).unwrap();
        if IRREPLACEABLE.iter().any(|known| Path::new(known) == name) {
            collector.launch();
            assert!(!collector.process_mut().end(SOON).await.success(), "{}", name.display());
            let log = collector.process().log();
            let words = format!("{}` is missing", name.display());
            assert!(log.contains(&words) && log.contains("restore it from a backup"), "{log}");
        } else {
            collector.restart().await;
            assert_eq!(collector.admin().node("recorder").await["name"], "recorder", "{}", name.display());
            collector.kill();
        }
        let ledger = if is_block(&name) { &sent } else { &recorder.ledger };
        Stored::read(&data).check_samples(recorder.identity.subject.id, recorder.epoch, ledger);
    }
}

fn is_block(name: &Path) -> bool {
    name.extension().is_some_and(|end| end == "block")
}

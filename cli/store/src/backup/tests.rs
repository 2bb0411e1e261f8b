use std::{
    collections::BTreeMap,
    io::Write as _,
    ops::ControlFlow,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use belfry_common::model::{
    Batch, BatchKey, Epoch, Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick, Timestamp,
};

use super::*;
use crate::{
    CompactOptions, Entry, MaintainOptions, NodeId, ReadLimits, Sample, Selected, Selection, Store, StoreOptions,
};

const START: i64 = 1_700_000_000_000;
/// Between two batches: a second of the test is days of the store.
const STEP_MS: i64 = 37_000;
const EPOCH: Epoch = Epoch(7);
const NODES: u64 = 3;

/// What is copied is encrypted: nobody copies by what is in it.
fn keys() -> Keys {
    Keys::of(&[7])
}

fn options() -> StoreOptions {
    let compact = CompactOptions { grace_ms: 0, quiet_ms: 0, ..CompactOptions::default() };
    let maintain = MaintainOptions { compact, merge_bytes_per_second: u64::MAX, ..MaintainOptions::default() };
    StoreOptions { maintain, segment_bytes: 16 * 1024, keys: keys(), ..StoreOptions::default() }
}

fn time(number: u64) -> Timestamp {
    Timestamp::from_millis(START + number as i64 * STEP_MS)
}

/// Who says what has this number, and as which of its batches: each node in its turn.
fn origin(number: u64) -> (NodeId, u64) {
    (NodeId(((number - 1) % NODES) as u32 + 1), (number - 1) / NODES + 1)
}

fn entry(layout: &Arc<Layout>, number: u64) -> Entry {
    let tick = Tick { layout: Arc::clone(layout), time: time(number), values: vec![Raw::integer(number as i64)] };
    let (node, sequence) = origin(number);
    let key = BatchKey { epoch: EPOCH, sequence };
    Entry { node, key, received: time(number), batch: Arc::new(Batch { ticks: vec![tick] }) }
}

fn layout() -> Arc<Layout> {
    let metric = Arc::new(Metric::new("reads_total", Kind::Counter, Resolution::ONE, &[], ""));
    let series = Box::new([Arc::new(SeriesDefinition { metric, label_values: Box::default() })]);
    Arc::new(Layout { group: 1, sampler: "disk".into(), interval_ms: 1000, series })
}

/// All values of a store by their numbers, which they are.
fn numbers(store: &Store) -> BTreeMap<u64, Timestamp> {
    let mut numbers = BTreeMap::new();
    let mut visitor = |_: NodeId, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
        numbers.extend(samples.iter().map(|sample| (sample.value.unwrap() as u64, sample.time)));
        ControlFlow::Continue(())
    };
    let nodes: Vec<NodeId> = (1..=NODES as u32).map(NodeId).collect();
    let visited =
        store.reader().visit(&nodes, &Selection::ALL, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
    assert!(visited.unwrap().is_continue());
    numbers
}

fn folders(to: &Path) {
    StoreFile::FOLDERS.iter().for_each(|folder| fs::create_dir_all(to.join(folder)).unwrap());
}

fn copy(from: &Path, to: &Path, known: Known<'_>) -> (StoreCopy, u64) {
    folders(to);
    let read = AtomicU64::new(0);
    let progress = |step| {
        if let Step::Done(bytes) = step {
            read.fetch_add(bytes, SeqCst);
        }
        Ok(())
    };
    for _ in 0..100 {
        match back_up((from, &keys()), to, known, &progress) {
            // The load is as fast as it can be, and this machine may have other work.
            Err(BackupError::Busy) => {
                fs::remove_dir_all(to).unwrap();
                folders(to);
                read.store(0, SeqCst);
            }
            copy => return (copy.unwrap(), read.into_inner()),
        }
    }
    panic!("the store is never as its blocks say");
}

const NOTHING: Known<'static> = &|_, _| None;

/// What is acknowledged, flushed, merged and cut on two threads until this is dropped.
struct Load {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn on(directory: &Path) -> Self {
        let (mut store, _) = Store::open(directory, options(), time(0)).unwrap();
        let maintainer = store.maintainer();
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let now = Arc::new(AtomicI64::new(START));
        let (told, clock, ended) = (Arc::clone(&acknowledged), Arc::clone(&now), Arc::clone(&stop));
        let writer = move || {
            let layout = layout();
            for number in 1.. {
                if ended.load(SeqCst) {
                    break;
                }
                store.add(entry(&layout, number)).unwrap();
                if number % 3 == 0 {
                    store.commit().unwrap();
                    clock.store(time(number).as_millis(), SeqCst);
                    told.store(number, SeqCst);
                    store.cut(time(number)).unwrap();
                }
            }
        };
        let ended = Arc::clone(&stop);
        let maintain = move || {
            while !ended.load(SeqCst) {
                let now = Timestamp::from_millis(now.load(SeqCst));
                maintainer.flush(now).unwrap();
                while maintainer.compact(now).unwrap() {}
            }
        };
        Self { acknowledged, stop, threads: vec![thread::spawn(writer), thread::spawn(maintain)] }
    }

    fn wait_until(&self, number: u64) {
        while self.acknowledged.load(SeqCst) < number {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()));
            thread::yield_now();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

/// How many copies are taken: `BELFRY_BACKUP_ROUNDS` for a long campaign.
fn rounds() -> u64 {
    std::env::var("BELFRY_BACKUP_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(10)
}

#[test]
fn a_copy_taken_under_load_has_all_that_was_acknowledged_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let load = Load::on(&data);
    let (mut merged, mut of_blocks) = (0, 0);
    for round in 0..rounds() {
        load.wait_until(300 * (round + 1));
        let to = directory.path().join(round.to_string());
        let before = load.acknowledged.load(SeqCst);
        let (copied, _) = copy(&data, &to, NOTHING);
        assert!(copied.damaged.is_empty(), "{copied:?}");
        for Copied { file, checksum, .. } in &copied.files {
            assert_eq!(check_file(&to.join(file.path()), &|_| Ok(())).unwrap(), *checksum);
        }
        let on_disk = StoreFile::FOLDERS.iter().flat_map(|folder| fs::read_dir(to.join(folder)).unwrap());
        assert_eq!(on_disk.count(), copied.files.len(), "nothing else is there");

        let (store, recovery) = Store::open(&to, options(), time(before)).unwrap();
        // The newest segment may have been begun at that moment.
        let is_torn = recovery.journal.torn.is_some_and(|torn| torn.position.offset > 0);
        assert!(!is_torn && recovery.journal.damages.is_empty() && recovery.blocks.quarantined == 0, "{recovery:?}");
        assert_eq!(recovery.blocks.replaced, 0, "each sample once");
        let numbers = numbers(&store);
        let lost: Vec<u64> = (1..=before).filter(|number| !numbers.contains_key(number)).collect();
        assert!(
            lost.is_empty(),
            "round {round}: of {before}, {} are lost: {:?}",
            lost.len(),
            &lost[..lost.len().min(9)]
        );
        assert!(numbers.iter().all(|(&number, &at)| at == time(number)), "nothing is invented");
        let stored = |number: u64| {
            let (node, sequence) = origin(number);
            store.durable(node, EPOCH).iter().any(|&(first, last)| (first..=last).contains(&sequence))
        };
        assert!((1..=before).all(stored), "round {round}: what is stored is known");
        of_blocks += store.blocks().len();
        merged += store.blocks().iter().filter(|block| block.is_final).count();
    }
    assert!(of_blocks as u64 > rounds() && merged > 0, "{of_blocks} blocks, {merged} merged");
}

/// A store with two blocks and something in its journal, that nobody uses.
fn store_at(data: &Path) {
    let (mut store, _) = Store::open(data, options(), time(0)).unwrap();
    let layout = layout();
    for number in 1..=9 {
        store.add(entry(&layout, number)).unwrap();
        store.commit().unwrap();
        if number % 4 == 0 {
            store.maintainer().flush(time(number)).unwrap();
        }
    }
}

#[test]
fn what_an_earlier_copy_has_is_linked_and_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let [data, first, second] = ["data", "1", "2"].map(|name| directory.path().join(name));
    store_at(&data);
    let (copied, read) = copy(&data, &first, NOTHING);
    let blocks: Vec<&Copied> =
        copied.files.iter().filter(|copied| matches!(copied.file, StoreFile::Block(_))).collect();
    let bytes_of_blocks: u64 = blocks.iter().map(|copied| copied.checksum.bytes).sum();
    assert_eq!(blocks.len(), 2);
    let known = |file: StoreFile, checksum| {
        let is_it = |copied: &&Copied| copied.file == file && copied.checksum == checksum;
        copied.files.iter().find(is_it).map(|copied| first.join(copied.file.path()))
    };
    let (again, read_again) = copy(&data, &second, &known);
    assert_eq!(read - read_again, bytes_of_blocks);
    assert_eq!(again.files.iter().filter(|copied| copied.is_known).count(), 2);
    let inode = |of: &Path, file: StoreFile| fs::metadata(of.join(file.path())).unwrap().ino();
    for Copied { file, .. } in blocks {
        assert_eq!([&data, &first, &second].map(|of| inode(of, *file)), [inode(&data, *file); 3]);
    }
    assert_eq!(numbers(&Store::open(&second, options(), time(9)).unwrap().0).len(), 9);
}

#[test]
fn a_damaged_block_is_left_out_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let [data, to] = ["data", "copy"].map(|name| directory.path().join(name));
    store_at(&data);
    let path = data.join(StoreFile::Block(1).path());
    let mut bytes = fs::read(&path).unwrap();
    // Of a page: what opening a block does not look at.
    bytes[66] ^= 1;
    fs::write(&path, &bytes).unwrap();
    fs::write(data.join(StoreFile::Block(77).path()), b"none").unwrap();
    let (copied, _) = copy(&data, &to, NOTHING);
    let names: Vec<&str> = copied.damaged.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["0000000000000001.block", "000000000000004d.block"]);
    assert!(!to.join(StoreFile::Block(1).path()).exists() && to.join(StoreFile::Block(2).path()).exists());
    assert_eq!(fs::read(&path).unwrap(), bytes, "and stays where it is");
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let [secret, link, to] = ["secret", "link", "to"].map(|name| directory.path().join(name));
    fs::write(&secret, "x").unwrap();
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    let progress: BackupProgress<'_> = &|_| Ok(());
    assert!(matches!(copy_file(&link, &to, progress), Err(BackupError::Failure(_))));
    assert!(!to.exists());
    copy_file(&secret, &to, progress).unwrap();
    let error = copy_file(&secret, &to, progress).unwrap_err();
    assert!(error.to_string().contains("create"), "nothing is overwritten: {error}");
    assert!(matches!(
        copy_file(&secret, &link.with_file_name("stopped"), &|_| Err(BackupError::Stopped)),
        Err(BackupError::Stopped)
    ));
}

#[test]
fn paths_are_those_of_a_data_directory_and_no_others() {
    for file in [StoreFile::Block(0x1f), StoreFile::Segment(3)] {
        assert_eq!(StoreFile::parse(&file.path()), Some(file));
    }
    for path in ["", "blocks", "blocks/", "blocks/x", "blocks/1.block", "blocks/../x", "../0000000000000001.block"] {
        assert_eq!(StoreFile::parse(path), None, "{path}");
    }
    assert_eq!(StoreFile::parse("journal/0000000000000001.block"), None);
    assert_eq!(StoreFile::parse("blocks/quarantine/0000000000000001.block"), None);
}

/// A file that grows while it is copied: 17 bytes that tell where they stand, again and again.
#[test]
fn what_is_missing_of_a_growing_file_is_all_that_came_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("from");
    let bytes = 2_000_000_u32;
    let pattern: Vec<u8> = (1..=bytes / 17).flat_map(|number| format!("{number:017}").into_bytes()).collect();
    let mut file = fs::File::create(&from).unwrap();
    file.set_len(bytes.into()).unwrap();
    let written = pattern.clone();
    let writer = thread::spawn(move || {
        written.chunks(17).for_each(|piece| file.write_all(piece).unwrap());
    });
    let mut parts = 0;
    for round in 0.. {
        let to = directory.path().join(round.to_string());
        let is_done = writer.is_finished();
        file::copy_growing(&from, &to).unwrap();
        let read = fs::read(&to).unwrap();
        let there = read.iter().zip(&pattern).take_while(|(read, written)| read == written).count();
        assert!(read[there..].iter().all(|byte| *byte == 0), "round {round}: something behind {there}");
        parts += usize::from(there > 0 && there < pattern.len());
        if is_done {
            assert_eq!(there, pattern.len());
            break;
        }
    }
    assert!(parts > 0, "copied while it grew");
    writer.join().unwrap();
}

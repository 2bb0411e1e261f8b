//! What a disk that fails, or is full, does to putting samples into blocks, merging them and letting them go: at every operation once.

use std::ops::ControlFlow;

use belfry_common::{
    model::{Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick},
    storage::simulated::{EIO, ENOSPC, Fault, Simulated},
};

use super::*;
use crate::{
    BlockError, CompactOptions, Keys, ReadLimits, RetentionOptions, Selected, Selection, StoreFiles, TierRetention,
    TimeRange,
};

const NOW: i64 = 1_700_000_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(NOW + second * 1000)
}

fn open(disks: &[Simulated; 2]) -> Store {
    let [journal, blocks] = disks.clone().map(|disk| Arc::new(disk) as Arc<dyn Storage>);
    let head = HeadOptions { window_ms: 1000, ..HeadOptions::default() };
    let compact = CompactOptions { grace_ms: 0, quiet_ms: 0, ..CompactOptions::default() };
    let forever = TierRetention { age_ms_max: i64::MAX / 2, bytes_max: None };
    let retention = RetentionOptions {
        raw: TierRetention { age_ms_max: 9 * 3_600_000, ..forever },
        minute: forever,
        hour: forever,
    };
    let maintain =
        MaintainOptions { compact, retention, merge_bytes_per_second: u64::MAX, ..MaintainOptions::default() };
    let options = StoreOptions { head, maintain, segment_bytes: 16 * 1024, ..StoreOptions::default() };
    Store::open_in(journal, blocks, options, false, at(100)).unwrap().0
}

fn add(store: &mut Store, seconds: std::ops::Range<i64>) {
    let metric = Arc::new(Metric::new("m", Kind::Gauge, Resolution::ONE, &[], ""));
    let series = [Arc::new(SeriesDefinition { metric, label_values: [].into() })].into();
    let layout = Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series });
    for second in seconds {
        let tick = Tick { layout: Arc::clone(&layout), time: at(second), values: vec![Raw::integer(second * 3)] };
        let key = BatchKey { epoch: Epoch(1), sequence: second as u64 + 1 };
        let batch = Arc::new(Batch { ticks: vec![tick] });
        store.add(Entry { node: NodeId(1), key, received: at(second), batch }).unwrap();
    }
    store.commit().unwrap();
}

fn seconds(store: &Store) -> Vec<i64> {
    let range = TimeRange { after: at(-1), until: at(1_000_000) };
    let selection = Selection { range, ..Selection::ALL };
    let mut seconds = Vec::new();
    let mut visitor = |_, _: &Arc<SeriesDefinition>, samples: &[crate::Sample]| {
        for sample in samples {
            let second = sample.time.millis_since(at(0)) / 1000;
            assert_eq!(sample.value, Ok((second * 3) as f64));
            seconds.push(second);
        }
        ControlFlow::Continue(())
    };
    let reader = store.reader();
    let visited = reader.visit(&[NodeId(1)], &selection, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
    assert!(visited.unwrap().is_continue());
    seconds
}

/// Three minutes in two blocks, and one more in memory.
fn filled(disks: &[Simulated; 2]) -> Store {
    let mut store = open(disks);
    for from in [0, 60, 120] {
        add(&mut store, from..from + 60);
        if from < 120 {
            store.maintainer().flush(at(from + 60)).unwrap();
        }
    }
    store
}

/// Puts what is in memory into a block, and merges all that there is.
fn maintain(store: &mut Store) -> Result<(), BlockError> {
    let maintainer = store.maintainer();
    maintainer.flush(at(180))?;
    while maintainer.compact(at(3 * 3600))? {}
    Ok(())
}

/// How many operations on the blocks' disk that takes.
fn operations() -> u64 {
    let disks = [1, 2].map(Simulated::new);
    let mut store = filled(&disks);
    let before = disks[1].operations();
    maintain(&mut store).unwrap();
    disks[1].operations() - before
}

#[test]
fn nothing_is_lost_whichever_operation_fails_or_is_the_last() {
    let all: Vec<i64> = (0..180).collect();
    for fault in [Fault::Error(EIO), Fault::Error(ENOSPC), Fault::Crash] {
        for nth in 1..=operations() {
            let disks = [1, 2].map(|seed| Simulated::new(seed + nth));
            let mut store = filled(&disks);
            disks[1].inject(nth, fault);
            let result = maintain(&mut store);
            if fault == Fault::Error(ENOSPC) && result.is_err() {
                // Space comes back: it goes on without a restart.
                assert_eq!(seconds(&store), all, "operation {nth}");
                maintain(&mut store).unwrap();
                assert_eq!(seconds(&store), all, "operation {nth}");
            }
            drop(store);
            let power = nth % 2 == 0;
            disks.iter().for_each(|disk| if power { disk.lose_power() } else { disk.kill() });
            disks[1].clear_faults();
            let mut store = open(&disks);
            assert_eq!(seconds(&store), all, "operation {nth}, {fault:?}");
            maintain(&mut store).unwrap();
            assert_eq!(seconds(&store), all, "operation {nth}, {fault:?}");
            assert_eq!(store.blocks().len(), 3, "raw samples, minutes, hours");
        }
    }
}

#[test]
fn a_full_disk_keeps_all_in_memory_and_in_the_journal_until_there_is_space() {
    let disks = [1, 2].map(Simulated::new);
    let mut store = filled(&disks);
    disks[1].limit_bytes(Some(0));
    let error = store.maintainer().flush(at(180)).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    store.cut(at(100_000)).unwrap();
    add(&mut store, 180..240);
    assert_eq!(seconds(&store), (0..240).collect::<Vec<_>>());
    disks[1].limit_bytes(None);
    store.maintainer().flush(at(240)).unwrap();
    store.cut(at(100_000)).unwrap();
    disks.iter().for_each(Simulated::lose_power);
    drop(store);
    assert_eq!(seconds(&open(&disks)), (0..240).collect::<Vec<_>>());
}

#[test]
fn a_crash_while_old_blocks_go_leaves_each_there_or_gone() {
    for nth in 1..6 {
        let disks = [1, 2].map(|seed| Simulated::new(seed + nth));
        let mut store = filled(&disks);
        maintain(&mut store).unwrap();
        disks[1].inject(nth, Fault::Crash);
        // Ten hours later raw samples are too old, minutes and hours are not.
        drop(store.maintainer().run(at(10 * 3600)));
        drop(store);
        disks.iter().for_each(Simulated::lose_power);
        disks[1].clear_faults();
        let store = open(&disks);
        let raw = store.blocks().iter().filter(|block| block.tier == crate::Tier::Raw).count();
        assert!(raw <= 1 && store.blocks().len() >= 2, "{:?}", store.blocks());
    }
}

#[test]
fn a_damaged_page_costs_one_answer_and_its_block() {
    let disks = [1, 2].map(Simulated::new);
    let store = filled(&disks);
    let [first, second] = [0, 1].map(|place| store.blocks()[place].number);
    let name = format!("{first:016x}.block");
    let mut bytes = disks[1].contents(&name).unwrap();
    // The first page stands behind the header.
    bytes[70] ^= 1;
    disks[1].put(&name, &bytes);
    // As a collector that is started again: the file is opened anew.
    drop(store);
    disks.iter().for_each(Simulated::kill);
    let store = open(&disks);
    let range = TimeRange { after: at(-1), until: at(1_000_000) };
    let selection = Selection { range, ..Selection::ALL };
    let mut visitor = |_, _: &Arc<SeriesDefinition>, _: &[crate::Sample]| ControlFlow::Continue(());
    let reader = store.reader();
    let visited = reader.visit(&[NodeId(1)], &selection, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
    let error = visited.unwrap_err();
    assert!(matches!(error, crate::ReadError::Block(BlockError::Damaged { .. })), "{error}");
    assert_eq!(store.blocks().iter().map(|block| block.number).collect::<Vec<_>>(), [second]);
    assert_eq!(reader.statistics().quarantined, 1);
    assert_eq!(disks[1].contents(&format!("quarantine/{name}")), Some(bytes));
    // The journal has all of it still.
    assert_eq!(seconds(&store), (0..180).collect::<Vec<_>>());
}

#[test]
fn a_damaged_block_is_moved_aside_by_merging_and_the_rest_is_merged() {
    let disks = [1, 2].map(Simulated::new);
    let store = filled(&disks);
    let name = format!("{:016x}.block", store.blocks()[0].number);
    drop(store);
    disks.iter().for_each(Simulated::kill);
    let mut bytes = disks[1].contents(&name).unwrap();
    bytes[70] ^= 1;
    disks[1].put(&name, &bytes);
    let mut store = open(&disks);
    maintain(&mut store).unwrap();
    assert_eq!(store.reader().statistics().quarantined, 1);
    assert_eq!(store.blocks().len(), 3, "raw samples, minutes, hours");
    assert_eq!(seconds(&store), (0..180).collect::<Vec<_>>());
}

/// More blocks than are kept open are looked at, and merged before their catalogs are read.
#[test]
fn blocks_that_are_merged_while_somebody_counts_them_are_left_out() {
    let disks = [1, 2].map(Simulated::new);
    let mut store = open(&disks);
    for second in 0..300 {
        add(&mut store, second..second + 1);
        store.maintainer().flush(at(second)).unwrap();
    }
    let files = StoreFiles::open_in(&(Arc::new(disks[1].clone()) as Arc<dyn Storage>), &Keys::default()).unwrap();
    assert_eq!(files.blocks().count(), 300);
    while store.maintainer().compact(at(3 * 3600)).unwrap() {}
    let readings = |counted: Option<crate::Use>| counted.map_or(0, |counted| counted.readings);
    assert!(readings(files.metrics().unwrap().get("m").copied()) <= 300);
    assert!(readings(files.nodes().unwrap().get(&NodeId(1)).copied()) <= 300);
    assert!(files.verify(&|_| Ok(())).unwrap().is_empty());
    let again = StoreFiles::open_in(&(Arc::new(disks[1].clone()) as Arc<dyn Storage>), &Keys::default()).unwrap();
    assert_eq!(readings(again.metrics().unwrap().get("m").copied()), 300);
}

use belfry_common::model::{GapReason, Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick};

use super::*;
use crate::{Importer, Pick, ReadLimits, Sample, Selected, Selection, TimeRange};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub(super) const EPOCH: Epoch = Epoch(7);

pub(super) fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 4 * 1024, ..StoreOptions::default() }
}

fn layout() -> Arc<Layout> {
    let metric = Arc::new(Metric::new("reads_total", Kind::Counter, Resolution::ONE, &[], ""));
    let series = Box::new([Arc::new(SeriesDefinition { metric, label_values: Box::default() })]);
    Arc::new(Layout { group: 1, sampler: "disk".into(), interval_ms: 1000, series })
}

fn entry(layout: &Arc<Layout>, node: u32, sequence: u64) -> Entry {
    let time = NOW.plus_millis(sequence as i64 * 1000);
    let tick = Tick { layout: Arc::clone(layout), time, values: vec![Raw::integer(sequence as i64 * 31)] };
    let batch = Arc::new(Batch { ticks: vec![tick] });
    Entry { node: NodeId(node), key: BatchKey { epoch: EPOCH, sequence }, received: time, batch }
}

fn values(store: &Store, node: u32) -> Vec<f64> {
    let range = TimeRange { after: Timestamp::default(), until: Timestamp::from_millis(i64::MAX) };
    let selection = Selection { range, ..Selection::ALL };
    let mut found = Selected::default();
    store.head().select(NodeId(node), &selection, &mut found);
    found.iter().flat_map(|(_, samples)| samples).map(|sample| sample.value.unwrap()).collect()
}

#[test]
fn a_batch_too_large_for_a_record_is_refused_and_the_next_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    let metric = Arc::new(Metric::new("m", Kind::Gauge, Resolution::ONE, &["l"], ""));
    let series = (0..40_000).map(|n| {
        let label_values = Box::new([format!("{n:0128}").into()]);
        Arc::new(SeriesDefinition { metric: Arc::clone(&metric), label_values })
    });
    let huge = Arc::new(Layout { group: 2, sampler: "s".into(), interval_ms: 1000, series: series.collect() });
    let tick = Tick { layout: Arc::clone(&huge), time: NOW, values: vec![Raw::integer(1); huge.series.len()] };
    let batch = Arc::new(Batch { ticks: vec![tick] });
    let key = BatchKey { epoch: EPOCH, sequence: 1 };
    let refused = store.add(Entry { node: NodeId(1), key, received: NOW, batch }).unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    assert_eq!(store.add(entry(&layout(), 1, 2)).unwrap(), Added::New);
    store.commit().unwrap();
    drop(store);
    let (store, recovery) = Store::open(directory.path(), options(), NOW).unwrap();
    assert!(recovery.is_clean());
    assert_eq!(values(&store, 1), [62.0]);
}

#[test]
fn what_is_stored_is_known_after_any_number_of_snapshot_records() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = 60;
    let options = StoreOptions { segment_bytes: 2 * 1024 * 1024, ..options() };
    let (mut store, _) = Store::open(directory.path(), options.clone(), NOW).unwrap();
    // Every second number: many runs, together more than one record has room for, and more than one segment.
    for node in 1..=nodes {
        for run in 0..1500 {
            let gap = Gap { first: 10 + 2 * run, last: 10 + 2 * run, reason: GapReason::Unused };
            store.add_gap(NodeId(node), EPOCH, gap, NOW).unwrap();
        }
    }
    store.commit().unwrap();
    store.maintainer().flush(NOW).unwrap();
    // What the older segments held is known from the newest one's beginning.
    store.cut(NOW.plus_millis(i64::MAX / 2)).unwrap();
    // And a new one, since that one is old.
    assert_eq!(store.log_statistics().segments, 2);
    drop(store);
    let (store, _) = Store::open(directory.path(), options, NOW).unwrap();
    for node in 1..=nodes {
        assert_eq!(store.durable(NodeId(node), EPOCH).len(), 1500, "node {node}");
    }
}

#[test]
fn what_was_committed_is_there_again_once() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout();
    for round in 0..5 {
        let (mut store, recovery) = Store::open(directory.path(), options(), NOW).unwrap();
        assert!(recovery.is_clean());
        let before: Vec<f64> = (1..=round * 100).map(|sequence| (sequence * 31) as f64).collect();
        assert_eq!(values(&store, 1), before, "round {round}");
        assert_eq!(values(&store, 2), before);
        let mut committed = 0;
        for sequence in 1..=(round + 1) * 100 {
            let expected = if sequence <= round * 100 { Added::Duplicate } else { Added::New };
            assert_eq!(store.add(entry(&layout, 1, sequence)).unwrap(), expected);
            assert_eq!(store.add(entry(&layout, 2, sequence)).unwrap(), expected);
            assert_eq!(store.add(entry(&layout, 2, sequence)).unwrap(), Added::Duplicate);
            if sequence % 20 == 0 {
                committed += store.commit().unwrap().len();
            }
        }
        assert_eq!(committed, 200);
        assert!(store.log_statistics().segments > 1 + round, "small segments: the contexts begin anew in each");
    }
}

#[test]
fn what_was_not_committed_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    store.add(entry(&layout(), 1, 1)).unwrap();
    assert_eq!(values(&store, 1), []);
    store.commit().unwrap();
    assert_eq!(values(&store, 1), [31.0]);
}

/// An agent deletes what it is told to be durable.
#[test]
fn what_was_not_committed_is_not_called_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    for sequence in 1..=3 {
        store.add(entry(&layout(), 1, sequence)).unwrap();
    }
    store.commit().unwrap();
    for sequence in 4..=6 {
        store.add(entry(&layout(), 1, sequence)).unwrap();
    }
    store.add_gap(NodeId(1), EPOCH, Gap { first: 8, last: 9, reason: GapReason::Unused }, NOW).unwrap();
    assert_eq!(store.durable(NodeId(1), EPOCH), [(1, 3)]);
    store.commit().unwrap();
    assert_eq!(store.durable(NodeId(1), EPOCH), [(1, 6), (8, 9)]);
}

#[test]
fn gaps_and_knowledge_of_duplicates_survive_the_cut() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    store.add_gap(NodeId(1), EPOCH, Gap { first: 1, last: 50, reason: GapReason::SpoolFull }, NOW).unwrap();
    store.commit().unwrap();
    for sequence in 51..=3000 {
        store.add(entry(&layout, 1, sequence)).unwrap();
        if sequence % 20 == 0 {
            store.commit().unwrap();
        }
    }
    let before = store.log_statistics().segments;
    store.maintainer().flush(NOW).unwrap();
    let later = NOW.plus_millis(3000 * 1000 + options().journal_age_ms_max);
    store.cut(later).unwrap();
    assert!(store.log_statistics().segments < before, "old segments are deleted");
    drop(store);

    let (mut store, _) = Store::open(directory.path(), options(), later).unwrap();
    let runs = store.durable(NodeId(1), EPOCH);
    assert_eq!(runs, [(1, 3000)]);
    assert_eq!(store.add(entry(&layout, 1, 77)).unwrap(), Added::Duplicate);
    store.forget_epochs(NodeId(1), |_| false);
    assert_eq!(store.add(entry(&layout, 1, 77)).unwrap(), Added::New);
}

#[test]
fn more_ticks_than_a_chunk_may_have_are_several() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions::default();
    let (mut store, _) = Store::open(directory.path(), options.clone(), NOW).unwrap();
    let layout = layout();
    let count = 70_000;
    for sequence in 1..=count {
        // An hour that has begun: all of them are in one.
        let time = Timestamp::from_millis(NOW.as_millis() / 3_600_000 * 3_600_000 + sequence);
        let tick = Tick { layout: Arc::clone(&layout), time, values: vec![Raw::integer(sequence)] };
        let key = BatchKey { epoch: EPOCH, sequence: sequence as u64 };
        store.add(Entry { node: NodeId(1), key, received: NOW, batch: Arc::new(Batch { ticks: vec![tick] }) }).unwrap();
    }
    store.commit().unwrap();
    store.maintainer().flush(NOW).unwrap();
    drop(store);
    // Long after: memory has nothing of it.
    let later = NOW.plus_millis(86_400_000);
    let (store, _) = Store::open(directory.path(), options, later).unwrap();
    for is_merged in [false, true] {
        while is_merged && store.maintainer().compact(later).unwrap() {}
        let mut read = Vec::new();
        let mut visitor = |_: NodeId, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
            read.extend(samples.iter().map(|sample| sample.value.unwrap() as i64));
            std::ops::ControlFlow::Continue(())
        };
        let visited = store.reader().visit(
            &[NodeId(1)],
            &Selection::ALL,
            ReadLimits::NONE,
            &mut Selected::default(),
            &mut visitor,
        );
        assert!(visited.unwrap().is_continue());
        assert!(read.iter().copied().eq(1..=count), "{}", read.len());
    }
}

/// The new journal comes to numbers of which older blocks say that all before them is in blocks.
#[test]
fn what_a_new_journal_has_is_not_taken_for_what_the_lost_one_had() {
    [false, true].into_iter().for_each(after_a_lost_journal);
}

fn after_a_lost_journal(is_merged: bool) {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout();
    let add = |store: &mut Store, sequences: RangeInclusive<u64>| {
        for sequence in sequences {
            store.add(entry(&layout, 1, sequence)).unwrap();
            store.commit().unwrap();
        }
        NOW.plus_millis(store.head().statistics().readings as i64 * 1000)
    };
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    let then = add(&mut store, 1..=1000);
    store.maintainer().flush(then).unwrap();
    let told = store.blocks()[0].journal_segment;
    assert!(told > 3, "{told}");
    drop(store);
    for segment in std::fs::read_dir(directory.path().join("journal")).unwrap() {
        std::fs::remove_file(segment.unwrap().path()).unwrap();
    }

    let (mut store, _) = Store::open(directory.path(), options(), then).unwrap();
    add(&mut store, 1001..=1100);
    // Merging must not hand on what blocks tell of the other journal.
    store.maintainer().flush(NOW.plus_millis(1_100_000)).unwrap();
    let later = NOW.plus_millis(4 * 3_600_000);
    while is_merged && store.maintainer().compact(later).unwrap() {}
    add(&mut store, 1101..=3000);
    assert!(store.log.newest_segment() > told + 1, "{}", store.log.newest_segment());
    drop(store);
    let (store, _) = Store::open(directory.path(), options(), later).unwrap();
    let read = values(&store, 1);
    assert!((1101..=3000).all(|sequence| read.contains(&((sequence * 31) as f64))), "{}", read.len());
}

/// What is newest is known after a start without reading on before what is in blocks, and it is no news.
#[test]
fn what_is_newest_is_known_from_the_beginning_of_a_segment() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    for sequence in 1..=100 {
        store.add(entry(&layout, 1, sequence)).unwrap();
        store.commit().unwrap();
    }
    // A new segment begins, and all before it goes.
    store.cut(NOW.plus_millis(1_000_000)).unwrap();
    store.add(entry(&layout, 2, 1)).unwrap();
    store.commit().unwrap();
    let later = NOW.plus_millis(2_000_000);
    store.maintainer().flush(later).unwrap();
    store.cut(later).unwrap();
    assert_eq!(store.log_statistics().segments, 2);
    drop(store);

    let (store, recovery) = Store::open(directory.path(), options(), later).unwrap();
    assert!(recovery.is_clean());
    assert_eq!(values(&store, 1), [3100.0]);
    let range = TimeRange { after: NOW, until: later };
    let selection = Selection { range, pick: Pick::Newest, ..Selection::ALL };
    assert!(store.head().select_beside_blocks(NodeId(1), &selection, &mut Selected::default()), "blocks are not read");
    assert!(!store.head().select_beside_blocks(
        NodeId(1),
        &Selection { pick: Pick::All, ..selection },
        &mut Selected::default()
    ));
    // Only what the segment has besides may be in no block.
    store.maintainer().flush(later).unwrap();
    assert_eq!(store.blocks().last().map(|block| (block.series, block.readings)), Some((1, 1)));
    // Merging says nothing new, and rows are made of what is there.
    let much_later = later.plus_millis(7_200_000);
    while store.maintainer().compact(much_later).unwrap() {}
    assert!(store.blocks().iter().any(|block| block.tier == crate::Tier::Minute));
    drop(store);
    let (store, _) = Store::open(directory.path(), options(), later).unwrap();
    assert!(store.head().select_beside_blocks(NodeId(1), &selection, &mut Selected::default()), "blocks are not read");
}

#[test]
fn what_was_imported_is_found_although_no_segment_says_that_it_is_newest() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    for sequence in 1..=2 {
        store.add(entry(&layout(), 1, sequence)).unwrap();
        store.commit().unwrap();
        store.maintainer().flush(NOW).unwrap();
        store.cut(NOW.plus_millis(1_000_000)).unwrap();
    }
    drop(store);
    let mut importer = Importer::open(directory.path(), &Keys::default()).unwrap();
    let metric = Arc::new(Metric::new("imported", Kind::Gauge, Resolution::Float, &[], ""));
    let series = Arc::new(SeriesDefinition { metric, label_values: Box::default() });
    let number = importer.series(NodeId(1), series).unwrap();
    importer.add(number, Sample { time: NOW.plus_millis(-1000), value: Ok(7.0) }).unwrap();
    importer.finish(NOW, i64::MAX, &|_, _| Ok(())).unwrap();

    let (store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    let range = TimeRange { after: NOW.plus_millis(-300_000), until: NOW.plus_millis(10_000) };
    let selection = Selection { range, pick: Pick::Newest, ..Selection::ALL };
    let mut found = Vec::new();
    let mut visitor = |_: NodeId, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
        found.extend(samples.iter().map(|sample| sample.value.unwrap()));
        std::ops::ControlFlow::Continue(())
    };
    let mut selected = Selected::default();
    let visited = store.reader().visit(&[NodeId(1)], &selection, ReadLimits::NONE, &mut selected, &mut visitor);
    assert!(visited.unwrap().is_continue());
    found.sort_by(f64::total_cmp);
    assert_eq!(found, [7.0, 62.0]);
}

#[test]
fn threads_read_the_same_in_the_same_order_and_within_the_same_limits() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    let nodes: Vec<NodeId> = (1..=40).map(NodeId).collect();
    for (node, sequence) in nodes.iter().flat_map(|node| (1..=50).map(move |sequence| (node.0, sequence))) {
        store.add(entry(&layout(), node, sequence)).unwrap();
    }
    store.commit().unwrap();
    store.maintainer().flush(NOW).unwrap();
    drop(store);
    let (store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    let range = TimeRange { after: Timestamp::default(), until: Timestamp::from_millis(i64::MAX) };
    let selection = Selection { range, ..Selection::ALL };
    let read = |limits: ReadLimits, series_max: usize| {
        let mut read = Vec::new();
        let mut visitor = |node: NodeId, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
            read.push((node, samples.to_vec()));
            if read.len() < series_max { std::ops::ControlFlow::Continue(()) } else { std::ops::ControlFlow::Break(()) }
        };
        let visited = store.reader().visit(&nodes, &selection, limits, &mut Selected::default(), &mut visitor);
        visited.map(|_| read).map_err(|error| error.to_string())
    };
    let alone = read(ReadLimits::NONE, usize::MAX).unwrap();
    assert_eq!(alone.iter().map(|(_, samples)| samples.len()).sum::<usize>(), 40 * 50);
    for threads in [2, 3, 100] {
        let together = ReadLimits { threads, ..ReadLimits::NONE };
        assert_eq!(read(together, usize::MAX).unwrap(), alone);
        assert_eq!(read(together, 7).unwrap(), alone[..7]);
        let error = read(ReadLimits { samples: 1000, ..together }, usize::MAX).unwrap_err();
        assert!(error.contains("1000 samples"), "{error}");
    }
}

/// Thousands of nodes may come and go in a day.
#[test]
fn nodes_that_are_silent_leave_memory_and_stay_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    for node in 1..=100 {
        store.add(entry(&layout, node, 1)).unwrap();
    }
    store.commit().unwrap();
    let maintainer = store.maintainer();
    maintainer.flush(NOW.plus_millis(60_000)).unwrap();
    assert_eq!(store.head().nodes().len(), 100);
    let bytes = store.head().statistics().bytes;
    // One goes on.
    let later = 2 * 3600;
    store.add(entry(&layout, 1, later)).unwrap();
    store.commit().unwrap();
    maintainer.flush(NOW.plus_millis(later as i64 * 1000)).unwrap();
    assert_eq!(store.head().nodes(), [NodeId(1)]);
    assert!(store.head().statistics().bytes * 50 < bytes, "{:?}, {bytes} before", store.head().statistics());

    // One comes back: what it said before is read from its block.
    store.add(entry(&layout, 7, later + 1)).unwrap();
    store.commit().unwrap();
    let range = TimeRange { after: Timestamp::default(), until: Timestamp::from_millis(i64::MAX) };
    let selection = Selection { range, ..Selection::ALL };
    for (node, samples) in [(7, 2), (8, 1)] {
        let mut read = 0;
        let mut visitor = |_: NodeId, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
            read += samples.len();
            std::ops::ControlFlow::Continue(())
        };
        let reader = store.reader();
        let visited =
            reader.visit(&[NodeId(node)], &selection, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
        assert!(visited.unwrap().is_continue());
        assert_eq!(read, samples, "node {node}");
    }
}

#[test]
fn a_second_collector_on_the_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Store::open(directory.path(), options(), NOW).unwrap();
    let error = Store::open(directory.path(), options(), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Journal(belfry_common::journal::JournalError::Locked { .. })), "{error:?}");
}

//! A store that is encrypted: nothing of it can be read without its keys, and those can be changed.

use std::{fs, path::Path};

use belfry_common::model::{Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick};

use super::*;
use crate::{BlockError, Importer, ReadLimits, Sample, Selected, Selection, ShelfError, StoreFiles, TimeRange};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const NEEDLE: &str = "needle_in_a_haystack";

fn open(directory: &Path, keys: &[u8], now: Timestamp) -> Result<Store, StoreError> {
    let options = StoreOptions { keys: Keys::of(keys), segment_bytes: 4 * 1024, ..StoreOptions::default() };
    Store::open(directory, options, now).map(|(store, _)| store)
}

/// Adds a hundred batches after so many.
fn add(store: &mut Store, after: u64) {
    let metric = Arc::new(Metric::new(NEEDLE, Kind::Gauge, Resolution::ONE, &["place"], ""));
    let series = SeriesDefinition { metric, label_values: Box::new(["stack_of_needles".into()]) };
    let layout =
        Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series: Box::new([Arc::new(series)]) });
    for sequence in after + 1..=after + 100 {
        let time = NOW.plus_millis(sequence as i64 * 1000);
        let tick = Tick { layout: Arc::clone(&layout), time, values: vec![Raw::integer(sequence as i64)] };
        let key = BatchKey { epoch: Epoch(7), sequence };
        let batch = Arc::new(Batch { ticks: vec![tick] });
        store.add(Entry { node: NodeId(1), key, received: time, batch }).unwrap();
        store.commit().unwrap();
    }
}

fn values(store: &Store) -> Vec<f64> {
    let range = TimeRange { after: Timestamp::default(), until: Timestamp::from_millis(i64::MAX) };
    let selection = Selection { range, ..Selection::ALL };
    let mut values = Vec::new();
    let mut visitor = |_: NodeId, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
        values.extend(samples.iter().filter_map(|sample| sample.value.ok()));
        std::ops::ControlFlow::Continue(())
    };
    let visited =
        store.reader().visit(&[NodeId(1)], &selection, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
    assert!(visited.unwrap().is_continue());
    values
}

fn expected(count: u64) -> Vec<f64> {
    (1..=count).map(|sequence| sequence as f64).collect()
}

/// The files that have one of these words in them.
fn files_with_needles(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["journal", "blocks"] {
        for entry in fs::read_dir(directory.join(folder)).unwrap() {
            let content = fs::read(entry.as_ref().unwrap().path()).unwrap();
            let has = |word: &str| content.windows(word.len()).any(|window| window == word.as_bytes());
            if has(NEEDLE) || has("stack_of_needles") {
                found.push(folder.to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn nothing_is_in_the_files_that_can_be_read_without_the_keys() {
    for (keys, expected_files) in [(&[][..], vec!["blocks", "journal"]), (&[1], vec![])] {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path(), keys, NOW).unwrap();
        add(&mut store, 0);
        store.maintainer().flush(NOW).unwrap();
        assert_eq!(files_with_needles(directory.path()), expected_files);
        drop(store);
        let mut importer = Importer::open(directory.path(), &Keys::of(keys)).unwrap();
        let metric = Arc::new(Metric::new(NEEDLE, Kind::Gauge, Resolution::Float, &[], ""));
        let series = Arc::new(SeriesDefinition { metric, label_values: Box::default() });
        let number = importer.series(NodeId(2), series).unwrap();
        importer.add(number, Sample { time: NOW, value: Ok(7.0) }).unwrap();
        importer.finish(NOW, i64::MAX, &|_, _| Ok(())).unwrap();
        assert_eq!(files_with_needles(directory.path()), expected_files);
        assert_eq!(values(&open(directory.path(), keys, NOW).unwrap()), expected(100));
    }
}

#[test]
fn without_its_key_nothing_is_opened_or_touched() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path(), &[1], NOW).unwrap();
    add(&mut store, 0);
    drop(store);
    let error = open(directory.path(), &[2], NOW).unwrap_err();
    assert!(matches!(error, StoreError::Key { segment: 1, .. }), "{error}");
    let mut store = open(directory.path(), &[1], NOW).unwrap();
    add(&mut store, 100);
    store.maintainer().flush(NOW).unwrap();
    drop(store);
    for keys in [&[][..], &[2]] {
        let error = open(directory.path(), keys, NOW).unwrap_err();
        assert!(matches!(error, StoreError::Blocks(ShelfError::Block(BlockError::Key { .. }))), "{error}");
        let error = StoreFiles::open(directory.path(), &Keys::of(keys)).unwrap_err();
        assert!(matches!(error, BlockError::Key { .. }), "{error}");
    }
    let store = open(directory.path(), &[1], NOW).unwrap();
    assert_eq!((values(&store), store.log_statistics().unreadable), (expected(200), 0));
}

#[test]
fn keys_are_changed_while_there_are_files_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    // Each time in segments and blocks of all keys that there were, and of none at first.
    for (round, keys) in (0..).zip([&[][..], &[1], &[2, 1], &[3, 2, 1]]) {
        let mut store = open(directory.path(), keys, NOW).unwrap();
        add(&mut store, round * 100);
        store.maintainer().flush(NOW).unwrap();
        add(&mut store, round * 100 + 50);
        assert_eq!(values(&store), expected(round * 100 + 150));
    }
    let later = NOW.plus_millis(30 * 86_400_000);
    let mut store = open(directory.path(), &[3, 2, 1], later).unwrap();
    assert_eq!((values(&store), store.log_statistics().unreadable), (expected(450), 0));
    let maintainer = store.maintainer();
    maintainer.flush(later).unwrap();
    while maintainer.compact(later.plus_millis(86_400_000)).unwrap() {}
    assert!(store.blocks().iter().all(|block| block.key == Keys::of(&[3]).newest()), "{:?}", store.blocks());
    add(&mut store, 450);
    maintainer.flush(later).unwrap();
    store.cut(later.plus_millis(86_400_000)).unwrap();
    drop((store, maintainer));
    // What was encrypted with the others is gone.
    assert_eq!(values(&open(directory.path(), &[3], later).unwrap()), expected(550));
}

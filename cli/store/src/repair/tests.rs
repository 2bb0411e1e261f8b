use std::{
    cell::Cell,
    fs,
    io::Write as _,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use belfry_common::model::{
    Batch, BatchKey, Epoch, Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick, Timestamp,
};

use super::*;
use crate::{
    CompactOptions, Entry, Grain, MaintainOptions, NodeId, ReadLimits, Sample, Selected, Selection, Store, StoreFile,
    StoreOptions,
};

/// The beginning of an hour.
const START: Timestamp = Timestamp::from_millis(1_699_999_200_000);
const LATER: Timestamp = Timestamp::from_millis(1_699_999_200_000 + 10 * 3_600_000);

fn options() -> StoreOptions {
    let compact = CompactOptions { grace_ms: 0, quiet_ms: 0, ..CompactOptions::default() };
    StoreOptions { maintain: MaintainOptions { compact, ..MaintainOptions::default() }, ..StoreOptions::default() }
}

fn open(data: &Path) -> Store {
    let (store, recovery) = Store::open(data, options(), LATER).unwrap();
    assert!(recovery.is_clean(), "{recovery:?}");
    store
}

/// Adds a sample, one each minute, and puts it into a block of its own.
fn add(store: &mut Store, minutes: std::ops::RangeInclusive<u64>) {
    let metric = Arc::new(Metric::new("m", Kind::Gauge, Resolution::ONE, &[], ""));
    let series = Box::new([Arc::new(SeriesDefinition { metric, label_values: Box::default() })]);
    let layout = Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series });
    for minute in minutes {
        let time = START.plus_millis(minute as i64 * 60_000);
        let tick = Tick { layout: Arc::clone(&layout), time, values: vec![Raw::integer(minute as i64)] };
        let (key, batch) = (BatchKey { epoch: Epoch(7), sequence: minute }, Arc::new(Batch { ticks: vec![tick] }));
        store.add(Entry { node: NodeId(1), key, received: time, batch }).unwrap();
        store.commit().unwrap();
        store.maintainer().flush(time).unwrap();
    }
}

fn values(store: &Store, grain: Grain) -> Vec<f64> {
    let selection = Selection { grain, ..Selection::ALL };
    let mut values = Vec::new();
    let mut visitor = |_: NodeId, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
        values.extend(samples.iter().filter_map(|sample| sample.value.ok()));
        ControlFlow::Continue(())
    };
    let visited =
        store.reader().visit(&[NodeId(1)], &selection, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
    assert!(visited.unwrap().is_continue());
    values
}

fn repaired(data: &Path) -> Repaired {
    let (found, done) = (Cell::new(0), Cell::new(0));
    let progress = RepairProgress {
        found: &|bytes| found.set(bytes),
        done: &|bytes| {
            done.set(done.get() + bytes as u64);
            Ok(())
        },
    };
    let repaired = repair(data, &Keys::default(), progress).unwrap();
    assert!(done.get() <= found.get());
    repaired
}

fn block(data: &Path, number: u64) -> PathBuf {
    data.join(StoreFile::Block(number).path())
}

/// Flips a bit of the first page.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[66] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn quarantined(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("blocks/quarantine")).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn damage_goes_aside_with_a_word_on_what_is_lost_and_the_rest_stays() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut store = open(data);
    // One hour that is merged, with its rows; then two blocks that are not.
    add(&mut store, 1..=3);
    while store.maintainer().compact(LATER).unwrap() {}
    add(&mut store, 61..=62);
    let merged: Vec<Summary> = store.blocks().into_iter().filter(|block| block.is_final).collect();
    let of_tier = |tier| merged.iter().find(|block| block.tier == tier).unwrap().number;
    let newest = store.blocks().last().unwrap().number;
    drop(store);
    for number in [of_tier(Tier::Raw), of_tier(Tier::Hour)] {
        damage(&block(data, number));
    }
    fs::write(block(data, newest), "no block").unwrap();
    fs::write(data.join("blocks/00000000000000ff.tmp"), "half").unwrap();
    // What a crash leaves of a record.
    let segments = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.filter(|path| path.extension().is_some_and(|end| end == "journal")).max().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Disk::create(&data.join("journal")).unwrap());
    let name = segment.file_name().unwrap().to_str().unwrap();
    let number = belfry_common::journal::segment_number(name).unwrap();
    let end = belfry_common::journal::end_of_records(&*storage, number).unwrap().unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(end.into())).unwrap();
    file.write_all(b"torn").unwrap();

    let Repaired { journal, lost, unfinished, replaced, blocks } = repaired(data);
    assert_eq!(journal.torn.map(|torn| (torn.position.offset, torn.bytes)), Some((end, 4)));
    assert_eq!(unfinished, ["00000000000000ff.tmp"]);
    assert!(replaced.is_empty());
    let told = |of: &LostBlock| {
        let summary = of.summary.as_ref();
        (of.name.clone(), summary.map(|summary| (summary.tier, summary.readings)), of.covered_by.clone())
    };
    let expected = [
        (of_tier(Tier::Raw), Some((Tier::Raw, 3)), vec![Tier::Minute]),
        (of_tier(Tier::Hour), Some((Tier::Hour, 1)), vec![Tier::Minute]),
        (newest, None, vec![]),
    ];
    let mut expected = expected.map(|(number, summary, covered)| (shelf::block_name(number), summary, covered));
    let mut found: Vec<_> = lost.iter().map(told).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(quarantined(data).len(), 3);
    assert_eq!(blocks.len(), 2);

    // It starts, has what is left, and there is nothing more to be done.
    let again = repaired(data);
    assert!(again.lost.is_empty() && again.journal.is_clean() && again.unfinished.is_empty(), "{again:?}");
    let store = open(data);
    assert!(values(&store, Grain::Raw).ends_with(&[61.0, 62.0]), "the last one is in the journal still");
    assert_eq!(values(&store, Grain::Rows(Tier::Minute, crate::Aggregate::Last))[..3], [1.0, 2.0, 3.0]);
}

#[test]
fn what_a_damaged_block_has_replaced_comes_back_if_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut store = open(data);
    add(&mut store, 1..=2);
    let kept: Vec<(PathBuf, Vec<u8>)> =
        [1, 2].map(|number| (block(data, number), fs::read(block(data, number)).unwrap())).into();
    while store.maintainer().compact(LATER).unwrap() {}
    let raw = store.blocks().into_iter().find(|block| block.tier == Tier::Raw).unwrap();
    drop(store);
    // As if it had been killed before it could remove them.
    kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let whole = repaired(data);
    assert_eq!(whole.replaced, ["0000000000000001.block", "0000000000000002.block"]);
    assert!(whole.lost.is_empty() && !kept[0].0.exists());

    kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    damage(&block(data, raw.number));
    let rescued = repaired(data);
    assert_eq!(rescued.lost.iter().map(|lost| lost.name.clone()).collect::<Vec<_>>(), [shelf::block_name(raw.number)]);
    assert!(rescued.replaced.is_empty(), "{rescued:?}");
    assert_eq!(values(&open(data), Grain::Raw), [1.0, 2.0]);
}

#[test]
fn a_store_in_use_is_not_touched_nor_is_one_of_a_newer_program() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let progress = RepairProgress { found: &|_| (), done: &|_| Ok(()) };
    assert!(matches!(repair(data, &Keys::default(), progress), Err(RepairError::File(_))), "there is no store");
    let mut store = open(data);
    add(&mut store, 1..=2);
    assert!(matches!(repair(data, &Keys::default(), progress), Err(RepairError::InUse)));
    drop(store);
    let stopped = RepairProgress { done: &|_| Err(BlockError::Stopped), ..progress };
    assert!(matches!(repair(data, &Keys::default(), stopped), Err(RepairError::Block(BlockError::Stopped))));
    let mut newer = fs::read(block(data, 1)).unwrap();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(block(data, 1), newer).unwrap();
    damage(&block(data, 2));
    assert!(matches!(repair(data, &Keys::default(), progress), Err(RepairError::Block(BlockError::Version { .. }))));
    assert!(quarantined(data).is_empty(), "whoever has the wrong program has no damage");
}

use std::collections::BTreeMap;

use belfry_common::{
    model::{Kind, Reason},
    storage::simulated::{Fault, Simulated},
};

use super::*;
use crate::{Aggregate, Keys, Scan, StoreFiles, TimeRange};

const NOW: i64 = 1_700_000_000_000;
const HOURS: i64 = 30;

type Content = BTreeMap<(u32, String, String, i64), Vec<Result<f64, Option<Reason>>>>;

fn metric(name: &str) -> Arc<Metric> {
    let resolution = if name == "a" { Resolution::CENTI } else { Resolution::Float };
    Arc::new(Metric::new(name, Kind::Gauge, resolution, &["l"], ""))
}

/// Thirty hours of four series, one sample each ten minutes; one series after the other, and the hours of each backwards.
fn samples() -> Vec<((u32, &'static str, &'static str), Sample)> {
    let mut samples = Vec::new();
    for series in [(2, "b", "x"), (1, "a", "y"), (1, "a", "x"), (7, "a", "")] {
        for hour in (0..HOURS).rev() {
            for place in 0..6 {
                let time = Timestamp::from_millis(NOW - 48 * HOUR_MS + hour * HOUR_MS + place * 600_000);
                let value = match (hour, place) {
                    (3, 0) => Err(Some(Reason::Lost)),
                    (3, 1) => Err(None),
                    _ => Ok((hour * 7 + place) as f64 / 4.0),
                };
                samples.push((series, Sample { time, value }));
            }
        }
    }
    samples
}

/// Imports; all of it is older than samples are kept.
fn import(disk: &Simulated) -> Result<Imported, ImportError> {
    import_some(disk, |_| true)
}

fn import_some(disk: &Simulated, is_wanted: impl Fn(u32) -> bool) -> Result<Imported, ImportError> {
    let mut importer = Importer::open_in(Arc::new(disk.clone()), &Keys::default())?;
    let mut known = BTreeMap::new();
    for ((node, name, label), sample) in samples().into_iter().filter(|((node, ..), _)| is_wanted(*node)) {
        let number = match known.get(&(node, name, label)) {
            Some(&number) => number,
            None => {
                let definition = SeriesDefinition { metric: metric(name), label_values: [label.into()].into() };
                *known.entry((node, name, label)).or_insert(importer.series(NodeId(node), Arc::new(definition))?)
            }
        };
        assert!(importer.add(number, sample)?);
    }
    importer.finish(Timestamp::from_millis(NOW), HOUR_MS, &|_, _| Ok(()))
}

fn read(disk: &Simulated, tier: Tier) -> Content {
    let files = StoreFiles::open_in(&(Arc::new(disk.clone()) as Arc<dyn Storage>), &Keys::default()).unwrap();
    let nodes: Vec<NodeId> = files.nodes().unwrap().into_keys().collect();
    let mut content = Content::new();
    for metric in files.metrics().unwrap().keys() {
        let scan = Scan { metric, nodes: &nodes, filter: &|_| true, range: TimeRange::ALL, tier };
        let damaged = files.scan(&scan, &mut |node, definition, columns| {
            for (place, sample) in columns[0].iter().enumerate() {
                let key = (node.0, metric.clone(), definition.label_values[0].to_string(), sample.time.as_millis());
                let values = columns.iter().map(|column| column[place].value).collect();
                assert_eq!(content.insert(key, values), None);
            }
            std::ops::ControlFlow::Continue(())
        });
        assert!(damaged.unwrap().is_empty());
    }
    content
}

fn expected() -> Content {
    let key = |(node, name, label): (u32, &str, &str), sample: Sample| {
        (node, name.to_owned(), label.to_owned(), sample.time.as_millis())
    };
    samples().into_iter().map(|(series, sample)| (key(series, sample), vec![sample.value])).collect()
}

#[test]
fn what_is_imported_is_there_with_its_rows_and_once_however_often() {
    let disk = Simulated::new(1);
    let imported = import(&disk).unwrap();
    assert_eq!((imported.series, imported.samples), (4, 4 * HOURS as u64 * 6));
    let (raw, hours) = (read(&disk, Tier::Raw), read(&disk, Tier::Hour));
    assert_eq!(raw, expected());
    let sums: f64 = hours.values().filter_map(|row| row[Aggregate::Sum.column()].ok()).sum();
    let all: f64 = raw.values().filter_map(|values| values[0].ok()).sum();
    assert!((sums - all).abs() < 1e-6, "{sums} {all}");
    let files = StoreFiles::open_in(&(Arc::new(disk.clone()) as Arc<dyn Storage>), &Keys::default()).unwrap();
    let of = |tier| files.blocks().filter(|block| block.tier == tier).count();
    assert!(of(Tier::Raw) < 10 && of(Tier::Minute) > 0, "merged: {:?}", files.blocks().collect::<Vec<_>>());
    assert!(files.blocks().all(|block| block.is_final || block.tier != Tier::Raw));
    import(&disk).unwrap();
    assert_eq!((read(&disk, Tier::Raw), read(&disk, Tier::Hour)), (raw, hours));
}

#[test]
fn what_comes_file_by_file_has_the_same_rows() {
    let (at_once, by_node) = (Simulated::new(1), Simulated::new(2));
    import(&at_once).unwrap();
    for node in [2, 7, 1] {
        import_some(&by_node, |of| of == node).unwrap();
    }
    // A collector removes raw samples that are too old before it does anything else.
    for disk in [&at_once, &by_node] {
        let (shelf, _) = Shelf::open(Arc::new(disk.clone()), &Keys::default(), 1000).unwrap();
        let raw: Vec<u64> = shelf
            .blocks()
            .iter()
            .map(|block| block.summary())
            .filter(|of| of.tier == Tier::Raw)
            .map(|of| of.number)
            .collect();
        shelf.remove(&raw);
    }
    for tier in [Tier::Minute, Tier::Hour] {
        let rows = read(&at_once, tier);
        assert!(!rows.is_empty());
        assert_eq!(read(&by_node, tier), rows);
    }
}

#[test]
fn a_crash_leaves_whole_hours_and_the_next_import_the_rest() {
    let expected = expected();
    let mut crashes = 0;
    for operation in (1..2000).step_by(37) {
        let disk = Simulated::new(operation);
        disk.inject(operation, Fault::Crash);
        if import(&disk).is_ok() {
            break;
        }
        crashes += 1;
        disk.lose_power();
        disk.clear_faults();
        let mut by_hour: BTreeMap<i64, usize> = BTreeMap::new();
        for (key, values) in read(&disk, Tier::Raw) {
            assert_eq!(expected.get(&key), Some(&values));
            *by_hour.entry(hour_of(key.3)).or_default() += 1;
        }
        let all = |hour: i64| expected.keys().filter(|key| hour_of(key.3) == hour).count();
        assert!(by_hour.iter().all(|(&hour, &samples)| samples == all(hour)), "{by_hour:?}");
        import(&disk).unwrap();
        assert_eq!(read(&disk, Tier::Raw), expected);
        let left = Storage::list(&disk, "").unwrap().into_iter().filter(|entry| entry.name.ends_with(".tmp"));
        assert_eq!(left.count(), 0);
    }
    assert!(crashes > 3, "{crashes}");
}

#[test]
fn a_store_in_use_is_not_touched_and_values_between_two_steps_are_told() {
    let disk = Simulated::new(3);
    let mut importer = Importer::open_in(Arc::new(disk.clone()), &Keys::default()).unwrap();
    assert!(matches!(Importer::open_in(Arc::new(disk), &Keys::default()), Err(ImportError::InUse)));
    let definition = SeriesDefinition { metric: metric("a"), label_values: ["x".into()].into() };
    let number = importer.series(NodeId(1), Arc::new(definition)).unwrap();
    let mut add = |value| importer.add(number, Sample { time: Timestamp::from_millis(NOW), value: Ok(value) }).unwrap();
    assert!(add(0.25) && !add(0.125) && !add(f64::NAN));
}

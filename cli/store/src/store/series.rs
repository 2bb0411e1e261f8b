//! What a series is to whoever reads: where it ends, and when it is still the same.

use belfry_common::model::{Kind, Layout, Metric, Raw, Resolution, SeriesDefinition, Tick};

use super::{
    tests::{EPOCH, NOW, options},
    *,
};
use crate::{ReadLimits, Sample, Selected, Selection, TimeRange};

#[test]
fn a_series_that_ends_between_two_blocks_ends_on_disk_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { head: HeadOptions { window_ms: 1000, ..HeadOptions::default() }, ..options() };
    let (mut store, _) = Store::open(directory.path(), options, NOW).unwrap();
    let metric = Arc::new(Metric::new("up", Kind::Gauge, Resolution::ONE, &["d"], ""));
    let series =
        |device: &str| Arc::new(SeriesDefinition { metric: Arc::clone(&metric), label_values: [device.into()].into() });
    let layout = |devices: &[&str]| {
        let series = devices.iter().map(|device| series(device)).collect();
        Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series })
    };
    let (both, one) = (layout(&["a", "b"]), layout(&["a"]));
    for (sequence, layout) in [(1, &both), (2, &both), (3, &one), (4, &one), (5, &one)] {
        let time = NOW.plus_millis(sequence as i64 * 1000);
        let values = vec![Raw::integer(1); layout.series.len()];
        let batch = Arc::new(Batch { ticks: vec![Tick { layout: Arc::clone(layout), time, values }] });
        let key = BatchKey { epoch: EPOCH, sequence };
        store.add(Entry { node: NodeId(1), key, received: time, batch }).unwrap();
        store.commit().unwrap();
        if sequence != 3 {
            store.maintainer().flush(time).unwrap();
        }
    }
    assert_eq!(store.blocks().len(), 4, "one for each flush");
    let range = TimeRange { after: NOW, until: NOW.plus_millis(9000) };
    let filter = |series: &SeriesDefinition| &*series.label_values[0] == "b";
    let selection = Selection { filter: &filter, range, ..Selection::ALL };
    let mut values = Vec::new();
    let mut visitor = |_, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
        values.extend(samples.iter().map(|sample| (sample.time.millis_since(NOW) / 1000, sample.value)));
        std::ops::ControlFlow::Continue(())
    };
    let reader = store.reader();
    let visited = reader.visit(&[NodeId(1)], &selection, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
    assert!(visited.unwrap().is_continue());
    assert_eq!(values, [(1, Ok(1.0)), (2, Ok(1.0)), (3, Err(None))]);
}

#[test]
fn a_series_is_the_same_whatever_else_is_said_of_its_metric() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    // An agent of another version: another help, and then finer steps, which sort before the coarser ones in a block.
    let said = [(Resolution::ONE, "old", 7), (Resolution::ONE, "new", 7), (Resolution::Decimal(2), "new", 700)];
    let layout = |(resolution, help, _)| {
        let metric = Arc::new(Metric::new("up", Kind::Gauge, resolution, &["d"], help));
        let series = [Arc::new(SeriesDefinition { metric, label_values: ["a".into()].into() })];
        Arc::new(Layout { group: 1, sampler: "s".into(), interval_ms: 1000, series: series.into() })
    };
    let read = |store: &Store| {
        let mut all: Vec<Vec<(i64, f64)>> = Vec::new();
        let mut visitor = |_, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
            let second = |time: Timestamp| time.millis_since(NOW) / 1000;
            all.push(samples.iter().map(|sample| (second(sample.time), sample.value.unwrap())).collect());
            std::ops::ControlFlow::Continue(())
        };
        let (limits, mut selected) = (ReadLimits::NONE, Selected::default());
        let visited = store.reader().visit(&[NodeId(1)], &Selection::ALL, limits, &mut selected, &mut visitor);
        assert!(visited.unwrap().is_continue());
        all
    };
    let mut expected = Vec::new();
    for (sequence, said) in (1..).zip(said) {
        let (layout, time) = (layout(said), NOW.plus_millis(sequence * 1000));
        let batch = Arc::new(Batch { ticks: vec![Tick { layout, time, values: vec![Raw::integer(said.2)] }] });
        let key = BatchKey { epoch: EPOCH, sequence: sequence as u64 };
        store.add(Entry { node: NodeId(1), key, received: time, batch }).unwrap();
        store.commit().unwrap();
        expected.push((sequence, 7.0));
        assert_eq!(read(&store), [expected.clone()], "in memory");
    }
    let now = NOW.plus_millis(3 * 3_600_000);
    store.maintainer().flush(now).unwrap();
    assert_eq!(read(&store), [expected.clone()], "in memory and in a block");
    drop(store);
    let (store, _) = Store::open(directory.path(), options(), now).unwrap();
    assert_eq!(read(&store), [expected.clone()], "in a block");
    while store.maintainer().compact(now).unwrap() {}
    assert_eq!(read(&store), [expected], "merged");
}

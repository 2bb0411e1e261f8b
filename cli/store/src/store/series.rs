//! What a series is to whoever reads: where it ends, and when it is still the same.

use belfry_common::model::{Kind, Layout, Metric, Raw, Reason, Resolution, SeriesDefinition, Tick};

use super::{
    tests::{EPOCH, NOW, options},
    *,
};
use crate::{Pick, ReadLimits, Sample, Selected, Selection};

#[test]
fn a_series_that_ends_between_two_blocks_ends_on_disk_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { head: HeadOptions { window_ms: 1000, ..HeadOptions::default() }, ..options() };
    let (mut store, _) = Store::open(directory.path(), options, NOW).unwrap();
    let metric = Arc::new(Metric::new("up", Kind::Gauge, Resolution::ONE, &["d"], ""));
    let (both, one) = (layout(1, &metric, &["a", "b"]), layout(1, &metric, &["a"]));
    for (second, layout) in [(1, &both), (2, &both), (3, &one), (4, &one), (5, &one)] {
        add(&mut store, second, layout, 1);
        if second != 3 {
            store.maintainer().flush(NOW.plus_millis(second * 1000)).unwrap();
        }
    }
    assert_eq!(store.blocks().len(), 4, "one for each flush");
    let ended = vec![(1, Ok(1.0)), (2, Ok(1.0)), (3, Err(None))];
    assert_eq!(read(&store, Pick::All), [(1..6).map(|second| (second, Ok(1.0))).collect(), ended]);
}

#[test]
fn a_series_is_the_same_whatever_else_is_said_of_its_metric() {
    // An agent of another version: another help; then finer steps, which sort before the coarser ones in a block; then coarser ones again.
    let said = [(Resolution::ONE, "old", 7), (Resolution::ONE, "new", 7), (Resolution::Decimal(2), "new", 700)];
    let layouts = said.into_iter().chain([said[0]]).map(|(resolution, help, raw)| {
        let metric = Arc::new(Metric::new("up", Kind::Gauge, resolution, &["d"], help));
        (layout(1, &metric, &["a"]), raw)
    });
    is_one_series(layouts.enumerate().map(|(at, (layout, raw))| (1 + at as i64, layout, raw)));
}

#[test]
fn a_series_that_moves_to_another_group_is_the_same() {
    let metric = Arc::new(Metric::new("up", Kind::Gauge, Resolution::ONE, &["d"], ""));
    // Once another group says it, the first one begins with a layout that has it no more.
    let layouts = [(1, layout(1, &metric, &["a"])), (2, layout(2, &metric, &["a"])), (3, layout(1, &metric, &[]))];
    is_one_series(
        layouts.into_iter().chain([(4, layout(2, &metric, &["a"]))]).map(|(second, layout)| (second, layout, 7)),
    );
}

fn layout(group: u16, metric: &Arc<Metric>, devices: &[&str]) -> Arc<Layout> {
    let series = |device: &&str| {
        Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values: [(*device).into()].into() })
    };
    Arc::new(Layout { group, sampler: "s".into(), interval_ms: 1000, series: devices.iter().map(series).collect() })
}

/// Says that all series of a layout have this value.
fn add(store: &mut Store, second: i64, layout: &Arc<Layout>, raw: i64) {
    let time = NOW.plus_millis(second * 1000);
    let values = vec![Raw::integer(raw); layout.series.len()];
    let batch = Arc::new(Batch { ticks: vec![Tick { layout: Arc::clone(layout), time, values }] });
    let key = BatchKey { epoch: EPOCH, sequence: second as u64 };
    store.add(Entry { node: NodeId(1), key, received: time, batch }).unwrap();
    store.commit().unwrap();
}

/// Says that a series is 7 in those of these seconds that have it, and looks for that wherever it may be.
fn is_one_series(seconds: impl Iterator<Item = (i64, Arc<Layout>, i64)>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path(), options(), NOW).unwrap();
    let mut expected = Vec::new();
    for (second, layout, raw) in seconds {
        add(&mut store, second, &layout, raw);
        expected.extend(layout.series.first().map(|_| (second, Ok(7.0))));
        assert_eq!(read(&store, Pick::All), [expected.clone()], "in memory");
        assert_eq!(read(&store, Pick::Newest), [expected[expected.len() - 1..].to_vec()], "in memory");
    }
    let now = NOW.plus_millis(3 * 3_600_000);
    let is_there = |store: &Store, place: &str| {
        assert_eq!(read(store, Pick::All), [expected.clone()], "{place}");
        assert_eq!(read(store, Pick::Newest), [expected[expected.len() - 1..].to_vec()], "{place}");
    };
    store.maintainer().flush(now).unwrap();
    is_there(&store, "in memory and in a block");
    drop(store);
    let (store, _) = Store::open(directory.path(), options(), now).unwrap();
    is_there(&store, "in a block");
    while store.maintainer().compact(now).unwrap() {}
    is_there(&store, "merged");
}

/// What was read in a second.
type InSecond = (i64, Result<f64, Option<Reason>>);

/// All series.
fn read(store: &Store, pick: Pick) -> Vec<Vec<InSecond>> {
    let mut all = Vec::new();
    let mut visitor = |_, _: &Arc<SeriesDefinition>, samples: &[Sample]| {
        let second = |time: Timestamp| time.millis_since(NOW) / 1000;
        all.push(samples.iter().map(|sample| (second(sample.time), sample.value)).collect());
        std::ops::ControlFlow::Continue(())
    };
    let (limits, mut selected) = (ReadLimits::NONE, Selected::default());
    let selection = Selection { pick, ..Selection::ALL };
    let visited = store.reader().visit(&[NodeId(1)], &selection, limits, &mut selected, &mut visitor);
    assert!(visited.unwrap().is_continue());
    all
}

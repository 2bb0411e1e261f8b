use std::sync::Arc;

use belfry_common::model::{Kind, Layout, Metric, Raw, Resolution, Tick};
use proptest::prelude::*;

use super::*;
use crate::{
    Pick,
    selection::{Grain, TimeRange},
};

fn layout(devices: &[&str]) -> Arc<Layout> {
    let metrics = ["reads_total", "writes_total"]
        .map(|name| Arc::new(Metric::new(name, Kind::Counter, Resolution::CENTI, &["device"], "")));
    let series = devices
        .iter()
        .flat_map(|&device| metrics.iter().map(move |metric| (metric, device)))
        .map(|(metric, device)| SeriesDefinition {
            metric: Arc::clone(metric),
            label_values: Box::new([device.into()]),
        })
        .map(Arc::new)
        .collect();
    Arc::new(Layout { group: 1, sampler: "disk".into(), interval_ms: 1000, series })
}

fn apply(head: &Head, layout: &Arc<Layout>, second: i64, value: i64) {
    apply_to(head, 1, layout, second, value);
}

fn apply_to(head: &Head, node: u32, layout: &Arc<Layout>, second: i64, value: i64) {
    let values = vec![Raw::integer(value); layout.series.len()];
    let tick = Tick { layout: Arc::clone(layout), time: Timestamp::from_millis(second * 1000), values };
    // Long after all of them: no clock was ahead.
    let received = Timestamp::from_millis(1_000_000_000);
    head.apply(NodeId(node), &Batch { ticks: vec![tick] }, received);
    // As a store does: only what is in blocks may go.
    if second % 16 == 0 {
        head.mark_stored(&head.unstored());
    }
}

fn read(head: &Head, device: &str, after: i64, until: i64, pick: Pick) -> Vec<(i64, Option<i64>)> {
    let range = TimeRange { after: Timestamp::from_millis(after * 1000), until: Timestamp::from_millis(until * 1000) };
    let filter = |series: &SeriesDefinition| &*series.label_values[0] == device;
    let selection =
        Selection { metric: Some("reads_total"), conditions: &[], filter: &filter, range, pick, grain: Grain::Raw };
    let mut found = Selected::default();
    head.select(NodeId(1), &selection, &mut found);
    assert!(found.iter().count() <= 1, "one series at most: {found:?}");
    let samples = found.iter().flat_map(|(_, samples)| samples);
    samples
        .map(|sample| (sample.time.as_millis() / 1000, sample.value.ok().map(|value| (value * 100.0) as i64)))
        .collect()
}

fn head(window_s: i64, bytes_max: usize) -> Head {
    Head::new(HeadOptions { window_ms: window_s * 1000, bytes_max })
}

#[test]
fn the_window_is_kept_and_no_more_than_a_tile_beyond() {
    let (head, layout) = (head(100, usize::MAX), layout(&["a", "b"]));
    for second in 0..1000 {
        apply(&head, &layout, second, second);
    }
    let kept = read(&head, "a", -1, 2000, Pick::All);
    assert_eq!(kept.last(), Some(&(999, Some(999))));
    assert!(kept.len() > 100 && kept.len() <= 100 + 2 * 64, "{}", kept.len());
    assert!(kept.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "no hole");
    assert_eq!(read(&head, "a", 900, 905, Pick::All).len(), 5, "start excluded, end included");
    assert_eq!(read(&head, "a", 900, 905, Pick::Newest), [(905, Some(905))]);
    assert_eq!(read(&head, "a", 0, 2000, Pick::Newest), [(999, Some(999))]);
    assert_eq!(read(&head, "c", 0, 2000, Pick::All), []);
}

#[test]
fn what_is_read_seldom_stays_longer_and_is_known_to_be_all() {
    let head = head(100, usize::MAX);
    let often = layout(&["a"]);
    let metric = Arc::new(Metric::new("size_bytes", Kind::Gauge, Resolution::ONE, &[], ""));
    let series = [Arc::new(SeriesDefinition { metric, label_values: Box::default() })];
    let seldom = |sampler: &str| {
        let series = series.iter().cloned().collect();
        Arc::new(Layout { group: 2, sampler: sampler.into(), interval_ms: 10_000, series })
    };
    let (before, after) = (seldom("before"), seldom("after"));
    for second in 0..1000 {
        apply(&head, &often, second, second);
        if second % 10 == 0 {
            apply(&head, &before, second, second);
        }
    }
    let is_all = |metric, after: i64| {
        let range = TimeRange { after: Timestamp::from_millis(after * 1000), until: Timestamp::from_millis(999_000) };
        let selection = Selection { metric, range, ..Selection::ALL };
        head.select_beside_blocks(NodeId(1), &selection, &mut Selected::default())
    };
    assert!(is_all(Some("reads_total"), 899));
    assert!(!is_all(Some("reads_total"), 799));
    assert!(is_all(Some("size_bytes"), 799));
    assert!(!is_all(Some("size_bytes"), 499));
    assert!(!is_all(None, 799));
    // What went with another layout may have had any series.
    apply(&head, &after, 1000, 1000);
    assert!(is_all(Some("size_bytes"), 799));
    assert!(!is_all(Some("size_bytes"), 499));
    assert!(!is_all(Some("other"), 499));
}

#[test]
fn a_series_ends_when_its_device_goes_and_comes_back_with_it() {
    let head = head(1000, usize::MAX);
    let (both, one) = (layout(&["a", "b"]), layout(&["a"]));
    for (second, layout) in [(1, &both), (2, &one), (3, &one), (4, &both)] {
        apply(&head, layout, second, second);
    }
    assert_eq!(read(&head, "b", 0, 9, Pick::All), [(1, Some(1)), (2, None), (4, Some(4))]);
    assert_eq!(read(&head, "a", 0, 9, Pick::All).len(), 4);
}

#[test]
fn a_series_that_moves_to_another_group_is_one() {
    let head = head(1000, usize::MAX);
    let moved = Arc::new(Layout { group: 2, ..(*layout(&["a", "b"])).clone() });
    let without = layout(&["b"]);
    apply(&head, &layout(&["a", "b"]), 1, 1);
    apply(&head, &layout(&["a", "b"]), 5, 5);
    apply(&head, &moved, 7, 7);
    // Here it would have ended, did it not go on elsewhere.
    apply(&head, &without, 8, 8);
    let all = [(1, Some(1)), (5, Some(5)), (7, Some(7))];
    assert_eq!(read(&head, "a", 0, 9, Pick::All), all);
    assert_eq!(read(&head, "a", 0, 9, Pick::Newest), all[2..]);
    assert_eq!(read(&head, "a", 0, 5, Pick::Newest), all[1..2]);
    let steps = Pick::EachStep { end: Timestamp::from_millis(9000), step_ms: 3000 };
    assert_eq!(read(&head, "a", 0, 9, steps), all);
    assert_eq!(read(&head, "b", 0, 9, Pick::All), [all.as_slice(), &[(8, Some(8))]].concat());
    // There it ends.
    apply(&head, &Arc::new(Layout { group: 2, ..(*without).clone() }), 9, 9);
    assert_eq!(read(&head, "a", 0, 9, Pick::All), [all.as_slice(), &[(9, None)]].concat());
    // One that is not said by its former group since, and ends where it went.
    let node = |second, layout: &Arc<Layout>| apply_to(&head, 2, layout, second, second);
    [(1, &moved), (2, &layout(&["a", "b"])), (3, &layout(&["a", "b"])), (4, &without), (5, &without)]
        .into_iter()
        .for_each(|(second, layout)| node(second, layout));
    let newest = |until: i64| {
        let range = TimeRange { after: Timestamp::default(), until: Timestamp::from_millis(until * 1000) };
        let filter = |series: &SeriesDefinition| &*series.label_values[0] == "a";
        let metric = Some("reads_total");
        let selection = Selection { metric, filter: &filter, range, pick: Pick::Newest, ..Selection::ALL };
        let mut found = Selected::default();
        head.select(NodeId(2), &selection, &mut found);
        found.iter().flat_map(|(_, samples)| samples.last()).map(|sample| sample.value.is_ok()).collect::<Vec<_>>()
    };
    assert_eq!((newest(3), newest(4)), (vec![true], vec![false]));
    let everything = Selection { range: TimeRange::ALL, ..Selection::ALL };
    let mut found = Selected::default();
    head.select(NodeId(1), &everything, &mut found);
    assert_eq!(found.iter().count(), 4, "two metrics of two devices: {found:?}");
}

#[test]
fn late_ticks_are_read_in_their_place_and_do_not_become_the_newest() {
    let (head, layout) = (head(1000, usize::MAX), layout(&["a"]));
    for second in [1, 2, 10, 11, 3, 4, 12, 5, 6, 13] {
        apply(&head, &layout, second, second);
    }
    let times: Vec<i64> = read(&head, "a", 0, 99, Pick::All).into_iter().map(|(second, _)| second).collect();
    assert_eq!(times, [1, 2, 3, 4, 5, 6, 10, 11, 12, 13]);
    apply(&head, &layout, 7, 7);
    assert_eq!(read(&head, "a", 0, 99, Pick::Newest), [(13, Some(13))]);
    assert_eq!(read(&head, "a", 0, 4, Pick::Newest), [(4, Some(4))]);
}

#[test]
fn what_comes_late_with_other_metrics_is_found_by_these() {
    let (head, live) = (head(1000, usize::MAX), layout(&["a"]));
    let metric = Arc::new(Metric::new("size_bytes", Kind::Gauge, Resolution::ONE, &[], ""));
    let series = [Arc::new(SeriesDefinition { metric, label_values: Box::default() })].into();
    let before = Arc::new(Layout { group: 1, sampler: "disk".into(), interval_ms: 1000, series });
    apply(&head, &live, 500, 1);
    for second in 1..5 {
        apply(&head, &before, second, second);
    }
    let range = TimeRange { after: Timestamp::from_millis(0), until: Timestamp::from_millis(9000) };
    let selection = Selection { metric: Some("size_bytes"), range, ..Selection::ALL };
    let mut found = Selected::default();
    head.select(NodeId(1), &selection, &mut found);
    assert_eq!(found.iter().map(|(_, samples)| samples.len()).sum::<usize>(), 4);
}

#[test]
fn a_clock_that_is_set_back_does_not_hide_the_present() {
    let (head, layout) = (head(1000, usize::MAX), layout(&["a"]));
    let apply = |second: i64, received: i64, value| {
        let values = vec![Raw::integer(value); layout.series.len()];
        let tick = Tick { layout: Arc::clone(&layout), time: Timestamp::from_millis(second * 1000), values };
        head.apply(NodeId(1), &Batch { ticks: vec![tick] }, Timestamp::from_millis(received * 1000));
    };
    apply(800, 500, 1);
    assert_eq!(read(&head, "a", 0, 1000, Pick::Newest), [(800, Some(1))]);
    apply(501, 501, 2);
    assert_eq!(read(&head, "a", 0, 1000, Pick::Newest), [(501, Some(2))]);
    // Backlog says nothing about now.
    apply(400, 502, 3);
    assert_eq!(read(&head, "a", 0, 1000, Pick::Newest), [(501, Some(2))]);
}

#[test]
fn memory_is_bounded_and_the_newest_value_survives() {
    let (head, layout) = (head(100_000, 20_000), layout(&["a", "b", "c", "d"]));
    for second in 0..10_000 {
        apply(&head, &layout, second, second * 7919 % 1_000_003);
    }
    let statistics = head.statistics();
    assert!(statistics.bytes < 40_000, "{statistics:?}");
    assert!(statistics.ticks_evicted > 0, "{statistics:?}");
    assert_eq!(read(&head, "a", 0, 99_999, Pick::Newest).len(), 1);
    head.remove(NodeId(1));
    assert_eq!(head.statistics().bytes, 0, "what was counted in is counted out");
}

/// A node whose layout is another one with each batch fills memory in no time.
#[test]
fn what_one_node_makes_costs_the_others_nothing() {
    let head = Head::new(HeadOptions { window_ms: 1_000_000_000, bytes_max: 400_000 });
    let quiet = layout(&["a", "b", "c", "d"]);
    for node in 2..6 {
        for second in 0..1_000 {
            apply_to(&head, node, &quiet, second, second);
        }
    }
    let history = |node: u32| {
        let range = TimeRange { after: Timestamp::from_millis(-1), until: Timestamp::from_millis(1_000_000_000) };
        let selection = Selection { range, ..Selection::ALL };
        let mut found = Selected::default();
        head.select(NodeId(node), &selection, &mut found);
        found.iter().map(|(_, samples)| samples.len()).sum::<usize>()
    };
    let before = history(2);
    let names: Vec<String> = (0..500).map(|place| format!("device {place}")).collect();
    for second in 0..2_000 {
        let some: Vec<&str> = names.iter().skip((second % 2) as usize).map(String::as_str).collect();
        apply_to(&head, 1, &layout(&some), second, 1);
        head.mark_stored(&head.unstored());
    }
    let statistics = head.statistics();
    assert!(statistics.bytes < 500_000, "{statistics:?}");
    assert!(statistics.ticks_evicted > 0, "{statistics:?}");
    assert_eq!(history(2), before);
}

proptest! {
    #[test]
    fn a_tile_gives_back_what_it_took(values in proptest::collection::vec(-100_000..100_000_i64, 1..300)) {
        let (head, layout) = (head(1000, usize::MAX), layout(&["a"]));
        for (second, &value) in (1..).zip(&values) {
            apply(&head, &layout, second, value);
        }
        let read: Vec<i64> = read(&head, "a", 0, 9999, Pick::All).into_iter().map(|(_, value)| value.unwrap()).collect();
        for (got, want) in read.iter().zip(&values) {
            prop_assert!((got - want).abs() <= 1, "{} for {}", got, want);
        }
        prop_assert_eq!(read.len(), values.len());
    }
}

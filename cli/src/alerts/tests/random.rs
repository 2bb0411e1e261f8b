//! Random histories: whatever happens, the stream of events tells a story that can be true.

use std::collections::BTreeMap;
use std::sync::Arc;

use belfry_promql::{Labels, STALE_NAN};
use proptest::prelude::*;

use super::super::event::{EventKind, Previous};
use super::super::fingerprint::Fingerprint;
use super::super::json::Time;
use super::super::*;
use super::file;
use super::world::{World, series};

const RULES: &str = "{alert: Now, expr: a > 5}
    {alert: Held, expr: a > 5, for: 3s, labels: {severity: '{{ $value }}'}}
    {alert: Kept, expr: a > 5, for: 1s, keep_firing_for: 3s}
    {alert: Ratio, expr: a / b > 5}
    {alert: Sum, expr: sum(a) > 10, for: 2s}
    {alert: Ended, expr: a > 5, annotations: {belfry_no_data: ok}}";

const OTHER_RULES: &str = "{alert: Now, expr: a > 7, for: 1s}
    {alert: Kept, expr: a > 5, keep_firing_for: 1s}
    {alert: Sum, expr: sum(a) > 20}
    {alert: New, expr: b > 5}";

/// What happens in a second, beside samples.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Nothing,
    Crash,
    Restart,
    Reload(bool),
    Forget,
}

type Second = (Act, [Option<f64>; 4]);

fn value() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        3 => Just(None),
        4 => Just(Some(9.0)),
        2 => Just(Some(8.0)),
        3 => Just(Some(1.0)),
        1 => Just(Some(STALE_NAN)),
        1 => Just(Some(f64::NAN)),
        1 => Just(Some(f64::INFINITY)),
    ]
}

fn second() -> impl Strategy<Value = Second> {
    let act = prop_oneof![
        20 => Just(Act::Nothing),
        1 => Just(Act::Crash),
        1 => Just(Act::Restart),
        1 => any::<bool>().prop_map(Act::Reload),
        1 => Just(Act::Forget),
    ];
    (act, [value(), value(), value(), value()])
}

fn samples(values: [Option<f64>; 4]) -> Vec<(Labels, Option<f64>)> {
    let names = ["a{instance=n1}", "a{instance=n2}", "b{instance=n1}", "b{instance=n2}"];
    names.into_iter().map(|name| series(name).0).zip(values).collect()
}

fn play(world: &mut World, (act, values): Second) {
    match act {
        Act::Nothing => {}
        Act::Crash => world.is_up = false,
        Act::Restart => world.restart(),
        Act::Reload(_) | Act::Forget if !world.is_up => {}
        Act::Reload(other) => world.reload(&file(if other { OTHER_RULES } else { RULES })),
        Act::Forget => {
            world.former.clear();
            let outcome = world.engine.forget_node("n1", world.now_ms());
            world.keep(outcome);
        }
    }
    world.step(&samples(values));
}

/// All alerts, less when each condition was last seen to hold: an engine that has just started looks at everything
/// once.
fn standing(world: &World) -> Vec<AlertRecord> {
    let record = |record| AlertRecord { held_at_ms: 0, ..record };
    world.engine.export().into_iter().map(record).collect()
}

/// Checks one alert's events: states follow each other, and an episode is one thing.
fn check_story(events: &[&Event]) -> Result<(), TestCaseError> {
    let mut episode: Option<&Event> = None;
    let mut time = Time(0);
    for event in events {
        prop_assert!(event.time >= time, "time goes back: {event:?}");
        time = event.time;
        let state = episode.map_or(Previous::Inactive, |last| match last.event {
            EventKind::Pending => Previous::Pending,
            _ => Previous::Firing,
        });
        prop_assert_eq!(event.previous, Some(state), "{:?}", event);
        match event.event {
            EventKind::Pending => prop_assert_eq!(state, Previous::Inactive),
            EventKind::Firing => prop_assert_ne!(state, Previous::Firing),
            EventKind::Resolved => prop_assert_ne!(state, Previous::Inactive),
            EventKind::Heartbeat => prop_assert!(false, "a heartbeat among alerts"),
        }
        if let Some(last) = episode {
            prop_assert_eq!((&last.starts_at, &last.dedup_key), (&event.starts_at, &event.dedup_key));
        }
        prop_assert!(event.starts_at.is_some_and(|starts_at| starts_at <= event.time));
        prop_assert_eq!(event.ends_at.is_some(), event.event == EventKind::Resolved);
        prop_assert!(event.ends_at.is_none_or(|ends_at| event.starts_at <= Some(ends_at)));
        episode = Some(*event).filter(|event| event.event != EventKind::Resolved);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn events_tell_a_story_that_can_be_true(seconds in prop::collection::vec(second(), 1..60)) {
        let mut world = World::new(&file(RULES));
        for second in seconds {
            play(&mut world, second);
        }
        let mut stories: BTreeMap<(String, Fingerprint), Vec<&Event>> = BTreeMap::new();
        for event in &world.events {
            let key = (event.rule.clone().expect("a rule"), event.fingerprint.expect("a fingerprint"));
            stories.entry(key).or_default().push(event);
        }
        for events in stories.values() {
            check_story(events)?;
        }
        // What the stream says stands is what stands.
        let open = stories.values().filter(|events| events.last().is_some_and(|e| e.event != EventKind::Resolved));
        prop_assert_eq!(open.count(), world.durable.len());
    }

    #[test]
    fn a_restored_engine_is_the_same_and_goes_on_the_same(
        before in prop::collection::vec([value(), value(), value(), value()], 1..30),
        after in prop::collection::vec([value(), value(), value(), value()], 1..30),
    ) {
        let mut world = World::new(&file(RULES));
        before.into_iter().for_each(|values| world.step(&samples(values)));
        let records = world.engine.export();
        let json = serde_json::to_string(&records).expect("JSON");
        let read: Vec<AlertRecord> = serde_json::from_str(&json).expect("records");
        prop_assert_eq!(&read, &records);

        let mut twin = World::new(&file(RULES));
        twin.engine = Engine::new(Arc::clone(&world.rules), world.options.clone(), world.now_ms());
        let outcome = twin.engine.restore(read, None, world.now_ms());
        prop_assert_eq!(outcome, Outcome::default());
        prop_assert_eq!(twin.engine.export(), records);
        (twin.second, twin.store, twin.durable) = (world.second, world.store.clone(), world.durable.clone());
        (world.events, world.log) = (Vec::new(), String::new());
        for values in after {
            world.step(&samples(values));
            twin.step(&samples(values));
        }
        prop_assert_eq!(&world.log, &twin.log);
        prop_assert_eq!(standing(&world), standing(&twin));
    }
}

//! Random operations against a list of records.

use proptest::prelude::*;

use super::*;

/// What happens next: a step, or the disk changes its mood.
#[derive(Debug, Clone, Copy)]
enum Event {
    Step(Step),
    /// Leaves so many bytes free from now on, or again any number.
    Room(Option<u64>),
    ShortWrites(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (1_usize..900).prop_map(|bytes| Event::Step(Step::Append(bytes))),
        3 => Just(Event::Step(Step::Flush)),
        4 => Just(Event::Step(Step::Sync)),
        2 => Just(Event::Step(Step::Roll)),
        2 => Just(Event::Step(Step::RemoveOldest)),
        1 => Just(Event::Step(Step::Reopen)),
        1 => Just(Event::Step(Step::Kill)),
        2 => Just(Event::Step(Step::LosePower)),
        1 => (0_u64..2000).prop_map(|bytes| Event::Room(Some(bytes))),
        2 => Just(Event::Room(None)),
        1 => any::<bool>().prop_map(Event::ShortWrites),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_run_keeps_what_it_promised(
        events in prop::collection::vec(event(), 1..60),
        seed in any::<u64>(),
        segment_bytes in 40_u32..3000,
        buffer_bytes in 0_usize..2000,
        preallocate in any::<bool>(),
    ) {
        let mut owner = Owner::new(seed, Options { segment_bytes, buffer_bytes, preallocate });
        for event in events {
            match event {
                Event::Step(step) => match owner.step(step) {
                    Ok(()) | Err(JournalError::Full(_)) => {}
                    Err(error) => panic!("{error:?}"),
                },
                Event::Room(room) => {
                    let names = owner.disk.names();
                    let files = names.iter().filter_map(|name| owner.disk.contents(name));
                    let used: usize = files.map(|content| content.len()).sum();
                    owner.disk.limit_bytes(room.map(|room| used as u64 + room));
                }
                Event::ShortWrites(short) => owner.disk.write_short(short),
            }
            if let Some(journal) = &owner.journal {
                let segments = journal.segments();
                let records: u64 = segments.iter().map(|segment| segment.records).sum();
                assert_eq!(records, owner.records.len() as u64);
                assert_eq!(segments.iter().map(|segment| segment.bytes).sum::<u64>(), journal.bytes());
            }
        }
        owner.disk.limit_bytes(None);
        owner.finish();
    }

    #[test]
    fn reading_from_any_record_serves_the_rest(
        sizes in prop::collection::vec(1_usize..400, 1..40),
        from in any::<prop::sample::Index>(),
    ) {
        let mut owner = Owner::new(1, SMALL);
        for bytes in sizes {
            owner.step(Step::Append(bytes)).unwrap();
        }
        owner.step(Step::Flush).unwrap();
        let from = from.index(owner.records.len());
        let position = owner.records[from].0;
        let mut reader = owner.journal().read(position).unwrap();
        for (position, payload) in &owner.records[from..] {
            let record = reader.next_record().unwrap().expect("a flushed record is served");
            prop_assert_eq!((record.position, record.payload), (*position, payload.as_slice()));
        }
        prop_assert_eq!(reader.next_record().unwrap(), None);
    }
}

//! Bits flip, files shrink, vanish, appear: the rest is served, the evidence is kept, it always starts.

use std::ops::Range;

use super::*;
use crate::journal::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, segment_name};
use crate::journal::{Damage, DamageKind, Evidence, Torn, end_of_records};
use crate::storage::simulated::{EIO, Fault};

use Step::{Append, RemoveOldest, Roll, Sync};

const OLDER: u64 = 2;
const NEWEST: u64 = 3;

/// Three segments. The newest has two groups of two records, each group synced.
fn written(options: Options) -> Owner {
    let mut owner = Owner::new(1, options);
    for step in [Append(9), Append(20), Sync, Append(15), Roll, Append(30), Sync, Append(8), Append(17), Roll] {
        owner.step(step).unwrap();
    }
    for step in [Append(10), Append(21), Sync, Append(12), Append(9), Sync] {
        owner.step(step).unwrap();
    }
    owner.journal = None;
    owner
}

/// A copy of the disk with one file changed.
fn tampered(owner: &Owner, number: u64, tamper: impl FnOnce(&mut Vec<u8>)) -> Simulated {
    let mut bytes = owner.disk.contents(&segment_name(number)).unwrap();
    tamper(&mut bytes);
    // Another fate for each.
    let disk = Simulated::new(u64::from(crc32c::crc32c(&bytes)));
    for name in owner.disk.names() {
        disk.put(&name, &owner.disk.contents(&name).unwrap());
    }
    disk.put(&segment_name(number), &bytes);
    disk
}

/// Where the records of a segment are in its file.
fn ranges(owner: &Owner, number: u64) -> Vec<Range<usize>> {
    let of_segment = owner.records.iter().filter(|(position, _)| position.segment == number);
    of_segment
        .map(|(position, payload)| {
            let start = position.offset as usize;
            start..start + RECORD_HEADER_BYTES as usize + payload.len()
        })
        .collect()
}

/// Opens, and checks that exactly the first `kept` records of segment `number` are served, all of the others, and
/// that the journal goes on from there.
fn check(owner: &Owner, disk: &Simulated, number: u64, kept: usize) -> Recovery {
    let (mut journal, recovery) = open(disk, owner.options).expect("it always starts");
    let mut in_segment = 0;
    let mut expected = owner.records.clone();
    expected.retain(|(position, _)| {
        in_segment += usize::from(position.segment == number);
        position.segment != number || in_segment <= kept
    });
    assert_eq!(read_all(&journal), expected);

    let end = journal.end();
    expected.push((end, b"later".to_vec()));
    assert_eq!(journal.append(b"later").unwrap(), end);
    journal.sync().unwrap();
    drop(journal);
    disk.lose_power();
    let (journal, again) = open(disk, owner.options).unwrap();
    assert_eq!(read_all(&journal), expected);
    assert!(again.is_clean(), "{again:?} after {recovery:?}");
    recovery
}

fn assert_evidence(disk: &Simulated, recovery: &Recovery, kind: DamageKind, position: Position, evidence: &[u8]) {
    let name = segment_name(position.segment);
    let expected = Damage { position, kind, evidence: Evidence::Quarantined(name.clone()) };
    assert_eq!(recovery.damages, [expected]);
    assert_eq!(recovery.torn, None);
    assert_eq!((recovery.quarantine_files, recovery.quarantine_bytes), (1, evidence.len() as u64));
    assert_eq!(disk.contents(&format!("quarantine/{name}")).unwrap(), evidence);
}

fn option_variants() -> [Options; 2] {
    [Options { segment_bytes: 400, ..SMALL }, Options { preallocate: false, ..SMALL }]
}

#[test]
fn a_flipped_bit_costs_the_records_from_there_on_in_its_segment() {
    for options in option_variants() {
        let owner = written(options);
        for number in 1..=NEWEST {
            let ranges = ranges(&owner, number);
            let bytes = owner.disk.contents(&segment_name(number)).unwrap().len();
            for (at, bit) in (0..bytes).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut evidence = Vec::new();
                let disk = tampered(&owner, number, |bytes| {
                    bytes[at] ^= 1 << bit;
                    evidence.clone_from(bytes);
                });
                if at < SEGMENT_HEADER_BYTES as usize {
                    let recovery = check(&owner, &disk, number, 0);
                    let position = Position::segment_start(number);
                    assert_evidence(&disk, &recovery, DamageKind::Header, position, &evidence);
                    continue;
                }
                let kept = ranges.iter().filter(|range| range.end <= at).count();
                let recovery = check(&owner, &disk, number, kept);
                let offset = if kept == 0 { SEGMENT_HEADER_BYTES } else { ranges[kept - 1].end as u32 };
                let position = Position { segment: number, offset };
                let kind = match (number, kept) {
                    (NEWEST, 0 | 1) => DamageKind::Record,
                    (NEWEST, 2) => DamageKind::Hole,
                    (NEWEST, _) => {
                        assert_eq!(recovery.torn.unwrap().position, position);
                        assert!(recovery.damages.is_empty());
                        continue;
                    }
                    _ => DamageKind::Record,
                };
                assert_evidence(&disk, &recovery, kind, position, &evidence);
            }
        }
    }
}

#[test]
fn bytes_of_any_value_are_never_served_as_a_record() {
    let owner = written(option_variants()[0]);
    for number in 1..=NEWEST {
        let bytes = owner.disk.contents(&segment_name(number)).unwrap().len();
        for at in 0..bytes {
            for value in [0x00, 0xff, 0x55] {
                let disk = tampered(&owner, number, |bytes| bytes[at..].fill(value));
                let (journal, _) = open(&disk, owner.options).expect("it always starts");
                let served = read_all(&journal);
                assert!(served.iter().all(|record| owner.records.contains(record)));
                assert!(served.is_sorted_by_key(|(position, _)| *position));
            }
        }
    }
}

#[test]
fn the_newest_segment_cut_at_every_byte_is_torn() {
    for options in option_variants() {
        let owner = written(options);
        let ranges = ranges(&owner, NEWEST);
        let bytes = owner.disk.contents(&segment_name(NEWEST)).unwrap().len();
        for length in 0..bytes {
            let disk = tampered(&owner, NEWEST, |bytes| bytes.truncate(length));
            let kept = ranges.iter().filter(|range| range.end <= length).count();
            let recovery = check(&owner, &disk, NEWEST, kept);
            assert_eq!(recovery.damages, []);
            let offset = match kept {
                0 if length < SEGMENT_HEADER_BYTES as usize => 0,
                0 => SEGMENT_HEADER_BYTES,
                _ => ranges[kept - 1].end as u32,
            };
            let is_whole = length == offset as usize && offset != 0 || length >= ranges.last().unwrap().end;
            assert_eq!(recovery.torn.is_none(), is_whole, "at {length}");
            if let Some(torn) = recovery.torn {
                assert_eq!(torn.position, Position { segment: NEWEST, offset });
            }
        }
    }
}

#[test]
fn where_a_segment_may_be_cut_is_told_unless_records_would_go() {
    for options in option_variants() {
        let owner = written(options);
        let ranges = ranges(&owner, NEWEST);
        let end_of = |tamper: &dyn Fn(&mut Vec<u8>)| {
            let end = end_of_records(&tampered(&owner, NEWEST, tamper), NEWEST).unwrap();
            end.map(|end| end as usize)
        };
        let all = ranges.last().unwrap().end;
        assert_eq!(end_of(&|_| ()), Some(all));
        for cut in SEGMENT_HEADER_BYTES as usize..all {
            let kept = ranges.iter().rev().map(|range| range.end).find(|end| *end <= cut);
            let expected = kept.unwrap_or(SEGMENT_HEADER_BYTES as usize);
            assert_eq!(end_of(&|bytes| bytes.truncate(cut)), Some(expected), "cut at {cut}");
        }
        for (number, range) in ranges.iter().enumerate() {
            let expected = (number + 1 == ranges.len()).then_some(range.start);
            assert_eq!(end_of(&|bytes| bytes[range.start + 17] ^= 1), expected, "flipped in record {number}");
        }
        assert_eq!(end_of(&|bytes| bytes[9] ^= 1), None);
    }
}

#[test]
fn an_older_segment_cut_at_every_byte_is_damaged() {
    let owner = written(option_variants()[0]);
    let ranges = ranges(&owner, OLDER);
    let bytes = owner.disk.contents(&segment_name(OLDER)).unwrap().len();
    for length in 0..bytes {
        let disk = tampered(&owner, OLDER, |bytes| bytes.truncate(length));
        let kept = ranges.iter().filter(|range| range.end <= length).count();
        let recovery = check(&owner, &disk, OLDER, kept);
        let [damage] = recovery.damages.as_slice() else { panic!("{recovery:?}") };
        let is_boundary = length == SEGMENT_HEADER_BYTES as usize || ranges.iter().any(|range| range.end == length);
        let kind = match length {
            0..32 => DamageKind::Header,
            _ if is_boundary => DamageKind::Shortened,
            _ => DamageKind::Record,
        };
        assert_eq!(damage.kind, kind, "at {length}");
    }
}

#[test]
fn an_older_segment_that_ends_in_zeros_is_damaged() {
    let owner = written(option_variants()[0]);
    let ranges = ranges(&owner, OLDER);
    let disk = tampered(&owner, OLDER, |bytes| bytes[ranges[1].start..].fill(0));
    let recovery = check(&owner, &disk, OLDER, 1);
    assert_eq!(recovery.damages[0].kind, DamageKind::Shortened);
}

#[test]
fn each_file_may_be_deleted() {
    let owner = written(SMALL);
    for number in 1..=NEWEST {
        let disk = tampered(&owner, number, |_| {});
        assert!(disk.delete(&segment_name(number)));
        let (journal, recovery) = open(&disk, owner.options).expect("it always starts");
        let mut expected = owner.records.clone();
        expected.retain(|(position, _)| position.segment != number);
        assert_eq!(read_all(&journal), expected);
        let missing = Damage {
            position: Position::segment_start(number),
            kind: DamageKind::Missing { through: number },
            evidence: Evidence::Nothing,
        };
        // A missing first or last segment looks like a removal, or like one that never was.
        assert_eq!(recovery.damages, if number == OLDER { vec![missing] } else { vec![] });
    }
}

#[test]
fn a_file_that_is_another_segment_serves_nothing() {
    let owner = written(SMALL);
    let first = owner.disk.contents(&segment_name(1)).unwrap();
    for number in [OLDER, NEWEST, 9] {
        let disk = tampered(&owner, 1, |_| {});
        disk.put(&segment_name(number), &first);
        let (journal, recovery) = open(&disk, owner.options).unwrap();
        let mut expected = owner.records.clone();
        expected.retain(|(position, _)| position.segment != number);
        assert_eq!(read_all(&journal), expected);
        assert!(
            recovery.damages.iter().any(|damage| {
                damage.kind == DamageKind::Header && damage.position == Position::segment_start(number)
            })
        );
        assert_eq!(journal.end().segment, number.max(NEWEST) + u64::from(number >= NEWEST), "no number is used again");
    }
}

#[test]
fn foreign_names_are_left_alone() {
    let owner = written(SMALL);
    let disk = tampered(&owner, 1, |_| {});
    let foreign = [
        "00.journal",
        "README",
        "ffffffffffffffff.journal",
        "000000000000000A.journal",
        "0000000000000001.journal.bak",
    ];
    for name in foreign {
        disk.put(name, b"not ours");
    }
    let (journal, recovery) = open(&disk, owner.options).unwrap();
    assert_eq!((recovery.foreign, recovery.is_clean()), (foreign.len() as u64, true));
    assert_eq!(read_all(&journal), owner.records);
    assert!(foreign.iter().all(|name| disk.contents(name).unwrap() == b"not ours"));
}

#[test]
fn the_last_number_is_refused_and_nothing_is_lost() {
    let owner = written(SMALL);
    let disk = tampered(&owner, 1, |_| {});
    disk.put("0000ffffffffffff.journal", b"not ours");
    assert!(matches!(open(&disk, SMALL), Err(JournalError::NumbersUsedUp { .. })));
    assert_eq!(disk.contents("quarantine/0000ffffffffffff.journal").unwrap(), b"not ours");
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let owner = written(SMALL);
    for number in 1..=NEWEST {
        let disk = tampered(&owner, number, |bytes| {
            bytes[8] = 2;
            let check = crc32c::crc32c(&bytes[..28]);
            bytes[28..32].copy_from_slice(&check.to_le_bytes());
        });
        // Something to repair, which must not happen.
        disk.put(&segment_name(9), b"not ours");
        let before: Vec<_> = disk.names().iter().map(|name| disk.contents(name)).collect();
        let error = open(&disk, SMALL).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`/simulated/{}` has journal format 2, and this program knows formats up to 1: install the newer \
                 program again, or move the directory away to start without its data",
                segment_name(number)
            )
        );
        let after: Vec<_> = disk.names().iter().map(|name| disk.contents(name)).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn an_interrupted_creation_is_completed() {
    let owner = written(SMALL);
    for content in [&b""[..], b"BEL", b"BELFRYJ\n\x01\x00\x00\x00", &[0; 5], &[0; 2000]] {
        let disk = tampered(&owner, 1, |_| {});
        disk.put(&segment_name(NEWEST + 1), content);
        let (journal, recovery) = open(&disk, SMALL).unwrap();
        assert_eq!(read_all(&journal), owner.records);
        assert_eq!(recovery.torn, Some(Torn { position: Position::segment_start(NEWEST + 1), bytes: 0 }));
        assert_eq!((recovery.damages.len(), journal.end().segment), (0, NEWEST + 1));
    }
}

#[test]
fn damage_that_cannot_be_copied_stays_in_place_until_it_is_removed() {
    let owner = written(Options { preallocate: false, ..SMALL });
    for number in [1, OLDER, NEWEST] {
        let mut evidence = Vec::new();
        let disk = tampered(&owner, number, |bytes| {
            bytes[SEGMENT_HEADER_BYTES as usize + 5] ^= 1;
            evidence.clone_from(bytes);
        });
        let used: usize = disk.names().iter().map(|name| disk.contents(name).unwrap().len()).sum();
        disk.limit_bytes(Some(used as u64 + 40));
        let (mut journal, recovery) = open(&disk, owner.options).expect("a full disk does not keep it from starting");
        let [damage] = recovery.damages.as_slice() else { panic!("{recovery:?}") };
        assert_eq!(damage.evidence, Evidence::InPlace);
        assert_eq!(disk.contents(&segment_name(number)).unwrap(), evidence);
        let mut expected = owner.records.clone();
        expected.retain(|(position, _)| position.segment != number);
        assert_eq!(read_all(&journal), expected);

        disk.limit_bytes(None);
        journal.roll().unwrap();
        journal.remove_through(number).unwrap();
        assert_eq!(disk.contents(&segment_name(number)), None);
        let moved = format!("quarantine/{}", segment_name(number));
        assert_eq!(disk.contents(&moved).unwrap(), evidence);
        drop(journal);
        disk.lose_power();
        assert!(open(&disk, owner.options).unwrap().1.is_clean());
        assert_eq!(disk.contents(&moved).unwrap(), evidence);
    }
}

#[test]
fn a_segment_that_cannot_be_read_is_not_cut() {
    let owner = written(SMALL);
    let mut unreadable = 0;
    for nth in 1..60 {
        let disk = tampered(&owner, 1, |_| {});
        disk.inject(nth, Fault::Error(EIO));
        if let Ok((journal, recovery)) = open(&disk, owner.options) {
            unreadable += recovery.damages.iter().filter(|damage| damage.kind == DamageKind::Unreadable).count();
            let served = read_all(&journal);
            assert!(served == owner.records || !recovery.damages.is_empty());
        }
        disk.clear_faults();
        disk.lose_power();
        let (journal, recovery) = open(&disk, owner.options).unwrap();
        assert_eq!((read_all(&journal), recovery.is_clean()), (owner.records.clone(), true), "at {nth}");
    }
    assert!(unreadable >= 3);
}

#[test]
fn evidence_is_never_overwritten() {
    let owner = written(SMALL);
    let disk = tampered(&owner, OLDER, |bytes| bytes[50] ^= 1);
    let name = segment_name(OLDER);
    disk.put(&format!("quarantine/{name}"), b"earlier");
    disk.put(&format!("quarantine/{name}.partial"), b"interrupted");
    let (_, recovery) = open(&disk, owner.options).unwrap();
    assert_eq!(recovery.damages[0].evidence, Evidence::Quarantined(format!("{name}.2")));
    assert_eq!(disk.contents(&format!("quarantine/{name}")).unwrap(), b"earlier");
    assert_eq!(disk.contents(&format!("quarantine/{name}.partial")), None);
}

#[test]
fn a_reader_serves_no_damage_that_came_after_opening() {
    let owner = written(SMALL);
    let disk = tampered(&owner, 1, |_| {});
    let (journal, _) = open(&disk, owner.options).unwrap();
    let mut bytes = disk.contents(&segment_name(OLDER)).unwrap();
    let second = ranges(&owner, OLDER)[1].clone();
    bytes[second.end - 1] ^= 4;
    disk.put(&segment_name(OLDER), &bytes);

    let mut reader = journal.read(Position::START).unwrap();
    let mut served = Vec::new();
    let mut damaged = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => served.push((record.position, record.payload.to_vec())),
            Ok(None) => break,
            Err(error) => damaged.push(error.to_string()),
        }
    }
    let mut expected = owner.records;
    expected.retain(|(at, _)| at.segment != OLDER || (at.offset as usize) < second.start);
    assert_eq!(served, expected);
    assert_eq!(damaged, [format!("no valid record at 2:{}", second.start)]);
}

#[test]
fn a_reader_sees_no_more_and_no_less_than_what_is_flushed() {
    let mut owner = Owner::new(1, SMALL);
    owner.step(Append(8)).unwrap();
    let mut reader = owner.journal().read(Position::START).unwrap();
    let mut served = Vec::new();
    for bytes in [20, 300, 40, 900, 8, 1500] {
        while let Some(record) = reader.next_record().unwrap() {
            served.push((record.position, record.payload.to_vec()));
        }
        owner.step(Append(bytes)).unwrap();
        owner.step(Step::Flush).unwrap();
    }
    assert_eq!(served, owner.records[..owner.records.len() - 1]);
}

#[test]
fn removing_everything_keeps_the_number() {
    let mut owner = written(SMALL);
    owner.step(RemoveOldest).unwrap();
    owner.step(RemoveOldest).unwrap();
    owner.step(RemoveOldest).unwrap();
    owner.step(Roll).unwrap();
    owner.step(RemoveOldest).unwrap();
    assert_eq!(owner.disk.names(), [segment_name(NEWEST + 1)]);
    owner.step(Step::LosePower).unwrap();
    owner.step(Append(10)).unwrap();
    assert_eq!(owner.journal().end().segment, NEWEST + 1);
    owner.finish();
}

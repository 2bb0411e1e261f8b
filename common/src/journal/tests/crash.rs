//! The process or the power goes, an operation fails, the disk is full: at every single operation.

use super::*;
use crate::journal::{DamageKind, Evidence};
use crate::storage::simulated::{EINTR, EIO, ENOSPC, Fault};

use Step::{Append, Flush, Kill, LosePower, RemoveOldest, Reopen, Roll, Sync};

/// Small and large records, groups, rolls by size and by will, removal, a clean and an unclean restart.
const SCRIPT: &[Step] = &[
    Append(10),
    Append(100),
    Sync,
    Append(20),
    Append(600),
    Append(30),
    Flush,
    Append(8),
    Sync,
    Append(1500),
    Append(9),
    Append(300),
    Sync,
    Sync,
    Append(250),
    Append(250),
    Append(250),
    Flush,
    Roll,
    Append(12),
    RemoveOldest,
    Append(700),
    Append(10),
    Flush,
    Reopen,
    Append(64),
    Append(64),
    Sync,
    Append(1024),
    Append(5),
    Flush,
    Kill,
    Append(400),
    Append(400),
    Append(400),
    Sync,
    Roll,
    RemoveOldest,
    RemoveOldest,
    Append(33),
    Sync,
    Append(500),
    Append(11),
    Flush,
];

fn variants() -> impl Iterator<Item = (u64, Options, bool)> {
    let preallocated = [(SMALL, false), (Options { preallocate: false, ..SMALL }, true)];
    (0..4).flat_map(move |seed| preallocated.map(|(options, short)| (seed, options, short)))
}

fn operations_of_script(seed: u64, options: Options, short: bool) -> u64 {
    let mut owner = Owner::new(seed, options);
    owner.disk.write_short(short);
    for step in SCRIPT {
        owner.step(*step).expect("no fault was injected");
    }
    owner.disk.operations()
}

/// What a power loss may look like, but a disk that works must not.
fn assert_only_holes(recovery: &Recovery) {
    let damages = &recovery.damages;
    assert!(damages.iter().all(|damage| damage.kind == DamageKind::Hole), "{damages:?}");
    assert!(damages.iter().all(|damage| matches!(damage.evidence, Evidence::Quarantined(_))), "{damages:?}");
}

#[test]
fn power_loss_after_every_operation_keeps_what_was_confirmed() {
    let mut torn = 0;
    for (seed, options, short) in variants() {
        for nth in 1..=operations_of_script(seed, options, short) {
            let mut owner = Owner::new(seed ^ nth << 8, options);
            owner.disk.write_short(short);
            owner.disk.inject(nth, Fault::Crash);
            for step in SCRIPT {
                if owner.step(*step).is_err() {
                    owner.lose_power();
                }
            }
            for recovery in &owner.recoveries {
                assert_only_holes(recovery);
                torn += usize::from(recovery.torn.is_some());
            }
            owner.finish();
        }
    }
    assert!(torn > 50, "the simulated disk was too kind: {torn} torn");
}

#[test]
fn kill_after_every_operation_keeps_what_was_flushed() {
    for (seed, options, short) in variants().take(2) {
        for nth in 1..=operations_of_script(seed, options, short) {
            let mut owner = Owner::new(seed, options);
            owner.disk.write_short(short);
            owner.disk.inject(nth, Fault::Crash);
            for step in SCRIPT {
                if owner.step(*step).is_err() {
                    // A restart in the middle of opening again counts as one, too.
                    let _ = owner.step(Kill);
                }
            }
            assert!(owner.recoveries.iter().all(|recovery| recovery.damages.is_empty()), "kill -9 damages nothing");
            owner.finish();
        }
    }
}

#[test]
fn power_loss_during_recovery_loses_nothing_more() {
    // Many sectors and many records are written between two syncs.
    let options = Options { segment_bytes: 8000, buffer_bytes: 3000, preallocate: true };
    let (mut torn, mut holes) = (0, 0);
    for seed in 0..150 {
        let mut owner = Owner::new(seed, options);
        for step in [Append(600), Append(100), Sync] {
            owner.step(step).expect("no fault was injected");
        }
        for bytes in [500, 300, 900, 200, 700, 100, 100, 100, 900] {
            owner.step(Append(bytes)).expect("no fault was injected");
        }
        owner.step(Flush).expect("no fault was injected");
        owner.lose_power();
        for nth in (1..).take_while(|_| seed % 2 == 0) {
            owner.disk.inject(nth, Fault::Crash);
            if owner.step(Sync).is_ok() {
                break;
            }
            owner.lose_power();
        }
        if owner.journal.is_none() {
            owner.step(Sync).expect("no fault was injected");
        }
        let recovery = owner.recoveries.last().expect("an opening succeeded");
        assert_only_holes(recovery);
        torn += u64::from(recovery.torn.is_some());
        holes += recovery.quarantine_files.min(1);
        owner.finish();
    }
    assert!(torn > 5 && holes > 15, "the simulated disk was too kind: {torn} torn, {holes} holes");
}

#[test]
fn an_error_at_every_operation_costs_at_most_one_call() {
    for (seed, options, short) in variants().take(4) {
        for errno in [EIO, ENOSPC, EINTR] {
            for nth in 1..=operations_of_script(seed, options, short) {
                let mut owner = Owner::new(seed ^ nth << 8, options);
                owner.disk.write_short(short);
                owner.disk.inject(nth, Fault::Error(errno));
                run_with_errors(&mut owner, nth % 2 == 0);
                owner.finish();
            }
        }
    }
}

/// Repeats what can be repeated and opens again what is poisoned, with or without a power loss.
fn run_with_errors(owner: &mut Owner, power: bool) {
    for step in SCRIPT {
        match owner.step(*step) {
            Ok(()) => {}
            Err(error) if error.is_retryable() => {
                if owner.journal.is_none() {
                    // It may have been the sync before the scan.
                    owner.doubt_flushed();
                }
                owner.step(*step).expect("the fault is over and nothing was lost");
            }
            Err(JournalError::Poisoned(_)) => {
                let journal = owner.journal();
                assert!(journal.poison().is_some());
                assert!(matches!(journal.append(b"x"), Err(JournalError::Poisoned(_))));
                assert!(matches!(journal.flush(), Err(JournalError::Poisoned(_))));
                assert!(matches!(journal.sync(), Err(JournalError::Poisoned(_))));
                assert!(matches!(journal.roll(), Err(JournalError::Poisoned(_))));
                assert!(matches!(journal.remove_oldest(), Err(JournalError::Poisoned(_))));
                assert!(matches!(journal.remove_through(9), Err(JournalError::Poisoned(_))));
                if power {
                    owner.lose_power();
                }
                owner.journal = None;
            }
            Err(error) => panic!("{error:?} at {step:?}"),
        }
    }
}

#[test]
fn a_failed_fsync_poisons_and_is_never_repeated() {
    for seed in 0..50 {
        let mut owner = Owner::new(seed, SMALL);
        owner.step(Append(100)).unwrap();
        owner.step(Sync).unwrap();
        owner.step(Append(900)).unwrap();
        owner.step(Flush).unwrap();
        owner.disk.inject(1, Fault::Error(EIO));
        let error = owner.step(Sync).unwrap_err();
        assert!(matches!(error, JournalError::Poisoned(_)));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "failed to sync `/simulated/0000000000000001.journal`");

        let operations = owner.disk.operations();
        assert!(matches!(owner.step(Sync), Err(JournalError::Poisoned(_))));
        assert_eq!(owner.disk.operations(), operations);

        // The page cache still has the record, the disk may not: what opening reports is what the disk has.
        owner.journal = None;
        owner.step(Sync).unwrap();
        owner.finish();
    }
}

#[test]
fn an_interrupted_read_or_write_is_repeated() {
    let mut owner = Owner::new(1, SMALL);
    owner.step(Append(300)).unwrap();
    owner.disk.inject(1, Fault::Error(EINTR));
    owner.step(Flush).unwrap();
    assert!(owner.journal().poison().is_none());

    let mut reader = owner.journal().read(Position::START).unwrap();
    // The first operation opens the file.
    for nth in 2..=3 {
        owner.disk.inject(nth, Fault::Error(EINTR));
    }
    assert_eq!(reader.next_record().unwrap().unwrap().payload, owner.records[0].1);
    owner.finish();
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let mut owner = Owner::new(1, Options { preallocate: false, ..SMALL });
    owner.step(Append(500)).unwrap();
    owner.step(Sync).unwrap();
    owner.disk.limit_bytes(Some(800));

    // Accepted into the buffer, then there is no space for all of it.
    owner.step(Append(300)).unwrap();
    owner.step(Append(200)).unwrap();
    for _ in 0..3 {
        assert!(matches!(owner.step(Sync), Err(JournalError::Full(_))));
        assert!(matches!(owner.step(Append(400)), Err(JournalError::Full(_))));
    }
    let reader_sees = read_all(owner.journal()).len();
    assert_eq!(reader_sees, 1, "half a flush is not seen");

    owner.disk.limit_bytes(None);
    owner.step(Append(20)).unwrap();
    owner.step(Sync).unwrap();
    assert_eq!(read_all(owner.journal()), owner.records);
    assert_eq!(owner.records.len(), 4);
    owner.finish();
}

#[test]
fn a_kill_while_the_disk_is_full_leaves_a_torn_tail_at_most() {
    let mut owner = Owner::new(1, Options { preallocate: false, ..SMALL });
    owner.step(Append(500)).unwrap();
    owner.step(Sync).unwrap();
    owner.disk.limit_bytes(Some(800));
    owner.step(Append(100)).unwrap();
    owner.step(Append(400)).unwrap();
    assert!(matches!(owner.step(Flush), Err(JournalError::Full(_))));
    owner.step(Kill).unwrap();
    assert_eq!(owner.records.len(), 2);
    let torn = owner.recoveries.last().unwrap().torn.unwrap();
    assert_eq!(torn.position, owner.journal().end());
    owner.disk.limit_bytes(None);
    owner.finish();
}

#[test]
fn a_roll_on_a_full_disk_changes_nothing() {
    for preallocate in [false, true] {
        let mut owner = Owner::new(1, Options { preallocate, ..SMALL });
        owner.step(Append(500)).unwrap();
        owner.step(Append(100)).unwrap();
        owner.step(Sync).unwrap();
        let data = u64::from(owner.journal().end().offset);
        // Even after the preallocation is given back, half a header fits.
        owner.disk.limit_bytes(Some(data + 16));
        for _ in 0..2 {
            assert!(matches!(owner.step(Roll), Err(JournalError::Full(_))));
            assert_eq!(owner.disk.names(), ["0000000000000001.journal"]);
        }
        // With room for a header, but not for a preallocation, it goes on without one.
        owner.disk.limit_bytes(Some(data + 100));
        owner.step(Roll).unwrap();
        owner.step(Append(8)).unwrap();
        owner.step(Sync).unwrap();
        owner.disk.limit_bytes(None);
        owner.finish();
    }
}

#[test]
fn removing_the_oldest_frees_a_full_disk() {
    let mut owner = Owner::new(1, Options { preallocate: false, ..SMALL });
    for _ in 0..3 {
        owner.step(Append(900)).unwrap();
        owner.step(Roll).unwrap();
    }
    owner.disk.limit_bytes(Some(3 * 948 + 600));
    owner.step(Append(300)).unwrap();
    owner.step(Append(300)).unwrap();
    assert!(matches!(owner.step(Append(400)), Err(JournalError::Full(_))));
    owner.step(RemoveOldest).unwrap();
    owner.step(Append(400)).unwrap();
    owner.step(Sync).unwrap();
    owner.disk.limit_bytes(None);
    owner.finish();
}

#[test]
fn a_dropped_journal_flushes_nothing() {
    let mut owner = Owner::new(1, SMALL);
    owner.step(Append(10)).unwrap();
    owner.step(Reopen).unwrap();
    assert!(owner.records.is_empty());
    owner.step(LosePower).unwrap();
    owner.finish();
}

//! The journal as its owners see it, over a simulated disk wherever something has to go wrong.

mod crash;
mod damage;
mod golden;
mod model;
mod real;

use std::io;
use std::sync::Arc;

use super::{DamageKind, Journal, JournalError, Options, Position, ReadError, Recovery};
use crate::storage::Failure;
use crate::storage::simulated::Simulated;

/// Small enough that a few records make many segments, and that a record can be longer than the buffer.
pub(super) const SMALL: Options = Options { segment_bytes: 1200, buffer_bytes: 700, preallocate: true };

pub(super) fn open(disk: &Simulated, options: Options) -> Result<(Journal, Recovery), JournalError> {
    Journal::open_in(Arc::new(disk.clone()), options)
}

/// A payload that says which it is; no two have the same content, not even in part.
pub(super) fn payload(sequence: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(sequence);
    let mut payload = sequence.to_le_bytes().to_vec();
    payload.resize_with(bytes.max(8), || random.u8(..));
    payload
}

pub(super) fn read_all(journal: &Journal) -> Vec<(Position, Vec<u8>)> {
    let mut reader = journal.read(Position::START).expect("the start is never behind the end");
    let mut records = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.push((record.position, record.payload.to_vec())),
            Ok(None) => return records,
            // The disk was told to fail once: a reader can go on. A crash shows at the next step.
            Err(ReadError::Io(failure)) if failure.source.kind() != io::ErrorKind::Other => {}
            Err(ReadError::Io(_)) => return records,
            Err(error) => panic!("{error:?} where opening found a record"),
        }
    }
}

/// One thing that an owner, or the world, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Append(usize),
    Flush,
    Sync,
    Roll,
    RemoveOldest,
    /// Close and open.
    Reopen,
    /// kill -9 and open.
    Kill,
    LosePower,
}

/// Does steps to a journal and knows what must come of them.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) disk: Simulated,
    pub(super) options: Options,
    pub(super) journal: Option<Journal>,
    /// Accepted and, as far as is known, neither removed nor lost.
    pub(super) records: Vec<(Position, Vec<u8>)>,
    /// How many of them survive the end of the process.
    flushed: usize,
    /// How many of them survive a power loss.
    confirmed: usize,
    next_sequence: u64,
    /// A removal began that may have been done or not.
    removing: Option<u64>,
    pub(super) recoveries: Vec<Recovery>,
}

impl Owner {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        Self {
            disk: Simulated::new(seed),
            options,
            journal: None,
            records: Vec::new(),
            flushed: 0,
            confirmed: 0,
            next_sequence: 1,
            removing: None,
            recoveries: Vec::new(),
        }
    }

    pub(super) fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("the owner has opened its journal")
    }

    /// Does one step. An error leaves the expectations as the documentation says.
    pub(super) fn step(&mut self, step: Step) -> Result<(), JournalError> {
        if self.journal.is_none() && !matches!(step, Step::Reopen | Step::Kill | Step::LosePower) {
            self.open_and_check(self.confirmed)?;
        }
        match step {
            Step::Append(bytes) => return self.append(bytes),
            Step::Flush => {
                self.journal().flush()?;
                self.flushed = self.records.len();
            }
            Step::Sync => {
                let durable = self.journal().sync()?;
                assert_eq!(durable, self.journal().end());
                self.all_confirmed();
            }
            Step::Roll => {
                self.journal().roll()?;
                assert!(self.journal().segment_is_empty());
                self.all_confirmed();
            }
            Step::RemoveOldest => return self.remove_oldest(),
            Step::Reopen => {
                self.journal = None;
                return self.open_and_check(self.flushed);
            }
            Step::Kill => {
                self.disk.kill();
                self.journal = None;
                return self.open_and_check(self.flushed);
            }
            Step::LosePower => {
                self.lose_power();
                return self.open_and_check(self.confirmed);
            }
        }
        Ok(())
    }

    pub(super) fn lose_power(&mut self) {
        self.disk.lose_power();
        self.journal = None;
    }

    fn append(&mut self, bytes: usize) -> Result<(), JournalError> {
        let payload = payload(self.next_sequence, bytes);
        if self.journal().wants_roll(payload.len()) {
            self.step(Step::Roll)?;
        }
        let position = self.journal().append(&payload)?;
        assert!(self.records.last().is_none_or(|(last, _)| *last < position));
        assert!(position >= self.journal().durable());
        self.records.push((position, payload));
        self.next_sequence += 1;
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<(), JournalError> {
        let oldest = self.journal().segments()[0];
        self.removing = Some(oldest.number);
        let removed = self.journal().remove_oldest()?;
        self.removing = None;
        if let Some(removed) = removed {
            assert_eq!(removed, oldest);
            self.forget_segments(removed.number);
        }
        Ok(())
    }

    fn forget_segments(&mut self, through: u64) {
        let gone = self.records.iter().take_while(|(position, _)| position.segment <= through).count();
        self.records.drain(..gone);
        self.flushed = self.flushed.saturating_sub(gone);
        self.confirmed = self.confirmed.saturating_sub(gone);
    }

    fn all_confirmed(&mut self) {
        (self.flushed, self.confirmed) = (self.records.len(), self.records.len());
    }

    /// A sync has failed: what was only flushed may be gone.
    pub(super) fn doubt_flushed(&mut self) {
        self.flushed = self.confirmed;
    }

    /// Opens, and checks that the first `kept` records are there, in order and right, perhaps more, and nothing else.
    pub(super) fn open_and_check(&mut self, kept: usize) -> Result<(), JournalError> {
        let (journal, recovery) = open(&self.disk, self.options)?;
        if recovery.damages.iter().any(|damage| damage.kind == DamageKind::Unreadable) {
            // The disk was told to fail once: nothing was cut, so all is there at the second attempt.
            drop(journal);
            return self.open_and_check(kept);
        }
        let served = read_all(&journal);
        if self.disk.has_crashed() {
            return Err(JournalError::Io(Failure {
                operation: "read",
                path: "/simulated".into(),
                source: io::ErrorKind::Other.into(),
            }));
        }
        if let (Some(removing), Some((first, _))) = (self.removing.take(), self.records.first())
            && first.segment <= removing
            && served.first().is_none_or(|(served, _)| served.segment > removing)
        {
            let before = self.records.len();
            self.forget_segments(removing);
            let kept = kept.saturating_sub(before - self.records.len());
            self.check(&served, kept, &recovery);
        } else {
            self.check(&served, kept, &recovery);
        }
        assert_eq!(recovery.records, served.len() as u64);
        assert_eq!(recovery.segments, journal.segments().len() as u64);
        assert_eq!(journal.end(), journal.durable());
        self.records = served;
        self.all_confirmed();
        self.journal = Some(journal);
        self.recoveries.push(recovery);
        Ok(())
    }

    fn check(&self, served: &[(Position, Vec<u8>)], kept: usize, recovery: &Recovery) {
        let positions =
            |records: &[(Position, Vec<u8>)]| records.iter().map(|(at, _)| at.to_string()).collect::<Vec<_>>();
        assert!(
            served.len() >= kept && self.records.starts_with(served),
            "served {:?}, accepted {:?}, of which {kept} had to survive; {recovery:?}",
            positions(served),
            positions(&self.records),
        );
    }

    /// Everything is synced, and survives.
    pub(super) fn finish(mut self) {
        self.disk.clear_faults();
        self.step(Step::Sync).expect("nothing is wrong with the disk any more");
        self.step(Step::Append(40)).expect("nothing is wrong with the disk any more");
        self.step(Step::LosePower).expect("nothing is wrong with the disk any more");
        self.step(Step::Kill).expect("nothing is wrong with the disk any more");
        let last = self.recoveries.last().expect("the journal was opened");
        assert!(last.is_clean(), "a journal stays recovered: {last:?}");
    }
}

//! Reads the journal at the start: what is stored, and the last minutes for the head.

use std::collections::{HashMap, HashSet};

use belfry_common::{
    error_chain::ErrorChain,
    journal::{Journal, Position, ReadError},
    model::{Batch, Timestamp},
    wire::codec::Decoder,
};
use tracing::{error, info};

use crate::{Head, NodeId, log::Stored, record::Record};

/// What the journal told.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) stored: Stored,
    pub(crate) began: HashMap<u64, Timestamp>,
    /// Records that could not be understood.
    pub(crate) unreadable: u64,
}

/// Reads back what a restarted collector must know.
///
/// Older segments only tell when they began: the newest snapshot before the head's window has what else they knew.
pub(crate) fn replay(journal: &Journal, head: &Head, now: Timestamp) -> Replayed {
    let horizon = now.plus_millis(-head.options().window_ms);
    let mut replayed = Replayed::default();
    let mut start = None;
    for segment in journal.segments() {
        let position = Position { segment: segment.number, offset: 0 };
        if let Some(time) = snapshot_time(journal, position) {
            replayed.began.insert(segment.number, time);
            if start.is_none() || time < horizon {
                start = Some(position);
            }
        }
    }
    if let Some(start) = start {
        let batches = Replay { replayed: &mut replayed, head, horizon, decoders: HashMap::new(), lost: HashSet::new() }
            .run(journal, start);
        info!(batches, unreadable = replayed.unreadable, "journal replayed");
    }
    replayed
}

fn snapshot_time(journal: &Journal, position: Position) -> Option<Timestamp> {
    let mut reader = journal.read(position).ok()?;
    let record = reader.next_record().ok()??;
    if record.position.segment != position.segment {
        return None;
    }
    match Record::parse(record.payload) {
        Ok(Record::Snapshot { time, .. }) => Some(time),
        _ => None,
    }
}

struct Replay<'a> {
    replayed: &'a mut Replayed,
    head: &'a Head,
    horizon: Timestamp,
    decoders: HashMap<NodeId, Decoder>,
    /// Nodes whose context broke in the present segment: one error each is enough in the log.
    lost: HashSet<NodeId>,
}

impl Replay<'_> {
    fn run(mut self, journal: &Journal, start: Position) -> u64 {
        let mut batches = 0;
        let mut reader = match journal.read(start) {
            Ok(reader) => reader,
            Err(error) => {
                self.unreadable(&error);
                return 0;
            }
        };
        loop {
            match reader.next_record() {
                Ok(Some(record)) => batches += u64::from(self.take(record.payload)),
                Ok(None) => return batches,
                Err(error @ ReadError::Damaged { .. }) => self.unreadable(&error),
                Err(error) => {
                    self.unreadable(&error);
                    return batches;
                }
            }
        }
    }

    /// Takes in one record; true if it was a batch that is new.
    fn take(&mut self, payload: &[u8]) -> bool {
        match Record::parse(payload) {
            Ok(Record::Snapshot { stored, .. }) => {
                self.decoders.clear();
                self.lost.clear();
                for (node, epoch, set) in stored {
                    self.replayed.stored.insert((node, epoch), set);
                }
                false
            }
            Ok(Record::Gap { node, epoch, gap }) => {
                let set = self.replayed.stored.entry((node, epoch)).or_default();
                if set.insert(gap.first..=gap.last).is_err() {
                    self.replayed.unreadable += 1;
                }
                false
            }
            Ok(Record::Batch { node, key, received, body }) => {
                let decoded = self.decoders.entry(node).or_default().decode(body);
                let batch = match decoded {
                    Ok(batch) => batch,
                    Err(error) => {
                        if self.lost.insert(node) {
                            error!(%node, %error, "batches in the journal cannot be read");
                        }
                        self.replayed.unreadable += 1;
                        return false;
                    }
                };
                let set = self.replayed.stored.entry((node, key.epoch)).or_default();
                if set.contains(key.sequence) || set.insert(key.sequence..=key.sequence).is_err() {
                    return false;
                }
                self.keep(node, batch, received);
                true
            }
            Err(error) => {
                self.unreadable(&error);
                false
            }
        }
    }

    fn keep(&self, node: NodeId, mut batch: Batch, received: Timestamp) {
        batch.ticks.retain(|tick| tick.time >= self.horizon);
        if !batch.ticks.is_empty() {
            self.head.apply(node, &batch, received);
        }
    }

    fn unreadable(&mut self, error: &dyn std::error::Error) {
        self.replayed.unreadable += 1;
        error!(error = %ErrorChain(error), "part of the journal cannot be read");
    }
}

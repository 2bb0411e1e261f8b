//! Knows what must be on disk: each acknowledged batch exactly once with the right content, and nothing that was not sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use belfry_common::{
    clock,
    model::{Batch, Epoch, Gap, Sequence, Timestamp},
};
use belfry_store::{Entry, LogRecord, NodeId, Store, StoreOptions};

/// Mistakes that are shown; the first ones explain the rest.
const MISTAKES_SHOWN: usize = 10;

/// Every copy of each batch: there must be one.
type Copies = BTreeMap<Sequence, Vec<Entry>>;

/// What a stopped collector has on disk.
#[derive(Debug, Default)]
pub struct Stored {
    batches: BTreeMap<(NodeId, Epoch), Copies>,
    gaps: BTreeMap<(NodeId, Epoch), Vec<Gap>>,
    unreadable: Vec<String>,
}

/// What one epoch of one node has sent, and what the collector has promised about it.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Everything that has left, acknowledged or not.
    pub sent: BTreeMap<Sequence, Batch>,
    /// The numbers that were acknowledged.
    pub acknowledged: BTreeSet<Sequence>,
}

impl Stored {
    /// Reads a data directory that nobody uses.
    #[must_use]
    pub fn read(data_directory: &Path) -> Self {
        let (store, _) = Store::open(data_directory, StoreOptions::default(), clock::now()).unwrap();
        let mut stored = Self::default();
        store.read_log(|record| stored.take(record)).unwrap();
        stored
    }

    fn take(&mut self, record: LogRecord) {
        match record {
            LogRecord::Batch(entry) => {
                let epoch = self.batches.entry((entry.node, entry.key.epoch)).or_default();
                epoch.entry(entry.key.sequence).or_default().push(entry);
            }
            LogRecord::Gap { node, epoch, gap } => self.gaps.entry((node, epoch)).or_default().push(gap),
            LogRecord::Unreadable(why) => self.unreadable.push(why),
        }
    }

    /// The numbers of the batches of one epoch of a node.
    #[must_use]
    pub fn sequences(&self, node: u64, epoch: Epoch) -> Vec<Sequence> {
        self.epoch(node, epoch).map(|(sequence, _)| sequence).collect()
    }

    /// The epochs of which a node has batches.
    #[must_use]
    pub fn epochs(&self, node: u64) -> Vec<Epoch> {
        self.batches.keys().filter(|(owner, _)| u64::from(owner.0) == node).map(|&(_, epoch)| epoch).collect()
    }

    /// The times of a node's ticks of the sampler, ascending.
    #[must_use]
    pub fn times(&self, node: u64, sampler: &str) -> Vec<Timestamp> {
        let epochs = self.epochs(node);
        let entries = epochs.iter().flat_map(|&epoch| self.epoch(node, epoch)).flat_map(|(_, copies)| copies);
        let ticks = entries.flat_map(|entry| &entry.batch.ticks).filter(|tick| &*tick.layout.sampler == sampler);
        let mut times: Vec<Timestamp> = ticks.map(|tick| tick.time).collect();
        times.sort_unstable();
        times
    }

    /// When each batch of a node was made and when it was received, in the order of their making.
    #[must_use]
    pub fn arrivals(&self, node: u64) -> Vec<(Timestamp, Timestamp)> {
        let epochs = self.epochs(node);
        let entries = epochs.iter().flat_map(|&epoch| self.epoch(node, epoch)).flat_map(|(_, copies)| copies);
        let arrival = |entry: &Entry| Some((entry.batch.ticks.iter().map(|tick| tick.time).max()?, entry.received));
        let mut arrivals: Vec<_> = entries.filter_map(arrival).collect();
        arrivals.sort_unstable();
        arrivals
    }

    /// Checks one epoch of a node against what its sender knows.
    ///
    /// # Panics
    /// When the promise is broken, with the numbers concerned.
    pub fn check(&self, node: u64, epoch: Epoch, ledger: &Ledger) {
        let mut mistakes = self.unreadable.clone();
        let stored: BTreeMap<Sequence, &Vec<Entry>> = self.epoch(node, epoch).collect();
        for sequence in &ledger.acknowledged {
            if !stored.contains_key(sequence) {
                mistakes.push(format!("{sequence} was acknowledged and is not stored"));
            }
        }
        for (sequence, copies) in stored {
            if copies.len() > 1 {
                mistakes.push(format!("{sequence} is stored {} times", copies.len()));
            }
            match ledger.sent.get(&sequence) {
                None => mistakes.push(format!("{sequence} is stored and was never sent")),
                Some(sent) if copies.iter().any(|copy| *copy.batch != *sent) => {
                    mistakes.push(format!("{sequence} is stored with other content"));
                }
                Some(_) => {}
            }
        }
        refute(node, epoch, &mistakes);
    }

    /// Checks an epoch whose sender is a real agent: its numbers up to the highest are stored once or declared as gaps.
    ///
    /// # Panics
    /// When a number is missing or stored twice.
    pub fn check_complete(&self, node: u64, epoch: Epoch) {
        let mut mistakes = self.unreadable.clone();
        for (sequence, copies) in self.epoch(node, epoch).filter(|(_, copies)| copies.len() > 1) {
            mistakes.push(format!("{sequence} is stored {} times", copies.len()));
        }
        let stored = self.sequences(node, epoch);
        let last = stored.last().copied().unwrap_or(0);
        let declared = self.gaps(node, epoch).iter().map(|gap| (gap.first, gap.last));
        // As runs: what was set aside and not used is millions of numbers.
        let mut known: Vec<_> = stored.into_iter().map(|sequence| (sequence, sequence)).chain(declared).collect();
        known.sort_unstable();
        let mut next = 1;
        for (first, end) in known.into_iter().filter(|&(first, _)| first <= last) {
            if first > next {
                mistakes.push(format!("{next} to {} are neither stored nor declared", first - 1));
            }
            next = next.max(end.saturating_add(1));
        }
        refute(node, epoch, &mistakes);
    }

    /// What a node has declared as lost of an epoch.
    #[must_use]
    pub fn gaps(&self, node: u64, epoch: Epoch) -> &[Gap] {
        let Some(node) = id(node) else { return &[] };
        self.gaps.get(&(node, epoch)).map_or(&[], Vec::as_slice)
    }

    fn epoch(&self, node: u64, epoch: Epoch) -> impl Iterator<Item = (Sequence, &Vec<Entry>)> {
        let found = id(node).and_then(|node| self.batches.get(&(node, epoch)));
        found.into_iter().flatten().map(|(&sequence, copies)| (sequence, copies))
    }
}

fn id(node: u64) -> Option<NodeId> {
    u32::try_from(node).ok().map(NodeId)
}

fn refute(node: u64, epoch: Epoch, mistakes: &[String]) {
    let shown: Vec<&str> = mistakes.iter().take(MISTAKES_SHOWN).map(String::as_str).collect();
    assert!(mistakes.is_empty(), "node {node}, epoch {epoch}: {} mistakes:\n{}", mistakes.len(), shown.join("\n"));
}

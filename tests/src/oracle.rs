//! Knows what must be on disk: each acknowledged batch exactly once with the right content, and nothing that was not sent.
//!
//! The journal tells batches, as long as it keeps them; blocks and what is in memory tell samples, for as long as anything is kept.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use belfry_common::{
    clock,
    model::{Batch, Epoch, Gap, Identity, Reason, Sequence, SeriesDefinition, Timestamp},
};
use belfry_store::{Entry, LogRecord, NodeId, ReadLimits, Sample, Selected, Selection, Store, StoreOptions, Summary};

/// Mistakes that are shown; the first ones explain the rest.
const MISTAKES_SHOWN: usize = 10;

/// Every copy of each batch: there must be one.
type Copies = BTreeMap<Sequence, Vec<Entry>>;

/// What a sample is known by.
type Key = (Identity<Arc<SeriesDefinition>>, Timestamp);

/// The samples of one node: a value's bits, or why there was none.
type Samples = HashMap<Key, Result<u64, Reason>>;

/// What a query gives of one node.
#[derive(Debug, Default)]
struct Read {
    samples: Samples,
    /// Where series ended.
    ends: Vec<Key>,
    mistakes: Vec<String>,
}

/// What a stopped collector has on disk.
#[derive(Debug)]
pub struct Stored {
    store: Store,
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
        let mut records = Vec::new();
        store.read_log(|record| records.push(record)).unwrap();
        let mut stored = Self { store, batches: BTreeMap::new(), gaps: BTreeMap::new(), unreadable: Vec::new() };
        records.into_iter().for_each(|record| stored.take(record));
        stored
    }

    /// The blocks.
    #[must_use]
    pub fn blocks(&self) -> Vec<Summary> {
        self.store.blocks()
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

    /// Checks one epoch of a node against what its sender knows, by the journal, of which nothing is gone yet.
    ///
    /// # Panics
    /// When the promise is broken, with the numbers concerned.
    pub fn check(&self, node: u64, epoch: Epoch, ledger: &Ledger) {
        let stored: BTreeMap<Sequence, &Vec<Entry>> = self.epoch(node, epoch).collect();
        let lost = ledger.acknowledged.iter().filter(|sequence| !stored.contains_key(sequence));
        let lost: Vec<String> = lost.map(|number| format!("{number} was acknowledged and is not stored")).collect();
        refute(node, epoch, &lost);
        self.check_journal(node, epoch, ledger);
    }

    /// Checks what the journal still has of one epoch of a node, and that no acknowledged number is forgotten.
    ///
    /// # Panics
    /// As [`Self::check`].
    pub fn check_journal(&self, node: u64, epoch: Epoch, ledger: &Ledger) {
        let mut mistakes = self.unreadable.clone();
        let durable = self.durable(node, epoch);
        let is_durable = |sequence| durable.iter().any(|&(first, last)| first <= sequence && sequence <= last);
        for sequence in ledger.acknowledged.iter().filter(|&&sequence| !is_durable(sequence)) {
            mistakes.push(format!("{sequence} was acknowledged and is not known any more"));
        }
        let stored: BTreeMap<Sequence, &Vec<Entry>> = self.epoch(node, epoch).collect();
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

    /// Checks the samples of a node of one epoch, as they are read from blocks and memory: each that was acknowledged is there once, with
    /// what was sent, and nothing is that was not sent. Says how many there are.
    ///
    /// # Panics
    /// When that is not so, with the samples concerned.
    pub fn check_samples(&self, node: u64, epoch: Epoch, ledger: &Ledger) -> usize {
        let mut sent = Samples::new();
        let mut promised = Vec::new();
        for (sequence, batch) in &ledger.sent {
            for (key, value) in samples(batch) {
                if ledger.acknowledged.contains(sequence) {
                    promised.push(key.clone());
                }
                sent.insert(key, value);
            }
        }
        let Read { samples: stored, ends, mut mistakes } = self.samples(node);
        for key in promised.iter().filter(|key| !stored.contains_key(*key)) {
            mistakes.push(format!("{} was acknowledged and is lost", name(key)));
        }
        let times: BTreeSet<Timestamp> =
            ledger.sent.values().flat_map(|batch| &batch.ticks).map(|tick| tick.time).collect();
        for key in ends.iter().filter(|(_, time)| !times.contains(time)) {
            mistakes.push(format!("{} is said to be an end, and nothing was sent then", name(key)));
        }
        for (key, value) in &stored {
            match sent.get(key) {
                None => mistakes.push(format!("{} was never sent", name(key))),
                Some(sent) if sent != value => {
                    mistakes.push(format!("{} is {value:?} and was {sent:?}", name(key)));
                }
                Some(_) => {}
            }
        }
        refute(node, epoch, &mistakes);
        stored.len()
    }

    /// The times of a node's samples of a metric, as they are read from blocks and memory, ascending.
    #[must_use]
    pub fn sample_times(&self, node: u64, metric: &str) -> Vec<Timestamp> {
        let read = self.samples(node);
        let of_metric = read.samples.keys().filter(|(Identity(series), _)| &*series.metric.name == metric);
        of_metric.map(|&(_, time)| time).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// All samples of a node as a query reads them.
    fn samples(&self, node: u64) -> Read {
        let mut read = Read::default();
        let mut visitor = |_, series: &Arc<SeriesDefinition>, samples: &[Sample]| {
            read.take(series, samples);
            ControlFlow::Continue(())
        };
        let (reader, nodes) = (self.store.reader(), id(node).into_iter().collect::<Vec<_>>());
        let visited = reader.visit(&nodes, &Selection::ALL, ReadLimits::NONE, &mut Selected::default(), &mut visitor);
        assert!(visited.unwrap().is_continue());
        read
    }

    /// The runs of numbers that are settled: stored, or declared as lost.
    #[must_use]
    pub fn durable(&self, node: u64, epoch: Epoch) -> Vec<(Sequence, Sequence)> {
        id(node).map_or(Vec::new(), |node| self.store.durable(node, epoch))
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
        // Of what the journal does not have any more it says that it had it.
        let first = stored.first().copied().unwrap_or(0);
        let gone = self.durable(node, epoch).into_iter().filter(|&(from, _)| from < first);
        let gone = gone.map(|(from, to)| (from, to.min(first - 1)));
        // As runs: what was set aside and not used is millions of numbers.
        let numbers = stored.into_iter().map(|sequence| (sequence, sequence));
        let mut known: Vec<_> = numbers.chain(declared).chain(gone).collect();
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

impl Read {
    fn take(&mut self, series: &Arc<SeriesDefinition>, samples: &[Sample]) {
        for sample in samples {
            let key = (Identity(Arc::clone(series)), sample.time);
            let value = match sample.value {
                Ok(value) => Ok(value.to_bits()),
                Err(Some(reason)) => Err(reason),
                Err(None) => {
                    self.ends.push(key);
                    continue;
                }
            };
            if self.samples.contains_key(&key) {
                self.mistakes.push(format!("{} comes twice", name(&key)));
            }
            self.samples.insert(key, value);
        }
    }
}

fn name((Identity(series), time): &Key) -> String {
    format!("{}{:?} at {}", series.metric.name, series.label_values, time.as_millis())
}

fn samples(batch: &Batch) -> impl Iterator<Item = (Key, Result<u64, Reason>)> {
    batch.ticks.iter().flat_map(|tick| {
        tick.layout.series.iter().zip(&tick.values).map(|(series, raw)| {
            let value = raw.value(series.metric.resolution).map(f64::to_bits);
            ((Identity(Arc::clone(series)), tick.time), value)
        })
    })
}

fn id(node: u64) -> Option<NodeId> {
    u32::try_from(node).ok().map(NodeId)
}

fn refute(node: u64, epoch: Epoch, mistakes: &[String]) {
    let shown: Vec<&str> = mistakes.iter().take(MISTAKES_SHOWN).map(String::as_str).collect();
    assert!(mistakes.is_empty(), "node {node}, epoch {epoch}: {} mistakes:\n{}", mistakes.len(), shown.join("\n"));
}

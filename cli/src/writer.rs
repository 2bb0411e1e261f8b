//! The thread that owns the store: adds what comes, commits in groups, and only then acknowledges.
//!
//! A full disk stops acknowledgements and nothing else: the thread waits with what it has, the queue before it fills, and
//! streams stand still until there is space. Any other failure of the journal ends the process: what is on disk is then
//! unknown, and only a restart can tell.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    model::{Batch, Epoch, Gap, GapReason, Raw, Sequence},
    wire::message::Run,
};
use belfry_store::{Entry, NodeId, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{error, info, warn};

use crate::{
    allocator,
    fleet::Fleet,
    hub::{Arrival, Hub},
};

/// Commands that wait. At one batch a second from each of thousands of nodes this is about a second's worth.
const COMMANDS_MAX: usize = 4096;
/// Batches that wait for the next commit, by the size of their readings: three seconds of 5,000 nodes with 500 series.
/// More than one batch may have.
const WAITING_KIB_MAX: usize = 64 * 1024;
/// Questions that wait: what a fleet that comes back asks in a moment.
const QUESTIONS_MAX: usize = 4096;
/// Commands in one commit.
const GROUP_MAX: usize = 1024;
/// Commits come at least this far apart: under load one fsync serves many batches, and a lone batch waits for nobody.
const COMMIT_INTERVAL: Duration = Duration::from_millis(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
const CUT_INTERVAL: Duration = Duration::from_secs(10);
/// Data older than this when it arrives is backlog: it is kept, and says nothing about now.
const LIVE_AGE_MS_MAX: i64 = 60_000;

/// What became of a batch or gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// This batch is durable.
    Stored(Sequence),
    /// These numbers are durably known to stay empty.
    Declared(Run),
    /// This batch is refused for good.
    Refused { sequence: Sequence, reason: String },
}

enum Command {
    Batch {
        entry: Entry,
        is_live: bool,
        settled: mpsc::Sender<Settled>,
        room: OwnedSemaphorePermit,
    },
    Gap {
        node: NodeId,
        epoch: Epoch,
        gap: Gap,
        settled: mpsc::Sender<Settled>,
    },
    /// There is a [`Question`].
    Wake,
}

/// What needs no space: answered also while there is none.
enum Question {
    Durable { node: NodeId, epoch: Epoch, reply: oneshot::Sender<Vec<Run>> },
    ForgetEpochs { node: NodeId, kept: Vec<Epoch> },
    ForgetNode { node: NodeId },
}

/// The writer has ended.
#[derive(Debug, thiserror::Error)]
#[error("the store takes no more batches")]
pub(crate) struct WriterGone;

/// Hands batches to the writer.
#[derive(Debug, Clone)]
pub(crate) struct WriterHandle {
    commands: mpsc::Sender<Command>,
    questions: mpsc::Sender<Question>,
    room: Arc<Semaphore>,
    pub(crate) statistics: Arc<WriterStatistics>,
}

/// What the writer counts.
#[derive(Debug, Default)]
pub(crate) struct WriterStatistics {
    pub(crate) batches: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    /// Batches that will never be taken, refused here or before.
    pub(crate) refused: AtomicU64,
    pub(crate) readings: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) commit_micros: AtomicU64,
    pub(crate) gap_batches: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) journal_segments: AtomicU64,
    pub(crate) is_full: AtomicBool,
}

impl WriterHandle {
    /// Hands a batch over; waits while the writer is behind, in batches or in bytes.
    pub(crate) async fn add(
        &self,
        entry: Entry,
        is_live: bool,
        settled: mpsc::Sender<Settled>,
    ) -> Result<(), WriterGone> {
        let room = Arc::clone(&self.room).acquire_many_owned(kib(&entry.batch)).await.map_err(|_| WriterGone)?;
        self.commands.send(Command::Batch { entry, is_live, settled, room }).await.map_err(|_| WriterGone)
    }

    /// Notes numbers that will never be filled.
    pub(crate) async fn add_gap(
        &self,
        node: NodeId,
        epoch: Epoch,
        gap: Gap,
        settled: mpsc::Sender<Settled>,
    ) -> Result<(), WriterGone> {
        self.commands.send(Command::Gap { node, epoch, gap, settled }).await.map_err(|_| WriterGone)
    }

    /// What is durable of an epoch.
    pub(crate) async fn durable(&self, node: NodeId, epoch: Epoch) -> Result<Vec<Run>, WriterGone> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::Durable { node, epoch, reply }).await?;
        answer.await.map_err(|_| WriterGone)
    }

    /// Forgets what is stored of a node's other epochs.
    pub(crate) async fn forget_epochs(&self, node: NodeId, kept: Vec<Epoch>) -> Result<(), WriterGone> {
        self.ask(Question::ForgetEpochs { node, kept }).await
    }

    /// Forgets a node that is no more in the fleet.
    pub(crate) async fn forget_node(&self, node: NodeId) -> Result<(), WriterGone> {
        self.ask(Question::ForgetNode { node }).await
    }

    /// Lets the writer do what is due, although nothing comes.
    pub(crate) fn wake(&self) {
        // A full queue needs no waking.
        drop(self.commands.try_send(Command::Wake));
    }

    async fn ask(&self, question: Question) -> Result<(), WriterGone> {
        self.questions.send(question).await.map_err(|_| WriterGone)?;
        self.wake();
        Ok(())
    }
}

/// The writer before its thread runs.
pub(crate) struct Writer {
    store: Store,
    inbox: mpsc::Receiver<Command>,
    questions: mpsc::Receiver<Question>,
    hub: Arc<Hub>,
    fleet: Arc<Fleet>,
    statistics: Arc<WriterStatistics>,
    /// Who waits for the next commit.
    waiting: Vec<Waiting>,
    /// Whether each pending entry of the store is live, in their order.
    live: Vec<bool>,
}

struct Waiting {
    settled: mpsc::Sender<Settled>,
    outcome: Settled,
    /// Given back with the commit.
    _room: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Prepares the writer of a store.
pub(crate) fn writer(store: Store, hub: Arc<Hub>, fleet: Arc<Fleet>) -> (WriterHandle, Writer) {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
    let statistics = Arc::new(WriterStatistics::default());
    let room = Arc::new(Semaphore::new(WAITING_KIB_MAX));
    let handle = WriterHandle { commands, questions: ask, room, statistics: Arc::clone(&statistics) };
    (handle, Writer { store, inbox, questions, hub, fleet, statistics, waiting: Vec::new(), live: Vec::new() })
}

impl Writer {
    /// Runs until every handle is gone, or the store fails. Blocking: for a thread of its own.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut cut_at = clock::monotonic();
        while self.inbox.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let began = clock::monotonic();
            for command in group.drain(..) {
                self.execute(command)?;
            }
            self.commit()?;
            self.answer();
            allocator::give_back();
            if clock::monotonic() >= cut_at {
                self.cut();
                cut_at = clock::monotonic() + CUT_INTERVAL;
            }
            if let Some(rest) = COMMIT_INTERVAL.checked_sub(began.elapsed()) {
                thread::sleep(rest);
            }
        }
        Ok(())
    }

    fn execute(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            // Of a node that was forgotten since.
            Command::Batch { entry, .. } if !self.fleet.contains(entry.node) => {}
            Command::Batch { entry, is_live, settled, room } => {
                let sequence = entry.key.sequence;
                match self.patiently(|store| store.add(entry.clone())) {
                    Ok(belfry_store::Added::New) => {
                        self.live.push(is_live);
                        self.waiting.push(Waiting { settled, outcome: Settled::Stored(sequence), _room: Some(room) });
                    }
                    Ok(belfry_store::Added::Duplicate) => {
                        self.statistics.duplicates.fetch_add(1, Relaxed);
                        self.waiting.push(Waiting { settled, outcome: Settled::Stored(sequence), _room: None });
                    }
                    Err(StoreError::Refused(reason)) => {
                        self.statistics.refused.fetch_add(1, Relaxed);
                        tell(&settled, Settled::Refused { sequence, reason });
                    }
                    Err(error) => return Err(error),
                }
            }
            Command::Gap { node, epoch, gap, settled } => {
                match self.patiently(|store| store.add_gap(node, epoch, gap, clock::now())) {
                    Ok(news) => {
                        // What was set aside and never used is not lost; what is said again is lost once.
                        if gap.reason != GapReason::Unused && news > 0 {
                            warn!(%node, first = gap.first, last = gap.last, reason = gap.reason.as_str(), "node reports a gap");
                        }
                        // Of what this collector lost itself nobody can say how much of it ever was.
                        if !matches!(gap.reason, GapReason::Unused | GapReason::CollectorLost) {
                            self.statistics.gap_batches.fetch_add(news, Relaxed);
                        }
                        let outcome = Settled::Declared(Run::new(gap.first, gap.last));
                        self.waiting.push(Waiting { settled, outcome, _room: None });
                    }
                    Err(StoreError::Refused(reason)) => {
                        tell(&settled, Settled::Refused { sequence: gap.first, reason });
                    }
                    Err(error) => return Err(error),
                }
            }
            Command::Wake => {}
        }
        Ok(())
    }

    fn answer(&mut self) {
        while let Ok(question) = self.questions.try_recv() {
            match question {
                Question::Durable { node, epoch, reply } => {
                    let runs = self.store.durable(node, epoch);
                    // Who asked may have gone meanwhile.
                    drop(reply.send(runs.into_iter().map(|(first, last)| Run::new(first, last)).collect()));
                }
                Question::ForgetEpochs { node, kept } => self.store.forget_epochs(node, |epoch| kept.contains(&epoch)),
                Question::ForgetNode { node } => {
                    self.store.forget_epochs(node, |_| false);
                    self.store.head().remove(node);
                }
            }
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let began = clock::monotonic();
        self.patiently(Store::sync)?;
        let took = began.elapsed();
        for Waiting { settled, outcome, .. } in self.waiting.drain(..) {
            tell(&settled, outcome);
        }
        let entries = self.store.show();
        let statistics = &self.statistics;
        statistics.commits.fetch_add(1, Relaxed);
        statistics.commit_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        statistics.batches.fetch_add(entries.len() as u64, Relaxed);
        let readings: usize = entries.iter().map(|entry| entry.batch.readings()).sum();
        statistics.readings.fetch_add(readings as u64, Relaxed);
        let mut arrivals = Vec::with_capacity(entries.len());
        for (entry, is_live) in entries.into_iter().zip(self.live.drain(..)) {
            let newest = entry.batch.ticks.iter().map(|tick| tick.time).max();
            let is_recent = newest.is_some_and(|time| entry.received.millis_since(time) <= LIVE_AGE_MS_MAX);
            if is_live || is_recent {
                self.fleet.heard(entry.node, entry.received, newest);
                arrivals.push(Arrival::from(entry));
            }
        }
        if !arrivals.is_empty() {
            self.hub.publish(&arrivals.into());
        }
        Ok(())
    }

    fn cut(&mut self) {
        if let Err(error) = self.store.cut(clock::now()) {
            error!(error = %ErrorChain(&error), "old segments of the journal cannot be deleted");
        }
        let log = self.store.log_statistics();
        self.statistics.journal_bytes.store(log.bytes, Relaxed);
        self.statistics.journal_segments.store(log.segments, Relaxed);
    }

    /// Repeats a call for as long as only space is missing.
    fn patiently<T>(&mut self, mut call: impl FnMut(&mut Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        loop {
            match call(&mut self.store) {
                Err(error) if error.is_retryable() => {
                    if !self.statistics.is_full.swap(true, Relaxed) {
                        error!(error = %ErrorChain(&error), "store cannot be written: nothing is acknowledged until it can");
                    }
                    self.cut();
                    self.answer();
                    thread::sleep(RETRY_INTERVAL);
                }
                result => {
                    if self.statistics.is_full.swap(false, Relaxed) {
                        info!("store can be written again");
                    }
                    return result;
                }
            }
        }
    }
}

/// The size of a batch in memory, at least 1 and at most all the room there is.
fn kib(batch: &Batch) -> u32 {
    let bytes = batch.readings() * size_of::<Raw>();
    u32::try_from(bytes.div_ceil(1024).clamp(1, WAITING_KIB_MAX)).unwrap_or(u32::MAX)
}

/// Tells a stream what became of its batch. One that is gone, or that has more under way than it may, is not waited for:
/// it will ask again.
fn tell(settled: &mpsc::Sender<Settled>, what: Settled) {
    drop(settled.try_send(what));
}

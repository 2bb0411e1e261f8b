//! Numbers batches and hands each to the spool and, if there is a connection with room, to the live stream.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use belfry_common::{
    limits,
    model::{Batch, Sequence, Timestamp},
};
use tokio::sync::{Notify, mpsc};
use tracing::error;

use crate::{spool::worker::SpoolHandle, statistics::Statistics};

/// A batch with its number.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) sequence: Sequence,
    pub(crate) batch: Arc<Batch>,
}

/// Where live batches go while there is a connection.
#[derive(Debug, Default)]
pub(crate) struct LiveSlot {
    live: Mutex<Option<Live>>,
    /// Woken when a batch did not go live and so has become backlog.
    pub(crate) backlog: Notify,
}

#[derive(Debug)]
struct Live {
    session: u64,
    sender: mpsc::Sender<Numbered>,
    unacknowledged: usize,
}

impl LiveSlot {
    /// Opens the slot for a new connection's session.
    pub(crate) fn open(&self, session: u64) -> mpsc::Receiver<Numbered> {
        let (sender, receiver) = mpsc::channel(limits::LIVE_WINDOW_BATCHES);
        *self.lock() = Some(Live { session, sender, unacknowledged: 0 });
        receiver
    }

    /// Closes the slot: batches only go to the spool.
    pub(crate) fn close(&self) {
        *self.lock() = None;
    }

    /// So many live batches have been acknowledged.
    pub(crate) fn release(&self, batches: usize) {
        if let Some(live) = &mut *self.lock() {
            live.unacknowledged = live.unacknowledged.saturating_sub(batches);
        }
    }

    /// Live batches that are not acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.lock().as_ref().map_or(0, |live| live.unacknowledged)
    }

    /// The session that sends the batch, if it has room.
    fn offer(&self, numbered: Numbered) -> Option<u64> {
        let mut slot = self.lock();
        let live = slot.as_mut()?;
        let is_taken = live.unacknowledged < limits::LIVE_WINDOW_BATCHES && live.sender.try_send(numbered).is_ok();
        live.unacknowledged += usize::from(is_taken);
        is_taken.then_some(live.session)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each batch its number.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The number of the next batch; read by the uplink.
    next: Arc<AtomicU64>,
    is_at_ceiling: bool,
    spool: SpoolHandle,
    live: Arc<LiveSlot>,
    statistics: Arc<Statistics>,
}

impl Outbox {
    pub(crate) fn new(
        next: Arc<AtomicU64>,
        spool: SpoolHandle,
        live: Arc<LiveSlot>,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self { next, is_at_ceiling: false, spool, live, statistics }
    }

    /// Takes a batch. Never waits.
    pub(crate) fn take(&mut self, batch: Batch) {
        let sequence = self.next.load(Relaxed);
        if sequence > self.spool.ceiling() {
            // After a restart it would be given to other data.
            if !std::mem::replace(&mut self.is_at_ceiling, true) {
                error!(sequence, "spool cannot set numbers aside: batches are dropped until its disk can be written");
            }
            self.statistics.add(|statistics| &statistics.batches_dropped, 1);
            return;
        }
        self.is_at_ceiling = false;
        self.next.store(sequence + 1, Relaxed);
        let time = batch.ticks.iter().map(|tick| tick.time).max().unwrap_or(Timestamp::default());
        let batch = Arc::new(batch);
        let session = self.live.offer(Numbered { sequence, batch: Arc::clone(&batch) });
        let is_spooled = self.spool.append(sequence, time, batch, session);
        if session.is_some() {
            return;
        }
        if !is_spooled {
            self.statistics.add(|statistics| &statistics.batches_dropped, 1);
        }
        self.live.backlog.notify_one();
    }

    /// Takes batches until their source ends.
    pub(crate) async fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        while let Some(batch) = batches.recv().await {
            self.take(batch);
        }
    }
}

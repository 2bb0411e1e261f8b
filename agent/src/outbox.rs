//! Numbers batches and hands each to the spool and, if there is a connection with room, to the live stream.

use std::sync::{Arc, Mutex, PoisonError};

use belfry_common::{
    limits,
    model::{Batch, Sequence, Timestamp},
};
use tokio::sync::{Notify, mpsc};

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
    sender: mpsc::Sender<Numbered>,
    unacknowledged: usize,
}

impl LiveSlot {
    /// Opens the slot for a new connection.
    pub(crate) fn open(&self) -> mpsc::Receiver<Numbered> {
        let (sender, receiver) = mpsc::channel(limits::LIVE_WINDOW_BATCHES);
        *self.lock() = Some(Live { sender, unacknowledged: 0 });
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

    fn offer(&self, numbered: Numbered) -> bool {
        let mut slot = self.lock();
        let Some(live) = slot.as_mut() else { return false };
        let is_taken = live.unacknowledged < limits::LIVE_WINDOW_BATCHES && live.sender.try_send(numbered).is_ok();
        live.unacknowledged += usize::from(is_taken);
        is_taken
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each batch its number.
#[derive(Debug)]
pub(crate) struct Outbox {
    next: Sequence,
    spool: SpoolHandle,
    live: Arc<LiveSlot>,
    statistics: Arc<Statistics>,
}

impl Outbox {
    pub(crate) fn new(next: Sequence, spool: SpoolHandle, live: Arc<LiveSlot>, statistics: Arc<Statistics>) -> Self {
        Self { next, spool, live, statistics }
    }

    /// Takes a batch. Never waits.
    pub(crate) fn take(&mut self, batch: Batch) {
        let sequence = self.next;
        self.next += 1;
        let time = batch.ticks.iter().map(|tick| tick.time).max().unwrap_or(Timestamp::default());
        let batch = Arc::new(batch);
        let is_live = self.live.offer(Numbered { sequence, batch: Arc::clone(&batch) });
        let is_spooled = self.spool.append(sequence, time, batch, is_live);
        if is_live {
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

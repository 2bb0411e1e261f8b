//! Passes what has become durable on to whoever looks at data as it arrives.
//!
//! Nobody downstream can hold up ingest: a subscriber that lags loses what it has no room for, and is told how much.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use belfry_common::model::{Batch, BatchKey};
use belfry_store::{Entry, NodeId};
use tokio::sync::mpsc;

/// A batch that is durable.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) node: NodeId,
    /// Which batch; the collector's own have no numbers.
    pub(crate) key: Option<BatchKey>,
    pub(crate) batch: Arc<Batch>,
}

impl From<Entry> for Arrival {
    fn from(entry: Entry) -> Self {
        Self { node: entry.node, key: Some(entry.key), batch: entry.batch }
    }
}

/// What one commit made durable.
pub(crate) type Arrivals = Arc<[Arrival]>;

/// Where arrivals go.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    subscribers: RwLock<Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    sender: mpsc::Sender<Arrivals>,
    lost: Arc<AtomicU64>,
}

/// A subscriber's end.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) arrivals: mpsc::Receiver<Arrivals>,
    lost: Arc<AtomicU64>,
}

impl Subscription {
    /// Batches lost since this was last asked.
    pub(crate) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Relaxed)
    }
}

impl Hub {
    /// Subscribes; up to `commits_max` commits wait for the subscriber.
    pub(crate) fn subscribe(&self, commits_max: usize) -> Subscription {
        let (sender, arrivals) = mpsc::channel(commits_max);
        let lost = Arc::new(AtomicU64::new(0));
        let subscriber = Subscriber { sender, lost: Arc::clone(&lost) };
        self.subscribers.write().unwrap_or_else(PoisonError::into_inner).push(subscriber);
        Subscription { arrivals, lost }
    }

    /// Passes a commit on. Never waits.
    pub(crate) fn publish(&self, arrivals: &Arrivals) {
        let mut has_gone = false;
        for subscriber in &*self.subscribers.read().unwrap_or_else(PoisonError::into_inner) {
            match subscriber.sender.try_send(Arc::clone(arrivals)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    subscriber.lost.fetch_add(arrivals.len() as u64, Relaxed);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => has_gone = true,
            }
        }
        if has_gone {
            let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
            subscribers.retain(|subscriber| !subscriber.sender.is_closed());
        }
    }
}

//! A node that says what a test wants, and that is up for as long as it is connected.

use belfry_common::{
    clock,
    model::{Epoch, Timestamp},
    wire::{frame::Kind, message::Goodbye},
};
use belfry_tests::{
    collector::Collector,
    hostile::{Live, hello},
    samples::batch_of,
};

/// Silence does not make it stale while a test lasts.
const INTERVAL_MS: u32 = 3_600_000;
const EPOCH: Epoch = Epoch(0xC0);

/// A connected node.
#[derive(Debug)]
pub(crate) struct Node {
    live: Live,
    sequence: u64,
    /// The time of what was said last.
    said: Timestamp,
}

impl Node {
    /// Joins and connects.
    pub(crate) async fn join(collector: &Collector, name: &str) -> Self {
        let identity = collector.join(name).await;
        let mut greeting = hello(EPOCH);
        greeting.interval_ms = INTERVAL_MS;
        let live = Live::open_with(collector.address(), &identity, greeting).await.unwrap();
        Self { live, sequence: 0, said: Timestamp::default() }
    }

    /// Says that a metric has this value now, for so many devices, and waits until that is kept. No two things are said of the same
    /// time, also where the disk takes less than a millisecond.
    pub(crate) async fn say(&mut self, metric: &str, devices: usize, value: f64) {
        self.sequence += 1;
        self.said = clock::now().max(self.said.plus_millis(1));
        self.live.store(self.sequence, &batch_of(1, metric, 0..devices, self.said, value)).await;
    }

    /// The node's connection and the number of its next batch, for what [`Self::say`] cannot say.
    pub(crate) fn live(&mut self) -> (&mut Live, u64) {
        self.sequence += 1;
        (&mut self.live, self.sequence)
    }

    /// Takes leave, as an agent does that is stopped.
    pub(crate) async fn leave(&mut self) {
        self.live.stream.message(Kind::Goodbye, &Goodbye).await.unwrap();
    }
}

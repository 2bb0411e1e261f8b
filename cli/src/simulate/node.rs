//! One simulated node: connects, sends a batch each interval, and remembers what is not acknowledged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use belfry_common::{
    backoff::Backoff,
    client::{self, ConnectError},
    clock,
    identity::{Identity, client_config},
    model::{Batch, Raw, Sequence, Tick, Timestamp},
    quic::{CloseCode, FrameReader, FrameWriter, StreamError},
    wire::{
        PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
        codec::Encoder,
        frame::Kind,
        message::{Ack, Batches, Goodbye, Hello, Inventory, Refused, SealedBatch, Welcome, decode},
    },
};
use quinn::Connection;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Meter, Plan, catalogue::Group, demo::DemoNode};

/// How long acknowledgements are waited for at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A batch under way and when it was first sent.
#[derive(Debug)]
struct Pending {
    sent: Instant,
    batch: Batch,
}

/// Agents wait this long for their slowest sampler.
const SAMPLING_MS_MAX: i64 = 50;

/// Where its readings come from.
#[derive(Debug)]
pub(super) enum Source {
    Load(Vec<Group>),
    Story(Box<DemoNode>),
}

#[derive(Debug)]
pub(super) struct Node {
    collector: String,
    identity: Identity,
    meter: Arc<Meter>,
    source: Source,
    interval_ms: u32,
    epoch: u64,
    next: Sequence,
    /// The time of the next batch, a multiple of the interval: the ticks of a fleet line up.
    due: Timestamp,
    /// How long after its time a batch is sent: as long as an agent takes to read everything.
    sampling_ms: i64,
    pending: Mutex<BTreeMap<Sequence, Pending>>,
    was_connected: bool,
}

impl Node {
    pub(super) fn new(place: usize, plan: &Plan, identity: Identity, meter: Arc<Meter>, source: Source) -> Self {
        let interval_ms = u32::try_from(plan.interval.as_millis()).unwrap_or(u32::MAX);
        Self {
            collector: plan.collector.clone(),
            identity,
            meter,
            source,
            interval_ms,
            epoch: fastrand::u64(..),
            next: 1,
            due: next_multiple(clock::now(), interval_ms),
            sampling_ms: place as i64 * 7919 % SAMPLING_MS_MAX,
            pending: Mutex::default(),
            was_connected: false,
        }
    }

    /// Runs until the token is cancelled.
    pub(super) async fn run(mut self, token: CancellationToken) {
        let Ok(mut backoff) = Backoff::try_new(Duration::from_secs(1), Duration::from_secs(60)) else { return };
        // Not all at the same instant: agents are started by people and tools, not by one loop.
        let mut wait = Duration::from_millis(self.interval_ms.into()).mul_f64(fastrand::f64());
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                () = sleep(wait) => {}
            }
            let session = self.session(&token).await;
            let was_connected = std::mem::take(&mut self.was_connected);
            if was_connected {
                backoff.reset();
            }
            match session {
                Ok(()) => break,
                Err(error) => {
                    debug!(name = %self.identity.subject.name, error = %belfry_common::error_chain::ErrorChain(&error), was_connected, "simulated node is not connected");
                    // Who was sent away at the door, as thousands are who come at once, has lost nothing.
                    self.meter.connections_lost.fetch_add(u64::from(was_connected), Relaxed);
                    wait = error.retry_after().unwrap_or_default() + backoff.next(fastrand::f64());
                }
            }
        }
        let left = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        self.meter.batches_given_up.fetch_add(left as u64, Relaxed);
    }

    async fn session(&mut self, token: &CancellationToken) -> Result<(), ConnectError> {
        let connection = client::connect(&self.collector, client_config(&self.identity)?).await?;
        let result = self.send_on(&connection, token).await;
        let statistics = connection.stats();
        self.meter.bytes_sent.fetch_add(statistics.udp_tx.bytes, Relaxed);
        self.meter.bytes_received.fetch_add(statistics.udp_rx.bytes, Relaxed);
        match result {
            Ok(()) => CloseCode::Done.close(&connection, ""),
            Err(error) => return Err(error.with_reason(&connection).await),
        }
        Ok(())
    }

    async fn send_on(&mut self, connection: &Connection, token: &CancellationToken) -> Result<(), ConnectError> {
        let (mut writer, mut reader) = client::open(connection).await?;
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION_MIN,
            protocol_max: PROTOCOL_VERSION,
            agent_version: concat!(env!("CARGO_PKG_VERSION"), " (simulated)").to_string(),
            epoch: self.epoch,
            next_sequence: self.next,
            time_ms: clock::now().as_millis(),
            interval_ms: self.interval_ms,
        };
        writer.send(Kind::Hello, &hello).await?;
        let Welcome { .. } = client::answer(&mut reader, Kind::Welcome).await?;
        self.meter.connected.fetch_add(1, Relaxed);
        self.was_connected = true;
        let pending = std::mem::take(&mut self.pending);
        let receiver = Receiver { pending, meter: Arc::clone(&self.meter) };
        let result = tokio::select! {
            error = receiver.run(reader) => Err(error),
            sent = self.send(&receiver.pending, &mut writer, token) => sent,
        };
        self.pending = receiver.pending;
        self.meter.connected.fetch_sub(1, Relaxed);
        result
    }

    async fn send(
        &mut self,
        pending: &Mutex<BTreeMap<Sequence, Pending>>,
        writer: &mut FrameWriter,
        token: &CancellationToken,
    ) -> Result<(), ConnectError> {
        let mut encoder = Encoder::new();
        let lock = || pending.lock().unwrap_or_else(PoisonError::into_inner);
        let again: Vec<(Sequence, Batch)> =
            lock().iter().map(|(&sequence, pending)| (sequence, pending.batch.clone())).collect();
        for (sequence, batch) in again {
            self.send_one(&mut encoder, writer, sequence, &batch).await?;
        }
        loop {
            let at = self.due.plus_millis(self.sampling_ms);
            let wait = at.millis_since(clock::now()).max(0).unsigned_abs();
            tokio::select! {
                () = token.cancelled() => break,
                () = sleep(Duration::from_millis(wait)) => {}
            }
            let batch = self.batch();
            if batch.ticks.is_empty() {
                continue;
            }
            let sequence = self.next;
            self.next += 1;
            lock().insert(sequence, Pending { sent: clock::monotonic(), batch: batch.clone() });
            self.meter.samples_sent.fetch_add(batch.readings() as u64, Relaxed);
            self.meter.batches_sent.fetch_add(1, Relaxed);
            self.send_one(&mut encoder, writer, sequence, &batch).await?;
            if let Some(inventory) = self.inventory(&batch) {
                writer.send(Kind::Inventory, &inventory).await?;
            }
        }
        let drained = async {
            while !lock().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // What is still missing then is reported as given up.
        drop(tokio::time::timeout(DRAIN_TIMEOUT, drained).await);
        Ok(writer.send(Kind::Goodbye, &Goodbye).await?)
    }

    async fn send_one(
        &self,
        encoder: &mut Encoder,
        writer: &mut FrameWriter,
        sequence: Sequence,
        batch: &Batch,
    ) -> Result<(), StreamError> {
        let mut body = Vec::new();
        if let Err(error) = encoder.encode(batch, &mut body) {
            debug!(%error, "simulated batch cannot be encoded");
            return Ok(());
        }
        writer.send(Kind::Batches, &Batches { batches: vec![SealedBatch { sequence, body: &body }] }).await
    }

    /// The batch that is due, with its own time.
    fn batch(&mut self) -> Batch {
        let time = self.due;
        self.due = time.plus_millis(self.interval_ms.into());
        if clock::now().millis_since(self.due) > self.interval_ms.into() {
            // After an outage: a real agent would have spooled; this one goes on from now.
            self.due = next_multiple(clock::now(), self.interval_ms);
        }
        let tick = |group: &mut Group| Tick {
            layout: Arc::clone(&group.layout),
            time,
            values: group.values.iter_mut().map(|values| Raw::integer(values.next())).collect(),
        };
        match &mut self.source {
            Source::Load(groups) => Batch { ticks: groups.iter_mut().map(tick).collect() },
            Source::Story(node) => node.batch(time),
        }
    }

    /// What goes with a batch beside its readings.
    fn inventory(&self, batch: &Batch) -> Option<Inventory> {
        let Source::Story(node) = &self.source else { return None };
        node.inventory(batch.ticks.first()?.time)
    }
}

/// The next instant after this one that is a multiple of the interval.
fn next_multiple(now: Timestamp, interval_ms: u32) -> Timestamp {
    let interval_ms = i64::from(interval_ms);
    now.plus_millis(interval_ms - now.as_millis().rem_euclid(interval_ms))
}

struct Receiver {
    pending: Mutex<BTreeMap<Sequence, Pending>>,
    meter: Arc<Meter>,
}

impl Receiver {
    async fn run(&self, mut reader: FrameReader) -> ConnectError {
        loop {
            let (kind, payload) = match reader.next().await {
                Ok(Some(next)) => next,
                Ok(None) => return StreamError::Closed.into(),
                Err(error) => return error.into(),
            };
            if let Err(error) = self.take(kind, &payload) {
                return error;
            }
        }
    }

    fn take(&self, kind: Kind, payload: &[u8]) -> Result<(), ConnectError> {
        let now = clock::monotonic();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Ack => {
                let Ack { runs } = decode(payload).map_err(StreamError::Message)?;
                for run in runs {
                    let acked: Vec<Sequence> =
                        pending.range(run.first..=run.last()).map(|(&sequence, _)| sequence).collect();
                    for sequence in acked {
                        if let Some(batch) = pending.remove(&sequence) {
                            self.meter.acknowledged(now.saturating_duration_since(batch.sent));
                        }
                    }
                }
                Ok(())
            }
            Kind::Refused => {
                let Refused { sequence, reason } = decode(payload).map_err(StreamError::Message)?;
                debug!(sequence, reason, "simulated batch refused");
                pending.remove(&sequence);
                self.meter.batches_refused.fetch_add(1, Relaxed);
                Ok(())
            }
            Kind::Failure => Err(client::refusal(payload)),
            other => Err(StreamError::Unexpected(other).into()),
        }
    }
}

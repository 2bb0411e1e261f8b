//! One connection: hello, then live batches, backlog and acknowledgements side by side until something ends it.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_common::{
    client::{ConnectError, answer, certify, open, refusal},
    clock,
    error_chain::ErrorChain,
    identity::Identity,
    limits,
    model::Sequence,
    quic::{CloseCode, FrameReader, FrameWriter, StreamError},
    wire::{
        PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, PROTOCOL_WITH_INVENTORY,
        codec::Encoder,
        frame::Kind,
        message::{
            Ack, Backlog, Batches, Credit, Gaps, Goodbye, Hello, Inventory, Refused, Run, SealedBatch, Welcome, decode,
        },
    },
};
use quinn::Connection;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Uplink;
use crate::outbox::Numbered;

/// On leaving: how long acknowledgements of the last batches are waited for.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the spool is asked for backlog when nothing says that there is any: a lost wake-up costs no more than this.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(10);
/// On average.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Uncoded bytes in a frame of backlog: a big layout makes fewer batches.
const BACKLOG_READINGS_MAX: usize = 256 * 1024;

/// How a session ended in order.
#[derive(Debug)]
pub(super) enum Ended {
    /// The agent stops.
    Stopped,
    /// There is a new certificate to connect with.
    Renewed(Box<Identity>),
}

/// What the parts of a session share.
#[derive(Debug, Default)]
struct Shared {
    /// Live batches under way.
    live: Mutex<BTreeSet<Sequence>>,
    /// Batches of backlog that may be sent.
    credit: AtomicU32,
    credit_came: Notify,
}

pub(super) async fn run(
    uplink: &Uplink,
    connection: &Connection,
    token: &CancellationToken,
) -> Result<Ended, ConnectError> {
    let (mut live_writer, mut live_reader) = open(connection).await?;
    let welcome = greet(uplink, &mut live_writer, &mut live_reader).await?;
    info!(collector = welcome.collector_version, "connected");
    let offset = welcome.time_ms.saturating_sub(clock::now().as_millis());
    uplink.statistics.clock_offset_ms.store(offset, Relaxed);
    let number = uplink.spool.begin_session();
    uplink.spool.reconcile(welcome.durable);

    let (mut backlog_writer, backlog_reader) = open(connection).await?;
    backlog_writer.send(Kind::Backlog, &Backlog { epoch: uplink.spool.epoch().0 }).await?;
    live_writer.set_priority(1);

    let shared = Shared::default();
    shared.credit.store(welcome.backlog_credit, Relaxed);
    let batches = uplink.live.open(number);
    uplink.statistics.is_connected.store(true, Relaxed);
    uplink.statistics.add(|statistics| &statistics.connections, 1);
    let session = Session { uplink, shared: &shared, connection };
    let inventories = (welcome.protocol >= PROTOCOL_WITH_INVENTORY).then(|| uplink.inventories.clone());
    let result = tokio::select! {
        ended = session.send_live(live_writer, batches, inventories, token) => ended,
        error = session.receive(live_reader) => Err(error),
        error = session.receive(backlog_reader) => Err(error),
        error = session.send_backlog(backlog_writer) => Err(error),
        identity = session.renew() => Ok(Ended::Renewed(Box::new(identity))),
    };
    session.count_bytes();
    uplink.statistics.wire_sent.end();
    uplink.statistics.wire_received.end();
    if result.is_ok() {
        CloseCode::Done.close(connection, "");
    }
    result
}

/// The next inventory; never, where the collector does not want any.
async fn next(inventories: &mut Option<watch::Receiver<Inventory>>) -> Inventory {
    let Some(inventories) = inventories else { return std::future::pending().await };
    if inventories.changed().await.is_err() {
        return std::future::pending().await;
    }
    inventories.borrow_and_update().clone()
}

async fn greet(uplink: &Uplink, writer: &mut FrameWriter, reader: &mut FrameReader) -> Result<Welcome, ConnectError> {
    let hello = Hello {
        protocol_min: PROTOCOL_VERSION_MIN,
        protocol_max: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_string(),
        epoch: uplink.spool.epoch().0,
        next_sequence: uplink.next_sequence.load(Relaxed),
        time_ms: clock::now().as_millis(),
        interval_ms: uplink.settings.interval.as_millis() as u32,
    };
    writer.send(Kind::Hello, &hello).await?;
    answer(reader, Kind::Welcome).await
}

struct Session<'a> {
    uplink: &'a Uplink,
    shared: &'a Shared,
    connection: &'a Connection,
}

impl Session<'_> {
    /// Sends batches as they are made; takes leave when the token is cancelled.
    async fn send_live(
        &self,
        mut writer: FrameWriter,
        mut batches: mpsc::Receiver<Numbered>,
        mut inventories: Option<watch::Receiver<Inventory>>,
        token: &CancellationToken,
    ) -> Result<Ended, ConnectError> {
        let mut encoder = Encoder::new();
        // What was seen before this connection is news to the collector.
        inventories.iter_mut().for_each(watch::Receiver::mark_changed);
        loop {
            let numbered = tokio::select! {
                biased;
                numbered = batches.recv() => numbered,
                () = token.cancelled() => None,
                inventory = next(&mut inventories) => {
                    if inventory.time_ms > 0 {
                        writer.send(Kind::Inventory, &inventory).await?;
                    }
                    continue;
                }
            };
            let Some(Numbered { sequence, batch }) = numbered else { break };
            let mut body = Vec::new();
            if let Err(error) = encoder.encode(&batch, &mut body) {
                error!(%error, sequence, "batch cannot be encoded");
                continue;
            }
            self.live().insert(sequence);
            let message = Batches { batches: vec![SealedBatch { sequence, body: &body }] };
            writer.send(Kind::Batches, &message).await?;
            self.uplink.statistics.add(|statistics| &statistics.batches_sent, 1);
            self.count_bytes();
        }
        let acknowledged = async {
            while self.uplink.live.unacknowledged() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(LEAVE_TIMEOUT, acknowledged).await.is_err() {
            debug!("leaving with batches unacknowledged: they are in the spool");
        }
        writer.send(Kind::Goodbye, &Goodbye).await?;
        // Whether the goodbye arrived changes nothing here.
        drop(tokio::time::timeout(LEAVE_TIMEOUT, writer.finish()).await);
        Ok(Ended::Stopped)
    }

    fn count_bytes(&self) {
        let (counted, statistics) = (self.connection.stats(), &self.uplink.statistics);
        statistics.wire_sent.observe(counted.udp_tx.bytes);
        statistics.wire_received.observe(counted.udp_rx.bytes);
    }

    async fn receive(&self, mut reader: FrameReader) -> ConnectError {
        loop {
            let next = match reader.next().await {
                Ok(Some(next)) => next,
                Ok(None) => return StreamError::Closed.into(),
                Err(error) => return error.into(),
            };
            if let Err(error) = self.take(next.0, &next.1) {
                return error;
            }
        }
    }

    fn take(&self, kind: Kind, payload: &[u8]) -> Result<(), ConnectError> {
        match kind {
            Kind::Ack => {
                let Ack { runs } = decode(payload).map_err(StreamError::Message)?;
                self.settle(&runs);
                self.uplink.spool.acknowledge(runs);
            }
            Kind::Credit => {
                let Credit { batches } = decode(payload).map_err(StreamError::Message)?;
                self.shared.credit.fetch_add(batches, Relaxed);
                self.shared.credit_came.notify_one();
            }
            Kind::Refused => {
                let Refused { sequence, reason } = decode(payload).map_err(StreamError::Message)?;
                error!(sequence, reason, "collector refused a batch for good");
                self.uplink.statistics.add(|statistics| &statistics.batches_refused, 1);
                self.settle(&[Run::new(sequence, sequence)]);
                self.uplink.spool.refuse(sequence);
                self.uplink.live.backlog.notify_one();
            }
            Kind::Failure => return Err(refusal(payload)),
            other => return Err(StreamError::Unexpected(other).into()),
        }
        Ok(())
    }

    /// Makes room for as many live batches as are among these.
    fn settle(&self, runs: &[Run]) {
        let mut live = self.live();
        let before = live.len();
        live.retain(|&sequence| !runs.iter().any(|run| run.first <= sequence && sequence <= run.last()));
        self.uplink.live.release(before - live.len());
    }

    /// Sends what is in the spool and was not sent live, oldest first, within the credit.
    async fn send_backlog(&self, mut writer: FrameWriter) -> ConnectError {
        loop {
            match self.send_backlog_once(&mut writer).await {
                Ok(true) => {}
                Ok(false) => {
                    let more = self.uplink.live.backlog.notified();
                    // A time-out is the reason to look again as well.
                    drop(tokio::time::timeout(BACKLOG_INTERVAL, more).await);
                }
                Err(error) => return error,
            }
        }
    }

    /// Sends one frame of backlog; false when there is none.
    async fn send_backlog_once(&self, writer: &mut FrameWriter) -> Result<bool, ConnectError> {
        let credit = self.shared.credit.load(Relaxed) as usize;
        if credit == 0 {
            self.shared.credit_came.notified().await;
            return Ok(true);
        }
        let backlog = self.uplink.spool.backlog(credit.min(limits::BATCHES_PER_FRAME_MAX)).await;
        if !backlog.gaps.is_empty() {
            let gaps = backlog.gaps.iter().map(|&gap| gap.into()).collect();
            writer.send(Kind::Gaps, &Gaps { gaps }).await?;
        }
        let mut rest = backlog.batches.as_slice();
        while !rest.is_empty() {
            let mut readings = 0;
            let fits = rest.iter().take_while(|spooled| {
                let is_first = readings == 0;
                readings += spooled.batch.readings();
                is_first || readings <= BACKLOG_READINGS_MAX
            });
            let (frame, after) = rest.split_at(fits.count());
            rest = after;
            // Each frame is a context of its own: the collector need not remember one for a stream that is mostly silent.
            let mut encoder = Encoder::new();
            let mut bodies = Vec::new();
            for spooled in frame {
                let mut body = Vec::new();
                match encoder.encode(&spooled.batch, &mut body) {
                    Ok(_) => bodies.push((spooled.sequence, body)),
                    Err(error) => error!(%error, sequence = spooled.sequence, "batch cannot be encoded"),
                }
            }
            let batches = bodies.iter().map(|(sequence, body)| SealedBatch { sequence: *sequence, body }).collect();
            writer.send(Kind::Batches, &Batches { batches }).await?;
            self.uplink.statistics.add(|statistics| &statistics.batches_resent, bodies.len() as u64);
        }
        self.shared.credit.fetch_sub(backlog.batches.len() as u32, Relaxed);
        Ok(!backlog.batches.is_empty())
    }

    /// Waits until the certificate has to be renewed, and does it. What fails is tried again beside the stream: there is a
    /// third of the certificate's life for it.
    async fn renew(&self) -> Identity {
        let uplink = self.uplink;
        loop {
            let wait = uplink.identity.subject.renew_at().millis_since(clock::now());
            if wait <= 0 {
                break;
            }
            // Not in one go: the clock may be set in between.
            tokio::time::sleep(Duration::from_millis(wait.unsigned_abs()).min(Duration::from_secs(60))).await;
        }
        let identity = loop {
            match certify(self.connection, Kind::Renew, uplink.identity.subject.name.as_str()).await {
                Ok(identity) => break identity,
                Err(error) => warn!(error = %ErrorChain(&error), "certificate cannot be renewed: trying again"),
            }
            tokio::time::sleep(RENEW_AGAIN_AFTER.mul_f64(0.5 + fastrand::f64())).await;
        };
        if let Err(error) = identity.save(&uplink.settings.state_directory) {
            // It counts for this run; after a restart the old one does, while it lasts.
            error!(error = %ErrorChain(&error), "renewed certificate cannot be kept");
        }
        identity
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeSet<Sequence>> {
        self.shared.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

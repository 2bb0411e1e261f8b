//! What agents send: live batches on one stream, backlog on another, each checked, handed to the writer, and acknowledged when
//! it is durable.
//!
//! Identity comes from the certificate alone; a message names no node. Reading goes only as fast as the writer takes: a slow disk is
//! felt by the sender, not by this process's memory.

mod caps;
mod inspect;
mod inventory;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    limits,
    model::{BatchKey, Epoch, Gap, Timestamp},
    quic::{FrameReader, FrameWriter, StreamError},
    wire::{
        PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
        codec::Decoder,
        frame::Kind,
        message::{Ack, Backlog, Batches, Credit, FailureCode, Gaps, Hello, Inventory, Refused, Run, Welcome, decode},
    },
};
use belfry_store::{Entry, NodeId};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    fleet::Greeting,
    listen::{Member, fail, fail_for_now},
    services::Services,
    state::{StateError, epochs, nodes},
    writer::Settled,
};
use caps::NodeCap;
pub(crate) use caps::SeriesCaps;
use inspect::inspect;

/// Batches of backlog that one agent may have under way: four frames.
const BACKLOG_CREDIT: u32 = 4 * limits::BATCHES_PER_FRAME_MAX as u32;
/// Room for what is under way on a stream; a peer that overruns its window waits for answers that do not come.
const SETTLED_MAX: usize = 2 * BACKLOG_CREDIT as usize;
/// An agent that has nothing to say still has its samplers' ticks; QUIC's idle timeout watches the connection.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long batches that have come on a connection that is gone may wait for the writer.
const GONE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a live stream ended.
enum End {
    /// The agent took leave.
    Goodbye,
    /// The stream or the collector ended.
    Closed,
}

/// Serves an agent's live stream.
pub(crate) async fn live(
    member: &Member,
    hello: Hello,
    mut writer: FrameWriter,
    reader: FrameReader,
) -> Result<(), StreamError> {
    let Some(stream) = Stream::open(member, hello.epoch(), &hello, &mut writer).await? else { return Ok(()) };
    let services = &member.services;
    let now = clock::now();
    let Ok(durable) = services.writer.durable(stream.node, stream.epoch).await else { return Ok(()) };
    // While the disk is slow the answer is, too: who has not waited for it must not displace who has come since.
    if member.connection.close_reason().is_some() {
        return Ok(());
    }
    if durable.iter().any(|run| run.last() >= hello.next_sequence) {
        warn!(node = %member.subject.name, epoch = %stream.epoch, "node shows a spool that is older than what it has sent: an old backup");
        let message = "this spool is older than what was sent from it before: it is a restored backup; \
             remove the spool directory and restart the agent"
            .to_string();
        return fail(&mut writer, FailureCode::StaleEpoch, message).await;
    }
    let welcome = Welcome {
        protocol: hello.protocol_max.min(PROTOCOL_VERSION),
        collector_version: env!("CARGO_PKG_VERSION").to_string(),
        time_ms: now.as_millis(),
        durable,
        backlog_credit: BACKLOG_CREDIT,
    };
    services.connections.supersede(member.subject.id, member.number);
    let greeting = Greeting {
        connection: member.number,
        agent_version: hello.agent_version,
        address: member.address,
        epoch: stream.epoch,
        interval_ms: hello.interval_ms,
        clock_skew_ms: hello.time_ms.saturating_sub(now.as_millis()),
    };
    services.fleet.connected(stream.node, greeting, now);
    info!(node = %member.subject.name, address = %member.address, "agent connected");
    let ended = stream.welcome_and_serve(&welcome, writer, reader).await;
    let has_left = matches!(ended, Ok(End::Goodbye));
    services.fleet.disconnected(stream.node, member.number, has_left);
    info!(node = %member.subject.name, has_left, "agent disconnected");
    ended.map(|_| ())
}

/// Serves an agent's backlog stream.
pub(crate) async fn backlog(
    member: &Member,
    message: Backlog,
    mut writer: FrameWriter,
    reader: FrameReader,
) -> Result<(), StreamError> {
    let node = NodeId(u32::try_from(member.subject.id).unwrap_or(u32::MAX));
    let current = member.services.fleet.node(node).and_then(|node| node.epoch);
    if current != Some(Epoch(message.epoch)) {
        return fail(&mut writer, FailureCode::Invalid, "backlog must follow the hello of the same epoch".into()).await;
    }
    let stream = Stream { member, node, epoch: Epoch(message.epoch), is_live: false };
    stream.serve(writer, reader, Decoders::OnePerFrame).await.map(|_| ())
}

/// How bodies are to be read: the live stream is one context, each frame of backlog another.
enum Decoders {
    One(Decoder),
    OnePerFrame,
}

struct Stream<'a> {
    member: &'a Member,
    node: NodeId,
    epoch: Epoch,
    is_live: bool,
}

/// Why a stream cannot go on although nobody broke the protocol.
enum Stop {
    /// The stream is broken.
    Stream(StreamError),
    /// A batch was unreadable: what follows on this stream would be, too. The agent begins anew.
    Restart,
    /// The store takes no more.
    Writer,
}

impl From<StreamError> for Stop {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl<'a> Stream<'a> {
    /// Judges a hello; `None` when it was refused, with the reason sent.
    async fn open(
        member: &'a Member,
        epoch: Epoch,
        hello: &Hello,
        writer: &mut FrameWriter,
    ) -> Result<Option<Self>, StreamError> {
        if hello.protocol_min > PROTOCOL_VERSION || hello.protocol_max < PROTOCOL_VERSION_MIN {
            let message = format!(
                "the agent speaks protocol versions {} to {}, this collector {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}: update the older of the two",
                hello.protocol_min, hello.protocol_max
            );
            fail(writer, FailureCode::Version, message).await?;
            return Ok(None);
        }
        let Some(id) = nodes::NodeId::new(member.subject.id) else {
            fail(writer, FailureCode::Denied, "this certificate is not a node's".into()).await?;
            return Ok(None);
        };
        let node = crate::fleet::store_id(id);
        let Some(known) = member.services.fleet.node(node) else {
            fail(writer, FailureCode::Denied, "this node was forgotten: join again with a new token".into()).await?;
            return Ok(None);
        };
        let stream = Self { member, node, epoch, is_live: true };
        if known.epoch == Some(epoch) || stream.observe(id, writer).await? { Ok(Some(stream)) } else { Ok(None) }
    }

    /// Whether the epoch may send; false when it was refused, with the reason sent.
    async fn observe(&self, id: nodes::NodeId, writer: &mut FrameWriter) -> Result<bool, StreamError> {
        let (epoch, now) = (self.epoch, clock::now());
        let state = &self.member.services.state;
        let standing = state.write(move |transaction| epochs::observe(transaction, id, epoch, now)).await;
        match standing {
            Ok(epochs::Standing::Current) => Ok(true),
            Ok(epochs::Standing::New { previous }) => {
                if let Some(previous) = previous {
                    info!(node = %self.member.subject.name, %previous, %epoch, "node has a new spool");
                    // What the old epoch's numbers were is of no more use: it is refused from now on.
                    drop(self.member.services.writer.forget_epochs(self.node, vec![epoch]).await);
                }
                Ok(true)
            }
            Ok(epochs::Standing::Stale { .. }) => {
                warn!(node = %self.member.subject.name, %epoch, "node shows a spool that was replaced: a copy or an old backup");
                let message = "this spool was replaced by a newer one: it is a copy or a restored backup; \
                     remove the spool directory and restart the agent"
                    .to_string();
                fail(writer, FailureCode::StaleEpoch, message).await?;
                Ok(false)
            }
            Ok(epochs::Standing::TooMany) => {
                let message = "this node has had too many spools: forget it and let it join again".to_string();
                fail(writer, FailureCode::Denied, message).await?;
                Ok(false)
            }
            Err(error) => {
                self.retry_later(&error, writer).await?;
                Ok(false)
            }
        }
    }

    async fn retry_later(&self, error: &StateError, writer: &mut FrameWriter) -> Result<(), StreamError> {
        warn!(error = %ErrorChain(error), "agent sent away: the database cannot be written");
        fail_for_now(writer).await
    }

    fn decoder(&self) -> Decoder {
        Decoder::sharing(Arc::clone(self.member.services.head.pool()))
    }

    async fn welcome_and_serve(
        &self,
        welcome: &Welcome,
        mut writer: FrameWriter,
        reader: FrameReader,
    ) -> Result<End, StreamError> {
        writer.send(Kind::Welcome, welcome).await?;
        self.serve(writer, reader, Decoders::One(self.decoder())).await
    }

    /// Ready when the connection is gone and what it has brought has had its time.
    async fn gone(&self) -> StreamError {
        let error = self.member.connection.closed().await;
        tokio::time::sleep(GONE_TIMEOUT).await;
        StreamError::Read(quinn::ReadError::ConnectionLost(error))
    }

    /// Reads and acknowledges side by side until either ends.
    async fn serve(
        &self,
        mut writer: FrameWriter,
        reader: FrameReader,
        decoders: Decoders,
    ) -> Result<End, StreamError> {
        let (settled, mut inbox) = mpsc::channel(SETTLED_MAX);
        let read = tokio::select! {
            read = self.read(reader, decoders, settled) => read,
            error = self.acknowledge(&mut writer, &mut inbox) => return Err(error),
            // Reading may be waiting for the writer, which may be waiting for space.
            error = self.gone() => return Err(error),
        };
        // What was read is acknowledged before the stream ends: the sender of it is gone, so that the inbox runs dry.
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while let Some(first) = inbox.recv().await {
                self.answer(&mut writer, &mut inbox, first).await?;
            }
            Ok::<_, StreamError>(())
        });
        match read {
            Ok(end) => {
                drop(drained.await);
                Ok(end)
            }
            Err(Stop::Restart) => {
                drop(drained.await);
                let message = "a batch could not be read: connect again".to_string();
                fail(&mut writer, FailureCode::Retry, message).await?;
                Ok(End::Closed)
            }
            Err(Stop::Writer) => Ok(End::Closed),
            Err(Stop::Stream(error)) => Err(error),
        }
    }

    async fn read(
        &self,
        mut reader: FrameReader,
        mut decoders: Decoders,
        settled: mpsc::Sender<Settled>,
    ) -> Result<End, Stop> {
        let services = &self.member.services;
        let cap = services.series_caps.of(self.node, || services.head.layouts(self.node));
        loop {
            let next = tokio::select! {
                biased;
                next = reader.next() => next?,
                () = self.member.token.cancelled() => return Ok(End::Closed),
            };
            let Some((kind, payload)) = next else { return Ok(End::Closed) };
            match kind {
                Kind::Batches => {
                    let mut fresh = self.decoder();
                    let decoder = match &mut decoders {
                        Decoders::One(decoder) => decoder,
                        Decoders::OnePerFrame => &mut fresh,
                    };
                    self.take(&payload, decoder, &cap, &settled).await?;
                }
                Kind::Gaps if !self.is_live => {
                    let Gaps { gaps } = decode(&payload).map_err(StreamError::Message)?;
                    for gap in gaps {
                        self.take_gap(gap.parse(), &settled).await?;
                    }
                }
                Kind::Inventory if self.is_live => self.take_inventory(&payload).await?,
                Kind::Goodbye if self.is_live => return Ok(End::Goodbye),
                other => return Err(StreamError::Unexpected(other).into()),
            }
        }
    }

    async fn take(
        &self,
        payload: &[u8],
        decoder: &mut Decoder,
        cap: &NodeCap,
        settled: &mpsc::Sender<Settled>,
    ) -> Result<(), Stop> {
        let Batches { batches } = decode(payload).map_err(StreamError::Message)?;
        if batches.len() > limits::BATCHES_PER_FRAME_MAX {
            let error = belfry_common::wire::frame::FrameError::TooLong {
                kind: Kind::Batches,
                length: batches.len(),
                limit: limits::BATCHES_PER_FRAME_MAX,
            };
            return Err(StreamError::Frame(error).into());
        }
        let received = clock::now();
        for sealed in batches {
            let refuse = |reason: String| {
                warn!(node = %self.member.subject.name, sequence = sealed.sequence, reason, "batch refused");
                self.member.services.writer.statistics.refused.fetch_add(1, Relaxed);
                // A full channel means a peer beyond its window: it will find out by asking again.
                drop(settled.try_send(Settled::Refused { sequence: sealed.sequence, reason }));
            };
            let batch = match decoder.decode(sealed.body) {
                Ok(batch) => batch,
                Err(error) => {
                    refuse(ErrorChain(&error).to_string());
                    return Err(Stop::Restart);
                }
            };
            if let Err(reason) = inspect(&batch, received) {
                refuse(reason);
                continue;
            }
            let (batch, left_out) = cap.apply(batch);
            if let Some(left_out) = left_out {
                warn!(node = %self.member.subject.name, left_out, "node has more series than it may");
                self.member.services.fleet.left_out(self.node, left_out);
            }
            let key = BatchKey { epoch: self.epoch, sequence: sealed.sequence };
            let entry = Entry { node: self.node, key, received, batch: batch.into() };
            let added = self.member.services.writer.add(entry, self.is_live, settled.clone()).await;
            added.map_err(|_| Stop::Writer)?;
        }
        Ok(())
    }

    async fn take_inventory(&self, payload: &[u8]) -> Result<(), Stop> {
        let inventory: Inventory = decode(payload).map_err(StreamError::Message)?;
        match inventory::inspect(&inventory) {
            Ok(()) => {
                let Services { gpu_jobs, fleet, .. } = &*self.member.services;
                gpu_jobs.observe(self.node, &inventory, clock::now()).await;
                fleet.took_inventory(self.node, inventory);
            }
            Err(reason) => warn!(node = %self.member.subject.name, reason, "inventory refused"),
        }
        Ok(())
    }

    async fn take_gap(&self, gap: Gap, settled: &mpsc::Sender<Settled>) -> Result<(), Stop> {
        if gap.first == 0 || gap.last < gap.first {
            return Err(StreamError::Unexpected(Kind::Gaps).into());
        }
        let added = self.member.services.writer.add_gap(self.node, self.epoch, gap, settled.clone()).await;
        added.map_err(|_| Stop::Writer)
    }

    async fn acknowledge(&self, writer: &mut FrameWriter, inbox: &mut mpsc::Receiver<Settled>) -> StreamError {
        loop {
            // The reading side holds a sender for as long as this runs.
            let Some(first) = inbox.recv().await else { return std::future::pending().await };
            if let Err(error) = self.answer(writer, inbox, first).await {
                return error;
            }
        }
    }

    /// Tells the agent what has been settled, as much of it as there is in one go.
    async fn answer(
        &self,
        writer: &mut FrameWriter,
        inbox: &mut mpsc::Receiver<Settled>,
        first: Settled,
    ) -> Result<(), StreamError> {
        let mut runs: Vec<Run> = Vec::new();
        let mut batches = 0;
        let mut next = Some(first);
        while let Some(what) = next {
            match what {
                Settled::Stored(sequence) => {
                    batches += 1;
                    push_run(&mut runs, Run::new(sequence, sequence));
                }
                // What was not sent took no credit.
                Settled::Declared(run) => push_run(&mut runs, run),
                Settled::Refused { sequence, reason } => {
                    batches += 1;
                    writer.send(Kind::Refused, &Refused { sequence, reason }).await?;
                }
            }
            next = inbox.try_recv().ok();
        }
        if !runs.is_empty() {
            writer.send(Kind::Ack, &Ack { runs }).await?;
        }
        if !self.is_live && batches > 0 {
            writer.send(Kind::Credit, &Credit { batches }).await?;
        }
        Ok(())
    }
}

fn push_run(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.last().checked_add(1) == Some(run.first) => last.more = run.last() - last.first,
        _ => runs.push(run),
    }
}

/// When a batch was made, by its ticks.
pub(crate) fn newest(batch: &belfry_common::model::Batch) -> Option<Timestamp> {
    batch.ticks.iter().map(|tick| tick.time).max()
}

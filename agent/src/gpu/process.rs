//! A GPU worker's process as the agent has it: how it is started, asked, looked at and ended.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
    sync::Arc,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    model::Tick,
    wire::{
        codec::Decoder,
        frame::Kind,
        message::{self, GpuEvent, GpuHolders, GpuIdentity, GpuReadings, GpuReady, GpuRequest},
    },
};
use tracing::warn;

use super::{
    board::{Board, Noted},
    driver::{DriverState, Set},
    protocol::{self, Outlet, ProtocolError},
    supervisor::WorkerSettings,
};

/// Between two looks at a worker that is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// How long a worker may take to end when it is told to, and again when it is killed.
const LEAVING: Duration = Duration::from_millis(300);
/// Messages of a worker that wait to be read: one answer, and errors of a driver that reports many at once.
const MESSAGES_MAX: usize = 64;

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    board: Board,
    outlet: Outlet,
    inbox: Receiver<Message>,
    decoder: Decoder,
    started: Instant,
    /// Indices of GPUs that it does not touch.
    without: Vec<u32>,
    is_ready: bool,
    /// The GPUs that it has, if it found others since it was ready.
    found: Option<Vec<GpuIdentity>>,
    /// The number of the last request.
    sequence: u64,
    is_awaited: bool,
    /// The call that it was in when looked at last, and since when it is in that.
    seen: Option<(Noted, Instant)>,
}

/// What a worker says.
#[derive(Debug)]
enum Message {
    Ready(GpuReady),
    Readings(Vec<u8>),
}

/// Takes the errors that a driver reports, as they come.
pub(crate) type OnEvent = Arc<dyn Fn(GpuEvent) + Send + Sync>;

/// What a worker read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) tick: Option<Tick>,
    pub(crate) holders: Option<Vec<GpuHolders>>,
}

/// Why a worker did not answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// It opens the driver.
    Starting,
    /// It makes its calls, one after the other, and is not through.
    Slow,
    /// It is in one call for too long.
    Hung { call: String, gpu: Option<u32>, since: Duration },
    /// It has ended.
    Gone,
    /// The driver cannot be used; the worker has ended.
    Unusable { state: DriverState, detail: String },
}

impl Worker {
    /// Starts one. The running program itself, also when its file has been replaced: both ends speak the same.
    pub(super) fn start(settings: &WorkerSettings, without: &[u32]) -> io::Result<Self> {
        let on_event = Arc::clone(&settings.on_event);
        let (ours, theirs) = UnixStream::pair()?;
        let board = Board::new()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("belfry-agent").arg("gpu-worker").arg(settings.maker.as_str());
        command.arg("--board").arg(board.descriptor().to_string()).arg("--state").arg(settings.pause.directory());
        command.arg("--sys").arg(&settings.sys).arg("--library").arg(&settings.library);
        if !without.is_empty() {
            let indices: Vec<String> = without.iter().map(ToString::to_string).collect();
            command.arg("--without").arg(indices.join(","));
        }
        // What a library prints belongs in the log. Signals of the terminal are for the agent, which ends its worker itself.
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).process_group(0);
        let child = command.spawn()?;
        let (sender, inbox) = mpsc::sync_channel(MESSAGES_MAX);
        let channel = ours.try_clone()?;
        thread::Builder::new().name("gpu-inbox".into()).stack_size(128 * 1024).spawn(move || {
            if let Err(error) = listen(&channel, &sender, &*on_event)
                && !matches!(error, ProtocolError::Gone(_))
            {
                warn!(error = %ErrorChain(&error), "GPU worker does not speak our protocol");
            }
        })?;
        Ok(Self {
            child,
            board,
            outlet: Outlet::new(ours),
            inbox,
            decoder: Decoder::new(),
            started: clock::monotonic(),
            without: without.to_vec(),
            is_ready: false,
            found: None,
            sequence: 0,
            is_awaited: false,
            seen: None,
        })
    }

    pub(super) fn without(&self) -> &[u32] {
        &self.without
    }

    /// Whether it has opened the driver.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The call that it made last.
    pub(super) fn noted(&self) -> Option<Noted> {
        self.board.read()
    }

    /// The GPUs that it has, once after it found others.
    pub(super) fn found(&mut self) -> Option<Vec<GpuIdentity>> {
        self.found.take()
    }

    /// What it said when it had opened the driver, once; `None` from then on.
    pub(super) fn ready(&mut self, call_max: Duration, patience: Duration) -> Result<Option<GpuReady>, Silence> {
        if self.is_ready {
            return Ok(None);
        }
        let deadline = self.started + patience;
        loop {
            self.look(call_max)?;
            match self.inbox.recv_timeout(LOOK.min(deadline.saturating_duration_since(clock::monotonic()))) {
                Ok(Message::Ready(ready)) => {
                    self.is_ready = true;
                    self.seen = None;
                    return Ok(Some(ready));
                }
                Err(RecvTimeoutError::Timeout) if clock::monotonic() < deadline => {}
                Err(RecvTimeoutError::Timeout) => return Err(Silence::Starting),
                Ok(Message::Readings(_)) | Err(RecvTimeoutError::Disconnected) => return Err(Silence::Gone),
            }
        }
    }

    /// Asks for a set and waits for the answer. While an earlier answer is still awaited nothing more is asked.
    pub(super) fn ask(&mut self, set: Set, call_max: Duration, answer_max: Duration) -> Result<Answer, Silence> {
        if self.is_awaited {
            // What comes so late belongs to no tick.
            self.wait(call_max, Duration::ZERO)?;
        }
        self.sequence += 1;
        let request = GpuRequest { sequence: self.sequence, set: set.code(), time_ms: clock::now().as_millis() };
        self.outlet.send(Kind::GpuRequest, &request).map_err(|_| Silence::Gone)?;
        self.is_awaited = true;
        self.seen = None;
        self.wait(call_max, answer_max)
    }

    fn wait(&mut self, call_max: Duration, answer_max: Duration) -> Result<Answer, Silence> {
        let deadline = clock::monotonic() + answer_max;
        loop {
            let now = clock::monotonic();
            match self.inbox.recv_timeout(LOOK.min(deadline.saturating_duration_since(now))) {
                Ok(Message::Readings(payload)) => {
                    if let Some(answer) = self.take(&payload)? {
                        return Ok(answer);
                    }
                }
                Ok(Message::Ready(ready)) => self.found = Some(ready.gpus),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Gone),
                Err(RecvTimeoutError::Timeout) => {
                    self.look(call_max)?;
                    if clock::monotonic() >= deadline {
                        return Err(Silence::Slow);
                    }
                }
            }
        }
    }

    /// The answer, unless it is one to a request before the last.
    fn take(&mut self, payload: &[u8]) -> Result<Option<Answer>, Silence> {
        let undecodable = |error: &dyn std::error::Error| {
            warn!(error = %ErrorChain(error), "GPU worker sent what cannot be read");
            Silence::Gone
        };
        let readings: GpuReadings<'_> = message::decode(payload).map_err(|error| undecodable(&error))?;
        let batch = self.decoder.decode(readings.body).map_err(|error| undecodable(&error))?;
        if readings.sequence != self.sequence {
            return Ok(None);
        }
        self.is_awaited = false;
        Ok(Some(Answer { tick: batch.ticks.into_iter().next(), holders: readings.holders }))
    }

    /// Whether it is in the same call for too long.
    fn look(&mut self, call_max: Duration) -> Result<(), Silence> {
        let Some(noted) = self.board.read() else { return Ok(()) };
        match &self.seen {
            Some((seen, since)) if seen.number == noted.number => {
                let since = since.elapsed();
                if since >= call_max { Err(Silence::Hung { call: noted.call, gpu: noted.gpu, since }) } else { Ok(()) }
            }
            _ => {
                self.seen = Some((noted, clock::monotonic()));
                Ok(())
            }
        }
    }

    /// Ends it: by its standard input, then by force. What neither ends is given back.
    pub(super) fn stop(mut self) -> Option<Child> {
        self.outlet.close();
        if self.is_ended_within(LEAVING) {
            return None;
        }
        drop(self.child.kill());
        if self.is_ended_within(LEAVING) { None } else { Some(self.child) }
    }

    fn is_ended_within(&mut self, patience: Duration) -> bool {
        let deadline = clock::monotonic() + patience;
        loop {
            match self.child.try_wait() {
                Ok(None) if clock::monotonic() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

/// Reads what the worker says until it is gone.
fn listen(
    channel: &UnixStream,
    sender: &SyncSender<Message>,
    on_event: &dyn Fn(GpuEvent),
) -> Result<(), ProtocolError> {
    loop {
        let frame = protocol::receive(channel)?;
        let message = match frame.0 {
            Kind::GpuReady => Message::Ready(protocol::expect(Kind::GpuReady, &frame)?),
            Kind::GpuEvent => {
                on_event(protocol::expect(Kind::GpuEvent, &frame)?);
                continue;
            }
            Kind::GpuReadings => Message::Readings(frame.1),
            kind => return Err(ProtocolError::Unexpected(kind)),
        };
        if sender.send(message).is_err() {
            return Ok(());
        }
    }
}

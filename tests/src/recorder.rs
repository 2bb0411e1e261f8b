//! A node that remembers everything that it sent and everything that was acknowledged, through any number of connections.

use std::{net::SocketAddr, time::Duration};

use belfry_common::{
    clock,
    identity::Identity,
    model::{Epoch, Sequence},
    quic::StreamError,
    wire::message::Run,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    hostile::{Answer, Live, Stream, send_backlog},
    oracle::Ledger,
    samples::Samples,
};

/// Batches under way on the live stream, as agents have it.
const LIVE_WINDOW: usize = 32;
const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);
/// Batches of one frame of backlog.
const BACKLOG_FRAME: usize = 16;

/// The node.
#[derive(Debug)]
pub struct Recorder {
    /// Who it is.
    pub identity: Identity,
    /// The epoch of all that it sends.
    pub epoch: Epoch,
    /// What it knows.
    pub ledger: Ledger,
    samples: Samples,
    next: Sequence,
    pace: Duration,
    rng: fastrand::Rng,
    progress: watch::Sender<usize>,
}

impl Recorder {
    /// A node that sends a batch every `pace`.
    #[must_use]
    pub fn new(identity: Identity, seed: u64, pace: Duration) -> Self {
        let samples = Samples::new(seed, clock::now().plus_millis(-60_000), pace.as_millis() as i64);
        Self::of(identity, samples, seed, pace)
    }

    /// A node that sends these samples, which need not be of now, a batch every `pace`.
    #[must_use]
    pub fn of(identity: Identity, samples: Samples, seed: u64, pace: Duration) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let epoch = Epoch(rng.u64(1..));
        let (ledger, progress) = (Ledger::default(), watch::Sender::new(0));
        Self { identity, epoch, ledger, samples, next: 1, pace, rng, progress }
    }

    /// How many batches are acknowledged, to be watched while a session runs.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<usize> {
        self.progress.subscribe()
    }

    /// How many batches are acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.ledger.acknowledged.len()
    }

    /// Runs sessions until `done` is ready, one after the other.
    pub async fn sessions_until<T>(&mut self, address: SocketAddr, done: impl Future<Output = T>) -> T {
        let sessions = async {
            loop {
                if self.session(address).await.is_err() {
                    tokio::time::sleep(RECONNECT_INTERVAL).await;
                }
            }
        };
        tokio::select! {
            done = done => done,
            never = sessions => never,
        }
    }

    /// Connects and sends until the connection ends. What was under way is sent again, and something that was not needed, too.
    ///
    /// # Panics
    /// When the collector has lost what it acknowledged, or has what was never sent.
    pub async fn session(&mut self, address: SocketAddr) -> Result<(), String> {
        let mut live = Live::open(address, &self.identity, self.epoch).await?;
        self.compare(&live.welcome.durable);
        let mut backlog = live.backlog().await.map_err(|error| error.to_string())?;
        self.resend(&mut backlog).await?;
        let mut ticks = interval(self.pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = 0;
        loop {
            let answer = tokio::select! {
                answer = live.stream.answer() => answer,
                answer = backlog.answer() => answer,
                _ = ticks.tick(), if under_way < LIVE_WINDOW => {
                    self.send(&mut live).await?;
                    under_way += 1;
                    continue;
                }
            };
            let before = self.acknowledged();
            self.take(answer)?;
            under_way = under_way.saturating_sub(self.acknowledged() - before);
        }
    }

    /// What the collector says it has must be what it acknowledged, or at least what was sent.
    fn compare(&mut self, durable: &[Run]) {
        let has = |sequence: Sequence| durable.iter().any(|run| run.first <= sequence && sequence <= run.last());
        let lost: Vec<_> = self.ledger.acknowledged.iter().filter(|&&sequence| !has(sequence)).take(10).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        for run in durable {
            assert!(run.first >= 1 && run.last() < self.next, "{run:?} was never sent");
            self.ledger.acknowledged.extend(run.first..=run.last());
        }
    }

    async fn send(&mut self, live: &mut Live) -> Result<(), String> {
        let sequence = self.next;
        self.next += 1;
        let batch = self.samples.batch(sequence);
        self.ledger.sent.insert(sequence, batch.clone());
        live.send(sequence, &batch).await.map_err(|error| error.to_string())
    }

    async fn resend(&mut self, backlog: &mut Stream) -> Result<(), String> {
        let acknowledged = &self.ledger.acknowledged;
        let mut again: Vec<Sequence> =
            self.ledger.sent.keys().filter(|sequence| !acknowledged.contains(sequence)).copied().collect();
        // Some that are stored for certain, in any order.
        again.extend((0..5).filter(|_| self.next > 1).map(|_| self.rng.u64(1..self.next)));
        self.rng.shuffle(&mut again);
        for frame in again.chunks(BACKLOG_FRAME) {
            let batches = frame.iter().map(|&sequence| (sequence, &self.ledger.sent[&sequence]));
            send_backlog(backlog, batches).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn take(&mut self, answer: Result<Answer, StreamError>) -> Result<(), String> {
        match answer.map_err(|error| format!("{error:?}"))? {
            Answer::Ack(runs) => {
                let sequences = runs.iter().flat_map(|run| run.first..=run.last());
                for sequence in sequences {
                    assert!(self.ledger.sent.contains_key(&sequence), "{sequence} is acknowledged and was never sent");
                    self.ledger.acknowledged.insert(sequence);
                }
                self.progress.send_replace(self.acknowledged());
                Ok(())
            }
            Answer::Credit(_) => Ok(()),
            Answer::Refused(refused) => panic!("{refused:?}"),
            other => Err(format!("{other:?}")),
        }
    }
}

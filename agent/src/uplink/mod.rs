//! Keeps a connection to the collector and sends over it: live batches at once, backlog as credit allows.
//!
//! What happens on one connection is in [`session`]; this is what happens between connections.

mod session;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_common::{
    backoff::Backoff,
    client::{ConnectError, connect},
    clock,
    error_chain::ErrorChain,
    identity::{Identity, client_config},
    quic::CloseCode,
    wire::message::{FailureCode, Inventory},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{outbox::LiveSlot, spool::worker::SpoolHandle, statistics::Statistics};
use session::Ended;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// After an answer that only an operator can change.
const BACKOFF_REFUSED: Duration = Duration::from_secs(60);

/// Where to send and as whom.
#[derive(Debug, Clone)]
pub(crate) struct UplinkSettings {
    /// `HOST:PORT`.
    pub(crate) collector: String,
    pub(crate) state_directory: PathBuf,
    pub(crate) interval: Duration,
}

/// Sends what the outbox gives and the spool keeps.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) settings: UplinkSettings,
    pub(crate) identity: Identity,
    pub(crate) spool: SpoolHandle,
    pub(crate) live: Arc<LiveSlot>,
    pub(crate) statistics: Arc<Statistics>,
    /// The number that the next batch will have.
    pub(crate) next_sequence: Arc<AtomicU64>,
    /// Who uses the GPUs, whenever that is looked at.
    pub(crate) inventories: watch::Receiver<Inventory>,
}

impl Uplink {
    /// Connects again and again until the token is cancelled, then takes leave.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let Ok(mut backoff) = Backoff::try_new(BACKOFF_FIRST, BACKOFF_LAST) else { return };
        self.statistics.certificate_end_ms.store(self.identity.subject.not_after.as_millis(), Relaxed);
        while !token.is_cancelled() {
            let ended = self.connect_and_send(&token).await;
            let was_connected = self.statistics.is_connected.swap(false, Relaxed);
            self.live.close();
            if was_connected {
                backoff.reset();
            }
            let wait = match ended {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Renewed(identity)) => {
                    info!(serial = identity.subject.serial, "certificate renewed");
                    self.statistics.certificate_end_ms.store(identity.subject.not_after.as_millis(), Relaxed);
                    self.identity = *identity;
                    Duration::ZERO
                }
                Err(error) => {
                    let wait = wait(&error, &mut backoff);
                    warn!(error = %ErrorChain(&error), retry_in_ms = wait.as_millis() as u64, "not connected");
                    wait
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn connect_and_send(&mut self, token: &CancellationToken) -> Result<Ended, ConnectError> {
        if self.identity.subject.not_after <= clock::now() {
            error!("certificate has expired: join again with a new token");
        }
        let tls = client_config(&self.identity)?;
        let connection = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(Ended::Stopped),
            connection = connect(&self.settings.collector, tls) => connection?,
        };
        match session::run(self, &connection, token).await {
            Err(error) => Err(error.with_reason(&connection).await),
            ended => ended,
        }
    }
}

/// How long to stay away after this error.
fn wait(error: &ConnectError, backoff: &mut Backoff) -> Duration {
    let jittered = backoff.next(fastrand::f64());
    match error {
        _ if let Some(after) = error.retry_after() => after + jittered,
        ConnectError::Refused { code: FailureCode::Retry, .. } => jittered,
        ConnectError::Refused { .. } => BACKOFF_REFUSED + jittered,
        ConnectError::Closed {
            code: CloseCode::Revoked | CloseCode::Expired | CloseCode::Superseded | CloseCode::Protocol,
            ..
        } => BACKOFF_REFUSED + jittered,
        _ => jittered,
    }
}

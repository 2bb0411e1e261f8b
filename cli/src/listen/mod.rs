//! The door: accepts connections, finds out who is there, and gives each stream to what it is for.

mod admission;
mod connection;
mod connections;
mod denials;
mod turns;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_common::{clock, quic::CloseCode};
use quinn::{Connection, Endpoint, Incoming, VarInt};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::services::Services;
pub(crate) use admission::{Admission, AdmissionLimits, Decision, network};
pub(crate) use connection::{Member, audit_denied, fail, fail_for_now};
pub(crate) use connections::Connections;
use turns::Turns;

/// An honest handshake takes two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open streams get to send their last acknowledgements.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Accepts until the token is cancelled, then says goodbye to everyone.
pub(crate) async fn run(
    endpoint: Endpoint,
    limits: AdmissionLimits,
    services: Arc<Services>,
    token: CancellationToken,
) {
    let mut admission = Admission::new(limits, clock::monotonic());
    let handshakes = Arc::new(AtomicUsize::new(0));
    let turns = Arc::new(Turns::default());
    let tasks = TaskTracker::new();
    loop {
        let incoming = tokio::select! {
            biased;
            () = token.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let decision = admission.decide(
            network(incoming.remote_address().ip()),
            incoming.remote_address_validated(),
            endpoint.open_connections(),
            handshakes.load(Relaxed),
            clock::monotonic(),
        );
        match decision {
            Decision::Accept => {
                handshakes.fetch_add(1, Relaxed);
                let (services, handshakes, token) = (Arc::clone(&services), Arc::clone(&handshakes), token.clone());
                let turns = Arc::clone(&turns);
                tasks.spawn(async move {
                    let connected = shake_hands(incoming, &turns, &services).await;
                    handshakes.fetch_sub(1, Relaxed);
                    if let Some(connection) = connected {
                        connection::serve(connection, services, token).await;
                    }
                });
            }
            // It cannot have been proven and have to be proven again.
            Decision::Retry => drop(incoming.retry()),
            Decision::Refuse => {
                services.connections.count_refused();
                incoming.refuse();
            }
            Decision::Ignore => {
                services.connections.count_refused();
                incoming.ignore();
            }
        }
    }
    endpoint.set_server_config(None);
    tasks.close();
    if timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        debug!("closing connections that did not drain");
    }
    endpoint.close(VarInt::from_u32(CloseCode::Stopping as u32), b"collector stops");
    // Lets the goodbyes leave; whoever misses them finds out by silence.
    drop(timeout(Duration::from_secs(1), endpoint.wait_idle()).await);
}

/// The connection, if the handshake succeeds in time.
async fn shake_hands(incoming: Incoming, turns: &Turns, services: &Services) -> Option<Connection> {
    let address = incoming.remote_address();
    let Some(_turn) = turns.wait(network(address.ip())).await else {
        services.connections.count_refused();
        incoming.refuse();
        return None;
    };
    let connected = match incoming.accept() {
        Ok(connecting) => timeout(HANDSHAKE_TIMEOUT, connecting).await,
        Err(error) => Ok(Err(error)),
    };
    match connected {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => debug!(%address, %error, "handshake failed"),
        Err(_) => debug!(%address, "handshake took too long"),
    }
    services.connections.count_failed();
    None
}

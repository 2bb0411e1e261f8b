//! The door of HTTP: connections, TLS, and how long and how many.
//!
//! What hyper bounds is set here; what it does not bound is bounded here: connections in all and of one network, handshakes, peers that
//! take nothing. Who may not ask is sent away, and does not keep a connection (`guard`).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use belfry_common::{clock, error_chain::ErrorChain};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::stall::Stalling;
use crate::listen::{Admission, AdmissionLimits, Decision, network};

/// A dashboard opens six connections, a scraper one.
const CONNECTIONS_MAX: usize = 512;
const CONNECTIONS_PER_NETWORK_MAX: usize = 128;
/// How many strangers may come. A handshake costs a signature, which with an RSA key is a millisecond.
const ADMISSION: AdmissionLimits = AdmissionLimits {
    connections_max: CONNECTIONS_MAX,
    address_rate: 10.0,
    address_burst: 200.0,
    total_rate: 100.0,
    total_burst: 400.0,
    handshakes_unproven_max: CONNECTIONS_MAX,
};
/// An honest handshake takes two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may take for the head of a request, and be silent between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take nothing of an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest address of a request is that of a query; most ask with a form.
const HEAD_BYTES_MAX: usize = 128 * 1024;
const HEADERS_MAX: usize = 64;
/// How long answers under way get at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Before the next try to accept where that failed: no descriptor is free, mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Whether it must show a token: it came from outside this machine, or may have.
    pub(super) is_stranger: bool,
}

/// Accepts until the token is cancelled, then lets answers under way end. With TLS, everybody is a stranger.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, app: Router, token: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let networks = Arc::new(Networks::default());
    let mut admission = Admission::new(ADMISSION, clock::monotonic());
    let (tasks, cut_off) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let next = async {
            // Who comes when all are taken waits in the kernel.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = token.cancelled() => break,
            next = next => next,
        };
        let Ok(slot) = slot else { break };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "HTTP: no connection can be accepted");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let peer = Peer { address, is_stranger: tls.is_some() };
        let network = network(address.ip());
        // Over TCP an address is proven, and how many there are is told by the slots.
        if peer.is_stranger && admission.decide(network, true, 0, 0, clock::monotonic()) != Decision::Accept {
            debug!(%address, "HTTP: too many handshakes");
            continue;
        }
        let Some(place) = networks.enter(network) else {
            debug!(%address, "HTTP: too many connections of one network");
            continue;
        };
        let (tls, app, token, cut_off) = (tls.clone(), app.clone(), token.clone(), cut_off.clone());
        tasks.spawn(async move {
            let held: (OwnedSemaphorePermit, Place) = (slot, place);
            tokio::select! {
                () = connection(stream, tls, app, peer, token) => {}
                () = cut_off.cancelled() => debug!(%address, "HTTP: an answer under way is cut off"),
            }
            drop(held);
        });
    }
    drop(listener);
    tasks.close();
    if timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        cut_off.cancel();
        tasks.wait().await;
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, app: Router, peer: Peer, token: CancellationToken) {
    // An answer is written in pieces that are worth a packet.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "HTTP: TCP_NODELAY");
    }
    match tls {
        None => requests(stream, app, peer, token).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, app, peer, token).await,
            Ok(Err(error)) => debug!(address = %peer.address, error = %ErrorChain(&error), "HTTP: no handshake"),
            Err(_) => debug!(address = %peer.address, "HTTP: handshake took too long"),
        },
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    app: Router,
    peer: Peer,
    token: CancellationToken,
) {
    let service = TowerToHyperService::new(app.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Stalling::new(stream, STALL_TIMEOUT)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(address = %peer.address, error = %ErrorChain(&error), "HTTP: connection ended");
    }
}

/// How many connections each network has.
#[derive(Debug, Default)]
struct Networks(Mutex<HashMap<IpAddr, usize>>);

impl Networks {
    /// A place for one more, if there is one.
    fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= CONNECTIONS_PER_NETWORK_MAX {
            return None;
        }
        *count += 1;
        Some(Place { networks: Arc::clone(self), ip })
    }
}

/// One connection of a network.
#[derive(Debug)]
struct Place {
    networks: Arc<Networks>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.networks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_so_many_connections_and_leaves_nothing_behind() {
        let networks = Arc::new(Networks::default());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let places: Vec<Place> = std::iter::from_fn(|| networks.enter(one)).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_NETWORK_MAX);
        assert!(networks.enter(other).is_some());
        drop(places);
        assert!(networks.enter(one).is_some());
        assert!(networks.0.lock().unwrap().is_empty());
    }
}

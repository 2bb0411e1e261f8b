//! The door of HTTP: connections, TLS, and how long and how many.
//!
//! What hyper bounds is set here; what it does not bound is bounded here: connections in all and of one address, handshakes, peers that
//! neither send nor take anything.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use belfry_common::error_chain::ErrorChain;
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

/// A dashboard opens six connections, a scraper one.
const CONNECTIONS_MAX: usize = 512;
const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
/// An honest handshake takes two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may take for the head of a request, and be silent between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may neither take anything of an answer nor send anything of a request.
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
    let addresses = Arc::new(Addresses::default());
    let tasks = TaskTracker::new();
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
        let Some(place) = addresses.enter(address.ip()) else {
            debug!(%address, "HTTP: too many connections of one address");
            continue;
        };
        let (tls, app, token) = (tls.clone(), app.clone(), token.clone());
        tasks.spawn(async move {
            let held: (OwnedSemaphorePermit, Place) = (slot, place);
            connection(stream, tls, app, peer, token).await;
            drop(held);
        });
    }
    drop(listener);
    tasks.close();
    if timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        debug!("HTTP: answers under way were cut off");
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

/// How many connections each address has.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    /// A place for one more, if there is one.
    fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Place { addresses: Arc::clone(self), ip })
    }
}

/// One connection of an address.
#[derive(Debug)]
struct Place {
    addresses: Arc<Addresses>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn an_address_has_so_many_connections_and_leaves_nothing_behind() {
        let addresses = Arc::new(Addresses::default());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let places: Vec<Place> = std::iter::from_fn(|| addresses.enter(one)).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_ADDRESS_MAX);
        assert!(addresses.enter(other).is_some());
        drop(places);
        assert!(addresses.enter(one).is_some());
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}

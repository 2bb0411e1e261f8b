//! A collector that answers as a test wants: with the real one's authority, or with one of its own.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use belfry_common::{
    clock,
    identity::{Authority, JoinKeys, PeerVerifier, server_config},
    quic,
};
use quinn::{Connection, Endpoint};
use rcgen::KeyPair;
use rustls::{
    crypto::ring::sign::any_supported_type,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const LIFE: Duration = Duration::from_secs(3600);

/// Listens, and does nothing else by itself.
#[derive(Debug)]
pub struct FakeCollector {
    endpoint: Endpoint,
}

impl FakeCollector {
    /// One with the authority of this directory, which is made if there is none.
    #[must_use]
    pub fn start(authority_directory: &Path) -> Self {
        let now = clock::now();
        let authority = Authority::open(authority_directory, now).unwrap();
        let verifier = PeerVerifier::new(authority.certificate(), Arc::new(Anyone)).unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = authority.certify_collector(&key, &[], LIFE, now).unwrap();
        let private: PrivateKeyDer<'_> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let chain = vec![issued.certificate, authority.certificate().clone()];
        let certificate = Arc::new(CertifiedKey::new(chain, any_supported_type(&private).unwrap()));
        let tls = server_config(Arc::new(verifier), Arc::new(Fixed(certificate))).unwrap();
        Self { endpoint: quic::listen(([127, 0, 0, 1], 0).into(), tls, &authority.derive("listener")).unwrap() }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// The next connection whose handshake succeeds.
    pub async fn accept(&self) -> Connection {
        loop {
            let incoming = self.endpoint.accept().await.unwrap();
            if let Ok(connection) = incoming.await {
                return connection;
            }
        }
    }

    /// Whether the next attempt's handshake succeeds.
    ///
    /// # Errors
    /// Why not.
    pub async fn accept_once(&self) -> Result<Connection, quinn::ConnectionError> {
        self.endpoint.accept().await.unwrap().await
    }
}

/// A fake would take any token.
#[derive(Debug)]
struct Anyone;

impl JoinKeys for Anyone {
    fn is_known(&self, _: &[u8; 32]) -> bool {
        true
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

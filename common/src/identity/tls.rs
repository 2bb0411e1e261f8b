//! TLS 1.3 for both sides. No session is ever resumed and nothing is sent early: a revoked peer must not come
//! back through a ticket.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    server::{
        ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;

use super::{Identity, JoinToken, Subject, SubjectError, TokenError, key_sha256};
use crate::wire::ALPN;

/// A side of TLS that cannot be set up, or a peer that is not accepted.
#[derive(Debug, Error)]
pub enum TlsError {
    /// rustls refused the settings or the key.
    #[error("failed to set up TLS")]
    Setup(#[source] rustls::Error),
    /// No authority is usable.
    #[error("failed to set up the check of certificates")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    /// The token is no key.
    #[error("unusable join token")]
    Token(#[source] TokenError),
    /// The peer's certificate is not of this program's form.
    #[error("peer has an unusable certificate")]
    Subject(#[source] SubjectError),
    /// The peer is neither a member nor the holder of a token.
    #[error("peer has no accepted certificate")]
    Stranger,
}

/// The join tokens that are known, by the SHA-256 of their public keys.
pub trait JoinKeys: std::fmt::Debug + Send + Sync {
    /// Whether a token with this key exists. It may be used up: the holder is told so after the handshake.
    fn is_known(&self, key_sha256: &[u8; 32]) -> bool;
}

/// Who is at the other end of a connection to the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Holds a certificate of this collector's CA.
    Member(Subject),
    /// Holds a token and may do nothing but join.
    Joiner {
        /// SHA-256 of the token's public key.
        key_sha256: [u8; 32],
    },
}

/// Accepts members by the CA's signature and newcomers by their token's key; everyone must show one of them.
#[derive(Debug)]
pub struct PeerVerifier {
    members: Arc<dyn ClientCertVerifier>,
    join_keys: Arc<dyn JoinKeys>,
}

impl PeerVerifier {
    /// Trusts one CA and a changing set of tokens.
    ///
    /// # Errors
    /// [`TlsError`] when the CA's certificate is unusable.
    pub fn new(authority: &CertificateDer<'static>, join_keys: Arc<dyn JoinKeys>) -> Result<Self, TlsError> {
        let roots = roots(std::slice::from_ref(authority))?;
        let members = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(TlsError::Verifier)?;
        Ok(Self { members, join_keys })
    }

    /// Who showed this certificate in a finished handshake.
    ///
    /// Checked once more from the CA down, because a token's holder may write anything in its own certificate.
    ///
    /// # Errors
    /// [`TlsError`] when it is nobody's.
    pub fn identify(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<Peer, TlsError> {
        if self.members.verify_client_cert(certificate, &[], now).is_ok() {
            return Subject::parse(certificate).map(Peer::Member).map_err(TlsError::Subject);
        }
        match key_sha256(certificate) {
            Some(key_sha256) if self.join_keys.is_known(&key_sha256) => Ok(Peer::Joiner { key_sha256 }),
            _ => Err(TlsError::Stranger),
        }
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: they would tell strangers the name of the CA.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refusal = match self.members.verify_client_cert(end_entity, intermediates, now) {
            Ok(verified) => return Ok(verified),
            Err(refusal) => refusal,
        };
        match key_sha256(end_entity) {
            Some(key) if self.join_keys.is_known(&key) => Ok(ClientCertVerified::assertion()),
            _ => Err(refusal),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.members.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.members.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.members.supported_verify_schemes()
    }
}

/// The collector's side.
///
/// # Errors
/// [`TlsError::Setup`] when rustls refuses the settings.
pub fn server_config(
    verifier: Arc<PeerVerifier>,
    certificate: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The side of an agent or a user who holds a certificate.
///
/// # Errors
/// [`TlsError`] when the identity is unusable.
pub fn client_config(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let roots = roots(&identity.authorities)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(TlsError::Setup)?;
    Ok(hardened(config))
}

/// The side of a newcomer: trusts only the CA that its token pins.
///
/// # Errors
/// [`TlsError`] when the token is unusable.
pub fn join_config(token: &JoinToken) -> Result<ClientConfig, TlsError> {
    let (certificate, key) = token.identity().map_err(TlsError::Token)?;
    let verifier = PinnedAuthority { authority_sha256: token.authority_sha256(), provider: provider() };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![certificate], key)
        .map_err(TlsError::Setup)?;
    Ok(hardened(config))
}

fn hardened(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(TlsError::Setup)?;
    }
    Ok(roots)
}

/// Accepts a collector whose chain leads to the CA with a given key, by the usual rules from there on.
#[derive(Debug)]
struct PinnedAuthority {
    authority_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let stranger = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let pinned = intermediates.iter().find(|certificate| key_sha256(certificate) == Some(self.authority_sha256));
        let authority = pinned.ok_or_else(stranger)?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| stranger())?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

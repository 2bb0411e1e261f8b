//! Who is who: certificates, roles and the tokens that lead to them.
//!
//! The collector is its own certificate authority. Every peer holds a short-lived certificate whose
//! subject names it and its role; nothing that a peer says in a message about itself counts. A newcomer proves
//! that it holds a token, whose secret is a key: the token's key *is* its identity for that one connection, so the
//! secret itself never travels and the collector keeps only a hash of the public half.
//!
//! What is revoked and which tokens are valid is the collector's state, not here.

mod authority;
mod files;
mod subject;
mod tls;
mod token;

pub use authority::{Authority, AuthorityError, IssueError, Issued, Profile};
pub use files::{Identity, IdentityError, write_private};
pub use subject::{Role, RoleError, Subject, SubjectError};
pub use tls::{JoinKeys, Peer, PeerVerifier, TlsError, client_config, join_config, server_config};
pub use token::{JoinToken, TokenError};

use ring::digest;
use rustls_pki_types::CertificateDer;

/// The name that the collector's certificate carries, wherever it is reached: trust comes from the pinned CA, not from DNS.
pub const COLLECTOR_NAME: &str = "collector.belfry";

/// SHA-256 of a certificate's public key (SubjectPublicKeyInfo, DER); `None` when it is no certificate.
#[must_use]
pub fn key_sha256(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(sha256(parsed.public_key().raw))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

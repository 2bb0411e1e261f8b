//! Who may connect, as what, and until when: the authority, the tokens and the refusals, in memory for every handshake and in
//! the database for the next start.

mod certificate;
mod http_tokens;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use belfry_common::{
    error_chain::ErrorChain,
    identity::{
        Authority, AuthorityError, Identity, IdentityError, IssueError, JoinKeys, JoinToken, Peer, PeerVerifier,
        Profile, Role, Subject, TlsError, TokenError as JoinTokenError, server_config,
    },
    model::{NodeName, Timestamp},
};
use rustls::server::ResolvesServerCert;
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use certificate::{CertificateFileError, CollectorCertificate, FileCertificate};
use http_tokens::HttpTokens;

pub(crate) use certificate::CertificateFiles;
pub(crate) use http_tokens::{Bearer, BearerError, HttpTokenWish};

use crate::state::{
    self, State, StateError,
    certificates::{self, CertificateError, Holder, Serial},
    nodes,
    tokens::{self, Admission, JoinError, NewToken, TokenError},
};

/// Why access cannot be set up or given.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    JoinToken(#[from] JoinTokenError),
    #[error(transparent)]
    Name(belfry_common::model::NameError),
    #[error("failed to make the collector's key")]
    Key(#[source] rcgen::Error),
    #[error("failed to use the collector's key")]
    KeyUse(#[source] rustls::Error),
    #[error(transparent)]
    Files(#[from] CertificateFileError),
    #[error("failed to set up TLS")]
    Setup(#[source] rustls::Error),
    #[error("the system gives no random numbers")]
    Random,
}

impl AccessError {
    /// Whether the same request can succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::State(error) if error.is_retryable())
    }
}

/// Gives and takes access.
#[derive(Debug)]
pub(crate) struct Access {
    authority: Arc<Authority>,
    state: State,
    join_keys: Arc<KnownKeys>,
    refused: RwLock<Refused>,
    verifier: Arc<PeerVerifier>,
    collector: Arc<CollectorCertificate>,
    /// What is shown over HTTP in place of the collector's own.
    files: Option<Arc<FileCertificate>>,
    http_tokens: HttpTokens,
    /// Held while what is in memory follows the database, so that none of two changes at once is lost.
    changes: tokio::sync::Mutex<()>,
    life: Duration,
}

#[derive(Debug, Default)]
struct Refused {
    nodes: HashSet<u64>,
    serials: HashSet<String>,
}

/// A newcomer's certificate.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) admission: Admission,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Access {
    /// Opens the authority of the data directory and loads who is refused.
    pub(crate) async fn open(
        directory: &Path,
        state: State,
        life: Duration,
        files: Option<&CertificateFiles>,
        now: Timestamp,
    ) -> Result<Self, AccessError> {
        let files = files.map(FileCertificate::open).transpose()?.map(Arc::new);
        let authority = Authority::open(directory, now)?;
        let join_keys = Arc::new(KnownKeys::default());
        let verifier = PeerVerifier::new(authority.certificate(), Arc::clone(&join_keys) as Arc<dyn JoinKeys>)?;
        let collector = CollectorCertificate::issue(&authority, life, now)?;
        let access = Self {
            authority: Arc::new(authority),
            state,
            join_keys,
            refused: RwLock::default(),
            verifier: Arc::new(verifier),
            collector: Arc::new(collector),
            files,
            http_tokens: HttpTokens::default(),
            changes: tokio::sync::Mutex::default(),
            life,
        };
        access.reload().await?;
        Ok(access)
    }

    /// TLS as the listener uses it.
    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig, AccessError> {
        let resolver = Arc::clone(&self.collector) as Arc<dyn ResolvesServerCert>;
        Ok(server_config(Arc::clone(&self.verifier), resolver)?)
    }

    /// TLS as HTTP uses it beyond this machine: clients show tokens, not certificates.
    pub(crate) fn http_config(&self) -> Result<rustls::ServerConfig, AccessError> {
        let resolver: Arc<dyn ResolvesServerCert> = match &self.files {
            Some(files) => Arc::clone(files) as _,
            None => Arc::clone(&self.collector) as _,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(AccessError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// What lets a restarted listener end the connections of the one before.
    pub(crate) fn listener_secret(&self) -> [u8; 32] {
        self.authority.derive("listener")
    }

    /// Who showed this certificate.
    pub(crate) fn identify(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> Result<Peer, TlsError> {
        let seconds = u64::try_from(now.as_millis() / 1000).unwrap_or(0);
        self.verifier.identify(certificate, UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }

    /// Why a member may not speak any more, if so.
    pub(crate) fn refusal(&self, subject: &Subject, now: Timestamp) -> Option<Refusal> {
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        if refused.serials.contains(&subject.serial) || (subject.id > 0 && refused.nodes.contains(&subject.id)) {
            Some(Refusal::Revoked)
        } else if subject.not_after <= now {
            Some(Refusal::Expired)
        } else {
            None
        }
    }

    /// The CA's certificates, for those who join.
    pub(crate) fn authorities(&self) -> Vec<Vec<u8>> {
        vec![self.authority.certificate().to_vec()]
    }

    /// Makes a token. Its text exists only in the answer.
    pub(crate) async fn create_token(
        &self,
        wish: TokenWish,
        now: Timestamp,
    ) -> Result<(String, JoinToken), AccessError> {
        let token = JoinToken::generate(self.authority.key_sha256(), wish.role)?;
        let key_sha256 = token.key_sha256()?;
        let new = NewToken {
            key_sha256,
            role: wish.role,
            names: wish.names,
            uses: wish.uses,
            expires_at: now.plus(wish.life),
            created_by: wish.created_by,
        };
        let _turn = self.changes.lock().await;
        let id = self.state.write(move |transaction| tokens::create(transaction, &new, now)).await?;
        self.join_keys.insert(key_sha256);
        Ok((id, token))
    }

    /// Lets a newcomer in, once per use of its token.
    pub(crate) async fn admit(
        &self,
        key_sha256: [u8; 32],
        name: NodeName,
        csr: Vec<u8>,
        now: Timestamp,
    ) -> Result<Admitted, AccessError> {
        let (authority, life) = (Arc::clone(&self.authority), self.life);
        let consumed = self.state.write(move |transaction| {
            tokens::consume(transaction, &key_sha256, &name, now, |admission| {
                let id = admission.node.map_or(0, nodes::NodeId::as_u64);
                let profile = Profile { name: admission.name.clone(), role: admission.role, id, life };
                authority.certify(&csr, &profile, now)
            })
        });
        let (admission, issued) = consumed.await?;
        Ok(Admitted { admission, certificate: issued.certificate })
    }

    /// Certifies a member's new key under its old name, role and number.
    pub(crate) async fn renew(
        &self,
        subject: &Subject,
        csr: Vec<u8>,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, AccessError> {
        let node = nodes::NodeId::new(subject.id);
        self.certify(subject.name.clone(), subject.role, node, csr, now).await
    }

    /// Certifies a key for a node or a user that is known already.
    pub(crate) async fn certify(
        &self,
        name: NodeName,
        role: Role,
        node: Option<nodes::NodeId>,
        csr: Vec<u8>,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, AccessError> {
        let holder = node.map_or_else(|| Holder::User(name.clone()), Holder::Node);
        let profile = Profile { name, role, id: node.map_or(0, nodes::NodeId::as_u64), life: self.life };
        let authority = Arc::clone(&self.authority);
        let issued = self.state.write(move |transaction| {
            certificates::may_renew(transaction, &holder, now)?;
            let issued = authority.certify(&csr, &profile, now)?;
            certificates::record(transaction, &holder, profile.role, &issued, now)?;
            Ok::<_, AccessError>(issued)
        });
        Ok(issued.await?.certificate)
    }

    /// Keeps an administrator's identity in the data directory, for use on this machine without any step.
    pub(crate) async fn keep_local_identity(&self, directory: &Path, now: Timestamp) -> Result<(), AccessError> {
        if let Ok(identity) = Identity::load(directory)
            && identity.subject.renew_at() > now
            && identity.authorities.iter().any(|authority| authority == self.authority.certificate())
            && self.refusal(&identity.subject, now).is_none()
        {
            return Ok(());
        }
        let (key, csr) = Identity::request()?;
        let name = NodeName::from_host_name("local-admin");
        let profile = Profile { name: name.clone(), role: Role::Admin, id: 0, life: self.life };
        let issued = self.authority.certify(&csr, &profile, now)?;
        let identity = Identity::new(key, issued.certificate.clone(), vec![self.authority.certificate().clone()])?;
        self.state
            .write(move |transaction| {
                certificates::record(transaction, &Holder::User(name), Role::Admin, &issued, now).map(|_: Serial| ())
            })
            .await?;
        Ok(identity.save(directory)?)
    }

    /// Makes a new certificate for the collector's side when two thirds of the old one's life are over, and takes one that was put into
    /// its file.
    pub(crate) fn renew_collector(&self, now: Timestamp) {
        if let Some(files) = &self.files {
            files.refresh();
        }
        if self.collector.renew_at() > now {
            return;
        }
        match CollectorCertificate::certify(&self.authority, self.life, now) {
            Ok(new) => self.collector.replace(new),
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "collector's certificate cannot be renewed");
            }
        }
    }

    /// Reads from the database who is refused and which tokens are known.
    pub(crate) async fn reload(&self) -> Result<(), StateError> {
        let _turn = self.changes.lock().await;
        let known = self.state.read(|view| {
            Ok::<_, StateError>((certificates::refusals(view)?, tokens::keys(view)?, state::http_tokens::list(view)?))
        });
        let (refusals, keys, http_tokens) = known.await?;
        self.http_tokens.replace(http_tokens);
        let refused = Refused {
            nodes: refusals.nodes.iter().map(|node| node.as_u64()).collect(),
            serials: refusals.serials.iter().map(|serial| serial.as_str().to_string()).collect(),
        };
        *self.refused.write().unwrap_or_else(PoisonError::into_inner) = refused;
        self.join_keys.replace(keys);
        Ok(())
    }
}

/// A token that somebody wants.
#[derive(Debug)]
pub(crate) struct TokenWish {
    pub(crate) role: Role,
    pub(crate) names: tokens::NamePattern,
    pub(crate) uses: std::num::NonZeroU32,
    pub(crate) life: Duration,
    pub(crate) created_by: NodeName,
}

/// Why a member may not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Revoked,
    Expired,
}

#[derive(Debug, Default)]
struct KnownKeys(RwLock<HashSet<[u8; 32]>>);

impl KnownKeys {
    fn insert(&self, key: [u8; 32]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    fn replace(&self, keys: Vec<[u8; 32]>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.into_iter().collect();
    }
}

impl JoinKeys for KnownKeys {
    fn is_known(&self, key_sha256: &[u8; 32]) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(key_sha256)
    }
}

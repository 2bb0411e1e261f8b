//! The certificates that the collector shows: one of its own authority, and over HTTP one that somebody put into a file.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use belfry_common::{error_chain::ErrorChain, identity::Authority, model::Timestamp};
use rcgen::KeyPair;
use rustls::{
    crypto::ring::sign::any_supported_type,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
    pem::{self, PemObject as _},
};
use thiserror::Error;
use tracing::{info, warn};

use super::AccessError;

/// The collector's own certificate, renewed while it runs; its key lives in memory only.
#[derive(Debug)]
pub(super) struct CollectorCertificate {
    current: RwLock<(Arc<CertifiedKey>, Timestamp)>,
}

impl CollectorCertificate {
    pub(super) fn issue(authority: &Authority, life: Duration, now: Timestamp) -> Result<Self, AccessError> {
        Ok(Self { current: RwLock::new(Self::certify(authority, life, now)?) })
    }

    pub(super) fn certify(
        authority: &Authority,
        life: Duration,
        now: Timestamp,
    ) -> Result<(Arc<CertifiedKey>, Timestamp), AccessError> {
        let key = KeyPair::generate().map_err(AccessError::Key)?;
        let issued = authority.certify_collector(&key, &own_names(), life, now)?;
        let private: PrivateKeyDer<'_> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let signer = any_supported_type(&private).map_err(AccessError::KeyUse)?;
        let chain = vec![issued.certificate, authority.certificate().clone()];
        let renew_at = now.plus_millis(issued.not_after.millis_since(now) / 3 * 2);
        Ok((Arc::new(CertifiedKey::new(chain, signer)), renew_at))
    }

    pub(super) fn renew_at(&self) -> Timestamp {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1
    }

    pub(super) fn replace(&self, new: (Arc<CertifiedKey>, Timestamp)) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

impl ResolvesServerCert for CollectorCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

/// The names and addresses by which this machine may be called.
fn own_names() -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut names: BTreeSet<String> = ["localhost".to_owned(), host].into();
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    for address in interfaces.filter_map(|interface| interface.address) {
        names.extend(address.as_sockaddr_in().map(|address| address.ip().to_string()));
        let v6 = address.as_sockaddr_in6().map(|address| address.ip());
        names.extend(v6.filter(|ip| !ip.is_unicast_link_local()).map(|ip| ip.to_string()));
    }
    names.retain(|name| ServerName::try_from(name.as_str()).is_ok());
    names.into_iter().collect()
}

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// PEM: the certificate, then those between it and the root.
    pub(crate) certificate: PathBuf,
    /// PEM: the private key, in PKCS #8, PKCS #1 or SEC 1.
    pub(crate) key: PathBuf,
}

/// Files that are no certificate and its key.
#[derive(Debug, Error)]
pub(crate) enum CertificateFileError {
    #[error("failed to read `{}` as PEM", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("`{}` holds no certificate", path.display())]
    Empty { path: PathBuf },
    #[error("key `{}` cannot be used", path.display())]
    Key {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("key `{}` is not that of certificate `{}`", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
}

/// A certificate that others renew by putting a new one into its file.
#[derive(Debug)]
pub(super) struct FileCertificate {
    files: CertificateFiles,
    current: RwLock<(Arc<CertifiedKey>, Changes)>,
}

/// When the certificate and its key were changed; nothing of a file that is not there.
type Changes = [Option<SystemTime>; 2];

impl FileCertificate {
    pub(super) fn open(files: &CertificateFiles) -> Result<Self, CertificateFileError> {
        let changed_at = changed_at(files);
        Ok(Self { files: files.clone(), current: RwLock::new((load(files)?, changed_at)) })
    }

    /// Takes what is in the files by now. What cannot be used leaves the old one in force.
    pub(super) fn refresh(&self) {
        let changed_at = changed_at(&self.files);
        if changed_at == self.current.read().unwrap_or_else(PoisonError::into_inner).1 {
            return;
        }
        let loaded = load(&self.files);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.1 = changed_at;
        match loaded {
            Ok(new) => {
                info!(file = %self.files.certificate.display(), "certificate for HTTP renewed");
                current.0 = new;
            }
            Err(error) => {
                warn!(error = %ErrorChain(&error), "certificate for HTTP cannot be renewed: the old one stays");
            }
        }
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

/// Each for itself: a pair is put there one after the other, and the second may be the older.
fn changed_at(files: &CertificateFiles) -> Changes {
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn load(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, CertificateFileError> {
    let CertificateFiles { certificate, key } = files;
    let unread = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CertificateFileError::Read { path, source }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).map_err(unread(certificate))?.collect();
    let chain = chain.map_err(unread(certificate))?;
    if chain.is_empty() {
        return Err(CertificateFileError::Empty { path: certificate.clone() });
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(unread(key))?;
    let signer =
        any_supported_type(&private).map_err(|source| CertificateFileError::Key { path: key.clone(), source })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(CertificateFileError::Mismatch { certificate: certificate.clone(), key: key.clone() })
        }
        // A kind of key that cannot be compared is found out by clients.
        _ => Ok(Arc::new(certified)),
    }
}

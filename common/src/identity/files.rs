//! An identity on disk: `key.pem`, `certificate.pem`, `authorities.pem` and the collector's address in `collector`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use pem::Pem;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use thiserror::Error;

use super::{Subject, SubjectError};

const KEY_FILE: &str = "key.pem";
const CERTIFICATE_FILE: &str = "certificate.pem";
const AUTHORITIES_FILE: &str = "authorities.pem";
const COLLECTOR_FILE: &str = "collector";

/// An identity that cannot be loaded, made or kept.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is none in this directory.
    #[error("no identity in `{directory}`")]
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A file could not be read or written.
    #[error("failed to access `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{path}` does not hold what it should: join again")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// The certificate is not of this program's form.
    #[error("unusable certificate")]
    Subject(#[source] SubjectError),
    /// No key could be made.
    #[error("failed to generate a key")]
    Key(#[source] rcgen::Error),
}

/// A key, its certificate and whom to trust.
#[derive(Debug)]
pub struct Identity {
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// The leaf.
    pub certificate: CertificateDer<'static>,
    /// The CA's certificates.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What the certificate says.
    pub subject: Subject,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone_key(),
            certificate: self.certificate.clone(),
            authorities: self.authorities.clone(),
            subject: self.subject.clone(),
        }
    }
}

impl Identity {
    /// Puts an identity together.
    ///
    /// # Errors
    /// [`IdentityError::Subject`] when the certificate is not of this program's form.
    pub fn new(
        key: PrivateKeyDer<'static>,
        certificate: CertificateDer<'static>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let subject = Subject::parse(&certificate).map_err(IdentityError::Subject)?;
        Ok(Self { key, certificate, authorities, subject })
    }

    /// A fresh key and a request (PKCS #10, DER) to have it certified.
    ///
    /// # Errors
    /// [`IdentityError::Key`] when the system cannot make one.
    pub fn request() -> Result<(PrivateKeyDer<'static>, Vec<u8>), IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::Key)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(IdentityError::Key)?;
        Ok((PrivatePkcs8KeyDer::from(key.serialize_der()).into(), request.der().to_vec()))
    }

    /// Loads the identity of a directory.
    ///
    /// # Errors
    /// [`IdentityError`]: missing, unreadable or damaged.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(CERTIFICATE_FILE);
        match fs::metadata(&path) {
            Ok(_) => {}
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(IdentityError::File { path, source });
            }
            Err(_) => return Err(IdentityError::Missing { directory: directory.to_path_buf() }),
        }
        let key_path = directory.join(KEY_FILE);
        let key =
            PrivateKeyDer::from_pem_slice(&read(&key_path)?).map_err(|_| IdentityError::Damaged { path: key_path })?;
        let certificate = certificates(&directory.join(CERTIFICATE_FILE))?.into_iter().next();
        let certificate =
            certificate.ok_or_else(|| IdentityError::Damaged { path: directory.join(CERTIFICATE_FILE) })?;
        let authorities = certificates(&directory.join(AUTHORITIES_FILE))?;
        Self::new(key, certificate, authorities)
    }

    /// Makes the directory, and sure that an identity can be kept in it: before a token is used up for one.
    ///
    /// # Errors
    /// [`IdentityError::File`] for whatever the file system refuses.
    pub fn prepare(directory: &Path) -> Result<(), IdentityError> {
        let failed = |path: &Path, source| IdentityError::File { path: path.to_path_buf(), source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(|source| failed(directory, source))?;
        let path = directory.join(".trial");
        write_private(&path, b"").and_then(|()| fs::remove_file(&path)).map_err(|source| failed(&path, source))
    }

    /// Keeps the identity in a directory that only its owner can read. Replaces what is there file by file; the
    /// certificate comes last, and without it there is no identity.
    ///
    /// # Errors
    /// [`IdentityError::File`] for whatever the file system refuses.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        Self::prepare(directory)?;
        let write = |name: &str, tag: &str, parts: &[&[u8]]| {
            let path = directory.join(name);
            let text: String = parts.iter().map(|&der| Pem::new(tag, der).to_string()).collect();
            write_private(&path, text.as_bytes()).map_err(|source| IdentityError::File { path, source })
        };
        let authorities: Vec<&[u8]> = self.authorities.iter().map(|authority| &**authority).collect();
        write(AUTHORITIES_FILE, "CERTIFICATE", &authorities)?;
        write(KEY_FILE, "PRIVATE KEY", &[self.key.secret_der()])?;
        write(CERTIFICATE_FILE, "CERTIFICATE", &[&self.certificate])
    }

    /// The collector's address that was kept beside the identity, if any.
    #[must_use]
    pub fn collector_address(directory: &Path) -> Option<String> {
        let text = fs::read_to_string(directory.join(COLLECTOR_FILE)).ok()?;
        Some(text.trim().to_string()).filter(|address| !address.is_empty())
    }

    /// Keeps the collector's address (`HOST:PORT`) beside the identity.
    ///
    /// # Errors
    /// [`IdentityError::File`] for whatever the file system refuses.
    pub fn save_collector_address(directory: &Path, address: &str) -> Result<(), IdentityError> {
        let path = directory.join(COLLECTOR_FILE);
        write_private(&path, format!("{address}\n").as_bytes()).map_err(|source| IdentityError::File { path, source })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| IdentityError::File { path: path.to_path_buf(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let text = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    parsed.ok().filter(|found| !found.is_empty()).ok_or_else(|| IdentityError::Damaged { path: path.to_path_buf() })
}

/// Replaces a file by one that only its owner can read; after a power cut it is the old one or the new one.
///
/// The owner is the directory's: what an administrator puts into a service's directory is for the service.
///
/// # Errors
/// Whatever the file system refuses.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = directory.join(format!(".{name}.{:016x}", fastrand::u64(..)));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).and_then(|mut file| {
        file.write_all(bytes)?;
        let (owner, own) = (fs::metadata(directory)?, file.metadata()?);
        if owner.uid() != own.uid() {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&aside, path));
    if let Err(error) = replaced {
        // The error that matters is the one above; a leftover is harmless.
        drop(fs::remove_file(&aside));
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

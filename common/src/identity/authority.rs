//! The certificate authority that a collector creates at its first start.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use pem::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject as _};
use thiserror::Error;

use super::{COLLECTOR_NAME, Role, key_sha256, write_private};
use crate::model::{NodeName, Timestamp};

/// Overlapping roots are for a later version; a root that outlives the hardware needs none for long.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of nodes lag: a certificate counts from a little before it was made.
const BACKDATE_MAX: Duration = Duration::from_secs(3600);
const KEY_FILE: &str = "ca.key.pem";
const CERTIFICATE_FILE: &str = "ca.pem";
/// X.520 `serialNumber`: the number under which the collector knows a node.
const OID_SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// An authority that cannot be created or loaded.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("failed to access `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{path}` is damaged: restore it from a backup; a new authority would lock out every enrolled node")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// One of the two files is there without the other.
    #[error(
        "`{path}` is missing while its pair is there: restore it from a backup; a new authority would lock out every enrolled node"
    )]
    Incomplete {
        /// Which.
        path: PathBuf,
    },
    /// The key or the certificate could not be made.
    #[error("failed to create the certificate authority")]
    Create(#[source] rcgen::Error),
}

/// A certificate that cannot be issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The request is malformed, or its signature is not by the key that it shows.
    #[error("certificate request is malformed or not signed by its own key")]
    Request,
    /// The key is of a kind that is not accepted.
    #[error("certificate request has a key of an unsupported kind: P-256 or Ed25519 is needed")]
    Key,
    /// Signing failed.
    #[error("failed to sign the certificate")]
    Sign(#[source] rcgen::Error),
    /// The system gave no random numbers.
    #[error("failed to draw a random serial number")]
    Random,
}

/// For whom and for how long a certificate is issued: everything but the key is the authority's word.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The holder's name.
    pub name: NodeName,
    /// What it may do.
    pub role: Role,
    /// The collector's number for it; 0 for users.
    pub id: u64,
    /// How long the certificate counts from now.
    pub life: Duration,
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf.
    pub certificate: CertificateDer<'static>,
    /// Its serial number in lower-case hexadecimal, as [`super::Subject::serial`] gives it.
    pub serial: String,
    /// When it begins to count.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    key_sha256: [u8; 32],
}

impl Authority {
    /// The files in which it is kept: made once, never changed, and irreplaceable.
    pub const FILES: [&str; 2] = [KEY_FILE, CERTIFICATE_FILE];

    /// Whether there is something of an authority in this directory.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        Self::FILES.iter().any(|name| directory.join(name).exists())
    }

    /// Loads the authority of this directory, or creates it if there is none.
    ///
    /// # Errors
    /// [`AuthorityError`]; half an authority is never completed, a damaged one never replaced.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        let (key, certificate) = (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        match (key.exists(), certificate.exists()) {
            (true, true) => Self::load(&key, &certificate),
            (false, false) => Self::create(&key, &certificate, now),
            (true, false) => Err(AuthorityError::Incomplete { path: certificate }),
            (false, true) => Err(AuthorityError::Incomplete { path: key }),
        }
    }

    fn load(key_path: &Path, certificate_path: &Path) -> Result<Self, AuthorityError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.to_path_buf(), source })
        };
        let damaged = |path: &Path| AuthorityError::Damaged { path: path.to_path_buf() };
        let key = KeyPair::from_pem(&read(key_path)?).map_err(|_| damaged(key_path))?;
        let certificate = CertificateDer::from_pem_slice(read(certificate_path)?.as_bytes())
            .map_err(|_| damaged(certificate_path))?;
        let is_pair = x509_parser::parse_x509_certificate(&certificate)
            .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info());
        if !is_pair {
            return Err(damaged(certificate_path));
        }
        Self::assemble(certificate, key).map_err(|_| damaged(certificate_path))
    }

    fn create(key_path: &Path, certificate_path: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Create)?;
        let mut params = CertificateParams::default();
        let serial = random_serial().map_err(|_| AuthorityError::Create(rcgen::Error::RingUnspecified))?;
        let mut name = DistinguishedName::new();
        let tag: String = serial.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        name.push(DnType::CommonName, format!("Belfry CA {tag}"));
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(now) - BACKDATE_MAX;
        params.not_after = date(now) + AUTHORITY_LIFE;
        let certificate = params.self_signed(&key).map_err(AuthorityError::Create)?;
        let file = |path: &Path, text: &str| {
            write_private(path, text.as_bytes())
                .map_err(|source| AuthorityError::File { path: path.to_path_buf(), source })
        };
        file(key_path, &key.serialize_pem())?;
        file(certificate_path, &Pem::new("CERTIFICATE", certificate.der().to_vec()).to_string())?;
        Self::assemble(certificate.der().clone(), key).map_err(AuthorityError::Create)
    }

    fn assemble(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, rcgen::Error> {
        let key_sha256 = key_sha256(&certificate).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, issuer, key_sha256 })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What join tokens pin: SHA-256 of the authority's public key (SPKI).
    #[must_use]
    pub fn key_sha256(&self) -> [u8; 32] {
        self.key_sha256
    }

    /// A secret for another purpose that follows from the authority's key: the same at every start, known to nobody else.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.issuer.key().serialize_der());
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
        secret
    }

    /// Certifies the key of a PKCS #10 request. Nothing else of the request is used.
    ///
    /// # Errors
    /// [`IssueError`] when the request is malformed, its signature wrong or its key of another kind.
    pub fn certify(&self, csr: &[u8], profile: &Profile, now: Timestamp) -> Result<Issued, IssueError> {
        let csr = CertificateSigningRequestDer::from(csr);
        let request = CertificateSigningRequestParams::from_der(&csr).map_err(|_| IssueError::Request)?;
        let algorithm = request.public_key.algorithm();
        if algorithm != &rcgen::PKCS_ECDSA_P256_SHA256 && algorithm != &rcgen::PKCS_ED25519 {
            return Err(IssueError::Key);
        }
        let mut params = leaf(profile);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &request.public_key, profile.life, now)
    }

    /// Certifies a key for the collector's own side of connections. Agents and clients know it as [`COLLECTOR_NAME`];
    /// `names` are the host names and addresses by which others may call it.
    ///
    /// # Errors
    /// [`IssueError`] when a name is none, or signing fails.
    pub fn certify_collector(
        &self,
        key: &KeyPair,
        names: &[String],
        life: Duration,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        let names: Vec<String> = names.iter().cloned().chain([COLLECTOR_NAME.to_owned()]).collect();
        let mut params = CertificateParams::new(names).map_err(IssueError::Sign)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, COLLECTOR_NAME);
        params.distinguished_name = name;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key, life, now)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl rcgen::PublicKeyData,
        life: Duration,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        let serial = random_serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let backdate = BACKDATE_MAX.min(life / 10);
        // X.509 counts whole seconds: what is reported is what the certificate says.
        let whole = Timestamp::from_millis(now.as_millis().div_euclid(1000) * 1000);
        params.not_before = date(whole) - Duration::from_secs(backdate.as_secs());
        params.not_after = date(whole) + life;
        let certificate = params.signed_by(key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(Issued {
            certificate: certificate.der().clone(),
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: Timestamp::from_millis(params.not_before.unix_timestamp() * 1000),
            not_after: Timestamp::from_millis(params.not_after.unix_timestamp() * 1000),
        })
    }
}

fn leaf(profile: &Profile) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, profile.name.as_str());
    name.push(DnType::OrganizationalUnitName, profile.role.as_str());
    name.push(DnType::CustomDnType(OID_SERIAL_NUMBER.to_vec()), profile.id.to_string());
    params.distinguished_name = name;
    params
}

/// 127 random bits: unique without a counter, positive without a leading zero byte.
fn random_serial() -> Result<[u8; 16], IssueError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| IssueError::Random)?;
    serial[0] = (serial[0] & 0x7F) | 0x40;
    Ok(serial)
}

fn date(time: Timestamp) -> time::OffsetDateTime {
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0))
}

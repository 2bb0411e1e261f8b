//! What a certificate says about its holder.
//!
//! Subject: `CN` is the name, `OU` the role, `serialNumber` (2.5.4.5) the number under which the collector knows
//! a node. Each must be there exactly once, so that no second value can be read by somebody else.

use std::{fmt, str::FromStr};

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::{oid_registry::OID_X509_SERIALNUMBER, x509::AttributeTypeAndValue};

use crate::model::{NodeName, Timestamp};

/// What a peer may do. Each role may do what the ones before it may, except that only agents send batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sends a node's batches and nothing else.
    Agent,
    /// Reads everything.
    Viewer,
    /// Also acknowledges and silences alerts.
    Operator,
    /// Also makes tokens and revokes identities.
    Admin,
}

impl Role {
    /// Every role, from the least to the most powerful.
    pub const ALL: [Self; 4] = [Self::Agent, Self::Viewer, Self::Operator, Self::Admin];

    /// The word in certificates, on the command line and in the audit log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of a role.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown role {0:?}: it must be agent, viewer, operator or admin")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError(text.chars().take(40).collect()))
    }
}

/// The holder of a certificate, as the certificate has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The node's or user's name.
    pub name: NodeName,
    /// What it may do.
    pub role: Role,
    /// The collector's number for it; 0 for users.
    pub id: u64,
    /// The certificate's serial number, in lower-case hexadecimal.
    pub serial: String,
    /// The certificate counts from here on.
    pub not_before: Timestamp,
    /// The certificate counts up to here.
    pub not_after: Timestamp,
}

/// A certificate that this program did not issue in this form.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SubjectError {
    /// Not X.509.
    #[error("not a certificate")]
    Malformed,
    /// A part of the subject is missing, there twice, or not as it must be.
    #[error("certificate's subject has no single valid {0}")]
    Part(&'static str),
}

impl Subject {
    /// Reads a certificate. Whether it is to be trusted is decided elsewhere.
    ///
    /// # Errors
    /// [`SubjectError`] when it is no certificate or its subject is not of this program's form.
    pub fn parse(certificate: &CertificateDer<'_>) -> Result<Self, SubjectError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| SubjectError::Malformed)?;
        let subject = parsed.subject();
        let name = single(subject.iter_common_name()).and_then(|text| text.parse().ok());
        let role = single(subject.iter_organizational_unit()).and_then(|text| text.parse().ok());
        let id = single(subject.iter_by_oid(&OID_X509_SERIALNUMBER)).and_then(|text| text.parse().ok());
        let millis = |time: x509_parser::time::ASN1Time| Timestamp::from_millis(time.timestamp().saturating_mul(1000));
        Ok(Self {
            name: name.ok_or(SubjectError::Part("name"))?,
            role: role.ok_or(SubjectError::Part("role"))?,
            id: id.ok_or(SubjectError::Part("number"))?,
            serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: millis(parsed.validity().not_before),
            not_after: millis(parsed.validity().not_after),
        })
    }

    /// When two thirds of the certificate's life are over: time to renew it.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.millis_since(self.not_before);
        self.not_before.plus_millis(life / 3 * 2)
    }
}

fn single<'a>(mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let first = values.next()?;
    if values.next().is_some() { None } else { first.as_str().ok() }
}

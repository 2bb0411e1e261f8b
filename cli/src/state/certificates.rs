//! Every certificate that the collector issued, and which of them count no more.
//!
//! What is revoked is a node, a user or a serial number, never a hash of a certificate: the same certificate can be
//! encoded in more than one way. A restarted collector loads [`refusals`] before it listens.
//!
//! Absent: keys and signing (they are the authority's), the live check during handshakes (it holds a copy in memory).

use std::{fmt, str::FromStr};

use belfry_common::{
    identity::{Issued, Role},
    model::{NodeName, Timestamp},
};
use thiserror::Error;

use super::{
    error::StateError,
    nodes::{self, NodeId, Standing},
    sqlite::{Row, Snapshot, Transaction, invalid, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE certificates (
    serial         TEXT    PRIMARY KEY,
    node           INTEGER REFERENCES nodes (id),
    user           TEXT,
    role           TEXT    NOT NULL,
    not_before_ms  INTEGER NOT NULL,
    not_after_ms   INTEGER NOT NULL,
    issued_at_ms   INTEGER NOT NULL,
    revoked_at_ms  INTEGER,
    CHECK ((node IS NULL) <> (user IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_node ON certificates (node) WHERE node IS NOT NULL;
CREATE INDEX certificates_user ON certificates (user) WHERE user IS NOT NULL;
CREATE INDEX certificates_end ON certificates (not_after_ms);
";

/// An expired certificate is refused by TLS itself. Its row stays this long for people who ask who that was, and for
/// clocks that are wrong.
pub(crate) const EXPIRED_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;

/// Certificates of one holder that have not expired, beyond which it gets no other by renewal: each is signed and written down.
/// In order there are two, and a few of renewals whose answer was lost.
pub(crate) const LIVE_PER_HOLDER_MAX: u64 = 16;

/// Serial numbers have 16 bytes; RFC 5280 (4.1.2.2) allows 20.
const SERIAL_BYTES: std::ops::RangeInclusive<usize> = 16..=20;

/// A serial number in its only form: lower-case hexadecimal without leading zero bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Serial(String);

/// Not a serial number of this collector's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("certificate serial number {0:?} is not valid: it must have 16 to 20 bytes in hexadecimal")]
pub(crate) struct SerialError(String);

impl Serial {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let refused = || SerialError(text.chars().take(80).collect());
        let mut digits = text;
        // DER puts a zero byte before a number whose first bit is set.
        while let Some(rest) = digits.strip_prefix("00") {
            digits = rest;
        }
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex && digits.len().is_multiple_of(2) && SERIAL_BYTES.contains(&(digits.len() / 2)) {
            Ok(Self(digits.to_ascii_lowercase()))
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A node, by its number: its name can pass to another one.
    Node(NodeId),
    /// A person or script, by name. One user may hold several certificates.
    User(NodeName),
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Its number.
    pub(crate) serial: Serial,
    /// Whom it names.
    pub(crate) holder: Holder,
    /// What its holder may do.
    pub(crate) role: Role,
    /// It counts from here on.
    pub(crate) not_before: Timestamp,
    /// It counts up to here.
    pub(crate) not_after: Timestamp,
    /// When it was made.
    pub(crate) issued_at: Timestamp,
    /// When it was taken back.
    pub(crate) revoked_at: Option<Timestamp>,
}

/// Who must be refused, whatever else their certificates say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refusals {
    /// Nodes that are revoked, locked or forgotten.
    pub(crate) nodes: Vec<NodeId>,
    /// Revoked certificates that TLS would still accept.
    pub(crate) serials: Vec<Serial>,
}

/// A certificate that must not be handed out.
#[derive(Debug, Error)]
pub(crate) enum CertificateError {
    /// The node may not send, so that it gets no new certificate either.
    #[error("node {id} is revoked, locked or forgotten and gets no certificate; forget it and let it join anew")]
    Refused {
        /// Its number.
        id: NodeId,
    },
    /// Its holder has more than anybody needs.
    #[error(
        "there are {LIVE_PER_HOLDER_MAX} certificates of this identity that have not expired: it renews itself too often"
    )]
    TooMany,
    /// The authority made a number that this table does not take.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Records a certificate before it is handed out: one that is not here cannot be revoked by its holder's name.
///
/// # Errors
/// [`CertificateError::Refused`] when the node was revoked meanwhile; the certificate must then be thrown away.
pub(crate) fn record(
    transaction: &Transaction<'_>,
    holder: &Holder,
    role: Role,
    issued: &Issued,
    now: Timestamp,
) -> Result<Serial, CertificateError> {
    let serial: Serial = issued.serial.parse()?;
    let (node, user) = match holder {
        Holder::Node(id) => (Some(admitted(transaction, *id)?.column()), None),
        Holder::User(name) => (None, Some(name.as_str())),
    };
    transaction.execute(
        "INSERT INTO certificates (serial, node, user, role, not_before_ms, not_after_ms, issued_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            serial.as_str(),
            node,
            user,
            role.as_str(),
            issued.not_before.as_millis(),
            issued.not_after.as_millis(),
            now.as_millis()
        ],
    )?;
    Ok(serial)
}

/// Refuses a renewal of a holder who has too many certificates already.
///
/// # Errors
/// [`CertificateError::TooMany`].
pub(crate) fn may_renew(view: &Snapshot<'_>, holder: &Holder, now: Timestamp) -> Result<(), CertificateError> {
    let (node, user) = match holder {
        Holder::Node(id) => (Some(id.column()), None),
        Holder::User(name) => (None, Some(name.as_str())),
    };
    let live: Option<u64> = view.row(
        "SELECT count(*) AS live FROM certificates WHERE (node = ?1 OR user = ?2) AND not_after_ms > ?3",
        params![node, user, now.as_millis()],
        |row| row.unsigned("live"),
    )?;
    if live.unwrap_or(0) >= LIVE_PER_HOLDER_MAX { Err(CertificateError::TooMany) } else { Ok(()) }
}

fn admitted(view: &Snapshot<'_>, id: NodeId) -> Result<NodeId, CertificateError> {
    match nodes::by_id(view, id)? {
        Some(node) if node.standing == Standing::Admitted => Ok(id),
        _ => Err(CertificateError::Refused { id }),
    }
}

#[cfg_attr(not(test), expect(dead_code, reason = "for taking back a user's certificates"))]
/// The certificate of this number, if it was issued here and not pruned.
pub(crate) fn by_serial(view: &Snapshot<'_>, serial: &Serial) -> Result<Option<Certificate>, StateError> {
    view.row("SELECT * FROM certificates WHERE serial = ?1", params![serial.as_str()], read)
}

#[cfg_attr(not(test), expect(dead_code, reason = "for taking back a user's certificates"))]
/// Revokes one certificate. False when it is unknown or was revoked before.
pub(crate) fn revoke(transaction: &Transaction<'_>, serial: &Serial, now: Timestamp) -> Result<bool, StateError> {
    let changed = transaction.execute(
        "UPDATE certificates SET revoked_at_ms = ?2 WHERE serial = ?1 AND revoked_at_ms IS NULL",
        params![serial.as_str(), now.as_millis()],
    )?;
    Ok(changed > 0)
}

/// Revokes every certificate of a node and returns those that counted until now.
pub(super) fn revoke_node(
    transaction: &Transaction<'_>,
    node: NodeId,
    now: Timestamp,
) -> Result<Vec<Serial>, StateError> {
    transaction.rows(
        "UPDATE certificates SET revoked_at_ms = ?2 WHERE node = ?1 AND revoked_at_ms IS NULL RETURNING serial",
        params![node.column(), now.as_millis()],
        read_serial,
    )
}

#[cfg_attr(not(test), expect(dead_code, reason = "for taking back a user's certificates"))]
/// Revokes every certificate of a user and returns those that counted until now.
pub(crate) fn revoke_user(
    transaction: &Transaction<'_>,
    user: &NodeName,
    now: Timestamp,
) -> Result<Vec<Serial>, StateError> {
    transaction.rows(
        "UPDATE certificates SET revoked_at_ms = ?2 WHERE user = ?1 AND revoked_at_ms IS NULL RETURNING serial",
        params![user.as_str(), now.as_millis()],
        read_serial,
    )
}

/// Everybody who must be refused from the first connection on. A serial counts until its row is pruned, in case the clock is wrong.
pub(crate) fn refusals(view: &Snapshot<'_>) -> Result<Refusals, StateError> {
    let serials =
        view.rows("SELECT serial FROM certificates WHERE revoked_at_ms IS NOT NULL ORDER BY serial", [], read_serial)?;
    Ok(Refusals { nodes: nodes::refused(view)?, serials })
}

/// Removes certificates that expired [`EXPIRED_KEPT_MS`] ago and returns how many.
pub(crate) fn prune(transaction: &Transaction<'_>, now: Timestamp) -> Result<usize, StateError> {
    transaction.execute(
        "DELETE FROM certificates WHERE not_after_ms < ?1",
        params![now.plus_millis(-EXPIRED_KEPT_MS).as_millis()],
    )
}

fn read_serial(row: &Row<'_>) -> Result<Serial, StateError> {
    row.parse("serial")
}

fn read(row: &Row<'_>) -> Result<Certificate, StateError> {
    let user: Option<String> = row.get("user")?;
    let holder = match user {
        Some(name) => Holder::User(name.parse().map_err(|_| invalid("user", &name))?),
        None => Holder::Node(NodeId::read(row, "node")?),
    };
    Ok(Certificate {
        serial: read_serial(row)?,
        holder,
        role: row.parse("role")?,
        not_before: row.time("not_before_ms")?,
        not_after: row.time("not_after_ms")?,
        issued_at: row.time("issued_at_ms")?,
        revoked_at: row.time_if_any("revoked_at_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scratch::{Scratch, at, issued, name};

    fn serial(byte: u8) -> Serial {
        format!("{byte:02x}").repeat(16).parse().unwrap()
    }

    fn node_with(scratch: &Scratch, serials: &[u8]) -> NodeId {
        let node = scratch.write(|t| nodes::enrol(t, &name("a"), at(0))).unwrap();
        for &byte in serials {
            let holder = Holder::Node(node);
            scratch.write(move |t| record(t, &holder, Role::Agent, &issued(byte, 1_000), at(1))).unwrap();
        }
        node
    }

    #[test]
    fn a_serial_number_has_one_form() {
        let plain = "7f".repeat(16);
        for same in [plain.clone(), plain.to_uppercase(), format!("00{plain}"), format!("0000{plain}")] {
            assert_eq!(same.parse::<Serial>().unwrap().as_str(), plain, "{same}");
        }
        for bad in ["", "00", "7f", &"7f".repeat(15), &"7f".repeat(21), &"7g".repeat(16), &plain[1..]] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_holder_renews_while_it_has_few_certificates_that_have_not_expired() {
        let scratch = Scratch::new();
        let many: Vec<u8> = (0x30..).take(LIVE_PER_HOLDER_MAX as usize).collect();
        let node = node_with(&scratch, &many);
        let may = |holder: Holder, millis| scratch.read(move |view| may_renew(view, &holder, at(millis)));
        assert!(matches!(may(Holder::Node(node), 10), Err(CertificateError::TooMany)));
        assert!(may(Holder::User(name("a")), 10).is_ok(), "a user of that name is somebody else");
        assert!(may(Holder::Node(node), 1_000_000).is_ok(), "they have expired");
    }

    #[test]
    fn revoking_a_node_revokes_every_serial_and_survives_a_restart() {
        let scratch = Scratch::new();
        let node = node_with(&scratch, &[0x51, 0x52]);
        assert_eq!(scratch.read(refusals).unwrap(), Refusals::default());
        let revoked = scratch.write(|t| nodes::revoke(t, &name("a"), at(9))).unwrap();
        let both = vec![serial(0x51), serial(0x52)];
        assert_eq!(revoked, nodes::Revoked { node, serials: both.clone() });
        let scratch = scratch.reopen();
        assert_eq!(scratch.read(refusals).unwrap(), Refusals { nodes: vec![node], serials: both });
    }

    #[test]
    fn a_revoked_node_gets_no_new_certificate() {
        let scratch = Scratch::new();
        let node = node_with(&scratch, &[]);
        scratch.write(|t| nodes::revoke(t, &name("a"), at(9))).unwrap();
        let renewed = scratch.write(move |t| record(t, &Holder::Node(node), Role::Agent, &issued(1, 1_000), at(10)));
        assert!(matches!(renewed, Err(CertificateError::Refused { .. })), "{renewed:?}");
    }

    #[test]
    fn one_serial_can_be_revoked_alone() {
        let scratch = Scratch::new();
        node_with(&scratch, &[0x51, 0x52]);
        assert!(scratch.write(|t| revoke(t, &serial(0x51), at(9))).unwrap());
        assert!(!scratch.write(|t| revoke(t, &serial(0x51), at(10))).unwrap(), "again");
        let first = scratch.read(|view| by_serial(view, &serial(0x51))).unwrap().unwrap();
        assert_eq!(first.revoked_at, Some(at(9)));
        assert_eq!(scratch.read(refusals).unwrap(), Refusals { nodes: vec![], serials: vec![serial(0x51)] });
    }

    #[test]
    fn a_user_loses_every_certificate_of_the_name() {
        let scratch = Scratch::new();
        for (byte, user) in [(0x61, "eve"), (0x62, "eve"), (0x63, "bob")] {
            let holder = Holder::User(name(user));
            scratch.write(move |t| record(t, &holder, Role::Admin, &issued(byte, 1_000), at(1))).unwrap();
        }
        let lost = scratch.write(|t| revoke_user(t, &name("eve"), at(2))).unwrap();
        assert_eq!(lost, [serial(0x61), serial(0x62)]);
        let kept = scratch.read(|view| by_serial(view, &serial(0x63))).unwrap().unwrap();
        assert_eq!((kept.holder, kept.role, kept.revoked_at), (Holder::User(name("bob")), Role::Admin, None));
    }

    #[test]
    fn long_expired_certificates_go() {
        let scratch = Scratch::new();
        node_with(&scratch, &[0x51]);
        assert_eq!(scratch.write(|t| prune(t, at(1_000 + EXPIRED_KEPT_MS))).unwrap(), 0);
        assert_eq!(scratch.write(|t| prune(t, at(1_001 + EXPIRED_KEPT_MS))).unwrap(), 1);
    }
}

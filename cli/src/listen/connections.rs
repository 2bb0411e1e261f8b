//! The connections that are open, so that they can be found and closed: when a node is revoked, when its certificate ends, or
//! when it connects a second time.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use belfry_common::{identity::Subject, model::Timestamp, quic::CloseCode};
use quinn::Connection;

use crate::access::{Access, Refusal};

/// Open connections of members, by number.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, (Subject, Connection)>>,
    /// The connection on which each node sends.
    senders: Mutex<HashMap<u64, u64>>,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Connections {
    /// Takes in a connection and gives it a number.
    pub(crate) fn add(&self, subject: Subject, connection: Connection) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (subject, connection));
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, sender| *sender != number);
    }

    /// Notes that this connection is the one on which the node sends now; an older one is closed.
    pub(crate) fn supersede(&self, node: u64, number: u64) {
        let before = self.senders.lock().unwrap_or_else(PoisonError::into_inner).insert(node, number);
        let Some(before) = before.filter(|&before| before != number) else { return };
        if let Some((_, connection)) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&before) {
            CloseCode::Superseded.close(connection, "the same node has connected again");
        }
    }

    /// Closes every connection whose holder may not speak any more.
    pub(crate) fn close_refused(&self, access: &Access, now: Timestamp) {
        for (subject, connection) in self.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            match access.refusal(subject, now) {
                Some(Refusal::Revoked) => CloseCode::Revoked.close(connection, "this identity is revoked"),
                Some(Refusal::Expired) => CloseCode::Expired.close(connection, "this certificate has expired"),
                None => {}
            }
        }
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn open_now(&self) -> u64 {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Attempts turned away at the door since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Handshakes that failed since the start.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }
}

//! The connections that are open, so that they can be found and closed: when a node is revoked, when its certificate ends, or
//! when it connects a second time.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use belfry_common::{
    identity::{Role, Subject},
    model::{NodeName, Timestamp},
    quic::CloseCode,
};
use quinn::Connection;

use super::denials::Denials;
use crate::access::{Access, Refusal};

/// Open connections of members, by number.
#[derive(Debug)]
pub(crate) struct Connections {
    connections_max: usize,
    next: AtomicU64,
    open: Mutex<Open>,
    /// The connection on which each node sends.
    senders: Mutex<HashMap<u64, u64>>,
    refused: AtomicU64,
    failed: AtomicU64,
    dismissed: AtomicU64,
    denials: Mutex<Denials>,
}

#[derive(Debug, Default)]
struct Open {
    by_number: HashMap<u64, (Subject, Connection)>,
    /// How many each holder has.
    by_holder: HashMap<(Role, NodeName), usize>,
}

/// How many connections may come back each second after a stop: what one core can shake hands with.
const RETURNS_PER_SECOND: u64 = 400;

/// Connections of one agent: the one on which it sends, and a few that have not noticed yet that they are gone.
const PER_AGENT_MAX: usize = 8;
/// Connections of one person or script, each with up to four requests.
const PER_PERSON_MAX: usize = 64;

/// Whose refusals are counted together, however often its certificate is renewed.
fn holder(subject: &Subject) -> String {
    format!("{} {}", subject.role, subject.name)
}

impl Connections {
    /// No connections, with room for this many.
    pub(crate) fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            next: AtomicU64::default(),
            open: Mutex::default(),
            senders: Mutex::default(),
            refused: AtomicU64::default(),
            failed: AtomicU64::default(),
            dismissed: AtomicU64::default(),
            denials: Mutex::default(),
        }
    }

    /// Takes in a connection and gives it a number.
    pub(crate) fn add(&self, subject: Subject, connection: Connection) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        let mut open = self.open();
        *open.by_holder.entry((subject.role, subject.name.clone())).or_default() += 1;
        open.by_number.insert(number, (subject, connection));
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        let mut open = self.open();
        if let Some((subject, _)) = open.by_number.remove(&number)
            && let Entry::Occupied(mut count) = open.by_holder.entry((subject.role, subject.name))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        drop(open);
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, sender| *sender != number);
    }

    /// Notes that this connection is the one on which the node sends now; an older one is closed.
    pub(crate) fn supersede(&self, node: u64, number: u64) {
        let before = self.senders.lock().unwrap_or_else(PoisonError::into_inner).insert(node, number);
        let Some(before) = before.filter(|&before| before != number) else { return };
        if let Some((_, connection)) = self.open().by_number.get(&before) {
            CloseCode::Superseded.close(connection, "the same node has connected again");
        }
    }

    /// Closes every connection whose holder may not speak any more.
    pub(crate) fn close_refused(&self, access: &Access, now: Timestamp) {
        for (subject, connection) in self.open().by_number.values() {
            match access.refusal(subject, now) {
                Some(Refusal::Revoked) => CloseCode::Revoked.close(connection, "this identity is revoked"),
                Some(Refusal::Expired) => CloseCode::Expired.close(connection, "this certificate has expired"),
                None => {}
            }
        }
    }

    /// Closes a connection because the collector stops, and gives its holder a turn to come back, so that a fleet does not return at
    /// one instant.
    pub(crate) fn dismiss(&self, connection: &Connection) {
        let turn = self.dismissed.fetch_add(1, Relaxed);
        let wait = Duration::from_millis(turn * 1000 / RETURNS_PER_SECOND);
        CloseCode::Stopping.close_until(connection, "the collector stops", wait);
    }

    /// Why there is no room for one more connection of this holder, if there is none. People are let in where agents are not.
    pub(crate) fn no_room_for(&self, subject: &Subject) -> Option<&'static str> {
        let open = self.open();
        let own = open.by_holder.get(&(subject.role, subject.name.clone())).copied().unwrap_or_default();
        let is_agent = subject.role == Role::Agent;
        if own >= if is_agent { PER_AGENT_MAX } else { PER_PERSON_MAX } {
            Some("this identity has too many connections")
        } else if is_agent && open.by_number.len() >= self.connections_max {
            Some("the collector has too many connections")
        } else {
            None
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn open_now(&self) -> u64 {
        self.open().by_number.len() as u64
    }

    /// Counts a request that was not allowed. If it is to be written down: how many before it were not.
    pub(super) fn count_denied(&self, subject: &Subject, now: Instant) -> Option<u64> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).count(&holder(subject), now)
    }

    /// Requests that were not allowed, since the start.
    pub(crate) fn denied(&self) -> u64 {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).total()
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

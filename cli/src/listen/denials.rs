//! How many refusals of one peer are written down: each costs a row that stays for ever and an fsync, and to ask costs nothing.
//!
//! Pure: told the time. What is not written is counted, and the next row that is written says how many there were.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Rows for one holder in one [`PERIOD`].
const ROWS_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);
/// Holders beyond which those that are silent are forgotten.
const PEERS_TIDY: usize = 1024;

/// Who was refused lately.
#[derive(Debug, Default)]
pub(super) struct Denials {
    peers: HashMap<String, Peer>,
    total: u64,
}

#[derive(Debug)]
struct Peer {
    began: Instant,
    rows: u32,
    unwritten: u64,
}

impl Denials {
    /// Counts a refusal of this holder. If it is to be written down: how many before it were not.
    pub(super) fn count(&mut self, holder: &str, now: Instant) -> Option<u64> {
        self.total += 1;
        let is_over = |peer: &Peer| now.saturating_duration_since(peer.began) >= PERIOD;
        if self.peers.len() >= PEERS_TIDY && !self.peers.contains_key(holder) {
            self.peers.retain(|_, peer| !is_over(peer));
        }
        let peer = self.peers.entry(holder.to_string()).or_insert_with(|| Peer { began: now, rows: 0, unwritten: 0 });
        if is_over(peer) {
            (peer.began, peer.rows) = (now, 0);
        }
        if peer.rows >= ROWS_MAX {
            peer.unwritten += 1;
            return None;
        }
        peer.rows += 1;
        Some(std::mem::take(&mut peer.unwritten))
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_written_and_the_rest_are_counted_into_a_later_one() {
        let mut denials = Denials::default();
        let now = belfry_common::clock::monotonic();
        let written = (0..1_000).filter(|_| denials.count("1", now) == Some(0));
        assert_eq!(written.count(), 10);
        assert_eq!(denials.count("2", now), Some(0), "others are none of its business");
        assert_eq!(denials.count("1", now + PERIOD), Some(990));
        assert_eq!(denials.count("1", now + PERIOD), Some(0));
        assert_eq!(denials.total(), 1_003);
    }

    #[test]
    fn silent_peers_are_forgotten() {
        let mut denials = Denials::default();
        let now = belfry_common::clock::monotonic();
        for n in 0..10_000_u32 {
            denials.count(&n.to_string(), now + PERIOD * n);
        }
        assert!(denials.peers.len() <= PEERS_TIDY);
    }
}

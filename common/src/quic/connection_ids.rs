//! Connection IDs that a collector knows for its own, also after a restart.
//!
//! ```text
//! connection ID = nonce, 5 bytes · the beginning of HMAC-SHA256(key, nonce), 3 bytes
//! ```
//!
//! After a restart, packets of connections that are not known any more are answered with a reset, so that agents come back at
//! once. An ID that is given out again meanwhile would take such packets for its own, and its former holder would wait for its idle
//! timeout. The nonces of 3 bytes that quinn's own generator has are too few: of 4,000 nodes a few meet in each restart.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid, RandomConnectionIdGenerator};
use ring::hmac;

const NONCE_BYTES: usize = 5;
const TAG_BYTES: usize = 3;

/// Makes IDs whose tags follow from the key.
#[derive(Debug, Clone)]
pub(super) struct TaggedIds(hmac::Key);

impl TaggedIds {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    fn tagged(&self, nonce: &[u8]) -> ConnectionId {
        let mac = hmac::sign(&self.0, nonce);
        let bytes: Vec<u8> = nonce.iter().chain(mac.as_ref().iter().take(TAG_BYTES)).copied().collect();
        ConnectionId::new(&bytes)
    }
}

impl ConnectionIdGenerator for TaggedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.tagged(&RandomConnectionIdGenerator::new(NONCE_BYTES).generate_cid())
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let nonce = id.get(..NONCE_BYTES).ok_or(InvalidCid)?;
        if self.tagged(nonce) == *id { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        NONCE_BYTES + TAG_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids(secret: &[u8]) -> TaggedIds {
        TaggedIds::new(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    #[test]
    fn an_id_is_known_after_a_restart_and_to_nobody_else() {
        let id = ids(b"a").generate_cid();
        assert_eq!(id.len(), ids(b"a").cid_len());
        assert!(ids(b"a").validate(&id).is_ok());
        assert!(ids(b"b").validate(&id).is_err());
        assert!(ids(b"a").validate(&ConnectionId::new(&[0; 8])).is_err());
        assert!(ids(b"a").validate(&ConnectionId::new(&[1, 2])).is_err());
    }

    /// With nonces of 3 bytes 50,000 IDs would meet about 75 times.
    #[test]
    fn ids_of_a_fleet_do_not_meet() {
        let mut ids = ids(b"a");
        let different: HashSet<_> = (0..50_000).map(|_| ids.generate_cid()).collect();
        assert_eq!(different.len(), 50_000);
    }
}

//! Handshakes of one address take turns: more at once would only make each of them too slow to succeed.
//!
//! By address, so that whoever begins handshakes and does not finish them holds up nobody else. Nodes behind one address wait
//! for each other, and get in faster than if all were refused and came again.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Handshakes of one address at once: a few hundredths of a second of work.
const AT_ONCE: usize = 64;
/// Who has not had a turn by then is better off asking again.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Addresses beyond which those that wait for nothing are forgotten.
const ADDRESSES_TIDY: usize = 1024;

/// Whose turn it is, by address.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<IpAddr, Weak<Semaphore>>>);

impl Turns {
    /// Waits for a turn, which lasts until the permit is dropped; none if it takes too long.
    pub(super) async fn wait(&self, address: IpAddr) -> Option<OwnedSemaphorePermit> {
        timeout(WAIT_MAX, self.of(address).acquire_owned()).await.ok()?.ok()
    }

    fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = turns.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        if turns.len() >= ADDRESSES_TIDY {
            turns.retain(|_, turns| turns.strong_count() > 0);
        }
        let new = Arc::new(Semaphore::new(AT_ONCE));
        turns.insert(address, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_finishes_holds_up_itself_alone() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(turns.wait(address(1)).await.unwrap());
        }
        assert!(turns.wait(address(1)).await.is_none());
        assert!(turns.wait(address(2)).await.is_some());
        held.pop();
        assert!(turns.wait(address(1)).await.is_some());
    }

    #[tokio::test]
    async fn addresses_that_are_done_are_forgotten() {
        let turns = Turns::default();
        for n in 0..4 * ADDRESSES_TIDY as u32 {
            drop(turns.wait(Ipv4Addr::from_bits(n).into()).await);
        }
        assert!(turns.0.lock().unwrap().len() <= ADDRESSES_TIDY);
    }
}

//! Which connection attempts get a handshake: a handshake costs a signature, and floods are free for the attacker.
//!
//! Pure: told the time, the address and the load, it decides. Buckets refill with time; the table of addresses is bounded.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// How many connections may come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdmissionLimits {
    /// Open at a time before agents are sent away.
    pub(crate) connections_max: usize,
    /// Handshakes a second from one address, in the long run. A fleet behind one address is one address.
    pub(crate) address_rate: f64,
    /// Handshakes at once from one address.
    pub(crate) address_burst: f64,
    /// Handshakes a second from everywhere.
    pub(crate) total_rate: f64,
    /// Handshakes at once from everywhere.
    pub(crate) total_burst: f64,
    /// From this many unfinished handshakes on, addresses must prove that they are theirs.
    pub(crate) handshakes_unproven_max: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            address_rate: 400.0,
            address_burst: 2_000.0,
            total_rate: 1_000.0,
            total_burst: 4_000.0,
            handshakes_unproven_max: 64,
        }
    }
}

/// Connections beyond the most that agents may have: for people, and for agents while they are told when to come back.
const CONNECTIONS_BEYOND: usize = 256;

/// Addresses whose buckets are remembered. A new one beyond drives out the fullest: who has not come lately.
const ADDRESSES_MAX: usize = 16_384;

/// What to do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Begin the handshake.
    Accept,
    /// Ask for a proof of the address first.
    Retry,
    /// Say no: the honest will wait.
    Refuse,
    /// Say nothing: an answer would only help a flood.
    Ignore,
}

/// Decides, and remembers who came.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    total: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn level(&self, rate: f64, burst: f64, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.filled).as_secs_f64() * rate).min(burst)
    }

    fn take(&mut self, rate: f64, burst: f64, now: Instant) -> bool {
        self.tokens = self.level(rate, burst, now);
        self.filled = now;
        let is_enough = self.tokens >= 1.0;
        if is_enough {
            self.tokens -= 1.0;
        }
        is_enough
    }
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits, now: Instant) -> Self {
        let total = Bucket { tokens: limits.total_burst, filled: now };
        Self { limits, total, addresses: HashMap::new() }
    }

    /// Decides on an attempt from `address` (see [`network`]), `is_proven` to be the sender's.
    pub(crate) fn decide(
        &mut self,
        address: IpAddr,
        is_proven: bool,
        connections: usize,
        handshakes: usize,
        now: Instant,
    ) -> Decision {
        if !is_proven && handshakes >= self.limits.handshakes_unproven_max {
            return Decision::Retry;
        }
        if connections >= self.limits.connections_max + CONNECTIONS_BEYOND {
            return if is_proven { Decision::Refuse } else { Decision::Ignore };
        }
        let AdmissionLimits { address_rate, address_burst, total_rate, total_burst, .. } = self.limits;
        if !self.bucket(address, now).take(address_rate, address_burst, now) {
            return Decision::Ignore;
        }
        if self.total.take(total_rate, total_burst, now) { Decision::Accept } else { Decision::Ignore }
    }

    fn bucket(&mut self, address: IpAddr, now: Instant) -> &mut Bucket {
        let AdmissionLimits { address_rate, address_burst, .. } = self.limits;
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            let full_after = Duration::from_secs_f64(address_burst / address_rate);
            self.addresses.retain(|_, bucket| now.saturating_duration_since(bucket.filled) < full_after);
            if self.addresses.len() >= ADDRESSES_MAX {
                let level = |bucket: &Bucket| bucket.level(address_rate, address_burst, now);
                let fullest = self.addresses.iter().max_by(|a, b| level(a.1).total_cmp(&level(b.1)));
                if let Some(fullest) = fullest.map(|(&fullest, _)| fullest) {
                    self.addresses.remove(&fullest);
                }
            }
        }
        self.addresses.entry(address).or_insert(Bucket { tokens: address_burst, filled: now })
    }
}

/// What one holder of addresses has at least: a single address, or an IPv6 network of 64 bits (RFC 6177).
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        IpAddr::V4(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn limits() -> AdmissionLimits {
        AdmissionLimits {
            connections_max: 10,
            address_rate: 1.0,
            address_burst: 3.0,
            total_rate: 10.0,
            total_burst: 5.0,
            handshakes_unproven_max: 4,
        }
    }

    fn admission() -> (Admission, Instant) {
        let now = belfry_common::clock::monotonic();
        (Admission::new(limits(), now), now)
    }

    #[test]
    fn one_address_gets_its_burst_and_then_its_rate() {
        let (mut admission, now) = admission();
        let mut decide = |seconds| admission.decide(HOST, true, 0, 0, now + Duration::from_secs_f64(seconds));
        for _ in 0..3 {
            assert_eq!(decide(0.0), Decision::Accept);
        }
        assert_eq!(decide(0.0), Decision::Ignore);
        assert_eq!(decide(1.0), Decision::Accept);
        assert_eq!(decide(1.5), Decision::Ignore);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (mut admission, now) = admission();
        let accepted = (0..100_u16).filter(|&n| {
            let address = network(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]));
            admission.decide(address, true, 0, 0, now) == Decision::Accept
        });
        assert_eq!(accepted.count(), 3);
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0201]);
        assert_eq!(network(mapped), HOST);
    }

    #[test]
    fn many_addresses_share_the_total() {
        let (mut admission, now) = admission();
        let accepted = (0..100).filter(|&n| {
            let address = IpAddr::from([198, 51, 100, n]);
            admission.decide(address, true, 0, 0, now) == Decision::Accept
        });
        assert_eq!(accepted.count(), 5);
    }

    #[test]
    fn under_load_strangers_prove_their_address_and_a_full_house_says_so() {
        let (mut admission, now) = admission();
        assert_eq!(admission.decide(HOST, false, 0, 4, now), Decision::Retry);
        assert_eq!(admission.decide(HOST, true, 0, 4, now), Decision::Accept);
        assert_eq!(admission.decide(HOST, true, 10 + CONNECTIONS_BEYOND, 0, now), Decision::Refuse);
        assert_eq!(admission.decide(HOST, false, 10 + CONNECTIONS_BEYOND, 0, now), Decision::Ignore);
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let (mut admission, now) = admission();
        for n in 0..40_000_u32 {
            admission.decide(IpAddr::from(n.to_be_bytes()), true, 0, 0, now);
        }
        assert!(admission.addresses.len() <= ADDRESSES_MAX);
    }
}

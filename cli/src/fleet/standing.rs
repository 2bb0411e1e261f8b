//! Whether a node is up, stale or down, and why. Pure: facts and a time in, a verdict out.
//!
//! Silence alone cannot tell a dead host from a dead network, so it never claims more than "unreachable"; only an agent that took
//! leave, or a node whose right was taken away, is known to be down.

use belfry_common::model::Timestamp;

/// Intervals without a tick after which a node is stale.
const STALE_INTERVALS: i64 = 3;
/// On top of that: a tick that is on its way is not missing.
const STALE_SLACK_MS: i64 = 500;
/// Silence after which a node without a connection is down: QUIC's idle timeout, by which both ends have given up.
const DOWN_MS: i64 = 30_000;
/// After a start of the collector nodes get this long to come back before anything is said of them.
const AWAITED_MS: i64 = 60_000;

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Since when the collector listens.
    pub(crate) started: Timestamp,
    /// The number of its connection, if it has one.
    pub(crate) connection: Option<u64>,
    /// When it was last heard.
    pub(crate) heard_at: Option<Timestamp>,
    /// Not heard since the collector started.
    pub(crate) is_awaited: bool,
    /// Its last connection ended with a goodbye.
    pub(crate) has_left: bool,
    /// It is revoked.
    pub(crate) is_refused: bool,
    /// Its shortest sampling interval.
    pub(crate) interval_ms: i64,
    /// Since when the collector takes nothing in, if it does not.
    pub(crate) closed_at: Option<Timestamp>,
}

impl Facts {
    pub(crate) fn new(started: Timestamp) -> Self {
        Self {
            started,
            connection: None,
            heard_at: None,
            is_awaited: true,
            has_left: false,
            is_refused: false,
            interval_ms: 1000,
            closed_at: None,
        }
    }
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Standing {
    Up,
    Stale,
    Down,
}

impl Standing {
    /// The word of the contract.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Stale => "stale",
            Self::Down => "down",
        }
    }
}

/// The reason for a verdict other than up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Up needs none.
    None,
    /// Connected, or not long gone, and silent.
    Silent,
    /// The collector has started and the node has not come back yet.
    Awaited,
    /// It has joined, and nothing was ever heard of it.
    NeverSeen,
    /// Nothing is heard: host, network or agent.
    Unreachable,
    /// The agent took leave.
    Stopped,
    /// Its right was taken away.
    Revoked,
}

impl Cause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Silent => "silent",
            Self::Awaited => "awaited",
            Self::NeverSeen => "never_seen",
            Self::Unreachable => "unreachable",
            Self::Stopped => "stopped",
            Self::Revoked => "revoked",
        }
    }
}

/// Judges a node at a time.
pub(crate) fn standing(facts: &Facts, now: Timestamp) -> (Standing, Cause) {
    if facts.is_refused {
        return (Standing::Down, Cause::Revoked);
    }
    if facts.is_awaited && facts.heard_at.is_none() {
        return (Standing::Down, Cause::NeverSeen);
    }
    if facts.has_left {
        return (Standing::Down, Cause::Stopped);
    }
    if facts.is_awaited {
        let waited = now.millis_since(facts.started);
        let is_early = waited <= AWAITED_MS;
        return if is_early { (Standing::Stale, Cause::Awaited) } else { (Standing::Down, Cause::Unreachable) };
    }
    // What could not be taken in was not said in vain: a node that is connected is as silent as it was when that began.
    let now =
        if facts.connection.is_some() { facts.closed_at.map_or(now, |closed_at| now.min(closed_at)) } else { now };
    let silence = facts.heard_at.map_or(i64::MAX, |heard_at| now.millis_since(heard_at));
    if silence <= facts.interval_ms.saturating_mul(STALE_INTERVALS).saturating_add(STALE_SLACK_MS) {
        (Standing::Up, Cause::None)
    } else if facts.connection.is_some() || silence <= DOWN_MS {
        (Standing::Stale, Cause::Silent)
    } else {
        (Standing::Down, Cause::Unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn heard(seconds_ago: i64) -> Facts {
        Facts { heard_at: Some(START.plus_millis(-seconds_ago * 1000)), is_awaited: false, ..Facts::new(START) }
    }

    fn at_start(facts: &Facts) -> (Standing, Cause) {
        standing(facts, START)
    }

    #[test]
    fn three_intervals_of_silence_are_stale_and_a_lost_connection_is_down() {
        assert_eq!(at_start(&heard(3)), (Standing::Up, Cause::None));
        assert_eq!(at_start(&heard(4)), (Standing::Stale, Cause::Silent));
        assert_eq!(at_start(&heard(31)), (Standing::Down, Cause::Unreachable));
        assert_eq!(at_start(&Facts { connection: Some(1), ..heard(31) }), (Standing::Stale, Cause::Silent));
        assert_eq!(at_start(&Facts { interval_ms: 10_000, ..heard(30) }), (Standing::Up, Cause::None));
    }

    #[test]
    fn only_who_took_leave_or_was_revoked_is_known_to_be_down() {
        assert_eq!(at_start(&Facts { has_left: true, ..heard(0) }), (Standing::Down, Cause::Stopped));
        assert_eq!(at_start(&Facts { is_refused: true, ..heard(0) }), (Standing::Down, Cause::Revoked));
    }

    #[test]
    fn who_has_joined_and_was_never_heard_is_not_lost() {
        assert_eq!(standing(&Facts::new(START), START.plus_millis(61_000)), (Standing::Down, Cause::NeverSeen));
    }

    #[test]
    fn while_nothing_is_taken_in_nobody_who_is_connected_becomes_silent() {
        let closed = |facts: Facts| Facts { closed_at: Some(START.plus_millis(-60_000)), ..facts };
        let connected = |seconds| closed(Facts { connection: Some(1), ..heard(seconds) });
        assert_eq!(at_start(&connected(61)), (Standing::Up, Cause::None));
        assert_eq!(at_start(&connected(10)), (Standing::Up, Cause::None), "connected meanwhile");
        assert_eq!(at_start(&connected(70)), (Standing::Stale, Cause::Silent), "was silent before");
        assert_eq!(at_start(&closed(heard(61))), (Standing::Down, Cause::Unreachable));
    }

    #[test]
    fn a_restart_of_the_collector_is_no_evidence_against_anyone() {
        let facts = Facts { heard_at: Some(START.plus_millis(-3_600_000)), ..Facts::new(START) };
        assert_eq!(standing(&facts, START.plus_millis(59_000)), (Standing::Stale, Cause::Awaited));
        assert_eq!(standing(&facts, START.plus_millis(61_000)), (Standing::Down, Cause::Unreachable));
        let left = Facts { has_left: true, ..facts };
        assert_eq!(at_start(&left), (Standing::Down, Cause::Stopped), "nor is it a return");
    }
}

//! Sampling instants and the batches that carry them.

use std::{fmt, sync::Arc, time::Duration};

use super::{Layout, Raw};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time this many milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to this time; negative when it is later.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time moved by `millis`.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This time moved on by a duration.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        self.plus_millis(millis_of(duration))
    }

    /// This time moved back by a duration.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        self.plus_millis(-millis_of(duration))
    }
}

/// Whole milliseconds, as many as there can be.
fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Names one life of an agent's spool: a random number drawn when the spool is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Numbers the batches of an epoch, from 1.
pub type Sequence = u64;

/// Names one batch among all of a node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchKey {
    /// The life of the spool that numbered it.
    pub epoch: Epoch,
    /// Its number therein.
    pub sequence: Sequence,
}

/// One sampling instant of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Which series the values belong to.
    pub layout: Arc<Layout>,
    /// When they were read.
    pub time: Timestamp,
    /// One reading per series of the layout.
    pub values: Vec<Raw>,
}

/// What one instant produced: the ticks of every group that was due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// At most one tick of each group.
    pub ticks: Vec<Tick>,
}

impl Batch {
    /// How many readings it holds, missing ones included.
    #[must_use]
    pub fn readings(&self) -> usize {
        self.ticks.iter().map(|tick| tick.values.len()).sum()
    }
}

/// A run of sequence numbers that no batch will ever fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first number of the run.
    pub first: Sequence,
    /// The last number of the run, included.
    pub last: Sequence,
    /// Why there is nothing.
    pub reason: GapReason,
}

/// Why sequence numbers are without data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GapReason {
    /// The spool reached its cap and gave up its oldest batches.
    SpoolFull = 1,
    /// The numbers were set aside by a run of the agent that ended before using them.
    Unused = 2,
    /// A segment of the spool could not be read and is in quarantine.
    Damaged = 3,
    /// The collector refused the batch for good.
    Refused = 4,
    /// The collector acknowledged them and has them no more, as after a restore from a backup; nor has the spool. Numbers that were
    /// without data from the beginning may be among them.
    CollectorLost = 5,
}

impl GapReason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 5] = [Self::SpoolFull, Self::Unused, Self::Damaged, Self::Refused, Self::CollectorLost];

    /// The word used in labels and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool_full",
            Self::Unused => "unused",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
            Self::CollectorLost => "collector_lost",
        }
    }

    /// The number that travels.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

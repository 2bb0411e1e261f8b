//! What the engine is given from outside with each call, and how it is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use belfry_promql::{Limits, SeriesReader};

use super::limits;
use super::naming::External;
use crate::rules::RuleId;

/// The world at the moment of a call: the engine has neither a store nor a clock.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The collector's clock, which durations are counted by; never the time of a tick.
    pub(crate) now_ms: i64,
    /// The whole store; the engine restricts it to nodes itself.
    pub(crate) reader: &'a dyn SeriesReader,
    /// What one evaluation may cost.
    pub(crate) limits: Limits<'a>,
    /// A stopwatch, for telling how long evaluations take.
    pub(crate) stopwatch: &'a dyn Fn() -> Duration,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// How the engine behaves.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// See [`limits::INTERVAL_MS`].
    pub(crate) interval_ms: i64,
    /// See [`limits::IDLE_INTERVAL_MS`].
    pub(crate) idle_interval_ms: i64,
    /// See [`limits::COALESCE_MS`].
    pub(crate) coalesce_ms: i64,
    /// See [`limits::NO_DATA_KEEP_MS`].
    pub(crate) no_data_keep_ms: i64,
    /// See [`limits::ALERTS_MAX`].
    pub(crate) alerts_max: usize,
    pub(crate) external: External,
    /// Whether series of this name are made from others when they are read: no tick says that they changed.
    pub(crate) is_made_when_read: fn(&str) -> bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval_ms: limits::INTERVAL_MS,
            idle_interval_ms: limits::IDLE_INTERVAL_MS,
            coalesce_ms: limits::COALESCE_MS,
            no_data_keep_ms: limits::NO_DATA_KEEP_MS,
            alerts_max: limits::ALERTS_MAX,
            external: External::default(),
            is_made_when_read: |_| false,
        }
    }
}

/// One sampling instant of one sampler group of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick<'a> {
    /// The node, as the label `instance` names it.
    pub(crate) node: &'a str,
    /// When it was sampled, by the node's clock. Only ticks that are newer than all before are to be told.
    pub(crate) time_ms: i64,
    pub(crate) interest: &'a Interest,
    /// Of each run of metrics that the interest was found for: whether any value is other than in the node's tick before. Nothing
    /// where that is not known.
    pub(crate) changed: Option<&'a [bool]>,
}

/// The rules that read anything of a tick. Found once for a list of metrics, valid until the rules change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interest {
    pub(super) generation: u64,
    pub(super) rules: Arc<[ReadBy]>,
}

/// A rule that reads something of a tick.
#[derive(Debug, Clone)]
pub(super) struct ReadBy {
    pub(super) rule: RuleId,
    /// What it reads, by the place of the run.
    pub(super) runs: Box<[usize]>,
}

impl Interest {
    /// How many rules read something.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The runs that some rule reads, by their places, ascending.
    pub(crate) fn runs(&self) -> Vec<usize> {
        let mut runs: Vec<usize> = self.rules.iter().flat_map(|read_by| &read_by.runs).copied().collect();
        runs.sort_unstable();
        runs.dedup();
        runs
    }

    /// Whether both are the same, found once.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
    }

    /// Whether no rule reads anything of the tick.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

//! Which series a group of readings belongs to.

use std::sync::Arc;

use super::Metric;

/// One series: a metric and the values of its labels.
///
/// The node is not part of it: identity comes from the connection's certificate, and `instance` is
/// added where series of many nodes meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeriesDefinition {
    /// What is measured.
    pub metric: Arc<Metric>,
    /// One value per name in [`Metric::label_names`].
    pub label_values: Box<[Box<str>]>,
}

/// The series of one group in the order in which its ticks give their values.
///
/// A group is what one sampler reads at one instant. When a device comes or goes the group gets a
/// new layout; ticks refer to theirs, so that each can be understood by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The group's number, fixed for the sampler within a run of the agent.
    pub group: u16,
    /// The sampler's name.
    pub sampler: Box<str>,
    /// Time between two ticks, in milliseconds.
    pub interval_ms: u32,
    /// The series; a tick has exactly one reading for each.
    pub series: Box<[Arc<SeriesDefinition>]>,
}

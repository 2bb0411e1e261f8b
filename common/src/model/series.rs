//! Which series a group of readings belongs to.

use std::{
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

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

/// A definition as what a series is known by: its name and labels. What else is said of a metric, as its help, changes with the version of who
/// says it, and the series is still the same.
#[derive(Debug, Clone, Copy)]
pub struct Identity<D>(pub D);

impl<D: Deref<Target = SeriesDefinition>> Identity<D> {
    fn key(&self) -> (&str, &[Box<str>], &[Box<str>]) {
        (&self.0.metric.name, &self.0.metric.label_names, &self.0.label_values)
    }
}

impl<D: Deref<Target = SeriesDefinition>> PartialEq for Identity<D> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<D: Deref<Target = SeriesDefinition>> Eq for Identity<D> {}

impl<D: Deref<Target = SeriesDefinition>> Hash for Identity<D> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
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

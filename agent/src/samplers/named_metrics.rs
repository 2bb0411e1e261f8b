//! Metrics that take their names from the kernel's own text.
//!
//! `/proc/meminfo` and its like name each value themselves. The names are the same at every reading, and in the
//! same order: each is first compared with the one expected at its place, so that a reading allocates nothing.

use std::sync::Arc;

use belfry_common::model::Metric;

/// More names than any such file has: `/proc/net/netstat`, `snmp` and `snmp6` have about 350 together.
const NAMES_MAX: usize = 1024;

/// The names seen so far, wanted or not.
#[derive(Debug, Default)]
pub(super) struct NamedMetrics {
    known: Vec<Known>,
    place: usize,
    pass: u64,
}

#[derive(Debug)]
struct Known {
    group: Box<str>,
    name: Box<str>,
    /// `None` for a name that is not wanted.
    metric: Option<Arc<Metric>>,
    /// The last reading in which it was seen.
    pass: u64,
}

impl NamedMetrics {
    /// Begins a reading.
    pub(super) fn begin(&mut self) {
        self.place = 0;
        self.pass += 1;
    }

    /// The metric of `name` within `group`; `declare` is asked once for each. `None` when it is not wanted, or
    /// was already said in this reading.
    pub(super) fn metric(
        &mut self,
        group: &str,
        name: &str,
        declare: impl FnOnce() -> Option<Arc<Metric>>,
    ) -> Option<&Arc<Metric>> {
        let place = self.find(group, name).or_else(|| {
            (self.known.len() < NAMES_MAX).then(|| {
                let place = self.place.min(self.known.len());
                self.known.insert(place, Known { group: group.into(), name: name.into(), metric: declare(), pass: 0 });
                place
            })
        })?;
        self.place = place + 1;
        let known = self.known.get_mut(place)?;
        if known.pass == self.pass {
            return None;
        }
        known.pass = self.pass;
        known.metric.as_ref()
    }

    fn find(&self, group: &str, name: &str) -> Option<usize> {
        let is_it = |known: &Known| *known.name == *name && *known.group == *group;
        if self.known.get(self.place).is_some_and(is_it) {
            return Some(self.place);
        }
        self.known.iter().position(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::declare::gauge;

    #[test]
    fn names_are_declared_once_and_said_once_in_a_reading() {
        let mut metrics = NamedMetrics::default();
        let mut declared = 0;
        for names in [["a", "b", "c"], ["a", "b", "c"], ["c", "a", "a"]] {
            metrics.begin();
            let said: Vec<_> = names
                .iter()
                .map(|name| {
                    let declare = || {
                        declared += 1;
                        (*name != "b").then(|| gauge(name, &[], ""))
                    };
                    metrics.metric("", name, declare).map(|metric| metric.name.to_string())
                })
                .collect();
            let expected = match names {
                ["c", ..] => vec![Some("c".to_owned()), Some("a".to_owned()), None],
                _ => vec![Some("a".to_owned()), None, Some("c".to_owned())],
            };
            assert_eq!(said, expected);
        }
        assert_eq!(declared, 3);
    }

    #[test]
    fn endless_names_do_not_take_endless_memory() {
        let mut metrics = NamedMetrics::default();
        for number in 0..2 * NAMES_MAX {
            metrics.begin();
            metrics.metric("", &number.to_string(), || Some(gauge("m", &[], "")));
        }
        assert_eq!(metrics.known.len(), NAMES_MAX);
    }
}

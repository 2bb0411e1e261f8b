//! The kernel's entropy pool.

use std::{sync::Arc, time::Duration};

use belfry_common::model::Metric;

use super::{Roots, SampleError, Sampler, Source, TEN_SECONDS, declare, number};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Entropy {
    levels: [(Source, Arc<Metric>); 2],
}

impl Entropy {
    pub(crate) fn new(roots: &Roots) -> Self {
        let directory = roots.proc.join("sys/kernel/random");
        let level = |file, name, help| (Source::new(directory.join(file)), declare::gauge(name, &[], help));
        Self {
            levels: [
                level("entropy_avail", "node_entropy_available_bits", "Bits of available entropy."),
                level("poolsize", "node_entropy_pool_size_bits", "Bits of entropy pool."),
            ],
        }
    }
}

impl Sampler for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn interval(&self) -> Duration {
        TEN_SECONDS
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        for (source, metric) in &mut self.levels {
            if let Some(text) = source.read_if_offered()? {
                number::put(readings, metric, &[], number::unsigned(text.trim()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn level_and_size() {
        let fixture = Fixture::new()
            .proc("sys/kernel/random/entropy_avail", "1337\n")
            .proc("sys/kernel/random/poolsize", "4096\n");
        expect![[r#"
            node_entropy_available_bits 1337
            node_entropy_pool_size_bits 4096
        "#]]
        .assert_eq(&fixture.print(&mut Entropy::new(&fixture.roots())));
    }
}

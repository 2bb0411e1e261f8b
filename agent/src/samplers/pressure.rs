//! Pressure stall information, from `/proc/pressure`.
//!
//! Only the totals: the kernel's own averages can be made from them, over any time. A kernel without PSI, or
//! with it switched off, has no such series.

use std::{sync::Arc, time::Duration};

use belfry_common::model::{Kind, Metric, Reason, Resolution};

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, number};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Pressure {
    resources: [Resource; 4],
}

#[derive(Debug)]
struct Resource {
    source: Source,
    /// By the first word of the line that has the total.
    totals: Vec<(&'static str, Arc<Metric>)>,
}

impl Pressure {
    pub(crate) fn new(roots: &Roots) -> Self {
        let waiting =
            |resource, what| ("some", total(resource, "waiting", &format!("that processes have waited {what}")));
        let stalled =
            |resource, what| ("full", total(resource, "stalled", &format!("no process could make progress {what}")));
        let resource = |name, totals| Resource { source: Source::new(roots.proc.join("pressure").join(name)), totals };
        Self {
            resources: [
                // `full` is always zero for the CPU as a whole.
                resource("cpu", vec![waiting("cpu", "for CPU time")]),
                resource(
                    "memory",
                    vec![waiting("memory", "for memory"), stalled("memory", "due to memory congestion")],
                ),
                resource("io", vec![waiting("io", "due to IO congestion"), stalled("io", "due to IO congestion")]),
                resource("irq", vec![stalled("irq", "due to IRQ congestion")]),
            ],
        }
    }
}

fn total(resource: &str, state: &str, help: &str) -> Arc<Metric> {
    let name = format!("node_pressure_{resource}_{state}_seconds_total");
    declare::metric(&name, Kind::Counter, Resolution::MICRO, &[], &format!("Total time in seconds {help}."))
}

impl Sampler for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        for Resource { source, totals } in &mut self.resources {
            let text = match source.read_if_offered() {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(error) => {
                    for (_, metric) in totals {
                        readings.missing(metric, &[], error.reason());
                    }
                    continue;
                }
            };
            for (line, metric) in totals {
                number::put(readings, metric, &[], total_of(text, line));
            }
        }
        Ok(())
    }
}

/// Microseconds in `total=` of the line that starts with this word.
fn total_of(text: &str, first: &str) -> Result<i64, Reason> {
    let line = text.lines().find(|line| line.starts_with(first)).ok_or(Reason::Unsupported)?;
    let (_, total) = line.rsplit_once("total=").ok_or(Reason::Error)?;
    number::unsigned(total.trim())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn totals_in_seconds() {
        let some = "some avg10=0.00 avg60=0.00 avg300=0.00 total=14036781\n";
        let full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=159229614\n";
        let fixture = Fixture::new()
            .proc("pressure/cpu", some)
            .proc("pressure/io", &format!("{some}{full}"))
            .proc("pressure/memory", "some avg10=0.00 total=x\n");
        expect![[r#"
            node_pressure_cpu_waiting_seconds_total 14.036781
            node_pressure_memory_waiting_seconds_total missing (error)
            node_pressure_memory_stalled_seconds_total missing (unsupported)
            node_pressure_io_waiting_seconds_total 14.036781
            node_pressure_io_stalled_seconds_total 159.229614
        "#]]
        .assert_eq(&fixture.print(&mut Pressure::new(&fixture.roots())));
    }

    #[test]
    fn a_kernel_without_it_has_no_series() {
        let fixture = Fixture::new();
        assert_eq!(fixture.print(&mut Pressure::new(&fixture.roots())), "");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|(some|full) (total=)?[0-9x-]{0,30}\n") {
            let fixture = Fixture::new().proc("pressure/io", &text);
            let _ = fixture.try_print(&mut Pressure::new(&fixture.roots()));
        }
    }
}

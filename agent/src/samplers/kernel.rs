//! The kernel's own counters and the time: the lines of `/proc/stat` that are not a CPU's.
//!
//! No sampler of its own: [`super::cpu`] reads the file and hands the lines over.

use std::sync::Arc;

use belfry_common::{
    clock,
    model::{Kind, Metric, Reason, Resolution},
};

use super::{declare, number};
use crate::readings::Readings;

/// What is said of lines that hold one number, or one number that matters.
#[derive(Debug)]
pub(super) struct KernelCounters {
    lines: [(&'static str, Arc<Metric>); 6],
    time: Arc<Metric>,
}

impl KernelCounters {
    pub(super) fn new() -> Self {
        let (counter, gauge) = (declare::counter, declare::gauge);
        Self {
            lines: [
                ("intr", counter("node_intr_total", &[], "Total number of interrupts serviced.")),
                ("ctxt", counter("node_context_switches_total", &[], "Total number of context switches.")),
                ("btime", gauge("node_boot_time_seconds", &[], "Node boot time, in unixtime.")),
                ("processes", counter("node_forks_total", &[], "Total number of forks.")),
                ("procs_running", gauge("node_procs_running", &[], "Number of processes in runnable state.")),
                (
                    "procs_blocked",
                    gauge("node_procs_blocked", &[], "Number of processes blocked waiting for I/O to complete."),
                ),
            ],
            time: declare::metric(
                "node_time_seconds",
                Kind::Gauge,
                Resolution::MILLI,
                &[],
                "System time in seconds since epoch (1970).",
            ),
        }
    }

    /// Says the line `name`, if it is one of ours. Of `intr` the first number is the sum of all that follow.
    pub(super) fn put_line(&self, readings: &mut Readings, name: &str, rest: &str) {
        let Some((_, metric)) = self.lines.iter().find(|(ours, _)| *ours == name) else { return };
        let count = rest.split_ascii_whitespace().next().map_or(Err(Reason::Error), number::unsigned);
        number::put(readings, metric, &[], count);
    }

    /// Says what this machine's clock shows. The tick's own time is when it was due; this is when it was read.
    pub(super) fn put_time(&self, readings: &mut Readings) {
        readings.integer(&self.time, &[], clock::now().as_millis());
    }
}

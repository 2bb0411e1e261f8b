//! Frequencies of CPUs, from `/sys/devices/system/cpu`.
//!
//! The current one every 10 s, because some kernels interrupt a CPU to ask it; what seldom changes (limits, governor, the hardware's own view, which is slow to
//! ask) every minute. A virtual machine usually offers none of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use belfry_common::model::{Metric, Reason};

use super::{
    MINUTE, Roots, SampleError, TEN_SECONDS, declare, number,
    sysfs::{Family, Plan, Sysfs, text},
};

const DIRECTORY: &str = "devices/system/cpu";

/// The frequency at which each CPU runs.
#[derive(Debug)]
pub(super) struct Frequency {
    directory: PathBuf,
    metric: Arc<Metric>,
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<Frequency> {
    Sysfs::new(Frequency {
        directory: roots.sys.join(DIRECTORY),
        metric: hertz("scaling_frequency", "Current scaled CPU thread frequency in hertz."),
    })
}

impl Family for Frequency {
    const NAME: &'static str = "cpu_frequency";
    const INTERVAL: Duration = TEN_SECONDS;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for cpu in plan.numbered(&self.directory, "cpu")? {
            let path = self.directory.join(format!("cpu{cpu}/cpufreq/scaling_cur_freq"));
            plan.optional_file(&self.metric, &[&cpu.to_string()], path, kilohertz);
        }
        Ok(())
    }
}

/// Between which frequencies each CPU may run, and who decides.
#[derive(Debug)]
pub(super) struct FrequencyLimits {
    directory: PathBuf,
    files: [(&'static str, Arc<Metric>); 6],
    governor: Arc<Metric>,
}

pub(super) fn limits_sampler(roots: &Roots) -> Sysfs<FrequencyLimits> {
    Sysfs::new(FrequencyLimits {
        directory: roots.sys.join(DIRECTORY),
        files: [
            ("cpuinfo_cur_freq", hertz("frequency", "Current CPU thread frequency in hertz.")),
            ("cpuinfo_avg_freq", hertz("frequency_avg", "Average CPU thread frequency in hertz.")),
            ("cpuinfo_min_freq", hertz("frequency_min", "Minimum CPU thread frequency in hertz.")),
            ("cpuinfo_max_freq", hertz("frequency_max", "Maximum CPU thread frequency in hertz.")),
            ("scaling_min_freq", hertz("scaling_frequency_min", "Minimum scaled CPU thread frequency in hertz.")),
            ("scaling_max_freq", hertz("scaling_frequency_max", "Maximum scaled CPU thread frequency in hertz.")),
        ],
        governor: declare::gauge(
            "node_cpu_scaling_governor",
            &["cpu", "governor"],
            "Current enabled CPU frequency governor.",
        ),
    })
}

impl Family for FrequencyLimits {
    const NAME: &'static str = "cpu_frequency_limits";
    const INTERVAL: Duration = MINUTE;
    const SCAN_EVERY: u32 = 1;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for cpu in plan.numbered(&self.directory, "cpu")? {
            let directory = self.directory.join(format!("cpu{cpu}/cpufreq"));
            if !directory.is_dir() {
                continue;
            }
            let cpu = &*cpu.to_string();
            for (file, metric) in &self.files {
                plan.optional_file(metric, &[cpu], directory.join(file), kilohertz);
            }
            let available = text(&directory.join("scaling_available_governors")).unwrap_or_default();
            let current = text(&directory.join("scaling_governor")).filter(|current| !current.is_empty());
            for governor in current.iter().flat_map(|_| available.split_ascii_whitespace()) {
                let is_current = current.as_deref() == Some(governor);
                plan.fixed(&self.governor, &[cpu, governor], i64::from(is_current));
            }
        }
        Ok(())
    }
}

fn hertz(name: &str, help: &str) -> Arc<Metric> {
    declare::gauge(&format!("node_cpu_{name}_hertz"), &["cpu"], help)
}

/// A driver that does not know says `<unknown>`.
fn kilohertz(text: &str) -> Result<i64, Reason> {
    if text == "<unknown>" { Err(Reason::Unsupported) } else { number::times(number::unsigned(text), 1000) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    fn fixture() -> Fixture {
        let cpu = "devices/system/cpu";
        Fixture::new()
            .sys(&format!("{cpu}/cpu0/cpufreq/scaling_cur_freq"), "1219917\n")
            .sys(&format!("{cpu}/cpu0/cpufreq/scaling_min_freq"), "800000\n")
            .sys(&format!("{cpu}/cpu0/cpufreq/scaling_max_freq"), "3700000\n")
            .sys(&format!("{cpu}/cpu0/cpufreq/cpuinfo_cur_freq"), "<unknown>\n")
            .sys(&format!("{cpu}/cpu0/cpufreq/scaling_available_governors"), "performance powersave\n")
            .sys(&format!("{cpu}/cpu0/cpufreq/scaling_governor"), "powersave\n")
            .sys(&format!("{cpu}/cpu10/cpufreq/scaling_cur_freq"), "x\n")
            .sys(&format!("{cpu}/cpu2/cpufreq/scaling_cur_freq"), "1285000\n")
            .sys(&format!("{cpu}/cpu3/topology/core_id"), "0\n")
            .sys(&format!("{cpu}/cpuidle/current_driver"), "none\n")
    }

    #[test]
    fn current_frequencies_in_the_order_of_cpus() {
        let fixture = fixture();
        expect![[r#"
            node_cpu_scaling_frequency_hertz{cpu="0"} 1219917000
            node_cpu_scaling_frequency_hertz{cpu="2"} 1285000000
            node_cpu_scaling_frequency_hertz{cpu="10"} missing (error)
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }

    #[test]
    fn limits_and_governor() {
        let fixture = fixture();
        expect![[r#"
            node_cpu_scaling_frequency_min_hertz{cpu="0"} 800000000
            node_cpu_scaling_frequency_max_hertz{cpu="0"} 3700000000
            node_cpu_scaling_governor{cpu="0",governor="performance"} 0
            node_cpu_scaling_governor{cpu="0",governor="powersave"} 1
        "#]]
        .assert_eq(&fixture.print(&mut limits_sampler(&fixture.roots())));
    }
}

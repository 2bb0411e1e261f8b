//! What each CPU is, from `/proc/cpuinfo`.
//!
//! ARM kernels give numbers there instead of names; for these `sysinfo` knows the names.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use belfry_common::model::Metric;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

use super::{
    MINUTE, Roots, SampleError, Sampler, Source,
    cap::{Cap, DEVICES_MAX},
    declare,
};
use crate::readings::Readings;

/// Labels and the keys that x86 kernels give them.
const FACTS: [(&str, &str); 10] = [
    ("package", "physical id"),
    ("core", "core id"),
    ("cpu", "processor"),
    ("vendor", "vendor_id"),
    ("family", "cpu family"),
    ("model", "model"),
    ("model_name", "model name"),
    ("microcode", "microcode"),
    ("stepping", "stepping"),
    ("cachesize", "cache size"),
];

#[derive(Debug)]
pub(crate) struct CpuInfo {
    source: Source,
    metric: Arc<Metric>,
    /// Vendor and model where the kernel's text has none.
    elsewhere: [String; 2],
    cap: Cap,
}

impl CpuInfo {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            source: Source::new(roots.proc.join("cpuinfo")),
            metric: declare::info(
                "node_cpu_info",
                &FACTS.map(|(label, _)| label),
                "CPU information from /proc/cpuinfo.",
            ),
            elsewhere: names_from_sysinfo(roots),
            cap: Cap::new("cpu_info"),
        }
    }
}

impl Sampler for CpuInfo {
    fn name(&self) -> &'static str {
        "cpu_info"
    }

    fn interval(&self) -> Duration {
        MINUTE
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        let [vendor, model] = &self.elsewhere;
        let mut cpus = text.split("\n\n").map(facts).filter(|facts| facts.contains_key("processor"));
        for (_, facts) in (0..DEVICES_MAX).zip(&mut cpus) {
            let labels = FACTS.map(|(label, key)| match (facts.get(key), label) {
                (Some(fact), _) => *fact,
                (None, "vendor") => vendor,
                (None, "model_name") => model,
                (None, _) => "",
            });
            readings.integer(&self.metric, &labels, 1);
        }
        self.cap.left_out(cpus.count());
        Ok(())
    }
}

/// Lines of `model name : AMD EPYC`.
fn facts(cpu: &str) -> HashMap<&str, &str> {
    let fact = |line| str::split_once(line, ':').map(|(key, value)| (key.trim(), value.trim()));
    cpu.lines().filter_map(fact).collect()
}

/// Vendor and brand of the first CPU. `sysinfo` reads this machine's own files only.
fn names_from_sysinfo(roots: &Roots) -> [String; 2] {
    if cfg!(target_arch = "x86_64") || roots.proc != Path::new("/proc") {
        return Default::default();
    }
    let cpus = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
    let Ok(system) = System::new_with_specifics(cpus) else { return Default::default() };
    system.cpus().first().map(|cpu| [cpu.vendor_id().to_owned(), cpu.brand().to_owned()]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn a_series_for_each_cpu() {
        let fixture = Fixture::new().proc(
            "cpuinfo",
            "processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480C
stepping\t: 8
microcode\t: 0x2b000603
cache size\t: 107520 KB
physical id\t: 1
core id\t\t: 55

processor\t: 1
BogoMIPS\t: 2000.00
CPU implementer\t: 0x41

Hardware\t: no CPU
",
        );
        expect![[r#"
            node_cpu_info{package="1",core="55",cpu="0",vendor="GenuineIntel",family="6",model="143",model_name="Intel(R) Xeon(R) Platinum 8480C",microcode="0x2b000603",stepping="8",cachesize="107520 KB"} 1
            node_cpu_info{package="",core="",cpu="1",vendor="",family="",model="",model_name="",microcode="",stepping="",cachesize=""} 1
        "#]].assert_eq(&fixture.print(&mut CpuInfo::new(&fixture.roots())));
    }

    #[test]
    fn names_that_the_kernel_does_not_give_come_from_elsewhere() {
        let fixture = Fixture::new().proc("cpuinfo", "processor : 0\n");
        let mut sampler = CpuInfo::new(&fixture.roots());
        sampler.elsewhere = ["ARM".to_owned(), "Neoverse-V2".to_owned()];
        expect![[r#"
            node_cpu_info{package="",core="",cpu="0",vendor="ARM",family="",model="",model_name="Neoverse-V2",microcode="",stepping="",cachesize=""} 1
        "#]].assert_eq(&fixture.print(&mut sampler));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|(processor:? [0-9]{0,3}\n\n?){0,6}") {
            let fixture = Fixture::new().proc("cpuinfo", &text);
            let _ = fixture.try_print(&mut CpuInfo::new(&fixture.roots()));
        }
    }
}

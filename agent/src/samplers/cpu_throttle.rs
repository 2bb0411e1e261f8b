//! How often CPUs were slowed down because they were too hot.
//!
//! Every thread of a core shows the same count, and every core of a package: each is read once. AMD and ARM
//! CPUs do not count this.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use belfry_common::model::Metric;

use super::{
    Roots, SampleError, TEN_SECONDS, declare, number,
    sysfs::{Family, Plan, Sysfs, text},
};

#[derive(Debug)]
pub(super) struct Throttle {
    directory: PathBuf,
    core: Arc<Metric>,
    package: Arc<Metric>,
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<Throttle> {
    Sysfs::new(Throttle {
        directory: roots.sys.join("devices/system/cpu"),
        core: declare::counter(
            "node_cpu_core_throttles_total",
            &["package", "core"],
            "Number of times this CPU core has been throttled.",
        ),
        package: declare::counter(
            "node_cpu_package_throttles_total",
            &["package"],
            "Number of times this CPU package has been throttled.",
        ),
    })
}

impl Family for Throttle {
    const NAME: &'static str = "cpu_throttle";
    const INTERVAL: Duration = TEN_SECONDS;
    /// Which CPU is where does not change; looking costs four files a CPU.
    const SCAN_EVERY: u32 = 60;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        let (mut cores, mut packages) = (BTreeMap::new(), BTreeMap::new());
        for cpu in plan.numbered(&self.directory, "cpu")? {
            let directory = self.directory.join(format!("cpu{cpu}"));
            let Some((package, core)) = place(&directory.join("topology")) else { continue };
            let (by_core, by_package) = (
                directory.join("thermal_throttle/core_throttle_count"),
                directory.join("thermal_throttle/package_throttle_count"),
            );
            if by_core.exists() {
                cores.entry((package, core)).or_insert(by_core);
            }
            if by_package.exists() {
                packages.entry(package).or_insert(by_package);
            }
        }
        for ((package, core), path) in cores {
            plan.file(&self.core, &[&package.to_string(), &core.to_string()], path, number::unsigned);
        }
        for (package, path) in packages {
            plan.file(&self.package, &[&package.to_string()], path, number::unsigned);
        }
        Ok(())
    }
}

/// The package and the core of a CPU.
fn place(topology: &Path) -> Option<(u32, u32)> {
    let number = |file| text(&topology.join(file))?.parse().ok();
    Some((number("physical_package_id")?, number("core_id")?))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn each_core_and_package_once() {
        let mut fixture = Fixture::new();
        for (cpu, package, core, count) in [(0, 0, 0, 5), (1, 0, 1, 0), (2, 1, 0, 40), (3, 0, 0, 5)] {
            let cpu = format!("devices/system/cpu/cpu{cpu}");
            fixture = fixture
                .sys(&format!("{cpu}/topology/physical_package_id"), &package.to_string())
                .sys(&format!("{cpu}/topology/core_id"), &core.to_string())
                .sys(&format!("{cpu}/thermal_throttle/core_throttle_count"), &count.to_string())
                .sys(&format!("{cpu}/thermal_throttle/package_throttle_count"), &(count + 25).to_string());
        }
        fixture = fixture.sys("devices/system/cpu/cpu4/topology/core_id", "3");
        expect![[r#"
            node_cpu_core_throttles_total{package="0",core="0"} 5
            node_cpu_core_throttles_total{package="0",core="1"} 0
            node_cpu_core_throttles_total{package="1",core="0"} 40
            node_cpu_package_throttles_total{package="0"} 30
            node_cpu_package_throttles_total{package="1"} 65
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }
}

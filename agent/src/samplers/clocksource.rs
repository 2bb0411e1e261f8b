//! Which clock the kernel counts time with, from `/sys/devices/system/clocksource`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use belfry_common::model::Metric;

use super::{
    MINUTE, Roots, SampleError, declare,
    sysfs::{Family, Plan, Sysfs, text},
};

#[derive(Debug)]
pub(super) struct Clocksource {
    directory: PathBuf,
    available: Arc<Metric>,
    current: Arc<Metric>,
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<Clocksource> {
    let info = |name, help| declare::info(name, &["device", "clocksource"], help);
    Sysfs::new(Clocksource {
        directory: roots.sys.join("devices/system/clocksource"),
        available: info("node_time_clocksource_available_info", "Clocksources that the kernel could use."),
        current: info("node_time_clocksource_current_info", "The clocksource that the kernel uses."),
    })
}

impl Family for Clocksource {
    const NAME: &'static str = "clocksource";
    const INTERVAL: Duration = MINUTE;
    const SCAN_EVERY: u32 = 1;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for number in plan.numbered(&self.directory, "clocksource")? {
            let device = number.to_string();
            let directory = self.directory.join(format!("clocksource{device}"));
            let fact = |file| text(&directory.join(file)).unwrap_or_default();
            for source in fact("available_clocksource").split_ascii_whitespace() {
                plan.fixed(&self.available, &[&device, source], 1);
            }
            let current = fact("current_clocksource");
            if !current.is_empty() {
                plan.fixed(&self.current, &[&device, &current], 1);
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
    fn available_and_current() {
        let directory = "devices/system/clocksource/clocksource0";
        let fixture = Fixture::new()
            .sys(&format!("{directory}/available_clocksource"), "tsc hpet acpi_pm \n")
            .sys(&format!("{directory}/current_clocksource"), "tsc\n");
        expect![[r#"
            node_time_clocksource_available_info{device="0",clocksource="tsc"} 1
            node_time_clocksource_available_info{device="0",clocksource="hpet"} 1
            node_time_clocksource_available_info{device="0",clocksource="acpi_pm"} 1
            node_time_clocksource_current_info{device="0",clocksource="tsc"} 1
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }
}

//! Thermal zones and cooling devices, from `/sys/class/thermal`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use belfry_common::model::{Kind, Metric, Resolution};

use super::{
    Roots, SampleError, TEN_SECONDS, declare, number,
    sysfs::{Family, Plan, Sysfs, text},
};

#[derive(Debug)]
pub(super) struct Thermal {
    directory: PathBuf,
    temperature: Arc<Metric>,
    state: Arc<Metric>,
    state_max: Arc<Metric>,
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<Thermal> {
    let cooling = |name, help| declare::gauge(name, &["name", "type"], help);
    Sysfs::new(Thermal {
        directory: roots.sys.join("class/thermal"),
        temperature: declare::metric(
            "node_thermal_zone_temp",
            Kind::Gauge,
            Resolution::MILLI,
            &["zone", "type"],
            "Zone temperature in Celsius.",
        ),
        state: cooling("node_cooling_device_cur_state", "Current throttle state of the cooling device."),
        state_max: cooling("node_cooling_device_max_state", "Maximum throttle state of the cooling device."),
    })
}

impl Family for Thermal {
    const NAME: &'static str = "thermal_zone";
    const INTERVAL: Duration = TEN_SECONDS;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for zone in plan.numbered(&self.directory, "thermal_zone")? {
            let directory = self.directory.join(format!("thermal_zone{zone}"));
            let kind = text(&directory.join("type")).unwrap_or_default();
            plan.file(&self.temperature, &[&zone.to_string(), &kind], directory.join("temp"), number::signed);
        }
        for device in plan.numbered(&self.directory, "cooling_device")? {
            let directory = self.directory.join(format!("cooling_device{device}"));
            let kind = text(&directory.join("type")).unwrap_or_default();
            let labels = &[&*device.to_string(), &*kind];
            plan.file(&self.state, labels, directory.join("cur_state"), number::signed);
            plan.file(&self.state_max, labels, directory.join("max_state"), number::signed);
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
    fn zones_in_celsius_and_a_zone_without_a_probe_is_missing() {
        let fixture = Fixture::new()
            .sys("class/thermal/thermal_zone0/type", "cpu-thermal\n")
            .sys("class/thermal/thermal_zone0/temp", "49925\n")
            .sys("class/thermal/thermal_zone10/type", "acpitz\n")
            .sys("class/thermal/thermal_zone10/temp", "-44000\n")
            .sys("class/thermal/thermal_zone2/type", "pch\n")
            .sys("class/thermal/thermal_zone2/temp", "")
            .sys("class/thermal/cooling_device0/type", "Processor\n")
            .sys("class/thermal/cooling_device0/cur_state", "0\n")
            .sys("class/thermal/cooling_device0/max_state", "3\n");
        expect![[r#"
            node_thermal_zone_temp{zone="0",type="cpu-thermal"} 49.925
            node_thermal_zone_temp{zone="2",type="pch"} missing (error)
            node_thermal_zone_temp{zone="10",type="acpitz"} -44
            node_cooling_device_cur_state{name="0",type="Processor"} 0
            node_cooling_device_max_state{name="0",type="Processor"} 3
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }
}

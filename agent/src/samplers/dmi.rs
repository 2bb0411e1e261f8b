//! Make, model and serial numbers of the machine, from `/sys/class/dmi/id`.
//!
//! Only the labels that the firmware fills in and that the agent may read: serial numbers are for root.

use std::{path::PathBuf, time::Duration};

use super::{
    MINUTE, Roots, SampleError, declare,
    sysfs::{Family, Plan, Sysfs, text},
};

/// Files and labels.
const FACTS: [(&str, &str); 20] = [
    ("bios_date", "bios_date"),
    ("bios_release", "bios_release"),
    ("bios_vendor", "bios_vendor"),
    ("bios_version", "bios_version"),
    ("board_asset_tag", "board_asset_tag"),
    ("board_name", "board_name"),
    ("board_serial", "board_serial"),
    ("board_vendor", "board_vendor"),
    ("board_version", "board_version"),
    ("chassis_asset_tag", "chassis_asset_tag"),
    ("chassis_serial", "chassis_serial"),
    ("chassis_vendor", "chassis_vendor"),
    ("chassis_version", "chassis_version"),
    ("product_family", "product_family"),
    ("product_name", "product_name"),
    ("product_serial", "product_serial"),
    ("product_sku", "product_sku"),
    ("product_uuid", "product_uuid"),
    ("product_version", "product_version"),
    ("sys_vendor", "system_vendor"),
];

#[derive(Debug)]
pub(super) struct Dmi {
    directory: PathBuf,
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<Dmi> {
    Sysfs::new(Dmi { directory: roots.sys.join("class/dmi/id") })
}

impl Family for Dmi {
    const NAME: &'static str = "dmi";
    const INTERVAL: Duration = MINUTE;
    /// It changes at a reboot at most; with each scan the metric is declared anew.
    const SCAN_EVERY: u32 = u32::MAX;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        let fact = |(file, label)| Some((label, text(&self.directory.join(file))?));
        let (labels, values): (Vec<_>, Vec<_>) = FACTS.into_iter().filter_map(fact).unzip();
        if !labels.is_empty() {
            let metric = declare::info("node_dmi_info", &labels, "What the firmware says of the machine, in labels.");
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            plan.fixed(&metric, &values, 1);
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
    fn labels_are_those_that_can_be_read() {
        let fixture = Fixture::new()
            .sys("class/dmi/id/sys_vendor", "NVIDIA\n")
            .sys("class/dmi/id/product_name", "DGX H100\n")
            .sys("class/dmi/id/chassis_asset_tag", " \n");
        expect![[r#"
            node_dmi_info{chassis_asset_tag="",product_name="DGX H100",system_vendor="NVIDIA"} 1
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }

    #[test]
    fn a_machine_without_it_has_no_series() {
        let fixture = Fixture::new();
        assert_eq!(fixture.print(&mut sampler(&fixture.roots())), "");
    }
}

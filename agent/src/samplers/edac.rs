//! Memory errors that the memory controllers counted, from `/sys/devices/system/edac/mc`.
//!
//! A machine without ECC memory, or without its driver, has no such series.

use std::{
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
pub(super) struct Edac {
    directory: PathBuf,
    controller: Pair,
    row: Pair,
    channel: Pair,
}

/// Correctable and uncorrectable errors of one level.
type Pair = [Arc<Metric>; 2];

pub(super) fn sampler(roots: &Roots) -> Sysfs<Edac> {
    let pair = |level: &str, labels: &[&str], of: &str| {
        ["correctable", "uncorrectable"].map(|severity| {
            let name = format!("node_edac_{level}{severity}_errors_total");
            declare::counter(&name, labels, &format!("Total {severity} memory errors{of}."))
        })
    };
    Sysfs::new(Edac {
        directory: roots.sys.join("devices/system/edac/mc"),
        controller: pair("", &["controller"], ""),
        row: pair("csrow_", &["controller", "csrow"], " for this csrow"),
        channel: pair("channel_", &["controller", "csrow", "channel", "dimm_label"], " for this channel"),
    })
}

impl Family for Edac {
    const NAME: &'static str = "edac";
    const INTERVAL: Duration = TEN_SECONDS;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for number in plan.numbered(&self.directory, "mc")? {
            let directory = self.directory.join(format!("mc{number}"));
            let controller = number.to_string();
            for ((total, row), kind) in self.controller.iter().zip(&self.row).zip(["ce", "ue"]) {
                plan.file(total, &[&controller], directory.join(format!("{kind}_count")), number::unsigned);
                // What the hardware could not place.
                let unplaced = directory.join(format!("{kind}_noinfo_count"));
                plan.optional_file(row, &[&controller, "unknown"], unplaced, number::unsigned);
            }
            for row in plan.numbered(&directory, "csrow")? {
                self.scan_row(plan, &controller, &row.to_string(), &directory.join(format!("csrow{row}")))?;
            }
        }
        Ok(())
    }
}

impl Edac {
    fn scan_row(&self, plan: &mut Plan, controller: &str, row: &str, directory: &Path) -> Result<(), SampleError> {
        for (metric, kind) in self.row.iter().zip(["ce", "ue"]) {
            plan.file(metric, &[controller, row], directory.join(format!("{kind}_count")), number::unsigned);
        }
        for file in plan.list(directory, "ch")? {
            let Some(channel) = file.strip_prefix("ch").and_then(|rest| rest.strip_suffix("_ce_count")) else {
                continue;
            };
            let label = text(&directory.join(format!("ch{channel}_dimm_label")));
            let label = label.map_or_else(|| "unknown".into(), |label| dimm_label(&label));
            for (metric, kind) in self.channel.iter().zip(["ce", "ue"]) {
                // Most drivers count uncorrectable errors by row only.
                let path = directory.join(format!("ch{channel}_{kind}_count"));
                plan.optional_file(metric, &[controller, row, channel, &label], path, number::unsigned);
            }
        }
        Ok(())
    }
}

/// The kernel's `mc#0csrow#0channel#0` as node_exporter writes it.
fn dimm_label(label: &str) -> String {
    label.replace('#', "").replace("csrow", "_csrow").replace("channel", "_channel")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn controllers_rows_and_channels() {
        let mc = "devices/system/edac/mc/mc0";
        let fixture = Fixture::new()
            .sys(&format!("{mc}/ce_count"), "1\n")
            .sys(&format!("{mc}/ce_noinfo_count"), "2\n")
            .sys(&format!("{mc}/ue_count"), "5\n")
            .sys(&format!("{mc}/ue_noinfo_count"), "6\n")
            .sys(&format!("{mc}/csrow0/ce_count"), "3\n")
            .sys(&format!("{mc}/csrow0/ue_count"), "many\n")
            .sys(&format!("{mc}/csrow0/ch0_ce_count"), "4\n")
            .sys(&format!("{mc}/csrow0/ch0_dimm_label"), "mc#0csrow#0channel#0\n")
            .sys("devices/system/edac/mc/power/control", "auto");
        expect![[r#"
            node_edac_correctable_errors_total{controller="0"} 1
            node_edac_csrow_correctable_errors_total{controller="0",csrow="unknown"} 2
            node_edac_uncorrectable_errors_total{controller="0"} 5
            node_edac_csrow_uncorrectable_errors_total{controller="0",csrow="unknown"} 6
            node_edac_csrow_correctable_errors_total{controller="0",csrow="0"} 3
            node_edac_csrow_uncorrectable_errors_total{controller="0",csrow="0"} missing (error)
            node_edac_channel_correctable_errors_total{controller="0",csrow="0",channel="0",dimm_label="mc0_csrow0_channel0"} 4
        "#]].assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }

    #[test]
    fn a_machine_without_it_has_no_series() {
        let fixture = Fixture::new();
        assert_eq!(fixture.print(&mut sampler(&fixture.roots())), "");
    }
}

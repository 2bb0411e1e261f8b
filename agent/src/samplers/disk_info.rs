//! What each block device is: udev's names for its model and serial number, and whether it spins.
//!
//! A machine without udev has the rest.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc, time::Duration};

use belfry_common::model::Metric;

use super::{MINUTE, Roots, SampleError, Sampler, Source, cap::Cap, declare, disk::is_ignored, sysfs};
use crate::readings::Readings;

const LABELS: [&str; 9] = ["device", "major", "minor", "path", "wwn", "model", "serial", "revision", "rotational"];

#[derive(Debug)]
pub(crate) struct DiskInfo {
    source: Source,
    udev: PathBuf,
    block: PathBuf,
    metric: Arc<Metric>,
    cap: Cap,
}

impl DiskInfo {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            source: Source::new(roots.proc.join("diskstats")),
            udev: roots.root.join("run/udev/data"),
            block: roots.sys.join("block"),
            metric: declare::info("node_disk_info", &LABELS, "Info of /sys/block/<block_device>."),
            cap: Cap::new("disk_info"),
        }
    }
}

impl Sampler for DiskInfo {
    fn name(&self) -> &'static str {
        "disk_info"
    }

    fn interval(&self) -> Duration {
        MINUTE
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        let mut devices = 0;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(major), Some(minor), Some(device)) = (words.next(), words.next(), words.next()) else { continue };
            if is_ignored(device) {
                continue;
            }
            if !self.cap.allows(devices) {
                break;
            }
            devices += 1;
            let udev = fs::read(self.udev.join(format!("b{major}:{minor}"))).unwrap_or_default();
            let udev = String::from_utf8_lossy(&udev);
            let properties = properties(&udev);
            let property = |key| properties.get(key).copied().filter(|value| !value.is_empty());
            // The serial number on the disk's label, or what comes close.
            let serial = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"].into_iter().find_map(property);
            let [path, wwn, model, revision] =
                ["ID_PATH", "ID_WWN", "ID_MODEL", "ID_REVISION"].map(|key| property(key).unwrap_or_default());
            let rotational = sysfs::text(&self.block.join(device).join("queue/rotational"));
            let rotational = if rotational.as_deref() == Some("1") { "1" } else { "0" };
            let labels = [device, major, minor, path, wwn, model, serial.unwrap_or_default(), revision, rotational];
            readings.integer(&self.metric, &labels, 1);
        }
        Ok(())
    }
}

/// Lines of `E:ID_MODEL=Samsung`.
fn properties(udev: &str) -> HashMap<&str, &str> {
    udev.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn with_udev_and_without() {
        let fixture = Fixture::new()
            .proc("diskstats", "8 0 sda 1\n8 1 sda1 1\n259 0 nvme0n1 1\n")
            .root(
                "run/udev/data/b8:0",
                "S:disk/by-id/x\nE:ID_MODEL=HUS72\nE:ID_SERIAL_SHORT=\nE:ID_SERIAL=K7G\nE:odd\n",
            )
            .sys("block/sda/queue/rotational", "1\n");
        expect![[r#"
            node_disk_info{device="sda",major="8",minor="0",path="",wwn="",model="HUS72",serial="K7G",revision="",rotational="1"} 1
            node_disk_info{device="nvme0n1",major="259",minor="0",path="",wwn="",model="",serial="",revision="",rotational="0"} 1
        "#]].assert_eq(&fixture.print(&mut DiskInfo::new(&fixture.roots())));
    }
}

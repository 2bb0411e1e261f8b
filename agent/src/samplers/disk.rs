//! Block devices, from `/proc/diskstats`.
//!
//! Partitions of common disks, RAM disks, loop devices and floppies are left out, as node_exporter does by
//! default. Which fields there are depends on the kernel: discards came with 4.18, flushes with 5.5.

use std::{sync::Arc, time::Duration};

use belfry_common::model::{Kind, Metric, Resolution};

use super::{Roots, SECOND, SampleError, Sampler, Source, cap::Cap, declare, number};
use crate::readings::Readings;

/// "Sectors" in this file are of this size, whatever the device's own are.
const SECTOR_BYTES: i64 = 512;

#[derive(Debug)]
pub(crate) struct Disk {
    source: Source,
    fields: [Field; 17],
    cap: Cap,
}

#[derive(Debug)]
struct Field {
    metric: Arc<Metric>,
    factor: i64,
}

impl Disk {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self { source: Source::new(roots.proc.join("diskstats")), fields: fields(), cap: Cap::new("disk") }
    }
}

/// The fields in the order of the file.
fn fields() -> [Field; 17] {
    let field = |name: &str, kind, resolution, factor, help| Field {
        metric: declare::metric(&format!("node_disk_{name}"), kind, resolution, &["device"], help),
        factor,
    };
    let count = |name, help| field(name, Kind::Counter, Resolution::ONE, 1, help);
    let bytes = |name, help| field(name, Kind::Counter, Resolution::ONE, SECTOR_BYTES, help);
    let time = |name, help| field(name, Kind::Counter, Resolution::MILLI, 1, help);
    [
        count("reads_completed_total", "The total number of reads completed successfully."),
        count("reads_merged_total", "The total number of reads merged."),
        bytes("read_bytes_total", "The total number of bytes read successfully."),
        time("read_time_seconds_total", "The total number of seconds spent by all reads."),
        count("writes_completed_total", "The total number of writes completed successfully."),
        count("writes_merged_total", "The number of writes merged."),
        bytes("written_bytes_total", "The total number of bytes written successfully."),
        time("write_time_seconds_total", "This is the total number of seconds spent by all writes."),
        field("io_now", Kind::Gauge, Resolution::ONE, 1, "The number of I/Os currently in progress."),
        time("io_time_seconds_total", "Total seconds spent doing I/Os."),
        time("io_time_weighted_seconds_total", "The weighted # of seconds spent doing I/Os."),
        count("discards_completed_total", "The total number of discards completed successfully."),
        count("discards_merged_total", "The total number of discards merged."),
        count("discarded_sectors_total", "The total number of sectors discarded successfully."),
        time("discard_time_seconds_total", "This is the total number of seconds spent by all discards."),
        count("flush_requests_total", "The total number of flush requests completed successfully."),
        time("flush_requests_time_seconds_total", "This is the total number of seconds spent by all flush requests."),
    ]
}

impl Sampler for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        let mut devices = 0;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace().skip(2);
            let Some(device) = words.next().filter(|device| !is_ignored(device)) else { continue };
            if !self.cap.allows(devices) {
                break;
            }
            devices += 1;
            for (field, word) in self.fields.iter().zip(words) {
                number::put(readings, &field.metric, &[device], number::times(number::unsigned(word), field.factor));
            }
        }
        Ok(())
    }
}

/// node_exporter's `^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`.
pub(super) fn is_ignored(device: &str) -> bool {
    let stem = device.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == device.len() {
        return false;
    }
    let is_lettered = |prefix| {
        stem.strip_prefix(prefix)
            .is_some_and(|letter| letter.len() == 1 && letter.bytes().all(|b| b.is_ascii_lowercase()))
    };
    matches!(stem, "ram" | "zram" | "loop" | "fd")
        || ["hd", "sd", "vd", "xvd"].into_iter().any(is_lettered)
        || stem.strip_prefix("nvme").and_then(|rest| rest.strip_suffix('p')).is_some_and(is_controller_and_namespace)
}

/// `0n1`
fn is_controller_and_namespace(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.split_once('n').is_some_and(|(controller, namespace)| is_number(controller) && is_number(namespace))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn fields_of_old_and_new_kernels() {
        let fixture = Fixture::new().proc(
            "diskstats",
            "   1       0 ram0 0 0 0 0 0 0 0 0 0 0 0
   8       0 sda 25354637 34367663 1003346126 18492372 28444756 11134226 505697032 63877960 0 9653880 82621804
   8       1 sda1 250 0 2000 36 0 0 0 0 0 36 36
 259       0 nvme0n1 47114 4 4643973 21650 1078320 43950 39451633 1011053 0 222766 1032546 1 2 3 4 411 18
 259       1 nvme0n1p1 1140 0 9370 16 1 0 1 0 0 16 16
 252       0 dm-0 x -1 99999999999999999999
 garbage
",
        );
        expect![[r#"
            node_disk_reads_completed_total{device="sda"} 25354637
            node_disk_reads_merged_total{device="sda"} 34367663
            node_disk_read_bytes_total{device="sda"} 513713216512
            node_disk_read_time_seconds_total{device="sda"} 18492.372
            node_disk_writes_completed_total{device="sda"} 28444756
            node_disk_writes_merged_total{device="sda"} 11134226
            node_disk_written_bytes_total{device="sda"} 258916880384
            node_disk_write_time_seconds_total{device="sda"} 63877.96
            node_disk_io_now{device="sda"} 0
            node_disk_io_time_seconds_total{device="sda"} 9653.88
            node_disk_io_time_weighted_seconds_total{device="sda"} 82621.804
            node_disk_reads_completed_total{device="nvme0n1"} 47114
            node_disk_reads_merged_total{device="nvme0n1"} 4
            node_disk_read_bytes_total{device="nvme0n1"} 2377714176
            node_disk_read_time_seconds_total{device="nvme0n1"} 21.65
            node_disk_writes_completed_total{device="nvme0n1"} 1078320
            node_disk_writes_merged_total{device="nvme0n1"} 43950
            node_disk_written_bytes_total{device="nvme0n1"} 20199236096
            node_disk_write_time_seconds_total{device="nvme0n1"} 1011.053
            node_disk_io_now{device="nvme0n1"} 0
            node_disk_io_time_seconds_total{device="nvme0n1"} 222.766
            node_disk_io_time_weighted_seconds_total{device="nvme0n1"} 1032.546
            node_disk_discards_completed_total{device="nvme0n1"} 1
            node_disk_discards_merged_total{device="nvme0n1"} 2
            node_disk_discarded_sectors_total{device="nvme0n1"} 3
            node_disk_discard_time_seconds_total{device="nvme0n1"} 0.004
            node_disk_flush_requests_total{device="nvme0n1"} 411
            node_disk_flush_requests_time_seconds_total{device="nvme0n1"} 0.018
            node_disk_reads_completed_total{device="dm-0"} missing (error)
            node_disk_reads_merged_total{device="dm-0"} missing (out_of_range)
            node_disk_read_bytes_total{device="dm-0"} missing (out_of_range)
        "#]]
        .assert_eq(&fixture.print(&mut Disk::new(&fixture.roots())));
    }

    #[test]
    fn what_node_exporter_ignores_is_ignored() {
        for ignored in
            ["ram0", "zram0", "loop12", "fd0", "hda1", "sda1", "vdz15", "xvda1", "nvme0n1p1", "nvme12n34p56", "sdb9"]
        {
            assert!(is_ignored(ignored), "{ignored}");
        }
        for kept in [
            "sda",
            "sdaa1",
            "vda",
            "nvme0n1",
            "nvme0n1p",
            "nvmen1p1",
            "nvme0np1",
            "dm-0",
            "md0",
            "sr0",
            "mmcblk0p2",
            "sdA1",
            "",
            "7",
            "ram",
        ] {
            assert!(!is_ignored(kept), "{kept}");
        }
    }

    #[test]
    fn devices_beyond_the_cap_are_left_out() {
        let text: String = (0..2000).map(|number| format!("1 {number} dm-{number} 5\n")).collect();
        let fixture = Fixture::new().proc("diskstats", &text);
        assert_eq!(fixture.print(&mut Disk::new(&fixture.roots())).lines().count(), crate::samplers::cap::DEVICES_MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".*|([0-9] [0-9] [a-z0-9]{1,5}( [0-9x-]{0,21}){0,19}\n){0,4}") {
            let fixture = Fixture::new().proc("diskstats", &text);
            let _ = fixture.try_print(&mut Disk::new(&fixture.roots()));
        }
    }
}

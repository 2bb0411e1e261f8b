//! State and settings of network devices, from `/sys/class/net`.
//!
//! What a device does not offer, or not while it is down (`carrier`, `speed`), has no series. node_exporter
//! shows an unknown speed as -125000 bytes; here it is not shown.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use belfry_common::model::{Metric, Reason};

use super::{
    MINUTE, Roots, SECOND, SampleError, TEN_SECONDS, declare, network,
    number::{self, Parse},
    sysfs::{Family, Plan, Sysfs, text},
};

/// A file, the name under which it is said, and how it is read.
type File = (&'static str, &'static str, Parse);

/// Whether the link is there.
const LINK_STATES: [File; 2] = [("operstate", "up", is_up), ("carrier", "carrier", number::signed)];
const LINK_COUNTERS: [(&str, &str); 3] = [
    ("carrier_changes", "carrier_changes"),
    ("carrier_up_count", "carrier_up_changes"),
    ("carrier_down_count", "carrier_down_changes"),
];
/// What else changes while the machine runs.
const STATES: [File; 4] = [
    ("dormant", "dormant", number::signed),
    ("flags", "flags", hexadecimal),
    ("mtu", "mtu_bytes", number::signed),
    ("speed", "speed_bytes", megabits),
];
const COUNTERS: [(&str, &str); 1] = [("statistics/rx_nohandler", "receive_nohandler")];
/// What was decided when the device was made.
const SETTINGS: [File; 9] = [
    ("addr_assign_type", "address_assign_type", number::signed),
    ("dev_id", "device_id", hexadecimal),
    ("ifindex", "iface_id", number::signed),
    ("iflink", "iface_link", number::signed),
    ("link_mode", "iface_link_mode", number::signed),
    ("name_assign_type", "name_assign_type", number::signed),
    ("netdev_group", "net_dev_group", number::signed),
    ("tx_queue_len", "transmit_queue_length", number::signed),
    ("type", "protocol_type", number::signed),
];

/// Every second: links, which flap.
#[derive(Debug)]
pub(super) struct NetworkLink(Devices);

/// Every 10 s: states. To ask for the speed can make a driver ask its firmware.
#[derive(Debug)]
pub(super) struct NetworkClass(Devices);

/// The same files of each device.
#[derive(Debug)]
struct Devices {
    directory: PathBuf,
    files: Vec<(&'static str, Arc<Metric>, Parse)>,
}

pub(super) fn link_sampler(roots: &Roots) -> Sysfs<NetworkLink> {
    Sysfs::new(NetworkLink(Devices::new(roots, &LINK_STATES, &LINK_COUNTERS)))
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<NetworkClass> {
    Sysfs::new(NetworkClass(Devices::new(roots, &STATES, &COUNTERS)))
}

impl Devices {
    fn new(roots: &Roots, states: &[File], counters: &[(&'static str, &str)]) -> Self {
        let counter = |&(file, name): &(&'static str, &str)| (file, network::counter(name), number::unsigned as Parse);
        Self {
            directory: roots.sys.join("class/net"),
            files: states.iter().copied().map(gauge).chain(counters.iter().map(counter)).collect(),
        }
    }

    fn scan(&self, plan: &mut Plan) -> Result<(), SampleError> {
        for (device, directory) in devices(plan, &self.directory)? {
            put_files(plan, &device, &directory, &self.files);
        }
        Ok(())
    }
}

fn gauge((file, name, parse): File) -> (&'static str, Arc<Metric>, Parse) {
    let help = match name {
        "up" => "Value is 1 if operstate is 'up', 0 otherwise.".into(),
        name => format!("Network device property: {name}."),
    };
    (file, declare::gauge(&format!("node_network_{name}"), &["device"], &help), parse)
}

impl Family for NetworkLink {
    const NAME: &'static str = "network_link";
    const INTERVAL: Duration = SECOND;
    /// Interfaces of containers come and go.
    const SCAN_EVERY: u32 = 10;
    /// About 20 devices; those of containers, which are many, sort after those of the machine.
    const OPEN_MAX: usize = 128;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        self.0.scan(plan)
    }
}

impl Family for NetworkClass {
    const NAME: &'static str = "network_class";
    const INTERVAL: Duration = TEN_SECONDS;
    const SCAN_EVERY: u32 = 1;
    const OPEN_MAX: usize = 128;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        self.0.scan(plan)
    }
}

/// The devices and their directories; `bonding_masters` is a file.
fn devices(plan: &mut Plan, directory: &Path) -> Result<Vec<(String, PathBuf)>, SampleError> {
    let devices = plan.list(directory, "")?.into_iter().map(|device| (directory.join(&device), device));
    Ok(devices.filter(|(directory, _)| directory.is_dir()).map(|(directory, device)| (device, directory)).collect())
}

fn put_files(plan: &mut Plan, device: &str, directory: &Path, files: &[(&str, Arc<Metric>, Parse)]) {
    for (file, metric, parse) in files {
        plan.optional_file(metric, &[device], directory.join(file), *parse);
    }
}

/// Every minute: settings, and what a device says of itself in words.
#[derive(Debug)]
pub(super) struct NetworkInfo {
    directory: PathBuf,
    info: Arc<Metric>,
    settings: Vec<(&'static str, Arc<Metric>, Parse)>,
}

pub(super) fn info_sampler(roots: &Roots) -> Sysfs<NetworkInfo> {
    Sysfs::new(NetworkInfo {
        directory: roots.sys.join("class/net"),
        info: declare::info(
            "node_network_info",
            &["device", "address", "broadcast", "duplex", "operstate", "adminstate", "ifalias"],
            "Non-numeric data from /sys/class/net/<iface>, value is always 1.",
        ),
        settings: SETTINGS.into_iter().map(gauge).collect(),
    })
}

impl Family for NetworkInfo {
    const NAME: &'static str = "network_info";
    const INTERVAL: Duration = MINUTE;
    const SCAN_EVERY: u32 = 1;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for (device, directory) in devices(plan, &self.directory)? {
            put_files(plan, &device, &directory, &self.settings);
            let fact = |file| text(&directory.join(file)).unwrap_or_default();
            let (address, broadcast, duplex) = (fact("address"), fact("broadcast"), fact("duplex"));
            let (operstate, alias) = (fact("operstate"), fact("ifalias"));
            let admin_state = match hexadecimal(&fact("flags")) {
                // IFF_UP
                Ok(flags) if flags & 1 == 1 => "up",
                Ok(_) => "down",
                Err(_) => "unknown",
            };
            plan.fixed(&self.info, &[&device, &address, &broadcast, &duplex, &operstate, admin_state, &alias], 1);
        }
        Ok(())
    }
}

fn is_up(text: &str) -> Result<i64, Reason> {
    Ok(i64::from(text == "up"))
}

/// `0x1003`
fn hexadecimal(text: &str) -> Result<i64, Reason> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    i64::from_str_radix(digits, 16).map_err(|_| Reason::Error)
}

/// Megabits per second as bytes per second. The kernel's word for unknown is -1, in old ones as 32 bits.
fn megabits(text: &str) -> Result<i64, Reason> {
    match number::signed(text)? {
        ..0 | 0xffff_ffff => Err(Reason::Unsupported),
        megabits => number::times(Ok(megabits), 125_000),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    fn fixture() -> Fixture {
        let mut fixture = Fixture::new().sys("class/net/bonding_masters", "bond0\n");
        for (file, text) in [
            ("operstate", "up"),
            ("carrier", "1"),
            ("carrier_changes", "2"),
            ("dev_id", "0x20"),
            ("flags", "0x1003"),
            ("mtu", "9000"),
            ("speed", "400000"),
            ("address", "02:fc:00:00:00:01"),
            ("broadcast", "ff:ff:ff:ff:ff:ff"),
            ("duplex", "full"),
            ("ifalias", "to \"spine\" 1"),
            ("statistics/rx_nohandler", "7"),
        ] {
            fixture = fixture.sys(&format!("class/net/eth0/{file}"), &format!("{text}\n"));
        }
        for (file, text) in [("operstate", "down"), ("speed", "-1"), ("mtu", "big"), ("flags", "0x1002")] {
            fixture = fixture.sys(&format!("class/net/eth1/{file}"), &format!("{text}\n"));
        }
        fixture
    }

    #[test]
    fn links() {
        let fixture = fixture();
        expect![[r#"
            node_network_up{device="eth0"} 1
            node_network_carrier{device="eth0"} 1
            node_network_carrier_changes_total{device="eth0"} 2
            node_network_up{device="eth1"} 0
        "#]]
        .assert_eq(&fixture.print(&mut link_sampler(&fixture.roots())));
    }

    #[test]
    fn states() {
        let fixture = fixture();
        expect![[r#"
            node_network_flags{device="eth0"} 4099
            node_network_mtu_bytes{device="eth0"} 9000
            node_network_speed_bytes{device="eth0"} 50000000000
            node_network_receive_nohandler_total{device="eth0"} 7
            node_network_flags{device="eth1"} 4098
            node_network_mtu_bytes{device="eth1"} missing (error)
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }

    #[test]
    fn facts() {
        let fixture = fixture();
        expect![[r#"
            node_network_device_id{device="eth0"} 32
            node_network_info{device="eth0",address="02:fc:00:00:00:01",broadcast="ff:ff:ff:ff:ff:ff",duplex="full",operstate="up",adminstate="up",ifalias="to \"spine\" 1"} 1
            node_network_info{device="eth1",address="",broadcast="",duplex="",operstate="down",adminstate="down",ifalias=""} 1
        "#]].assert_eq(&fixture.print(&mut info_sampler(&fixture.roots())));
    }
}

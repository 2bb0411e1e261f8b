//! Ports of InfiniBand and RoCE adapters, from `/sys/class/infiniband`.
//!
//! Three samplers: counters and the port's state each second; the adapter's diagnostic counters, which the driver
//! itself renews only now and then, every 10 s; facts every minute. Each file is a reading of its own, so that
//! one bad port never costs the others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use belfry_common::model::{Kind, Metric, Reason, Resolution};

use super::{
    MINUTE, Roots, SECOND, SampleError, TEN_SECONDS, declare,
    infiniband_names::{COUNTERS, HW_COUNTERS, LEGACY_COUNTERS, Name},
    number,
    sysfs::{Family, Plan, Sysfs, text},
};

/// State and traffic of each port.
#[derive(Debug)]
pub(super) struct Ports {
    directory: PathBuf,
    state: Arc<Metric>,
    physical_state: Arc<Metric>,
    counters: Vec<(&'static Name, Arc<Metric>)>,
    legacy_counters: Vec<(&'static Name, Arc<Metric>)>,
}

pub(super) fn sampler(roots: &Roots) -> Sysfs<Ports> {
    Sysfs::new(Ports {
        directory: directory(roots),
        state: declare::gauge(
            "node_infiniband_state_id",
            &["device", "port"],
            "State of the InfiniBand port (0: no change, 1: down, 2: init, 3: armed, 4: active, 5: act defer).",
        ),
        physical_state: declare::gauge(
            "node_infiniband_physical_state_id",
            &["device", "port"],
            "Physical state of the InfiniBand port (0: no change, 1: sleep, 2: polling, 3: disable, 4: shift, 5: link up, 6: link error recover, 7: phytest).",
        ),
        counters: declare(&COUNTERS),
        legacy_counters: declare(&LEGACY_COUNTERS),
    })
}

impl Family for Ports {
    const NAME: &'static str = "infiniband";
    const INTERVAL: Duration = SECOND;
    const SCAN_EVERY: u32 = 10;
    /// Eight single-port adapters.
    const OPEN_MAX: usize = 256;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for Port { device, port, directory } in ports(plan, &self.directory)? {
            let labels = &[&*device, &*port];
            plan.file(&self.state, labels, directory.join("state"), state);
            plan.file(&self.physical_state, labels, directory.join("phys_state"), state);
            scan_counters(plan, labels, &directory.join("counters"), &self.counters);
            scan_counters(plan, labels, &directory.join("counters_ext"), &self.legacy_counters);
        }
        Ok(())
    }
}

/// The adapter's own diagnostics of each port, and its rate.
#[derive(Debug)]
pub(super) struct HwCounters {
    directory: PathBuf,
    rate: Arc<Metric>,
    lifespan: Arc<Metric>,
    counters: Vec<(&'static Name, Arc<Metric>)>,
}

pub(super) fn hw_counters_sampler(roots: &Roots) -> Sysfs<HwCounters> {
    Sysfs::new(HwCounters {
        directory: directory(roots),
        rate: declare::gauge(
            "node_infiniband_rate_bytes_per_second",
            &["device", "port"],
            "Maximum signal transfer rate.",
        ),
        lifespan: declare::metric(
            "node_infiniband_lifespan_seconds",
            Kind::Gauge,
            Resolution::MILLI,
            &["device", "port"],
            "The time for which the adapter gives the same counters again.",
        ),
        counters: declare(&HW_COUNTERS),
    })
}

impl Family for HwCounters {
    const NAME: &'static str = "infiniband_hw_counters";
    const INTERVAL: Duration = TEN_SECONDS;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for Port { device, port, directory } in ports(plan, &self.directory)? {
            let labels = &[&*device, &*port];
            plan.file(&self.rate, labels, directory.join("rate"), rate);
            let counters = directory.join("hw_counters");
            plan.optional_file(&self.lifespan, labels, counters.join("lifespan"), number::unsigned);
            scan_counters(plan, labels, &counters, &self.counters);
        }
        Ok(())
    }
}

/// What an adapter is.
#[derive(Debug)]
pub(super) struct Adapters {
    directory: PathBuf,
    metric: Arc<Metric>,
}

pub(super) fn info_sampler(roots: &Roots) -> Sysfs<Adapters> {
    Sysfs::new(Adapters {
        directory: directory(roots),
        metric: declare::info(
            "node_infiniband_info",
            &["device", "board_id", "firmware_version", "hca_type"],
            "Non-numeric data from /sys/class/infiniband/<device>, value is always 1.",
        ),
    })
}

impl Family for Adapters {
    const NAME: &'static str = "infiniband_info";
    const INTERVAL: Duration = MINUTE;
    const SCAN_EVERY: u32 = 1;

    fn scan(&mut self, plan: &mut Plan) -> Result<(), SampleError> {
        for device in plan.list(&self.directory, "")? {
            let fact = |file| text(&self.directory.join(&device).join(file)).unwrap_or_default();
            plan.fixed(&self.metric, &[&device, &fact("board_id"), &fact("fw_ver"), &fact("hca_type")], 1);
        }
        Ok(())
    }
}

struct Port {
    device: String,
    port: String,
    directory: PathBuf,
}

fn directory(roots: &Roots) -> PathBuf {
    roots.sys.join("class/infiniband")
}

fn ports(plan: &mut Plan, directory: &Path) -> Result<Vec<Port>, SampleError> {
    let mut ports = Vec::new();
    for device in plan.list(directory, "")? {
        let of_device = directory.join(&device).join("ports");
        // A device without ports is one that is just being made, or taken away.
        for number in plan.numbered(&of_device, "").unwrap_or_default() {
            let port = number.to_string();
            ports.push(Port { device: device.clone(), directory: of_device.join(&port), port });
        }
    }
    Ok(ports)
}

fn declare(names: &'static [Name]) -> Vec<(&'static Name, Arc<Metric>)> {
    let metric =
        |name: &Name| declare::counter(&format!("node_infiniband_{}", name.name), &["device", "port"], name.help);
    names.iter().map(|name| (name, metric(name))).collect()
}

/// Adds the counters that this adapter offers; which they are differs from driver to driver. Where that cannot be
/// found out, all of them are asked for, and say why they are missing.
fn scan_counters(plan: &mut Plan, labels: &[&str], directory: &Path, names: &[(&'static Name, Arc<Metric>)]) {
    let files = plan.list(directory, "");
    let is_offered = |name: &Name| files.as_ref().map_or(true, |files| files.iter().any(|file| file == name.file));
    for (name, metric) in names.iter().filter(|(name, _)| is_offered(name)) {
        let parse = if name.is_words { words } else { count };
        plan.optional_file(metric, labels, directory.join(name.file), parse);
    }
}

/// A port without a performance management agent says `N/A (no PMA)`.
fn count(text: &str) -> Result<i64, Reason> {
    if text.contains("N/A (no PMA)") { Err(Reason::Unsupported) } else { number::unsigned(text) }
}

/// Data is counted in words of four octets.
fn words(text: &str) -> Result<i64, Reason> {
    number::times(count(text), 4)
}

/// `4: ACTIVE`
fn state(text: &str) -> Result<i64, Reason> {
    let (id, _) = text.split_once(':').ok_or(Reason::Error)?;
    number::unsigned(id.trim())
}

/// `2.5 Gb/sec (1X SDR)` in bytes per second. One digit after the point is the most there is.
fn rate(text: &str) -> Result<i64, Reason> {
    let gigabits = text.split_ascii_whitespace().next().ok_or(Reason::Error)?;
    let gigabits: f64 = gigabits.parse().map_err(|_| Reason::Error)?;
    if (0.0..1e6).contains(&gigabits) { Ok((gigabits * 125e6) as i64) } else { Err(Reason::OutOfRange) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    fn fixture() -> Fixture {
        let device = "class/infiniband/mlx5_0";
        let mut fixture = Fixture::new()
            .sys(&format!("{device}/board_id"), "MT_0000000838\n")
            .sys(&format!("{device}/fw_ver"), "28.39.1002\n")
            .sys(&format!("{device}/hca_type"), "MT4129\n");
        for (port, file, text) in [
            (1, "state", "4: ACTIVE"),
            (1, "phys_state", "5: LinkUp"),
            (1, "rate", "400 Gb/sec (4X NDR)"),
            (1, "counters/port_rcv_data", "1000"),
            (1, "counters/port_xmit_data", "18446744073709551615"),
            (1, "counters/link_downed", "3"),
            (1, "counters/symbol_error", "N/A (no PMA)"),
            (1, "counters/unknown_to_us", "9"),
            (1, "counters_ext/port_rcv_data_64", "50"),
            (1, "hw_counters/lifespan", "10"),
            (1, "hw_counters/out_of_sequence", "12"),
            (2, "state", "broken"),
            (2, "phys_state", ""),
            (2, "rate", "fast"),
            (2, "counters/link_downed", "x"),
            (2, "counters/VL15_dropped", "0"),
            (2, "hw_counters/rx_read_requests", "77"),
        ] {
            fixture = fixture.sys(&format!("{device}/ports/{port}/{file}"), &format!("{text}\n"));
        }
        fixture
    }

    #[test]
    fn a_bad_port_costs_only_its_own_readings() {
        let fixture = fixture();
        expect![[r#"
            node_infiniband_state_id{device="mlx5_0",port="1"} 4
            node_infiniband_physical_state_id{device="mlx5_0",port="1"} 5
            node_infiniband_link_downed_total{device="mlx5_0",port="1"} 3
            node_infiniband_port_data_received_bytes_total{device="mlx5_0",port="1"} 4000
            node_infiniband_port_data_transmitted_bytes_total{device="mlx5_0",port="1"} missing (out_of_range)
            node_infiniband_legacy_data_received_bytes_total{device="mlx5_0",port="1"} 200
            node_infiniband_state_id{device="mlx5_0",port="2"} missing (error)
            node_infiniband_physical_state_id{device="mlx5_0",port="2"} missing (error)
            node_infiniband_link_downed_total{device="mlx5_0",port="2"} missing (error)
            node_infiniband_vl15_dropped_total{device="mlx5_0",port="2"} 0
        "#]]
        .assert_eq(&fixture.print(&mut sampler(&fixture.roots())));
    }

    #[test]
    fn diagnostics_and_rate() {
        let fixture = fixture();
        expect![[r#"
            node_infiniband_rate_bytes_per_second{device="mlx5_0",port="1"} 50000000000
            node_infiniband_lifespan_seconds{device="mlx5_0",port="1"} 0.01
            node_infiniband_out_of_sequence_packets_received_total{device="mlx5_0",port="1"} 12
            node_infiniband_rate_bytes_per_second{device="mlx5_0",port="2"} missing (error)
            node_infiniband_rx_read_requests_total{device="mlx5_0",port="2"} 77
        "#]]
        .assert_eq(&fixture.print(&mut hw_counters_sampler(&fixture.roots())));
    }

    #[test]
    fn facts() {
        let fixture = fixture();
        expect![[r#"
            node_infiniband_info{device="mlx5_0",board_id="MT_0000000838",firmware_version="28.39.1002",hca_type="MT4129"} 1
        "#]].assert_eq(&fixture.print(&mut info_sampler(&fixture.roots())));
    }

    #[test]
    fn rates_of_old_adapters_have_a_point() {
        assert_eq!(rate("2.5 Gb/sec (1X SDR)"), Ok(312_500_000));
        assert_eq!(rate("inf Gb/sec"), Err(Reason::OutOfRange));
        assert_eq!(rate(""), Err(Reason::Error));
    }
}

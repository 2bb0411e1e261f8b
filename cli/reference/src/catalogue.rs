//! The 500 series of a node, in the order that is part of the data set.

use crate::Shape;

/// Series of a node.
pub const SERIES_PER_NODE: usize = 500;

/// One series of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The family that is sampled together, such as `gpu` or `disk`.
    pub family: &'static str,
    /// The metric's name.
    pub metric: String,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// How its values behave.
    pub shape: Shape,
}

const GPUS: usize = 8;
const CPUS: usize = 16;
const PORTS: usize = 8;

const GPU: [(&str, Shape); 25] = [
    ("gpu_temp_celsius", Shape::SlowSteps),
    ("gpu_mem_temp_celsius", Shape::SlowSteps),
    ("gpu_power_watts", Shape::Hundredths),
    ("gpu_util_percent", Shape::Percent),
    ("gpu_mem_copy_util_percent", Shape::Percent),
    ("gpu_sm_active_ratio", Shape::Ratio),
    ("gpu_tensor_active_ratio", Shape::Ratio),
    ("gpu_dram_active_ratio", Shape::Ratio),
    ("gpu_sm_occupancy_ratio", Shape::Ratio),
    ("gpu_fb_used_bytes", Shape::Pages),
    ("gpu_fb_total_bytes", Shape::Constant),
    ("gpu_sm_clock_mhz", Shape::Steps),
    ("gpu_mem_clock_mhz", Shape::Constant),
    ("gpu_energy_millijoules_total", Shape::Counter),
    ("gpu_pcie_rx_bytes_total", Shape::Counter),
    ("gpu_pcie_tx_bytes_total", Shape::Counter),
    ("gpu_nvlink_rx_bytes_total", Shape::Counter),
    ("gpu_nvlink_tx_bytes_total", Shape::Counter),
    ("gpu_ecc_sbe_total", Shape::Zero),
    ("gpu_ecc_dbe_total", Shape::Zero),
    ("gpu_xid_last", Shape::Zero),
    ("gpu_throttle_reasons", Shape::Zero),
    ("gpu_remapped_rows", Shape::Zero),
    ("gpu_fan_percent", Shape::SlowSteps),
    ("gpu_processes", Shape::Steps),
];

const CPU: [(&str, Shape); 8] = [
    ("user", Shape::Centiseconds),
    ("system", Shape::Centiseconds),
    ("idle", Shape::Centiseconds),
    ("iowait", Shape::RareCounter),
    ("irq", Shape::RareCounter),
    ("softirq", Shape::Centiseconds),
    ("steal", Shape::Zero),
    ("nice", Shape::Zero),
];

const MEMORY: [(&str, Shape); 16] = [
    ("free", Shape::Pages),
    ("available", Shape::Pages),
    ("buffers", Shape::Pages),
    ("cached", Shape::Pages),
    ("active", Shape::Pages),
    ("inactive", Shape::Pages),
    ("dirty", Shape::Pages),
    ("anon", Shape::Pages),
    ("mapped", Shape::Pages),
    ("slab", Shape::Pages),
    ("total", Shape::Constant),
    ("swap_total", Shape::Constant),
    ("swap_free", Shape::Constant),
    ("hugepages_total", Shape::Constant),
    ("hugepages_free", Shape::Constant),
    ("commit_limit", Shape::Constant),
];

const DISK: [(&str, Shape); 10] = [
    ("reads_total", Shape::Counter),
    ("writes_total", Shape::Counter),
    ("read_bytes_total", Shape::Counter),
    ("written_bytes_total", Shape::Counter),
    ("io_time_seconds_total", Shape::Centiseconds),
    ("read_time_seconds_total", Shape::Centiseconds),
    ("write_time_seconds_total", Shape::Centiseconds),
    ("io_now", Shape::Steps),
    ("discards_total", Shape::Zero),
    ("size_bytes", Shape::Constant),
];

const NETWORK: [(&str, Shape); 10] = [
    ("rx_bytes_total", Shape::Counter),
    ("tx_bytes_total", Shape::Counter),
    ("rx_packets_total", Shape::Counter),
    ("tx_packets_total", Shape::Counter),
    ("rx_errs_total", Shape::Zero),
    ("tx_errs_total", Shape::Zero),
    ("rx_drop_total", Shape::RareCounter),
    ("tx_drop_total", Shape::Zero),
    ("speed_bytes", Shape::Constant),
    ("up", Shape::Constant),
];

const INFINIBAND: [(&str, Shape); 6] = [
    ("rx_bytes_total", Shape::Counter),
    ("tx_bytes_total", Shape::Counter),
    ("rx_packets_total", Shape::Counter),
    ("tx_packets_total", Shape::Counter),
    ("symbol_errors_total", Shape::Zero),
    ("link_state", Shape::Constant),
];

const FILESYSTEM: [(&str, Shape); 3] =
    [("size_bytes", Shape::Constant), ("avail_bytes", Shape::Pages), ("files_free", Shape::Pages)];

const KERNEL: [(&str, Shape); 8] = [
    ("procs_running", Shape::Steps),
    ("procs_blocked", Shape::Steps),
    ("context_switches_total", Shape::Counter),
    ("interrupts_total", Shape::Counter),
    ("forks_total", Shape::RareCounter),
    ("uptime_seconds", Shape::Seconds),
    ("boot_time_seconds", Shape::Constant),
    ("fd_allocated", Shape::Steps),
];

/// The series of a node, the same for every node.
#[must_use]
pub fn catalogue() -> Vec<Series> {
    let mut all = Vec::with_capacity(SERIES_PER_NODE);
    let mut add = |family, metric: String, labels: Vec<(&'static str, String)>, shape| {
        all.push(Series { family, metric, labels, shape });
    };
    for gpu in 0..GPUS {
        GPU.iter().for_each(|&(name, shape)| add("gpu", name.into(), vec![("gpu", gpu.to_string())], shape));
    }
    for cpu in 0..CPUS {
        for (mode, shape) in CPU {
            add("cpu", "cpu_seconds_total".into(), vec![("cpu", cpu.to_string()), ("mode", mode.into())], shape);
        }
    }
    MEMORY.iter().for_each(|&(name, shape)| add("memory", format!("memory_{name}_bytes"), vec![], shape));
    for device in ["nvme0n1", "nvme1n1", "nvme2n1", "nvme3n1"] {
        DISK.iter()
            .for_each(|&(name, shape)| add("disk", format!("disk_{name}"), vec![("device", device.into())], shape));
    }
    for device in ["eth0", "eth1", "bond0", "lo"] {
        let mut add = |name, shape| add("network", format!("network_{name}"), vec![("device", device.into())], shape);
        NETWORK.iter().for_each(|&(name, shape)| add(name, shape));
    }
    for port in 0..PORTS {
        let labels = || vec![("device", format!("mlx5_{port}"))];
        INFINIBAND.iter().for_each(|&(name, shape)| add("infiniband", format!("infiniband_{name}"), labels(), shape));
    }
    for name in ["load1", "load5", "load15"] {
        add("load", name.into(), vec![], Shape::Hundredths);
    }
    for mountpoint in ["/", "/data", "/scratch", "/home"] {
        let labels = || vec![("mountpoint", mountpoint.to_string())];
        FILESYSTEM.iter().for_each(|&(name, shape)| add("filesystem", format!("filesystem_{name}"), labels(), shape));
    }
    KERNEL.iter().for_each(|&(name, shape)| add("kernel", name.into(), vec![], shape));
    for sensor in 0..5 {
        add("hwmon", "hwmon_temp_celsius".into(), vec![("sensor", format!("s{sensor}"))], Shape::SlowSteps);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_500_different_series() {
        let all = catalogue();
        let different: HashSet<_> = all.iter().map(|series| (&series.metric, &series.labels)).collect();
        assert_eq!((all.len(), different.len()), (SERIES_PER_NODE, SERIES_PER_NODE));
    }
}

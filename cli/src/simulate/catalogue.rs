//! The 500 series of a simulated node: 8 GPUs, 16 CPUs, 4 disks, 4 interfaces, 8 InfiniBand ports and the rest, under the names
//! that real agents use.

use std::{collections::HashMap, sync::Arc};

use belfry_common::model::{Kind, Layout, Metric, Resolution, SeriesDefinition};

use super::generator::{Generator, Shape};

const GPUS: usize = 8;
const CPUS: usize = 16;
const CPU_MODES: [(&str, Shape); 8] = [
    ("user", Shape::CpuTime),
    ("system", Shape::CpuTime),
    ("idle", Shape::CpuTime),
    ("iowait", Shape::RareCounter),
    ("irq", Shape::RareCounter),
    ("softirq", Shape::CpuTime),
    ("steal", Shape::Zero),
    ("nice", Shape::Zero),
];

/// Name, labels of its own, shape, decimal digits.
type Row = (&'static str, &'static [(&'static str, &'static str)], Shape, u8);

const GIB: i64 = 1 << 30;
const ONE: Shape = Shape::Fixed(1);

/// Per GPU.
const GPU: [Row; 25] = [
    ("gpu_info", &[("model", "Simulated 141GB"), ("driver_version", "0.0")], ONE, 0),
    ("gpu_temperature_celsius", &[("sensor", "gpu")], Shape::SlowSteps, 0),
    ("gpu_temperature_celsius", &[("sensor", "memory")], Shape::SlowSteps, 0),
    ("gpu_power_watts", &[], Shape::Wandering, 2),
    ("gpu_utilization_ratio", &[], Shape::Percent, 2),
    ("gpu_memory_copy_utilization_ratio", &[], Shape::Percent, 2),
    ("gpu_sm_active_ratio", &[], Shape::Ratio, 6),
    ("gpu_tensor_active_ratio", &[], Shape::Ratio, 6),
    ("gpu_dram_active_ratio", &[], Shape::Ratio, 6),
    ("gpu_sm_occupancy_ratio", &[], Shape::Ratio, 6),
    ("gpu_memory_used_bytes", &[], Shape::Pages, 0),
    ("gpu_memory_total_bytes", &[], Shape::Fixed(141 * GIB), 0),
    ("gpu_clock_hertz", &[("clock", "sm")], Shape::Clock, 0),
    ("gpu_clock_max_hertz", &[("clock", "sm")], Shape::Fixed(1_980_000_000), 0),
    ("gpu_energy_joules_total", &[], Shape::Counter, 3),
    ("gpu_pcie_receive_bytes_total", &[], Shape::Counter, 0),
    ("gpu_pcie_transmit_bytes_total", &[], Shape::Counter, 0),
    ("gpu_nvlink_receive_bytes_total", &[], Shape::Counter, 0),
    ("gpu_nvlink_transmit_bytes_total", &[], Shape::Counter, 0),
    ("gpu_ecc_errors_total", &[("type", "corrected"), ("scope", "volatile"), ("location", "dram")], Shape::Zero, 0),
    ("gpu_up", &[], ONE, 0),
    ("gpu_xid_errors_total", &[("xid", "79")], Shape::Zero, 0),
    ("gpu_clock_event_active", &[("reason", "sw_power_cap")], Shape::Zero, 0),
    ("gpu_remapped_rows_total", &[("type", "uncorrectable")], Shape::Zero, 0),
    ("gpu_performance_state", &[], Shape::Zero, 0),
];

const MEMORY: [Row; 16] = [
    ("node_memory_MemFree_bytes", &[], Shape::Pages, 0),
    ("node_memory_MemAvailable_bytes", &[], Shape::Pages, 0),
    ("node_memory_Buffers_bytes", &[], Shape::Pages, 0),
    ("node_memory_Cached_bytes", &[], Shape::Pages, 0),
    ("node_memory_Active_bytes", &[], Shape::Pages, 0),
    ("node_memory_Inactive_bytes", &[], Shape::Pages, 0),
    ("node_memory_Dirty_bytes", &[], Shape::Pages, 0),
    ("node_memory_AnonPages_bytes", &[], Shape::Pages, 0),
    ("node_memory_Mapped_bytes", &[], Shape::Pages, 0),
    ("node_memory_Slab_bytes", &[], Shape::Pages, 0),
    ("node_memory_MemTotal_bytes", &[], Shape::Fixed(128 * GIB), 0),
    ("node_memory_SwapTotal_bytes", &[], Shape::Zero, 0),
    ("node_memory_SwapFree_bytes", &[], Shape::Zero, 0),
    ("node_memory_HugePages_Total", &[], Shape::Zero, 0),
    ("node_memory_HugePages_Free", &[], Shape::Zero, 0),
    ("node_memory_CommitLimit_bytes", &[], Shape::Fixed(64 * GIB), 0),
];

const DISK: [Row; 10] = [
    ("node_disk_reads_completed_total", &[], Shape::Counter, 0),
    ("node_disk_writes_completed_total", &[], Shape::Counter, 0),
    ("node_disk_read_bytes_total", &[], Shape::Counter, 0),
    ("node_disk_written_bytes_total", &[], Shape::Counter, 0),
    ("node_disk_io_time_seconds_total", &[], Shape::CpuTime, 2),
    ("node_disk_read_time_seconds_total", &[], Shape::CpuTime, 2),
    ("node_disk_write_time_seconds_total", &[], Shape::CpuTime, 2),
    ("node_disk_io_now", &[], Shape::Steps, 0),
    ("node_disk_discards_completed_total", &[], Shape::Zero, 0),
    ("node_disk_discarded_bytes_total", &[], Shape::Zero, 0),
];

const NETWORK: [Row; 10] = [
    ("node_network_receive_bytes_total", &[], Shape::Counter, 0),
    ("node_network_transmit_bytes_total", &[], Shape::Counter, 0),
    ("node_network_receive_packets_total", &[], Shape::Counter, 0),
    ("node_network_transmit_packets_total", &[], Shape::Counter, 0),
    ("node_network_receive_errs_total", &[], Shape::Zero, 0),
    ("node_network_transmit_errs_total", &[], Shape::Zero, 0),
    ("node_network_receive_drop_total", &[], Shape::RareCounter, 0),
    ("node_network_transmit_drop_total", &[], Shape::Zero, 0),
    ("node_network_speed_bytes", &[], Shape::Fixed(12_500_000_000), 0),
    ("node_network_up", &[], ONE, 0),
];

const INFINIBAND: [Row; 6] = [
    ("node_infiniband_port_data_received_bytes_total", &[], Shape::Counter, 0),
    ("node_infiniband_port_data_transmitted_bytes_total", &[], Shape::Counter, 0),
    ("node_infiniband_port_packets_received_total", &[], Shape::Counter, 0),
    ("node_infiniband_port_packets_transmitted_total", &[], Shape::Counter, 0),
    ("node_infiniband_symbol_error_total", &[], Shape::Zero, 0),
    ("node_infiniband_state_id", &[], Shape::Fixed(4), 0),
];

const LOAD: [Row; 3] =
    [("node_load1", &[], Shape::Load, 2), ("node_load5", &[], Shape::Load, 2), ("node_load15", &[], Shape::Load, 2)];

const FILESYSTEM: [Row; 3] = [
    ("node_filesystem_size_bytes", &[], Shape::Fixed(96 * GIB), 0),
    ("node_filesystem_avail_bytes", &[], Shape::Pages, 0),
    ("node_filesystem_files_free", &[], Shape::Pages, 0),
];

const KERNEL: [Row; 8] = [
    ("node_procs_running", &[], Shape::Steps, 0),
    ("node_procs_blocked", &[], Shape::Zero, 0),
    ("node_context_switches_total", &[], Shape::Counter, 0),
    ("node_intr_total", &[], Shape::Counter, 0),
    ("node_forks_total", &[], Shape::RareCounter, 0),
    ("node_time_seconds", &[], Shape::Seconds, 0),
    ("node_boot_time_seconds", &[], Shape::Fixed(1_780_000_000), 0),
    ("node_filefd_allocated", &[], Shape::Steps, 0),
];

/// One group of a node: its layout and the values of its series.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) layout: Arc<Layout>,
    pub(super) values: Vec<Values>,
}

/// One series' values.
#[derive(Debug)]
pub(super) enum Values {
    Load(Generator),
    Reference(belfry_reference::Values),
}

impl Values {
    /// The next one, at the metric's resolution.
    pub(super) fn next(&mut self) -> i64 {
        match self {
            Self::Load(generator) => generator.next(),
            Self::Reference(values) => values.step(),
        }
    }
}

/// The groups of a node of the reference data set, under its own names.
pub(super) fn reference(node: usize, interval_ms: u32) -> Vec<Group> {
    let mut groups: Vec<Draft> = Vec::new();
    let mut metrics: HashMap<String, Arc<Metric>> = HashMap::new();
    for (place, series) in belfry_reference::catalogue().into_iter().enumerate() {
        let labels = belfry_reference::labels(&series, node as u64);
        let metric = metrics.entry(series.metric.clone()).or_insert_with(|| {
            let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
            let kind = if series.shape.is_counter() { Kind::Counter } else { Kind::Gauge };
            Arc::new(Metric::new(
                &series.metric,
                kind,
                Resolution::Decimal(series.shape.digits()),
                &names,
                "Reference.",
            ))
        });
        let label_values = labels.into_iter().map(|(_, value)| value.into()).collect();
        let definition = Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values });
        let values = Values::Reference(belfry_reference::values(series.shape, node as u64, place));
        let next = groups.len() as u16 + 1;
        match groups.iter_mut().find(|draft| draft.sampler == series.family) {
            Some(draft) => draft.add(definition, values),
            None => groups.push(Draft::new(next, series.family, definition, values)),
        }
    }
    groups.into_iter().map(|draft| draft.finish(interval_ms)).collect()
}

/// The groups of a node with this many series: the catalogue, cut short or repeated as often as is needed.
pub(super) fn groups(node: usize, series: usize, interval_ms: u32) -> Vec<Group> {
    let catalogue = (0..).flat_map(rows).take(series);
    let mut groups: Vec<Draft> = Vec::new();
    let mut metrics: HashMap<(&str, usize), Arc<Metric>> = HashMap::new();
    for (seed, row) in (500 * node as u64 + 1..).zip(catalogue) {
        let Series { group, sampler, row: (name, own_labels, shape, digits), mut labels } = row;
        labels.extend(own_labels.iter().map(|&(name, value)| (name, value.to_string())));
        let metric = metrics.entry((name, labels.len())).or_insert_with(|| {
            let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
            let kind = match name {
                _ if name.ends_with("_total") => Kind::Counter,
                _ if name.ends_with("_info") => Kind::Info,
                _ => Kind::Gauge,
            };
            Arc::new(Metric::new(name, kind, Resolution::Decimal(digits), &names, "Simulated."))
        });
        let label_values = labels.into_iter().map(|(_, value)| value.into()).collect();
        let definition = Arc::new(SeriesDefinition { metric: Arc::clone(metric), label_values });
        let values = Values::Load(Generator::new(shape, seed));
        match groups.iter_mut().find(|draft| draft.group == group) {
            Some(draft) => draft.add(definition, values),
            None => groups.push(Draft::new(group, sampler, definition, values)),
        }
    }
    groups.into_iter().map(|draft| draft.finish(interval_ms)).collect()
}

/// A group while its series are gathered.
struct Draft {
    group: u16,
    sampler: &'static str,
    series: Vec<Arc<SeriesDefinition>>,
    values: Vec<Values>,
}

impl Draft {
    fn new(group: u16, sampler: &'static str, series: Arc<SeriesDefinition>, values: Values) -> Self {
        Self { group, sampler, series: vec![series], values: vec![values] }
    }

    fn add(&mut self, series: Arc<SeriesDefinition>, values: Values) {
        self.series.push(series);
        self.values.push(values);
    }

    fn finish(self, interval_ms: u32) -> Group {
        let Self { group, sampler, series, values } = self;
        let layout = Layout { group, sampler: sampler.into(), interval_ms, series: series.into() };
        Group { layout: Arc::new(layout), values }
    }
}

struct Series {
    group: u16,
    sampler: &'static str,
    row: Row,
    labels: Vec<(&'static str, String)>,
}

/// The catalogue once; series of a repetition carry its number as a label.
fn rows(repetition: usize) -> Vec<Series> {
    let mut all = Vec::new();
    let mut add = |group, sampler, row, mut labels: Vec<(&'static str, String)>| {
        if repetition > 0 {
            labels.push(("copy", repetition.to_string()));
        }
        all.push(Series { group, sampler, row, labels });
    };
    for gpu in 0..GPUS {
        let labels = || vec![("gpu", gpu.to_string()), ("uuid", format!("GPU-simulated-{gpu}"))];
        GPU.iter().for_each(|&row| add(1, "gpu", row, labels()));
    }
    for cpu in 0..CPUS {
        for (mode, shape) in CPU_MODES {
            let labels = vec![("cpu", cpu.to_string()), ("mode", mode.to_string())];
            add(2, "cpu", ("node_cpu_seconds_total", &[], shape, 2), labels);
        }
    }
    MEMORY.iter().for_each(|&row| add(3, "memory", row, Vec::new()));
    for disk in 0..4 {
        DISK.iter().for_each(|&row| add(4, "disk", row, vec![("device", format!("nvme{disk}n1"))]));
    }
    for device in ["eth0", "eth1", "bond0", "lo"] {
        NETWORK.iter().for_each(|&row| add(5, "network", row, vec![("device", device.to_string())]));
    }
    for port in 0..8 {
        let labels = || vec![("device", format!("mlx5_{port}")), ("port", "1".to_string())];
        INFINIBAND.iter().for_each(|&row| add(6, "infiniband", row, labels()));
    }
    LOAD.iter().for_each(|&row| add(7, "load", row, Vec::new()));
    for mount in ["/", "/data", "/scratch", "/home"] {
        for row in FILESYSTEM {
            let labels = [("device", "nvme"), ("fstype", "ext4"), ("mountpoint", mount)];
            add(8, "filesystem", row, labels.map(|(name, value)| (name, value.to_string())).to_vec());
        }
    }
    KERNEL.iter().for_each(|&row| add(9, "kernel", row, Vec::new()));
    for sensor in 0..5 {
        let labels = vec![("chip", "platform_coretemp_0".to_string()), ("sensor", format!("temp{sensor}"))];
        add(10, "hwmon", ("node_hwmon_temp_celsius", &[], Shape::SlowSteps, 0), labels);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_node_has_as_many_different_series_as_are_asked_for() {
        for wanted in [0, 1, 500, 501, 1700] {
            let groups = groups(3, wanted, 1000);
            let all: HashSet<_> = groups.iter().flat_map(|group| &group.layout.series).collect();
            assert_eq!(all.len(), wanted);
            assert!(groups.iter().all(|group| group.layout.series.len() == group.values.len()));
        }
        assert_eq!(rows(0).len(), 500);
    }

    #[test]
    fn the_reference_has_the_values_that_it_has_everywhere() {
        let mut groups = reference(0, 1000);
        assert_eq!(groups.iter().map(|group| group.values.len()).sum::<usize>(), belfry_reference::SERIES_PER_NODE);
        let first = [(); 3].map(|()| groups[0].values[2].next());
        let shape = belfry_reference::catalogue()[2].shape;
        assert!(belfry_reference::values(shape, 0, 2).take(3).eq(first));
    }
}

//! Nodes that tell a story, for `belfry up --demo`: what an operator would see of a small fleet of GPU nodes at work.
//!
//! They are simulated and say so (name, version of the agent, serial numbers). The series are those that the status, the rules
//! and the dashboards read; real agents have many more.

mod sheet;
mod story;

use belfry_common::{
    model::{Batch, Reason, Timestamp},
    wire::message::{GpuProcess, Inventory, InventoryJob, InventoryProcess},
};

use sheet::Sheet;
use story::{GPUS, Gpu, INCIDENT, Incident, Job, MEMORY_TOTAL, Story, mix};

/// CPUs that a node is said to have: enough for a share.
const CPUS: usize = 32;
const MEMORY: f64 = 2.16e12;
const SCRATCH: f64 = 15.3e12;
/// Seconds that a node has run when the demonstration begins.
const UP_BEFORE: f64 = 1_200_000.0;
/// Seconds between what is dear.
const CONDITION: i64 = 10;
const FACTS: i64 = 60;

/// One node.
#[derive(Debug)]
pub(super) struct DemoNode {
    place: usize,
    story: Story,
    began: Timestamp,
    host: Sheet,
    activity: Sheet,
    condition: Sheet,
    facts: Sheet,
    xid: Sheet,
    /// Seconds that each CPU has worked since the beginning.
    worked: f64,
    last: Option<f64>,
}

impl DemoNode {
    pub(super) fn new(place: usize, nodes: usize, began: Timestamp) -> Self {
        Self {
            place,
            story: Story::new(nodes, began.as_millis().unsigned_abs() / 1000),
            began,
            host: Sheet::new(1, "host", 1000),
            activity: Sheet::new(2, "gpu", 1000),
            condition: Sheet::new(3, "gpu_condition", 10_000),
            facts: Sheet::new(4, "gpu_info", 60_000),
            xid: Sheet::new(5, "gpu_xid", 10_000),
            worked: 0.0,
            last: None,
        }
    }

    /// What the node says at this time.
    pub(super) fn batch(&mut self, time: Timestamp) -> Batch {
        let seconds = time.millis_since(self.began) as f64 / 1000.0;
        let is_due = |every: i64| self.last.is_none() || time.as_millis() / 1000 % every == 0;
        let (with_condition, with_facts) = (is_due(CONDITION), is_due(FACTS));
        let gpus: Vec<Gpu> = (0..GPUS).map(|gpu| self.story.gpu(self.place, gpu, seconds)).collect();
        self.say_host(seconds, time);
        self.say_activity(&gpus);
        let mut ticks = vec![self.host.finish(time), self.activity.finish(time)];
        if with_condition {
            self.say_condition(&gpus);
            ticks.push(self.condition.finish(time));
        }
        if with_facts {
            self.say_facts();
            ticks.push(self.facts.finish(time));
        }
        self.say_xids(seconds);
        ticks.push(self.xid.finish(time));
        Batch { ticks: ticks.into_iter().flatten().collect() }
    }

    /// Who uses the GPUs, when that is looked at.
    pub(super) fn inventory(&self, time: Timestamp) -> Option<Inventory> {
        if time.as_millis() / 1000 % CONDITION != 0 {
            return None;
        }
        let seconds = time.millis_since(self.began) as f64 / 1000.0;
        let job = self.story.job(self.place, seconds);
        let gpus = (0..GPUS).map(|gpu| (gpu, self.story.gpu(self.place, gpu, seconds)));
        let telling: Vec<(usize, Gpu)> = gpus.filter(|(_, gpu)| !gpu.is_lost).collect();
        let held = telling.iter().filter(|(_, gpu)| gpu.is_held);
        let processes = held.filter_map(|(gpu, state)| Some(self.process(*gpu, state, job.as_ref()?))).collect();
        let gpus = telling.iter().map(|(gpu, _)| self.uuid(*gpu)).collect();
        Some(Inventory { time_ms: time.as_millis(), gpus, processes, left_out: 0 })
    }

    fn process(&self, gpu: usize, state: &Gpu, job: &Job) -> InventoryProcess {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        InventoryProcess {
            holds: GpuProcess {
                gpu: gpu as u32,
                pid: (20_000 + job.id % 1000 * 20 + gpu as u64) as u32,
                memory_bytes: Some(state.memory_used as u64),
                sm_percent: Some((state.utilization * 100.0) as u8),
                encoder_percent: Some(0),
                decoder_percent: Some(0),
                gpu_instance: None,
                compute_instance: None,
            },
            uuid: self.uuid(gpu),
            user: job.user.to_owned(),
            command: "python train.py".to_owned(),
            job: Some(InventoryJob {
                labels: vec![
                    label("job_kind", "slurm"),
                    label("job_id", &job.id.to_string()),
                    label("user", job.user),
                    label("job_name", job.name),
                    label("partition", "gpu"),
                ],
            }),
        }
    }

    fn uuid(&self, gpu: usize) -> String {
        let number = mix((self.place * GPUS + gpu) as u64);
        format!("GPU-5e{:06x}-de30-{:04x}-{:04x}-{:012x}", self.place, gpu, number >> 48, number & 0xFFFF_FFFF_FFFF)
    }

    fn say_host(&mut self, seconds: f64, time: Timestamp) {
        let busy = if self.story.job(self.place, seconds).is_some() { 0.38 } else { 0.03 };
        self.worked += (seconds - self.last.replace(seconds).unwrap_or(seconds)).max(0.0) * busy;
        let (up, worked) = (UP_BEFORE + seconds, UP_BEFORE * 0.3 + self.worked);
        let host = &mut self.host;
        for cpu in 0..CPUS {
            let cpu = cpu.to_string();
            host.put("node_cpu_seconds_total", 2, &[("cpu", &cpu), ("mode", "user")], worked);
            host.put("node_cpu_seconds_total", 2, &[("cpu", &cpu), ("mode", "idle")], up - worked);
        }
        host.put("node_load1", 2, &[], busy * CPUS as f64);
        host.put("node_memory_MemTotal_bytes", 0, &[], MEMORY);
        host.put("node_memory_MemAvailable_bytes", 0, &[], MEMORY * (0.92 - busy));
        host.put("node_boot_time_seconds", 0, &[], (time.as_millis() / 1000) as f64 - up.floor());
        host.put("node_network_receive_bytes_total", 0, &[("device", "bond0")], worked * 2.9e9);
        host.put("node_network_transmit_bytes_total", 0, &[("device", "bond0")], worked * 7.6e9);
        let filling = self.story.incidents(self.place, seconds).find(|(kind, ..)| *kind == Incident::FullDisk);
        let scratch = filling.map_or(0.41, |(_, _, age)| (0.41 + age / 90.0 * 0.58).min(0.985));
        for (mount, size, used) in [("/", 1.9e12, 0.36), ("/scratch", SCRATCH, scratch)] {
            let labels = [("device", "/dev/md0"), ("fstype", "xfs"), ("mountpoint", mount)];
            let free = (size * (1.0 - used)).round();
            host.put("node_filesystem_size_bytes", 0, &labels, size);
            host.put("node_filesystem_free_bytes", 0, &labels, free);
            host.put("node_filesystem_avail_bytes", 0, &labels, free);
            host.put("node_filesystem_readonly", 0, &labels, 0.0);
        }
    }

    fn say_activity(&mut self, gpus: &[Gpu]) {
        let uuids: Vec<String> = (0..GPUS).map(|gpu| self.uuid(gpu)).collect();
        let sheet = &mut self.activity;
        sheet.put("gpu_driver_responsive", 0, &[("driver", "nvidia")], 1.0);
        for (state, value) in [("ok", 1.0), ("hung", 0.0)] {
            sheet.put("gpu_driver_state", 0, &[("driver", "nvidia"), ("state", state)], value);
        }
        for ((gpu, state), uuid) in gpus.iter().enumerate().zip(&uuids) {
            let index = gpu.to_string();
            let labels = [("gpu", index.as_str()), ("uuid", uuid)];
            let with = |name, value| [labels[0], labels[1], (name, value)];
            sheet.put("gpu_up", 0, &labels, f64::from(u8::from(!state.is_lost)));
            let mut put = |metric, digits, labels: &[(&'static str, &str)], value: f64| match state.is_lost {
                true => sheet.miss(metric, digits, labels, Reason::Lost),
                false => sheet.put(metric, digits, labels, value),
            };
            put("gpu_utilization_ratio", 4, &labels, (state.utilization * 100.0).round() / 100.0);
            put("gpu_tensor_active_ratio", 4, &labels, state.tensor);
            put("gpu_memory_used_bytes", 0, &labels, state.memory_used);
            put("gpu_memory_total_bytes", 0, &labels, MEMORY_TOTAL);
            put("gpu_temperature_celsius", 0, &with("sensor", "gpu"), state.temperature);
            put("gpu_temperature_celsius", 0, &with("sensor", "memory"), state.temperature - 4.0);
            put("gpu_power_watts", 3, &labels, state.power_watts);
            put("gpu_clock_hertz", 0, &with("clock", "sm"), state.clock_hertz);
            let is_hot = f64::from(u8::from(state.is_hot));
            put("gpu_clock_event_active", 0, &with("reason", "sw_thermal_slowdown"), is_hot);
        }
    }

    fn say_condition(&mut self, gpus: &[Gpu]) {
        let uuids: Vec<String> = (0..GPUS).map(|gpu| self.uuid(gpu)).collect();
        let sheet = &mut self.condition;
        for ((gpu, state), uuid) in gpus.iter().enumerate().zip(&uuids) {
            let index = gpu.to_string();
            let labels = [("gpu", index.as_str()), ("uuid", uuid)];
            sheet.put("gpu_processes", 0, &labels, f64::from(u8::from(state.is_held && !state.is_lost)));
            if state.is_lost {
                continue;
            }
            sheet.put("gpu_power_limit_watts", 3, &[labels[0], labels[1], ("limit", "enforced")], 700.0);
            sheet.put("gpu_pcie_link_width", 0, &labels, state.pcie_width);
            sheet.put("gpu_pcie_link_width_max", 0, &labels, 16.0);
            for link in 0..18 {
                sheet.put("gpu_nvlink_active", 0, &[labels[0], labels[1], ("link", &link.to_string())], 1.0);
            }
            for kind in ["corrected", "uncorrected"] {
                let more = [("type", kind), ("scope", "volatile"), ("location", "dram")];
                let labels: Vec<_> = labels.into_iter().chain(more).collect();
                sheet.put("gpu_ecc_errors_total", 0, &labels, 0.0);
            }
        }
    }

    fn say_facts(&mut self) {
        let uuids: Vec<String> = (0..GPUS).map(|gpu| self.uuid(gpu)).collect();
        for (gpu, uuid) in uuids.iter().enumerate() {
            let (index, device) = (gpu.to_string(), format!("nvidia{gpu}"));
            let labels = [
                ("gpu", index.as_str()),
                ("uuid", uuid),
                ("device", &device),
                ("model", "NVIDIA H100 80GB HBM3"),
                ("serial", "simulated"),
                ("driver_version", "550.90.07"),
            ];
            self.facts.put("gpu_info", 0, &labels, 1.0);
        }
    }

    /// The error of a GPU that fell off the bus, until the machine is repaired.
    fn say_xids(&mut self, seconds: f64) {
        self.xid.put("gpu_kernel_log_readable", 0, &[], 1.0);
        let lost: Vec<(Incident, usize, f64)> = self.story.incidents(self.place, seconds).collect();
        for (_, gpu, age) in lost.into_iter().filter(|(kind, _, age)| *kind == Incident::BusLoss && *age < INCIDENT) {
            let (index, uuid, place) = (gpu.to_string(), self.uuid(gpu), pci_bus_id(gpu));
            let labels = [("gpu", index.as_str()), ("uuid", uuid.as_str()), ("pci_bus_id", &place), ("xid", "79")];
            let when = self.began.as_millis() as f64 / 1000.0 + (seconds - age);
            self.xid.put("gpu_xid_errors_total", 0, &labels, 1.0);
            self.xid.put("gpu_xid_last_timestamp_seconds", 3, &labels, when);
        }
    }
}

/// Where boards with eight of them have their GPUs.
fn pci_bus_id(gpu: usize) -> String {
    let buses = ["1b", "43", "52", "61", "9d", "c3", "d1", "df"];
    format!("0000:{}:00.0", buses.get(gpu).copied().unwrap_or("00"))
}

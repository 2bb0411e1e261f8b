//! Who uses the GPUs: a table of processes for the collector, and series of each job.
//!
//! The driver says which process holds what; the kernel says whose it is and what it is run for ([`super::jobs`]). Processes come
//! and go, so they are no series; jobs are. Of a GPU that does not say who holds it nothing is said.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use belfry_common::{
    clock, limits,
    model::{Kind, Metric, Resolution, Timestamp},
    wire::message::{GpuHolders, GpuIdentity, GpuProcess, Inventory, InventoryJob, InventoryProcess},
};
use tokio::sync::watch;

use super::{
    driver::Maker,
    jobs::{Job, Processes},
};
use crate::{
    readings::Readings,
    samplers::{
        Roots,
        declare::{gauge, metric},
    },
};

/// Pairs of GPU and job on one node: some jobs for each instance of each GPU.
const JOBS_MAX: usize = 512;

/// What a maker's driver said so long ago is not told again beside what another's says now.
const TOLD_MS: i64 = 60_000;

/// The table for the collector, of what each maker's driver says.
pub(crate) struct Table {
    inventory: watch::Sender<Inventory>,
    /// By maker, with the time.
    parts: Mutex<BTreeMap<&'static str, (Timestamp, Vec<InventoryProcess>)>>,
}

impl Table {
    pub(super) fn new(inventory: watch::Sender<Inventory>) -> Arc<Self> {
        Arc::new(Self { inventory, parts: Mutex::default() })
    }

    /// Replaces a maker's part.
    fn publish(&self, maker: Maker, processes: Vec<InventoryProcess>, now: Timestamp) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(maker.as_str(), (now, processes));
        parts.retain(|_, (time, _)| now.millis_since(*time) < TOLD_MS);
        let mut processes: Vec<_> = parts.values().flat_map(|(_, processes)| processes).cloned().collect();
        drop(parts);
        processes.sort_by_key(|process| std::cmp::Reverse(process.holds.memory_bytes));
        let left_out = processes.len().saturating_sub(limits::INVENTORY_PROCESSES_MAX) as u32;
        processes.truncate(limits::INVENTORY_PROCESSES_MAX);
        self.inventory.send_replace(Inventory { time_ms: now.as_millis(), processes, left_out });
    }
}

/// Knows the processes that it has seen.
pub(super) struct Usage {
    maker: Maker,
    processes: Processes,
    table: Arc<Table>,
    metrics: Metrics,
}

struct Metrics {
    of_gpu: Arc<Metric>,
    processes: Arc<Metric>,
    memory: Arc<Metric>,
    utilization: Arc<Metric>,
}

/// What one job has of one GPU.
struct Share {
    job: Job,
    processes: i64,
    memory_bytes: Option<u64>,
    sm_percent: Option<u32>,
}

impl Usage {
    pub(super) fn new(maker: Maker, roots: &Roots, table: Arc<Table>) -> Self {
        let labels: Vec<&str> = ["gpu", "uuid", "gpu_instance"].into_iter().chain(Job::LABELS).collect();
        let metrics = Metrics {
            of_gpu: gauge("gpu_processes", &["gpu", "uuid"], "Processes that hold the GPU."),
            processes: gauge("gpu_job_processes", &labels, "Processes of the job that hold the GPU."),
            memory: gauge("gpu_job_memory_used_bytes", &labels, "Device memory that the job's processes hold."),
            utilization: metric(
                "gpu_job_utilization_ratio",
                Kind::Gauge,
                Resolution::Decimal(4),
                &labels,
                "Share of the time in which a kernel of the job ran.",
            ),
        };
        Self { maker, processes: Processes::new(roots), table, metrics }
    }

    /// Takes what the driver says of the processes now.
    pub(super) fn take(&mut self, holders: Vec<GpuHolders>, gpus: &[GpuIdentity], readings: &mut Readings) {
        let told: HashSet<u32> = holders.iter().map(|holders| holders.gpu).collect();
        let mut shares: BTreeMap<(u32, Option<u32>, String), Share> = BTreeMap::new();
        let mut entries = Vec::new();
        for holds in holders.into_iter().flat_map(|holders| holders.processes) {
            // Gone since.
            let Some(process) = self.processes.of(holds.pid) else { continue };
            if let Some(job) = &process.job {
                let key = (holds.gpu, holds.gpu_instance, format!("{} {}", job.kind.as_str(), job.id));
                if shares.len() < JOBS_MAX || shares.contains_key(&key) {
                    shares.entry(key).or_insert_with(|| Share::of(job)).add(&holds, job);
                }
            }
            entries.push(InventoryProcess {
                uuid: uuid(gpus, holds.gpu).to_owned(),
                user: process.user.clone().unwrap_or_default(),
                command: process.command.clone().unwrap_or_default(),
                job: process.job.as_ref().map(inventory_job),
                holds,
            });
        }
        self.processes.forget_all_but(&entries.iter().map(|entry| entry.holds.pid).collect::<HashSet<_>>());
        for gpu in gpus.iter().filter(|gpu| told.contains(&gpu.index)) {
            let pids: HashSet<u32> =
                entries.iter().filter(|entry| entry.holds.gpu == gpu.index).map(|entry| entry.holds.pid).collect();
            readings.integer(&self.metrics.of_gpu, &[&gpu.index.to_string(), &gpu.uuid], pids.len() as i64);
        }
        for ((gpu, instance, _), share) in &shares {
            self.say(*gpu, *instance, uuid(gpus, *gpu), share, readings);
        }
        self.table.publish(self.maker, entries, clock::now());
    }

    fn say(&self, gpu: u32, instance: Option<u32>, uuid: &str, share: &Share, readings: &mut Readings) {
        let (gpu, instance) = (gpu.to_string(), instance.map(|id| id.to_string()).unwrap_or_default());
        let labels: Vec<&str> = [&*gpu, uuid, &instance].into_iter().chain(share.job.label_values()).collect();
        readings.integer(&self.metrics.processes, &labels, share.processes);
        if let Some(bytes) = share.memory_bytes {
            readings.unsigned(&self.metrics.memory, &labels, bytes);
        }
        if let Some(percent) = share.sm_percent {
            readings.float(&self.metrics.utilization, &labels, f64::from(percent.min(100)) / 100.0);
        }
    }
}

impl Share {
    fn of(job: &Job) -> Self {
        Self { job: job.clone(), processes: 0, memory_bytes: None, sm_percent: None }
    }

    fn add(&mut self, holds: &GpuProcess, job: &Job) {
        // Of one job's processes one may know more than another: its environment can be read.
        let known = |job: &Job| job.label_values().iter().filter(|value| !value.is_empty()).count();
        if known(job) > known(&self.job) {
            self.job = job.clone();
        }
        self.processes += 1;
        let sum = |sum: Option<u64>, more: Option<u64>| more.map_or(sum, |more| Some(sum.unwrap_or(0) + more));
        self.memory_bytes = sum(self.memory_bytes, holds.memory_bytes);
        let percent = holds.sm_percent.map(u64::from);
        self.sm_percent = sum(self.sm_percent.map(u64::from), percent).map(|percent| percent as u32);
    }
}

fn uuid(gpus: &[GpuIdentity], index: u32) -> &str {
    gpus.iter().find(|gpu| gpu.index == index).map_or("", |gpu| &gpu.uuid)
}

fn inventory_job(job: &Job) -> InventoryJob {
    let labels = Job::LABELS.into_iter().zip(job.label_values()).filter(|(_, value)| !value.is_empty());
    InventoryJob { labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uuid: &str, memory: u64) -> InventoryProcess {
        let holds = GpuProcess {
            gpu: 0,
            pid: 7,
            memory_bytes: Some(memory),
            sm_percent: None,
            encoder_percent: None,
            decoder_percent: None,
            gpu_instance: None,
            compute_instance: None,
        };
        InventoryProcess { holds, uuid: uuid.into(), user: String::new(), command: String::new(), job: None }
    }

    #[test]
    fn two_makers_share_a_table_and_neither_keeps_what_is_old_in_it() {
        let (sender, inventory) = watch::channel(Inventory::default());
        let table = Table::new(sender);
        let uuids = || inventory.borrow().processes.iter().map(|process| process.uuid.clone()).collect::<Vec<_>>();
        let now = Timestamp::from_millis(1_700_000_000_000);
        table.publish(Maker::Nvidia, vec![process("n", 1)], now);
        table.publish(Maker::Amd, vec![process("a", 2)], now.plus_millis(1));
        assert_eq!(uuids(), ["a", "n"]);
        table.publish(Maker::Nvidia, vec![], now.plus_millis(2));
        assert_eq!(uuids(), ["a"]);
        table.publish(Maker::Nvidia, vec![], now.plus_millis(1 + TOLD_MS));
        assert_eq!(uuids(), [""; 0]);
    }
}

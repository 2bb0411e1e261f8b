//! Who uses the GPUs: a table of processes for the collector, and series of each job.
//!
//! The driver says which process holds what; the kernel says whose it is and what it is run for ([`super::jobs`]). Processes come
//! and go, so they are no series; jobs are. A job that was given a GPU and does not hold it has none of its processes there: 0, and
//! no word of memory or time. Of a GPU that does not say who holds it nothing is said.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use belfry_common::{
    clock, limits,
    model::{Kind, Layout, Metric, Resolution, Timestamp},
    wire::message::{GpuHolders, GpuIdentity, GpuProcess, Inventory, InventoryJob, InventoryProcess},
};
use tokio::sync::watch;

use super::{
    devices::{Devices, Part},
    driver::Maker,
    jobs::{Allocation, Job, JobKey, Processes},
};
use crate::{
    readings::Readings,
    samplers::{
        Roots,
        declare::{gauge, metric},
    },
};

/// Pairs of GPU and job on one node: some jobs for each instance of each GPU.
const SHARES_MAX: usize = 512;

/// What a maker's driver said so long ago is not told again beside what another's says now.
const TOLD_MS: i64 = 60_000;

/// The table for the collector, of what each maker's driver says.
pub(crate) struct Table {
    inventory: watch::Sender<Inventory>,
    /// By maker.
    parts: Mutex<BTreeMap<&'static str, Told>>,
}

/// What a maker's driver said.
struct Told {
    at: Timestamp,
    gpus: Vec<String>,
    processes: Vec<InventoryProcess>,
}

impl Table {
    pub(super) fn new(inventory: watch::Sender<Inventory>) -> Arc<Self> {
        Arc::new(Self { inventory, parts: Mutex::default() })
    }

    /// Replaces a maker's part.
    fn publish(&self, maker: Maker, told: Told) {
        let now = told.at;
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(maker.as_str(), told);
        parts.retain(|_, told| now.millis_since(told.at) < TOLD_MS);
        let gpus = parts.values().flat_map(|told| &told.gpus).take(limits::INVENTORY_GPUS_MAX).cloned().collect();
        let mut processes: Vec<_> = parts.values().flat_map(|told| &told.processes).cloned().collect();
        drop(parts);
        processes.sort_by_key(|process| std::cmp::Reverse(process.holds.memory_bytes));
        let left_out = processes.len().saturating_sub(limits::INVENTORY_PROCESSES_MAX) as u32;
        processes.truncate(limits::INVENTORY_PROCESSES_MAX);
        self.inventory.send_replace(Inventory { time_ms: now.as_millis(), gpus, processes, left_out });
    }
}

/// Knows the processes that it has seen.
pub(super) struct Usage {
    maker: Maker,
    processes: Processes,
    devices: Devices,
    table: Arc<Table>,
    metrics: Metrics,
}

struct Metrics {
    of_gpu: Arc<Metric>,
    processes: Arc<Metric>,
    memory: Arc<Metric>,
    utilization: Arc<Metric>,
}

type Shares = BTreeMap<(Part, JobKey), Share>;

/// What one job has of one GPU.
#[derive(Default)]
struct Share {
    processes: i64,
    memory_bytes: Option<u64>,
    sm_percent: Option<u32>,
}

impl Usage {
    pub(super) fn new(maker: Maker, roots: &Roots, table: Arc<Table>) -> Self {
        let labels: Vec<&str> = ["gpu", "uuid", "gpu_instance"].into_iter().chain(Job::LABELS).collect();
        let metrics = Metrics {
            of_gpu: gauge("gpu_processes", &["gpu", "uuid"], "Processes that hold the GPU."),
            processes: gauge(
                "gpu_job_processes",
                &labels,
                "Processes of the job that hold the GPU; 0 of a job that was given it and does not use it.",
            ),
            memory: gauge("gpu_job_memory_used_bytes", &labels, "Device memory that the job's processes hold."),
            utilization: metric(
                "gpu_job_utilization_ratio",
                Kind::Gauge,
                Resolution::Decimal(4),
                &labels,
                "Share of the time in which a kernel of the job ran.",
            ),
        };
        Self { maker, processes: Processes::new(roots), devices: Devices::default(), table, metrics }
    }

    /// Takes the series that say what the GPUs are.
    pub(super) fn learn(&mut self, facts: &Layout, gpus: &[GpuIdentity]) {
        self.devices.identify(gpus);
        self.devices.learn(facts);
    }

    /// Takes what the driver says of the processes now.
    pub(super) fn take(
        &mut self,
        holders: Vec<GpuHolders>,
        gpus: &[GpuIdentity],
        now: Instant,
        readings: &mut Readings,
    ) {
        self.devices.identify(gpus);
        self.processes.look_around(now);
        let told: HashSet<u32> = holders.iter().map(|holders| holders.gpu).collect();
        let (mut shares, entries) = self.count(holders, gpus);
        self.processes.forget_all_but(&entries.iter().map(|entry| entry.holds.pid).collect::<HashSet<_>>());
        let telling: Vec<&GpuIdentity> = gpus.iter().filter(|gpu| told.contains(&gpu.index)).collect();
        for gpu in &telling {
            let pids: HashSet<u32> =
                entries.iter().filter(|entry| entry.holds.gpu == gpu.index).map(|entry| entry.holds.pid).collect();
            readings.integer(&self.metrics.of_gpu, &[&gpu.index.to_string(), &gpu.uuid], pids.len() as i64);
        }
        for Allocation { part, job } in self.processes.allocations(&self.devices) {
            let is_used = shares.keys().any(|(held, holder)| *holder == job && is_within(*held, part));
            if told.contains(&part.gpu) && !is_used && shares.len() < SHARES_MAX {
                shares.insert((part, job), Share::default());
            }
        }
        for ((part, job), share) in &shares {
            if let Some(job) = self.processes.job(job) {
                self.say(*part, uuid(gpus, part.gpu), job, share, readings);
            }
        }
        let gpus = telling.into_iter().map(|gpu| gpu.uuid.clone()).collect();
        self.table.publish(self.maker, Told { at: clock::now(), gpus, processes: entries });
    }

    /// What each job has of each GPU, and the table of the processes.
    fn count(&mut self, holders: Vec<GpuHolders>, gpus: &[GpuIdentity]) -> (Shares, Vec<InventoryProcess>) {
        let mut shares = Shares::new();
        let mut entries = Vec::new();
        for holds in holders.into_iter().flat_map(|holders| holders.processes) {
            // Gone since.
            let Some(process) = self.processes.of(holds.pid) else { continue };
            if let Some(job) = self.processes.hold(&process, holds.gpu) {
                let key = (Part { gpu: holds.gpu, gpu_instance: holds.gpu_instance }, job);
                if shares.len() < SHARES_MAX || shares.contains_key(&key) {
                    shares.entry(key).or_default().add(&holds);
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
        (shares, entries)
    }

    fn say(&self, part: Part, uuid: &str, job: &Job, share: &Share, readings: &mut Readings) {
        let instance = part.gpu_instance.map(|id| id.to_string()).unwrap_or_default();
        let gpu = part.gpu.to_string();
        let labels: Vec<&str> = [&*gpu, uuid, &instance].into_iter().chain(job.label_values()).collect();
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
    fn add(&mut self, holds: &GpuProcess) {
        self.processes += 1;
        let sum = |sum: Option<u64>, more: Option<u64>| more.map_or(sum, |more| Some(sum.unwrap_or(0) + more));
        self.memory_bytes = sum(self.memory_bytes, holds.memory_bytes);
        let percent = holds.sm_percent.map(u64::from);
        self.sm_percent = sum(self.sm_percent.map(u64::from), percent).map(|percent| percent as u32);
    }
}

/// Whether who holds one part uses the other. Of whoever holds a part of a GPU the driver may not say which.
fn is_within(held: Part, given: Part) -> bool {
    let is_same =
        held.gpu_instance == given.gpu_instance || held.gpu_instance.is_none() || given.gpu_instance.is_none();
    held.gpu == given.gpu && is_same
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
    use std::time::Duration;

    use belfry_common::clock;
    use expect_test::{Expect, expect};

    use super::{
        super::{devices::fixture, jobs::fixture::Fixture},
        *,
    };

    const JOB: &str = "0::/system.slice/slurmstepd.scope/job_7";
    const UID: &str = "1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813";

    struct Machine {
        fixture: Fixture,
        usage: Usage,
        readings: Readings,
        now: Instant,
        /// The GPUs that say who holds them.
        told: Vec<u32>,
    }

    impl Machine {
        /// Two GPUs, of which the second may be split.
        fn new(instances: &[(u32, u32, &str)]) -> Self {
            let fixture = Fixture::new();
            fixture.write("proc/meminfo", "");
            let (inventory, _) = watch::channel(Inventory::default());
            let mut usage = Usage::new(Maker::Nvidia, &fixture.roots(), Table::new(inventory));
            usage.learn(&fixture::facts(&[0, 1], instances), &fixture::gpus(2));
            let readings = Readings::new(1, "gpu_condition", 1000);
            Self { fixture, usage, readings, now: clock::monotonic(), told: vec![0, 1] }
        }

        fn start(&self, pid: u32, cgroup: &str, environ: &str) {
            let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18";
            self.fixture.write(format!("proc/{pid}/stat"), format!("{pid} (python) S {fields} {pid} 0 0"));
            self.fixture.write(format!("proc/{pid}/status"), "Uid:\t1000\t1000\t1000\t1000\n");
            self.fixture.write(format!("proc/{pid}/cgroup"), cgroup);
            self.fixture.write(format!("proc/{pid}/environ"), environ.replace(' ', "\0"));
        }

        /// What is said of jobs while these processes hold these GPUs and instances, over some minutes.
        fn check(&mut self, held: &[(u32, u32, Option<u32>)], expected: &Expect) {
            // However slow this machine is, all processes have been looked at by then.
            (0..5).for_each(|_| drop(self.take(held)));
            let said = self.take(held);
            expected.assert_eq(&said);
            (0..5).for_each(|_| assert_eq!(self.take(held), said, "it stays as it is"));
        }

        /// What is said of jobs after ten seconds.
        fn take(&mut self, held: &[(u32, u32, Option<u32>)]) -> String {
            self.now += Duration::from_secs(10);
            let process = |(pid, gpu, gpu_instance): &(u32, u32, Option<u32>)| GpuProcess {
                gpu: *gpu,
                pid: *pid,
                memory_bytes: Some(5),
                sm_percent: None,
                encoder_percent: None,
                decoder_percent: None,
                gpu_instance: *gpu_instance,
                compute_instance: None,
            };
            let holders = self.told.iter().map(|gpu| GpuHolders {
                gpu: *gpu,
                processes: held.iter().filter(|(_, held, _)| held == gpu).map(process).collect(),
            });
            self.usage.take(holders.collect(), &fixture::gpus(2), self.now, &mut self.readings);
            let Some(tick) = self.readings.finish(Timestamp::default()) else { return String::new() };
            let series = tick.layout.series.iter().zip(&tick.values);
            let lines = series.map(|(series, raw)| {
                let labels = series.label_values.join(" ").replace(UID, "UID");
                let labels = labels.split_whitespace().collect::<Vec<_>>().join(" ");
                format!("{} {labels}: {}\n", series.metric.name, raw.value(series.metric.resolution).unwrap())
            });
            lines.collect()
        }
    }

    #[test]
    fn a_gpu_that_a_job_was_given_and_does_not_hold_has_none_of_its_processes() {
        let mut machine = Machine::new(&[]);
        machine.start(10, &format!("{JOB}/step_batch"), "SLURM_JOB_ID=7 SLURM_JOB_GPUS=0,1 SLURM_JOB_NAME=train");
        machine.start(11, &format!("{JOB}/step_0"), "");
        machine.start(12, "0::/system.slice/vllm.service", "NVIDIA_VISIBLE_DEVICES=0,1");
        machine.check(
            &[(11, 0, None), (12, 0, None)],
            &expect![[r#"
                gpu_processes 0 GPU-0: 2
                gpu_processes 1 GPU-1: 0
                gpu_job_processes 0 GPU-0 slurm 7 1000 train 0: 1
                gpu_job_memory_used_bytes 0 GPU-0 slurm 7 1000 train 0: 5
                gpu_job_processes 0 GPU-0 systemd vllm.service 1000: 1
                gpu_job_memory_used_bytes 0 GPU-0 systemd vllm.service 1000: 5
                gpu_job_processes 1 GPU-1 slurm 7 1000 train 0: 0
            "#]],
        );
        // The labels are the same with a process and without.
        machine.check(
            &[(11, 1, None)],
            &expect![[r#"
                gpu_processes 0 GPU-0: 0
                gpu_processes 1 GPU-1: 1
                gpu_job_processes 0 GPU-0 slurm 7 1000 train 0: 0
                gpu_job_processes 1 GPU-1 slurm 7 1000 train 0: 1
                gpu_job_memory_used_bytes 1 GPU-1 slurm 7 1000 train 0: 5
            "#]],
        );
    }

    #[test]
    fn who_holds_any_instance_uses_the_gpu() {
        let mut machine = Machine::new(&[(1, 5, "MIG-a"), (1, 6, "MIG-b")]);
        machine.start(10, &format!("0::/kubepods/pod{UID}/x"), "NVIDIA_VISIBLE_DEVICES=MIG-a,MIG-b POD_NAME=p");
        machine.check(
            &[(10, 1, Some(5))],
            &expect![[r#"
                gpu_processes 0 GPU-0: 0
                gpu_processes 1 GPU-1: 1
                gpu_job_processes 1 GPU-1 5 kubernetes UID 1000 p: 1
                gpu_job_memory_used_bytes 1 GPU-1 5 kubernetes UID 1000 p: 5
                gpu_job_processes 1 GPU-1 6 kubernetes UID 1000 p: 0
            "#]],
        );
        // The driver does not say which.
        machine.check(
            &[(10, 1, None)],
            &expect![[r#"
                gpu_processes 0 GPU-0: 0
                gpu_processes 1 GPU-1: 1
                gpu_job_processes 1 GPU-1 kubernetes UID 1000 p: 1
                gpu_job_memory_used_bytes 1 GPU-1 kubernetes UID 1000 p: 5
            "#]],
        );
    }

    #[test]
    fn of_a_gpu_that_does_not_say_who_holds_it_nothing_is_said() {
        let mut machine = Machine::new(&[]);
        machine.start(10, &format!("{JOB}/step_batch"), "SLURM_JOB_ID=7 SLURM_JOB_GPUS=0,1");
        machine.told = vec![1];
        machine.check(
            &[],
            &expect![[r#"
                gpu_processes 1 GPU-1: 0
                gpu_job_processes 1 GPU-1 slurm 7 1000 batch: 0
            "#]],
        );
        machine.told = vec![];
        machine.check(&[], &expect![""]);
    }

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
        let told = || (inventory.borrow().gpus.clone(), inventory.borrow().processes.len());
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let said = |uuid: &str, processes, at| Told { at, gpus: vec![uuid.to_owned()], processes };
        table.publish(Maker::Nvidia, said("n", vec![process("n", 1)], now));
        table.publish(Maker::Amd, said("a", vec![process("a", 2)], now.plus_millis(1)));
        assert_eq!(told(), (names(&["a", "n"]), 2));
        assert_eq!(inventory.borrow().processes[0].uuid, "a", "what holds most comes first");
        table.publish(Maker::Nvidia, said("n", vec![], now.plus_millis(2)));
        assert_eq!(told(), (names(&["a", "n"]), 1));
        table.publish(Maker::Nvidia, said("n", vec![], now.plus_millis(1 + TOLD_MS)));
        assert_eq!(told(), (names(&["n"]), 0));
    }
}

//! GPUs that jobs were given, whether they use them or not.
//!
//! The driver tells of processes that hold a GPU. Who was given one and does not hold it can only be found among all processes of
//! the machine: by their cgroups the jobs, by their environments ([`super::given`]) and the kubelet's notes ([`super::kubelet`])
//! what those were given. What nobody says is not known: nothing is inferred from the number of GPUs that a job asked for,
//! or from what is left over. A service that was not started by a scheduler was given nothing.
//!
//! The environments of other users' processes are closed to an agent without `CAP_SYS_PTRACE`, the kubelet's notes to one without
//! `CAP_DAC_READ_SEARCH`; without either nothing is found. The lists of devices in cgroups are no help: version 2 has none, and
//! version 1 shows only that all is allowed, wherever devices are taken from what is allowed at first, as Slurm does.
//!
//! Absent: AMD's GPUs, which are given by other variables and resources, and Slurm's shards and MPS, which are no GPUs of their own.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
    fs,
    time::{Duration, Instant},
};

use belfry_common::clock;

use super::{
    super::devices::Devices, Allocation, JobKey, Place, Processes, job::JobKind, kubelet::Checkpoint, process::Stat,
    slurm,
};
use crate::samplers::Roots;

/// From the beginning of one pass over all processes to that of the next.
const PASS_INTERVAL: Duration = Duration::from_secs(30);
/// How long a pass may keep its caller, whom the readings of GPUs wait for; the rest is left for the next time. A process that was
/// there before takes some 20 µs, a new one 50, a new one of a job 110.
const LOOK_TIME_MAX: Duration = Duration::from_millis(20);
/// A machine of some hundred CPUs has some thousand processes, most of them the kernel's own.
const PIDS_MAX: usize = 65_536;

/// Goes over all processes again and again.
#[derive(Debug)]
pub(super) struct Scan {
    checkpoint: Checkpoint,
    /// When this pass began.
    began: Option<Instant>,
    /// What it has not looked at yet, the last first.
    pids: Vec<u32>,
    seen: HashMap<u32, Seen>,
}

#[derive(Debug)]
struct Seen {
    stat: Stat,
    /// Nothing if it belongs to none that is given GPUs.
    job: Option<JobKey>,
    is_current: bool,
}

impl Scan {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { checkpoint: Checkpoint::new(roots), began: None, pids: Vec::new(), seen: HashMap::new() }
    }
}

impl Processes {
    /// The GPUs that the jobs of this machine were given, as far as anybody says.
    pub(crate) fn allocations(&self, devices: &Devices) -> Vec<Allocation> {
        self.jobs.allocations(devices)
    }

    /// Looks at all processes, from time to time, and forgets the jobs that have none.
    ///
    /// Blocks for some tens of milliseconds at most.
    pub(crate) fn look_around(&mut self, now: Instant) {
        if self.scan.pids.is_empty() {
            if self.scan.began.is_some_and(|began| now.saturating_duration_since(began) < PASS_INTERVAL) {
                return;
            }
            self.scan.began = Some(now);
            self.scan.pids = self.pids();
            self.scan.seen.values_mut().for_each(|seen| seen.is_current = false);
            self.jobs.begin_pass();
        }
        let began = clock::monotonic();
        while let Some(pid) = self.scan.pids.pop() {
            self.look_at(pid);
            if began.elapsed() > LOOK_TIME_MAX {
                break;
            }
        }
        if self.scan.pids.is_empty() {
            self.scan.seen.retain(|_, seen| seen.is_current);
            for entry in self.scan.checkpoint.entries() {
                self.jobs.give_pod(&entry.pod_uid, &entry.container, &entry.gpus);
            }
            self.jobs.end_pass();
        }
    }

    /// All processes, the oldest last.
    fn pids(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.roots.proc).into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut pids: Vec<u32> = pids.take(PIDS_MAX).collect();
        pids.sort_unstable_by_key(|pid| Reverse(*pid));
        pids
    }

    fn look_at(&mut self, pid: u32) {
        let Ok(stat) = self.stat(pid) else { return };
        if let Entry::Occupied(mut seen) = self.scan.seen.entry(pid)
            && seen.get().stat.holds(&stat)
        {
            seen.get_mut().is_current = true;
            if let Some(job) = &seen.get().job {
                self.jobs.keep(job);
            }
            return;
        }
        let job = self.job_of(pid, &stat);
        self.scan.seen.insert(pid, Seen { stat, job, is_current: true });
    }

    /// Learns what a process says of its job.
    fn job_of(&mut self, pid: u32, stat: &Stat) -> Option<JobKey> {
        // Slurm's own process stands in the job's cgroup, but is root's and no part of it.
        let place = self.place(pid).filter(|place| is_given_gpus(place) && stat.comm != b"slurmstepd")?;
        let owner = self.owner(pid, stat, Some(place));
        // Whatever was read after the pid had passed on is another process's.
        if self.stat(pid).is_ok_and(|now| now.started_ticks != stat.started_ticks) {
            return None;
        }
        let job = owner.job.filter(|job| job.kind != JobKind::Systemd)?;
        Some(self.jobs.learn(&job, &owner.gpus))
    }
}

/// Whether somebody gives GPUs to what runs there.
fn is_given_gpus(place: &Place) -> bool {
    match place {
        Place::Slurm(_) | Place::Pod(_) | Place::Container(..) => true,
        Place::Unit(unit) => slurm::is_slurmd(unit),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::{
        super::{
            super::devices::{Part, fixture},
            fixture::Fixture,
        },
        *,
    };

    const ID: &str = "95510329f5bd2b884b8ec944cf023b76b60db0ca361d6fc59e4659daad669873";
    const UID: &str = "1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813";
    const JOB: &str = "/system.slice/slurmstepd.scope/job_7";

    /// Starts a process, or replaces what it runs.
    fn start(fixture: &Fixture, pid: u32, comm: &str, cgroup: &str, environ: &str) {
        let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18";
        fixture.write(format!("proc/{pid}/stat"), format!("{pid} ({comm}) S {fields} {pid} 0 0"));
        fixture.write(format!("proc/{pid}/status"), "Uid:\t1000\t1000\t1000\t1000\n");
        fixture.write(format!("proc/{pid}/cgroup"), format!("0::{cgroup}\n"));
        fixture.write(format!("proc/{pid}/environ"), environ.replace(' ', "\0"));
    }

    /// However slow this machine is.
    fn look_to_the_end(processes: &mut Processes, now: Instant) {
        processes.look_around(now);
        while !processes.scan.pids.is_empty() {
            processes.look_around(now);
        }
    }

    struct Machine {
        fixture: Fixture,
        processes: Processes,
        now: Instant,
    }

    impl Machine {
        fn new() -> Self {
            let fixture = Fixture::new();
            fixture.write("proc/meminfo", "");
            let processes = Processes::new(&fixture.roots());
            Self { fixture, processes, now: clock::monotonic() }
        }

        fn start(&self, pid: u32, comm: &str, cgroup: &str, environ: &str) {
            start(&self.fixture, pid, comm, cgroup, environ);
        }

        /// After a time, what jobs were given which GPUs.
        fn check(&mut self, after: Duration, expected: &Expect) {
            let mut devices = Devices::default();
            devices.identify(&fixture::gpus(4));
            devices.learn(&fixture::facts(&[0, 1, 2, 3], &[]));
            self.now += after;
            look_to_the_end(&mut self.processes, self.now);
            let mut shown = String::new();
            for Allocation { part: Part { gpu, .. }, job } in self.processes.allocations(&devices) {
                let labels = self.processes.job(&job).unwrap().label_values();
                let labels: Vec<&str> = labels.into_iter().filter(|value| !value.is_empty()).collect();
                writeln!(shown, "{}: {gpu}", labels.join(" ")).unwrap();
            }
            expected.assert_eq(&shown);
        }
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_job_of_slurm_was_given_what_its_script_and_its_steps_say() {
        let mut machine = Machine::new();
        machine.start(10, "bash", &format!("{JOB}/step_batch/user/task_0"), "SLURM_JOB_ID=7 SLURM_JOB_GPUS=0,2");
        machine.start(11, "python", &format!("{JOB}/step_0/user/task_0"), "SLURM_JOB_ID=7 SLURM_STEP_GPUS=3");
        machine.start(12, "python", &format!("{JOB}/step_0/user/task_1"), "SLURM_JOB_ID=8 SLURM_STEP_GPUS=1");
        machine.start(13, "slurmstepd", &format!("{JOB}/step_0/slurm"), "SLURM_JOB_ID=7 SLURM_STEP_GPUS=1");
        machine.check(
            NOW,
            &expect![[r#"
                slurm 7 1000 0: 0
                slurm 7 1000 0: 2
                slurm 7 1000 0: 3
            "#]],
        );
    }

    #[test]
    fn without_environments_nothing_is_said() {
        let mut machine = Machine::new();
        machine.start(10, "bash", &format!("{JOB}/step_batch"), "SLURM_JOB_ID=7 SLURM_JOB_GPUS=0,2");
        machine.fixture.remove("proc/10/environ");
        machine.check(NOW, &expect![""]);
    }

    #[test]
    fn containers_and_pods_were_given_what_they_asked_for() {
        let mut machine = Machine::new();
        machine.start(10, "python", &format!("/docker/{ID}"), "NVIDIA_VISIBLE_DEVICES=1,2");
        machine.start(11, "sh", &format!("/kubepods/pod{UID}/{ID}"), "NVIDIA_VISIBLE_DEVICES=GPU-3 HOSTNAME=train-0");
        machine.start(12, "nginx", &format!("/default/{ID}"), "NVIDIA_VISIBLE_DEVICES=all");
        machine.check(
            NOW,
            &expect![[r#"
                kubernetes 1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 1000 train-0: 3
                docker 95510329f5bd 1000: 1
                docker 95510329f5bd 1000: 2
            "#]],
        );
    }

    #[test]
    fn services_and_sessions_were_given_nothing() {
        let mut machine = Machine::new();
        let variables = "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_GPUS=0 NVIDIA_VISIBLE_DEVICES=0";
        machine.start(10, "vllm", "/system.slice/vllm.service", variables);
        machine.start(11, "python", "/user.slice/user-1000.slice/session-3.scope", variables);
        machine.start(12, "slurmd", "/system.slice/slurmd.service", "CUDA_VISIBLE_DEVICES=GPU-1");
        machine.check(NOW, &expect![""]);
        // But one whose slurmd makes no cgroups stands in slurmd's.
        machine.start(13, "python", "/system.slice/slurmd.service", variables);
        machine.check(
            PASS_INTERVAL,
            &expect![[r#"
                slurm 7 1000 0: 0
            "#]],
        );
    }

    #[test]
    fn a_pod_was_given_what_the_kubelet_notes() {
        let mut machine = Machine::new();
        machine.start(10, "python", &format!("/kubepods/pod{UID}/{ID}"), "");
        machine.fixture.link(&format!("root/var/log/containers/train-0_team-a_main-{ID}.log"));
        let entry = |uid: &str, gpu: &str| {
            format!(
                r#"{{"PodUID":"{uid}","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{{"0":["{gpu}"]}}}}"#
            )
        };
        machine.fixture.write(
            "root/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint",
            format!(r#"{{"Data":{{"PodDeviceEntries":[{},{}]}}}}"#, entry(UID, "GPU-1"), entry("ended", "GPU-2")),
        );
        machine.check(
            NOW,
            &expect![[r#"
                kubernetes 1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 1000 team-a train-0 main: 1
            "#]],
        );
    }

    #[test]
    fn what_changes_is_seen_at_the_next_pass() {
        let mut machine = Machine::new();
        let batch = format!("{JOB}/step_batch/user/task_0");
        let one = expect![[r#"
            slurm 7 1000 batch: 0
        "#]];
        machine.start(10, "bash", &batch, "SLURM_JOB_ID=7 SLURM_JOB_GPUS=0");
        machine.check(NOW, &one);

        // Another job, in the process that is about to become its first.
        machine.start(20, "slurmstepd", "/system.slice/slurmd.service", "");
        machine.check(PASS_INTERVAL / 2, &one);
        machine.check(PASS_INTERVAL / 2, &one);
        let other = batch.replace("job_7", "job_8");
        machine.start(20, "bash", &other, "SLURM_JOB_ID=8 SLURM_JOB_GPUS=1");
        machine.check(
            PASS_INTERVAL,
            &expect![[r#"
                slurm 7 1000 batch: 0
                slurm 8 1000 batch: 1
            "#]],
        );

        // What a job knew is still known when the process that knew it is gone.
        machine.start(11, "sleep", &format!("{JOB}/step_extern"), "");
        machine.check(
            PASS_INTERVAL,
            &expect![[r#"
            slurm 7 1000 batch: 0
            slurm 8 1000 batch: 1
        "#]],
        );
        machine.fixture.remove("proc/10");
        machine.fixture.remove("proc/20");
        machine.check(PASS_INTERVAL, &one);
        machine.fixture.remove("proc/11");
        machine.check(PASS_INTERVAL, &expect![""]);
        assert!(machine.processes.scan.seen.is_empty());
    }

    #[test]
    fn this_machine_is_looked_at_without_a_panic() {
        let mut processes = Processes::new(&Roots::default());
        look_to_the_end(&mut processes, clock::monotonic());
        assert!(processes.scan.seen.contains_key(&std::process::id()));
    }
}

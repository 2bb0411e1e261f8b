//! From the pid of a process that uses a GPU to the job behind it.
//!
//! What a process is comes from the kernel: its cgroup, its user, its start. What it says of itself, its environment,
//! may be forged: it adds names to the job that the cgroup has found, and is a job's only source where Slurm makes no
//! cgroups. No daemon is asked and no name is looked up over a network. No privilege is needed: what the kernel keeps
//! from the agent is absent, which the environment of other users' processes usually is. Which GPUs a job was given stands
//! only there; see [`allocations`].
//!
//! Text from other people's processes is capped and stripped of control characters before anything else sees it.

mod allocations;
mod cgroup;
mod command;
mod environment;
#[cfg(test)]
pub(super) mod fixture;
mod given;
mod job;
mod kubelet;
mod kubernetes;
mod process;
mod slurm;
mod table;
mod text;
mod users;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
};

use allocations::Scan;
use cgroup::Place;
use environment::Environment;
use given::Given;
pub(crate) use job::Job;
use kubernetes::PodNames;
pub(crate) use process::Process;
use process::Stat;
use table::JobTable;
pub(crate) use table::{Allocation, JobKey};
use users::Users;

use super::devices::GpuName;
use crate::samplers::Roots;

/// More than GPUs can have clients. Beyond this, processes are read anew at each look.
const PROCESSES_MAX: usize = 4096;
/// 52 numbers and a name.
const STAT_BYTES_MAX: usize = 4096;
/// `Uid:` is among its first lines.
const STATUS_BYTES_MAX: usize = 4096;
/// 14 hierarchies of deep paths.
const CGROUP_BYTES_MAX: usize = 64 * 1024;
/// The program and its first arguments.
const CMDLINE_BYTES_MAX: usize = 4096;
/// Some clusters' modules fill hundreds of kilobytes.
const ENVIRON_BYTES_MAX: usize = 1024 * 1024;
const HOSTNAME_BYTES_MAX: usize = 256;

/// The processes that have been looked at.
#[derive(Debug)]
pub(crate) struct Processes {
    roots: Roots,
    users: Users,
    pods: PodNames,
    known: HashMap<u32, Known>,
    jobs: JobTable,
    scan: Scan,
}

#[derive(Debug)]
struct Known {
    stat: Stat,
    process: Arc<Process>,
}

/// Whose a process is, and what for.
struct Owner {
    uid: Option<u32>,
    user: Option<String>,
    job: Option<Job>,
    gpus: Vec<GpuName>,
}

impl Processes {
    /// Remembers where to look; nothing is read.
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            roots: roots.clone(),
            users: Users::new(roots),
            pods: PodNames::new(roots),
            known: HashMap::new(),
            jobs: JobTable::default(),
            scan: Scan::new(roots),
        }
    }

    /// What is known of this pid, or `None` if it is gone. One small file is read of a process that was there before.
    ///
    /// Blocks for as long as the files of `/proc` take.
    pub(crate) fn of(&mut self, pid: u32) -> Option<Arc<Process>> {
        let stat = match self.stat(pid) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) => {
                self.known.remove(&pid);
                return None;
            }
            // It is there, but its files are closed to the agent.
            Err(_) => return Some(Arc::new(Process::new(pid))),
        };
        let known = self.known.get(&pid).filter(|known| known.stat.holds(&stat));
        if let Some(known) = known {
            return Some(Arc::clone(&known.process));
        }
        let process = Arc::new(self.read(pid, &stat));
        // Whatever was read after the pid had passed on is another process's.
        if self.stat(pid).is_ok_and(|now| now.started_ticks != stat.started_ticks) {
            self.known.remove(&pid);
            return None;
        }
        if self.known.len() < PROCESSES_MAX || self.known.contains_key(&pid) {
            self.known.insert(pid, Known { stat, process: Arc::clone(&process) });
        }
        Some(process)
    }

    /// Notes that a process holds a GPU: which job's it is.
    pub(crate) fn hold(&mut self, process: &Process, gpu: u32) -> Option<JobKey> {
        let job = self.jobs.learn(process.job.as_ref()?, &process.gpus);
        self.jobs.hold(&job, gpu);
        Some(job)
    }

    /// What is known of a job from all its processes; `None` if there are too many jobs.
    pub(crate) fn job(&self, key: &JobKey) -> Option<&Job> {
        self.jobs.job(key)
    }

    /// Forgets the processes that use no GPU any more.
    pub(crate) fn forget_all_but(&mut self, live_pids: &HashSet<u32>) {
        self.known.retain(|pid, _| live_pids.contains(pid));
    }

    fn read(&mut self, pid: u32, stat: &Stat) -> Process {
        let place = self.place(pid);
        let Owner { uid, user, job, gpus } = self.owner(pid, stat, place);
        let command = command::short(&self.memory(pid, stat, "cmdline", CMDLINE_BYTES_MAX), &stat.comm);
        Process { started_ticks: Some(stat.started_ticks), uid, user, command, job, gpus, ..Process::new(pid) }
    }

    fn place(&self, pid: u32) -> Option<Place> {
        let cgroup = self.file(pid, "cgroup", CGROUP_BYTES_MAX).unwrap_or_default();
        cgroup::job_of(&String::from_utf8_lossy(&cgroup))
    }

    fn owner(&mut self, pid: u32, stat: &Stat, place: Option<Place>) -> Owner {
        let status = self.file(pid, "status", STATUS_BYTES_MAX).unwrap_or_default();
        let uid = process::uid_of(&String::from_utf8_lossy(&status));
        let (mut job, gpus) = place.map(|place| self.purpose(pid, stat, uid, place)).unzip();
        // Users of a directory service are not in the file; Slurm may have told the process its user's name.
        let claimed = job.as_mut().and_then(|job| job.user.take());
        let user = uid.map(|uid| self.users.name(uid).map(str::to_string).or(claimed).unwrap_or(uid.to_string()));
        if let Some(job) = &mut job {
            job.user.clone_from(&user);
        }
        Owner { uid, user, job, gpus: gpus.unwrap_or_default() }
    }

    /// The job of a process, and the GPUs that it says its job was given.
    fn purpose(&mut self, pid: u32, stat: &Stat, uid: Option<u32>, place: Place) -> (Job, Vec<GpuName>) {
        let place = match place {
            Place::Unit(unit) if !slurm::is_slurmd(&unit) => return (Job::of_unit(unit), Vec::new()),
            place => place,
        };
        let bytes = self.memory(pid, stat, "environ", ENVIRON_BYTES_MAX);
        let environment = Environment::parse(&bytes);
        let mut given = Given::parse(&bytes);
        let job = match place {
            Place::Slurm(step) => {
                if !environment.is_of(&step) {
                    given = Given::default();
                }
                let number = step.number(&self.roots);
                Job::of_slurm(step, number, uid, environment)
            }
            Place::Pod(pod) => {
                let name = self.pods.of(&pod).unwrap_or_else(|| environment.pod_name(&self.host_names()));
                Job::of_pod(pod, name)
            }
            Place::Container(kind, id) => Job::of_container(kind, id),
            Place::Unit(unit) => match Job::of_environment(uid, environment) {
                Some(job) => job,
                None => return (Job::of_unit(unit), Vec::new()),
            },
        };
        let gpus = given.for_job(&job);
        (job, gpus)
    }

    /// The names of this machine, which a pod that shares its network has too.
    fn host_names(&self) -> Vec<String> {
        let files = [self.roots.proc.join("sys/kernel/hostname"), self.roots.root.join("etc/hostname")];
        files.iter().filter_map(|file| text::clean(&text::read(file, HOSTNAME_BYTES_MAX).ok()?)).collect()
    }

    fn stat(&self, pid: u32) -> io::Result<Stat> {
        let bytes = self.file(pid, "stat", STAT_BYTES_MAX)?;
        Stat::parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// A file that the kernel copies from the process's memory, up to its last whole string; empty if it is closed.
    /// Not tried while the process is stuck: it may hold the lock of its own memory, and the agent would wait for it.
    fn memory(&self, pid: u32, stat: &Stat, name: &str, bytes_max: usize) -> Vec<u8> {
        if stat.is_stuck {
            return Vec::new();
        }
        let mut bytes = self.file(pid, name, bytes_max).unwrap_or_default();
        if bytes.len() == bytes_max {
            let end = bytes.iter().rposition(|b| *b == 0);
            bytes.truncate(end.unwrap_or_default());
        }
        bytes
    }

    fn file(&self, pid: u32, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
        text::read(&self.roots.proc.join(pid.to_string()).join(name), bytes_max)
    }
}

/// No such file, or no such process any more behind the file.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::{fixture::Fixture, *};

    const ID: &str = "95510329f5bd2b884b8ec944cf023b76b60db0ca361d6fc59e4659daad669873";
    const UID: &str = "1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813";

    fn stat(comm: &str, state: &str, started: u64) -> String {
        format!("7 ({comm}) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {started} 0 0")
    }

    /// A machine on which process 7 runs `python train.py` as `ada` in this cgroup and environment.
    fn machine(cgroup: &str, environ: &str) -> Fixture {
        let fixture = Fixture::new();
        fixture.write("root/etc/passwd", "root:x:0:0::/:\nada:x:1000:1000::/:\n");
        fixture.write("proc/7/stat", stat("python", "S", 100));
        fixture.write("proc/7/status", "Name:\tpython\nUid:\t1000\t1000\t1000\t1000\n");
        fixture.write("proc/7/cmdline", "/usr/bin/python\0/home/ada/train.py\0--token\0hunter2\0");
        fixture.write("proc/7/cgroup", format!("0::{cgroup}\n"));
        fixture.write("proc/7/environ", environ.replace(' ', "\0"));
        fixture
    }

    fn show(process: Option<Arc<Process>>) -> String {
        let Some(process) = process else { return "gone".into() };
        let or_none = |field: &Option<String>| field.clone().unwrap_or("?".into());
        let mut shown = format!("{} {}:", or_none(&process.user), or_none(&process.command));
        if let Some(job) = &process.job {
            let labels = Job::LABELS.into_iter().zip(job.label_values()).filter(|(_, value)| !value.is_empty());
            labels.for_each(|(name, value)| write!(shown, " {name}={value}").unwrap());
        }
        shown
    }

    fn check(fixture: &Fixture, expected: &Expect) {
        expected.assert_eq(&show(Processes::new(&fixture.roots()).of(7)));
    }

    #[test]
    fn a_job_of_slurm_with_and_without_its_environment() {
        let environ = "SLURM_JOB_ID=123 SLURM_JOB_NAME=train SLURM_JOB_PARTITION=h100";
        let fixture = machine("/system.slice/slurmstepd.scope/job_123/step_0/user/task_0", environ);
        check(
            &fixture,
            &expect!["ada python train.py: job_kind=slurm job_id=123 user=ada job_name=train step=0 partition=h100"],
        );
        fixture.remove("proc/7/environ");
        check(&fixture, &expect!["ada python train.py: job_kind=slurm job_id=123 user=ada step=0"]);
    }

    #[test]
    fn a_job_of_slurm_by_its_sluid() {
        let path = "/system.slice/slurmstepd.scope/s7QH0RBN3M1W00/step_batch";
        let fixture = machine(&format!("{path}/user/task_special"), "");
        check(&fixture, &expect!["ada python train.py: job_kind=slurm job_id=s7QH0RBN3M1W00 user=ada step=batch"]);
        fixture.write(format!("sys/fs/cgroup{path}/slurm/cgroup.procs"), "6\n");
        fixture.write("proc/6/cmdline", "slurmstepd: [123.batch]\0");
        check(&fixture, &expect!["ada python train.py: job_kind=slurm job_id=123 user=ada step=batch"]);
    }

    #[test]
    fn a_user_whom_only_slurm_knows() {
        let path = "/system.slice/slurmstepd.scope/job_123/step_0";
        let fixture = machine(path, "SLURM_JOB_ID=123 SLURM_JOB_UID=1000 SLURM_JOB_USER=lovelace");
        check(&fixture, &expect!["ada python train.py: job_kind=slurm job_id=123 user=ada step=0"]);
        fixture.remove("root/etc/passwd");
        check(&fixture, &expect!["lovelace python train.py: job_kind=slurm job_id=123 user=lovelace step=0"]);
        fixture.write("proc/7/environ", "SLURM_JOB_ID=123\0SLURM_JOB_UID=0\0SLURM_JOB_USER=root\0");
        check(&fixture, &expect!["1000 python train.py: job_kind=slurm job_id=123 user=1000 step=0"]);
    }

    #[test]
    fn a_slurmd_that_makes_no_cgroups() {
        check(
            &machine("/system.slice/slurmd.service", "SLURM_JOB_ID=123 SLURM_STEP_ID=0"),
            &expect!["ada python train.py: job_kind=slurm job_id=123 user=ada step=0"],
        );
        check(
            &machine("/system.slice/slurmd.service", ""),
            &expect!["ada python train.py: job_kind=systemd job_id=slurmd.service user=ada"],
        );
        check(
            &machine("/system.slice/other.service", "SLURM_JOB_ID=123"),
            &expect!["ada python train.py: job_kind=systemd job_id=other.service user=ada"],
        );
    }

    #[test]
    fn a_pod_with_and_without_the_kubelets_word() {
        let fixture = machine(&format!("/kubepods/pod{UID}/{ID}"), "HOSTNAME=train-0 POD_NAMESPACE=team-a");
        check(
            &fixture,
            &expect![
                "ada python train.py: job_kind=kubernetes job_id=1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 user=ada namespace=team-a pod=train-0"
            ],
        );
        fixture.write("proc/sys/kernel/hostname", "train-0\n");
        check(
            &fixture,
            &expect![
                "ada python train.py: job_kind=kubernetes job_id=1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 user=ada namespace=team-a"
            ],
        );
        fixture.link(&format!("root/var/log/containers/train-1_team-b_main-{ID}.log"));
        check(
            &fixture,
            &expect![
                "ada python train.py: job_kind=kubernetes job_id=1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 user=ada namespace=team-b pod=train-1 container=main"
            ],
        );
    }

    #[test]
    fn containers_services_and_sessions() {
        check(
            &machine(&format!("/system.slice/docker-{ID}.scope"), "SLURM_JOB_ID=123"),
            &expect!["ada python train.py: job_kind=docker job_id=95510329f5bd user=ada"],
        );
        check(
            &machine("/system.slice/vllm.service", ""),
            &expect!["ada python train.py: job_kind=systemd job_id=vllm.service user=ada"],
        );
        check(
            &machine("/user.slice/user-1000.slice/session-3.scope", "SLURM_JOB_ID=123"),
            &expect!["ada python train.py:"],
        );
    }

    #[test]
    fn what_vanishes_between_two_reads_is_absent() {
        let fixture = machine("/system.slice/vllm.service", "");
        for (file, left) in [
            ("cmdline", expect!["ada python: job_kind=systemd job_id=vllm.service user=ada"]),
            ("status", expect!["? python: job_kind=systemd job_id=vllm.service"]),
            ("cgroup", expect!["? python:"]),
            ("stat", expect!["gone"]),
        ] {
            fixture.remove(&format!("proc/7/{file}"));
            check(&fixture, &left);
        }
    }

    #[test]
    fn a_process_that_cannot_be_told_apart_is_known_by_its_pid_alone() {
        let fixture = machine("/system.slice/vllm.service", "");
        fixture.write("proc/7/stat", "odd");
        check(&fixture, &expect!["? ?:"]);
    }

    /// Looks twice; the files change in between.
    fn check_twice(change: impl Fn(&Fixture), expected: &Expect) {
        let fixture = machine("/system.slice/one.service", "");
        let mut processes = Processes::new(&fixture.roots());
        let first = processes.of(7).unwrap();
        fixture.write("proc/7/cgroup", "0::/system.slice/two.service");
        change(&fixture);
        let second = processes.of(7);
        let is_same = second.as_ref().is_some_and(|second| Arc::ptr_eq(&first, second));
        expected.assert_eq(&format!("{}{}", if is_same { "remembered " } else { "" }, show(second)));
    }

    #[test]
    fn a_process_is_remembered_as_long_as_it_is_the_same() {
        check_twice(|_| (), &expect!["remembered ada python train.py: job_kind=systemd job_id=one.service user=ada"]);
        check_twice(
            |fixture| fixture.write("proc/7/stat", stat("python", "D", 100)),
            &expect!["remembered ada python train.py: job_kind=systemd job_id=one.service user=ada"],
        );
        check_twice(
            |fixture| fixture.write("proc/7/stat", stat("python", "S", 101)),
            &expect!["ada python train.py: job_kind=systemd job_id=two.service user=ada"],
        );
        check_twice(
            |fixture| fixture.write("proc/7/stat", stat("other", "S", 100)),
            &expect!["ada python train.py: job_kind=systemd job_id=two.service user=ada"],
        );
        check_twice(|fixture| fixture.remove("proc/7"), &expect!["gone"]);
    }

    #[test]
    fn a_stuck_process_is_asked_for_its_memory_when_it_is_free() {
        let path = "/system.slice/slurmstepd.scope/job_123/step_0";
        let fixture = machine(path, "SLURM_JOB_ID=123 SLURM_JOB_NAME=train");
        fixture.write("proc/7/stat", stat("python", "D", 100));
        let mut processes = Processes::new(&fixture.roots());
        expect!["ada python: job_kind=slurm job_id=123 user=ada step=0"].assert_eq(&show(processes.of(7)));
        fixture.write("proc/7/stat", stat("python", "S", 100));
        expect!["ada python train.py: job_kind=slurm job_id=123 user=ada job_name=train step=0"]
            .assert_eq(&show(processes.of(7)));
    }

    #[test]
    fn a_long_environment_is_read_up_to_its_last_whole_variable() {
        let long = format!("X={} SLURM_JOB_ID=123 SLURM_JOB_NAME=", "x".repeat(ENVIRON_BYTES_MAX - 40));
        let environ = format!("{long}{}", "y".repeat(80));
        check(
            &machine("/system.slice/slurmd.service", &environ),
            &expect!["ada python train.py: job_kind=slurm job_id=123 user=ada"],
        );
    }

    #[test]
    fn processes_that_ended_are_forgotten() {
        let fixture = machine("/system.slice/vllm.service", "");
        let mut processes = Processes::new(&fixture.roots());
        let first = processes.of(7).unwrap();
        processes.forget_all_but(&HashSet::from([7, 8]));
        assert!(Arc::ptr_eq(&first, &processes.of(7).unwrap()));
        processes.forget_all_but(&HashSet::from([8]));
        assert!(processes.known.is_empty());
    }

    #[test]
    fn this_process_is_found_on_this_machine() {
        let process = Processes::new(&Roots::default()).of(std::process::id()).unwrap();
        assert!(process.uid.is_some() && process.user.is_some() && process.command.is_some(), "{process:?}");
        assert_eq!(Processes::new(&Roots::default()).of(u32::MAX), None);
    }
}

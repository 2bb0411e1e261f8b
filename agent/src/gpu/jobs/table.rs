//! The jobs of this machine, each put together from all of its processes.
//!
//! Of two processes of one job one may know more than the other, or may be gone at the next look. A job's series shall have the
//! same labels whichever is looked at, and none as well. So what is known of a job stays for as long as it lives, and only grows.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::devices::{Devices, GpuName, Part},
    job::{Job, JobKind},
};

/// More than a machine has containers. Each takes some hundred bytes.
const JOBS_MAX: usize = 4096;
/// Names of one job's GPUs: more than any machine has GPUs and instances of them.
const NAMES_MAX: usize = 128;

/// Tells the jobs of one machine apart. The containers of a pod are jobs of their own: each has its own GPUs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobKey {
    kind: JobKind,
    id: String,
    container: Option<String>,
}

impl JobKey {
    fn of(job: &Job) -> Self {
        Self { kind: job.kind, id: job.id.clone(), container: job.container.clone() }
    }
}

/// A GPU that a job was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(in crate::gpu) part: Part,
    pub(crate) job: JobKey,
}

/// The jobs that have processes.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    records: BTreeMap<JobKey, Record>,
    /// Counts the looks at all processes.
    pass: u64,
}

#[derive(Debug)]
struct Record {
    job: Job,
    steps: u8,
    given: BTreeSet<GpuName>,
    /// GPUs that its processes were seen to hold.
    held: BTreeSet<u32>,
    /// The pass in which a process of it was seen last.
    pass: u64,
}

impl JobTable {
    /// Begins to look at all processes.
    pub(super) fn begin_pass(&mut self) {
        self.pass += 1;
    }

    /// Forgets the jobs of which no process was seen since the beginning.
    pub(super) fn end_pass(&mut self) {
        self.records.retain(|_, record| record.pass == self.pass);
    }

    /// Takes what a process knows of its job and of the GPUs that the job was given.
    pub(super) fn learn(&mut self, job: &Job, gpus: &[GpuName]) -> JobKey {
        let key = JobKey::of(job);
        let is_full = self.records.len() >= JOBS_MAX;
        let record = match self.records.get_mut(&key) {
            Some(record) => record,
            None if is_full => return key,
            None => self.records.entry(key.clone()).or_insert_with(|| Record::of(job)),
        };
        record.merge(job);
        record.give(gpus);
        record.pass = self.pass;
        key
    }

    /// Notes that a process of the job is still there.
    pub(super) fn keep(&mut self, key: &JobKey) {
        if let Some(record) = self.records.get_mut(key) {
            record.pass = self.pass;
        }
    }

    /// Notes that a process of the job holds a GPU.
    pub(super) fn hold(&mut self, key: &JobKey, gpu: u32) {
        if let Some(record) = self.records.get_mut(key) {
            record.held.insert(gpu);
        }
    }

    /// Takes the GPUs that a container of a pod was given. It has them while the pod lives, also while it is not there itself.
    pub(super) fn give_pod(&mut self, uid: &str, container: &str, gpus: &[GpuName]) {
        let of_pod = JobKey { kind: JobKind::Kubernetes, id: uid.to_owned(), container: None };
        let pod = self.records.range(&of_pod..).take_while(|(job, _)| job.kind == of_pod.kind && job.id == of_pod.id);
        let Some(living) = pod.map(|(_, record)| record).find(|record| record.pass == self.pass) else { return };
        // As whom it will run is not known from its neighbours.
        let job = Job { user: None, container: Some(container.to_owned()), container_id: None, ..living.job.clone() };
        self.learn(&job, gpus);
    }

    /// What is known of a job; `None` if there are too many.
    pub(super) fn job(&self, key: &JobKey) -> Option<&Job> {
        self.records.get(key).map(|record| &record.job)
    }

    /// The GPUs that jobs were given.
    pub(super) fn allocations(&self, devices: &Devices) -> Vec<Allocation> {
        let of = |(key, record): (&JobKey, &Record)| {
            let parts = record.parts(devices).into_iter();
            parts.map(|part| Allocation { part, job: key.clone() }).collect::<Vec<_>>()
        };
        self.records.iter().flat_map(of).collect()
    }
}

impl Record {
    fn of(job: &Job) -> Self {
        let job = Job { step: None, ..job.clone() };
        Self { job, steps: 0, given: BTreeSet::new(), held: BTreeSet::new(), pass: 0 }
    }

    fn merge(&mut self, job: &Job) {
        // A daemon of root starts what its users run.
        if self.job.user.as_deref() == Some("root") {
            self.job.user.clone_from(&job.user);
        }
        self.merge_step(job.step.as_deref());
        let Job { user, name, partition, account, array, het_job_id, sluid, namespace, pod, container_id, .. } = job;
        let mine = &mut self.job;
        for (known, new) in [
            (&mut mine.user, user),
            (&mut mine.name, name),
            (&mut mine.partition, partition),
            (&mut mine.account, account),
            (&mut mine.array, array),
            (&mut mine.sluid, sluid),
            (&mut mine.namespace, namespace),
            (&mut mine.pod, pod),
            (&mut mine.container_id, container_id),
        ] {
            if known.is_none() {
                known.clone_from(new);
            }
        }
        mine.het_job_id = mine.het_job_id.or(*het_job_id);
    }

    /// A job has the step that does its work, if it is one; of a job with several none is told.
    fn merge_step(&mut self, step: Option<&str>) {
        let Some(step) = step else { return };
        // Who works leaves the work to those after it.
        let rank = match step {
            "extern" => 1,
            "batch" => 2,
            "interactive" => 3,
            _ => 4,
        };
        if rank > self.steps {
            self.steps = rank;
            self.job.step = Some(step.to_owned());
        } else if rank == self.steps && self.job.step.as_deref() != Some(step) {
            self.job.step = None;
        }
    }

    fn give(&mut self, gpus: &[GpuName]) {
        for name in gpus {
            if self.given.len() < NAMES_MAX && !self.given.contains(name) {
                self.given.insert(name.clone());
            }
        }
    }

    fn parts(&self, devices: &Devices) -> BTreeSet<Part> {
        let parts = |is_counted: fn(&GpuName) -> bool| -> BTreeSet<Part> {
            self.given.iter().filter(|name| is_counted(name)).filter_map(|name| devices.find(name)).collect()
        };
        let all = parts(|_| true);
        // Slurm may have been told of some of the GPUs only, and number those. Who holds others than its own shows that.
        let is_refuted = self.held.iter().any(|gpu| !all.iter().any(|part| part.gpu == *gpu));
        if is_refuted { parts(|name| !matches!(name, GpuName::Slurm(_))) } else { all }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{
        super::{
            super::devices::fixture,
            environment::Environment,
            kubernetes::{Pod, PodName},
        },
        *,
    };

    fn slurm(variables: &str) -> Job {
        let variables = format!("SLURM_JOB_ID=7 {variables}").replace(' ', "\0");
        Job::of_environment(Some(1000), Environment::parse(variables.as_bytes())).unwrap()
    }

    fn in_step(step: &str) -> Job {
        Job { step: Some(step.into()), ..slurm("") }
    }

    fn container(name: Option<&str>) -> Job {
        let pod = Pod { uid: "uid".into(), container_id: None };
        Job::of_pod(pod, PodName { container: name.map(str::to_owned), ..PodName::default() })
    }

    /// Learns of a job in both orders, and in either gets the same labels.
    fn check(jobs: &[Job], expected: &Expect) {
        let labels = |jobs: &mut dyn Iterator<Item = &Job>| {
            let mut table = JobTable::default();
            let keys: BTreeSet<JobKey> = jobs.map(|job| table.learn(job, &[])).collect();
            let lines = keys.iter().map(|key| {
                let values = table.job(key).unwrap().label_values();
                let labels = Job::LABELS.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
                labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let forwards = labels(&mut jobs.iter());
        assert_eq!(labels(&mut jobs.iter().rev()), forwards, "the order does not count");
        expected.assert_eq(&forwards);
    }

    #[test]
    fn what_one_process_knows_holds_for_the_job() {
        check(
            &[slurm("SLURM_JOB_NAME=train"), slurm(""), slurm("SLURM_JOB_PARTITION=h100 SLURM_JOB_ACCOUNT=ml")],
            &expect!["job_kind=slurm job_id=7 job_name=train partition=h100 account=ml"],
        );
    }

    #[test]
    fn a_job_is_its_users_and_not_roots() {
        let of = |user: &str| Job { user: Some(user.into()), ..slurm("") };
        check(&[of("root"), of("ada")], &expect!["job_kind=slurm job_id=7 user=ada"]);
        check(&[of("root"), of("root")], &expect!["job_kind=slurm job_id=7 user=root"]);
        check(&[slurm(""), of("ada")], &expect!["job_kind=slurm job_id=7 user=ada"]);
    }

    #[test]
    fn a_job_has_the_only_step_that_works() {
        check(&[in_step("extern"), in_step("batch")], &expect!["job_kind=slurm job_id=7 step=batch"]);
        check(&[in_step("extern"), in_step("0"), in_step("batch")], &expect!["job_kind=slurm job_id=7 step=0"]);
        check(&[in_step("0"), in_step("1"), in_step("0")], &expect!["job_kind=slurm job_id=7"]);
        check(&[in_step("interactive"), slurm("")], &expect!["job_kind=slurm job_id=7 step=interactive"]);
    }

    #[test]
    fn the_containers_of_a_pod_are_told_apart() {
        check(
            &[container(Some("a")), container(Some("b")), container(None), container(Some("a"))],
            &expect![[r#"
                job_kind=kubernetes job_id=uid
                job_kind=kubernetes job_id=uid container=a
                job_kind=kubernetes job_id=uid container=b"#]],
        );
    }

    #[test]
    fn a_job_without_processes_is_forgotten() {
        let mut table = JobTable::default();
        table.begin_pass();
        let [kept, learnt, gone] = ["1", "2", "3"].map(|id| table.learn(&Job { id: id.into(), ..slurm("") }, &[]));
        table.end_pass();
        table.begin_pass();
        table.keep(&kept);
        table.learn(&Job { id: "2".into(), ..slurm("") }, &[]);
        assert!(table.job(&gone).is_some(), "until all processes have been looked at");
        table.end_pass();
        assert_eq!([kept, learnt, gone].map(|key| table.job(&key).is_some()), [true, true, false]);
    }

    #[test]
    fn jobs_beyond_the_limit_are_not_known() {
        let mut table = JobTable::default();
        let keys = (0..=JOBS_MAX).map(|id| table.learn(&Job { id: id.to_string(), ..slurm("") }, &[]));
        let keys: Vec<JobKey> = keys.collect();
        assert_eq!(keys.iter().filter(|key| table.job(key).is_some()).count(), JOBS_MAX);
    }

    fn check_allocations(table: &JobTable, expected: &Expect) {
        let mut devices = Devices::default();
        devices.identify(&fixture::gpus(4));
        devices.learn(&fixture::facts(&[0, 1, 2, 3], &[]));
        let lines = table.allocations(&devices).into_iter().map(|allocation| {
            let JobKey { kind, id, container } = allocation.job;
            format!("{} {id} {}: {}\n", kind.as_str(), container.unwrap_or_default(), allocation.part.gpu)
        });
        expected.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn a_job_was_given_what_any_of_its_processes_knows() {
        let mut table = JobTable::default();
        let uuid = |uuid: &str| GpuName::Uuid(uuid.into());
        table.learn(&slurm(""), &[GpuName::Slurm(0), uuid("GPU-0"), uuid("GPU-9")]);
        table.learn(&slurm(""), &[]);
        table.learn(&slurm(""), &[GpuName::Slurm(2)]);
        check_allocations(
            &table,
            &expect![[r#"
                slurm 7 : 0
                slurm 7 : 2
            "#]],
        );
    }

    #[test]
    fn numbers_that_a_jobs_own_processes_refute_do_not_count() {
        let mut table = JobTable::default();
        let job = table.learn(&slurm(""), &[GpuName::Slurm(0), GpuName::Slurm(1), GpuName::Uuid("GPU-2".into())]);
        table.hold(&job, 1);
        table.hold(&job, 2);
        check_allocations(
            &table,
            &expect![[r#"
                slurm 7 : 0
                slurm 7 : 1
                slurm 7 : 2
            "#]],
        );
        table.hold(&job, 3);
        check_allocations(
            &table,
            &expect![[r#"
                slurm 7 : 2
            "#]],
        );
    }

    #[test]
    fn a_container_has_its_gpus_while_the_pod_lives() {
        let mut table = JobTable::default();
        let sandbox = table.learn(&Job { user: Some("65535".into()), ..container(None) }, &[]);
        table.give_pod("other", "a", &[GpuName::Index(0)]);
        table.give_pod("uid", "a", &[GpuName::Index(1)]);
        let given = expect![[r#"
            kubernetes uid a: 1
        "#]];
        check_allocations(&table, &given);
        let a = table.learn(&Job { user: Some("ada".into()), ..container(Some("a")) }, &[]);
        assert_eq!(table.job(&a).unwrap().user.as_deref(), Some("ada"));

        table.begin_pass();
        table.keep(&sandbox);
        table.give_pod("uid", "a", &[GpuName::Index(1)]);
        table.end_pass();
        check_allocations(&table, &given);
        assert_eq!(table.job(&a).unwrap().user.as_deref(), Some("ada"), "it is still the same");

        table.begin_pass();
        table.give_pod("uid", "a", &[GpuName::Index(1)]);
        table.end_pass();
        check_allocations(&table, &expect![""]);
    }

    proptest::proptest! {
        /// Once something is known it stays, and a step changes only for one that works or for none.
        #[test]
        fn what_is_known_grows(steps in proptest::collection::vec("extern|batch|interactive|[0-2]", 1..9)) {
            let mut table = JobTable::default();
            let mut seen = Vec::new();
            for step in &steps {
                let key = table.learn(&in_step(step), &[]);
                let now = table.job(&key).unwrap().step.clone();
                if seen.last() != Some(&now) {
                    proptest::prop_assert!(!seen.contains(&now), "{seen:?} and then {now:?} again");
                    seen.push(now);
                }
            }
            proptest::prop_assert!(seen.len() <= 5);
        }
    }
}

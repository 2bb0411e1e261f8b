//! A job: what many processes on many GPUs are run for.
//!
//! Put together from what the kernel says (the cgroup) and what the process says (its environment). The first decides;
//! the second adds names where it speaks of the same job.
//!
//! Pure.

use super::{
    environment::Environment,
    kubernetes::{Pod, PodName},
    slurm::SlurmStep,
};

/// As much of a container's id as its engine's own tables show.
const ID_CHARS: usize = 12;

/// Who runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum JobKind {
    Slurm,
    Kubernetes,
    Docker,
    Podman,
    Containerd,
    Crio,
    /// A container of an engine that its cgroup does not tell.
    Container,
    Systemd,
}

impl JobKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::Kubernetes => "kubernetes",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Container => "container",
            Self::Systemd => "systemd",
        }
    }
}

/// What a process is run for. Kind and id name it on its machine; the rest is what is known besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) kind: JobKind,
    /// A job's number (its SLUID where only that is known), a pod's uid, the start of a container's id, a unit's name.
    pub(crate) id: String,
    /// The name of the user that it runs as, or else the number.
    pub(crate) user: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) step: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) account: Option<String>,
    /// `ARRAY_TASK` as Slurm's commands show it.
    pub(crate) array: Option<String>,
    /// The first component of the heterogeneous job that it is part of.
    pub(crate) het_job_id: Option<u32>,
    pub(crate) sluid: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) pod: Option<String>,
    /// The container's name in its pod.
    pub(crate) container: Option<String>,
    /// The container's whole id.
    pub(crate) container_id: Option<String>,
}

impl Job {
    /// The labels of a job's series. Every kind has all of them, so that one metric can carry every kind.
    pub(crate) const LABELS: [&'static str; 10] =
        ["job_kind", "job_id", "user", "job_name", "step", "partition", "account", "namespace", "pod", "container"];

    /// The values of [`Job::LABELS`], empty where they are not known or the kind has none.
    pub(crate) fn label_values(&self) -> [&str; 10] {
        let known = [
            &self.user,
            &self.name,
            &self.step,
            &self.partition,
            &self.account,
            &self.namespace,
            &self.pod,
            &self.container,
        ];
        let [user, name, step, partition, account, namespace, pod, container] =
            known.map(|value| value.as_deref().unwrap_or_default());
        [self.kind.as_str(), &self.id, user, name, step, partition, account, namespace, pod, container]
    }

    fn new(kind: JobKind, id: String) -> Self {
        Self {
            kind,
            id,
            user: None,
            name: None,
            step: None,
            partition: None,
            account: None,
            array: None,
            het_job_id: None,
            sluid: None,
            namespace: None,
            pod: None,
            container: None,
            container_id: None,
        }
    }

    /// The job of a step, with its number if that could be found out. `uid` is the process's.
    pub(super) fn of_slurm(step: SlurmStep, number: Option<u32>, uid: Option<u32>, environment: Environment) -> Self {
        let environment = if environment.is_of(&step) { environment } else { Environment::default() };
        let number = number.or_else(|| environment.job_ids.first().copied());
        let sluid = step.sluid().or_else(|| environment.sluid.clone());
        let id = number.map(|number| number.to_string()).or_else(|| sluid.clone());
        let name = step.step.or_else(|| environment.step.clone());
        let job = Self::new(JobKind::Slurm, id.unwrap_or_default());
        Self { step: name, sluid, ..job }.named_by(environment, uid)
    }

    /// The job of a process whose `slurmd` makes no cgroups: the environment is all there is.
    pub(super) fn of_environment(uid: Option<u32>, environment: Environment) -> Option<Self> {
        let id = environment.job_ids.first()?.to_string();
        let job = Self::new(JobKind::Slurm, id);
        let (step, sluid) = (environment.step.clone(), environment.sluid.clone());
        Some(Self { step, sluid, ..job }.named_by(environment, uid))
    }

    fn named_by(self, environment: Environment, uid: Option<u32>) -> Self {
        let array = environment.array_job_id.zip(environment.array_task_id);
        Self {
            // Only for the user that the process in fact runs as.
            user: environment.user.filter(|_| uid.is_some() && environment.uid == uid),
            name: environment.job_name,
            partition: environment.partition,
            account: environment.account,
            array: array.map(|(job, task)| format!("{job}_{task}")),
            het_job_id: environment.het_job_id,
            ..self
        }
    }

    pub(super) fn of_pod(pod: Pod, name: PodName) -> Self {
        Self {
            namespace: name.namespace,
            pod: name.pod,
            container: name.container,
            container_id: pod.container_id,
            ..Self::new(JobKind::Kubernetes, pod.uid)
        }
    }

    pub(super) fn of_container(kind: JobKind, id: String) -> Self {
        let short = id.chars().take(ID_CHARS).collect();
        Self { container_id: Some(id), ..Self::new(kind, short) }
    }

    pub(super) fn of_unit(unit: String) -> Self {
        Self::new(JobKind::Systemd, unit)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{
        super::cgroup::{self, Place},
        *,
    };

    /// Shows the labels that are not empty, and what else is known.
    fn check(job: Job, expected: &Expect) {
        let labels = Job::LABELS.into_iter().zip(job.label_values()).filter(|(_, value)| !value.is_empty());
        let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        let het_job_id = job.het_job_id.map(|id| id.to_string());
        let others = [("array", job.array), ("sluid", job.sluid), ("het", het_job_id), ("cid", job.container_id)];
        let others = others.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        expected.assert_eq(&labels.into_iter().chain(others).collect::<Vec<_>>().join(" "));
    }

    fn slurm(path: &str, number: Option<u32>, variables: &str) -> Job {
        let place = cgroup::job_of(&format!("0::{path}"));
        let Some(Place::Slurm(step)) = place else { panic!("{place:?}") };
        Job::of_slurm(step, number, Some(1000), Environment::parse(variables.replace(' ', "\0").as_bytes()))
    }

    const NAMES: &str = "SLURM_JOB_UID=1000 SLURM_JOB_USER=ada SLURM_JOB_NAME=train SLURM_JOB_ACCOUNT=ml SLURM_JOB_PARTITION=h100 SLURM_STEP_ID=4";

    #[test]
    fn a_step_is_named_by_an_environment_of_the_same_job() {
        let path = "/system.slice/slurmstepd.scope/job_123/step_0/user/task_0";
        check(
            slurm(path, Some(123), &format!("SLURM_JOB_ID=123 SLURM_ARRAY_JOB_ID=120 SLURM_ARRAY_TASK_ID=3 {NAMES}")),
            &expect!["job_kind=slurm job_id=123 user=ada job_name=train step=0 partition=h100 account=ml array=120_3"],
        );
        check(slurm(path, Some(123), &format!("SLURM_JOB_ID=9 {NAMES}")), &expect!["job_kind=slurm job_id=123 step=0"]);
        check(slurm(path, Some(123), NAMES), &expect!["job_kind=slurm job_id=123 step=0"]);
        check(slurm(path, Some(123), ""), &expect!["job_kind=slurm job_id=123 step=0"]);
    }

    /// Its environment has the number of the first.
    #[test]
    fn a_component_of_a_heterogeneous_job_keeps_its_number() {
        check(
            slurm(
                "/system.slice/slurmstepd.scope/job_124/step_0",
                Some(124),
                "SLURM_JOB_ID=123 SLURM_JOB_ID_HET_GROUP_1=124 SLURM_HET_JOB_ID=123 SLURM_JOB_NAME=both",
            ),
            &expect!["job_kind=slurm job_id=124 job_name=both step=0 het=123"],
        );
    }

    #[test]
    fn a_sluid_stands_for_the_number_that_nobody_tells() {
        let path = "/system.slice/slurmstepd.scope/s7QH0RBN3M1W00/step_0";
        let same = format!("SLURM_JOB_ID=123 SLURM_JOB_SLUID=s7QH0RBN3M1W00 {NAMES}");
        check(slurm(path, None, ""), &expect!["job_kind=slurm job_id=s7QH0RBN3M1W00 step=0 sluid=s7QH0RBN3M1W00"]);
        check(
            slurm(path, None, &same),
            &expect![
                "job_kind=slurm job_id=123 user=ada job_name=train step=0 partition=h100 account=ml sluid=s7QH0RBN3M1W00"
            ],
        );
        check(
            slurm(path, Some(124), &same),
            &expect![
                "job_kind=slurm job_id=124 user=ada job_name=train step=0 partition=h100 account=ml sluid=s7QH0RBN3M1W00"
            ],
        );
        check(
            slurm(path, None, "SLURM_JOB_ID=9 SLURM_JOB_SLUID=s7QH0RBN3M1W01"),
            &expect!["job_kind=slurm job_id=s7QH0RBN3M1W00 step=0 sluid=s7QH0RBN3M1W00"],
        );
    }

    #[test]
    fn a_slurmd_without_cgroups() {
        let environment = |variables: &str| Environment::parse(variables.replace(' ', "\0").as_bytes());
        check(
            Job::of_environment(Some(0), environment(&format!("SLURM_JOB_ID=123 {NAMES}"))).unwrap(),
            &expect!["job_kind=slurm job_id=123 job_name=train step=4 partition=h100 account=ml"],
        );
        assert_eq!(Job::of_environment(Some(0), environment(NAMES)), None);
    }

    #[test]
    fn a_pod() {
        let pod = Pod { uid: "uid".into(), container_id: Some("cid".into()) };
        let name = PodName { namespace: Some("ns".into()), pod: Some("p".into()), container: Some("c".into()) };
        check(
            Job::of_pod(pod.clone(), name),
            &expect!["job_kind=kubernetes job_id=uid namespace=ns pod=p container=c cid=cid"],
        );
        check(Job::of_pod(pod, PodName::default()), &expect!["job_kind=kubernetes job_id=uid cid=cid"]);
    }

    #[test]
    fn containers_and_units() {
        check(
            Job::of_container(JobKind::Docker, "95510329f5bd2b884b8e".into()),
            &expect!["job_kind=docker job_id=95510329f5bd cid=95510329f5bd2b884b8e"],
        );
        check(Job::of_unit("vllm.service".into()), &expect!["job_kind=systemd job_id=vllm.service"]);
    }
}

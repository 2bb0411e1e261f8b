//! What a process's environment says about its job.
//!
//! The environment is the process's own word: whoever starts one may write anything into it. So it names what
//! the cgroup has found, and decides nothing that the cgroup can. All other variables are passed over: they hold
//! people's passwords.
//!
//! Pure. Only the kernel's copy from the start of the program is seen, not what it has set since.

use super::{
    kubernetes::PodName,
    slurm::{SlurmId, SlurmStep, is_sluid},
    text,
};

/// Slurm allows a heterogeneous job 128 components.
const JOB_IDS_MAX: usize = 129;

/// The variables that name a job; what is absent was not set or is not valid.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Environment {
    /// The job's, and of a heterogeneous job those of its components.
    pub(super) job_ids: Vec<u32>,
    pub(super) sluid: Option<String>,
    pub(super) step: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) user: Option<String>,
    pub(super) job_name: Option<String>,
    pub(super) account: Option<String>,
    pub(super) partition: Option<String>,
    pub(super) array_job_id: Option<u32>,
    pub(super) array_task_id: Option<u32>,
    pub(super) het_job_id: Option<u32>,
    pub(super) hostname: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) namespace: Option<String>,
}

impl Environment {
    /// Reads `NAME=VALUE` up to each zero byte. Where a name stands twice the first counts, as it does for `getenv`.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut environment = Self::default();
        variables(bytes).for_each(|(name, value)| environment.set(name, value));
        environment
    }

    /// Whether this is an environment of the step's job. A process may have it from another.
    pub(super) fn is_of(&self, step: &SlurmStep) -> bool {
        match &step.job {
            SlurmId::Number(number) => self.job_ids.contains(number),
            SlurmId::Sluid(_) => self.sluid == step.sluid(),
        }
    }

    /// What a pod calls itself: by variables that its author set, or else by its host name. That is the pod's name
    /// unless it shares the network of the machine, whose names these are.
    pub(super) fn pod_name(self, host_names: &[String]) -> PodName {
        let hostname = self.hostname.filter(|name| !host_names.contains(name));
        PodName { namespace: self.namespace, pod: self.pod.or(hostname), container: None }.checked()
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        let text = || text::clean(value);
        let number = || text::number(str::from_utf8(value).ok()?);
        match name {
            b"SLURM_JOB_ID" => self.add_job_id(number()),
            b"SLURM_JOB_SLUID" => fill(&mut self.sluid, || text().filter(|text| is_sluid(text))),
            b"SLURM_STEP_ID" => fill(&mut self.step, || step(str::from_utf8(value).ok()?)),
            b"SLURM_JOB_UID" => fill(&mut self.uid, || str::from_utf8(value).ok()?.parse().ok()),
            b"SLURM_JOB_USER" => fill(&mut self.user, text),
            b"SLURM_JOB_NAME" => fill(&mut self.job_name, text),
            b"SLURM_JOB_ACCOUNT" => fill(&mut self.account, text),
            b"SLURM_JOB_PARTITION" => fill(&mut self.partition, text),
            b"SLURM_ARRAY_JOB_ID" => fill(&mut self.array_job_id, number),
            // Tasks are counted from 0.
            b"SLURM_ARRAY_TASK_ID" => fill(&mut self.array_task_id, || str::from_utf8(value).ok()?.parse().ok()),
            b"SLURM_HET_JOB_ID" => fill(&mut self.het_job_id, number),
            b"HOSTNAME" => fill(&mut self.hostname, text),
            b"POD_NAME" => fill(&mut self.pod, text),
            b"POD_NAMESPACE" => fill(&mut self.namespace, text),
            _ if name.starts_with(b"SLURM_JOB_ID_HET_GROUP_") => self.add_job_id(number()),
            _ => {}
        }
    }

    fn add_job_id(&mut self, id: Option<u32>) {
        self.job_ids.extend(id.filter(|_| self.job_ids.len() < JOB_IDS_MAX));
    }
}

/// Names and values, each pair up to a zero byte.
pub(super) fn variables(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    bytes.split(|b| *b == 0).filter_map(|variable| {
        let mut halves = variable.splitn(2, |b| *b == b'=');
        halves.next().zip(halves.next())
    })
}

/// Sets what is not set yet.
pub(super) fn fill<T>(field: &mut Option<T>, value: impl FnOnce() -> Option<T>) {
    if field.is_none() {
        *field = value();
    }
}

/// A step's number, or the name of one that Slurm numbers from the top.
fn step(text: &str) -> Option<String> {
    let number: u32 = text.parse().ok()?;
    let name = match number {
        0xffff_fffd.. => return None,
        0xffff_fffc => "extern",
        0xffff_fffb => "batch",
        0xffff_fffa => "interactive",
        _ => return Some(number.to_string()),
    };
    Some(name.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Shows what is set, a line each.
    fn check(variables: &str, expected: &Expect) {
        let environment = Environment::parse(variables.replace(' ', "\0").as_bytes());
        let shown = format!("{environment:#?}").replace("Some(\n        ", "").replace(",\n    )", "");
        let is_set = |line: &&str| line.starts_with("    ") && !line.ends_with(" None,") && !line.ends_with(" [],");
        expected.assert_eq(&shown.lines().filter(is_set).map(|line| format!("{}\n", line.trim())).collect::<String>());
    }

    #[test]
    fn a_job_of_slurm() {
        check(
            "HOME=/root SLURM_JOB_ID=123 SLURM_JOBID=5 SLURM_STEP_ID=0 SLURM_JOB_UID=1000 SLURM_JOB_USER=ada \
             SLURM_JOB_NAME=train=1 SLURM_JOB_ACCOUNT=ml SLURM_JOB_PARTITION=h100 SLURM_ARRAY_JOB_ID=120 \
             SLURM_ARRAY_TASK_ID=0 SLURM_JOB_SLUID=s7QH0RBN3M1W00 AWS_SECRET=x SLURM_JOB_ID_X=9",
            &expect![[r#"
                job_ids: [
                123,
                ],
                sluid: "s7QH0RBN3M1W00",
                step: "0",
                uid: 1000,
                user: "ada",
                job_name: "train=1",
                account: "ml",
                partition: "h100",
                array_job_id: 120,
                array_task_id: 0,
            "#]],
        );
    }

    #[test]
    fn a_heterogeneous_job() {
        check(
            "SLURM_JOB_ID=123 SLURM_HET_JOB_ID=123 SLURM_JOB_ID_HET_GROUP_0=123 SLURM_JOB_ID_HET_GROUP_1=124",
            &expect![[r#"
                job_ids: [
                123,
                123,
                124,
                ],
                het_job_id: 123,
            "#]],
        );
    }

    #[test]
    fn a_pod() {
        check(
            "HOSTNAME=train-0 POD_NAME=train-0 POD_NAMESPACE=team-a KUBERNETES_PORT=tcp://10.0.0.1",
            &expect![[r#"
                hostname: "train-0",
                pod: "train-0",
                namespace: "team-a",
            "#]],
        );
    }

    #[test]
    fn a_pods_name_is_its_own_word() {
        let name = |variables: &str| {
            let name = Environment::parse(variables.replace(' ', "\0").as_bytes()).pod_name(&["node-1".to_string()]);
            [name.namespace, name.pod].map(|name| name.unwrap_or("-".into())).join(" ")
        };
        assert_eq!(name("HOSTNAME=train-0 POD_NAMESPACE=team-a"), "team-a train-0");
        assert_eq!(name("HOSTNAME=node-1 POD_NAMESPACE=team-a"), "team-a -");
        assert_eq!(name("HOSTNAME=node-1 POD_NAME=train-0"), "- train-0");
        assert_eq!(name("POD_NAME=_ POD_NAMESPACE=a.B"), "- -");
    }

    #[test]
    fn what_is_not_valid_is_not_set() {
        check(
            "SLURM_JOB_ID=0 SLURM_JOB_ID=12x SLURM_STEP_ID=4294967293 SLURM_JOB_SLUID=x SLURM_JOB_NAME=",
            &expect![""],
        );
        check("SLURM_JOB_ID HOSTNAME", &expect![""]);
        check(
            "HOSTNAME=first HOSTNAME=second",
            &expect![[r#"
            hostname: "first",
        "#]],
        );
    }

    #[test]
    fn steps_have_names() {
        let numbers = [0, 7, 0xffff_fffa, 0xffff_fffb, 0xffff_fffc, 0xffff_fffd, u32::MAX];
        let names = numbers.map(|number: u32| step(&number.to_string()).unwrap_or("-".into()));
        assert_eq!(names, ["0", "7", "interactive", "batch", "extern", "-", "-"]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, name in "SLURM_[A-Z_]{0,20}|HOSTNAME") {
            let _ = Environment::parse(&bytes);
            let _ = Environment::parse(&[name.as_bytes(), b"=", &bytes].concat());
        }
    }
}

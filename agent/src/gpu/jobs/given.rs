//! Which GPUs a job was given, as the environment of one of its processes says it.
//!
//! Not every variable is to be believed. Slurm numbers devices anew inside a step that may open only its own, so that
//! `CUDA_VISIBLE_DEVICES=0` may be any of them, and so may `GPU_DEVICE_ORDINAL`; a UUID there is what it is. `SLURM_JOB_GPUS` is
//! set where a job's script runs, and handed down by `srun` to steps on other nodes, of whose GPUs it knows nothing;
//! `SLURM_STEP_GPUS` is set for each task of a step, and handed down by `sbatch` to a script of another job. An image
//! that says `NVIDIA_VISIBLE_DEVICES=all` says it wherever it runs.
//!
//! Pure.

use super::{
    super::devices::GpuName,
    environment::{fill, variables},
    job::{Job, JobKind},
};

/// More than any machine has GPUs and instances of them.
const NAMES_MAX: usize = 128;

/// The variables that name GPUs; what is absent was not set or names none.
#[derive(Debug, Default)]
pub(super) struct Given {
    slurm_job: Option<Vec<GpuName>>,
    slurm_step: Option<Vec<GpuName>>,
    container: Option<Vec<GpuName>>,
    cuda: Option<Vec<GpuName>>,
}

impl Given {
    /// Reads an environment as the kernel keeps it.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut given = Self::default();
        for (name, value) in variables(bytes) {
            match name {
                b"SLURM_JOB_GPUS" => fill(&mut given.slurm_job, || slurm(value)),
                b"SLURM_STEP_GPUS" => fill(&mut given.slurm_step, || slurm(value)),
                b"NVIDIA_VISIBLE_DEVICES" => fill(&mut given.container, || container(value)),
                b"CUDA_VISIBLE_DEVICES" => fill(&mut given.cuda, || cuda(value)),
                _ => {}
            }
        }
        given
    }

    /// The GPUs that this job, which the process belongs to, was given.
    pub(super) fn for_job(self, job: &Job) -> Vec<GpuName> {
        let named = match (job.kind, job.step.as_deref()) {
            (JobKind::Slurm, Some("batch" | "interactive")) => self.slurm_job,
            (JobKind::Slurm, Some(step)) if step.starts_with(|c: char| c.is_ascii_digit()) => self.slurm_step,
            (JobKind::Slurm, _) => None,
            _ => self.container,
        };
        named.into_iter().chain(self.cuda).flatten().collect()
    }
}

/// Slurm's numbers: `0,1`.
fn slurm(value: &[u8]) -> Option<Vec<GpuName>> {
    list(value, |text| number(text).map(GpuName::Slurm))
}

/// What a container may see: UUIDs or indices. `all`, `none` and `void` name nothing.
fn container(value: &[u8]) -> Option<Vec<GpuName>> {
    list(value, |text| GpuName::uuid(text).or_else(|| number(text).map(GpuName::Index)))
}

/// What CUDA may see, if that is said by UUID.
fn cuda(value: &[u8]) -> Option<Vec<GpuName>> {
    list(value, GpuName::uuid)
}

/// A list is taken as a whole or not at all.
fn list(value: &[u8], name: impl Fn(&str) -> Option<GpuName>) -> Option<Vec<GpuName>> {
    let text = str::from_utf8(value).ok()?;
    let names: Option<Vec<GpuName>> = text.split(',').take(NAMES_MAX + 1).map(|word| name(word.trim())).collect();
    names.filter(|names| names.len() <= NAMES_MAX)
}

/// A number without sign; they begin at 0.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{
        super::{
            environment::Environment,
            kubernetes::{Pod, PodName},
        },
        *,
    };

    fn check(job: &Job, variables: &str, expected: &Expect) {
        let given = Given::parse(variables.replace(' ', "\0").as_bytes()).for_job(job);
        let words: Vec<String> = given.iter().map(|name| format!("{name:?}")).collect();
        expected.assert_eq(&words.join(" "));
    }

    fn slurm_job(step: &str) -> Job {
        let environment = format!("SLURM_JOB_ID=7\0SLURM_STEP_ID={step}");
        Job::of_environment(None, Environment::parse(environment.as_bytes())).unwrap()
    }

    const BATCH: &str = "4294967291";
    const INTERACTIVE: &str = "4294967290";
    const EXTERN: &str = "4294967292";

    #[test]
    fn a_script_of_slurm_knows_its_jobs_gpus() {
        let variables = "SLURM_JOB_GPUS=0,3 SLURM_STEP_GPUS=1 CUDA_VISIBLE_DEVICES=0,1 NVIDIA_VISIBLE_DEVICES=2";
        check(&slurm_job(BATCH), variables, &expect!["Slurm(0) Slurm(3)"]);
        check(&slurm_job(INTERACTIVE), variables, &expect!["Slurm(0) Slurm(3)"]);
    }

    #[test]
    fn a_step_of_slurm_knows_its_own() {
        let variables = "SLURM_JOB_GPUS=0,3 SLURM_STEP_GPUS=1 CUDA_VISIBLE_DEVICES=0";
        check(&slurm_job("0"), variables, &expect!["Slurm(1)"]);
        check(&slurm_job("0"), "SLURM_JOB_GPUS=0,3 CUDA_VISIBLE_DEVICES=0", &expect![""]);
        check(&slurm_job(EXTERN), variables, &expect![""]);
    }

    #[test]
    fn uuids_count_in_every_step() {
        let variables = "SLURM_STEP_GPUS=3 CUDA_VISIBLE_DEVICES=MIG-GPU-1/7/0,MIG-a";
        check(&slurm_job("0"), variables, &expect![[r#"Slurm(3) Uuid("MIG-GPU-1/7/0") Uuid("MIG-a")"#]]);
        check(&slurm_job(EXTERN), variables, &expect![[r#"Uuid("MIG-GPU-1/7/0") Uuid("MIG-a")"#]]);
    }

    #[test]
    fn a_container_is_given_what_it_may_see() {
        let job = Job::of_container(JobKind::Docker, "95510329f5bd".into());
        check(&job, "NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-2", &expect![[r#"Uuid("GPU-1") Uuid("GPU-2")"#]]);
        check(&job, "NVIDIA_VISIBLE_DEVICES=0,2 SLURM_JOB_GPUS=5", &expect!["Index(0) Index(2)"]);
        check(&job, "NVIDIA_VISIBLE_DEVICES=all CUDA_VISIBLE_DEVICES=GPU-1", &expect![[r#"Uuid("GPU-1")"#]]);
        for nothing in ["all", "void", "none", "", "0:1", "-1", "0,all", "+1", "1.0"] {
            check(&job, &format!("NVIDIA_VISIBLE_DEVICES={nothing}"), &expect![""]);
        }
        let pod = Job::of_pod(Pod { uid: "uid".into(), container_id: None }, PodName::default());
        check(&pod, "NVIDIA_VISIBLE_DEVICES=MIG-a", &expect![[r#"Uuid("MIG-a")"#]]);
    }

    #[test]
    fn a_list_that_is_too_long_or_not_all_names_is_none() {
        for odd in ["NoDevFiles", "0,", ",0", "0,x", "0-3", "4294967296", &"1,".repeat(NAMES_MAX)] {
            assert_eq!(slurm(odd.as_bytes()), None, "{odd:?}");
        }
        let full = vec!["1"; NAMES_MAX].join(",");
        assert_eq!(slurm(full.as_bytes()).map(|names| names.len()), Some(NAMES_MAX));
    }

    proptest::proptest! {
        #[test]
        fn any_list_is_read_without_a_panic(bytes: Vec<u8>, text in "((GPU-|MIG-)?[0-9a-f]{0,9},?){0,9}") {
            for value in [&bytes[..], text.as_bytes()] {
                let _ = Given::parse(&[b"SLURM_JOB_GPUS=", value].concat());
                for names in [slurm(value), container(value), cuda(value)].into_iter().flatten() {
                    proptest::prop_assert!((1..=NAMES_MAX).contains(&names.len()));
                }
            }
        }
    }
}

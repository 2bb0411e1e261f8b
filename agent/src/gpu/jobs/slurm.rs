//! How Slurm marks the processes of a job.
//!
//! It makes a cgroup for each step. With cgroup v1 that is `/slurm/uid_1000/job_123/step_0`, with v2
//! `/system.slice/slurmstepd.scope/job_123/step_0`; a `slurmd` that shares its host puts its node's name into either.
//! Since 26.05 the v2 directory is named by the job's SLUID instead (`s`, then 64 bits in Crockford's base 32) unless
//! `CgroupJobIdPaths` asks for the number.
//!
//! Who needs the number behind a SLUID can read it off the title of the step's `slurmstepd`, which everybody may.

use std::path::Path;

use super::{cgroup, text};
use crate::samplers::Roots;

/// The digits of a SLUID: no I, L, O and U.
const SLUID_DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// A step has one `slurmstepd`; its helpers may be beside it.
const STEPD_PIDS_MAX: usize = 8;
const PIDS_BYTES_MAX: usize = 4096;
const TITLE_BYTES_MAX: usize = 256;

/// How a cgroup names a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SlurmId {
    Number(u32),
    Sluid(String),
}

/// The step that a cgroup belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlurmStep {
    pub(super) job: SlurmId,
    /// A number, or `batch`, `extern`, `interactive`.
    pub(super) step: Option<String>,
    /// The step's cgroup v2, where its `slurmstepd` can be looked up.
    directory: Option<String>,
}

impl SlurmStep {
    /// The step that the path of a cgroup lies in.
    pub(super) fn in_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = cgroup::parts(path).collect();
        (0..parts.len()).find_map(|start| {
            let (before, rest) = parts.split_at_checked(start)?;
            match rest {
                [scope, job, rest @ ..] if is_scope(scope) => {
                    let step = step(rest);
                    // A path that leads out of the agent's own cgroup namespace cannot be followed.
                    let can_follow = step.is_some() && !path.contains("/..");
                    let directory = rest.first().filter(|_| can_follow).map(|last| {
                        let parts: Vec<&str> = before.iter().chain([scope, job, last]).copied().collect();
                        parts.join("/")
                    });
                    Some(Self { job: job_id(job)?, step, directory })
                }
                [root, uid, job, rest @ ..] if is_root(root) && uid.starts_with("uid_") => Some(Self {
                    job: SlurmId::Number(text::number(job.strip_prefix("job_")?)?),
                    step: step(rest),
                    directory: None,
                }),
                _ => None,
            }
        })
    }

    /// The job's SLUID, if that is what the path names it by.
    pub(super) fn sluid(&self) -> Option<String> {
        match &self.job {
            SlurmId::Number(_) => None,
            SlurmId::Sluid(sluid) => Some(sluid.clone()),
        }
    }

    /// The job's number: from the path, or else as the step's `slurmstepd` says it.
    pub(super) fn number(&self, roots: &Roots) -> Option<u32> {
        match &self.job {
            SlurmId::Number(number) => Some(*number),
            SlurmId::Sluid(_) => number_of_stepd(roots, self.directory.as_deref()?),
        }
    }
}

/// `slurmstepd.scope`, or `NODE_slurmstepd.scope`.
fn is_scope(part: &str) -> bool {
    part.strip_suffix("slurmstepd.scope").is_some_and(|node| node.is_empty() || node.ends_with('_'))
}

/// `slurm`, or `slurm_NODE`.
fn is_root(part: &str) -> bool {
    part == "slurm" || part.starts_with("slurm_")
}

/// Whether a unit is that of `slurmd`, which may have one for each node that it plays.
pub(super) fn is_slurmd(unit: &str) -> bool {
    unit == "slurmd.service" || unit.starts_with("slurmd@")
}

fn job_id(part: &str) -> Option<SlurmId> {
    match part.strip_prefix("job_") {
        Some(number) => text::number(number).map(SlurmId::Number),
        None => is_sluid(part).then(|| SlurmId::Sluid(part.to_string())),
    }
}

/// The name after `step_`; a heterogeneous step's component follows it after a `+`.
fn step(rest: &[&str]) -> Option<String> {
    let name = rest.first()?.strip_prefix("step_")?;
    let is_name = !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
    is_name.then(|| name.to_string())
}

/// Whether this is a SLUID as Slurm prints it.
pub(super) fn is_sluid(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('s') else { return false };
    // 13 digits of 5 bits hold 65: the first has only 4.
    digits.len() == 13
        && digits.bytes().all(|b| SLUID_DIGITS.contains(&b))
        && digits.starts_with(|c: char| c.is_ascii_hexdigit())
}

fn number_of_stepd(roots: &Roots, directory: &str) -> Option<u32> {
    let pids = roots.sys.join("fs/cgroup").join(directory).join("slurm/cgroup.procs");
    let pids = text::read(&pids, PIDS_BYTES_MAX).ok()?;
    let pids = String::from_utf8_lossy(&pids);
    pids.lines().take(STEPD_PIDS_MAX).find_map(|pid| {
        let title = Path::new(&text::number(pid)?.to_string()).join("cmdline");
        number_in_title(&text::read(&roots.proc.join(title), TITLE_BYTES_MAX).ok()?)
    })
}

/// The job of `slurmstepd: [123.batch]`.
fn number_in_title(title: &[u8]) -> Option<u32> {
    let title = String::from_utf8_lossy(title);
    let (number, _) = title.strip_prefix("slurmstepd: [")?.split_once('.')?;
    text::number(number)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{super::fixture::Fixture, *};

    fn check(path: &str, expected: &Expect) {
        let found = SlurmStep::in_path(path);
        expected.assert_eq(&found.map_or("-".into(), |step| {
            let words = [
                format!("{:?}", step.job),
                format!("step {}", step.step.unwrap_or_default()),
                format!("in {}", step.directory.unwrap_or_default()),
            ];
            words.join(", ")
        }));
    }

    #[test]
    fn version_1() {
        check("/slurm/uid_1000/job_123/step_0/task_0", &expect!["Number(123), step 0, in "]);
        check("/slurm_n1/uid_0/job_7/step_batch", &expect!["Number(7), step batch, in "]);
        check("/slurm/uid_1000/job_123", &expect!["Number(123), step , in "]);
        check("/slurm/uid_1000", &expect!["-"]);
        check("/slurm/uid_1000/system", &expect!["-"]);
        check("/other/uid_1000/job_123/step_0", &expect!["-"]);
    }

    #[test]
    fn version_2() {
        check(
            "/system.slice/slurmstepd.scope/job_123/step_batch/user/task_0",
            &expect!["Number(123), step batch, in system.slice/slurmstepd.scope/job_123/step_batch"],
        );
        check(
            "/hpc.slice/node_1_slurmstepd.scope/job_9/step_0+1/user/task_special",
            &expect!["Number(9), step 0+1, in hpc.slice/node_1_slurmstepd.scope/job_9/step_0+1"],
        );
        check("/../../slurmstepd.scope/job_123/step_0", &expect!["Number(123), step 0, in "]);
        check("/system.slice/slurmstepd.scope/system", &expect!["-"]);
        check("/system.slice/slurmstepd.scope/job_0/step_0", &expect!["-"]);
        check("/system.slice/xslurmstepd.scope/job_1/step_0", &expect!["-"]);
        check("/system.slice/slurmd.service", &expect!["-"]);
    }

    #[test]
    fn version_2_with_sluids() {
        check(
            "/system.slice/slurmstepd.scope/s7QH0RBN3M1W00/step_0/user/task_0",
            &expect![[r#"Sluid("s7QH0RBN3M1W00"), step 0, in system.slice/slurmstepd.scope/s7QH0RBN3M1W00/step_0"#]],
        );
        check(
            "/system.slice/n1_slurmstepd.scope/sB2T9X4ZCJ6V80/step_extern/user/task_0",
            &expect![[
                r#"Sluid("sB2T9X4ZCJ6V80"), step extern, in system.slice/n1_slurmstepd.scope/sB2T9X4ZCJ6V80/step_extern"#
            ]],
        );
        // Too short, with a letter that is no digit, with more than 64 bits.
        check("/system.slice/slurmstepd.scope/s7QH0RBN3M1W0/step_0", &expect!["-"]);
        check("/system.slice/slurmstepd.scope/s7QH0RBN3M1WIL/step_0", &expect!["-"]);
        check("/system.slice/slurmstepd.scope/sZZZZZZZZZZZZZ/step_0", &expect!["-"]);
    }

    /// Slurm's nodes may themselves be pods.
    #[test]
    fn a_job_inside_a_container() {
        check(
            "/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope/system.slice/slurmstepd.scope/job_5/step_0",
            &expect![
                "Number(5), step 0, in kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope/system.slice/slurmstepd.scope/job_5/step_0"
            ],
        );
    }

    #[test]
    fn titles_of_stepd() {
        for (title, number) in [
            (&b"slurmstepd: [4711.0]"[..], Some(4711)),
            (b"slurmstepd: [4711.extern stepmgr]\0\0\0", Some(4711)),
            (b"slurmstepd: [s7QH0RBN3M1W00.0]", None),
            (b"/usr/sbin/slurmstepd\0infinity\0", None),
            (b"slurmstepd: [.0]", None),
            (b"", None),
        ] {
            assert_eq!(number_in_title(title), number, "{title:?}");
        }
    }

    #[test]
    fn the_number_behind_a_sluid_is_what_stepd_says() {
        let fixture = Fixture::new();
        let path = "/system.slice/slurmstepd.scope/s7QH0RBN3M1W00/step_0";
        let step = SlurmStep::in_path(&format!("{path}/user/task_0")).unwrap();
        assert_eq!(step.number(&fixture.roots()), None);
        fixture.write(format!("sys/fs/cgroup{path}/slurm/cgroup.procs"), "40\n41\n");
        assert_eq!(step.number(&fixture.roots()), None);
        fixture.write("proc/41/cmdline", b"slurmstepd: [4711.0]\0\0");
        assert_eq!(step.number(&fixture.roots()), Some(4711));
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_read_without_a_panic(
            path in ".*|(/(slurm|slurmstepd.scope|uid_[0-9]{0,2}|job_[0-9]{0,11}|s[0-9A-Z]{13}|step_[a-z+]{0,3}|\\.\\.)){0,6}",
            title: Vec<u8>,
        ) {
            if let Some(step) = SlurmStep::in_path(&path) {
                proptest::prop_assert!(!step.directory.unwrap_or_default().contains(".."));
            }
            let _ = number_in_title(&[b"slurmstepd: [", &title[..]].concat());
        }
    }
}

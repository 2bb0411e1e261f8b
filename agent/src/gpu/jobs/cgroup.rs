//! What `/proc/PID/cgroup` tells of a process: the kernel's word on where it runs.
//!
//! One line for each hierarchy of cgroup v1, and one for v2, each `ID:CONTROLLERS:PATH`. A job marks some of its paths
//! and leaves others at their root, so all are looked at, first for what is most particular: a job of Slurm may run in
//! a pod, a pod in a container, a container in a service.
//!
//! Pure. Paths are told apart by their own shape; no engine is asked whether it knows a container.

use super::{job::JobKind, kubernetes::Pod, slurm::SlurmStep};

/// There are about 14 hierarchies.
const LINES_MAX: usize = 64;
/// systemd refuses longer names.
const UNIT_BYTES_MAX: usize = 255;

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Slurm(SlurmStep),
    Pod(Pod),
    /// A container that no kubelet made, with its whole id.
    Container(JobKind, String),
    /// A service or scope of systemd that is not part of somebody's session.
    Unit(String),
}

/// The place that a process's cgroups say.
pub(super) fn job_of(text: &str) -> Option<Place> {
    let paths: Vec<&str> = text.lines().take(LINES_MAX).filter_map(path).collect();
    // Cgroup v1 may mark a job in more hierarchies than a step.
    let steps = || paths.iter().filter_map(|path| SlurmStep::in_path(path));
    let slurm = steps().find(|step| step.step.is_some()).or_else(|| steps().next());
    slurm
        .map(Place::Slurm)
        .or_else(|| paths.iter().find_map(|path| Pod::in_path(path)).map(Place::Pod))
        .or_else(|| paths.iter().find_map(|path| container(path)))
        .or_else(|| paths.iter().find_map(|path| unit(path)).map(Place::Unit))
}

/// The path of a line. That of a cgroup which was removed under its processes says so at its end.
fn path(line: &str) -> Option<&str> {
    let path = line.splitn(3, ':').nth(2)?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path)).filter(|path| path.starts_with('/'))
}

/// The names along a path. The `..` that lead out of a cgroup namespace name nothing.
pub(super) fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != "..")
}

/// Whether this is the id that every engine gives to a container: 256 random bits.
pub(super) fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The outermost container on a path: what runs inside of it is its own affair.
fn container(path: &str) -> Option<Place> {
    let parts: Vec<&str> = parts(path).collect();
    parts.iter().enumerate().find_map(|(at, part)| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let (engine, id) = name.rsplit_once('-').unwrap_or(("", name));
        if !is_container_id(id) {
            return None;
        }
        let kind = match engine {
            "docker" => JobKind::Docker,
            "libpod" | "libpod-payload" => JobKind::Podman,
            "nerdctl" | "cri-containerd" => JobKind::Containerd,
            "crio" => JobKind::Crio,
            "" => engine_of_parents(parts.get(..at)?),
            _ => return None,
        };
        Some(Place::Container(kind, id.to_string()))
    })
}

/// The engine that names a container by its mere id below these.
fn engine_of_parents(parents: &[&str]) -> JobKind {
    match parents {
        // Namespaces of containerd: `ctr`'s and the kubelet's.
        ["default" | "k8s.io"] => JobKind::Containerd,
        // ECS gives Docker a parent of its own, `/ecs/TASK`.
        [.., "docker"] | ["ecs", ..] => JobKind::Docker,
        _ => JobKind::Container,
    }
}

/// The unit below the slices that a path begins with.
fn unit(path: &str) -> Option<String> {
    let mut parts = parts(path).skip_while(|part| part.ends_with(".slice") && *part != "user.slice");
    let unit = parts.next().filter(|part| *part != "user.slice" && !part.starts_with("user@"))?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let is_unit = unit.ends_with(".service") || unit.ends_with(".scope");
    (is_unit && unit.len() <= UNIT_BYTES_MAX && unit.bytes().all(is_name)).then(|| unit.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const ID: &str = "95510329f5bd2b884b8ec944cf023b76b60db0ca361d6fc59e4659daad669873";
    const UID: &str = "1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813";

    fn show(place: Option<Place>) -> String {
        match place {
            None => "-".into(),
            Some(Place::Slurm(step)) => format!("slurm {:?} {}", step.job, step.step.unwrap_or_default()),
            Some(Place::Pod(pod)) => format!("pod {}", pod.uid),
            Some(Place::Container(kind, id)) => format!("{} {id}", kind.as_str()).replace(ID, "ID"),
            Some(Place::Unit(unit)) => format!("unit {unit}").replace(ID, "ID"),
        }
    }

    fn check(text: &str, expected: &Expect) {
        expected.assert_eq(&show(job_of(&text.replace("UID", UID).replace("ID", ID))));
    }

    #[test]
    fn docker() {
        check("0::/docker/ID", &expect!["docker ID"]);
        check("0::/system.slice/docker-ID.scope", &expect!["docker ID"]);
        check("13:name=systemd:/docker/ID\n12:pids:/docker/ID\n0::/", &expect!["docker ID"]);
        check("0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope", &expect!["docker ID"]);
        check("0::/ecs/5a3c9e1f70b24d86a1c5e8f2037b69d4/ID", &expect!["docker ID"]);
        check("0::/ecstasks.slice/ecstasks-0f1e.slice/docker-ID.scope", &expect!["docker ID"]);
        check("0::/docker/ID/docker/0000", &expect!["docker ID"]);
        check("0::/docker/ID/system.slice/sshd.service", &expect!["docker ID"]);
        check("0::/docker/not-an-id", &expect!["-"]);
    }

    #[test]
    fn podman() {
        check("0::/machine.slice/libpod-ID.scope/container", &expect!["podman ID"]);
        check("0::/machine.slice/machine-libpod_pod_ID.slice/libpod-ID.scope", &expect!["podman ID"]);
        check("0::/user.slice/user-1.slice/user@1.service/user.slice/libpod-ID.scope/container", &expect!["podman ID"]);
        check("1:name=systemd:/libpod_parent/libpod-ID", &expect!["podman ID"]);
        check("0::/system.slice/llm.service/libpod-payload-ID", &expect!["podman ID"]);
        check("0::/machine.slice/libpod-conmon-ID.scope", &expect!["unit libpod-conmon-ID.scope"]);
    }

    #[test]
    fn other_engines() {
        check("0::/default/ID", &expect!["containerd ID"]);
        check("0::/k8s.io/ID", &expect!["containerd ID"]);
        check("0::/system.slice/nerdctl-ID.scope", &expect!["containerd ID"]);
        check("0::/system.slice/crio-ID.scope", &expect!["crio ID"]);
        check("0::/somebodys-parent/ID", &expect!["container ID"]);
        check("0::/../ID", &expect!["container ID"]);
        check("0::/default/my-container", &expect!["-"]);
    }

    #[test]
    fn services_but_not_sessions() {
        check("0::/system.slice/foo.service", &expect!["unit foo.service"]);
        check("0::/system.slice/system-vllm.slice/vllm@0.service/worker", &expect!["unit vllm@0.service"]);
        check(
            "0::/machine.slice/machine-qemu\\x2d1\\x2da.scope/libvirt",
            &expect![[r"unit machine-qemu\x2d1\x2da.scope"]],
        );
        check("0::/../foo.service", &expect!["unit foo.service"]);
        check("0::/user.slice/user-1000.slice/session-3.scope", &expect!["-"]);
        check("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", &expect!["-"]);
        check("0::/../../user@1000.service/app.slice/x.service", &expect!["-"]);
        check("0::/lxc.payload.c1/system.slice/foo.service", &expect!["-"]);
        check("0::/system.slice/foo bar.service", &expect!["-"]);
        check("0::/system.slice", &expect!["-"]);
        check("0::/", &expect!["-"]);
    }

    #[test]
    fn the_most_particular_place_counts() {
        check(
            "0::/kubepods.slice/kubepods-podUID.slice/cri-containerd-ID.scope/system.slice/slurmstepd.scope/job_7/step_0",
            &expect!["slurm Number(7) 0"],
        );
        check("0::/docker/ID/kubepods/podUID/ID", &expect!["pod 1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813"]);
        check("0::/system.slice/slurmstepd.scope/job_7/step_0/user/libpod-ID", &expect!["slurm Number(7) 0"]);
        check(
            "9:cpuset:/slurm/uid_5/job_7\n4:memory:/slurm/uid_5/job_7/step_1/task_0\n1:name=systemd:/system.slice/slurmd.service",
            &expect!["slurm Number(7) 1"],
        );
        check(
            "9:devices:/\n1:name=systemd:/system.slice/slurmd.service\n0::/system.slice/slurmd.service",
            &expect!["unit slurmd.service"],
        );
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        check("", &expect!["-"]);
        check("0:/system.slice/foo.service", &expect!["-"]);
        check("odd\n0::relative\n0::/docker/ID (deleted)\n", &expect!["docker ID"]);
        check("0::/system.slice/foo.service (deleted)", &expect!["unit foo.service"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(
            text in "(?s).*|([0-9]:[a-z]?:(/(slurm|docker|[a-z.-]{0,9}|user.slice|[a-f0-9]{64}|a.scope)){0,5}\n){0,3}",
        ) {
            if let Some(Place::Unit(unit)) = job_of(&text) {
                proptest::prop_assert!(unit.len() <= UNIT_BYTES_MAX && !unit.contains('/'));
            }
        }
    }
}

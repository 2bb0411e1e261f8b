//! How the kubelet marks the processes of a pod, and where it writes down the pod's name.
//!
//! Its cgroups are named by uid: `/kubepods/burstable/podUID/CONTAINER`, or with systemd
//! `…/kubepods-burstable-podUID.slice/cri-containerd-CONTAINER.scope`, where the dashes of the uid are underscores.
//! Guaranteed pods have no class in between; a static pod's uid is a hash without dashes.
//!
//! Names are those of the kubelet's log files, which on most nodes everybody may list: `/var/log/containers` has a link
//! `POD_NAMESPACE_CONTAINER-ID.log` for each container, `/var/log/pods` a directory `NAMESPACE_POD_UID`. Neither the
//! API server nor a socket of the kubelet is asked.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::cgroup;
use crate::samplers::Roots;

/// A node has up to a few hundred pods; the rest of an overfull directory is not looked at.
const ENTRIES_MAX: usize = 10_000;
/// A link's name is cut at its file system's limit, the id first. This much of it is told apart from others.
const ID_CHARS_MIN: usize = 12;
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// Containers whose names are remembered: more than a node has.
const NAMES_MAX: usize = 4096;

/// The pod that a cgroup belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) container_id: Option<String>,
}

impl Pod {
    /// The pod that the path of a cgroup lies in.
    pub(super) fn in_path(path: &str) -> Option<Self> {
        // containerd without systemd under a kubelet with it leaves `PARENT.slice:cri-containerd:ID` unresolved.
        let parts: Vec<&str> = cgroup::parts(path).flat_map(|part| part.split(':')).collect();
        let (at, uid) = parts.iter().enumerate().find_map(|(at, part)| Some((at, pod_uid(part)?)))?;
        let container_id = parts.iter().skip(at + 1).take(2).find_map(|part| container_id(part));
        Some(Self { uid, container_id: container_id.map(str::to_string) })
    }
}

/// The uid in `podUID` or `…kubepods…-podUID.slice`.
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => {
            let (parents, uid) = slice.rsplit_once("-pod")?;
            parents.contains("kubepods").then(|| uid.replace('_', "-"))?
        }
        None => part.strip_prefix("pod")?.to_string(),
    };
    let is_hash = uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hash || is_uuid(&uid)).then_some(uid)
}

fn is_uuid(text: &str) -> bool {
    let has_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits = |(at, b): (usize, u8)| if has_dash(at) { b == b'-' } else { b.is_ascii_hexdigit() };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

/// The id in `ID`, `ENGINE-ID` or `ENGINE-ID.scope`; not that of a container's monitor.
fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let (engine, id) = name.rsplit_once('-').unwrap_or(("", name));
    (cgroup::is_container_id(id) && !engine.ends_with("conmon")).then_some(id)
}

/// How people call a pod; what is not known is absent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct PodName {
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) container: Option<String>,
}

impl PodName {
    /// These names, if all of them are valid.
    fn valid(namespace: &str, pod: &str, container: Option<&str>) -> Option<Self> {
        let [namespace, pod, container] = [Some(namespace), Some(pod), container].map(|name| name.map(str::to_string));
        let name = Self { namespace, pod, container };
        (name.clone().checked() == name).then_some(name)
    }

    /// The same with only those of its names that Kubernetes would take.
    pub(super) fn checked(self) -> Self {
        let valid = |name: Option<String>, bytes_max| name.filter(|name| is_dns(name, bytes_max));
        Self {
            namespace: valid(self.namespace, LABEL_BYTES_MAX),
            pod: valid(self.pod, NAME_BYTES_MAX),
            container: valid(self.container, LABEL_BYTES_MAX),
        }
    }
}

/// The names of the pods of this node.
#[derive(Debug)]
pub(super) struct PodNames {
    containers: PathBuf,
    pods: PathBuf,
    /// Those that say the container too: it keeps them.
    known: HashMap<Pod, PodName>,
}

impl PodNames {
    pub(super) fn new(roots: &Roots) -> Self {
        let log = roots.root.join("var/log");
        Self { containers: log.join("containers"), pods: log.join("pods"), known: HashMap::new() }
    }

    /// What the kubelet calls this pod and its container.
    pub(super) fn of(&mut self, pod: &Pod) -> Option<PodName> {
        if let Some(known) = self.known.get(pod) {
            return Some(known.clone());
        }
        if let Some(id) = &pod.container_id
            && let Some(name) = find(&self.containers, |name| of_link(name, id))
        {
            if self.known.len() >= NAMES_MAX {
                self.known.clear();
            }
            self.known.insert(pod.clone(), name.clone());
            return Some(name);
        }
        find(&self.pods, |name| of_directory(name, &pod.uid))
    }
}

/// What the first entry of a directory that says anything says.
fn find(directory: &Path, read: impl Fn(&str) -> Option<PodName>) -> Option<PodName> {
    let entries = fs::read_dir(directory).ok()?;
    entries.take(ENTRIES_MAX).find_map(|entry| read(entry.ok()?.file_name().to_str()?))
}

/// `POD_NAMESPACE_CONTAINER-ID.log`, if it is about this container.
fn of_link(name: &str, container_id: &str) -> Option<PodName> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    if id.len() < ID_CHARS_MIN || !container_id.starts_with(id) {
        return None;
    }
    let (pod, rest) = names.split_once('_')?;
    let (namespace, container) = rest.split_once('_')?;
    PodName::valid(namespace, pod, Some(container))
}

/// `NAMESPACE_POD_UID`, if it is about this pod.
fn of_directory(name: &str, pod_uid: &str) -> Option<PodName> {
    let (namespace, pod) = name.strip_suffix(pod_uid)?.strip_suffix('_')?.split_once('_')?;
    PodName::valid(namespace, pod, None)
}

/// A DNS name in lower case.
fn is_dns(name: &str, bytes_max: usize) -> bool {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_well = name.bytes().next().is_some_and(is_part) && name.bytes().last().is_some_and(is_part);
    ends_well && name.len() <= bytes_max && name.bytes().all(|b| is_part(b) || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{super::fixture::Fixture, *};

    const UID: &str = "1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813";
    const UID_OF_SYSTEMD: &str = "1b9d0c52_7e34_4a61_9f08_c2d5e6a7b813";
    const HASH: &str = "9c4e21a07bd8465f93e1d0a5c86f7b24";
    const ID: &str = "95510329f5bd2b884b8ec944cf023b76b60db0ca361d6fc59e4659daad669873";

    /// Shows the pod's uid and the start of the container's id.
    fn check(path: &str, expected: &Expect) {
        let filled = path.replace("UID_", UID_OF_SYSTEMD).replace("UID", UID).replace("HASH", HASH).replace("ID", ID);
        let found = Pod::in_path(&filled).map(|pod| {
            let id = pod.container_id.map_or("-".to_string(), |id| id.chars().take(6).collect());
            format!("{} {id}", pod.uid)
        });
        expected.assert_eq(&found.unwrap_or("-".into()));
    }

    #[test]
    fn cgroups_without_systemd() {
        let known = expect!["1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 955103"];
        check("/kubepods/burstable/podUID/ID", &known);
        check("/kubepods/podUID/ID", &known);
        check("/kubepods/besteffort/podUID/crio-ID", &known);
        check("/docker/ID/kubelet/kubepods/besteffort/podUID/ID", &known);
        // Seen from a pod in a cgroup namespace of its own.
        check("/../../podUID/ID", &known);
        check("/kubepods/burstable/podHASH/ID", &expect!["9c4e21a07bd8465f93e1d0a5c86f7b24 955103"]);
        check("/kubepods/burstable/podUID", &expect!["1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 -"]);
        check("/kubepods/burstable/pod1/ID", &expect!["-"]);
    }

    #[test]
    fn cgroups_with_systemd() {
        let known = expect!["1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 955103"];
        let slices = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice";
        check(&format!("{slices}/cri-containerd-ID.scope"), &known);
        check(&format!("{slices}/docker-ID.scope/kube-proxy"), &known);
        check(&format!("{slices}/crio-ID.scope/container"), &known);
        check(&format!("{slices}/cri-containerd-ID.scope/system.slice/docker-ID.scope"), &known);
        check("/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope", &known);
        check(&format!("{slices}/crio-conmon-ID.scope"), &expect!["1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 -"]);
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope",
            &expect!["9c4e21a07bd8465f93e1d0a5c86f7b24 955103"],
        );
    }

    #[test]
    fn cgroups_of_nested_and_of_mixed_up_kubelets() {
        let known = expect!["1b9d0c52-7e34-4a61-9f08-c2d5e6a7b813 955103"];
        check(
            "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podUID_.slice/cri-containerd-ID.scope",
            &known,
        );
        check("/docker/ID/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope", &known);
        check("/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID", &known);
        check("/kubepods-besteffort-podUID_.slice:cri-containerd:ID", &known);
        check("/machine.slice/machine-libpod_pod_ID.slice/libpod-ID.scope", &expect!["-"]);
        check("/system.slice/foo-podUID_.slice/x.service", &expect!["-"]);
    }

    fn check_name(name: Option<PodName>, expected: &Expect) {
        let shown =
            name.map(|name| [name.namespace, name.pod, name.container].map(Option::unwrap_or_default).join(" "));
        expected.assert_eq(&shown.unwrap_or("-".into()));
    }

    #[test]
    fn names_of_links() {
        let pod = "train-0_team-a_main";
        check_name(of_link(&format!("{pod}-{ID}.log"), ID), &expect!["team-a train-0 main"]);
        check_name(of_link(&format!("{pod}-{}.log", &ID[..12]), ID), &expect!["team-a train-0 main"]);
        check_name(of_link(&format!("{pod}-{}.log", &ID[..11]), ID), &expect!["-"]);
        check_name(of_link(&format!("{pod}-{}.log", ID.replace('3', "4")), ID), &expect!["-"]);
        check_name(of_link(&format!("a_b-{ID}.log"), ID), &expect!["-"]);
        check_name(of_link(&format!("a_b_c_d-{ID}.log"), ID), &expect!["-"]);
        check_name(of_link(&format!("-_b_c-{ID}.log"), ID), &expect!["-"]);
    }

    #[test]
    fn names_of_directories() {
        check_name(of_directory(&format!("team-a_train-0.x_{UID}"), UID), &expect!["team-a train-0.x "]);
        check_name(of_directory(&format!("kube-system_etcd-n1_{HASH}"), HASH), &expect!["kube-system etcd-n1 "]);
        check_name(of_directory(&format!("team-a_train-0_{UID}"), HASH), &expect!["-"]);
        check_name(of_directory(&format!("Team_train-0_{UID}"), UID), &expect!["-"]);
    }

    #[test]
    fn the_link_says_more_than_the_directory() {
        let fixture = Fixture::new();
        let mut names = PodNames::new(&fixture.roots());
        let pod = Pod { uid: UID.into(), container_id: Some(ID.into()) };
        check_name(names.of(&pod), &expect!["-"]);
        fixture.write(format!("root/var/log/pods/ns_p_{UID}/c/0.log"), "");
        check_name(names.of(&pod), &expect!["ns p "]);
        fixture.link(&format!("root/var/log/containers/p_ns_c-{ID}.log"));
        check_name(names.of(&pod), &expect!["ns p c"]);
        fixture.remove("root/var/log/containers");
        check_name(names.of(&pod), &expect!["ns p c"]);
        check_name(names.of(&Pod { container_id: None, ..pod }), &expect!["ns p "]);
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read_without_a_panic(
            path in ".*|(/(kubepods|kubepods-)?(pod)?[0-9a-f_-]{32,36}(\\.slice|:crio:|-)?){0,4}",
            name in "[a-z_.-]{0,9}_[a-z_-]{0,9}-[0-9a-f]{0,14}(\\.log)?",
        ) {
            let _ = Pod::in_path(&path);
            let _ = (of_link(&name, ID), of_directory(&name, "a"));
        }
    }
}

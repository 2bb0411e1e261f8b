//! Space and inodes of mounted file systems.
//!
//! Which there are is read from `mountinfo`, see [`super::mounts`]; how full they are is asked on threads of
//! their own, see [`super::statfs`], so that a dead server delays nothing. A mount that does not answer in time is
//! said with `node_filesystem_device_error` 1, its other readings missing for reason `timeout`.

use std::{borrow::Cow, collections::HashSet, io, path::Path, sync::Arc, time::Duration};

use belfry_common::model::{Metric, Reason};

use super::{
    Roots, SampleError, Sampler, Source, TEN_SECONDS,
    cap::Cap,
    declare,
    mounts::Mount,
    reason_of,
    statfs::{Prober, Question, Statfs, Usage, statfs},
};
use crate::readings::Readings;

/// How long a tick waits for all mounts together. What hung before is not waited for again.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Filesystem {
    /// The mounts of the machine, or else those that this process sees.
    sources: [Source; 2],
    root: String,
    prober: Prober,
    patience: Duration,
    metrics: Metrics,
    cap: Cap,
}

#[derive(Debug)]
struct Metrics {
    device_error: Arc<Metric>,
    readonly: Arc<Metric>,
    usage: [Arc<Metric>; 5],
}

impl Filesystem {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self::with(roots, Box::new(statfs), PATIENCE)
    }

    fn with(roots: &Roots, statfs: Box<Statfs>, patience: Duration) -> Self {
        let mountinfo = |process| Source::new(roots.proc.join(process).join("mountinfo"));
        Self {
            sources: [mountinfo("1"), mountinfo("self")],
            root: roots.root.to_string_lossy().trim_end_matches('/').to_owned(),
            prober: Prober::new(statfs),
            patience,
            metrics: Metrics::new(),
            cap: Cap::new("filesystem"),
        }
    }
}

impl Metrics {
    fn new() -> Self {
        let gauge = |name: &str, help| {
            declare::gauge(&format!("node_filesystem_{name}"), &["device", "fstype", "mountpoint"], help)
        };
        Self {
            device_error: gauge(
                "device_error",
                "Whether an error occurred while getting statistics for the given device.",
            ),
            readonly: gauge("readonly", "Filesystem read-only status."),
            usage: [
                gauge("size_bytes", "Filesystem size in bytes."),
                gauge("free_bytes", "Filesystem free space in bytes."),
                gauge("avail_bytes", "Filesystem space available to non-root users in bytes."),
                gauge("files", "Filesystem total file nodes."),
                gauge("files_free", "Filesystem total free file nodes."),
            ],
        }
    }

    fn put(&self, readings: &mut Readings, mount: &Mount<'_>, answer: &Result<Usage, Reason>) {
        let labels = &[&*mount.device, mount.fstype, &*mount.mountpoint];
        readings.integer(&self.device_error, labels, i64::from(answer.is_err()));
        readings.integer(&self.readonly, labels, i64::from(mount.is_readonly));
        match answer {
            Ok(usage) => {
                let Usage { size_bytes, free_bytes, available_bytes, files, files_free } = *usage;
                let values = [size_bytes, free_bytes, available_bytes, files, files_free];
                for (metric, value) in self.usage.iter().zip(values) {
                    readings.unsigned(metric, labels, value);
                }
            }
            Err(reason) => {
                for metric in &self.usage {
                    readings.missing(metric, labels, *reason);
                }
            }
        }
    }
}

impl Sampler for Filesystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn interval(&self) -> Duration {
        TEN_SECONDS
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let [of_the_machine, own] = &mut self.sources;
        // The first is hidden from others than root where /proc is mounted with `hidepid`.
        let text = match of_the_machine.read() {
            Ok(text) => text,
            Err(_) => own.read()?,
        };
        let mounts = watched(text, &self.root, &mut self.cap);
        let questions = mounts.iter().map(|mount| Question {
            path: Path::new(&format!("{}{}", self.root, mount.mountpoint)).to_owned(),
            server: mount.server().into(),
            is_remote: mount.is_remote(),
        });
        let answers = self.prober.ask(questions.collect(), self.patience);
        for (mount, answer) in mounts.iter().zip(answers) {
            self.metrics.put(readings, mount, &usage_of(answer));
        }
        Ok(())
    }
}

/// The mounts worth watching, local ones first, each once: a mount point may be mounted over with the same device.
fn watched<'t>(text: &'t str, root: &str, cap: &mut Cap) -> Vec<Mount<'t>> {
    let mut seen = HashSet::new();
    let mut mounts = Vec::new();
    for line in text.lines() {
        let Some(mut mount) = Mount::parse(line) else { continue };
        strip_root(&mut mount.mountpoint, root);
        if !mount.is_watched() || !seen.insert((mount.device.clone(), mount.fstype, mount.mountpoint.clone())) {
            continue;
        }
        if !cap.allows(mounts.len()) {
            break;
        }
        mounts.push(mount);
    }
    mounts.sort_by_key(Mount::is_remote);
    mounts
}

/// Where the machine's root is mounted somewhere else, mount points are said as the machine itself knows them.
fn strip_root(mountpoint: &mut Cow<'_, str>, root: &str) {
    if root.is_empty() {
        return;
    }
    let Some(rest) = mountpoint.strip_prefix(root) else { return };
    if rest.is_empty() {
        *mountpoint = Cow::Borrowed("/");
    } else if rest.starts_with('/') {
        *mountpoint = Cow::Owned(rest.to_owned());
    }
}

fn usage_of(answer: Option<io::Result<Usage>>) -> Result<Usage, Reason> {
    answer.ok_or(Reason::Timeout)?.map_err(|error| reason_of(&error))
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    const MOUNTS: &str = r"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
23 21 0:50 / /data ro - nfs4 nas:/export\040one rw
24 21 0:51 / /my\040disk rw - tmpfs tmpfs rw
25 21 0:51 / /my\040disk rw,noexec - tmpfs tmpfs rw
26 21 0:52 / /denied rw - fuse.sshfs me@host:/ rw
27 21 0:53
28 21 0:54 / /var/lib/docker/x rw - ext4 /dev/sdb rw
";

    /// For mounts that do answer, however busy the machine is.
    const LONG: Duration = Duration::from_secs(600);

    fn usage(path: &Path) -> io::Result<Usage> {
        if path.ends_with("denied") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Usage { size_bytes: 1000, free_bytes: 600, available_bytes: 500, files: 90, files_free: 80 })
    }

    #[test]
    fn each_mount_once_and_a_failing_one_with_its_reason() {
        let fixture = Fixture::new().proc("1/mountinfo", MOUNTS);
        let mut sampler = Filesystem::with(&fixture.roots(), Box::new(usage), LONG);
        expect![[r#"
            node_filesystem_device_error{device="/dev/sda1",fstype="ext4",mountpoint="/"} 0
            node_filesystem_readonly{device="/dev/sda1",fstype="ext4",mountpoint="/"} 0
            node_filesystem_size_bytes{device="/dev/sda1",fstype="ext4",mountpoint="/"} 1000
            node_filesystem_free_bytes{device="/dev/sda1",fstype="ext4",mountpoint="/"} 600
            node_filesystem_avail_bytes{device="/dev/sda1",fstype="ext4",mountpoint="/"} 500
            node_filesystem_files{device="/dev/sda1",fstype="ext4",mountpoint="/"} 90
            node_filesystem_files_free{device="/dev/sda1",fstype="ext4",mountpoint="/"} 80
            node_filesystem_device_error{device="tmpfs",fstype="tmpfs",mountpoint="/my disk"} 0
            node_filesystem_readonly{device="tmpfs",fstype="tmpfs",mountpoint="/my disk"} 0
            node_filesystem_size_bytes{device="tmpfs",fstype="tmpfs",mountpoint="/my disk"} 1000
            node_filesystem_free_bytes{device="tmpfs",fstype="tmpfs",mountpoint="/my disk"} 600
            node_filesystem_avail_bytes{device="tmpfs",fstype="tmpfs",mountpoint="/my disk"} 500
            node_filesystem_files{device="tmpfs",fstype="tmpfs",mountpoint="/my disk"} 90
            node_filesystem_files_free{device="tmpfs",fstype="tmpfs",mountpoint="/my disk"} 80
            node_filesystem_device_error{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 0
            node_filesystem_readonly{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 1
            node_filesystem_size_bytes{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 1000
            node_filesystem_free_bytes{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 600
            node_filesystem_avail_bytes{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 500
            node_filesystem_files{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 90
            node_filesystem_files_free{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 80
            node_filesystem_device_error{device="me@host:/",fstype="fuse.sshfs",mountpoint="/denied"} 1
            node_filesystem_readonly{device="me@host:/",fstype="fuse.sshfs",mountpoint="/denied"} 0
            node_filesystem_size_bytes{device="me@host:/",fstype="fuse.sshfs",mountpoint="/denied"} missing (permission)
            node_filesystem_free_bytes{device="me@host:/",fstype="fuse.sshfs",mountpoint="/denied"} missing (permission)
            node_filesystem_avail_bytes{device="me@host:/",fstype="fuse.sshfs",mountpoint="/denied"} missing (permission)
            node_filesystem_files{device="me@host:/",fstype="fuse.sshfs",mountpoint="/denied"} missing (permission)
            node_filesystem_files_free{device="me@host:/",fstype="fuse.sshfs",mountpoint="/denied"} missing (permission)
        "#]].assert_eq(&fixture.print(&mut sampler));
    }

    #[test]
    fn mount_points_below_another_root_are_asked_there_and_said_without_it() {
        let root = "/host";
        let fixture =
            Fixture::new().proc("self/mountinfo", "1 1 8:1 / /host rw - ext4 /dev/sda rw\n1 1 8:1 / /host/home rw - xfs /dev/sdb rw\n1 1 8:1 / /hostile rw - xfs /dev/sdc rw\n");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let asking = Arc::clone(&asked);
        let statfs = move |path: &Path| {
            asking.lock().unwrap().push(path.display().to_string());
            usage(path)
        };
        let roots = Roots { root: root.into(), ..fixture.roots() };
        let printed = fixture.print(&mut Filesystem::with(&roots, Box::new(statfs), LONG));
        let sizes: Vec<_> = printed.lines().filter(|line| line.contains("size_bytes")).collect();
        expect![[r#"
            node_filesystem_size_bytes{device="/dev/sda",fstype="ext4",mountpoint="/"} 1000
            node_filesystem_size_bytes{device="/dev/sdb",fstype="xfs",mountpoint="/home"} 1000
            node_filesystem_size_bytes{device="/dev/sdc",fstype="xfs",mountpoint="/hostile"} 1000"#]]
        .assert_eq(&sizes.join("\n"));
        asked.lock().unwrap().sort();
        assert_eq!(*asked.lock().unwrap(), ["/host/", "/host/home", "/host/hostile"]);
    }

    #[test]
    fn a_hung_mount_is_an_error_for_reason_timeout_and_recovers() {
        let fixture = Fixture::new().proc("1/mountinfo", MOUNTS);
        let hung = Arc::new((Mutex::new(true), Condvar::new()));
        let hanging = Arc::clone(&hung);
        let statfs = move |path: &Path| {
            if path.ends_with("data") {
                let (is_hung, changed) = &*hanging;
                drop(changed.wait_while(is_hung.lock().unwrap(), |is_hung| *is_hung).unwrap());
            }
            usage(path)
        };
        let mut sampler = Filesystem::with(&fixture.roots(), Box::new(statfs), PATIENCE);
        let data = |printed: String| {
            printed.lines().filter(|line| line.contains("/data")).map(|line| format!("{line}\n")).collect::<String>()
        };
        let first = data(fixture.print(&mut sampler));
        expect![[r#"
            node_filesystem_device_error{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 1
            node_filesystem_readonly{device="nas:/export one",fstype="nfs4",mountpoint="/data"} 1
            node_filesystem_size_bytes{device="nas:/export one",fstype="nfs4",mountpoint="/data"} missing (timeout)
            node_filesystem_free_bytes{device="nas:/export one",fstype="nfs4",mountpoint="/data"} missing (timeout)
            node_filesystem_avail_bytes{device="nas:/export one",fstype="nfs4",mountpoint="/data"} missing (timeout)
            node_filesystem_files{device="nas:/export one",fstype="nfs4",mountpoint="/data"} missing (timeout)
            node_filesystem_files_free{device="nas:/export one",fstype="nfs4",mountpoint="/data"} missing (timeout)
        "#]]
        .assert_eq(&first);
        assert_eq!(data(fixture.print(&mut sampler)), first);

        let (is_hung, changed) = &*hung;
        *is_hung.lock().unwrap() = false;
        changed.notify_all();
        while data(fixture.print(&mut sampler)) == first {}
    }

    #[test]
    fn no_mountinfo_at_all_is_an_error() {
        let fixture = Fixture::new();
        assert!(fixture.try_print(&mut Filesystem::new(&fixture.roots())).is_err());
    }
}

//! The kubelet's own note of which container was given which devices.
//!
//! It writes it before a container starts and reads it after a restart of its own: a file of JSON that root alone may read.
//! Since 1.20 a container's devices are grouped by NUMA node, before they were a list. A plugin that shares a GPU numbers the
//! shares behind its UUID. What is written of a device by others than NVIDIA's plugin, or of one that is not named by UUID,
//! says nothing here. A pod that has ended may stand there for a while.

use std::{fs, path::PathBuf, time::SystemTime};

use serde::Deserialize;
use serde_json::Value;

use super::{super::devices::GpuName, text};
use crate::samplers::Roots;

/// An entry has some kilobytes, most of it the plugin's answer, and a node some hundred pods.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Containers with GPUs: as many as can share one, for all GPUs.
const ENTRIES_MAX: usize = 1024;
/// Devices of one container: more than any machine has GPUs and instances of them.
const DEVICES_MAX: usize = 128;

/// GPUs that a container was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pod_uid: String,
    pub(super) container: String,
    pub(super) gpus: Vec<GpuName>,
}

/// The file, read again when it changes.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    /// The time and size of the file that the entries are from.
    version: Option<(SystemTime, u64)>,
    entries: Vec<Entry>,
}

impl Checkpoint {
    pub(super) fn new(roots: &Roots) -> Self {
        let path = roots.root.join("var/lib/kubelet/device-plugins/kubelet_internal_checkpoint");
        Self { path, version: None, entries: Vec::new() }
    }

    /// What the file says now: nothing if it cannot be read.
    pub(super) fn entries(&mut self) -> &[Entry] {
        let version = fs::metadata(&self.path).and_then(|metadata| Ok((metadata.modified()?, metadata.len()))).ok();
        if version.is_none() || version != self.version {
            self.entries = text::read(&self.path, FILE_BYTES_MAX).map(|bytes| parse(&bytes)).unwrap_or_default();
            self.version = version;
        }
        &self.entries
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    /// `null` where there are none.
    pod_device_entries: Option<Vec<Device>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Device {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: Value,
}

/// The entries of NVIDIA's devices; none if it is another kind of file.
fn parse(bytes: &[u8]) -> Vec<Entry> {
    let Ok(File { data }) = serde_json::from_slice(bytes) else { return Vec::new() };
    let devices = data.pod_device_entries.into_iter().flatten();
    devices
        .filter(|device| device.resource_name.starts_with("nvidia.com/"))
        .take(ENTRIES_MAX)
        .filter_map(Entry::of)
        .collect()
}

impl Entry {
    fn of(device: Device) -> Option<Self> {
        let lists: Vec<&Value> = match &device.device_ids {
            Value::Object(by_numa_node) => by_numa_node.values().collect(),
            list => vec![list],
        };
        let ids = lists.into_iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
        let uuid = |id: &str| GpuName::uuid(id.split("::").next().unwrap_or(id));
        let gpus = ids.take(DEVICES_MAX).filter_map(uuid).collect();
        Some(Self { pod_uid: device.pod_uid, container: text::clean(device.container_name.as_bytes())?, gpus })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{super::fixture::Fixture, *};

    const PATH: &str = "root/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint";

    fn check(entries: &[Entry], expected: &Expect) {
        let lines = entries.iter().map(|Entry { pod_uid, container, gpus }| {
            let gpus: Vec<String> = gpus.iter().map(|name| format!("{name:?}")).collect();
            format!("{pod_uid} {container}: {}\n", gpus.join(" "))
        });
        expected.assert_eq(&lines.collect::<String>());
    }

    /// A file with these devices of containers, each as resource and value.
    fn file(devices: &[(&str, &str)]) -> String {
        let entries = devices.iter().map(|(resource, ids)| {
            format!(
                r#"{{"PodUID":"uid","ContainerName":"main","ResourceName":"{resource}","DeviceIDs":{ids},"AllocResp":"Cg=="}}"#
            )
        });
        let entries = entries.collect::<Vec<_>>().join(",");
        format!(
            r#"{{"Data":{{"PodDeviceEntries":[{entries}],"RegisteredDevices":{{"nvidia.com/gpu":["GPU-0"]}}}},"Checksum":1}}"#
        )
    }

    #[test]
    fn devices_stand_by_numa_node_or_in_a_list() {
        check(
            &parse(
                file(&[
                    ("nvidia.com/gpu", r#"{"-1":["GPU-a"],"0":["GPU-b","GPU-c"]}"#),
                    ("nvidia.com/gpu", r#"["GPU-d"]"#),
                    ("nvidia.com/gpu.shared", r#"{"0":["GPU-e::3"]}"#),
                    ("nvidia.com/mig-1g.10gb", r#"{"0":["MIG-f"]}"#),
                ])
                .as_bytes(),
            ),
            &expect![[r#"
                uid main: Uuid("GPU-a") Uuid("GPU-b") Uuid("GPU-c")
                uid main: Uuid("GPU-d")
                uid main: Uuid("GPU-e")
                uid main: Uuid("MIG-f")
            "#]],
        );
    }

    #[test]
    fn what_is_not_known_says_nothing() {
        check(
            &parse(
                file(&[
                    ("rdma/hca", r#"{"0":["GPU-a"]}"#),
                    ("nvidia.com/gpu", r#"{"0":["nvidia0",7,null],"1":"GPU-a"}"#),
                    ("nvidia.com/gpu", "null"),
                ])
                .as_bytes(),
            ),
            &expect![[r#"
                uid main: 
                uid main: 
            "#]],
        );
        for odd in ["", "{}", "[]", r#"{"Data":null}"#, r#"{"Data":{"PodDeviceEntries":null}}"#, &file(&[("x", "{")])] {
            assert_eq!(parse(odd.as_bytes()), [], "{odd:?}");
        }
    }

    #[test]
    fn the_file_is_read_again_when_it_changes_and_its_loss_counts() {
        let fixture = Fixture::new();
        let mut checkpoint = Checkpoint::new(&fixture.roots());
        check(checkpoint.entries(), &expect![""]);
        fixture.write(PATH, file(&[("nvidia.com/gpu", r#"["GPU-a"]"#)]));
        let first = expect![[r#"
            uid main: Uuid("GPU-a")
        "#]];
        check(checkpoint.entries(), &first);
        check(checkpoint.entries(), &first);
        fixture.write(PATH, file(&[("nvidia.com/gpu", r#"["GPU-a","GPU-b"]"#)]));
        check(
            checkpoint.entries(),
            &expect![[r#"
                uid main: Uuid("GPU-a") Uuid("GPU-b")
            "#]],
        );
        fixture.remove(PATH);
        check(checkpoint.entries(), &expect![""]);
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read_without_a_panic(bytes: Vec<u8>, cut in 0..400_usize, ids in "[\\[\\]{}:,\"0a]{0,20}") {
            let file = file(&[("nvidia.com/gpu", r#"{"0":["GPU-a"]}"#), ("nvidia.com/gpu", &ids)]);
            let cut = file.get(..cut).unwrap_or(&file);
            for bytes in [&bytes[..], cut.as_bytes(), file.as_bytes()] {
                proptest::prop_assert!(parse(bytes).len() <= 2);
            }
        }
    }
}

//! GPUs, and the instances that they are split into, by the names that others have for them.
//!
//! Schedulers and containers name GPUs by UUID, by the driver's index, or by a number of their own. What a name means is found
//! out from what the driver has said already; where it may mean two things it means nothing.
//!
//! Pure.

use std::collections::BTreeMap;

use belfry_common::{model::Layout, wire::message::GpuIdentity};

/// `MIG-GPU-` with a UUID and two numbers has 50.
const UUID_BYTES_MAX: usize = 80;

/// How others name a GPU, or an instance of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GpuName {
    /// `GPU-…`, or `MIG-…` of an instance.
    Uuid(String),
    /// The driver's index.
    Index(u32),
    /// Slurm's number. Since 21.08 that is the place in its own list of the node's devices, instances included, which it keeps in
    /// the order of their addresses if it finds them itself, else in that of their files; before, it is the number of the file.
    Slurm(u32),
}

impl GpuName {
    /// A UUID as the driver writes them, today's and the older `MIG-GPU-UUID/GPU_INSTANCE/COMPUTE_INSTANCE`.
    pub(super) fn uuid(text: &str) -> Option<Self> {
        let is_named = text.starts_with("GPU-") || text.starts_with("MIG-");
        let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'/'));
        (is_named && is_plain && text.len() <= UUID_BYTES_MAX).then(|| Self::Uuid(text.to_owned()))
    }
}

/// A GPU, or one of its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// The GPU's index.
    pub(super) gpu: u32,
    pub(super) gpu_instance: Option<u32>,
}

#[derive(Debug)]
struct Instance {
    uuid: String,
    part: Part,
}

/// The GPUs of one driver.
#[derive(Debug, Default)]
pub(super) struct Devices {
    gpus: Vec<GpuIdentity>,
    /// By index: the number of the device's file. Only of GPUs whose facts are known.
    minors: BTreeMap<u32, u32>,
    instances: Vec<Instance>,
}

impl Devices {
    /// Takes the GPUs that the driver has. Of other GPUs than before nothing else is known yet.
    pub(super) fn identify(&mut self, gpus: &[GpuIdentity]) {
        if self.gpus != gpus {
            *self = Self { gpus: gpus.to_vec(), ..Self::default() };
        }
    }

    /// Takes what the series say that tell what GPUs are. What they leave out stays as it was.
    pub(super) fn learn(&mut self, facts: &Layout) {
        let of = |metric: &'static str| {
            facts.series.iter().filter(move |series| &*series.metric.name == metric).map(|series| {
                let labels = series.metric.label_names.iter().zip(&series.label_values);
                labels.map(|(name, value)| (&**name, &**value)).collect::<BTreeMap<_, _>>()
            })
        };
        for labels in of("gpu_info") {
            let number =
                |name, prefix| labels.get(name).and_then(|text| text.strip_prefix(prefix)?.parse::<u32>().ok());
            if let (Some(gpu), Some(minor)) = (number("gpu", ""), number("device", "nvidia")) {
                self.minors.insert(gpu, minor);
                self.instances.retain(|instance| instance.part.gpu != gpu);
            }
        }
        for labels in of("gpu_instance_info") {
            let number = |name| labels.get(name).and_then(|text| text.parse().ok());
            if let (Some(gpu), Some(id), Some(uuid)) =
                (number("gpu"), number("gpu_instance"), labels.get("instance_uuid"))
            {
                let part = Part { gpu, gpu_instance: Some(id) };
                self.instances.push(Instance { uuid: (*uuid).to_owned(), part });
            }
        }
    }

    /// What a name means.
    pub(super) fn find(&self, name: &GpuName) -> Option<Part> {
        match name {
            GpuName::Uuid(uuid) => self.with_uuid(uuid).or_else(|| self.with_old_uuid(uuid)),
            GpuName::Index(index) => self.whole(*index),
            GpuName::Slurm(number) => self.whole(*number).filter(|_| self.has_one_order()),
        }
    }

    fn with_uuid(&self, uuid: &str) -> Option<Part> {
        let gpu = self.gpus.iter().find(|gpu| gpu.uuid == uuid);
        let gpu = gpu.map(|gpu| Part { gpu: gpu.index, gpu_instance: None });
        gpu.or_else(|| self.instances.iter().find(|instance| instance.uuid == uuid).map(|instance| instance.part))
    }

    fn with_old_uuid(&self, uuid: &str) -> Option<Part> {
        let mut parts = uuid.strip_prefix("MIG-")?.split('/');
        let gpu = self.with_uuid(parts.next()?)?;
        let gpu_instance = Some(parts.next()?.parse().ok()?);
        Some(Part { gpu_instance, ..gpu })
    }

    /// A GPU that is known not to be split.
    fn whole(&self, index: u32) -> Option<Part> {
        let is_split = self.instances.iter().any(|instance| instance.part.gpu == index);
        (self.minors.contains_key(&index) && !is_split).then_some(Part { gpu: index, gpu_instance: None })
    }

    /// Whether all ways of numbering this machine's GPUs agree.
    fn has_one_order(&self) -> bool {
        self.instances.is_empty() && self.gpus.iter().all(|gpu| self.minors.get(&gpu.index) == Some(&gpu.index))
    }
}

/// Devices for tests, which cannot ask a driver.
#[cfg(test)]
pub(super) mod fixture {
    use std::sync::Arc;

    use belfry_common::model::SeriesDefinition;

    use super::*;
    use crate::samplers::declare::info;

    /// Facts of GPUs with these numbers of their files, in the order of their indices, and of instances: GPU, id and UUID.
    pub(in crate::gpu) fn facts(minors: &[u32], instances: &[(u32, u32, &str)]) -> Layout {
        let series = |name, labels: &[(&str, String)]| {
            let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
            let label_values = labels.iter().map(|(_, value)| value.as_str().into()).collect();
            Arc::new(SeriesDefinition { metric: info(name, &names, ""), label_values })
        };
        let gpus = (0..).zip(minors).map(|(index, minor): (u32, _)| {
            series("gpu_info", &[("gpu", index.to_string()), ("device", format!("nvidia{minor}"))])
        });
        let instances = instances.iter().map(|(gpu, id, uuid)| {
            let labels =
                [("gpu", gpu.to_string()), ("gpu_instance", id.to_string()), ("instance_uuid", (*uuid).into())];
            series("gpu_instance_info", &labels)
        });
        let series = gpus.chain(instances).collect();
        Layout { group: 0, sampler: "gpu_info".into(), interval_ms: 1000, series }
    }

    /// So many GPUs, `GPU-0` and so on.
    pub(in crate::gpu) fn gpus(count: u32) -> Vec<GpuIdentity> {
        (0..count).map(|index| GpuIdentity { index, uuid: format!("GPU-{index}"), pci_bus_id: String::new() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn devices(minors: &[u32], instances: &[(u32, u32, &str)]) -> Devices {
        let mut devices = Devices::default();
        devices.identify(&fixture::gpus(minors.len() as u32));
        devices.learn(&fixture::facts(minors, instances));
        devices
    }

    fn check(devices: &Devices, expected: &Expect) {
        let uuids = ["GPU-1", "GPU-9", "MIG-a", "MIG-GPU-1/7/0", "MIG-GPU-9/7/0", "MIG-GPU-1/x/0"];
        let names = uuids.iter().map(|uuid| GpuName::uuid(uuid).unwrap());
        let names = names.chain([GpuName::Index(1), GpuName::Index(9), GpuName::Slurm(1), GpuName::Slurm(9)]);
        let lines = names.map(|name| {
            let part = devices.find(&name).map(|part| {
                let instance = part.gpu_instance.map(|id| format!(" instance {id}")).unwrap_or_default();
                format!("{}{instance}", part.gpu)
            });
            format!("{name:?}: {}\n", part.unwrap_or("-".into()))
        });
        expected.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn every_name_counts_where_all_orders_agree() {
        check(
            &devices(&[0, 1], &[]),
            &expect![[r#"
                Uuid("GPU-1"): 1
                Uuid("GPU-9"): -
                Uuid("MIG-a"): -
                Uuid("MIG-GPU-1/7/0"): 1 instance 7
                Uuid("MIG-GPU-9/7/0"): -
                Uuid("MIG-GPU-1/x/0"): -
                Index(1): 1
                Index(9): -
                Slurm(1): 1
                Slurm(9): -
            "#]],
        );
    }

    #[test]
    fn slurms_numbers_mean_nothing_where_files_have_another_order_than_indices() {
        check(
            &devices(&[1, 0], &[]),
            &expect![[r#"
                Uuid("GPU-1"): 1
                Uuid("GPU-9"): -
                Uuid("MIG-a"): -
                Uuid("MIG-GPU-1/7/0"): 1 instance 7
                Uuid("MIG-GPU-9/7/0"): -
                Uuid("MIG-GPU-1/x/0"): -
                Index(1): 1
                Index(9): -
                Slurm(1): -
                Slurm(9): -
            "#]],
        );
    }

    #[test]
    fn a_number_names_no_gpu_that_is_split() {
        check(
            &devices(&[0, 1], &[(1, 5, "MIG-a")]),
            &expect![[r#"
                Uuid("GPU-1"): 1
                Uuid("GPU-9"): -
                Uuid("MIG-a"): 1 instance 5
                Uuid("MIG-GPU-1/7/0"): 1 instance 7
                Uuid("MIG-GPU-9/7/0"): -
                Uuid("MIG-GPU-1/x/0"): -
                Index(1): -
                Index(9): -
                Slurm(1): -
                Slurm(9): -
            "#]],
        );
    }

    #[test]
    fn until_the_facts_are_there_only_uuids_count() {
        let mut devices = devices(&[0, 1], &[]);
        devices.identify(&fixture::gpus(2));
        assert!(devices.find(&GpuName::Slurm(1)).is_some(), "the same GPUs again");
        devices.identify(&fixture::gpus(3));
        assert_eq!(devices.find(&GpuName::Slurm(1)), None);
        assert_eq!(devices.find(&GpuName::Index(1)), None);
        assert!(devices.find(&GpuName::Uuid("GPU-1".into())).is_some());
    }

    #[test]
    fn instances_are_those_of_the_newest_facts() {
        let mut devices = devices(&[0, 1], &[(0, 1, "MIG-a"), (1, 1, "MIG-b")]);
        // GPU 1 did not answer this time.
        devices.learn(&fixture::facts(&[0], &[(0, 2, "MIG-c")]));
        let found = ["MIG-a", "MIG-b", "MIG-c"].map(|uuid| devices.find(&GpuName::Uuid(uuid.into())).is_some());
        assert_eq!(found, [false, true, true]);
    }

    #[test]
    fn uuids_have_a_form() {
        for odd in ["", "0", "all", "GPU", "gpu-1", "GPU-a b", "GPU-ü", &format!("GPU-{}", "a".repeat(80))] {
            assert_eq!(GpuName::uuid(odd), None, "{odd:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_looked_up_without_a_panic(text in "((MIG|GPU)-)?(MIG|GPU)-[a-z0-9/-]{0,40}|.*", number: u32) {
            let devices = devices(&[0, 1], &[(1, 5, "MIG-a")]);
            let names = [GpuName::uuid(&text), Some(GpuName::Index(number)), Some(GpuName::Slurm(number))];
            for part in names.iter().flatten().filter_map(|name| devices.find(name)) {
                proptest::prop_assert!(part.gpu < 2);
            }
        }
    }
}

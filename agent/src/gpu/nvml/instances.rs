//! A GPU that is split (MIG): its instances have memory and activity of their own, and say those instead of the whole GPU.
//!
//! Memory and units belong to the GPU instance; its compute instances share them. So each is said once, under the compute
//! instance if there is only one. What only the whole has (temperature, power, clocks, errors) is said once for the GPU.

use super::{
    activity::{activity_of, memory_of},
    gpu::{Asked, Gpu},
    library::{Gpm, Instance},
    metrics::Metrics,
};
use crate::readings::Readings;

/// The instances of one GPU.
#[derive(Default)]
pub(super) struct Instances {
    all: Vec<Instance>,
    parts: Vec<Part>,
}

/// A GPU instance.
struct Part {
    gpu_instance: u32,
    /// Its labels.
    names: [String; 2],
    /// Place of one of its compute instances.
    place: usize,
    gpm: Gpm,
}

/// Finds out whether the GPU is split, and into what.
pub(super) fn discover(gpu: &mut Gpu) {
    let is_split = gpu.ask(Asked::Call("mig_mode"), |device| device.mig_enabled());
    let found = match is_split {
        Some(Ok(true)) => gpu.ask(Asked::Call("instances"), |device| device.instances()),
        // What cannot be told now stays as it was.
        Some(Err(_)) => return,
        Some(Ok(false)) | None => None,
    };
    let all = match found {
        Some(Ok(all)) => Some(all),
        Some(Err(_)) => return,
        None => None,
    };
    let before = gpu.instances.take();
    let uuids = |all: Option<&[Instance]>| all.map(|all| all.iter().map(|instance| instance.uuid.clone()).collect());
    let known: Option<Vec<String>> = uuids(before.as_ref().map(|instances| &*instances.all));
    if known != uuids(all.as_deref()) {
        gpu.forget_instances();
    }
    gpu.instances = all.map(|all| Instances::new(all, before));
}

impl Instances {
    /// Instances that were there before keep the sample that the next one is compared with.
    fn new(all: Vec<Instance>, before: Option<Self>) -> Self {
        let mut before = before.unwrap_or_default();
        let mut parts: Vec<Part> = Vec::new();
        for (place, instance) in all.iter().enumerate() {
            if let Some(part) = parts.iter_mut().find(|part| part.gpu_instance == instance.gpu_instance) {
                let [_, compute_instance] = &mut part.names;
                compute_instance.clear();
                continue;
            }
            let known = before.parts.iter_mut().find(|part| part.gpu_instance == instance.gpu_instance);
            let gpm = known.map(|part| std::mem::take(&mut part.gpm)).unwrap_or_default();
            let names = [instance.gpu_instance.to_string(), instance.compute_instance.to_string()];
            parts.push(Part { gpu_instance: instance.gpu_instance, names, place, gpm });
        }
        Self { all, parts }
    }
}

/// Says what each instance does; `false` if the GPU has none.
pub(super) fn activity(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) -> bool {
    let Some(mut instances) = gpu.instances.take() else { return false };
    for part in &mut instances.parts {
        let Some(instance) = instances.all.get(part.place) else { continue };
        let [gpu_instance, compute_instance] = &part.names;
        let names = [&**gpu_instance, &**compute_instance];
        let memory = gpu.ask(Asked::Instance("memory", part.gpu_instance), |_| instance.device.memory());
        memory_of(gpu, metrics, names, memory, out);
        if gpu.gpm.is_some() {
            let read = gpu.ask(Asked::Instance("gpm", part.gpu_instance), |device| {
                part.gpm.read(device, Some(part.gpu_instance))
            });
            if let Some(read) = read {
                activity_of(gpu, metrics, names, read, out);
            }
        }
    }
    gpu.instances = Some(instances);
    true
}

/// Says what instances there are.
pub(super) fn facts(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let Some(instances) = gpu.instances.take() else { return };
    for (place, Instance { device, uuid, gpu_instance, compute_instance }) in (0..).zip(&instances.all) {
        let Some(Ok(model)) = gpu.ask(Asked::Instance("name", place), |_| device.name()) else { continue };
        let (gpu_instance, compute_instance) = (gpu_instance.to_string(), compute_instance.to_string());
        let labels = [&*gpu.index, &gpu.uuid, &gpu_instance, &compute_instance, uuid, &model];
        out.integer(&metrics.identity.instance_info, &labels, 1);
    }
    gpu.instances = Some(instances);
}

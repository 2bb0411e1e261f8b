//! What a GPU is, and what it can be at most. Read once a minute.

use super::{
    gpu::{Asked, CLOCKS, Gpu, Series as _, within},
    instances,
    library::{Library, Threshold},
    metrics::Metrics,
};
use crate::readings::Readings;

const THRESHOLDS: [(&str, Threshold); 4] = [
    ("shutdown", Threshold::Shutdown),
    ("slowdown", Threshold::Slowdown),
    ("memory_max", Threshold::MemoryMax),
    ("gpu_max", Threshold::GpuMax),
];

/// Versions, as text for labels.
#[derive(Debug, Default)]
pub(super) struct Versions {
    driver: String,
    nvml: String,
    cuda: String,
}

impl Versions {
    pub(super) fn of(library: &Library) -> Self {
        Self {
            driver: library.driver_version().unwrap_or_default(),
            nvml: library.nvml_version().unwrap_or_default(),
            cuda: library.cuda_version().unwrap_or_default(),
        }
    }

    pub(super) fn read(&self, metrics: &Metrics, out: &mut Readings) {
        out.integer(&metrics.identity.driver_info, &["nvidia", &self.driver, &self.nvml, &self.cuda], 1);
    }
}

/// Reads one GPU.
pub(super) fn read(gpu: &mut Gpu, versions: &Versions, metrics: &Metrics, out: &mut Readings) {
    info(gpu, versions, metrics, out);
    instances::facts(gpu, metrics, out);
    for (name, threshold) in THRESHOLDS {
        let asked = Asked::Of("threshold", threshold as u32);
        if let Some(celsius) = gpu.ask(asked, |device| device.temperature_threshold(threshold)) {
            let celsius = within(celsius.map(f64::from), &(1.0..=200.0));
            gpu.scaled(out, &metrics.power.temperature_threshold, &[name], celsius, 1.0);
        }
    }
    let milliwatts = 1..=3_000_000;
    if let Some(limit) = gpu.ask(Asked::Call("power_limit_default"), |device| device.power_limit_default()) {
        gpu.count(out, &metrics.power.power_limit, &["default"], within(limit.map(u64::from), &milliwatts));
    }
    if let Some(limits) = gpu.ask(Asked::Call("power_limits"), |device| device.power_limits()) {
        gpu.count(out, &metrics.power.power_limit, &["min"], within(limits.map(|(min, _)| min.into()), &milliwatts));
        gpu.count(out, &metrics.power.power_limit, &["max"], within(limits.map(|(_, max)| max.into()), &milliwatts));
    }
    for (name, clock) in CLOCKS {
        if let Some(megahertz) = gpu.ask(Asked::Of("clock_max", clock as u32), |device| device.clock_max(clock)) {
            let megahertz = within(megahertz.map(u64::from), &(0..=10_000));
            gpu.count(out, &metrics.power.clock_max, &[name], megahertz.map(|megahertz| megahertz * 1_000_000));
        }
    }
}

/// Facts that the card does not have are empty labels, which are none.
fn info(gpu: &mut Gpu, versions: &Versions, metrics: &Metrics, out: &mut Readings) {
    let mut text = |asked, call: fn(&super::library::Device) -> _| match gpu.ask(Asked::Call(asked), call) {
        Some(Ok(text)) => text,
        Some(Err(_)) | None => String::new(),
    };
    let model = text("name", |device| device.name());
    let serial = text("serial", |device| device.serial());
    let part_number = text("part_number", |device| device.board_part_number());
    let vbios = text("vbios", |device| device.vbios_version());
    let capability = text("compute_capability", |device| device.compute_capability());
    let device = text("minor_number", |device| device.minor_number().map(|minor| format!("nvidia{minor}")));
    if gpu.is_lost() {
        // Half of the facts would be another series.
        return;
    }
    let labels = [
        &*gpu.index,
        &gpu.uuid,
        &device,
        &model,
        &gpu.pci_bus_id,
        &serial,
        &part_number,
        &vbios,
        &capability,
        &versions.driver,
        &versions.cuda,
    ];
    out.integer(&metrics.identity.info, &labels, 1);
}

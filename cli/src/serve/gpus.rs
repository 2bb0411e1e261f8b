//! The GPUs of a node as its status shows them: newest readings, health, and who uses them.

use std::collections::BTreeMap;

use belfry_common::{
    model::{SeriesDefinition, Timestamp},
    wire::message::{Inventory, InventoryProcess},
};

use super::status::{Values, label};
use crate::{
    api::{GpuProcess, GpuStatus},
    fleet::gpu_health::{Signs, judge},
    xid::{Catalogue, Class},
};

/// An inventory older than this is not shown as present.
const INVENTORY_MS: i64 = 60_000;
/// How long a fatal error counts against a GPU, unless its series end with a reboot before.
const FATAL_MS: f64 = 24.0 * 3600.0 * 1000.0;
/// States of the driver in which nothing is wrong with it.
const GOOD_STATES: [&str; 1] = ["ok"];
/// What holds clocks down because something is wrong, and not because little is asked or much is drawn.
const SLOWDOWNS: [&str; 4] = ["hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"];

/// A GPU while its readings are gathered.
#[derive(Default)]
struct Gathered {
    status: GpuStatus,
    signs: Signs,
}

/// The GPUs of a node by their index.
pub(super) fn gpus(values: &Values<'_>, inventory: Option<&Inventory>, catalogue: &Catalogue) -> Vec<GpuStatus> {
    let mut all = Gpus { values, gpus: BTreeMap::new() };
    all.readings();
    all.signs(catalogue);
    let fresh = inventory
        .filter(|inventory| values.now().millis_since(Timestamp::from_millis(inventory.time_ms)) < INVENTORY_MS);
    let mut gpus: Vec<GpuStatus> = all.gpus.into_values().map(|gpu| finish(gpu, fresh)).collect();
    gpus.sort_by_key(|gpu| (gpu.index.parse::<u32>().unwrap_or(u32::MAX), gpu.uuid.clone()));
    gpus
}

fn finish(gpu: Gathered, inventory: Option<&Inventory>) -> GpuStatus {
    let (health, causes) = judge(&gpu.signs);
    let mut status = gpu.status;
    status.state = health.as_str().to_owned();
    status.causes = causes;
    let processes = inventory.into_iter().flat_map(|inventory| &inventory.processes);
    status.processes = processes.filter(|process| process.uuid == status.uuid).map(process).collect();
    status
}

fn process(process: &InventoryProcess) -> GpuProcess {
    let InventoryProcess { holds, user, command, job, .. } = process;
    let label = |name: &str| {
        let mut labels = job.iter().flat_map(|job| &job.labels);
        labels.find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let ratio = |percent: Option<u8>| percent.map(|percent| f64::from(percent) / 100.0);
    GpuProcess {
        pid: holds.pid,
        user: user.clone(),
        command: command.clone(),
        job: label("job_id").map(|id| label("job_kind").map_or_else(|| id.clone(), |kind| format!("{kind} {id}"))),
        job_labels: job.iter().flat_map(|job| job.labels.iter().cloned()).collect(),
        memory_bytes: holds.memory_bytes.map(|bytes| bytes as f64),
        gpu_instance: holds.gpu_instance,
        utilization_ratio: ratio(holds.sm_percent),
        encoder_ratio: ratio(holds.encoder_percent),
        decoder_ratio: ratio(holds.decoder_percent),
    }
}

struct Gpus<'a> {
    values: &'a Values<'a>,
    gpus: BTreeMap<String, Gathered>,
}

impl Gpus<'_> {
    /// Calls `put` with each series of a metric, its GPU and its newest value. The GPU is one that has told what it is.
    fn each(&mut self, metric: &str, mut put: impl FnMut(&mut Gathered, &SeriesDefinition, f64)) {
        let gpus = &mut self.gpus;
        self.values.each(metric, |series, value| {
            if let Some(gpu) = label(series, "uuid").and_then(|uuid| gpus.get_mut(uuid)) {
                put(gpu, series, value);
            }
        });
    }

    fn readings(&mut self) {
        let gpus = &mut self.gpus;
        for metric in ["gpu_info", "gpu_up"] {
            self.values.each(metric, |series, _| {
                let text = |name| label(series, name).unwrap_or_default().to_owned();
                let gpu = gpus.entry(text("uuid")).or_default();
                gpu.status.index = text("gpu");
                gpu.status.uuid = text("uuid");
                if let Some(model) = label(series, "model") {
                    gpu.status.model = Some(model.to_owned());
                }
            });
        }
        self.each("gpu_up", |gpu, _, value| gpu.signs.is_up = Some(value > 0.0));
        self.each("gpu_utilization_ratio", |gpu, _, value| gpu.status.utilization_ratio = Some(value));
        // Of a GPU that is split there are its instances.
        self.each("gpu_memory_used_bytes", |gpu, _, value| *gpu.status.memory_used_bytes.get_or_insert(0.0) += value);
        self.each("gpu_memory_total_bytes", |gpu, _, value| *gpu.status.memory_total_bytes.get_or_insert(0.0) += value);
        self.each("gpu_temperature_celsius", |gpu, series, value| {
            if label(series, "sensor") == Some("gpu") {
                gpu.status.temperature_celsius = Some(value);
            }
        });
        self.each("gpu_power_watts", |gpu, _, value| gpu.status.power_watts = Some(value));
    }

    fn signs(&mut self, catalogue: &Catalogue) {
        self.driver();
        self.each("gpu_recovery_action", |gpu, series, value| {
            if value > 0.0 && label(series, "action") != Some("none") {
                gpu.signs.recovery_action = label(series, "action").map(str::to_owned);
            }
        });
        self.each("gpu_row_remap_failure", |gpu, _, value| gpu.signs.has_row_remap_failure = value > 0.0);
        self.each("gpu_row_remap_pending", |gpu, _, value| gpu.signs.has_row_remap_pending = value > 0.0);
        self.each("gpu_retired_pages_pending", |gpu, _, value| gpu.signs.has_retired_pages_pending = value > 0.0);
        self.each("gpu_ecc_errors_total", |gpu, series, value| {
            if label(series, "type") == Some("uncorrected") && label(series, "scope") == Some("volatile") {
                gpu.signs.uncorrected_errors += value;
            }
        });
        self.each("gpu_clock_event_active", |gpu, series, value| {
            if let Some(reason) = label(series, "reason").filter(|reason| value > 0.0 && SLOWDOWNS.contains(reason)) {
                gpu.signs.slowdowns.push(reason.to_owned());
            }
        });
        self.links();
        self.each("gpu_pcie_link_width", |gpu, _, value| gpu.signs.pcie_width = Some((value, value)));
        self.each("gpu_pcie_link_width_max", |gpu, _, value| {
            gpu.signs.pcie_width = gpu.signs.pcie_width.map(|(width, _)| (width, value));
        });
        self.each("gpu_fabric_state", |gpu, series, value| {
            if value > 0.0 && label(series, "state") != Some("completed") {
                gpu.signs.fabric = label(series, "state").map(str::to_owned);
            }
        });
        self.each("gpu_fabric_status", |gpu, _, value| {
            if value > 0.0 {
                gpu.signs.fabric = Some(format!("not joined (NVML error {value})"));
            }
        });
        self.each("gpu_fabric_degraded", |gpu, _, value| {
            if value > 0.0 {
                gpu.signs.fabric = Some("degraded bandwidth".into());
            }
        });
        self.xids(catalogue);
    }

    /// Not every link of a card leads somewhere: a GPU should have as many as the one of its neighbours that has most.
    fn links(&mut self) {
        let mut most = 0;
        self.each("gpu_nvlink_active", |gpu, _, value| {
            gpu.signs.links += 1;
            gpu.signs.links_up += usize::from(value > 0.0);
            most = most.max(gpu.signs.links_up);
        });
        // One beside others on a bridge may have none.
        let with_links = self.gpus.values_mut().filter(|gpu| gpu.signs.links > 0);
        with_links.for_each(|gpu| gpu.signs.links = most);
    }

    /// The driver of all of a node's GPUs.
    fn driver(&mut self) {
        let (mut stuck, mut bad) = (None, None);
        self.values.each("gpu_driver_stuck_call_info", |series, _| stuck = label(series, "call").map(str::to_owned));
        self.values.each("gpu_driver_state", |series, value| {
            let state = label(series, "state").filter(|state| value > 0.0 && !GOOD_STATES.contains(state));
            bad = bad.take().or(state.map(str::to_owned));
        });
        for gpu in self.gpus.values_mut() {
            gpu.signs.stuck_call.clone_from(&stuck);
            gpu.signs.driver_state.clone_from(&bad);
        }
    }

    fn xids(&mut self, catalogue: &Catalogue) {
        let now_ms = self.values.now().as_millis() as f64;
        self.each("gpu_xid_last_timestamp_seconds", |gpu, series, seconds| {
            let code = label(series, "xid").and_then(|code| code.parse().ok());
            let xid = code.and_then(|code| catalogue.of(code)).filter(|xid| xid.class == Class::Fatal);
            if let Some(xid) = xid.filter(|_| now_ms - seconds * 1000.0 < FATAL_MS) {
                gpu.signs.fatal_xids.push((xid.code, xid.name.clone()));
            }
        });
    }
}

//! How a GPU is: errors, links, limits and modes. Read every ten seconds, for some of these calls are dear.

use belfry_common::model::Reason;

use super::{
    activity::read_fields,
    gpu::{Asked, Gpu, Series as _, within},
    instances,
    library::{EccScope, EccType, Fabric, Field, FieldValue, Location},
    links,
    metrics::Metrics,
};
use crate::readings::Readings;

/// Fans of one GPU: cards have up to three.
const FANS_MAX: u32 = 8;

const ECC_TYPES: [(&str, EccType); 2] = [("corrected", EccType::Corrected), ("uncorrected", EccType::Uncorrected)];
const ECC_SCOPES: [(&str, EccScope); 2] = [("volatile", EccScope::Volatile), ("aggregate", EccScope::Aggregate)];
const LOCATIONS: [(&str, Location); 7] = [
    ("dram", Location::Dram),
    ("sram", Location::Sram),
    ("l1_cache", Location::L1),
    ("l2_cache", Location::L2),
    ("register_file", Location::Registers),
    ("texture", Location::Texture),
    ("cbu", Location::Cbu),
];

/// By NVML's numbers.
const RECOVERY_ACTIONS: [&str; 5] = ["none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset"];
/// NVML's numbers and the words for them; 1 is not used any more.
const COMPUTE_MODES: [(u64, &str); 3] = [(0, "default"), (2, "prohibited"), (3, "exclusive_process")];

/// Reads one GPU.
pub(super) fn read(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    instances::discover(gpu);
    if let Some(limit) = gpu.ask(Asked::Call("power_limit"), |device| device.power_limit_enforced()) {
        gpu.count(out, &metrics.power.power_limit, &["enforced"], within(limit.map(u64::from), &(0..=3_000_000)));
    }
    if let Some(bar1) = gpu.ask(Asked::Call("bar1"), |device| device.bar1_memory()) {
        gpu.count(out, &metrics.work.bar1_used, &[], bar1.map(|(used, _)| used));
        gpu.count(out, &metrics.work.bar1_total, &[], bar1.map(|(_, total)| total));
    }
    fans(gpu, metrics, out);
    pcie(gpu, metrics, out);
    links::read(gpu, metrics, out);
    fabric(gpu, metrics, out);
    ecc(gpu, metrics, out);
    pages_and_rows(gpu, metrics, out);
    modes(gpu, metrics, out);
    let unsupported = gpu.unsupported() as u64;
    gpu.count(out, &metrics.identity.unsupported, &[], Ok(unsupported));
}

fn fans(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let Some(Ok(fans)) = gpu.ask(Asked::Call("fans"), |device| device.fan_count()) else { return };
    for fan in 0..fans.min(FANS_MAX) {
        if let Some(percent) = gpu.ask(Asked::Of("fan", fan), |device| device.fan_speed(fan)) {
            // A fan can be told to run faster than its rated speed.
            let percent = within(percent.map(f64::from), &(0.0..=200.0));
            gpu.scaled(out, &metrics.power.fan_speed, &[&fan.to_string()], percent, 100.0);
        }
    }
}

fn pcie(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let (generation_max, width_max) = (gpu.limits.pcie_generation.unwrap_or(8), gpu.limits.pcie_width.unwrap_or(32));
    if let Some(generation) = gpu.ask(Asked::Call("pcie_generation"), |device| device.pcie_generation()) {
        let generation = within(generation, &(1..=generation_max));
        gpu.count(out, &metrics.links.pcie_generation, &[], generation.map(u64::from));
    }
    if let Some(width) = gpu.ask(Asked::Call("pcie_width"), |device| device.pcie_width()) {
        gpu.count(out, &metrics.links.pcie_width, &[], within(width, &(1..=width_max)).map(u64::from));
    }
    if let Some(generation) = gpu.ask(Asked::Call("pcie_generation_max"), |device| device.pcie_generation_max()) {
        gpu.count(out, &metrics.links.pcie_generation_max, &[], within(generation, &(1..=16)).map(u64::from));
    }
    if let Some(width) = gpu.ask(Asked::Call("pcie_width_max"), |device| device.pcie_width_max()) {
        gpu.count(out, &metrics.links.pcie_width_max, &[], within(width, &(1..=32)).map(u64::from));
    }
    let fields = Field::PCIE_ERRORS.map(|(_, field)| field);
    read_fields(gpu, &fields, |gpu, field, value| {
        if let Some((kind, _)) = Field::PCIE_ERRORS.iter().find(|(_, known)| *known == field) {
            gpu.count(out, &metrics.links.pcie_errors, &[kind], value.and_then(FieldValue::count));
        }
    });
}

fn fabric(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let asked = gpu.ask(Asked::Call("fabric"), |device| match device.fabric() {
        // A card without a fabric says so in its own way.
        Ok(Fabric { state: 0, .. }) => Err(Reason::Unsupported),
        other => other,
    });
    let Some(fabric) = asked else { return };
    let state = within(fabric.map(|fabric| fabric.state as usize), &(0..=Fabric::STATES.len() - 1));
    for (code, word) in Fabric::STATES.iter().enumerate() {
        gpu.flag(out, &metrics.links.fabric_state, &[word], state.map(|state| state == code));
    }
    if !fabric.is_ok_and(|fabric| fabric.is_under_way()) {
        gpu.count(out, &metrics.links.fabric_status, &[], fabric.map(|fabric| fabric.status.into()));
    }
    if let Ok(Some(is_degraded)) = fabric.map(Fabric::is_degraded) {
        gpu.flag(out, &metrics.links.fabric_degraded, &[], Ok(is_degraded));
    }
}

fn ecc(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let Some(enabled) = gpu.ask(Asked::Call("ecc_mode"), |device| device.ecc_enabled()) else { return };
    gpu.flag(out, &metrics.errors.ecc_enabled, &[], enabled);
    if enabled == Ok(false) {
        return;
    }
    let mut place = 0;
    for (kind_name, kind) in ECC_TYPES {
        for (scope_name, scope) in ECC_SCOPES {
            for (location_name, location) in LOCATIONS {
                let errors = gpu.ask(Asked::Of("ecc", place), |device| device.ecc_errors(kind, scope, location));
                place += 1;
                if let Some(errors) = errors {
                    gpu.count(out, &metrics.errors.ecc_errors, &[kind_name, scope_name, location_name], errors);
                }
            }
        }
    }
}

fn pages_and_rows(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    for (cause, is_double_bit) in [("multiple_single_bit", false), ("double_bit", true)] {
        let asked = Asked::Of("retired_pages", u32::from(is_double_bit));
        if let Some(pages) = gpu.ask(asked, |device| device.retired_pages(is_double_bit)) {
            gpu.count(out, &metrics.errors.retired_pages, &[cause], pages.map(|pages| pages as u64));
        }
    }
    if let Some(pending) = gpu.ask(Asked::Call("retired_pages_pending"), |device| device.retired_pages_pending()) {
        gpu.flag(out, &metrics.errors.retired_pages_pending, &[], pending);
    }
    let fields = [
        Field::ROWS_CORRECTED,
        Field::ROWS_UNCORRECTED,
        Field::ROWS_PENDING,
        Field::ROWS_FAILURE,
        Field::RECOVERY_ACTION,
    ];
    read_fields(gpu, &fields, |gpu, field, value| {
        let count = value.and_then(FieldValue::count);
        let flag = count.map(|count| count != 0);
        match field {
            Field::ROWS_CORRECTED => gpu.count(out, &metrics.errors.remapped_rows, &["corrected"], count),
            Field::ROWS_UNCORRECTED => gpu.count(out, &metrics.errors.remapped_rows, &["uncorrected"], count),
            Field::ROWS_PENDING => gpu.flag(out, &metrics.errors.row_remap_pending, &[], flag),
            Field::ROWS_FAILURE => gpu.flag(out, &metrics.errors.row_remap_failure, &[], flag),
            _ => {
                let action = within(count, &(0..=RECOVERY_ACTIONS.len() as u64 - 1));
                for (code, word) in (0..).zip(RECOVERY_ACTIONS) {
                    gpu.flag(out, &metrics.errors.recovery_action, &[word], action.map(|action| action == code));
                }
            }
        }
    });
}

fn modes(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    if let Some(enabled) = gpu.ask(Asked::Call("mig_mode"), |device| device.mig_enabled()) {
        gpu.flag(out, &metrics.modes.mig_enabled, &[], enabled);
    }
    if let Some(mode) = gpu.ask(Asked::Call("persistence_mode"), |device| device.persistence_mode()) {
        gpu.flag(out, &metrics.modes.persistence_mode, &[], mode);
    }
    if let Some(mode) = gpu.ask(Asked::Call("compute_mode"), |device| device.compute_mode()) {
        for (code, word) in COMPUTE_MODES {
            gpu.flag(out, &metrics.modes.compute_mode, &[word], mode.map(|mode| u64::from(mode) == code));
        }
    }
}

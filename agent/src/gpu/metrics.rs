//! Metrics of a GPU by subject, under the field's names. What two makers' cards have in common is one metric.

use std::sync::Arc;

use belfry_common::model::{Kind, Metric, Resolution};

use crate::samplers::declare::{gauge, info, metric};

const GPU: [&str; 2] = ["gpu", "uuid"];
/// A GPU, or an instance of it.
pub(super) const INSTANCE: [&str; 4] = ["gpu", "uuid", "gpu_instance", "compute_instance"];

/// Shares come in whole percents, or as floats of them.
pub(super) const PERCENT: Resolution = Resolution::Decimal(4);

/// What a GPU is, and whether it is there.
pub(super) struct Identity {
    pub(super) up: Arc<Metric>,
    pub(super) unsupported: Arc<Metric>,
    pub(super) info: Arc<Metric>,
    pub(super) driver_info: Arc<Metric>,
    pub(super) instance_info: Arc<Metric>,
}

impl Identity {
    pub(super) fn new() -> Self {
        Self {
            up: gpu_gauge("up", &[], "1 while the GPU answers, 0 when it is lost or needs a reset."),
            unsupported: gpu_gauge("readings_unsupported", &[], "Readings that the GPU or its driver does not offer."),
            info: info(
                "gpu_info",
                &[
                    "gpu",
                    "uuid",
                    "device",
                    "model",
                    "pci_bus_id",
                    "serial",
                    "board_part_number",
                    "vbios_version",
                    "compute_capability",
                    "driver_version",
                    "cuda_version",
                ],
                "What the GPU is.",
            ),
            driver_info: info(
                "gpu_driver_info",
                &["driver", "driver_version", "nvml_version", "cuda_version"],
                "Versions of the driver.",
            ),
            instance_info: info(
                "gpu_instance_info",
                &["gpu", "uuid", "gpu_instance", "compute_instance", "instance_uuid", "model"],
                "A MIG instance of the GPU.",
            ),
        }
    }
}

/// What it does.
pub(super) struct Work {
    pub(super) utilization: Arc<Metric>,
    pub(super) memory_copy: Arc<Metric>,
    pub(super) encoder: Arc<Metric>,
    pub(super) decoder: Arc<Metric>,
    pub(super) jpeg: Arc<Metric>,
    pub(super) ofa: Arc<Metric>,
    pub(super) memory_used: Arc<Metric>,
    pub(super) memory_free: Arc<Metric>,
    pub(super) memory_reserved: Arc<Metric>,
    pub(super) memory_total: Arc<Metric>,
    pub(super) bar1_used: Arc<Metric>,
    pub(super) bar1_total: Arc<Metric>,
}

impl Work {
    pub(super) fn new() -> Self {
        Self {
            utilization: gpu_ratio("utilization", "Share of the time in which a kernel ran."),
            memory_copy: gpu_ratio("memory_copy_utilization", "Share of the time in which device memory was moved."),
            encoder: gpu_ratio("encoder_utilization", "Share of the video encoders' time in use."),
            decoder: gpu_ratio("decoder_utilization", "Share of the video decoders' time in use."),
            jpeg: gpu_ratio("jpeg_utilization", "Share of the JPEG engines' time in use."),
            ofa: gpu_ratio("ofa_utilization", "Share of the optical flow engine's time in use."),
            memory_used: gauge("gpu_memory_used_bytes", &INSTANCE, "Device memory in use."),
            memory_free: gauge("gpu_memory_free_bytes", &INSTANCE, "Device memory that can be had."),
            memory_reserved: gauge(
                "gpu_memory_reserved_bytes",
                &INSTANCE,
                "Device memory that the driver keeps to itself.",
            ),
            memory_total: gauge("gpu_memory_total_bytes", &INSTANCE, "Device memory in all."),
            bar1_used: gpu_gauge("bar1_memory_used_bytes", &[], "Window of the host into device memory, in use."),
            bar1_total: gpu_gauge("bar1_memory_total_bytes", &[], "Window of the host into device memory, in all."),
        }
    }
}

/// Heat, power and clocks.
pub(super) struct Power {
    pub(super) temperature: Arc<Metric>,
    pub(super) temperature_margin: Arc<Metric>,
    pub(super) temperature_threshold: Arc<Metric>,
    pub(super) power: Arc<Metric>,
    pub(super) power_instant: Arc<Metric>,
    pub(super) power_average: Arc<Metric>,
    pub(super) power_limit: Arc<Metric>,
    pub(super) energy: Arc<Metric>,
    pub(super) clock: Arc<Metric>,
    pub(super) clock_max: Arc<Metric>,
    pub(super) clock_event: Arc<Metric>,
    pub(super) clock_event_seconds: Arc<Metric>,
    pub(super) performance_state: Arc<Metric>,
    pub(super) fan_speed: Arc<Metric>,
}

impl Power {
    pub(super) fn new() -> Self {
        Self {
            temperature: gpu_gauge("temperature_celsius", &["sensor"], "Temperature."),
            temperature_margin: gpu_gauge("temperature_margin_celsius", &[], "How far the GPU is from its slowdown."),
            temperature_threshold: gpu_gauge(
                "temperature_threshold_celsius",
                &["threshold"],
                "Temperatures at which the GPU slows down or shuts down.",
            ),
            power: gpu_milli("power_watts", &[], "Power drawn, as the maker's own tool shows it."),
            power_instant: gpu_milli("power_instant_watts", &[], "Power drawn at this moment."),
            power_average: gpu_milli("power_average_watts", &[], "Power drawn, averaged over a second."),
            power_limit: gpu_milli(
                "power_limit_watts",
                &["limit"],
                "Limits of power: in force, by default, and what can be set.",
            ),
            energy: gpu_metric(
                "energy_joules_total",
                Kind::Counter,
                Resolution::MILLI,
                &[],
                "Energy used since the driver was loaded.",
            ),
            clock: gpu_gauge("clock_hertz", &["clock"], "Clocks."),
            clock_max: gpu_gauge("clock_max_hertz", &["clock"], "What clocks can be at most."),
            clock_event: gpu_gauge("clock_event_active", &["reason"], "Whether this holds clocks down."),
            clock_event_seconds: gpu_metric(
                "clock_event_seconds_total",
                Kind::Counter,
                Resolution::NANO,
                &["reason"],
                "Time that this held clocks down.",
            ),
            performance_state: gpu_gauge(
                "performance_state",
                &[],
                "Performance state: 0 is the fastest, 15 the slowest.",
            ),
            fan_speed: gpu_metric(
                "fan_speed_ratio",
                Kind::Gauge,
                PERCENT,
                &["fan"],
                "Speed of a fan as a share of its most.",
            ),
        }
    }
}

/// How it is connected.
pub(super) struct Links {
    pub(super) pcie_generation: Arc<Metric>,
    pub(super) pcie_generation_max: Arc<Metric>,
    pub(super) pcie_width: Arc<Metric>,
    pub(super) pcie_width_max: Arc<Metric>,
    pub(super) pcie_replays: Arc<Metric>,
    pub(super) pcie_transmit: Arc<Metric>,
    pub(super) pcie_receive: Arc<Metric>,
    pub(super) pcie_errors: Arc<Metric>,
    pub(super) link_active: Arc<Metric>,
    pub(super) link_transmit: Arc<Metric>,
    pub(super) link_receive: Arc<Metric>,
    pub(super) link_errors: Arc<Metric>,
    pub(super) fabric_state: Arc<Metric>,
    pub(super) fabric_status: Arc<Metric>,
    pub(super) fabric_degraded: Arc<Metric>,
}

impl Links {
    pub(super) fn new() -> Self {
        Self {
            pcie_generation: gpu_gauge("pcie_link_generation", &[], "Generation at which the PCI Express link runs."),
            pcie_generation_max: gpu_gauge("pcie_link_generation_max", &[], "Generation that GPU and slot can reach."),
            pcie_width: gpu_gauge("pcie_link_width", &[], "Lanes that the PCI Express link uses."),
            pcie_width_max: gpu_gauge("pcie_link_width_max", &[], "Lanes that GPU and slot have."),
            pcie_replays: gpu_counter("pcie_replays_total", &[], "Packets sent again over PCI Express."),
            pcie_transmit: gpu_counter("pcie_transmit_bytes_total", &[], "Bytes sent over PCI Express."),
            pcie_receive: gpu_counter("pcie_receive_bytes_total", &[], "Bytes received over PCI Express."),
            pcie_errors: gpu_counter("pcie_errors_total", &["kind"], "Errors of the PCI Express link."),
            link_active: gpu_gauge("nvlink_active", &["link"], "Whether the NVLink is up."),
            link_transmit: gpu_counter("nvlink_transmit_bytes_total", &["link"], "User data sent over the NVLink."),
            link_receive: gpu_counter("nvlink_receive_bytes_total", &["link"], "User data received over the NVLink."),
            link_errors: gpu_counter(
                "nvlink_errors_total",
                &["link", "kind"],
                "Errors of the NVLink; without a link, of all together.",
            ),
            fabric_state: gpu_gauge("fabric_state", &["state"], "Registration with the NVLink fabric."),
            fabric_status: gpu_gauge(
                "fabric_status",
                &[],
                "What became of the registration: 0 if it is good, else NVML's error.",
            ),
            fabric_degraded: gpu_gauge(
                "fabric_degraded",
                &[],
                "Whether the fabric runs with less bandwidth than it should.",
            ),
        }
    }
}

/// What is wrong with it.
pub(super) struct Errors {
    pub(super) ecc_enabled: Arc<Metric>,
    pub(super) ecc_errors: Arc<Metric>,
    pub(super) retired_pages: Arc<Metric>,
    pub(super) retired_pages_pending: Arc<Metric>,
    pub(super) remapped_rows: Arc<Metric>,
    pub(super) row_remap_pending: Arc<Metric>,
    pub(super) row_remap_failure: Arc<Metric>,
    pub(super) recovery_action: Arc<Metric>,
}

impl Errors {
    pub(super) fn new() -> Self {
        Self {
            ecc_enabled: gpu_gauge("ecc_enabled", &[], "Whether memory is protected by ECC."),
            ecc_errors: gpu_counter(
                "ecc_errors_total",
                &["type", "scope", "location"],
                "Memory errors: since the driver was loaded (volatile), in the card's life (aggregate).",
            ),
            retired_pages: gpu_counter("retired_pages_total", &["cause"], "Memory pages taken out of use."),
            retired_pages_pending: gpu_gauge(
                "retired_pages_pending",
                &[],
                "Whether pages wait for a reboot to be retired.",
            ),
            remapped_rows: gpu_counter("remapped_rows_total", &["type"], "Memory rows replaced by spare ones."),
            row_remap_pending: gpu_gauge("row_remap_pending", &[], "Whether rows wait for a reset to be replaced."),
            row_remap_failure: gpu_gauge("row_remap_failure", &[], "Whether a row could not be replaced."),
            recovery_action: gpu_gauge(
                "recovery_action",
                &["action"],
                "What the driver says is needed for the GPU to work again.",
            ),
        }
    }
}

/// How it is set up.
pub(super) struct Modes {
    pub(super) mig_enabled: Arc<Metric>,
    pub(super) persistence_mode: Arc<Metric>,
    pub(super) compute_mode: Arc<Metric>,
}

impl Modes {
    pub(super) fn new() -> Self {
        Self {
            mig_enabled: gpu_gauge("mig_enabled", &[], "Whether the GPU is split into instances."),
            persistence_mode: gpu_gauge("persistence_mode", &[], "Whether the driver stays loaded without a user."),
            compute_mode: gpu_gauge("compute_mode", &["mode"], "Who may compute on the GPU."),
        }
    }
}

/// What every GPU has: `gpu_` before the name, `gpu` and `uuid` before the labels.
fn gpu_metric(name: &str, kind: Kind, resolution: Resolution, labels: &[&str], help: &str) -> Arc<Metric> {
    let labels: Vec<&str> = GPU.iter().chain(labels).copied().collect();
    metric(&format!("gpu_{name}"), kind, resolution, &labels, help)
}

fn gpu_gauge(name: &str, labels: &[&str], help: &str) -> Arc<Metric> {
    gpu_metric(name, Kind::Gauge, Resolution::ONE, labels, help)
}

fn gpu_counter(name: &str, labels: &[&str], help: &str) -> Arc<Metric> {
    gpu_metric(name, Kind::Counter, Resolution::ONE, labels, help)
}

fn gpu_milli(name: &str, labels: &[&str], help: &str) -> Arc<Metric> {
    gpu_metric(name, Kind::Gauge, Resolution::MILLI, labels, help)
}

fn gpu_ratio(name: &str, help: &str) -> Arc<Metric> {
    gpu_metric(&format!("{name}_ratio"), Kind::Gauge, PERCENT, &[], help)
}

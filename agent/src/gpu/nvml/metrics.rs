//! The metrics of NVIDIA's GPUs: those that other makers' may have too, and the units within.

use std::sync::Arc;

use belfry_common::model::{Kind, Metric};

use super::library::Activity;
use crate::{
    gpu::metrics::{Errors, INSTANCE, Identity, Links, Modes, PERCENT, Power, Work},
    samplers::declare::metric,
};

/// All metrics, by subject.
pub(super) struct Metrics {
    pub(super) identity: Identity,
    pub(super) work: Work,
    /// By [`Activity`].
    pub(super) activity: [Arc<Metric>; Activity::ALL.len()],
    pub(super) power: Power,
    pub(super) links: Links,
    pub(super) errors: Errors,
    pub(super) modes: Modes,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            identity: Identity::new(),
            work: Work::new(),
            activity: Activity::ALL.map(activity),
            power: Power::new(),
            links: Links::new(),
            errors: Errors::new(),
            modes: Modes::new(),
        }
    }
}

fn activity(activity: Activity) -> Arc<Metric> {
    let (name, help) = match activity {
        Activity::GraphicsEngine => {
            ("graphics_engine_active", "Share of the time in which any engine of graphics or compute was in use.")
        }
        Activity::Sm => ("sm_active", "Share of the time in which a multiprocessor had a warp, averaged over all."),
        Activity::SmOccupancy => ("sm_occupancy", "Warps on the multiprocessors as a share of what fits."),
        Activity::Tensor => ("tensor_active", "Share of the time in which tensor cores were in use."),
        Activity::Dram => ("dram_active", "Share of the memory's bandwidth in use."),
        Activity::Fp64 => ("fp64_active", "Share of the time in which units for 64-bit floats were in use."),
        Activity::Fp32 => ("fp32_active", "Share of the time in which units for 32-bit floats were in use."),
        Activity::Fp16 => ("fp16_active", "Share of the time in which units for 16-bit floats were in use."),
        Activity::Integer => ("integer_active", "Share of the time in which units for integers were in use."),
    };
    metric(&format!("gpu_{name}_ratio"), Kind::Gauge, PERCENT, &INSTANCE, help)
}

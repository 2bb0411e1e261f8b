//! What the units of a GPU do, on Hopper and later: the difference of two samples of the driver's own counters.
//!
//! It takes no lock of the profiler: a user's own profiling goes on.

use belfry_common::model::Reason;
use nvml_wrapper::{
    enums::gpm::GpmMetricId,
    gpm::{GpmSample, gpm_metrics_get},
};

use super::{Device, reason};

/// A share of time or of the possible that a unit is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(in super::super) enum Activity {
    GraphicsEngine,
    Sm,
    SmOccupancy,
    Tensor,
    Dram,
    Fp64,
    Fp32,
    Fp16,
    Integer,
}

impl Activity {
    pub(in super::super) const ALL: [Self; 9] = [
        Self::GraphicsEngine,
        Self::Sm,
        Self::SmOccupancy,
        Self::Tensor,
        Self::Dram,
        Self::Fp64,
        Self::Fp32,
        Self::Fp16,
        Self::Integer,
    ];

    fn metric(self) -> GpmMetricId {
        match self {
            Self::GraphicsEngine => GpmMetricId::GraphicsUtil,
            Self::Sm => GpmMetricId::SmUtil,
            Self::SmOccupancy => GpmMetricId::SmOccupancy,
            Self::Tensor => GpmMetricId::AnyTensorUtil,
            Self::Dram => GpmMetricId::DramBwUtil,
            Self::Fp64 => GpmMetricId::Fp64Util,
            Self::Fp32 => GpmMetricId::Fp32Util,
            Self::Fp16 => GpmMetricId::Fp16Util,
            Self::Integer => GpmMetricId::IntegerUtil,
        }
    }
}

/// The sample before this one, of a GPU or of a MIG instance.
#[derive(Debug, Default)]
pub(in super::super) struct Gpm {
    before: Option<GpmSample<'static>>,
}

impl Gpm {
    /// Each activity since the last call, in percent and in the order of [`Activity::ALL`]; `None` at the first one.
    pub(in super::super) fn read(
        &mut self,
        device: &Device,
        gpu_instance: Option<u32>,
    ) -> Result<Option<Vec<Result<f64, Reason>>>, Reason> {
        let sample = match gpu_instance {
            None => device.call("nvmlGpmSampleGet", |handle| handle.gpm_sample()),
            Some(instance) => device.call("nvmlGpmMigSampleGet", |handle| handle.gpm_mig_sample(instance)),
        };
        // Between samples with one missing between them lies more than one interval.
        let sample = sample.inspect_err(|_| self.before = None)?;
        let Some(before) = self.before.replace(sample) else { return Ok(None) };
        let Some(now) = &self.before else { return Ok(None) };
        let metrics = Activity::ALL.map(Activity::metric);
        let values =
            device.call("nvmlGpmMetricsGet", |handle| gpm_metrics_get(handle.nvml(), &before, now, &metrics))?;
        let value = |result: Result<nvml_wrapper::struct_wrappers::gpm::GpmMetricResult, _>| {
            result.map(|metric| metric.value).map_err(|error| reason(&error))
        };
        Ok(Some(values.into_iter().map(value).collect()))
    }
}

impl Device {
    pub(in super::super) fn has_gpm(&self) -> Result<bool, Reason> {
        self.call("nvmlGpmQueryDeviceSupport", |handle| handle.gpm_support())
    }
}

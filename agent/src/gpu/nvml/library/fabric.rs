//! How a GPU stands in the NVLink fabric of its node or rack.

use belfry_common::model::Reason;
use nvml_wrapper::error::nvml_sym;
use nvml_wrapper_sys::bindings::{self, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfoV_t};

use super::{Device, device::struct_version};

/// A GPU's registration with the fabric manager.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Fabric {
    /// A place in [`Fabric::STATES`].
    pub(in super::super) state: u32,
    /// What became of the registration: NVML's code, 0 if it is good. Says nothing before the state is `completed`.
    pub(in super::super) status: u32,
    /// Two bits for each thing that can be wrong; see nvml.h.
    pub(in super::super) health_mask: u32,
}

impl Fabric {
    pub(in super::super) const STATES: [&'static str; 4] = ["not_supported", "not_started", "in_progress", "completed"];

    /// Whether the registration has not come to an end, good or bad.
    pub(in super::super) fn is_under_way(self) -> bool {
        self.state != bindings::NVML_GPU_FABRIC_STATE_COMPLETED
    }

    /// Whether links run with less bandwidth than they should; `None` where the driver does not say.
    pub(in super::super) fn is_degraded(self) -> Option<bool> {
        match self.health_mask >> bindings::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_DEGRADED_BW & 3 {
            bindings::NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_TRUE => Some(true),
            bindings::NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_FALSE => Some(false),
            _ => None,
        }
    }
}

impl Device {
    #[expect(unsafe_code, reason = "the bindings have it only as it is in C")]
    pub(in super::super) fn fabric(&self) -> Result<Fabric, Reason> {
        // The second version is the first with a health mask, and a beginning of the third, which older drivers do not know.
        let mut info = nvmlGpuFabricInfoV_t {
            version: struct_version::<nvmlGpuFabricInfo_v2_t>(2),
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: 0,
            healthMask: 0,
            healthSummary: 0,
        };
        self.raw("nvmlDeviceGetGpuFabricInfoV", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetGpuFabricInfoV.as_ref())?;
            // SAFETY: it fills the structure of the version that is said, which is no longer than this one.
            Ok(unsafe { call(device, &raw mut info) })
        })?;
        Ok(Fabric { state: info.state.into(), status: info.status, health_mask: info.healthMask })
    }
}

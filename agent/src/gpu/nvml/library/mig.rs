//! The instances that a GPU is split into.

use std::rc::Rc;

use belfry_common::model::Reason;
use nvml_wrapper::error::nvml_sym;

use super::Device;

/// What NVML says where there is no instance.
pub(in super::super) const NO_INSTANCE: u32 = u32::MAX;

/// One compute instance of a GPU instance, with a handle of its own.
pub(in super::super) struct Instance {
    pub(in super::super) device: Device,
    pub(in super::super) uuid: String,
    pub(in super::super) gpu_instance: u32,
    pub(in super::super) compute_instance: u32,
}

impl Device {
    /// The instances that there are at present.
    pub(in super::super) fn instances(&self) -> Result<Vec<Instance>, Reason> {
        let places = self.call("nvmlDeviceGetMaxMigDeviceCount", |device| device.mig_device_count())?;
        let mut instances = Vec::new();
        for place in 0..places.min(64) {
            match self.call("nvmlDeviceGetMigDeviceHandleByIndex", |device| device.mig_device_by_index(place)) {
                Ok(handle) => {
                    let device = Self::new(self.index(), handle, Rc::clone(self.board()));
                    match device.into_instance() {
                        Ok(instance) => instances.push(instance),
                        // It went between the two calls.
                        Err(Reason::Unsupported) => {}
                        Err(reason) => return Err(reason),
                    }
                }
                // Places without an instance.
                Err(Reason::Unsupported) => {}
                Err(reason) => return Err(reason),
            }
        }
        Ok(instances)
    }

    fn into_instance(self) -> Result<Instance, Reason> {
        let (gpu_instance, compute_instance) = self.instance_ids()?;
        Ok(Instance { uuid: self.uuid()?, device: self, gpu_instance, compute_instance })
    }

    #[expect(unsafe_code, reason = "the bindings have it only as it is in C")]
    fn instance_ids(&self) -> Result<(u32, u32), Reason> {
        let (mut gpu_instance, mut compute_instance) = (NO_INSTANCE, NO_INSTANCE);
        self.raw("nvmlDeviceGetGpuInstanceId", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetGpuInstanceId.as_ref())?;
            // SAFETY: the output is of the type that it writes.
            Ok(unsafe { call(device, &raw mut gpu_instance) })
        })?;
        self.raw("nvmlDeviceGetComputeInstanceId", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetComputeInstanceId.as_ref())?;
            // SAFETY: as above.
            Ok(unsafe { call(device, &raw mut compute_instance) })
        })?;
        Ok((gpu_instance, compute_instance))
    }
}

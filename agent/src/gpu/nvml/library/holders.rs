//! The processes that hold a GPU, and how much of it each uses.

use belfry_common::model::Reason;
use nvml_wrapper::{enums::device::UsedGpuMemory, error::NvmlError, struct_wrappers::device::ProcessInfo};

use super::{Device, Holder};

/// How much of a GPU a process used lately, in percent.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Busy {
    pub(in super::super) pid: u32,
    /// When, by the driver's clock, in microseconds.
    pub(in super::super) time_us: u64,
    pub(in super::super) sm: u32,
    pub(in super::super) encoder: u32,
    pub(in super::super) decoder: u32,
}

impl Device {
    /// Those that compute, alone or through MPS, and those that draw; one that does both comes twice.
    pub(in super::super) fn holders(&self) -> Result<Vec<Holder>, Reason> {
        let compute = self.call("nvmlDeviceGetComputeRunningProcesses_v3", |device| device.running_compute_processes());
        let mut holders: Vec<Holder> = compute?.iter().map(holder).collect();
        // Some cards do not know these kinds.
        let graphics =
            self.call("nvmlDeviceGetGraphicsRunningProcesses_v3", |device| device.running_graphics_processes());
        let mps =
            self.call("nvmlDeviceGetMPSComputeRunningProcesses_v3", |device| device.mps_running_compute_processes());
        holders.extend(graphics.unwrap_or_default().iter().chain(&mps.unwrap_or_default()).map(holder));
        Ok(holders)
    }

    /// Samples of each process since this time of the driver's clock; the driver keeps some seconds of them.
    pub(in super::super) fn busy_since(&self, time_us: u64) -> Result<Vec<Busy>, Reason> {
        let samples = self.call("nvmlDeviceGetProcessUtilization", |device| {
            match device.process_utilization_stats(time_us) {
                // No process ran.
                Err(NvmlError::NotFound) => Ok(Vec::new()),
                other => other,
            }
        })?;
        let busy = |sample: &nvml_wrapper::struct_wrappers::device::ProcessUtilizationSample| Busy {
            pid: sample.pid,
            time_us: sample.timestamp,
            sm: sample.sm_util,
            encoder: sample.enc_util,
            decoder: sample.dec_util,
        };
        Ok(samples.iter().map(busy).collect())
    }
}

fn holder(process: &ProcessInfo) -> Holder {
    let memory = match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    Holder {
        pid: process.pid,
        memory,
        gpu_instance: process.gpu_instance_id,
        compute_instance: process.compute_instance_id,
    }
}

//! What runs on a card.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    INVALID_GPU_INSTANCE_ID, nvmlDevice_t, nvmlProcessInfo_t, nvmlProcessUtilizationSample_t, nvmlReturn_t,
};

use crate::{
    abi,
    card::Card,
    codes::Code,
    dispatch,
    scenario::{Process, ProcessKind},
};

/// How often the driver samples what processes do.
const SAMPLE_INTERVAL_US: u64 = 166_667;

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    running("nvmlDeviceGetComputeRunningProcesses_v3", device, count, out, ProcessKind::Compute)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    running("nvmlDeviceGetGraphicsRunningProcesses_v3", device, count, out, ProcessKind::Graphics)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    running("nvmlDeviceGetMPSComputeRunningProcesses_v3", device, count, out, ProcessKind::Mps)
}

fn running(
    name: &str,
    device: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
    kind: ProcessKind,
) -> nvmlReturn_t {
    dispatch::with(name, device, |_, card| {
        let processes: Vec<nvmlProcessInfo_t> = card.processes(kind).map(info).collect();
        dispatch::fill_array(&processes, count, out)
    })
}

fn info(process: &Process) -> nvmlProcessInfo_t {
    nvmlProcessInfo_t {
        pid: process.pid,
        usedGpuMemory: process.memory,
        gpuInstanceId: process.gpu_instance.unwrap_or(INVALID_GPU_INSTANCE_ID),
        computeInstanceId: process.compute_instance.unwrap_or(INVALID_GPU_INSTANCE_ID),
    }
}

/// One sample of each process that did something, if there is one that the caller has not seen.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    out: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last_seen_us: c_ulonglong,
) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceGetProcessUtilization", device, |_, card| {
        if card.instance.is_some() || !card.model.has_process_utilization {
            return Err(Code::NotSupported);
        }
        let sampled_at_us = card.moment.unix_us / SAMPLE_INTERVAL_US * SAMPLE_INTERVAL_US;
        let samples = if sampled_at_us > last_seen_us { samples(card, sampled_at_us) } else { Vec::new() };
        if samples.is_empty() {
            abi::put(count, 0)?;
            return Err(Code::NotFound);
        }
        if out.is_null() {
            abi::put(count, u32::try_from(samples.len()).map_err(|_| Code::Unknown)?)?;
            return Err(Code::InsufficientSize);
        }
        dispatch::fill_array(&samples, count, out)
    })
}

fn samples(card: &Card<'_>, sampled_at_us: u64) -> Vec<nvmlProcessUtilizationSample_t> {
    let is_busy = |process: &&Process| process.sm + process.mem + process.enc + process.dec > 0;
    let sample = |process: &Process| nvmlProcessUtilizationSample_t {
        pid: process.pid,
        timeStamp: sampled_at_us,
        smUtil: process.sm,
        memUtil: process.mem,
        encUtil: process.enc,
        decUtil: process.dec,
    };
    card.gpu.processes.iter().filter(is_busy).map(sample).collect()
}

//! How busy a card is, and its memory.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlBAR1Memory_t, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlReturn_t, nvmlUtilization_t,
};

use crate::{abi, dispatch, readings::Reading};

/// Over how long an engine's utilisation is taken.
const SAMPLING_PERIOD_US: u32 = 167_000;

const MEMORY_V2: c_uint = abi::struct_version::<nvmlMemory_v2_t>(2);

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    out: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetUtilizationRates", device, out, |card| {
        let (gpu, memory) = (card.u32(Reading::UtilizationGpu)?, card.u32(Reading::UtilizationMemory)?);
        Ok(nvmlUtilization_t { gpu, memory })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: nvmlDevice_t,
    utilization: *mut c_uint,
    period_us: *mut c_uint,
) -> nvmlReturn_t {
    let name = "nvmlDeviceGetEncoderUtilization";
    engine(name, device, [utilization, period_us], Reading::UtilizationEncoder)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: nvmlDevice_t,
    utilization: *mut c_uint,
    period_us: *mut c_uint,
) -> nvmlReturn_t {
    let name = "nvmlDeviceGetDecoderUtilization";
    engine(name, device, [utilization, period_us], Reading::UtilizationDecoder)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetJpgUtilization(
    device: nvmlDevice_t,
    utilization: *mut c_uint,
    period_us: *mut c_uint,
) -> nvmlReturn_t {
    engine("nvmlDeviceGetJpgUtilization", device, [utilization, period_us], Reading::UtilizationJpeg)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetOfaUtilization(
    device: nvmlDevice_t,
    utilization: *mut c_uint,
    period_us: *mut c_uint,
) -> nvmlReturn_t {
    engine("nvmlDeviceGetOfaUtilization", device, [utilization, period_us], Reading::UtilizationOfa)
}

fn engine(name: &str, device: nvmlDevice_t, out: [*mut c_uint; 2], reading: Reading) -> nvmlReturn_t {
    dispatch::card(name, device, out, |card| Ok([card.u32(reading)?, SAMPLING_PERIOD_US]))
}

/// The first version has no `reserved`: it counts as used.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, out: *mut nvmlMemory_t) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetMemoryInfo", device, out, |card| {
        let memory = card.memory()?;
        let used = memory.used.saturating_add(memory.reserved);
        Ok(nvmlMemory_t { total: memory.total, free: memory.free, used })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: *mut nvmlMemory_v2_t) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetMemoryInfo_v2", device, out, |card| {
        abi::check_version(out, MEMORY_V2)?;
        let memory = card.memory()?;
        Ok(nvmlMemory_v2_t {
            version: MEMORY_V2,
            total: memory.total,
            reserved: memory.reserved,
            free: memory.free,
            used: memory.used,
        })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetBAR1MemoryInfo(device: nvmlDevice_t, out: *mut nvmlBAR1Memory_t) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetBAR1MemoryInfo", device, out, |card| {
        let memory = card.bar1()?;
        Ok(nvmlBAR1Memory_t { bar1Total: memory.total, bar1Free: memory.free, bar1Used: memory.used })
    })
}

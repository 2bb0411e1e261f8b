//! The PCIe link.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::{ffi::c_uint, thread, time::Duration};

use nvml_wrapper_sys::bindings::{self as nvml, nvmlDevice_t, nvmlPcieUtilCounter_t, nvmlReturn_t};

use crate::{codes::Code, dispatch, readings::Reading};

/// Over how long NVML measures a throughput, while the caller waits.
const THROUGHPUT_WINDOW: Duration = Duration::from_millis(20);

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetCurrPcieLinkGeneration(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetCurrPcieLinkGeneration", device, out, |card| card.u32(Reading::PcieGeneration))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetCurrPcieLinkWidth(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetCurrPcieLinkWidth", device, out, |card| card.u32(Reading::PcieWidth))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMaxPcieLinkGeneration(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMaxPcieLinkGeneration", device, out, |card| Ok(card.model.pcie_generation_max))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetGpuMaxPcieLinkGeneration(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetGpuMaxPcieLinkGeneration", device, out, |card| Ok(card.model.pcie_generation_max))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMaxPcieLinkWidth(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMaxPcieLinkWidth", device, out, |card| Ok(card.model.pcie_width_max))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPcieReplayCounter(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPcieReplayCounter", device, out, |card| card.u32(Reading::PcieReplays))
}

/// As slow as the real one: there so that a test sees who calls it.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPcieThroughput(
    device: nvmlDevice_t,
    counter: nvmlPcieUtilCounter_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPcieThroughput", device, out, |card| {
        if counter >= nvml::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_COUNT {
            return Err(Code::InvalidArgument);
        }
        thread::sleep(THROUGHPUT_WINDOW);
        Ok(card.model.pcie_generation_max * 1000)
    })
}

//! Power, its limits, and energy.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{dispatch, readings::Reading};

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPowerUsage", device, out, |card| card.power_usage())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetEnforcedPowerLimit", device, out, |card| card.u32(Reading::PowerLimit))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPowerManagementLimit(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPowerManagementLimit", device, out, |card| card.u32(Reading::PowerLimit))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPowerManagementLimitConstraints(
    device: nvmlDevice_t,
    min: *mut c_uint,
    max: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPowerManagementLimitConstraints", device, [min, max], |card| {
        Ok([card.model.power_min, card.model.power_max])
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPowerManagementDefaultLimit(
    device: nvmlDevice_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPowerManagementDefaultLimit", device, out, |card| Ok(card.model.power_default))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetTotalEnergyConsumption(
    device: nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetTotalEnergyConsumption", device, out, |card| card.u64(Reading::Energy))
}

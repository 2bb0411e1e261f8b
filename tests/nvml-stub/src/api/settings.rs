//! How a card is set, and the calls that would set it: they refuse, so that a test sees who tries.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlComputeMode_t, nvmlDevice_t, nvmlEnableState_t, nvmlReturn_t};

use crate::{codes::Code, dispatch, readings::Reading};

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPersistenceMode(
    device: nvmlDevice_t,
    out: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPersistenceMode", device, out, |card| card.u32(Reading::PersistenceMode))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetComputeMode(device: nvmlDevice_t, out: *mut nvmlComputeMode_t) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetComputeMode", device, out, |card| card.u32(Reading::ComputeMode))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceSetPersistenceMode(device: nvmlDevice_t, _mode: nvmlEnableState_t) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceSetPersistenceMode", device, |_, _| Err(Code::NoPermission))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceSetMigMode(
    device: nvmlDevice_t,
    _mode: c_uint,
    _activation: *mut nvmlReturn_t,
) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceSetMigMode", device, |_, _| Err(Code::NoPermission))
}

//! The library and the driver.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::{
    abi::Buffer,
    codes::{self, Code},
    dispatch, library,
};

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    codes::as_return(library::init("nvmlInit_v2"))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    codes::as_return(library::init("nvmlInitWithFlags"))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    codes::as_return(library::enter("nvmlShutdown", None).and_then(|_| library::shutdown()))
}

/// Works without `nvmlInit`, and is the one call that no fault befalls.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    codes::message(result).as_ptr()
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    dispatch::system("nvmlSystemGetDriverVersion", Buffer(version, length), |scenario| {
        Ok(scenario.driver_version.clone())
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    dispatch::system("nvmlSystemGetNVMLVersion", Buffer(version, length), |scenario| Ok(scenario.nvml_version.clone()))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    dispatch::system("nvmlSystemGetCudaDriverVersion_v2", version, |scenario| Ok(scenario.cuda_version))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    dispatch::system("nvmlDeviceGetCount_v2", count, |scenario| {
        u32::try_from(scenario.gpus.len()).map_err(|_| Code::Unknown)
    })
}

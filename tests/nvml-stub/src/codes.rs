//! NVML's error codes, under the names that a scenario uses.

use std::ffi::CStr;

use nvml_wrapper_sys::bindings::{nvmlReturn_enum_NVML_SUCCESS, nvmlReturn_t};
use serde::Deserialize;

/// Why a call fails. Everything but `NVML_SUCCESS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub(crate) enum Code {
    Uninitialized = 1,
    InvalidArgument = 2,
    NotSupported = 3,
    NoPermission = 4,
    AlreadyInitialized = 5,
    NotFound = 6,
    InsufficientSize = 7,
    InsufficientPower = 8,
    DriverNotLoaded = 9,
    Timeout = 10,
    IrqIssue = 11,
    LibraryNotFound = 12,
    FunctionNotFound = 13,
    CorruptedInforom = 14,
    GpuIsLost = 15,
    ResetRequired = 16,
    OperatingSystem = 17,
    LibRmVersionMismatch = 18,
    InUse = 19,
    Memory = 20,
    NoData = 21,
    VgpuEccNotSupported = 22,
    InsufficientResources = 23,
    FreqNotSupported = 24,
    ArgumentVersionMismatch = 25,
    Deprecated = 26,
    NotReady = 27,
    GpuNotFound = 28,
    InvalidState = 29,
    ResetTypeNotSupported = 30,
    Unknown = 999,
}

impl Code {
    pub(crate) fn as_return(self) -> nvmlReturn_t {
        self as nvmlReturn_t
    }
}

/// What an exported function returns.
pub(crate) fn as_return(result: Result<(), Code>) -> nvmlReturn_t {
    result.map_or_else(Code::as_return, |()| nvmlReturn_enum_NVML_SUCCESS)
}

/// What `nvmlErrorString` says; success is an "error" too.
pub(crate) fn message(code: nvmlReturn_t) -> &'static CStr {
    match code {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        5 => c"Already Initialized",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        8 => c"Insufficient External Power",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        11 => c"Interrupt Request Issue",
        12 => c"NVML Shared Library Not Found",
        13 => c"Function Not Found",
        14 => c"Corrupted infoROM",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        17 => c"GPU access blocked by the operating system",
        18 => c"Driver/library version mismatch",
        19 => c"In use by another client",
        20 => c"Insufficient Memory",
        21 => c"No data",
        22 => c"ECC not supported by the vGPU",
        23 => c"Insufficient Resources",
        24 => c"Frequency not supported",
        25 => c"Argument version mismatch",
        26 => c"Deprecated",
        27 => c"Not ready",
        28 => c"GPU not found",
        29 => c"Invalid state",
        30 => c"Reset type not supported",
        _ => c"Unknown Error",
    }
}

#[cfg(test)]
mod tests {
    use nvml_wrapper_sys::bindings as nvml;

    use super::*;

    #[test]
    fn codes_are_nvmls() {
        assert_eq!(Code::Uninitialized.as_return(), nvml::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);
        assert_eq!(Code::InsufficientSize.as_return(), nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
        assert_eq!(Code::GpuIsLost.as_return(), nvml::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
        assert_eq!(Code::NoData.as_return(), nvml::nvmlReturn_enum_NVML_ERROR_NO_DATA);
        let last = nvml::nvmlReturn_enum_NVML_ERROR_RESET_TYPE_NOT_SUPPORTED;
        assert_eq!(Code::ResetTypeNotSupported.as_return(), last);
        assert_eq!(Code::Unknown.as_return(), nvml::nvmlReturn_enum_NVML_ERROR_UNKNOWN);
        assert_eq!(as_return(Ok(())), nvmlReturn_enum_NVML_SUCCESS);
        assert_eq!(message(last + 1), message(999));
    }
}

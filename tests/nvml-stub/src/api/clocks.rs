//! Clocks, what holds them down, and the performance state.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlClockType_t, nvmlDevice_t, nvmlPerfPolicyType_t, nvmlPstates_t, nvmlReturn_t, nvmlViolationTime_t,
};

use crate::{codes::Code, dispatch, readings::Reading};

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetClockInfo(
    device: nvmlDevice_t,
    clock: nvmlClockType_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetClockInfo", device, out, |card| {
        card.u32(match clock {
            nvml::nvmlClockType_enum_NVML_CLOCK_GRAPHICS => Reading::ClockGraphics,
            nvml::nvmlClockType_enum_NVML_CLOCK_SM => Reading::ClockSm,
            nvml::nvmlClockType_enum_NVML_CLOCK_MEM => Reading::ClockMemory,
            nvml::nvmlClockType_enum_NVML_CLOCK_VIDEO => Reading::ClockVideo,
            _ => return Err(Code::InvalidArgument),
        })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMaxClockInfo(
    device: nvmlDevice_t,
    clock: nvmlClockType_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMaxClockInfo", device, out, |card| {
        card.model.clocks_max.get(clock as usize).copied().ok_or(Code::InvalidArgument)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetCurrentClocksThrottleReasons", device, out, |card| {
        card.u64(Reading::ClockEventReasons)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetCurrentClocksEventReasons(
    device: nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetCurrentClocksEventReasons", device, out, |card| card.u64(Reading::ClockEventReasons))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetSupportedClocksThrottleReasons(
    device: nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetSupportedClocksThrottleReasons", device, out, |card| Ok(card.model.clock_events))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetViolationStatus(
    device: nvmlDevice_t,
    policy: nvmlPerfPolicyType_t,
    out: *mut nvmlViolationTime_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetViolationStatus", device, out, |card| {
        let reading = match policy {
            nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_POWER => Reading::ClockEventPowerCapTime,
            nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_THERMAL => Reading::ClockEventSoftwareThermalTime,
            nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_SYNC_BOOST => Reading::ClockEventSyncBoostTime,
            nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_BOARD_LIMIT => Reading::PerfPolicyBoardLimitTime,
            nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_LOW_UTILIZATION => Reading::PerfPolicyLowUtilizationTime,
            nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_RELIABILITY => Reading::PerfPolicyReliabilityTime,
            nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_TOTAL_APP_CLOCKS
            | nvml::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_TOTAL_BASE_CLOCKS => return Err(Code::NotSupported),
            _ => return Err(Code::InvalidArgument),
        };
        Ok(nvmlViolationTime_t { referenceTime: card.moment.unix_us, violationTime: card.u64(reading)? })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPerformanceState(device: nvmlDevice_t, out: *mut nvmlPstates_t) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPerformanceState", device, out, |card| card.u32(Reading::PerformanceState))
}

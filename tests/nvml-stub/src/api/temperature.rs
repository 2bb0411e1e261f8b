//! Temperatures, their limits, and fans.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlMarginTemperature_t, nvmlReturn_t, nvmlTemperature_t, nvmlTemperatureSensors_t,
    nvmlTemperatureThresholds_t,
};

use crate::{abi, codes::Code, dispatch, readings::Reading};

const TEMPERATURE_V1: c_uint = abi::struct_version::<nvmlTemperature_t>(1);
const MARGIN_V1: c_uint = abi::struct_version::<nvmlMarginTemperature_t>(1);

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    sensor: nvmlTemperatureSensors_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetTemperature", device, out, |card| {
        check_sensor(sensor)?;
        card.u32(Reading::Temperature)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetTemperatureV(device: nvmlDevice_t, out: *mut nvmlTemperature_t) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetTemperatureV", device, out, |card| {
        abi::check_version(out, TEMPERATURE_V1)?;
        let argument = abi::take(out.cast::<[c_uint; 2]>())?;
        check_sensor(argument[1])?;
        let temperature = card.u32(Reading::Temperature)? as i32;
        Ok(nvmlTemperature_t { version: TEMPERATURE_V1, sensorType: argument[1], temperature })
    })
}

/// NVML knows one sensor.
fn check_sensor(sensor: nvmlTemperatureSensors_t) -> Result<(), Code> {
    if sensor == nvml::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU { Ok(()) } else { Err(Code::InvalidArgument) }
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: nvmlDevice_t,
    threshold: nvmlTemperatureThresholds_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetTemperatureThreshold", device, out, |card| {
        let thresholds = &card.model.thresholds;
        match threshold {
            nvml::nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => Ok(thresholds.shutdown),
            nvml::nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => Ok(thresholds.slowdown),
            nvml::nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX => {
                thresholds.memory_max.ok_or(Code::NotSupported)
            }
            nvml::nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX => {
                thresholds.gpu_max.ok_or(Code::NotSupported)
            }
            // What a fan's noise allows: no card here has one.
            other if other < nvml::nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT => {
                Err(Code::NotSupported)
            }
            _ => Err(Code::InvalidArgument),
        }
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMarginTemperature(
    device: nvmlDevice_t,
    out: *mut nvmlMarginTemperature_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMarginTemperature", device, out, |card| {
        abi::check_version(out, MARGIN_V1)?;
        Ok(nvmlMarginTemperature_t { version: MARGIN_V1, marginTemperature: card.temperature_margin()? })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetNumFans(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetNumFans", device, out, |card| card.reading(Reading::FanSpeed).map(|_| 1))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetFanSpeed_v2(device: nvmlDevice_t, fan: c_uint, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetFanSpeed_v2", device, out, |card| {
        let speed = card.u32(Reading::FanSpeed)?;
        if fan == 0 { Ok(speed) } else { Err(Code::InvalidArgument) }
    })
}

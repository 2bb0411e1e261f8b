//! MIG: whether a card is split, and its devices.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE, nvmlDevice_t, nvmlDeviceAttributes_t, nvmlReturn_t,
};

use crate::{codes::Code, dispatch, handle::Handle, kinds::Mig};

/// Into how many devices a card can be split.
const MIG_DEVICES_MAX: u32 = 7;

const MIB: u64 = 1 << 20;

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMigMode", device, [current, pending], |card| match card.model.mig {
        Mig::Unable => Err(Code::NotSupported),
        Mig::Off => Ok([NVML_DEVICE_MIG_DISABLE; 2]),
        Mig::On(_) => Ok([NVML_DEVICE_MIG_ENABLE; 2]),
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMaxMigDeviceCount", device, out, |card| {
        Ok(if let Mig::On(_) = card.model.mig { MIG_DEVICES_MAX } else { 0 })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMigDeviceHandleByIndex", device, out, |card| {
        if let Mig::Unable = card.model.mig {
            return Err(Code::NotSupported);
        }
        if index >= MIG_DEVICES_MAX {
            return Err(Code::InvalidArgument);
        }
        let mig = index as usize;
        let handle = Handle { mig: Some(mig), ..card.handle };
        card.instances().get(mig).map(|_| handle.encode()).ok_or(Code::NotFound)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceIsMigDeviceHandle", device, out, |card| Ok(card.instance.is_some().into()))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: nvmlDevice_t,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, out, |card| {
        card.instance.map(|_| Handle { mig: None, ..card.handle }.encode()).ok_or(Code::InvalidArgument)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetGpuInstanceId", device, out, |card| {
        card.instance.map(|instance| instance.id).ok_or(Code::NotSupported)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, out: *mut c_uint) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetComputeInstanceId", device, out, |card| {
        card.instance.map(|_| 0).ok_or(Code::NotSupported)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetAttributes_v2(
    device: nvmlDevice_t,
    out: *mut nvmlDeviceAttributes_t,
) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetAttributes_v2", device, out, |card| {
        let instance = card.instance.ok_or(Code::NotSupported)?;
        Ok(nvmlDeviceAttributes_t {
            multiprocessorCount: instance.multiprocessors,
            sharedCopyEngineCount: instance.copy_engines,
            sharedDecoderCount: instance.decoders,
            sharedEncoderCount: 0,
            sharedJpegCount: instance.jpeg_engines,
            sharedOfaCount: 0,
            gpuInstanceSliceCount: instance.slices,
            computeInstanceSliceCount: instance.slices,
            memorySizeMB: instance.memory_bytes / MIB,
        })
    })
}

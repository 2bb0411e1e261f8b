//! NVLinks one by one.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlEnableState_t, nvmlNvLinkErrorCounter_t, nvmlPciInfo_t, nvmlReturn_t,
};

use super::identity;
use crate::{codes::Code, dispatch, readings::Reading};

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    out: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetNvLinkState", device, out, |card| card.is_link_active(link).map(u32::from))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetNvLinkVersion(
    device: nvmlDevice_t,
    link: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetNvLinkVersion", device, out, |card| Ok(card.nvlink_of(link)?.version))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    link: c_uint,
    counter: nvmlNvLinkErrorCounter_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetNvLinkErrorCounter", device, out, |card| {
        let reading = match counter {
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY => Reading::NvlinkReplayErrors,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => Reading::NvlinkRecoveryErrors,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT => Reading::NvlinkCrcFlitErrors,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA => Reading::NvlinkCrcDataErrors,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_ECC_DATA => {
                let counts = card.nvlink_of(link)?.has_ecc_counters;
                return if counts { Ok(0) } else { Err(Code::NotSupported) };
            }
            _ => return Err(Code::InvalidArgument),
        };
        card.link_errors(reading, Some(link))
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: nvmlDevice_t,
    link: c_uint,
    out: *mut nvmlPciInfo_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetNvLinkRemotePciInfo_v2", device, out, |card| {
        let (address, switch) = card.link_remote(link)?;
        Ok(identity::pci_info(address, switch, 0))
    })
}

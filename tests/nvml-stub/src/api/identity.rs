//! Finding a card, and what it says of itself.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlBrandType_t, nvmlDevice_t, nvmlDeviceArchitecture_t, nvmlPciInfo_t, nvmlReturn_t,
};

use crate::{
    abi::{self, Buffer},
    card::{self, PciAddress},
    codes::Code,
    dispatch,
    handle::Handle,
};

/// What NVML takes a GSP's version to fit in, as it is given no length.
const GSP_VERSION_LENGTH: c_uint = 64;

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    let gpu = index as usize;
    dispatch::lookup("nvmlDeviceGetHandleByIndex_v2", Some(gpu), device, |scenario| {
        scenario.gpus.get(gpu).map(|_| Handle { gpu, mig: None }).ok_or(Code::InvalidArgument)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    dispatch::lookup("nvmlDeviceGetHandleByUUID", None, device, |scenario| {
        card::find_by_uuid(scenario, &abi::text(uuid)?).ok_or(Code::NotFound)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus_id: *const c_char,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    dispatch::lookup("nvmlDeviceGetHandleByPciBusId_v2", None, device, |scenario| {
        let gpu = card::find_by_bus_id(scenario, &abi::text(bus_id)?).ok_or(Code::NotFound)?;
        Ok(Handle { gpu, mig: None })
    })
}

/// Of a MIG device, its index within its card.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetIndex", device, index, |card| {
        u32::try_from(card.handle.mig.unwrap_or(card.handle.gpu)).map_err(|_| Code::Unknown)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetName", device, Buffer(name, length), |card| Ok(card.name()))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetUUID", device, Buffer(uuid, length), |card| Ok(card.uuid()))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetSerial(
    device: nvmlDevice_t,
    serial: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetSerial", device, Buffer(serial, length), |card| Ok(card.serial()))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetPciInfo_v3", device, pci, |card| {
        Ok(pci_info(card.pci(), card.model.pci_device, card.model.pci_subsystem))
    })
}

pub(super) fn pci_info(address: PciAddress, device: u32, subsystem: u32) -> nvmlPciInfo_t {
    nvmlPciInfo_t {
        busIdLegacy: c_text(&address.legacy_bus_id()),
        domain: address.domain,
        bus: address.bus,
        device: 0,
        pciDeviceId: device,
        pciSubSystemId: subsystem,
        busId: c_text(&address.bus_id()),
    }
}

/// Text in an array that ends with zeros. What does not fit is cut.
fn c_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut buffer = [0; N];
    for (out, byte) in buffer.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *out = byte as c_char;
    }
    buffer
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: *mut c_uint) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMinorNumber", device, minor, |card| {
        u32::try_from(card.handle.gpu).map_err(|_| Code::Unknown)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetVbiosVersion(
    device: nvmlDevice_t,
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetVbiosVersion", device, Buffer(version, length), |card| Ok(card.model.vbios.to_owned()))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetBoardPartNumber(
    device: nvmlDevice_t,
    number: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetBoardPartNumber", device, Buffer(number, length), |card| {
        Ok(card.model.board_part_number.to_owned())
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetInforomImageVersion(
    device: nvmlDevice_t,
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetInforomImageVersion", device, Buffer(version, length), |card| {
        Ok(card.model.inforom_image.to_owned())
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetGspFirmwareVersion(device: nvmlDevice_t, version: *mut c_char) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetGspFirmwareVersion", device, Buffer(version, GSP_VERSION_LENGTH), |card| {
        if card.model.has_gsp { Ok(card.scenario.driver_version.clone()) } else { Err(Code::NotSupported) }
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetCudaComputeCapability", device, [major, minor], |card| {
        Ok(card.model.compute_capability)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetArchitecture(
    device: nvmlDevice_t,
    architecture: *mut nvmlDeviceArchitecture_t,
) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetArchitecture", device, architecture, |card| Ok(card.model.architecture))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetBrand(device: nvmlDevice_t, brand: *mut nvmlBrandType_t) -> nvmlReturn_t {
    dispatch::any("nvmlDeviceGetBrand", device, brand, |card| Ok(card.model.brand))
}

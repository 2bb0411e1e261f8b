//! The NVLink fabric, in each version of its struct.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t, nvmlGpuFabricInfoV_t,
    nvmlReturn_t,
};

use crate::{
    abi::{self, Slot},
    card::Card,
    codes::Code,
    dispatch,
    readings::Reading,
};

const FABRIC_V2: u32 = abi::struct_version::<nvmlGpuFabricInfo_v2_t>(2);
const FABRIC_V3: u32 = abi::struct_version::<nvmlGpuFabricInfo_v3_t>(3);

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetGpuFabricInfo(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfo_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetGpuFabricInfo", device, out, |card| {
        let info = info(card)?;
        Ok(nvmlGpuFabricInfo_t {
            clusterUuid: info.clusterUuid,
            status: info.status,
            cliqueId: info.cliqueId,
            state: info.state,
        })
    })
}

/// The caller has room for the version that it asks for, and not for more.
#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    out: *mut nvmlGpuFabricInfoV_t,
) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceGetGpuFabricInfoV", device, |call, card| {
        if card.instance.is_some() {
            return Err(Code::NotSupported);
        }
        if abi::check_version(out, FABRIC_V3).is_ok() {
            return out.fill(call.befallen(info(card)?));
        }
        abi::check_version(out, FABRIC_V2)?;
        let info = info(card)?;
        let info = nvmlGpuFabricInfo_v2_t {
            version: FABRIC_V2,
            clusterUuid: info.clusterUuid,
            status: info.status,
            cliqueId: info.cliqueId,
            state: info.state,
            healthMask: info.healthMask,
        };
        out.cast::<nvmlGpuFabricInfo_v2_t>().fill(call.befallen(info))
    })
}

fn info(card: &Card<'_>) -> Result<nvmlGpuFabricInfo_v3_t, Code> {
    Ok(nvmlGpuFabricInfo_v3_t {
        version: FABRIC_V3,
        clusterUuid: [0; 16],
        status: card.u32(Reading::FabricStatus)?,
        cliqueId: 0,
        state: card.u32(Reading::FabricState)? as u8,
        healthMask: card.u32(Reading::FabricHealthMask)?,
        healthSummary: card.u32(Reading::FabricHealthSummary)? as u8,
    })
}

//! ECC errors, retired pages and remapped rows.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEccCounterType_t, nvmlEccSramErrorStatus_t, nvmlEnableState_t, nvmlMemoryErrorType_t,
    nvmlMemoryLocation_t, nvmlPageRetirementCause_t, nvmlReturn_t, nvmlRowRemapperHistogramValues_t,
};

use crate::{
    abi,
    card::{Card, Counter, Errors},
    codes::Code,
    dispatch,
    readings::Reading,
};

const SRAM_STATUS_V1: c_uint = abi::struct_version::<nvmlEccSramErrorStatus_t>(1);

/// When every page was retired: the start of 2024.
const RETIRED_AT_US: u64 = 1_704_067_200_000_000;

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetEccMode(
    device: nvmlDevice_t,
    current: *mut nvmlEnableState_t,
    pending: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetEccMode", device, [current, pending], |card| {
        card.u32(Reading::EccEnabled).map(|mode| [mode; 2])
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    errors: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetTotalEccErrors", device, out, |card| {
        card.ecc_total(errors.try_into()?, counter.try_into()?)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    device: nvmlDevice_t,
    errors: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    location: nvmlMemoryLocation_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetMemoryErrorCounter", device, out, |card| {
        card.ecc_at(errors.try_into()?, counter.try_into()?, location)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetSramEccErrorStatus(
    device: nvmlDevice_t,
    out: *mut nvmlEccSramErrorStatus_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetSramEccErrorStatus", device, out, |card| {
        abi::check_version(out, SRAM_STATUS_V1)?;
        sram_status(card)
    })
}

/// Takes every uncorrected error for one of the L2 cache, found by its SEC-DED code.
fn sram_status(card: &Card<'_>) -> Result<nvmlEccSramErrorStatus_t, Code> {
    if !card.model.has_sram_sources {
        return Err(Code::NotSupported);
    }
    let uncorrected = card.ecc_sram(Errors::Uncorrected, Counter::Aggregate)?;
    Ok(nvmlEccSramErrorStatus_t {
        version: SRAM_STATUS_V1,
        aggregateUncParity: 0,
        aggregateUncSecDed: uncorrected,
        aggregateCor: card.ecc_sram(Errors::Corrected, Counter::Aggregate)?,
        volatileUncParity: 0,
        volatileUncSecDed: card.ecc_sram(Errors::Uncorrected, Counter::Volatile)?,
        volatileCor: card.ecc_sram(Errors::Corrected, Counter::Volatile)?,
        aggregateUncBucketL2: uncorrected,
        aggregateUncBucketSm: 0,
        aggregateUncBucketPcie: 0,
        aggregateUncBucketMcu: 0,
        aggregateUncBucketOther: 0,
        bThresholdExceeded: 0,
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetRetiredPages(
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceGetRetiredPages", device, |_, card| {
        dispatch::fill_array(&card.retired_pages(cause)?, count, addresses)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: nvmlDevice_t,
    cause: nvmlPageRetirementCause_t,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    timestamps: *mut c_ulonglong,
) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceGetRetiredPages_v2", device, |_, card| {
        if !card.model.has_retirement_times {
            return Err(Code::NotSupported);
        }
        let pages = card.retired_pages(cause)?;
        let times = vec![RETIRED_AT_US; pages.len()];
        dispatch::fill_array(&pages, count, addresses)?;
        dispatch::fill_array(&times, count, timestamps)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetRetiredPagesPendingStatus(
    device: nvmlDevice_t,
    out: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetRetiredPagesPendingStatus", device, out, |card| card.u32(Reading::RetiredPagesPending))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failure: *mut c_uint,
) -> nvmlReturn_t {
    let out = [correctable, uncorrectable, pending, failure];
    dispatch::card("nvmlDeviceGetRemappedRows", device, out, |card| {
        Ok([
            card.u32(Reading::RemappedRowsCorrectable)?,
            card.u32(Reading::RemappedRowsUncorrectable)?,
            card.u32(Reading::RemappedRowsPending)?,
            card.u32(Reading::RemappedRowsFailure)?,
        ])
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetRowRemapperHistogram(
    device: nvmlDevice_t,
    out: *mut nvmlRowRemapperHistogramValues_t,
) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetRowRemapperHistogram", device, out, |card| {
        let [max, high] = card.remap_banks()?;
        Ok(nvmlRowRemapperHistogramValues_t { max, high, partial: 0, low: 0, none: 0 })
    })
}

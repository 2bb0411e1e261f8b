//! GPM: samples, and the metrics between two of them.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::{ffi::c_uint, mem::offset_of, ptr};

use nvml_wrapper_sys::bindings::{
    NVML_GPM_METRICS_GET_VERSION, NVML_GPM_SUPPORT_VERSION, nvmlDevice_t, nvmlGpmMetric_t,
    nvmlGpmMetric_t__bindgen_ty_1, nvmlGpmMetricId_t_NVML_GPM_METRIC_MAX, nvmlGpmMetricsGet_t, nvmlGpmSample_t,
    nvmlGpmSupport_t, nvmlReturn_enum_NVML_SUCCESS, nvmlReturn_t,
};

use crate::{
    abi,
    card::Card,
    codes::{self, Code},
    dispatch,
    gpm::{self, Sample},
    handle::Handle,
    library::{self, Call},
};

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlGpmQueryDeviceSupport(device: nvmlDevice_t, out: *mut nvmlGpmSupport_t) -> nvmlReturn_t {
    dispatch::any("nvmlGpmQueryDeviceSupport", device, out, |card| {
        abi::check_version(out, NVML_GPM_SUPPORT_VERSION)?;
        Ok(nvmlGpmSupport_t { version: NVML_GPM_SUPPORT_VERSION, isSupportedDevice: card.model.has_gpm.into() })
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlGpmSampleAlloc(out: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    let go = || {
        library::enter("nvmlGpmSampleAlloc", None)?;
        if out.is_null() {
            return Err(Code::InvalidArgument);
        }
        abi::put(out, library::lock().samples.add(None))
    };
    codes::as_return(go())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    let go = || {
        library::enter("nvmlGpmSampleFree", None)?;
        library::lock().samples.remove(sample).map(drop).ok_or(Code::InvalidArgument)
    };
    codes::as_return(go())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    dispatch::with("nvmlGpmSampleGet", device, |_, card| store(sample, Sample::take(card)?))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlGpmMigSampleGet(
    device: nvmlDevice_t,
    gpu_instance: c_uint,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    dispatch::with("nvmlGpmMigSampleGet", device, |call, card| {
        if card.instances().is_empty() {
            return Err(Code::NotSupported);
        }
        let mig = card.instances().iter().position(|instance| instance.id == gpu_instance);
        let handle = Handle { mig: Some(mig.ok_or(Code::InvalidArgument)?), ..card.handle };
        store(sample, Sample::take(&Card::new(&call.loaded.scenario, handle, call.moment)?)?)
    })
}

fn store(handle: nvmlGpmSample_t, sample: Sample) -> Result<(), Code> {
    *library::lock().samples.get_mut(handle).ok_or(Code::InvalidArgument)? = Some(sample);
    Ok(())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlGpmMetricsGet(metrics: *mut nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    codes::as_return(metrics_get(metrics))
}

/// What the caller sets of the struct before its metrics.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    version: c_uint,
    count: c_uint,
    samples: [nvmlGpmSample_t; 2],
}

fn metrics_get(out: *mut nvmlGpmMetricsGet_t) -> Result<(), Code> {
    const METRICS: usize = offset_of!(nvmlGpmMetricsGet_t, metrics);
    const { assert!(size_of::<Request>() == METRICS, "the metrics follow the request") };
    let request = abi::take(out.cast::<Request>());
    let samples = request.and_then(|request| samples(request.samples));
    let gpu = samples.as_ref().map(|[first, _]| first.handle.gpu).ok();
    let call = library::enter("nvmlGpmMetricsGet", gpu)?;
    let request = request?;
    if request.version != NVML_GPM_METRICS_GET_VERSION {
        return Err(Code::ArgumentVersionMismatch);
    }
    if request.count > nvmlGpmMetricId_t_NVML_GPM_METRIC_MAX {
        return Err(Code::InvalidArgument);
    }
    let [first, second] = samples?;
    let metrics = out.wrapping_byte_add(METRICS).cast::<nvmlGpmMetric_t>();
    (0..request.count as usize).try_for_each(|at| {
        let slot = abi::element(metrics, at);
        let id = abi::take(slot.cast::<c_uint>())?;
        abi::put(slot, metric(&call, at, id, &first, &second))
    })
}

/// Two samples that were taken of the same device.
fn samples(handles: [nvmlGpmSample_t; 2]) -> Result<[Sample; 2], Code> {
    let library = library::lock();
    let sample = |handle| library.samples.get(handle).and_then(Clone::clone).ok_or(Code::InvalidArgument);
    let [first, second] = handles;
    let (first, second) = (sample(first)?, sample(second)?);
    if first.handle == second.handle { Ok([first, second]) } else { Err(Code::InvalidArgument) }
}

/// One metric, without its name and unit: NVML allows that.
fn metric(call: &Call, at: usize, id: u32, first: &Sample, second: &Sample) -> nvmlGpmMetric_t {
    let value = gpm::metric(id, first, second);
    let metric = nvmlGpmMetric_t {
        metricId: id,
        nvmlReturn: value.map_or_else(Code::as_return, |_| nvmlReturn_enum_NVML_SUCCESS),
        value: value.unwrap_or(0.0),
        metricInfo: nvmlGpmMetric_t__bindgen_ty_1 {
            shortName: ptr::null_mut(),
            longName: ptr::null_mut(),
            unit: ptr::null_mut(),
        },
    };
    if at == 0 { call.befallen(metric) } else { metric }
}

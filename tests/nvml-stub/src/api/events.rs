//! Events, of which there are only XIDs here.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::{
    ffi::{c_uint, c_ulonglong},
    thread,
    time::Duration,
};

use nvml_wrapper_sys::bindings::{
    INVALID_GPU_INSTANCE_ID, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlEventTypeXidCriticalError, nvmlReturn_t,
};

use crate::{
    abi, clock,
    codes::{self, Code},
    dispatch,
    events::EventSet,
    handle::Handle,
    library,
    scenario::Xid,
};

/// How often a wait looks whether something has come, where it cannot be woken.
const WAIT_INTERVAL: Duration = Duration::from_millis(10);

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlEventSetCreate(out: *mut nvmlEventSet_t) -> nvmlReturn_t {
    let go = || {
        library::enter("nvmlEventSetCreate", None)?;
        if out.is_null() {
            return Err(Code::InvalidArgument);
        }
        abi::put(out, library::lock().event_sets.add(EventSet::default()))
    };
    codes::as_return(go())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    let go = || {
        library::enter("nvmlEventSetFree", None)?;
        library::lock().event_sets.remove(set).map(drop).ok_or(Code::InvalidArgument)
    };
    codes::as_return(go())
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, out: *mut c_ulonglong) -> nvmlReturn_t {
    dispatch::card("nvmlDeviceGetSupportedEventTypes", device, out, |card| Ok(card.model.events))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceRegisterEvents", device, |_, card| {
        if card.instance.is_some() || types & !card.model.events != 0 {
            return Err(Code::NotSupported);
        }
        library::lock().register(set, card.handle.gpu, types)
    })
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    out: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    let go = || {
        library::enter("nvmlEventSetWait_v2", None)?;
        if out.is_null() {
            return Err(Code::InvalidArgument);
        }
        abi::put(out, data(&wait(set, Duration::from_millis(timeout_ms.into()))?))
    };
    codes::as_return(go())
}

fn wait(set: nvmlEventSet_t, timeout: Duration) -> Result<Xid, Code> {
    let started = clock::monotonic();
    let changes = library::lock().changes();
    loop {
        let after = match library::lock().next_event(set)? {
            Ok(xid) => return Ok(xid),
            Err(after) => after,
        };
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(Code::Timeout);
        }
        match &changes {
            Some(changes) if changes.wait(left.min(after)) => library::lock().look_again(),
            Some(_) => {}
            None => thread::sleep(left.min(WAIT_INTERVAL)),
        }
    }
}

fn data(xid: &Xid) -> nvmlEventData_t {
    nvmlEventData_t {
        device: Handle { gpu: xid.gpu, mig: None }.encode(),
        eventType: nvmlEventTypeXidCriticalError.into(),
        eventData: xid.code,
        gpuInstanceId: xid.gpu_instance.unwrap_or(INVALID_GPU_INSTANCE_ID),
        computeInstanceId: INVALID_GPU_INSTANCE_ID,
    }
}

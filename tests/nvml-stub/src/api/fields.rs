//! Many values in one call.

#![expect(unsafe_code, reason = "exported under the names of NVML")]

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_enum_NVML_SUCCESS, nvmlReturn_t, nvmlValue_t,
};

use crate::{
    abi,
    card::Card,
    codes::Code,
    dispatch,
    fields::{self, Value},
    scenario::{Effect, Number},
};

#[unsafe(no_mangle)]
pub(super) extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    dispatch::with("nvmlDeviceGetFieldValues", device, |call, card| {
        if card.instance.is_some() {
            return Err(Code::NotSupported);
        }
        let count = usize::try_from(count).map_err(|_| Code::InvalidArgument)?;
        if count == 0 || values.is_null() {
            return Err(Code::InvalidArgument);
        }
        (0..count).try_for_each(|at| {
            let slot = abi::element(values, at);
            // The caller sets these two, and need not have set anything else.
            let [field, scope] = abi::take(slot.cast::<[c_uint; 2]>())?;
            let fault = call.value.filter(|_| at == 0);
            abi::put(slot, answer(card, field, scope, fault))
        })
    })
}

/// One value. `fault` is what befalls the call as a whole.
fn answer(card: &Card<'_>, field: u32, scope: u32, fault: Option<Number>) -> nvmlFieldValue_t {
    let value = fields::value(card, field, scope);
    let value = match card.scenario.field_fault(field, card.handle.gpu, card.moment.since_load) {
        Some(Effect::Error(code)) => Err(code),
        Some(Effect::Value(number)) => value.map(|value| value.with(number)),
        _ => value.map(|value| fault.map_or(value, |number| value.with(number))),
    };
    nvmlFieldValue_t {
        fieldId: field,
        scopeId: scope,
        timestamp: i64::try_from(card.moment.unix_us).unwrap_or(i64::MAX),
        latencyUsec: 0,
        valueType: value.map_or(0, Value::kind),
        nvmlReturn: value.map_or_else(Code::as_return, |_| nvmlReturn_enum_NVML_SUCCESS),
        value: value.map_or(nvmlValue_t { ullVal: 0 }, Value::union),
    }
}

//! XIDs as the driver reports them.

use std::collections::HashMap;

use belfry_common::model::Reason;
use nvml_wrapper::{EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError};

use super::{
    super::super::driver::{Events, Reported, Unusable},
    Device, reason, unusable,
};

/// How long one wait lasts: what is between two is not lost, the driver keeps it.
const WAIT_MS: u32 = 1000;
/// NVML's number for an error that it does not know.
const UNKNOWN_XID: u32 = 999;

/// Watches some GPUs.
#[derive(Debug)]
pub(in super::super) struct XidEvents {
    set: EventSet<'static>,
    /// Indices by the driver's name, which is all that an event says of its GPU.
    indices: HashMap<String, u32>,
}

impl XidEvents {
    pub(super) fn register<'a>(nvml: &'static Nvml, devices: impl Iterator<Item = &'a Device>) -> Result<Self, Reason> {
        let mut set = nvml.create_event_set().map_err(|error| reason(&error))?;
        let mut indices = HashMap::new();
        for device in devices {
            let supported = device.call("nvmlDeviceGetSupportedEventTypes", |handle| handle.supported_event_types());
            if !supported.is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR)) {
                continue;
            }
            set = device.call("nvmlDeviceRegisterEvents", |handle| {
                handle.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|error| error.error)
            })?;
            indices.insert(device.uuid()?, device.index());
        }
        if indices.is_empty() { Err(Reason::Unsupported) } else { Ok(Self { set, indices }) }
    }
}

impl Events for XidEvents {
    fn next(&mut self) -> Result<Option<Reported>, Unusable> {
        let event = match self.set.wait(WAIT_MS) {
            Ok(event) => event,
            Err(NvmlError::Timeout) => return Ok(None),
            Err(error) => return Err(unusable(&error)),
        };
        let xid = match event.event_data {
            Some(XidError::Value(code)) => u32::try_from(code).unwrap_or(UNKNOWN_XID),
            Some(XidError::Unknown) => UNKNOWN_XID,
            None => return Ok(None),
        };
        // A GPU that fell off the bus may not say its name: NVML has it from before.
        let gpu = event.device.uuid().ok().and_then(|uuid| self.indices.get(&uuid).copied());
        let gpu = gpu.or_else(|| event.device.index().ok());
        Ok(gpu.map(|gpu| Reported { gpu, xid }))
    }
}

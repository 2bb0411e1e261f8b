//! XIDs as the driver reports them.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use belfry_common::clock;
use nvml_wrapper::{EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError};

use super::{
    super::super::{
        board::Board,
        driver::{Events, Reported},
    },
    device::Handle,
};

/// How long one wait lasts: what is between two is not lost, the driver keeps it.
const WAIT_MS: u32 = 1000;
/// A GPU that could not be watched, or a watch that broke, is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// NVML's number for an error that it does not know.
const UNKNOWN_XID: u32 = 999;

/// Watches some GPUs. One that is lost takes only itself out of the watch, and is taken back when it answers again.
#[derive(Debug)]
pub(in super::super) struct XidEvents {
    nvml: &'static Nvml,
    /// Indices of the GPUs to watch.
    wanted: Vec<u32>,
    /// Indices by the driver's name, which is all that an event says of its GPU.
    indices: HashMap<String, u32>,
    /// None while nothing can be watched.
    set: Option<EventSet<'static>>,
    /// Every GPU that reports XIDs is in the set.
    is_whole: bool,
    tried: Instant,
}

impl XidEvents {
    /// Begins to watch; `None` where no GPU reports XIDs.
    pub(super) fn watch(nvml: &'static Nvml, wanted: Vec<u32>, board: &Board) -> Option<Self> {
        let mut events =
            Self { nvml, wanted, indices: HashMap::new(), set: None, is_whole: false, tried: clock::monotonic() };
        events.listen(|call, gpu| board.note(call, gpu));
        let has_none = events.set.is_none() && events.is_whole;
        (!has_none).then_some(events)
    }

    /// Makes a new set of all GPUs that can be watched now. The one before it ends after, so that nothing falls between.
    fn listen(&mut self, note: impl Fn(&str, Option<u32>)) {
        self.tried = clock::monotonic();
        self.is_whole = true;
        let mut reporting = Vec::new();
        for &index in &self.wanted {
            match reporter(self.nvml, index, &note) {
                Ok(Some((handle, uuid))) => {
                    self.indices.insert(uuid, index);
                    reporting.push((index, handle));
                }
                Ok(None) => {}
                Err(_) => self.is_whole = false,
            }
        }
        // A set is not to be used after it refused a GPU: the next is made without that one.
        let mut set = None;
        while !reporting.is_empty() {
            match set_of(self.nvml, &reporting, &note) {
                Ok(made) => {
                    set = Some(made);
                    break;
                }
                Err(refused) => {
                    self.is_whole = false;
                    let Some(refused) = refused else { break };
                    reporting.retain(|(index, _)| *index != refused);
                }
            }
        }
        self.set = set;
    }
}

/// A GPU that reports XIDs, and its name; `None` if it does not report them.
fn reporter(
    nvml: &'static Nvml,
    index: u32,
    note: impl Fn(&str, Option<u32>),
) -> Result<Option<(Handle, String)>, NvmlError> {
    note("nvmlDeviceGetHandleByIndex_v2", Some(index));
    let handle = nvml.device_by_index(index)?;
    note("nvmlDeviceGetSupportedEventTypes", Some(index));
    match handle.supported_event_types() {
        Ok(types) if types.contains(EventTypes::CRITICAL_XID_ERROR) => {}
        Ok(_) | Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => return Ok(None),
        Err(error) => return Err(error),
    }
    note("nvmlDeviceGetUUID", Some(index));
    let uuid = handle.uuid()?;
    Ok(Some((handle, uuid)))
}

/// A set of all these GPUs, or the one that refused; `None` if there can be no set at all.
fn set_of(
    nvml: &'static Nvml,
    gpus: &[(u32, Handle)],
    note: impl Fn(&str, Option<u32>),
) -> Result<EventSet<'static>, Option<u32>> {
    note("nvmlEventSetCreate", None);
    let set = nvml.create_event_set().map_err(|_| None)?;
    gpus.iter().try_fold(set, |set, (index, handle)| {
        note("nvmlDeviceRegisterEvents", Some(*index));
        handle.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|_| Some(*index))
    })
}

impl Events for XidEvents {
    fn next(&mut self) -> Option<Reported> {
        if !self.is_whole && self.tried.elapsed() > TRY_AGAIN {
            // On this thread's own account: the board is for the one that reads.
            self.listen(|_, _| {});
        }
        let Some(set) = &self.set else {
            thread::sleep(Duration::from_millis(WAIT_MS.into()));
            return None;
        };
        let event = match set.wait(WAIT_MS) {
            Ok(event) => event,
            Err(NvmlError::Timeout) => return None,
            // Of one GPU, which ends the watch of all.
            Err(_) => {
                (self.set, self.is_whole) = (None, false);
                return None;
            }
        };
        let xid = match event.event_data? {
            XidError::Value(code) => u32::try_from(code).unwrap_or(UNKNOWN_XID),
            XidError::Unknown => UNKNOWN_XID,
        };
        // A GPU that fell off the bus may not say its name: NVML has it from before.
        let gpu = event.device.uuid().ok().and_then(|uuid| self.indices.get(&uuid).copied());
        let gpu = gpu.or_else(|| event.device.index().ok())?;
        Some(Reported { gpu, xid })
    }
}

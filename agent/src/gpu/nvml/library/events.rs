//! XIDs as the driver reports them.
//!
//! NVML tells them to whoever waits on a set of GPUs, and one that is lost can spoil the set for all. Sets are made where all calls
//! are made ([`Watch`]), so that one that hangs is named; another thread only waits ([`XidEvents`]), and goes on with a newer set
//! when it gets one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use belfry_common::clock;
use nvml_wrapper::{
    EventSet, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError, struct_wrappers::event::EventData,
};
use tracing::{info, warn};

use super::{
    super::super::driver::{Events, Reported},
    Library,
    device::Handle,
};

/// How long one wait lasts: what is between two is not lost, the driver keeps it.
const WAIT: Duration = Duration::from_secs(1);
/// A GPU that could not be watched, or a watch that broke, is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Events that are taken from a set at its end.
const LAST_EVENTS_MAX: usize = 256;
/// NVML's number for an error that it does not know.
const UNKNOWN_XID: u32 = 999;

/// A set of GPUs whose errors are waited for.
#[derive(Debug)]
struct Listening {
    set: EventSet<'static>,
    /// Indices by the driver's name, which is all that an event says of its GPU.
    indices: HashMap<String, u32>,
}

/// Makes the sets. One that is lost takes only itself out of the watch, and is taken back when it answers again.
#[derive(Debug)]
pub(in super::super) struct Watch {
    /// Indices of the GPUs that report XIDs, or may when they answer.
    wanted: Vec<u32>,
    /// Those of them that are not watched.
    missing: Vec<u32>,
    sets: mpsc::Sender<Listening>,
    is_broken: Arc<AtomicBool>,
    tried: Instant,
}

impl Watch {
    /// Begins to watch; `None` where no GPU reports XIDs.
    pub(in super::super) fn begin(library: &Library, indices: &[u32]) -> Option<(Self, XidEvents)> {
        let (sets, newer) = mpsc::channel();
        let is_broken = Arc::<AtomicBool>::default();
        let events = XidEvents { newer, current: None, is_broken: Arc::clone(&is_broken), told: VecDeque::new() };
        let (wanted, missing) = (indices.to_vec(), Vec::new());
        let mut watch = Self { wanted, missing, sets, is_broken, tried: clock::monotonic() };
        watch.listen(library, indices);
        (!watch.wanted.is_empty()).then_some((watch, events))
    }

    /// Mends the watch if it broke, or lacks a GPU that can be watched again. To be called each second.
    pub(in super::super) fn tend(&mut self, library: &Library) {
        let is_broken = self.is_broken.load(Relaxed);
        if (self.missing.is_empty() && !is_broken) || self.tried.elapsed() < TRY_AGAIN {
            return;
        }
        self.tried = clock::monotonic();
        let is_good = |index: &u32| !is_broken && !self.missing.contains(index);
        let (mut gpus, doubtful): (Vec<u32>, Vec<u32>) = self.wanted.iter().partition(|index| is_good(index));
        let good = gpus.len();
        gpus.extend(doubtful.into_iter().filter(|index| library.can_watch(*index)));
        if is_broken || gpus.len() > good {
            gpus.sort_unstable();
            self.listen(library, &gpus);
        }
    }

    /// Makes a new set of these GPUs, or of as many of them as can be watched.
    fn listen(&mut self, library: &Library, indices: &[u32]) {
        let mut reporting = Vec::new();
        for &index in indices {
            match library.reporter(index) {
                Ok(Some((handle, uuid))) => reporting.push((index, handle, uuid)),
                Ok(None) => self.wanted.retain(|wanted| *wanted != index),
                Err(_) => {}
            }
        }
        let mut listening = None;
        while !reporting.is_empty() && listening.is_none() {
            match library.set_of(&reporting) {
                Ok(set) => {
                    let indices = reporting.iter().map(|(index, _, uuid)| (uuid.clone(), *index)).collect();
                    listening = Some(Listening { set, indices });
                }
                // A set is not to be used after it refused a GPU: the next is made without that one.
                Err(Some(refused)) => reporting.retain(|(index, ..)| *index != refused),
                Err(None) => break,
            }
        }
        let is_watched = |index: &u32| listening.is_some() && reporting.iter().any(|(watched, ..)| watched == index);
        let missing = self.wanted.iter().copied().filter(|index| !is_watched(index)).collect();
        self.note_missing(missing);
        self.is_broken.store(listening.is_none() && !self.wanted.is_empty(), Relaxed);
        if let Some(listening) = listening {
            // Nobody waits any more: the process ends.
            drop(self.sets.send(listening));
        }
    }

    fn note_missing(&mut self, missing: Vec<u32>) {
        if missing == self.missing {
            return;
        }
        if missing.is_empty() {
            info!("NVML reports errors of all GPUs again");
        } else {
            warn!(gpus = ?missing, "NVML does not report errors of these GPUs");
        }
        self.missing = missing;
    }
}

impl Library {
    /// A GPU that reports XIDs, and its name; `None` if it does not report them.
    fn reporter(&self, index: u32) -> Result<Option<(Handle, String)>, NvmlError> {
        let note = |call| self.board.note(call, Some(index));
        note("nvmlDeviceGetHandleByIndex_v2");
        let handle = self.nvml.device_by_index(index)?;
        note("nvmlDeviceGetSupportedEventTypes");
        match handle.supported_event_types() {
            Ok(types) if types.contains(EventTypes::CRITICAL_XID_ERROR) => {}
            Ok(_) | Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        note("nvmlDeviceGetUUID");
        let uuid = handle.uuid()?;
        Ok(Some((handle, uuid)))
    }

    /// A set of all these GPUs, or the one that refused; `None` if there can be no set at all.
    fn set_of(&self, gpus: &[(u32, Handle, String)]) -> Result<EventSet<'static>, Option<u32>> {
        self.board.note("nvmlEventSetCreate", None);
        let set = self.nvml.create_event_set().map_err(|_| None)?;
        gpus.iter().try_fold(set, |set, (index, handle, _)| {
            self.board.note("nvmlDeviceRegisterEvents", Some(*index));
            handle.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|_| Some(*index))
        })
    }

    /// Whether a set of this GPU alone can be waited on.
    fn can_watch(&self, index: u32) -> bool {
        let Ok(Some((handle, uuid))) = self.reporter(index) else { return false };
        let Ok(set) = self.set_of(&[(index, handle, uuid)]) else { return false };
        self.board.note("nvmlEventSetWait_v2", Some(index));
        matches!(set.wait(0), Ok(_) | Err(NvmlError::Timeout))
    }
}

/// Waits for errors.
#[derive(Debug)]
pub(in super::super) struct XidEvents {
    newer: mpsc::Receiver<Listening>,
    /// None while nothing can be watched.
    current: Option<Listening>,
    is_broken: Arc<AtomicBool>,
    /// What the set before still had to tell.
    told: VecDeque<Reported>,
}

impl Events for XidEvents {
    fn next(&mut self) -> Option<Reported> {
        if let Some(reported) = self.told.pop_front() {
            return Some(reported);
        }
        while let Ok(newer) = self.newer.try_recv() {
            // What comes just now is in both: better told twice than never.
            if let Some(before) = self.current.replace(newer) {
                let last = (0..LAST_EVENTS_MAX).map_while(|_| before.set.wait(0).ok());
                self.told.extend(last.filter_map(|event| before.reported(&event)));
            }
        }
        let Some(listening) = &self.current else {
            self.current = self.newer.recv_timeout(WAIT).ok();
            return None;
        };
        match listening.set.wait(WAIT.as_millis() as u32) {
            Ok(event) => listening.reported(&event),
            Err(NvmlError::Timeout) => None,
            // Because of one GPU, but there is nothing more to be heard of any.
            Err(_) => {
                self.current = None;
                self.is_broken.store(true, Relaxed);
                None
            }
        }
    }
}

impl Listening {
    fn reported(&self, event: &EventData<'_>) -> Option<Reported> {
        let xid = match event.event_data.as_ref()? {
            XidError::Value(code) => u32::try_from(*code).unwrap_or(UNKNOWN_XID),
            XidError::Unknown => UNKNOWN_XID,
        };
        // A GPU that fell off the bus may not say its name: NVML has it from before.
        let gpu = event.device.uuid().ok().and_then(|uuid| self.indices.get(&uuid).copied());
        let gpu = gpu.or_else(|| event.device.index().ok())?;
        Some(Reported { gpu, xid })
    }
}

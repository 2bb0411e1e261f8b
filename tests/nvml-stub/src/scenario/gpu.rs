//! One GPU of a scenario, and what runs on it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Curve, uuid};
use crate::{kinds::Kind, readings::Reading};

/// NVML's number of a process's memory, or of its instance, when there is none.
pub(crate) const NOT_AVAILABLE: u64 = u64::MAX;

/// A GPU as the scenario has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gpu {
    pub(crate) kind: Kind,
    pub(crate) uuid: String,
    pub(crate) is_lost: bool,
    pub(crate) values: BTreeMap<Reading, Curve>,
    pub(crate) processes: Vec<Process>,
}

impl Gpu {
    pub(super) fn new(entry: &GpuEntry, index: usize) -> Self {
        let uuid = entry.uuid.clone().unwrap_or_else(|| uuid("GPU-", index as u64));
        let (values, processes) = (entry.values.clone(), entry.process.clone());
        Self { kind: entry.kind, uuid, is_lost: entry.lost, values, processes }
    }

    /// How much memory the processes that `on` selects use, as far as it is known.
    pub(crate) fn process_memory_bytes(&self, on: impl Fn(&Process) -> bool) -> u64 {
        let known = |process: &&Process| process.memory != NOT_AVAILABLE && on(process);
        self.processes.iter().filter(known).map(|process| process.memory).sum()
    }
}

/// A process that uses a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) memory: u64,
    #[serde(default)]
    pub(crate) kind: ProcessKind,
    #[serde(default)]
    pub(crate) sm: u32,
    #[serde(default)]
    pub(crate) mem: u32,
    #[serde(default)]
    pub(crate) enc: u32,
    #[serde(default)]
    pub(crate) dec: u32,
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) compute_instance: Option<u32>,
}

/// Which of NVML's lists a process is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProcessKind {
    #[default]
    Compute,
    Graphics,
    Mps,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GpuEntry {
    kind: Kind,
    #[serde(default = "one")]
    pub(super) count: usize,
    #[serde(default)]
    lost: bool,
    pub(super) uuid: Option<String>,
    #[serde(default)]
    values: BTreeMap<Reading, Curve>,
    #[serde(default)]
    process: Vec<Process>,
}

fn one() -> usize {
    1
}

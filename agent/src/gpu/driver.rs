//! The seam between Belfry and a maker's GPUs.
//!
//! A [`Driver`] lives in a worker process of its own and is driven by its requests ([`super::worker`]); all that the agent
//! knows of it is the worker's protocol. A further maker is one more implementation and one more [`Maker`].

use belfry_common::{model::Timestamp, wire::message};

use crate::readings::Readings;

/// Whose GPUs a worker reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Maker {
    Nvidia,
    Amd,
}

impl Maker {
    pub(crate) const ALL: [Self; 2] = [Self::Nvidia, Self::Amd];

    /// The word used in labels, and on the worker's command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Amd => "amd",
        }
    }

    /// The maker with this word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|maker| maker.as_str() == word)
    }
}

/// Readings that are due together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Set {
    /// Each second: what a GPU does. Cheap.
    Activity = 0,
    /// Every ten seconds: how it is, and who uses it. Dear.
    Condition = 1,
    /// Once a minute: what it is.
    Facts = 2,
}

impl Set {
    pub(crate) const ALL: [Self; 3] = [Self::Activity, Self::Condition, Self::Facts];

    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.code() == code)
    }
}

/// How a maker's driver stands on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum DriverState {
    /// It answers.
    Ok = 0,
    /// There is hardware, and no library to ask.
    NoLibrary = 1,
    /// The library is there, the kernel's driver is not loaded.
    NoDriver = 2,
    /// The agent may not open the devices.
    NoPermission = 3,
    /// Library and kernel driver are of different versions: an update without a reload.
    VersionMismatch = 4,
    /// The driver is loaded and has no GPU.
    NoDevices = 5,
    /// Anything else.
    Failed = 6,
    /// Asked, and not yet answered. From here on only the agent says so, not the worker.
    Starting = 16,
    /// Let go on request.
    Paused = 17,
    /// A call does not come back.
    Hung = 18,
    /// The worker died, and is started again after a while.
    Crashed = 19,
}

impl DriverState {
    pub(crate) const ALL: [Self; 11] = [
        Self::Ok,
        Self::NoLibrary,
        Self::NoDriver,
        Self::NoPermission,
        Self::VersionMismatch,
        Self::NoDevices,
        Self::Failed,
        Self::Starting,
        Self::Paused,
        Self::Hung,
        Self::Crashed,
    ];

    /// The word used in labels.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoLibrary => "no_library",
            Self::NoDriver => "no_driver",
            Self::NoPermission => "no_permission",
            Self::VersionMismatch => "version_mismatch",
            Self::NoDevices => "no_devices",
            Self::Failed => "failed",
            Self::Starting => "starting",
            Self::Paused => "paused",
            Self::Hung => "hung",
            Self::Crashed => "crashed",
        }
    }

    /// What to do about it; `None` if there is nothing to do.
    pub(crate) fn advice(self, maker: Maker) -> Option<&'static str> {
        let of_maker = |nvidia, amd| match maker {
            Maker::Nvidia => nvidia,
            Maker::Amd => amd,
        };
        Some(match self {
            Self::Ok => return None,
            Self::NoLibrary => {
                "there is a GPU, and its driver's library cannot be loaded: install the driver's user-space part \
                 (libnvidia-ml.so.1), or set `gpu.library`"
            }
            Self::NoDriver => of_maker(
                "the kernel's driver is not loaded: `modprobe nvidia`, and look at `dmesg`",
                "the kernel's driver is not loaded: `modprobe amdgpu`, and look at `dmesg`",
            ),
            Self::NoPermission => "the devices may not be opened: see /dev/nvidia* and the unit's DeviceAllow",
            Self::VersionMismatch => {
                "library and kernel driver are of different versions: reboot, or unload the driver and load it again"
            }
            Self::NoDevices => "the driver finds no GPU: look at `dmesg` and `lspci`",
            Self::Failed => "the driver cannot be used: the agent's log has its error",
            Self::Starting => "the driver is being opened, which takes long without persistence mode",
            Self::Paused => "`belfry-agent gpu resume` ends it",
            Self::Hung => of_maker(
                "a call to the driver does not come back: look at `dmesg` for XIDs; a reboot may be needed",
                "a file of the driver cannot be read to its end: look at `dmesg` for amdgpu; a reboot may be needed",
            ),
            Self::Crashed => of_maker(
                "the driver's library crashed: the agent's log has the call",
                "the process that reads the driver's files ended: the agent's log has the file",
            ),
        })
    }

    /// The state with this word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    pub(super) fn code(self) -> u8 {
        self as u8
    }

    /// The state with this number; one that this build does not know is a failure.
    pub(super) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|state| state.code() == code).unwrap_or(Self::Failed)
    }
}

/// Why a driver cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) state: DriverState,
    /// In words, for people.
    pub(super) detail: String,
}

/// A maker's GPUs.
pub(super) trait Driver {
    /// The GPUs that it knows. Others may come while it lives.
    fn gpus(&self) -> Vec<message::GpuIdentity>;

    /// Reads a set once. Each call that could hang is noted on the board before it is made.
    fn sample(&mut self, set: Set, time: Timestamp, readings: &mut Readings);

    /// Who uses the GPUs: of those that say it.
    fn holders(&mut self) -> Vec<message::GpuHolders>;

    /// What reports errors as they happen, if anything does. It gets a thread of its own.
    fn events(&mut self) -> Option<Box<dyn Events>>;
}

/// A source of errors that a driver reports.
pub(super) trait Events: Send {
    /// Waits for the next error, for about a second at most; `None` if there was none.
    fn next(&mut self) -> Option<Reported>;
}

/// An error that a driver reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) gpu: u32,
    pub(super) xid: u32,
}

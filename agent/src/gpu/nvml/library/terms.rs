//! Our own words for what NVML can be asked, and what they are in its bindings.

use nvml_wrapper::{
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{Clock as ClockType, EccCounter, MemoryError, MemoryLocation, TemperatureThreshold},
};

/// Bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Memory {
    pub(in super::super) total: u64,
    pub(in super::super) used: u64,
    pub(in super::super) free: u64,
    /// By the driver; drivers before 510 count it as used.
    pub(in super::super) reserved: Option<u64>,
}

/// A process that holds a GPU.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Holder {
    pub(in super::super) pid: u32,
    pub(in super::super) memory: Option<u64>,
    pub(in super::super) gpu_instance: Option<u32>,
    pub(in super::super) compute_instance: Option<u32>,
}

/// A clock of the GPU.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Clock {
    Graphics,
    Sm,
    Memory,
    Video,
}

/// A temperature at which something happens.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Threshold {
    Shutdown,
    Slowdown,
    MemoryMax,
    GpuMax,
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) enum EccType {
    Corrected,
    Uncorrected,
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) enum EccScope {
    /// Since the driver was loaded.
    Volatile,
    /// In the card's life.
    Aggregate,
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Location {
    L1,
    L2,
    Dram,
    Registers,
    Texture,
    Cbu,
    Sram,
}

/// Why clocks are lower than they could be: NVML's bits.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct ClockEvents(pub(super) u64);

impl ClockEvents {
    /// The word for each reason, with its bit.
    pub(in super::super) const ALL: [(&'static str, u64); 9] = [
        ("gpu_idle", ThrottleReasons::GPU_IDLE.bits()),
        ("applications_clocks_setting", ThrottleReasons::APPLICATIONS_CLOCKS_SETTING.bits()),
        ("sw_power_cap", ThrottleReasons::SW_POWER_CAP.bits()),
        ("hw_slowdown", ThrottleReasons::HW_SLOWDOWN.bits()),
        ("sync_boost", ThrottleReasons::SYNC_BOOST.bits()),
        ("sw_thermal_slowdown", ThrottleReasons::SW_THERMAL_SLOWDOWN.bits()),
        ("hw_thermal_slowdown", ThrottleReasons::HW_THERMAL_SLOWDOWN.bits()),
        ("hw_power_brake_slowdown", ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN.bits()),
        ("display_clock_setting", ThrottleReasons::DISPLAY_CLOCK_SETTING.bits()),
    ];

    pub(in super::super) fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

impl From<Clock> for ClockType {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Graphics => Self::Graphics,
            Clock::Sm => Self::SM,
            Clock::Memory => Self::Memory,
            Clock::Video => Self::Video,
        }
    }
}

impl From<EccType> for MemoryError {
    fn from(kind: EccType) -> Self {
        match kind {
            EccType::Corrected => Self::Corrected,
            EccType::Uncorrected => Self::Uncorrected,
        }
    }
}

impl From<EccScope> for EccCounter {
    fn from(scope: EccScope) -> Self {
        match scope {
            EccScope::Volatile => Self::Volatile,
            EccScope::Aggregate => Self::Aggregate,
        }
    }
}

impl From<Threshold> for TemperatureThreshold {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Shutdown => Self::Shutdown,
            Threshold::Slowdown => Self::Slowdown,
            Threshold::MemoryMax => Self::MemoryMax,
            Threshold::GpuMax => Self::GpuMax,
        }
    }
}

impl From<Location> for MemoryLocation {
    fn from(location: Location) -> Self {
        match location {
            Location::L1 => Self::L1Cache,
            Location::L2 => Self::L2Cache,
            Location::Dram => Self::Device,
            Location::Registers => Self::RegisterFile,
            Location::Texture => Self::Texture,
            Location::Cbu => Self::Cbu,
            Location::Sram => Self::SRAM,
        }
    }
}

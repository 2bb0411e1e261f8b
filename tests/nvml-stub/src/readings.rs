//! Everything about a GPU that changes, under the name that a scenario's `[gpu.values]` has for it.
//!
//! The list is closed: another name is refused when the scenario is loaded. What never changes about a card is in
//! `kinds`.

use serde::Deserialize;

/// A reading. Units are those of the NVML call or field that it comes out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reading {
    /// °C.
    Temperature,
    MemoryTemperature,
    /// °C left until the card slows down; without an override, what `temperature` leaves.
    TemperatureMargin,

    /// mW over the last second; without an override, what `power_instant` is.
    PowerAverage,
    PowerInstant,
    /// mW, the limit in force.
    PowerLimit,
    /// mJ since the driver was loaded.
    Energy,

    /// %.
    UtilizationGpu,
    UtilizationMemory,
    UtilizationEncoder,
    UtilizationDecoder,
    UtilizationJpeg,
    UtilizationOfa,

    /// Bytes; without an override, what the processes use and a little more.
    MemoryUsed,
    MemoryReserved,
    Bar1Used,

    /// MHz.
    ClockGraphics,
    ClockSm,
    ClockMemory,
    ClockVideo,
    /// NVML's bit mask.
    ClockEventReasons,
    /// ns, like the six after it.
    ClockEventPowerCapTime,
    ClockEventSyncBoostTime,
    ClockEventSoftwareThermalTime,
    ClockEventHardwareThermalTime,
    ClockEventPowerBrakeTime,
    PerfPolicyBoardLimitTime,
    PerfPolicyLowUtilizationTime,
    PerfPolicyReliabilityTime,
    /// 0 is P0.
    PerformanceState,
    /// %. A card has a fan when it is given this.
    FanSpeed,

    PcieGeneration,
    PcieWidth,
    PcieReplays,
    PcieTransmitBytes,
    PcieReceiveBytes,
    PcieCorrectableErrors,
    PcieNaksReceived,
    PcieReceiverErrors,
    PcieBadTlps,
    PcieNaksSent,
    PcieBadDllps,
    PcieNonFatalErrors,
    PcieFatalErrors,
    PcieUnsupportedRequests,
    PcieLcrcErrors,
    PcieLaneErrors,

    /// A bit for each link that is down.
    NvlinkInactive,
    /// Bytes over all links, which share them evenly.
    NvlinkTransmitBytes,
    NvlinkReceiveBytes,
    /// Errors of the GPU, all of them on link 0.
    NvlinkReplayErrors,
    NvlinkRecoveryErrors,
    NvlinkCrcFlitErrors,
    NvlinkCrcDataErrors,
    NvlinkMalformedPackets,
    NvlinkSymbolErrors,
    NvlinkEffectiveErrors,

    /// 0 or 1. Without ECC there are no counts.
    EccEnabled,
    EccDramCorrectedVolatile,
    EccDramCorrectedAggregate,
    EccDramUncorrectedVolatile,
    EccDramUncorrectedAggregate,
    /// On an old card, of its register file.
    EccSramCorrectedVolatile,
    EccSramCorrectedAggregate,
    EccSramUncorrectedVolatile,
    EccSramUncorrectedAggregate,
    RetiredPagesSingleBit,
    RetiredPagesDoubleBit,
    RetiredPagesPending,
    RemappedRowsCorrectable,
    RemappedRowsUncorrectable,
    RemappedRowsPending,
    RemappedRowsFailure,

    PersistenceMode,
    ComputeMode,
    RecoveryAction,
    FabricState,
    /// An NVML error code as a number.
    FabricStatus,
    FabricHealthMask,
    FabricHealthSummary,

    /// %, as GPM computes it.
    GpmGraphics,
    GpmSm,
    GpmSmOccupancy,
    GpmInteger,
    GpmTensor,
    GpmDram,
    GpmFp64,
    GpmFp32,
    GpmFp16,
}

impl Reading {
    /// Whether it adds up over time, and so must not fall back when a scenario is loaded again.
    pub(crate) fn accumulates(self) -> bool {
        matches!(
            self,
            Self::Energy
                | Self::ClockEventPowerCapTime
                | Self::ClockEventSyncBoostTime
                | Self::ClockEventSoftwareThermalTime
                | Self::ClockEventHardwareThermalTime
                | Self::ClockEventPowerBrakeTime
                | Self::PerfPolicyBoardLimitTime
                | Self::PerfPolicyLowUtilizationTime
                | Self::PerfPolicyReliabilityTime
                | Self::PcieTransmitBytes
                | Self::PcieReceiveBytes
                | Self::NvlinkTransmitBytes
                | Self::NvlinkReceiveBytes
        )
    }
}

//! The values of `nvmlDeviceGetFieldValues`: what each id means, in which type, and what its scope is.
//!
//! Absent: fields that no kind of card here has (C2C, power smoothing, workload profiles, FEC histories).

use nvml_wrapper_sys::bindings::{self as nvml, field_id as id, nvmlValue_t, nvmlValueType_t};

use crate::{
    card::{Card, Counter, Errors},
    codes::Code,
    readings::Reading,
    scenario::Number,
};

/// The scope that stands for all links.
const ALL_LINKS: u32 = u32::MAX;

/// By how much the ids of the times of clock events moved up in drivers from 580.82 on.
const RENUMBERED_BY: u32 = 18;

/// A bit error rate too small to be measured, as NVML packs it: 15 × 10⁻²⁵⁵.
const BIT_ERROR_RATE_NONE: u64 = 15 << nvml::NVML_NVLINK_BER_MANTISSA_SHIFT | 255;

/// How long a link idles before it saves power, in units of 100 µs.
const POWER_THRESHOLD: u32 = 20;

/// A value in the type that NVML gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    U32(u32),
    U64(u64),
    I32(i32),
}

impl Value {
    pub(crate) fn kind(self) -> nvmlValueType_t {
        match self {
            Self::U32(_) => nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT,
            Self::U64(_) => nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
            Self::I32(_) => nvml::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT,
        }
    }

    /// NVML's union, with nothing left over in its other bytes.
    pub(crate) fn union(self) -> nvmlValue_t {
        let bits = match self {
            Self::U32(value) => value.into(),
            Self::U64(value) => value,
            Self::I32(value) => u64::from(value as u32),
        };
        nvmlValue_t { ullVal: bits }
    }

    pub(crate) fn with(self, number: Number) -> Self {
        match self {
            Self::U32(_) => Self::U32(number.as_u32()),
            Self::U64(_) => Self::U64(number.as_u64()),
            Self::I32(_) => Self::I32(number.as_i32()),
        }
    }
}

/// One field of a card.
pub(crate) fn value(card: &Card<'_>, field: u32, scope: u32) -> Result<Value, Code> {
    if field == 0 || field >= id::NVML_FI_MAX {
        return Err(Code::InvalidArgument);
    }
    if field > card.model.field_last {
        return Err(Code::NotSupported);
    }
    match field {
        id::NVML_FI_DEV_ECC_CURRENT..=id::NVML_FI_DEV_ECC_DBE_AGG_CBU => ecc(card, field),
        id::NVML_FI_DEV_POWER_AVERAGE..=id::NVML_FI_DEV_POWER_REQUESTED_LIMIT => power(card, field, scope),
        id::NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT..=id::NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT => {
            let margins = card.model.margins.ok_or(Code::NotSupported)?;
            let margin = margins.get((field - id::NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT) as usize);
            margin.copied().map(Value::I32).ok_or(Code::NotSupported)
        }
        id::NVML_FI_DEV_NVLINK_LINK_COUNT => {
            Ok(Value::U32(card.model.nvlink.as_ref().map_or(0, |nvlink| nvlink.links)))
        }
        id::NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS | id::NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS => {
            Ok(Value::U64(0))
        }
        _ => match reading(card, field) {
            Some(Plain::Narrow(reading)) => card.u32(reading).map(Value::U32),
            Some(Plain::Wide(reading)) => card.u64(reading).map(Value::U64),
            None => numbered_link(card, field).unwrap_or_else(|| scoped_link(card, field, scope)),
        },
    }
}

/// A field that is a reading as it is, in 32 or 64 bits.
enum Plain {
    Narrow(Reading),
    Wide(Reading),
}

fn reading(card: &Card<'_>, field: u32) -> Option<Plain> {
    let pcie = PCIE_ERRORS.get(field.wrapping_sub(id::NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS) as usize);
    if let Some(reading) = pcie {
        return Some(Plain::Narrow(*reading));
    }
    if let Some(reading) = clock_event_time(card, field) {
        return Some(Plain::Wide(reading));
    }
    Some(match field {
        id::NVML_FI_DEV_RETIRED_SBE => Plain::Wide(Reading::RetiredPagesSingleBit),
        id::NVML_FI_DEV_RETIRED_DBE => Plain::Wide(Reading::RetiredPagesDoubleBit),
        id::NVML_FI_DEV_RETIRED_PENDING | id::NVML_FI_DEV_RETIRED_PENDING_SBE | id::NVML_FI_DEV_RETIRED_PENDING_DBE => {
            Plain::Narrow(Reading::RetiredPagesPending)
        }
        id::NVML_FI_DEV_MEMORY_TEMP => Plain::Narrow(Reading::MemoryTemperature),
        id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION => Plain::Wide(Reading::Energy),
        id::NVML_FI_DEV_PCIE_REPLAY_COUNTER => Plain::Narrow(Reading::PcieReplays),
        id::NVML_FI_DEV_REMAPPED_COR => Plain::Narrow(Reading::RemappedRowsCorrectable),
        id::NVML_FI_DEV_REMAPPED_UNC => Plain::Narrow(Reading::RemappedRowsUncorrectable),
        id::NVML_FI_DEV_REMAPPED_PENDING => Plain::Narrow(Reading::RemappedRowsPending),
        id::NVML_FI_DEV_REMAPPED_FAILURE => Plain::Narrow(Reading::RemappedRowsFailure),
        id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES => Plain::Wide(Reading::PcieTransmitBytes),
        id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES => Plain::Wide(Reading::PcieReceiveBytes),
        id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Plain::Narrow(Reading::RecoveryAction),
        _ => return None,
    })
}

/// Ids from `NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS` on.
const PCIE_ERRORS: [Reading; 11] = [
    Reading::PcieCorrectableErrors,
    Reading::PcieNaksReceived,
    Reading::PcieReceiverErrors,
    Reading::PcieBadTlps,
    Reading::PcieNaksSent,
    Reading::PcieBadDllps,
    Reading::PcieNonFatalErrors,
    Reading::PcieFatalErrors,
    Reading::PcieUnsupportedRequests,
    Reading::PcieLcrcErrors,
    Reading::PcieLaneErrors,
];

fn clock_event_time(card: &Card<'_>, field: u32) -> Option<Reading> {
    let moved_by = if card.scenario.has_renumbered_fields() { RENUMBERED_BY } else { 0 };
    match field {
        id::NVML_FI_DEV_PERF_POLICY_POWER => Some(Reading::ClockEventPowerCapTime),
        id::NVML_FI_DEV_PERF_POLICY_THERMAL => Some(Reading::ClockEventSoftwareThermalTime),
        id::NVML_FI_DEV_PERF_POLICY_SYNC_BOOST => Some(Reading::ClockEventSyncBoostTime),
        id::NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT => Some(Reading::PerfPolicyBoardLimitTime),
        id::NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION => Some(Reading::PerfPolicyLowUtilizationTime),
        id::NVML_FI_DEV_PERF_POLICY_RELIABILITY => Some(Reading::PerfPolicyReliabilityTime),
        _ => match field.checked_sub(moved_by)? {
            id::NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN => Some(Reading::ClockEventSoftwareThermalTime),
            id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN => Some(Reading::ClockEventHardwareThermalTime),
            id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN => Some(Reading::ClockEventPowerBrakeTime),
            _ => None,
        },
    }
}

fn ecc(card: &Card<'_>, field: u32) -> Result<Value, Code> {
    use Counter::{Aggregate, Volatile};
    use Errors::{Corrected, Uncorrected};
    const LOCATIONS: [u32; 6] = [
        nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_L1_CACHE,
        nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_L2_CACHE,
        nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM,
        nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_REGISTER_FILE,
        nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_TEXTURE_MEMORY,
        nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_CBU,
    ];
    let total = |errors, counter| card.ecc_total(errors, counter).map(Value::U64);
    let (place, counter) = match field {
        id::NVML_FI_DEV_ECC_CURRENT | id::NVML_FI_DEV_ECC_PENDING => {
            return card.u32(Reading::EccEnabled).map(Value::U32);
        }
        id::NVML_FI_DEV_ECC_SBE_VOL_TOTAL => return total(Corrected, Volatile),
        id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL => return total(Uncorrected, Volatile),
        id::NVML_FI_DEV_ECC_SBE_AGG_TOTAL => return total(Corrected, Aggregate),
        id::NVML_FI_DEV_ECC_DBE_AGG_TOTAL => return total(Uncorrected, Aggregate),
        id::NVML_FI_DEV_ECC_SBE_VOL_L1..=id::NVML_FI_DEV_ECC_DBE_VOL_CBU => {
            (field - id::NVML_FI_DEV_ECC_SBE_VOL_L1, Volatile)
        }
        _ => (field - id::NVML_FI_DEV_ECC_SBE_AGG_L1, Aggregate),
    };
    let location = LOCATIONS.get((place / 2) as usize).copied().ok_or(Code::NotSupported)?;
    // Two ids a location, corrected first; but the last location has uncorrected errors only.
    let is_last = location == nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_CBU;
    let errors = if place.is_multiple_of(2) && !is_last { Corrected } else { Uncorrected };
    card.ecc_at(errors, counter, location).map(Value::U64)
}

fn power(card: &Card<'_>, field: u32, scope: u32) -> Result<Value, Code> {
    if field == id::NVML_FI_DEV_ENERGY {
        return card.u64(Reading::Energy).map(Value::U64);
    }
    if scope != nvml::NVML_POWER_SCOPE_GPU {
        return Err(Code::NotSupported);
    }
    let milliwatts = match field {
        id::NVML_FI_DEV_POWER_AVERAGE => card.power_average()?,
        id::NVML_FI_DEV_POWER_INSTANT => card.u32(Reading::PowerInstant)?,
        id::NVML_FI_DEV_POWER_MIN_LIMIT => card.model.power_min,
        id::NVML_FI_DEV_POWER_MAX_LIMIT => card.model.power_max,
        id::NVML_FI_DEV_POWER_DEFAULT_LIMIT => card.model.power_default,
        _ => card.u32(Reading::PowerLimit)?,
    };
    Ok(Value::U32(milliwatts))
}

/// A field that has its link, or all of them, in its id.
fn numbered_link(card: &Card<'_>, field: u32) -> Option<Result<Value, Code>> {
    let low = |first: u32| field.checked_sub(first).filter(|link| *link < 6);
    let high = |first: u32| field.checked_sub(first).filter(|link| *link < 6).map(|link| link + 6);
    for (low_first, high_first, total, reading) in NUMBERED_ERRORS {
        if let Some(link) = low(low_first).or_else(|| high(high_first)) {
            return Some(card.link_errors(reading, Some(link)).map(Value::U64));
        }
        if field == total {
            return Some(card.link_errors(reading, None).map(Value::U64));
        }
    }
    if let id::NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_L0..=id::NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL = field {
        let counts = card.nvlink().is_ok_and(|nvlink| nvlink.has_ecc_counters);
        return Some(if counts { Ok(Value::U64(0)) } else { Err(Code::NotSupported) });
    }
    let speed = |link: u32| card.nvlink_of(link).map(|nvlink| Value::U32(nvlink.speed_mbps));
    let link = low(id::NVML_FI_DEV_NVLINK_SPEED_MBPS_L0).or_else(|| high(id::NVML_FI_DEV_NVLINK_SPEED_MBPS_L6));
    let common = (field == id::NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON).then_some(0);
    link.or(common).map(speed)
}

/// The first ids of links 0–5 and 6–11, the id of all, and the reading.
const NUMBERED_ERRORS: [(u32, u32, u32, Reading); 4] = [
    (
        id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L0,
        id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L6,
        id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
        Reading::NvlinkCrcFlitErrors,
    ),
    (
        id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L0,
        id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L6,
        id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
        Reading::NvlinkCrcDataErrors,
    ),
    (
        id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_L0,
        id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_L6,
        id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
        Reading::NvlinkReplayErrors,
    ),
    (
        id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_L0,
        id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_L6,
        id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
        Reading::NvlinkRecoveryErrors,
    ),
];

/// A field whose scope is its link.
fn scoped_link(card: &Card<'_>, field: u32, scope: u32) -> Result<Value, Code> {
    let link = (scope != ALL_LINKS).then_some(scope);
    let kib = |reading| card.link_traffic(reading, link).map(|bytes| Value::U64(bytes / 1024));
    let errors = |reading| card.link_errors(reading, link).map(Value::U64);
    match field {
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX => kib(Reading::NvlinkTransmitBytes),
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX => kib(Reading::NvlinkReceiveBytes),
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX => raw(card, Reading::NvlinkTransmitBytes, link),
        id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX => raw(card, Reading::NvlinkReceiveBytes, link),
        id::NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY => errors(Reading::NvlinkReplayErrors),
        id::NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY => errors(Reading::NvlinkRecoveryErrors),
        id::NVML_FI_DEV_NVLINK_ERROR_DL_CRC => errors(Reading::NvlinkCrcFlitErrors),
        id::NVML_FI_DEV_NVLINK_GET_SPEED..=id::NVML_FI_DEV_NVLINK_GET_POWER_THRESHOLD => {
            link_state(card, field, link.ok_or(Code::InvalidArgument)?)
        }
        id::NVML_FI_DEV_NVLINK_COUNT_XMIT_PACKETS..=id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER => {
            packets(card, field, link)
        }
        _ => Err(Code::NotSupported),
    }
}

/// With the protocol's part, an eighth of the data.
fn raw(card: &Card<'_>, reading: Reading, link: Option<u32>) -> Result<Value, Code> {
    let bytes = card.link_traffic(reading, link)?;
    Ok(Value::U64(bytes.saturating_add(bytes / 8) / 1024))
}

fn link_state(card: &Card<'_>, field: u32, link: u32) -> Result<Value, Code> {
    let nvlink = card.nvlink_of(link)?;
    Ok(Value::U32(match field {
        id::NVML_FI_DEV_NVLINK_GET_SPEED => nvlink.speed_mbps,
        id::NVML_FI_DEV_NVLINK_GET_STATE => card.is_link_active(link)?.into(),
        id::NVML_FI_DEV_NVLINK_GET_VERSION => nvlink.version,
        // Links save power from their fourth generation on.
        _ if nvlink.version < nvml::nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_4_0 => return Err(Code::NotSupported),
        id::NVML_FI_DEV_NVLINK_GET_POWER_STATE => nvml::NVML_NVLINK_POWER_STATE_HIGH_SPEED,
        _ => POWER_THRESHOLD,
    }))
}

fn packets(card: &Card<'_>, field: u32, link: Option<u32>) -> Result<Value, Code> {
    /// Bytes of a full packet.
    const PACKET_BYTES: u64 = 144;
    if !card.nvlink()?.has_packet_counters {
        return Err(Code::NotSupported);
    }
    let traffic = |reading| card.link_traffic(reading, link);
    let count = match field {
        id::NVML_FI_DEV_NVLINK_COUNT_XMIT_PACKETS => traffic(Reading::NvlinkTransmitBytes)? / PACKET_BYTES,
        id::NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES => traffic(Reading::NvlinkTransmitBytes)?,
        id::NVML_FI_DEV_NVLINK_COUNT_RCV_PACKETS => traffic(Reading::NvlinkReceiveBytes)? / PACKET_BYTES,
        id::NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES => traffic(Reading::NvlinkReceiveBytes)?,
        id::NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS => {
            card.link_errors(Reading::NvlinkMalformedPackets, link)?
        }
        id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS => card.link_errors(Reading::NvlinkEffectiveErrors, link)?,
        id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS => card.link_errors(Reading::NvlinkSymbolErrors, link)?,
        id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS
        | id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS => card.link_errors(Reading::NvlinkRecoveryErrors, link)?,
        id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER | id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER => BIT_ERROR_RATE_NONE,
        id::NVML_FI_DEV_NVLINK_COUNT_VL15_DROPPED
        | id::NVML_FI_DEV_NVLINK_COUNT_RAW_BER_LANE0
        | id::NVML_FI_DEV_NVLINK_COUNT_RAW_BER_LANE1
        | id::NVML_FI_DEV_NVLINK_COUNT_RAW_BER => return Err(Code::NotSupported),
        // Kinds of errors that no reading stands for.
        _ => 0,
    };
    if let Some(link) = link {
        card.nvlink_of(link)?;
    }
    Ok(Value::U64(count))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::{clock::Moment, handle::Handle, scenario::Scenario};

    fn scenario(kind: &str, values: &str) -> Scenario {
        Scenario::from_str(&format!("[[gpu]]\nkind = \"{kind}\"\n[gpu.values]\n{values}")).unwrap()
    }

    fn check(scenario: &Scenario, expected: &[(u32, u32, Result<Value, Code>)]) {
        let moment = Moment { since_boot: 100.0, ..Moment::default() };
        let card = Card::new(scenario, Handle { gpu: 0, mig: None }, moment).unwrap();
        for (field, scope, expected) in expected {
            assert_eq!(value(&card, *field, *scope), *expected, "field {field}, scope {scope}");
        }
    }

    #[test]
    fn a_hopper_answers_in_nvmls_types() {
        let values = "temperature = 50\necc_dram_corrected_aggregate = 2\necc_sram_uncorrected_volatile = 1\n\
            pcie_lane_errors = 4\nrecovery_action = 2";
        check(
            &scenario("h100", values),
            &[
                (1, 0, Ok(Value::U32(1))),
                (4, 0, Ok(Value::U64(1))),
                (5, 0, Ok(Value::U64(2))),
                (7, 0, Err(Code::NotSupported)),
                (22, 0, Ok(Value::U64(2))),
                (29, 0, Err(Code::NotSupported)),
                (82, 0, Ok(Value::U32(54))),
                (83, 0, Ok(Value::U64(41_230_000))),
                (91, 0, Ok(Value::U32(18))),
                (142, 0, Ok(Value::U32(0))),
                (183, 0, Ok(Value::U32(4))),
                (185, 0, Ok(Value::U32(412_300))),
                (186, 1, Err(Code::NotSupported)),
                (187, 0, Ok(Value::U32(200_000))),
                (193, 0, Ok(Value::I32(-8))),
                (196, 0, Ok(Value::I32(0))),
                (197, 0, Ok(Value::U64(320_000_000_000))),
                (230, 0, Ok(Value::U32(2))),
                (0, 0, Err(Code::InvalidArgument)),
                (274, 0, Err(Code::InvalidArgument)),
            ],
        );
    }

    #[test]
    fn links_are_scoped_or_numbered() {
        let values = "nvlink_transmit_bytes = 1843200\nnvlink_replay_errors = 5\nnvlink_inactive = 2\n\
            nvlink_symbol_errors = 3";
        check(
            &scenario("h100", values),
            &[
                (138, u32::MAX, Ok(Value::U64(1800))),
                (138, 17, Ok(Value::U64(100))),
                (138, 18, Err(Code::InvalidArgument)),
                (140, 0, Ok(Value::U64(112))),
                (46, 0, Ok(Value::U64(5))),
                (47, 0, Ok(Value::U64(0))),
                (108, 0, Ok(Value::U64(0))),
                (52, 0, Ok(Value::U64(5))),
                (161, 0, Ok(Value::U64(5))),
                (161, 1, Ok(Value::U64(0))),
                (164, 0, Ok(Value::U32(26_562))),
                (165, 0, Ok(Value::U32(1))),
                (165, 1, Ok(Value::U32(0))),
                (165, u32::MAX, Err(Code::InvalidArgument)),
                (168, 0, Ok(Value::U32(20))),
                (202, 3, Ok(Value::U64(102_400))),
                (221, 0, Ok(Value::U64(3))),
                (212, u32::MAX, Ok(Value::U64(0))),
                (160, 0, Err(Code::NotSupported)),
            ],
        );
        check(
            &scenario("a100", values),
            &[
                (165, 12, Err(Code::NotSupported)),
                (166, 0, Ok(Value::U32(4))),
                (167, 0, Err(Code::NotSupported)),
                (202, 0, Err(Code::NotSupported)),
                (160, 0, Ok(Value::U64(0))),
                (84, 0, Ok(Value::U32(25_781))),
            ],
        );
    }

    #[test]
    fn an_old_card_knows_no_new_fields() {
        check(
            &scenario("k80", "ecc_dram_corrected_volatile = 9\nretired_pages_single_bit = 1"),
            &[
                (3, 0, Ok(Value::U64(9))),
                (7, 0, Ok(Value::U64(0))),
                (17, 0, Err(Code::NotSupported)),
                (29, 0, Ok(Value::U64(1))),
                (74, 0, Ok(Value::U64(50_000_000))),
                (82, 0, Err(Code::NotSupported)),
                (83, 0, Err(Code::NotSupported)),
                (94, 0, Ok(Value::U32(0))),
                (138, 0, Err(Code::NotSupported)),
                (186, 0, Err(Code::NotSupported)),
            ],
        );
    }

    #[test]
    fn times_of_clock_events_move_with_the_driver() {
        let mut scenario = scenario("h100", "clock_event_hardware_thermal_time = 7");
        check(&scenario, &[(252, 0, Ok(Value::U64(7))), (270, 0, Err(Code::NotSupported))]);
        scenario.driver_version = "580.82.07".to_owned();
        check(&scenario, &[(252, 0, Err(Code::NotSupported)), (270, 0, Ok(Value::U64(7)))]);
    }

    #[test]
    fn a_number_takes_the_place_of_a_value_in_its_type() {
        let number = Number::Integer(0xffff_ffff);
        assert_eq!(Value::U32(1).with(number), Value::U32(u32::MAX));
        assert_eq!(Value::U64(1).with(number), Value::U64(0xffff_ffff));
        assert_eq!(Value::I32(1).with(number), Value::I32(-1));
    }
}

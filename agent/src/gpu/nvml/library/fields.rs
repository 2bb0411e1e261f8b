//! Many readings in one call: NVML's numbered fields, each with a scope of its own (a link, or all of them).
//!
//! The bindings' own call knows no scopes, so this goes to the function itself.

use belfry_common::model::Reason;
use nvml_wrapper::error::nvml_sym;
use nvml_wrapper_sys::bindings::{self, field_id as id, nvmlFieldValue_t};

use super::{Device, is_renumbered, reason};

/// A numbered field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) struct Field {
    /// By the numbers of NVML 12.
    number: u32,
    scope: u32,
}

impl Field {
    pub(in super::super) const MEMORY_TEMPERATURE: Self = Self::new(id::NVML_FI_DEV_MEMORY_TEMP);
    /// mW
    pub(in super::super) const POWER_AVERAGE: Self = Self::new(id::NVML_FI_DEV_POWER_AVERAGE);
    /// mW
    pub(in super::super) const POWER_INSTANT: Self = Self::new(id::NVML_FI_DEV_POWER_INSTANT);
    pub(in super::super) const PCIE_TRANSMIT_BYTES: Self = Self::new(id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES);
    pub(in super::super) const PCIE_RECEIVE_BYTES: Self = Self::new(id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES);
    pub(in super::super) const RECOVERY_ACTION: Self = Self::new(id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION);
    pub(in super::super) const ROWS_CORRECTED: Self = Self::new(id::NVML_FI_DEV_REMAPPED_COR);
    pub(in super::super) const ROWS_UNCORRECTED: Self = Self::new(id::NVML_FI_DEV_REMAPPED_UNC);
    pub(in super::super) const ROWS_PENDING: Self = Self::new(id::NVML_FI_DEV_REMAPPED_PENDING);
    pub(in super::super) const ROWS_FAILURE: Self = Self::new(id::NVML_FI_DEV_REMAPPED_FAILURE);
    pub(in super::super) const LINK_COUNT: Self = Self::new(id::NVML_FI_DEV_NVLINK_LINK_COUNT);

    /// Time in nanoseconds that clocks were held down for each reason.
    pub(in super::super) const CLOCK_EVENT_TIMES: [(&'static str, Self); 9] = [
        ("power", Self::new(id::NVML_FI_DEV_PERF_POLICY_POWER)),
        ("thermal", Self::new(id::NVML_FI_DEV_PERF_POLICY_THERMAL)),
        ("board_limit", Self::new(id::NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT)),
        ("low_utilization", Self::new(id::NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION)),
        ("reliability", Self::new(id::NVML_FI_DEV_PERF_POLICY_RELIABILITY)),
        ("sync_boost", Self::new(id::NVML_FI_DEV_PERF_POLICY_SYNC_BOOST)),
        ("sw_thermal_slowdown", Self::new(id::NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN)),
        ("hw_thermal_slowdown", Self::new(id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN)),
        ("hw_power_brake_slowdown", Self::new(id::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN)),
    ];

    /// Errors of one link, each with the word for its kind. What a generation of NVLink does not count is unsupported.
    pub(in super::super) const LINK_ERRORS: [(&'static str, Self); 9] = [
        ("crc", Self::new(id::NVML_FI_DEV_NVLINK_ERROR_DL_CRC)),
        ("replay", Self::new(id::NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY)),
        ("recovery", Self::new(id::NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY)),
        ("malformed_packet", Self::new(id::NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS)),
        ("buffer_overrun", Self::new(id::NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS)),
        ("local_integrity", Self::new(id::NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS)),
        ("recovery_failed", Self::new(id::NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS)),
        ("effective", Self::new(id::NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS)),
        ("symbol", Self::new(id::NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS)),
    ];
    /// KiB of user data over one link.
    pub(in super::super) const LINK_TRANSMIT: Self = Self::new(id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX);
    pub(in super::super) const LINK_RECEIVE: Self = Self::new(id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX);

    /// Errors of all links together, in flits, data and so on: what generations before Hopper count.
    pub(in super::super) const LINKS_ERRORS: [(&'static str, Self); 4] = [
        ("crc_flit", Self::new(id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL)),
        ("crc_data", Self::new(id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL)),
        ("replay", Self::new(id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL)),
        ("recovery", Self::new(id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL)),
    ];

    /// Errors of the PCI Express link, each with the word for its kind.
    pub(in super::super) const PCIE_ERRORS: [(&'static str, Self); 10] = [
        ("correctable", Self::new(id::NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS)),
        ("naks_received", Self::new(id::NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED)),
        ("naks_sent", Self::new(id::NVML_FI_DEV_PCIE_COUNT_NAKS_SENT)),
        ("receiver", Self::new(id::NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR)),
        ("bad_tlp", Self::new(id::NVML_FI_DEV_PCIE_COUNT_BAD_TLP)),
        ("bad_dllp", Self::new(id::NVML_FI_DEV_PCIE_COUNT_BAD_DLLP)),
        ("non_fatal", Self::new(id::NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR)),
        ("fatal", Self::new(id::NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR)),
        ("unsupported_request", Self::new(id::NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ)),
        ("lcrc", Self::new(id::NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR)),
    ];

    const fn new(number: u32) -> Self {
        Self { number, scope: 0 }
    }

    /// The same of one link.
    pub(in super::super) const fn of_link(self, link: u32) -> Self {
        Self { number: self.number, scope: link }
    }

    /// The number that this driver knows it by.
    fn number_at(self, is_renumbered: bool) -> u32 {
        match self.number {
            // NVML 13.0.1 put other fields at these numbers, and these behind them.
            number @ 251..=255 if is_renumbered => number + 18,
            number => number,
        }
    }
}

/// A field's value as the driver gave it: unsigned counts, and the rest as a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum FieldValue {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl FieldValue {
    /// As a count; what cannot be one is out of range.
    pub(in super::super) fn count(self) -> Result<u64, Reason> {
        match self {
            Self::Unsigned(count) => Ok(count),
            Self::Signed(count) => u64::try_from(count).map_err(|_| Reason::OutOfRange),
            Self::Float(value) if value.fract() == 0.0 && (0.0..9e15).contains(&value) => Ok(value as u64),
            Self::Float(_) => Err(Reason::OutOfRange),
        }
    }

    pub(in super::super) fn float(self) -> f64 {
        match self {
            Self::Unsigned(count) => count as f64,
            Self::Signed(count) => count as f64,
            Self::Float(value) => value,
        }
    }
}

impl Device {
    /// The values of all these fields, in their order.
    #[expect(unsafe_code, reason = "the bindings' own call knows no scopes")]
    pub(in super::super) fn fields(&self, fields: &[Field]) -> Result<Vec<Result<FieldValue, Reason>>, Reason> {
        let is_renumbered = is_renumbered(self.handle().nvml());
        let mut values: Vec<nvmlFieldValue_t> = fields
            .iter()
            .map(|field| nvmlFieldValue_t {
                fieldId: field.number_at(is_renumbered),
                scopeId: field.scope,
                timestamp: 0,
                latencyUsec: 0,
                valueType: 0,
                nvmlReturn: bindings::nvmlReturn_enum_NVML_ERROR_UNKNOWN,
                value: bindings::nvmlValue_t { ullVal: 0 },
            })
            .collect();
        self.raw("nvmlDeviceGetFieldValues", |nvml, device| {
            let call = nvml_sym(nvml.nvmlDeviceGetFieldValues.as_ref())?;
            // SAFETY: it fills as many values as it is told there are.
            Ok(unsafe { call(device, values.len() as i32, values.as_mut_ptr()) })
        })?;
        Ok(values.iter().map(value).collect())
    }
}

#[expect(unsafe_code, reason = "the value is a union")]
fn value(field: &nvmlFieldValue_t) -> Result<FieldValue, Reason> {
    nvml_wrapper::error::nvml_try(field.nvmlReturn).map_err(|error| reason(&error))?;
    let value = &field.value;
    // SAFETY: every bit of the union was set above, and each of its members is plain data.
    unsafe {
        Ok(match field.valueType {
            bindings::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => FieldValue::Float(value.dVal),
            bindings::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => FieldValue::Unsigned(value.uiVal.into()),
            bindings::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG
            | bindings::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => FieldValue::Unsigned(value.ullVal),
            bindings::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => FieldValue::Signed(value.sllVal),
            bindings::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => FieldValue::Signed(value.siVal.into()),
            bindings::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => FieldValue::Unsigned(value.usVal.into()),
            // A type of a later NVML.
            _ => return Err(Reason::Unsupported),
        })
    }
}

//! DCGM's names: dashboards and rules that were written for dcgm-exporter find what they look for.
//!
//! Nothing is stored twice: a selector that names a field of DCGM reads our series of the same quantity, in DCGM's unit and
//! with dcgm-exporter's labels. Both generations of names answer, those before DCGM 4.6 and those since (which are in base
//! units, as their names say). Sources: NVIDIA's catalogue of field identifiers, and the default counters of dcgm-exporter.
//!
//! Absent: field 449, `DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL`. It is a rate that is exported as a counter; take
//! `rate(gpu_nvlink_transmit_bytes_total[1m])`.

use std::collections::HashMap;

use belfry_common::model::SeriesDefinition;
use belfry_promql::{Labels, METRIC_NAME, STALE_NAN, Sample};

use super::{INSTANCE, JOB, label};

/// Every name of DCGM's begins so.
pub(crate) const PREFIX: &str = "DCGM_";
/// A pattern that means these names, as `DCGM.*` does, has it.
pub(crate) const WORD: &str = "DCGM";

/// One name, and what answers to it.
#[derive(Debug)]
pub(crate) struct Alias {
    pub(crate) name: &'static str,
    /// Our metric.
    pub(crate) metric: &'static str,
    /// Labels that our series must have.
    only: &'static [(&'static str, &'static str)],
    /// DCGM's value is ours times this.
    scale: f64,
    /// Several of our series are one of DCGM's.
    pub(crate) is_sum: bool,
}

const fn one(name: &'static str, metric: &'static str, scale: f64) -> Alias {
    Alias { name, metric, only: &[], scale, is_sum: false }
}

const fn of(
    name: &'static str,
    metric: &'static str,
    only: &'static [(&'static str, &'static str)],
    scale: f64,
) -> Alias {
    Alias { name, metric, only, scale, is_sum: false }
}

const fn sum(name: &'static str, metric: &'static str, only: &'static [(&'static str, &'static str)]) -> Alias {
    Alias { name, metric, only, scale: 1.0, is_sum: true }
}

const PERCENT: f64 = 100.0;
const MIB: f64 = 1.0 / 1_048_576.0;
const MHZ: f64 = 1e-6;
const NANOS: f64 = 1e9;
const MILLI: f64 = 1e3;

const GPU: &[(&str, &str)] = &[("sensor", "gpu")];
const MEMORY: &[(&str, &str)] = &[("sensor", "memory")];
const SM_CLOCK: &[(&str, &str)] = &[("clock", "sm")];
const MEMORY_CLOCK: &[(&str, &str)] = &[("clock", "memory")];
const VIDEO_CLOCK: &[(&str, &str)] = &[("clock", "video")];
const ENFORCED: &[(&str, &str)] = &[("limit", "enforced")];
const SBE_VOLATILE: &[(&str, &str)] = &[("type", "corrected"), ("scope", "volatile")];
const DBE_VOLATILE: &[(&str, &str)] = &[("type", "uncorrected"), ("scope", "volatile")];
const SBE_AGGREGATE: &[(&str, &str)] = &[("type", "corrected"), ("scope", "aggregate")];
const DBE_AGGREGATE: &[(&str, &str)] = &[("type", "uncorrected"), ("scope", "aggregate")];
const SINGLE_BIT: &[(&str, &str)] = &[("cause", "multiple_single_bit")];
const DOUBLE_BIT: &[(&str, &str)] = &[("cause", "double_bit")];

/// All names. Those of the first generation and their successors stand side by side.
pub(crate) const ALIASES: &[Alias] = &[
    one("DCGM_FI_DEV_GPU_UTIL", "gpu_utilization_ratio", PERCENT),
    one("DCGM_FI_DEV_GPU_UTIL_RATIO", "gpu_utilization_ratio", 1.0),
    one("DCGM_FI_DEV_MEM_COPY_UTIL", "gpu_memory_copy_utilization_ratio", PERCENT),
    one("DCGM_FI_DEV_MEMORY_UTIL_RATIO", "gpu_memory_copy_utilization_ratio", 1.0),
    one("DCGM_FI_DEV_ENC_UTIL", "gpu_encoder_utilization_ratio", PERCENT),
    one("DCGM_FI_DEV_ENC_UTIL_RATIO", "gpu_encoder_utilization_ratio", 1.0),
    one("DCGM_FI_DEV_DEC_UTIL", "gpu_decoder_utilization_ratio", PERCENT),
    one("DCGM_FI_DEV_DEC_UTIL_RATIO", "gpu_decoder_utilization_ratio", 1.0),
    one("DCGM_FI_DEV_FB_USED", "gpu_memory_used_bytes", MIB),
    one("DCGM_FI_DEV_FB_USED_BYTES", "gpu_memory_used_bytes", 1.0),
    one("DCGM_FI_DEV_FB_FREE", "gpu_memory_free_bytes", MIB),
    one("DCGM_FI_DEV_FB_FREE_BYTES", "gpu_memory_free_bytes", 1.0),
    one("DCGM_FI_DEV_FB_RESERVED", "gpu_memory_reserved_bytes", MIB),
    one("DCGM_FI_DEV_FB_RESERVED_BYTES", "gpu_memory_reserved_bytes", 1.0),
    one("DCGM_FI_DEV_FB_TOTAL", "gpu_memory_total_bytes", MIB),
    one("DCGM_FI_DEV_FB_CAPACITY_BYTES", "gpu_memory_total_bytes", 1.0),
    of("DCGM_FI_DEV_GPU_TEMP", "gpu_temperature_celsius", GPU, 1.0),
    of("DCGM_FI_DEV_GPU_TEMP_CELSIUS", "gpu_temperature_celsius", GPU, 1.0),
    of("DCGM_FI_DEV_MEMORY_TEMP", "gpu_temperature_celsius", MEMORY, 1.0),
    of("DCGM_FI_DEV_MEMORY_TEMP_CELSIUS", "gpu_temperature_celsius", MEMORY, 1.0),
    one("DCGM_FI_DEV_GPU_TEMP_LIMIT", "gpu_temperature_margin_celsius", 1.0),
    one("DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS", "gpu_temperature_margin_celsius", 1.0),
    one("DCGM_FI_DEV_POWER_USAGE", "gpu_power_watts", 1.0),
    one("DCGM_FI_DEV_BOARD_POWER_WATTS", "gpu_power_watts", 1.0),
    one("DCGM_FI_DEV_POWER_USAGE_INSTANT", "gpu_power_instant_watts", 1.0),
    one("DCGM_FI_DEV_BOARD_POWER_RAW_WATTS", "gpu_power_instant_watts", 1.0),
    of("DCGM_FI_DEV_POWER_MGMT_LIMIT", "gpu_power_limit_watts", ENFORCED, 1.0),
    of("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "gpu_power_limit_watts", ENFORCED, 1.0),
    of("DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS", "gpu_power_limit_watts", ENFORCED, 1.0),
    one("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "gpu_energy_joules_total", MILLI),
    one("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "gpu_energy_joules_total", 1.0),
    of("DCGM_FI_DEV_SM_CLOCK", "gpu_clock_hertz", SM_CLOCK, MHZ),
    of("DCGM_FI_DEV_SM_CLOCK_HERTZ", "gpu_clock_hertz", SM_CLOCK, 1.0),
    of("DCGM_FI_DEV_MEM_CLOCK", "gpu_clock_hertz", MEMORY_CLOCK, MHZ),
    of("DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", "gpu_clock_hertz", MEMORY_CLOCK, 1.0),
    of("DCGM_FI_DEV_VIDEO_CLOCK", "gpu_clock_hertz", VIDEO_CLOCK, MHZ),
    of("DCGM_FI_DEV_VIDEO_CLOCK_HERTZ", "gpu_clock_hertz", VIDEO_CLOCK, 1.0),
    of("DCGM_FI_DEV_POWER_VIOLATION", "gpu_clock_event_seconds_total", &[("reason", "power")], NANOS),
    of("DCGM_FI_DEV_GPU_POWER_THROTTLE_SECONDS_TOTAL", "gpu_clock_event_seconds_total", &[("reason", "power")], 1.0),
    of("DCGM_FI_DEV_THERMAL_VIOLATION", "gpu_clock_event_seconds_total", &[("reason", "thermal")], NANOS),
    of(
        "DCGM_FI_DEV_GPU_THERMAL_THROTTLE_SECONDS_TOTAL",
        "gpu_clock_event_seconds_total",
        &[("reason", "thermal")],
        1.0,
    ),
    of("DCGM_FI_DEV_SYNC_BOOST_VIOLATION", "gpu_clock_event_seconds_total", &[("reason", "sync_boost")], NANOS),
    of("DCGM_FI_DEV_BOARD_LIMIT_VIOLATION", "gpu_clock_event_seconds_total", &[("reason", "board_limit")], NANOS),
    of("DCGM_FI_DEV_LOW_UTIL_VIOLATION", "gpu_clock_event_seconds_total", &[("reason", "low_utilization")], NANOS),
    of("DCGM_FI_DEV_RELIABILITY_VIOLATION", "gpu_clock_event_seconds_total", &[("reason", "reliability")], NANOS),
    one("DCGM_FI_DEV_PSTATE", "gpu_performance_state", 1.0),
    one("DCGM_FI_DEV_GPU_PSTATE", "gpu_performance_state", 1.0),
    of("DCGM_FI_DEV_FAN_SPEED", "gpu_fan_speed_ratio", &[("fan", "0")], PERCENT),
    of("DCGM_FI_DEV_FAN_SPEED_RATIO", "gpu_fan_speed_ratio", &[("fan", "0")], 1.0),
    one("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "gpu_pcie_replays_total", 1.0),
    one("DCGM_FI_DEV_PCIE_REPLAY_TOTAL", "gpu_pcie_replays_total", 1.0),
    one("DCGM_FI_DEV_PCIE_LINK_GEN", "gpu_pcie_link_generation", 1.0),
    one("DCGM_FI_DEV_PCIE_LINK_WIDTH", "gpu_pcie_link_width", 1.0),
    one("DCGM_FI_DEV_PCIE_MAX_LINK_GEN", "gpu_pcie_link_generation_max", 1.0),
    one("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH", "gpu_pcie_link_width_max", 1.0),
    sum("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "gpu_nvlink_errors_total", &[("kind", "crc_flit")]),
    sum("DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "gpu_nvlink_errors_total", &[("kind", "crc_data")]),
    sum("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "gpu_nvlink_errors_total", &[("kind", "replay")]),
    sum("DCGM_FI_DEV_NVLINK_REPLAY_TOTAL", "gpu_nvlink_errors_total", &[("kind", "replay")]),
    sum("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "gpu_nvlink_errors_total", &[("kind", "recovery")]),
    sum("DCGM_FI_DEV_NVLINK_RECOVERY_TOTAL", "gpu_nvlink_errors_total", &[("kind", "recovery")]),
    sum("DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL", "gpu_nvlink_errors_total", &[("kind", "crc")]),
    sum("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "gpu_ecc_errors_total", SBE_VOLATILE),
    sum("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "gpu_ecc_errors_total", DBE_VOLATILE),
    sum("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "gpu_ecc_errors_total", SBE_AGGREGATE),
    sum("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "gpu_ecc_errors_total", DBE_AGGREGATE),
    of("DCGM_FI_DEV_RETIRED_SBE", "gpu_retired_pages_total", SINGLE_BIT, 1.0),
    of("DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL", "gpu_retired_pages_total", SINGLE_BIT, 1.0),
    of("DCGM_FI_DEV_RETIRED_DBE", "gpu_retired_pages_total", DOUBLE_BIT, 1.0),
    of("DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL", "gpu_retired_pages_total", DOUBLE_BIT, 1.0),
    one("DCGM_FI_DEV_RETIRED_PENDING", "gpu_retired_pages_pending", 1.0),
    one("DCGM_FI_DEV_PAGE_RETIRED_PENDING", "gpu_retired_pages_pending", 1.0),
    of("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "gpu_remapped_rows_total", &[("type", "corrected")], 1.0),
    of("DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL", "gpu_remapped_rows_total", &[("type", "corrected")], 1.0),
    of("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "gpu_remapped_rows_total", &[("type", "uncorrected")], 1.0),
    of("DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL", "gpu_remapped_rows_total", &[("type", "uncorrected")], 1.0),
    one("DCGM_FI_DEV_ROW_REMAP_PENDING", "gpu_row_remap_pending", 1.0),
    one("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gpu_row_remap_failure", 1.0),
    one("DCGM_FI_DEV_ROW_REMAP_FAILED", "gpu_row_remap_failure", 1.0),
    one("DCGM_FI_DEV_XID_ERRORS", "gpu_xid_last_code", 1.0),
    one("DCGM_FI_DEV_XID_ERROR", "gpu_xid_last_code", 1.0),
    one("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gpu_graphics_engine_active_ratio", 1.0),
    one("DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO", "gpu_graphics_engine_active_ratio", 1.0),
    one("DCGM_FI_PROF_SM_ACTIVE", "gpu_sm_active_ratio", 1.0),
    one("DCGM_FI_PROF_SM_UTIL_RATIO", "gpu_sm_active_ratio", 1.0),
    one("DCGM_FI_PROF_SM_OCCUPANCY", "gpu_sm_occupancy_ratio", 1.0),
    one("DCGM_FI_PROF_SM_OCCUPANCY_RATIO", "gpu_sm_occupancy_ratio", 1.0),
    one("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gpu_tensor_active_ratio", 1.0),
    one("DCGM_FI_PROF_TENSOR_UTIL_RATIO", "gpu_tensor_active_ratio", 1.0),
    one("DCGM_FI_PROF_DRAM_ACTIVE", "gpu_dram_active_ratio", 1.0),
    one("DCGM_FI_PROF_DRAM_UTIL_RATIO", "gpu_dram_active_ratio", 1.0),
    one("DCGM_FI_PROF_PIPE_FP64_ACTIVE", "gpu_fp64_active_ratio", 1.0),
    one("DCGM_FI_PROF_FP64_UTIL_RATIO", "gpu_fp64_active_ratio", 1.0),
    one("DCGM_FI_PROF_PIPE_FP32_ACTIVE", "gpu_fp32_active_ratio", 1.0),
    one("DCGM_FI_PROF_FP32_UTIL_RATIO", "gpu_fp32_active_ratio", 1.0),
    one("DCGM_FI_PROF_PIPE_FP16_ACTIVE", "gpu_fp16_active_ratio", 1.0),
    one("DCGM_FI_PROF_FP16_UTIL_RATIO", "gpu_fp16_active_ratio", 1.0),
    one("DCGM_FI_PROF_PIPE_INT_ACTIVE", "gpu_integer_active_ratio", 1.0),
    one("DCGM_FI_PROF_INT_UTIL_RATIO", "gpu_integer_active_ratio", 1.0),
];

/// DCGM's names for one of our metrics.
pub(crate) fn names_of(metric: &str) -> impl Iterator<Item = &'static str> {
    ALIASES.iter().filter(move |alias| alias.metric == metric).map(|alias| alias.name)
}

/// What dcgm-exporter says of a GPU beside its numbers, by its unique name.
pub(super) type Facts = HashMap<String, Fact>;

/// Of one GPU: `nvidia3`, model, PCI address in DCGM's form, version of the driver.
#[derive(Debug, Default)]
pub(super) struct Fact {
    device: String,
    model: String,
    pci_bus_id: String,
    driver_version: String,
}

impl Fact {
    /// From a series of `gpu_info`.
    pub(super) fn of(series: &SeriesDefinition) -> (String, Self) {
        let text = |name| label(series, name, false).to_owned();
        let fact = Self {
            device: text("device"),
            model: text("model"),
            pci_bus_id: pci_bus_id(label(series, "pci_bus_id", false)),
            driver_version: text("driver_version"),
        };
        (text("uuid"), fact)
    }
}

/// `0000:3b:00.0` as DCGM writes it: `00000000:3B:00.0`.
fn pci_bus_id(address: &str) -> String {
    match address.split_once(':') {
        Some((domain, rest)) => format!("{domain:0>8}:{rest}").to_ascii_uppercase(),
        None => String::new(),
    }
}

impl Alias {
    /// Whether a series of ours is one of those that answer.
    pub(super) fn takes(&self, series: &SeriesDefinition) -> bool {
        *series.metric.name == *self.metric
            && self.only.iter().all(|(name, value)| label(series, name, false) == *value)
    }

    /// The value as DCGM gives it.
    pub(crate) fn value(&self, ours: f64) -> f64 {
        // A stale marker is a pattern of bits.
        if ours.is_nan() { ours } else { ours * self.scale }
    }

    /// The labels as dcgm-exporter gives them, in both of its generations.
    pub(super) fn labels(&self, series: &SeriesDefinition, node: &str, facts: &Facts) -> Labels {
        let uuid = label(series, "uuid", false);
        let none = Fact::default();
        let fact = facts.get(uuid).unwrap_or(&none);
        Labels::from_pairs([
            (METRIC_NAME, self.name),
            JOB,
            (INSTANCE, node),
            ("gpu", label(series, "gpu", false)),
            ("UUID", uuid),
            ("gpu_uuid", uuid),
            ("device", &fact.device),
            ("modelName", &fact.model),
            ("model_name", &fact.model),
            ("Hostname", node),
            ("hostname", node),
            ("pci_bus_id", &fact.pci_bus_id),
            ("DCGM_FI_DRIVER_VERSION", &fact.driver_version),
            ("DCGM_FI_SYSTEM_DRIVER_VERSION", &fact.driver_version),
            ("GPU_I_ID", label(series, "gpu_instance", false)),
        ])
    }
}

/// Series of DCGM's, put together from ours.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    series: Vec<(Labels, Vec<Sample>)>,
}

impl Gathered {
    /// Adds one of our series to the one of DCGM's that it is part of; what is counted is the same of each part.
    pub(super) fn add(
        &mut self,
        alias: &Alias,
        labels: Labels,
        samples: impl Iterator<Item = Sample>,
        is_counted: bool,
    ) {
        let value = |value| if is_counted { value } else { alias.value(value) };
        let samples = samples.map(|sample| Sample { value: value(sample.value), ..sample });
        match self.series.iter_mut().find(|(known, _)| alias.is_sum && *known == labels) {
            Some(_) if is_counted => {}
            Some((_, sum)) => add(sum, samples),
            None => self.series.push((labels, samples.collect())),
        }
    }

    pub(super) fn into_series(self) -> impl Iterator<Item = (Labels, Vec<Sample>)> {
        self.series.into_iter()
    }
}

/// Series of one sampler have their samples at the same times. A sum of which a part is missing is missing.
fn add(sum: &mut Vec<Sample>, samples: impl Iterator<Item = Sample>) {
    let more: HashMap<i64, f64> = samples.map(|sample| (sample.time_ms, sample.value)).collect();
    sum.retain_mut(|sample| match more.get(&sample.time_ms) {
        Some(value) if sample.value.is_nan() || value.is_nan() => {
            sample.value = STALE_NAN;
            true
        }
        Some(value) => {
            sample.value += value;
            true
        }
        None => false,
    });
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use belfry_common::model::{Kind, Metric, Resolution};

    use super::*;

    fn series(metric: &str, labels: &[(&str, &str)]) -> SeriesDefinition {
        let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
        let metric = Arc::new(Metric::new(metric, Kind::Gauge, Resolution::ONE, &names, ""));
        SeriesDefinition { metric, label_values: labels.iter().map(|(_, value)| (*value).into()).collect() }
    }

    #[test]
    fn each_name_stands_once() {
        let names: HashSet<&str> = ALIASES.iter().map(|alias| alias.name).collect();
        assert_eq!(names.len(), ALIASES.len());
        assert!(names.iter().all(|name| name.starts_with(PREFIX)));
    }

    #[test]
    fn a_series_answers_with_the_exporters_labels() {
        let info = series(
            "gpu_info",
            &[
                ("uuid", "GPU-1"),
                ("device", "nvidia3"),
                ("model", "NVIDIA H100"),
                ("pci_bus_id", "0000:3b:00.0"),
                ("driver_version", "550.90.07"),
            ],
        );
        let facts: Facts = [Fact::of(&info)].into();
        let alias = ALIASES.iter().find(|alias| alias.name == "DCGM_FI_DEV_GPU_TEMP").unwrap();
        let ours = |sensor| series("gpu_temperature_celsius", &[("gpu", "3"), ("uuid", "GPU-1"), ("sensor", sensor)]);
        assert!(!alias.takes(&ours("memory")));
        assert!(alias.takes(&ours("gpu")));
        let labels = alias.labels(&ours("gpu"), "n1", &facts);
        for (name, value) in [
            ("gpu", "3"),
            ("UUID", "GPU-1"),
            ("device", "nvidia3"),
            ("modelName", "NVIDIA H100"),
            ("Hostname", "n1"),
            ("instance", "n1"),
            ("pci_bus_id", "00000000:3B:00.0"),
            ("DCGM_FI_DRIVER_VERSION", "550.90.07"),
            ("uuid", ""),
            ("sensor", ""),
        ] {
            assert_eq!(labels.value(name), value, "{name}");
        }
    }

    #[test]
    fn units_are_those_of_the_name() {
        for (name, ours, theirs) in [
            ("DCGM_FI_DEV_GPU_UTIL", 0.87, 87.0),
            ("DCGM_FI_DEV_GPU_UTIL_RATIO", 0.87, 0.87),
            ("DCGM_FI_DEV_FB_USED", 1_073_741_824.0, 1024.0),
            ("DCGM_FI_DEV_FB_USED_BYTES", 1_073_741_824.0, 1_073_741_824.0),
            ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 12.5, 12_500.0),
            ("DCGM_FI_DEV_SM_CLOCK", 1.98e9, 1980.0),
            ("DCGM_FI_DEV_POWER_VIOLATION", 0.5, 5e8),
        ] {
            let alias = ALIASES.iter().find(|alias| alias.name == name).unwrap();
            assert_eq!(alias.value(ours), theirs, "{name}");
        }
        let stale = ALIASES[0].value(STALE_NAN);
        assert_eq!(stale.to_bits(), STALE_NAN.to_bits());
    }

    #[test]
    fn what_is_one_for_dcgm_is_added_up() {
        let alias = ALIASES.iter().find(|alias| alias.name == "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL").unwrap();
        let mut gathered = Gathered::default();
        let labels = || Labels::from_pairs([("gpu", "0")]);
        let at = |time_ms, value| Sample { time_ms, value };
        gathered.add(alias, labels(), [at(1, 2.0), at(2, 3.0), at(3, 3.0)].into_iter(), false);
        gathered.add(alias, labels(), [at(1, 5.0), at(2, STALE_NAN)].into_iter(), false);
        let series: Vec<_> = gathered.into_series().collect();
        let [(_, samples)] = &series[..] else { panic!("{series:?}") };
        assert_eq!((samples.len(), samples[0].value), (2, 7.0));
        assert_eq!(samples[1].value.to_bits(), STALE_NAN.to_bits());
    }
}

//! GPM: what a sample holds, and the metrics between two of them.
//!
//! Pure. A percentage is the mean of what both samples read, a rate comes out of the counters between them.

use nvml_wrapper_sys::bindings as nvml;

use crate::{card::Card, codes::Code, handle::Handle, readings::Reading};

const MIB: f64 = 1_048_576.0;

/// Engines of an H100.
const DECODERS: u32 = 7;
const JPEG_ENGINES: u32 = 7;

/// What a card read at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Whose it is; samples of different devices have nothing between them.
    pub(crate) handle: Handle,
    seconds: f64,
    links: u32,
    readings: Vec<(Reading, f64)>,
}

impl Sample {
    /// Fails with `NotSupported` on a card from before GPM.
    pub(crate) fn take(card: &Card<'_>) -> Result<Self, Code> {
        if !card.model.has_gpm {
            return Err(Code::NotSupported);
        }
        // The instances of a card can be told apart: the second reads half of what the first does, and so on.
        let share = card.handle.mig.map_or(1.0, |mig| (mig + 1) as f64);
        let read = |reading: &Reading| Some((*reading, card.reading(*reading).ok()? / share));
        Ok(Self {
            handle: card.handle,
            seconds: card.moment.since_boot,
            links: card.nvlink().map_or(0, |nvlink| nvlink.links),
            readings: SAMPLED.iter().filter_map(read).collect(),
        })
    }

    fn reading(&self, reading: Reading) -> Result<f64, Code> {
        let found = self.readings.iter().find(|(name, _)| *name == reading);
        found.map(|(_, value)| *value).ok_or(Code::NotSupported)
    }
}

/// Every reading that a metric needs.
const SAMPLED: &[Reading] = &[
    Reading::GpmGraphics,
    Reading::GpmSm,
    Reading::GpmSmOccupancy,
    Reading::GpmInteger,
    Reading::GpmTensor,
    Reading::GpmDram,
    Reading::GpmFp64,
    Reading::GpmFp32,
    Reading::GpmFp16,
    Reading::UtilizationDecoder,
    Reading::UtilizationJpeg,
    Reading::UtilizationOfa,
    Reading::PcieTransmitBytes,
    Reading::PcieReceiveBytes,
    Reading::NvlinkTransmitBytes,
    Reading::NvlinkReceiveBytes,
];

/// How a metric comes out of two samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Percent(Reading),
    /// MiB a second; with how many links the reading is shared.
    Rate(Reading, u32),
    Zero,
}

/// The value of one of NVML's metrics between two samples of one device.
pub(crate) fn metric(id: u32, first: &Sample, second: &Sample) -> Result<f64, Code> {
    let seconds = second.seconds - first.seconds;
    if seconds <= 0.0 {
        return Err(Code::NoData);
    }
    match source(id, second.links).ok_or(Code::NotSupported)? {
        Source::Percent(reading) => Ok((first.reading(reading)? + second.reading(reading)?) / 2.0),
        Source::Rate(reading, links) => {
            let bytes = second.reading(reading)? - first.reading(reading)?;
            Ok(bytes / seconds / MIB / f64::from(links))
        }
        Source::Zero => Ok(0.0),
    }
}

fn source(id: u32, links: u32) -> Option<Source> {
    let engine = |first: u32, count: u32| (first..first + count).contains(&id);
    let percent = match id {
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_GRAPHICS_UTIL => Reading::GpmGraphics,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL => Reading::GpmSm,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_OCCUPANCY => Reading::GpmSmOccupancy,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_INTEGER_UTIL => Reading::GpmInteger,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL
        | nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_HMMA_TENSOR_UTIL => Reading::GpmTensor,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_DFMA_TENSOR_UTIL
        | nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_IMMA_TENSOR_UTIL => return Some(Source::Zero),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL => Reading::GpmDram,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP64_UTIL => Reading::GpmFp64,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP32_UTIL => Reading::GpmFp32,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_FP16_UTIL => Reading::GpmFp16,
        _ if engine(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVDEC_0_UTIL, DECODERS) => Reading::UtilizationDecoder,
        _ if engine(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVJPG_0_UTIL, JPEG_ENGINES) => Reading::UtilizationJpeg,
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVOFA_0_UTIL => Reading::UtilizationOfa,
        _ => return rate(id, links),
    };
    Some(Source::Percent(percent))
}

fn rate(id: u32, links: u32) -> Option<Source> {
    let (received, transmitted) = (Reading::NvlinkReceiveBytes, Reading::NvlinkTransmitBytes);
    match id {
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC => Some(Source::Rate(Reading::PcieTransmitBytes, 1)),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC => Some(Source::Rate(Reading::PcieReceiveBytes, 1)),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC => Some(Source::Rate(received, 1)),
        nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC => Some(Source::Rate(transmitted, 1)),
        _ => {
            // Two metrics a link: received, transmitted.
            let place = id.checked_sub(nvml::nvmlGpmMetricId_t_NVML_GPM_METRIC_NVLINK_L0_RX_PER_SEC)?;
            let reading = if place.is_multiple_of(2) { received } else { transmitted };
            (place / 2 < links).then_some(Source::Rate(reading, links))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::{clock::Moment, scenario::Scenario};

    fn sample(text: &str, mig: Option<usize>, seconds: f64) -> Result<Sample, Code> {
        let scenario = Scenario::from_str(text).unwrap();
        let moment = Moment { since_load: seconds, since_start: seconds, since_boot: seconds, unix_us: 0 };
        Sample::take(&Card::new(&scenario, Handle { gpu: 0, mig }, moment).unwrap())
    }

    #[test]
    fn percentages_are_means_and_rates_are_differences() {
        let text = "[[gpu]]\nkind = \"h100\"\n[gpu.values]\ngpm_sm = { from = 10, per_second = 10 }\n\
            nvlink_receive_bytes = { from = 0, per_second = 18874368 }";
        let (first, second) = (sample(text, None, 1.0).unwrap(), sample(text, None, 3.0).unwrap());
        assert_eq!(metric(2, &first, &second), Ok(30.0));
        assert_eq!(metric(60, &first, &second), Ok(18.0));
        assert_eq!(metric(62, &first, &second), Ok(1.0), "one link of eighteen");
        assert_eq!(metric(97, &first, &second), metric(63, &first, &second));
        assert_eq!([98, 8, 37, 0].map(|id| metric(id, &first, &second)), [Err(Code::NotSupported); 4]);
        assert_eq!(metric(2, &second, &second), Err(Code::NoData));
    }

    #[test]
    fn an_instance_has_samples_and_an_old_card_none() {
        let text = "[[gpu]]\nkind = \"h100_mig\"";
        let (first, second) = (sample(text, Some(1), 1.0).unwrap(), sample(text, Some(1), 2.0).unwrap());
        assert_eq!(metric(1, &first, &second), Ok(43.5));
        assert_eq!(metric(30, &first, &second), Err(Code::NotSupported), "no engines under MIG");
        assert_eq!(sample("[[gpu]]\nkind = \"a100\"", None, 1.0).err(), Some(Code::NotSupported));
    }
}

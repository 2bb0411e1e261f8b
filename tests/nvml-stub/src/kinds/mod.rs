//! What kinds of cards there are: what each is, what it reads when nobody says otherwise, and what it lacks.
//!
//! Numbers are those that `nvidia-smi -q` shows of the real card under a moderate load.

mod hopper;
mod older;

use serde::Deserialize;

use crate::readings::Reading;

const MIB: u64 = 1 << 20;

/// A kind of card, as a scenario names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    A100,
    H100,
    H200,
    H100Mig,
    K80,
    T4,
}

impl Kind {
    pub(crate) fn model(self) -> &'static Model {
        match self {
            Self::A100 => &older::A100,
            Self::H100 => &hopper::H100,
            Self::H200 => &hopper::H200,
            Self::H100Mig => &hopper::H100_MIG,
            Self::K80 => &older::K80,
            Self::T4 => &older::T4,
        }
    }
}

/// Everything about a kind of card.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) brand: u32,
    pub(crate) architecture: u32,
    pub(crate) compute_capability: [i32; 2],
    /// Device and vendor, as NVML packs them.
    pub(crate) pci_device: u32,
    pub(crate) pci_subsystem: u32,
    pub(crate) serial_first: u64,
    pub(crate) board_part_number: &'static str,
    pub(crate) vbios: &'static str,
    pub(crate) inforom_image: &'static str,
    /// Whether a GSP runs the driver's firmware.
    pub(crate) has_gsp: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) bar1_bytes: u64,
    /// mW: the default, the least and the most.
    pub(crate) power_default: u32,
    pub(crate) power_min: u32,
    pub(crate) power_max: u32,
    /// MHz: graphics, SM, memory, video.
    pub(crate) clocks_max: [u32; 4],
    pub(crate) thresholds: Thresholds,
    /// °C from the limit, newer cards' way to say the same: shutdown, slowdown, memory, GPU.
    pub(crate) margins: Option<[i32; 4]>,
    pub(crate) pcie_generation_max: u32,
    pub(crate) pcie_width_max: u32,
    pub(crate) clock_events: u64,
    pub(crate) events: u64,
    pub(crate) nvlink: Option<NvLink>,
    /// Banks of the row remapper.
    pub(crate) remap_banks: Option<u32>,
    /// Memory locations that count ECC errors besides DRAM; the first has the `sram` readings, the others nothing.
    pub(crate) ecc_locations: &'static [u32],
    /// Whether errors of the SRAM are broken down by source.
    pub(crate) has_sram_sources: bool,
    pub(crate) has_retirement_times: bool,
    pub(crate) has_process_utilization: bool,
    pub(crate) has_gpm: bool,
    /// The last id of `nvmlDeviceGetFieldValues` of the card's time.
    pub(crate) field_last: u32,
    pub(crate) mig: Mig,
    /// What it reads: in the first list that has it, else 0.
    pub(crate) base: &'static [&'static [(Reading, f64)]],
    /// By how much that grows each second.
    pub(crate) growth: &'static [(Reading, f64)],
    pub(crate) lacks: &'static [&'static [Reading]],
}

impl Model {
    /// What it reads so many seconds after boot; `None` if it has no such reading.
    pub(crate) fn reading(&self, reading: Reading, seconds: f64) -> Option<f64> {
        let find = |readings: &[(Reading, f64)]| readings.iter().find(|(name, _)| *name == reading).map(|pair| pair.1);
        let base = self.base.iter().copied().find_map(find).unwrap_or(0.0);
        let growth = find(self.growth).unwrap_or(0.0);
        (!self.lacks(reading)).then(|| base + (growth * seconds).floor())
    }

    fn lacks(&self, reading: Reading) -> bool {
        self.lacks.iter().any(|readings| readings.contains(&reading))
    }
}

/// °C.
#[derive(Debug)]
pub(crate) struct Thresholds {
    pub(crate) shutdown: u32,
    pub(crate) slowdown: u32,
    pub(crate) memory_max: Option<u32>,
    pub(crate) gpu_max: Option<u32>,
}

/// A card's NVLink ports, all of them to NVSwitches.
#[derive(Debug)]
pub(crate) struct NvLink {
    pub(crate) version: u32,
    pub(crate) links: u32,
    pub(crate) speed_mbps: u32,
    pub(crate) switches: u32,
    pub(crate) switch_pci_device: u32,
    /// Whether links count packets and symbols.
    pub(crate) has_packet_counters: bool,
    /// Whether links count ECC errors of their data.
    pub(crate) has_ecc_counters: bool,
}

/// Whether a card can be split, and how it is.
#[derive(Debug)]
pub(crate) enum Mig {
    Unable,
    Off,
    On(&'static [Instance]),
}

/// A GPU instance with one compute instance, 0, that has all of it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: u32,
    pub(crate) profile: &'static str,
    pub(crate) slices: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) copy_engines: u32,
    pub(crate) decoders: u32,
    pub(crate) jpeg_engines: u32,
    pub(crate) memory_bytes: u64,
}

impl Instance {
    pub(crate) fn has(&self, gpu_instance: Option<u32>, compute_instance: Option<u32>) -> bool {
        gpu_instance == Some(self.id) && compute_instance.unwrap_or(0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kind; 6] = [Kind::A100, Kind::H100, Kind::H200, Kind::H100Mig, Kind::K80, Kind::T4];

    #[test]
    fn no_card_reads_what_it_lacks() {
        for model in ALL.map(Kind::model) {
            for (reading, _) in model.base.iter().copied().flatten().chain(model.growth) {
                assert!(!model.lacks(*reading), "{}: {reading:?}", model.name);
            }
            for (reading, _) in model.growth {
                assert!(reading.accumulates(), "{}: {reading:?}", model.name);
            }
        }
    }

    #[test]
    fn readings_stay_within_the_cards_own_limits() {
        for model in ALL.map(Kind::model) {
            let at = |reading| model.reading(reading, 0.0).unwrap_or(0.0);
            assert!(at(Reading::PowerInstant) <= at(Reading::PowerLimit), "{}", model.name);
            assert_eq!(at(Reading::PowerLimit), f64::from(model.power_default), "{}", model.name);
            assert!(at(Reading::Temperature) < f64::from(model.thresholds.slowdown), "{}", model.name);
            assert!(at(Reading::MemoryReserved) < model.memory_bytes as f64, "{}", model.name);
            assert!(at(Reading::ClockMemory) <= f64::from(model.clocks_max[2]), "{}", model.name);
        }
    }

    #[test]
    fn energy_grows_by_the_power() {
        let model = Kind::H100.model();
        let energy = |seconds| model.reading(Reading::Energy, seconds).unwrap();
        assert_eq!(energy(11.0) - energy(10.0), model.reading(Reading::PowerInstant, 0.0).unwrap());
        assert_eq!(Kind::K80.model().reading(Reading::Energy, 1.0), None);
    }
}

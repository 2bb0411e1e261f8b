//! Errors of a card's memory, and what it did about them.

use nvml_wrapper_sys::bindings as nvml;

use super::Card;
use crate::{codes::Code, readings::Reading};

/// Which errors: those that the card corrected, or the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errors {
    Corrected,
    Uncorrected,
}

/// Since when: the driver's last load, or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    Volatile,
    Aggregate,
}

impl TryFrom<u32> for Errors {
    type Error = Code;

    fn try_from(kind: u32) -> Result<Self, Code> {
        match kind {
            nvml::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => Ok(Self::Corrected),
            nvml::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => Ok(Self::Uncorrected),
            _ => Err(Code::InvalidArgument),
        }
    }
}

impl TryFrom<u32> for Counter {
    type Error = Code;

    fn try_from(kind: u32) -> Result<Self, Code> {
        match kind {
            nvml::nvmlEccCounterType_enum_NVML_VOLATILE_ECC => Ok(Self::Volatile),
            nvml::nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => Ok(Self::Aggregate),
            _ => Err(Code::InvalidArgument),
        }
    }
}

impl Card<'_> {
    /// Errors over all of the card's memories.
    pub(crate) fn ecc_total(&self, errors: Errors, counter: Counter) -> Result<u64, Code> {
        Ok(self.ecc_dram(errors, counter)?.saturating_add(self.ecc_sram(errors, counter)?))
    }

    /// Errors at one of NVML's locations.
    pub(crate) fn ecc_at(&self, errors: Errors, counter: Counter, location: u32) -> Result<u64, Code> {
        if location >= nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_COUNT {
            return Err(Code::InvalidArgument);
        }
        if location == nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM {
            return self.ecc_dram(errors, counter);
        }
        match self.model.ecc_locations.iter().position(|known| *known == location) {
            None => Err(Code::NotSupported),
            Some(0) => self.ecc_sram(errors, counter),
            Some(_) => self.ecc_count(Reading::EccEnabled).map(|_| 0),
        }
    }

    fn ecc_dram(&self, errors: Errors, counter: Counter) -> Result<u64, Code> {
        self.ecc_count(match (errors, counter) {
            (Errors::Corrected, Counter::Volatile) => Reading::EccDramCorrectedVolatile,
            (Errors::Corrected, Counter::Aggregate) => Reading::EccDramCorrectedAggregate,
            (Errors::Uncorrected, Counter::Volatile) => Reading::EccDramUncorrectedVolatile,
            (Errors::Uncorrected, Counter::Aggregate) => Reading::EccDramUncorrectedAggregate,
        })
    }

    pub(crate) fn ecc_sram(&self, errors: Errors, counter: Counter) -> Result<u64, Code> {
        self.ecc_count(match (errors, counter) {
            (Errors::Corrected, Counter::Volatile) => Reading::EccSramCorrectedVolatile,
            (Errors::Corrected, Counter::Aggregate) => Reading::EccSramCorrectedAggregate,
            (Errors::Uncorrected, Counter::Volatile) => Reading::EccSramUncorrectedVolatile,
            (Errors::Uncorrected, Counter::Aggregate) => Reading::EccSramUncorrectedAggregate,
        })
    }

    /// A card counts nothing while its ECC is off.
    fn ecc_count(&self, reading: Reading) -> Result<u64, Code> {
        if self.u32(Reading::EccEnabled)? == 0 {
            return Err(Code::NotSupported);
        }
        self.u64(reading)
    }

    /// Addresses of the pages that were retired for a cause, 4 KiB each.
    pub(crate) fn retired_pages(&self, cause: u32) -> Result<Vec<u64>, Code> {
        let (reading, first) = match cause {
            nvml::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS => {
                (Reading::RetiredPagesSingleBit, 0x1000_0000)
            }
            nvml::nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR => {
                (Reading::RetiredPagesDoubleBit, 0x2000_0000)
            }
            _ => return Err(Code::InvalidArgument),
        };
        let pages = u64::from(self.u32(reading)?).min(PAGES_MAX);
        Ok((0..pages).map(|page| first + (page << 12)).collect())
    }

    /// The row remapper's banks: with all spare rows, and with some used up.
    pub(crate) fn remap_banks(&self) -> Result<[u32; 2], Code> {
        let banks = self.model.remap_banks.ok_or(Code::NotSupported)?;
        let remapped = self.u32(Reading::RemappedRowsUncorrectable)?.min(banks);
        Ok([banks - remapped, remapped])
    }
}

/// A card retires at most so many pages before it is to be replaced.
const PAGES_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::{clock::Moment, handle::Handle, scenario::Scenario};

    const DRAM: u32 = nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM;
    const SRAM: u32 = nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM;
    const L2: u32 = nvml::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_L2_CACHE;

    fn scenario(kind: &str, values: &str) -> Scenario {
        Scenario::from_str(&format!("[[gpu]]\nkind = \"{kind}\"\n[gpu.values]\n{values}")).unwrap()
    }

    fn card(scenario: &Scenario) -> Card<'_> {
        Card::new(scenario, Handle { gpu: 0, mig: None }, Moment::default()).unwrap()
    }

    #[test]
    fn errors_add_up_over_the_memories() {
        let scenario = scenario("h100", "ecc_dram_corrected_volatile = 3\necc_sram_corrected_volatile = 4");
        let card = card(&scenario);
        assert_eq!(card.ecc_total(Errors::Corrected, Counter::Volatile), Ok(7));
        assert_eq!(card.ecc_total(Errors::Uncorrected, Counter::Volatile), Ok(0));
        let at = |location| card.ecc_at(Errors::Corrected, Counter::Volatile, location);
        assert_eq!([DRAM, SRAM, L2, 8].map(at), [Ok(3), Ok(4), Err(Code::NotSupported), Err(Code::InvalidArgument)]);
    }

    #[test]
    fn without_ecc_nothing_is_counted() {
        let scenario = scenario("k80", "ecc_enabled = 0");
        assert_eq!(card(&scenario).ecc_total(Errors::Corrected, Counter::Volatile), Err(Code::NotSupported));
        assert_eq!(card(&scenario).ecc_at(Errors::Corrected, Counter::Volatile, L2), Err(Code::NotSupported));
    }

    #[test]
    fn old_cards_retire_pages_and_new_ones_remap_rows() {
        let old = scenario("t4", "retired_pages_double_bit = 2");
        assert_eq!(card(&old).retired_pages(1), Ok(vec![0x2000_0000, 0x2000_1000]));
        assert_eq!(card(&old).retired_pages(0), Ok(vec![]));
        assert_eq!(card(&old).retired_pages(2), Err(Code::InvalidArgument));
        assert_eq!(card(&old).remap_banks(), Err(Code::NotSupported));
        let new = scenario("a100", "remapped_rows_uncorrectable = 2");
        assert_eq!(card(&new).retired_pages(1), Err(Code::NotSupported));
        assert_eq!(card(&new).remap_banks(), Ok([638, 2]));
    }
}

//! Who a card is: names, numbers and addresses, the same in every run.

use super::Card;
use crate::{
    handle::Handle,
    kinds::{Instance, Model},
    scenario::{Gpu, Scenario, uuid},
};

/// The buses of the eight GPUs of an HGX board; further GPUs are in further domains.
const BUSES: [u32; 8] = [0x18, 0x2a, 0x3a, 0x5d, 0x9a, 0xab, 0xba, 0xdb];

/// Where an NVSwitch is: the first bus of the first domain.
const SWITCH_BUS_FIRST: u32 = 0x05;

/// Keeps the UUIDs of MIG devices apart from those of cards.
const MIG_SEED: u64 = 1 << 32;

/// An address on the PCI bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PciAddress {
    pub(crate) domain: u32,
    pub(crate) bus: u32,
}

impl PciAddress {
    fn of(gpu: usize) -> Self {
        let bus = BUSES.get(gpu % BUSES.len()).copied().unwrap_or_default();
        Self { domain: (gpu / BUSES.len()) as u32, bus }
    }

    pub(super) fn of_switch(switch: u32) -> Self {
        Self { domain: 0, bus: SWITCH_BUS_FIRST + switch }
    }

    pub(crate) fn bus_id(self) -> String {
        format!("{:08X}:{:02X}:00.0", self.domain, self.bus)
    }

    pub(crate) fn legacy_bus_id(self) -> String {
        format!("{:04X}:{:02X}:00.0", self.domain, self.bus)
    }
}

impl Card<'_> {
    pub(crate) fn name(&self) -> String {
        let name = self.model.name;
        self.instance.map_or_else(|| name.to_owned(), |instance| format!("{name} MIG {}", instance.profile))
    }

    pub(crate) fn uuid(&self) -> String {
        self.instance.map_or_else(|| self.gpu.uuid.clone(), |instance| mig_uuid(self.handle.gpu, instance))
    }

    pub(crate) fn serial(&self) -> String {
        serial(self.model, self.handle.gpu)
    }

    pub(crate) fn pci(&self) -> PciAddress {
        PciAddress::of(self.handle.gpu)
    }
}

fn serial(model: &Model, gpu: usize) -> String {
    format!("{:013}", model.serial_first + gpu as u64)
}

fn mig_uuid(gpu: usize, instance: &Instance) -> String {
    uuid("MIG-", MIG_SEED + ((gpu as u64) << 8) + u64::from(instance.id))
}

/// The device of a card's UUID or a MIG device's.
pub(crate) fn find_by_uuid(scenario: &Scenario, uuid: &str) -> Option<Handle> {
    let find = |(index, gpu): (usize, &Gpu)| {
        if gpu.uuid == uuid {
            return Some(Handle { gpu: index, mig: None });
        }
        let instances = super::instances(gpu.kind.model());
        let mig = instances.iter().position(|instance| mig_uuid(index, instance) == uuid)?;
        Some(Handle { gpu: index, mig: Some(mig) })
    };
    scenario.gpus.iter().enumerate().find_map(find)
}

/// The card of a bus id, in either length and case.
pub(crate) fn find_by_bus_id(scenario: &Scenario, bus_id: &str) -> Option<usize> {
    (0..scenario.gpus.len()).find(|&gpu| {
        let address = PciAddress::of(gpu);
        [address.bus_id(), address.legacy_bus_id()].iter().any(|id| id.eq_ignore_ascii_case(bus_id))
    })
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::clock::Moment;

    #[test]
    fn a_device_is_found_by_what_it_says_of_itself() {
        let scenario = Scenario::from_str("[[gpu]]\nkind = \"h100\"\ncount = 9\n[[gpu]]\nkind = \"h100_mig\"").unwrap();
        for handle in [Handle { gpu: 8, mig: None }, Handle { gpu: 9, mig: None }, Handle { gpu: 9, mig: Some(2) }] {
            let card = Card::new(&scenario, handle, Moment::default()).unwrap();
            assert_eq!(find_by_uuid(&scenario, &card.uuid()), Some(handle));
            assert_eq!(find_by_bus_id(&scenario, &card.pci().legacy_bus_id().to_lowercase()), Some(handle.gpu));
        }
        assert_eq!(find_by_uuid(&scenario, "GPU-x"), None);
        assert_eq!(find_by_bus_id(&scenario, "00000000:18:00.0"), Some(0));
        assert_eq!(find_by_bus_id(&scenario, "00000001:18:00.0"), Some(8));
        assert_eq!(find_by_bus_id(&scenario, "00000000:19:00.0"), None);
    }

    #[test]
    fn a_mig_device_is_named_after_its_profile() {
        let scenario = Scenario::from_str("[[gpu]]\nkind = \"h100_mig\"").unwrap();
        let card = Card::new(&scenario, Handle { gpu: 0, mig: Some(1) }, Moment::default()).unwrap();
        assert_eq!(card.name(), "NVIDIA H100 80GB HBM3 MIG 1g.10gb");
        assert_eq!((card.uuid().len(), &card.uuid()[..4]), (40, "MIG-"));
    }
}

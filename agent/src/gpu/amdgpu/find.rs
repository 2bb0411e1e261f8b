//! Which cards there are, and why there are none.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::super::{
    driver::{DriverState, Unusable},
    presence::{AMD, driver_of, is_of},
};

/// The kernel's driver.
pub(super) const DRIVER: &str = "amdgpu";

/// Entries of `/sys/class/drm` that are looked at: cards, and their outputs.
const ENTRIES_MAX: usize = 1024;

/// A card of the driver's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// `0000:c1:00.0`
    pub(super) address: String,
    /// `card1`
    pub(super) name: String,
    /// Its PCI device: unlike the card's own directory it outlives a reload of the driver.
    pub(super) directory: PathBuf,
}

/// The cards in the order of their addresses. Asks the kernel only, never a card.
pub(super) fn cards(sys: &Path) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(sys.join("class/drm")) else { return Vec::new() };
    let mut cards: Vec<Found> = entries.take(ENTRIES_MAX).flatten().filter_map(|entry| card(&entry.path())).collect();
    cards.sort_by(|one, other| order(&one.address).cmp(&order(&other.address)));
    cards.dedup_by(|one, other| one.address == other.address);
    cards
}

/// `card1`, but not its outputs (`card1-DP-1`); of this maker and this driver.
fn card(path: &Path) -> Option<Found> {
    let name = path.file_name()?.to_str()?;
    let number = name.strip_prefix("card")?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let directory = fs::canonicalize(path.join("device")).ok()?;
    if !is_of(AMD, &directory) || driver_of(&directory)? != DRIVER {
        return None;
    }
    let address = directory.file_name()?.to_str()?.to_owned();
    Some(Found { address, name: name.to_owned(), directory })
}

/// What addresses are sorted by: domains have four digits or more.
pub(super) fn order(address: &str) -> (usize, &str) {
    (address.len(), address)
}

/// Why there are no cards.
pub(super) fn no_cards(sys: &Path) -> Unusable {
    let (state, detail) = if sys.join("bus/pci/drivers").join(DRIVER).is_dir() {
        (DriverState::NoDevices, "amdgpu is loaded and has no card")
    } else {
        (DriverState::NoDriver, "amdgpu is not loaded")
    };
    Unusable { state, detail: detail.to_owned() }
}

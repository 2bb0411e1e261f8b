//! The PCI Express link of a card.
//!
//! Many cards have a switch of their own between the slot and the GPU. The link behind it is always at its best; the one that can be
//! slow or narrow is the one between switch and slot. And what that can be at most is for both of its ends to say.

use std::path::{Path, PathBuf};

use belfry_common::model::Reason;

use super::{
    super::{
        presence::{AMD, is_of},
        series::{Series as _, within},
    },
    Metrics,
    card::{Card, unsigned},
};
use crate::readings::Readings;

/// Lanes that registers of ones are taken for.
pub(super) const ALL_ONES: &str = "63";

/// GT/s by generation, from the first.
const SPEEDS: [f64; 7] = [2.5, 5.0, 8.0, 16.0, 32.0, 64.0, 128.0];
const WIDTH_MAX: u64 = 32;
/// What the kernel writes where there is no link, as within a processor.
const NO_WIDTH: [u64; 2] = [0, 255];

/// The ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Card,
    Slot,
}

/// The port by which the card is connected: its own, or that of its switch. Asks the kernel only, never the card.
pub(super) fn port(device: &Path) -> PathBuf {
    let mut port = device;
    while let Some(parent) = port.parent().filter(|parent| is_of(AMD, parent)) {
        port = parent;
    }
    port.to_owned()
}

/// Reads the link of one card.
pub(super) fn read(card: &mut Card, metrics: &Metrics, out: &mut Readings) {
    let links = &metrics.links;
    for (current, max, parse, file, max_file) in [
        (
            &links.pcie_generation,
            &links.pcie_generation_max,
            generation as Parse,
            "current_link_speed",
            "max_link_speed",
        ),
        (&links.pcie_width, &links.pcie_width_max, width, "current_link_width", "max_link_width"),
    ] {
        let ask = |card: &mut Card, end, file| card.link_text(end, file).and_then(|text| parse(text).transpose());
        let limit = match (ask(card, End::Card, max_file), ask(card, End::Slot, max_file)) {
            (Some(Ok(card)), Some(Ok(slot))) => Some(Ok(card.min(slot))),
            (of_card, _) => of_card,
        };
        if let Some(value) = ask(card, End::Card, file) {
            let bound = limit.and_then(Result::ok).unwrap_or(WIDTH_MAX);
            card.count(out, current, &[], within(value, &(1..=bound)));
        }
        if let Some(limit) = limit {
            card.count(out, max, &[], within(limit, &(1..=WIDTH_MAX)));
        }
    }
}

/// What a file of the link says; `Ok(None)` where there is no link.
type Parse = fn(Result<String, Reason>) -> Result<Option<u64>, Reason>;

/// `16.0 GT/s PCIe` is generation 4.
fn generation(text: Result<String, Reason>) -> Result<Option<u64>, Reason> {
    let text = text?;
    if text.starts_with("Unknown") {
        return Ok(None);
    }
    let speed: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).ok_or(Reason::Error)?;
    let generation = (1..).zip(SPEEDS).find(|(_, known)| *known == speed).map(|(generation, _)| generation);
    generation.map(Some).ok_or(Reason::OutOfRange)
}

fn width(text: Result<String, Reason>) -> Result<Option<u64>, Reason> {
    let width = unsigned(&text?)?;
    Ok(Some(width).filter(|width| !NO_WIDTH.contains(width)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_known_by_their_speed() {
        for (text, expected) in [
            ("2.5 GT/s PCIe", Ok(Some(1))),
            ("8 GT/s", Ok(Some(3))),
            ("64.0 GT/s PCIe", Ok(Some(6))),
            ("Unknown", Ok(None)),
            ("Unknown speed", Ok(None)),
            ("17.0 GT/s PCIe", Err(Reason::OutOfRange)),
            ("fast", Err(Reason::Error)),
        ] {
            assert_eq!(generation(Ok(text.to_owned())), expected, "{text}");
        }
        assert_eq!(width(Ok("255".to_owned())), Ok(None));
        assert_eq!(width(Ok("16".to_owned())), Ok(Some(16)));
    }
}

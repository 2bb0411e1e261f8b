//! AMD's GPUs, through the files that the kernel's driver (amdgpu) has in sysfs. No library is loaded and no device is opened.
//!
//! Lives in the worker process: a driver that hangs hangs whoever reads its files. The file that is read is what the board names.
//!
//! A card that sleeps (runtime power management) is not woken: its power state, which the kernel knows without asking it, is read
//! first, and of a sleeping card nothing is said but `gpu_up` 1. One that is awake may stay so because it is read each second; where that
//! matters, an interval of the sampler `gpu_amd` that is longer than the driver's delay (5 s) lets it fall asleep.
//!
//! GPUs are numbered from 0 by their PCI address. On a node with another maker's GPUs there is a GPU 0 of each; `uuid` tells them apart.
//!
//! Absent: `pcie_bw`, which counts for a whole second while its reader waits; `gpu_metrics`, a binary table whose form differs from card
//! to card, and with it the reasons for which clocks are held down; processes that draw and do not compute ([`processes`]).

mod activity;
mod card;
mod condition;
mod facts;
mod find;
#[cfg(test)]
mod fixture;
mod link;
mod processes;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use belfry_common::{
    model::Timestamp,
    wire::message::{GpuHolders, GpuIdentity},
};
use tracing::info;

use self::{card::Card, find::Found};
use super::{
    board::Board,
    driver::{Driver, Events, Set, Unusable},
    metrics::{Errors, Identity, Links, Power, Work},
};
use crate::readings::Readings;

/// The driver and its cards.
pub(super) struct Amd {
    sys: PathBuf,
    board: Rc<Board>,
    metrics: Metrics,
    /// By PCI address.
    cards: Vec<Card>,
    /// Addresses of cards that are not touched.
    without: Vec<String>,
    /// It was said that processes cannot be read.
    is_silent: bool,
}

/// The metrics of AMD's GPUs, by subject.
struct Metrics {
    identity: Identity,
    work: Work,
    power: Power,
    links: Links,
    errors: Errors,
}

impl Amd {
    /// Finds every card but those `without`, by their indices.
    pub(super) fn open(sys: &Path, without: &[u32], board: Rc<Board>) -> Result<Self, Unusable> {
        board.note("class/drm", None);
        let found = find::cards(sys);
        if found.is_empty() {
            return Err(find::no_cards(sys));
        }
        let is_left_out = |index: &u32| without.contains(index);
        let left_out = (0..).zip(&found).filter(|(index, _)| is_left_out(index));
        let without = left_out.map(|(_, found)| found.address.clone()).collect();
        let metrics = Metrics {
            identity: Identity::new(),
            work: Work::new(),
            power: Power::new(),
            links: Links::new(),
            errors: Errors::new(),
        };
        let mut amd = Self { sys: sys.to_owned(), board, metrics, cards: Vec::new(), without, is_silent: false };
        amd.take(found);
        Ok(amd)
    }

    /// Looks for cards that were not there before: a driver takes a while to start all of a large node's. Those that were there
    /// stay, also when they are gone now.
    fn look_again(&mut self) {
        self.board.note("class/drm", None);
        let found = find::cards(&self.sys);
        let is_known = |found: &Found| {
            let known = self.cards.iter().map(|card| &card.address).chain(&self.without);
            known.into_iter().any(|address| *address == found.address)
        };
        if !found.iter().all(is_known) {
            self.take(found);
        }
    }

    fn take(&mut self, found: Vec<Found>) {
        for found in found {
            if !self.cards.iter().any(|card| card.address == found.address) {
                self.cards.push(Card::new(found, Rc::clone(&self.board)));
            }
        }
        self.cards.sort_by(|one, other| find::order(&one.address).cmp(&find::order(&other.address)));
        (0..).zip(&mut self.cards).for_each(|(index, card)| card.number(index));
        // They have their numbers, and nothing else.
        self.cards.retain(|card| !self.without.contains(&card.address));
        self.cards.iter_mut().for_each(Card::identify);
    }
}

impl Driver for Amd {
    fn gpus(&self) -> Vec<GpuIdentity> {
        self.cards.iter().map(Card::identity).collect()
    }

    fn sample(&mut self, set: Set, time: Timestamp, readings: &mut Readings) {
        if set == Set::Condition {
            self.look_again();
        }
        let version = (set == Set::Facts).then(|| facts::driver(&self.sys, &self.metrics, readings));
        for card in &mut self.cards {
            card.begin(time);
            match set {
                Set::Activity => activity::read(card, &self.metrics, readings),
                Set::Condition => condition::read(card, &self.metrics, readings),
                Set::Facts => facts::read(card, version.as_deref().unwrap_or_default(), &self.metrics, readings),
            }
        }
    }

    fn holders(&mut self) -> Vec<GpuHolders> {
        match processes::read(&self.sys, &self.board, &self.cards) {
            Ok(holders) => holders,
            Err(error) => {
                // A kernel without the compute driver is as it should be.
                let is_odd = error.kind() != io::ErrorKind::NotFound;
                if is_odd && !std::mem::replace(&mut self.is_silent, true) {
                    info!(%error, "who computes on AMD's GPUs cannot be read");
                }
                Vec::new()
            }
        }
    }

    fn events(&mut self) -> Option<Box<dyn Events>> {
        None
    }
}

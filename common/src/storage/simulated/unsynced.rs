//! What was done and not synced, and what of it a power loss keeps.

use std::collections::{BTreeMap, BTreeSet};

const SECTOR_BYTES: usize = 512;

/// A change of directory entries that is not synced yet.
#[derive(Debug, Clone)]
pub(super) enum EntryChange {
    Create { name: String, node: usize },
    Remove { name: String },
    Rename { from: String, to: String, node: usize },
    Folder { name: String },
}

impl EntryChange {
    pub(super) fn is_in(&self, folder: &str) -> bool {
        match self {
            Self::Create { name, .. } | Self::Remove { name } => folder_of(name) == folder,
            Self::Rename { from, to, .. } => folder_of(from) == folder || folder_of(to) == folder,
            Self::Folder { .. } => folder.is_empty(),
        }
    }

    pub(super) fn apply(self, entries: &mut BTreeMap<String, usize>, folders: &mut BTreeSet<String>) {
        match self {
            Self::Create { name, node } => _ = entries.insert(name, node),
            Self::Remove { name } => _ = entries.remove(&name),
            Self::Rename { from, to, node } => {
                if entries.get(&from) == Some(&node) {
                    entries.remove(&from);
                }
                entries.insert(to, node);
            }
            Self::Folder { name } => _ = folders.insert(name),
        }
    }
}

/// What of the unsynced changes a power loss keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Survival {
    Nothing,
    Everything,
    AnyChange,
    AnySector,
}

impl Survival {
    pub(super) fn any(random: &mut fastrand::Rng) -> Self {
        *random.choice(&[Self::Nothing, Self::Everything, Self::AnyChange, Self::AnySector]).unwrap_or(&Self::Nothing)
    }

    pub(super) fn of_change(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::AnyChange | Self::AnySector => random.bool(),
        }
    }
}

/// A file's content.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// What reads see.
    pub(super) cache: Vec<u8>,
    /// What is surely on the disk.
    pub(super) disk: Vec<u8>,
    /// What the cache has more than the disk.
    pub(super) unsynced: Vec<Change>,
}

#[derive(Debug)]
pub(super) enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Node {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.cache, |_| true);
        self.unsynced.push(change);
    }

    /// Brings some of the unsynced changes to the disk and forgets the others.
    pub(super) fn settle(&mut self, survival: Survival, random: &mut fastrand::Rng) {
        // A sector is written as it is in the cache: what was put into it later never survives without the earlier.
        let mut lost_sectors = BTreeSet::new();
        for change in std::mem::take(&mut self.unsynced) {
            let whole = survival.of_change(random);
            change.apply(&mut self.disk, |sector| {
                let survives = if matches!(survival, Survival::AnySector) { random.bool() } else { whole };
                let survives = survives && sector.is_none_or(|sector| !lost_sectors.contains(&sector));
                if let Some(sector) = sector.filter(|_| !survives) {
                    lost_sectors.insert(sector);
                }
                survives
            });
        }
    }
}

impl Change {
    /// Applies what `survives`: it is asked for each sector, and without one for the length.
    pub(super) fn apply(&self, content: &mut Vec<u8>, mut survives: impl FnMut(Option<usize>) -> bool) {
        match self {
            Self::Length(length) if survives(None) => content.resize(*length, 0),
            Self::Length(_) => {}
            Self::Write { at, bytes } => {
                // The length may survive without the content.
                if content.len() < at + bytes.len() && survives(None) {
                    content.resize(at + bytes.len(), 0);
                }
                let mut at = *at;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let in_sector = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len());
                    let (piece, after) = rest.split_at(in_sector);
                    if survives(Some(at / SECTOR_BYTES)) {
                        content.resize(content.len().max(at + in_sector), 0);
                        if let Some(target) = content.get_mut(at..at + in_sector) {
                            target.copy_from_slice(piece);
                        }
                    }
                    (at, rest) = (at + in_sector, after);
                }
            }
        }
    }
}

/// The folder of a name; `""` for the directory itself.
pub(super) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

//! Opening: finds what is valid, cuts what is torn, secures what is damaged. The rules are in the
//! [module's documentation](super).
//!
//! Needs memory for one row per segment and one buffer, however large the journal is.

use std::collections::BTreeSet;

use super::Position;
use super::error::{JournalError, Trouble};
use super::format::{SEGMENT_NUMBER_MAX, Seed, segment_name, segment_number};
use super::quarantine;
use super::scan::{After, Prefix, Scanner};
use super::segment::{self, Beginning, Fresh};
use super::table::Row;
use super::window::Window;
use crate::storage::{Access, Failure, Storage, StorageFile, failure};

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments that serve records, the active one included.
    pub segments: u64,
    /// Records that can be read.
    pub records: u64,
    /// The write that a crash interrupted, if there was one: normal after a power loss.
    pub torn: Option<Torn>,
    /// What is damaged or missing, in ascending order: records were lost that a sync may have confirmed.
    pub damages: Vec<Damage>,
    /// Entries of the directory that are not the journal's. They are left alone.
    pub foreign: u64,
    /// Files in the quarantine, those of earlier times included.
    pub quarantine_files: u64,
    /// Their bytes: nothing ever deletes them.
    pub quarantine_bytes: u64,
}

impl Recovery {
    /// Whether nothing was torn, damaged or missing.
    pub fn is_clean(&self) -> bool {
        self.torn.is_none() && self.damages.is_empty()
    }
}

/// An interrupted write at the end of the newest segment that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Where the segment ends now. Offset 0: its creation had been interrupted.
    pub position: Position,
    /// Bytes cut off, without trailing zeros.
    pub bytes: u64,
}

/// One place where records were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The records of the segment before this position are served, the ones after it are not.
    pub position: Position,
    /// What was found there.
    pub kind: DamageKind,
    /// Where to look.
    pub evidence: Evidence,
}

/// What was found in place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The segment's header is not valid, or the file is another segment's: no record of it is served.
    Header,
    /// Invalid bytes where a durable record was.
    Record,
    /// Invalid bytes followed by valid records, none of which proves that the first was durable: a power loss that
    /// kept later sectors and lost earlier ones, or damage to the records of the last sync.
    Hole,
    /// The segment ends earlier than it did when the next one began.
    Shortened,
    /// The system failed to read it. It may succeed at the next opening.
    Unreadable,
    /// There is no file for the segments from this one to the given one.
    Missing {
        /// The last that is missing.
        through: u64,
    },
}

/// Where the damaged file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// In the quarantine, under this name.
    Quarantined(String),
    /// Where it was, because it could not be copied. It will be moved to the quarantine when its turn to be
    /// removed comes.
    InPlace,
    /// There is none.
    Nothing,
}

/// The segment that is written on.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u64,
    pub(super) seed: Seed,
    pub(super) file: Box<dyn StorageFile>,
    pub(super) file_bytes: u64,
    /// Everything before this offset is in the file.
    pub(super) flushed: u32,
    /// Everything before this offset is on the disk.
    pub(super) durable: u32,
    pub(super) records: u64,
}

impl Active {
    pub(super) fn fresh(number: u64, fresh: Fresh) -> Self {
        let Fresh { file, seed, file_bytes } = fresh;
        let empty = super::format::SEGMENT_HEADER_BYTES;
        Self { number, seed, file, file_bytes, flushed: empty, durable: empty, records: 0 }
    }

    pub(super) fn row(&self) -> Row {
        let Self { number, file_bytes, records, .. } = *self;
        Row { number, end: self.flushed, file_bytes, records, is_evidence: false }
    }
}

/// Makes the directory's journal ready. The caller holds the lock.
pub(super) fn recover(
    storage: &dyn Storage,
    preallocate_bytes: u64,
) -> Result<(Vec<Row>, Active, Recovery), JournalError> {
    let inventory = Inventory::take(storage)?;
    let mut recoverer = Recoverer {
        storage,
        preallocate_bytes,
        window: Window::default(),
        rows: Vec::new(),
        report: Recovery::default(),
    };
    let active = recoverer.run(&inventory)?;
    let Recoverer { mut rows, mut report, .. } = recoverer;
    rows.push(active.row());

    report.damages.extend(inventory.missing());
    report.damages.sort_by_key(|damage| damage.position);
    report.segments = rows.len() as u64;
    report.records = rows.iter().map(|row| row.records).sum();
    report.foreign = inventory.foreign;
    let quarantine = quarantine::contents(storage).map_err(JournalError::Io)?;
    (report.quarantine_files, report.quarantine_bytes) = (quarantine.files, quarantine.bytes);
    Ok((rows, active, report))
}

/// What the directory holds, before anything is touched.
#[derive(Debug)]
struct Inventory {
    /// Ascending.
    segments: Vec<(u64, Beginning)>,
    quarantined: BTreeSet<u64>,
    /// The highest number that any name stands for; 0 if there is none.
    number_max: u64,
    foreign: u64,
}

impl Inventory {
    fn take(storage: &dyn Storage) -> Result<Self, JournalError> {
        // A removal that an earlier process did not live to sync must not be undone later.
        storage.sync_folder("").map_err(failure(storage, "sync", "")).map_err(JournalError::Io)?;
        let entries = storage.list("").map_err(failure(storage, "list", "")).map_err(JournalError::Io)?;
        let quarantined = quarantine::contents(storage).map_err(JournalError::Io)?.numbers;
        let mut number_max = quarantined.last().copied().unwrap_or(0);
        let mut numbers = BTreeSet::new();
        let mut foreign = 0;
        for entry in entries {
            let number = segment_number(&entry.name);
            number_max = number_max.max(number.unwrap_or(0));
            match number.filter(|_| entry.is_file) {
                Some(number) => _ = numbers.insert(number),
                None if entry.name == super::writer::LOCK_NAME || entry.name == quarantine::FOLDER => {}
                None => foreign += 1,
            }
        }
        if let Some(newest) = numbers.last() {
            settle(storage, *newest)?;
        }
        let beginnings = numbers.into_iter().map(|number| Ok((number, segment::beginning(storage, number)?)));
        Ok(Self { segments: beginnings.collect::<Result<_, JournalError>>()?, quarantined, number_max, foreign })
    }

    /// Runs of numbers between the oldest and the newest segment that there is nothing of, not even in the quarantine.
    fn missing(&self) -> Vec<Damage> {
        let Some((oldest, _)) = self.segments.first() else { return Vec::new() };
        let mut known: BTreeSet<u64> = self.quarantined.range(oldest..).copied().collect();
        known.extend(self.segments.iter().map(|(number, _)| *number));
        let pairs = known.iter().zip(known.iter().skip(1));
        pairs
            .filter(|(before, after)| *before + 1 < **after)
            .map(|(before, after)| Damage {
                position: Position::segment_start(before + 1),
                kind: DamageKind::Missing { through: after - 1 },
                evidence: Evidence::Nothing,
            })
            .collect()
    }
}

/// Makes what can be read of a segment what is on the disk.
///
/// An earlier process may have left pages that were never written (sync them), or that failed to be written and
/// now count as clean (drop them). All segments before the newest were synced before they were left.
fn settle(storage: &dyn Storage, number: u64) -> Result<(), JournalError> {
    let name = segment_name(number);
    let file = storage.open(&name, Access::Write).map_err(failure(storage, "open", &name)).map_err(JournalError::Io)?;
    file.sync_data().map_err(failure(storage, "sync", &name)).map_err(JournalError::Io)?;
    file.forget_cached();
    Ok(())
}

struct Recoverer<'a> {
    storage: &'a dyn Storage,
    preallocate_bytes: u64,
    window: Window,
    rows: Vec<Row>,
    report: Recovery,
}

impl Recoverer<'_> {
    fn run(&mut self, inventory: &Inventory) -> Result<Active, JournalError> {
        let mut following = inventory.segments.iter().skip(1);
        for (number, beginning) in &inventory.segments {
            let next = following.next();
            if *number == inventory.number_max
                && let Some(active) = self.newest(*number, *beginning)?
            {
                return Ok(active);
            }
            if *number != inventory.number_max {
                let left_at = next.and_then(|(next, beginning)| match beginning {
                    Beginning::Valid { header, .. } if *next == number + 1 => Some(header.previous_end),
                    _ => None,
                });
                self.older(*number, *beginning, left_at.unwrap_or(0), inventory.quarantined.contains(number))?;
            }
        }
        self.create(inventory.number_max)
    }

    /// A new segment, because the newest cannot be written on or there is none.
    fn create(&self, number_max: u64) -> Result<Active, JournalError> {
        let number = number_max + 1;
        if number > SEGMENT_NUMBER_MAX {
            return Err(JournalError::NumbersUsedUp { directory: self.storage.path().to_owned() });
        }
        let fresh = segment::create(self.storage, number, self.end_before(number), self.preallocate_bytes)?;
        Ok(Active::fresh(number, fresh))
    }

    /// Where the segment before `number` ends; 0 if that is not known.
    fn end_before(&self, number: u64) -> u32 {
        let previous = self.rows.last().filter(|row| row.number + 1 == number);
        previous.map_or(0, |row| row.end)
    }

    /// A segment that was complete before the next one began. `left_at`: where it ended then, or 0.
    fn older(&mut self, number: u64, beginning: Beginning, left_at: u32, is_known: bool) -> Result<(), JournalError> {
        let Beginning::Valid { seed, .. } = beginning else {
            self.unusable(number, beginning);
            return Ok(());
        };
        let (file, file_bytes) = self.open(number, Access::Read)?;
        let prefix = self.scanner(&*file, file_bytes, seed).prefix();
        let kind = match prefix.after {
            After::Unreadable => Some(DamageKind::Unreadable),
            After::Garbage { .. } => Some(DamageKind::Record),
            // Once secured, a cut segment stays short.
            After::Nothing if prefix.end < left_at && !is_known => Some(DamageKind::Shortened),
            After::Nothing => None,
        };
        self.keep_prefix(number, file_bytes, &prefix, kind);
        Ok(())
    }

    /// The newest segment; `None` if it cannot be written on.
    fn newest(&mut self, number: u64, beginning: Beginning) -> Result<Option<Active>, JournalError> {
        let seed = match beginning {
            Beginning::Valid { seed, .. } => seed,
            Beginning::Unfinished => {
                let fresh = segment::complete(self.storage, number, self.end_before(number), self.preallocate_bytes)?;
                self.report.torn = Some(Torn { position: Position::segment_start(number), bytes: 0 });
                return Ok(Some(Active::fresh(number, fresh)));
            }
            Beginning::Damaged | Beginning::Unreadable => {
                self.unusable(number, beginning);
                return Ok(None);
            }
        };
        let (file, file_bytes) = self.open(number, Access::Write)?;
        let mut scanner = self.scanner(&*file, file_bytes, seed);
        let prefix = scanner.prefix();
        let kind = match prefix.after {
            After::Nothing => None,
            After::Unreadable => Some(DamageKind::Unreadable),
            After::Garbage { end } => match scanner.survivor(prefix.end, end) {
                Ok(None) => None,
                Ok(Some(survivor)) if survivor.durable > prefix.end => Some(DamageKind::Record),
                Ok(Some(_)) => Some(DamageKind::Hole),
                Err(_) => Some(DamageKind::Unreadable),
            },
        };
        if kind.is_some() {
            self.keep_prefix(number, file_bytes, &prefix, kind);
            return Ok(None);
        }
        self.write_on(number, seed, file, file_bytes, &prefix).map(Some)
    }

    /// Cuts off a torn write and goes on behind the last record.
    fn write_on(
        &mut self,
        number: u64,
        seed: Seed,
        file: Box<dyn StorageFile>,
        mut file_bytes: u64,
        prefix: &Prefix,
    ) -> Result<Active, JournalError> {
        let name = segment_name(number);
        let end = prefix.end;
        if let After::Garbage { end: garbage_end } = prefix.after {
            let position = Position { segment: number, offset: end };
            self.report.torn = Some(Torn { position, bytes: garbage_end - u64::from(end) });
            file_bytes = u64::from(end);
            file.set_len(file_bytes).map_err(failure(self.storage, "cut", &name)).map_err(JournalError::Io)?;
        }
        file_bytes = segment::preallocate(&*file, file_bytes, self.preallocate_bytes)
            .map_err(failure(self.storage, "preallocate", &name))
            .map_err(JournalError::Io)?;
        // So that what is reported as cut stays cut.
        file.sync_data().map_err(failure(self.storage, "sync", &name)).map_err(JournalError::Io)?;
        Ok(Active { number, seed, file, file_bytes, flushed: end, durable: end, records: prefix.records })
    }

    /// Serves the valid records of a segment that is not written on, and secures the rest if it is damaged.
    fn keep_prefix(&mut self, number: u64, file_bytes: u64, prefix: &Prefix, damage: Option<DamageKind>) {
        let Prefix { end, records, .. } = *prefix;
        let mut row = Row { number, end, file_bytes, records, is_evidence: false };
        if let Some(kind) = damage {
            let evidence = match kind {
                // It may be readable tomorrow: nothing may be cut.
                DamageKind::Unreadable => Evidence::InPlace,
                _ => self.secure_and_cut(number, end).map_or(Evidence::InPlace, Evidence::Quarantined),
            };
            match evidence {
                Evidence::InPlace => row.is_evidence = true,
                _ => row.file_bytes = u64::from(end),
            }
            self.report.damages.push(Damage { position: Position { segment: number, offset: end }, kind, evidence });
        }
        self.rows.push(row);
    }

    /// Copies a damaged segment to the quarantine, then cuts it to its valid records.
    fn secure_and_cut(&self, number: u64, end: u32) -> Result<String, Failure> {
        let copy = quarantine::copy(self.storage, number)?;
        let name = segment_name(number);
        let file = self.storage.open(&name, Access::Write).map_err(failure(self.storage, "open", &name))?;
        file.set_len(u64::from(end)).map_err(failure(self.storage, "cut", &name))?;
        file.sync_data().map_err(failure(self.storage, "sync", &name))?;
        Ok(copy)
    }

    /// A segment of which nothing can be served.
    fn unusable(&mut self, number: u64, beginning: Beginning) {
        let (kind, evidence) = match beginning {
            Beginning::Unreadable => (DamageKind::Unreadable, Evidence::InPlace),
            _ => {
                let moved = quarantine::take(self.storage, number);
                (DamageKind::Header, moved.map_or(Evidence::InPlace, Evidence::Quarantined))
            }
        };
        if evidence == Evidence::InPlace {
            // Serves nothing, but is still accounted for, and moved when its turn comes.
            let file_bytes = self.open(number, Access::Read).map_or(0, |(_, bytes)| bytes);
            self.rows.push(Row { number, end: 0, file_bytes, records: 0, is_evidence: true });
        }
        self.report.damages.push(Damage { position: Position::segment_start(number), kind, evidence });
    }

    fn open(&self, number: u64, access: Access) -> Result<(Box<dyn StorageFile>, u64), JournalError> {
        let name = segment_name(number);
        let file = self.storage.open(&name, access).map_err(failure(self.storage, "open", &name));
        let file = file.map_err(Trouble::of_attempt)?;
        let bytes = file.len().map_err(failure(self.storage, "measure", &name)).map_err(JournalError::Io)?;
        Ok((file, bytes))
    }

    fn scanner<'b>(&'b mut self, file: &'b dyn StorageFile, file_bytes: u64, seed: Seed) -> Scanner<'b> {
        self.window.clear();
        Scanner { file, file_bytes, seed, window: &mut self.window }
    }
}

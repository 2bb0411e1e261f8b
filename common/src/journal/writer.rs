//! The journal as its owner holds it: accepts records, flushes, syncs, rolls, removes.

use std::path::Path;
use std::sync::Arc;

use super::Position;
use super::error::{JournalError, ReadError, Trouble};
use super::format::{self, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_NUMBER_MAX, segment_name};
use super::quarantine;
use super::reader::Reader;
use super::recovery::{self, Active, Recovery};
use super::segment;
use super::table::{Row, Segment, Table};
use crate::limits::RECORD_BYTES_MAX;
use crate::storage::{Disk, Failure, Lock, Storage, failure, path_of, write_all_at};

/// Most that [`Options::segment_bytes`] may be: offsets are 32 bits, and a segment is the unit of removal and of
/// damage.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

pub(super) const LOCK_NAME: &str = "lock";

/// How a journal is kept. All of it may differ from one opening to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment that would grow beyond this wants to be rolled; at most [`SEGMENT_BYTES_MAX`] counts.
    pub segment_bytes: u32,
    /// Accepted records are flushed when they would exceed this. One record may be longer.
    pub buffer_bytes: usize,
    /// Reserve `segment_bytes` when a segment is created: a sync then has no new length to record, and is cheaper.
    pub preallocate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 * 1024 * 1024, buffer_bytes: 256 * 1024, preallocate: true }
    }
}

impl Options {
    fn preallocate_bytes(&self) -> u64 {
        if self.preallocate { u64::from(self.segment_bytes) } else { 0 }
    }
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Segments.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Records that could be read in them.
    pub records: u64,
}

/// An append-only journal. The [module's documentation](super) has the guarantees and an example.
#[derive(Debug)]
pub struct Journal {
    storage: Arc<dyn Storage>,
    options: Options,
    table: Arc<Table>,
    active: Active,
    /// Accepted records behind `active.flushed`, as they will stand in the file.
    buffer: Vec<u8>,
    buffer_records: u64,
    poison: Option<Arc<Failure>>,
    _lock: Lock,
}

impl Journal {
    /// Opens the journal in a directory, and creates it if need be.
    ///
    /// # Errors
    /// - [`JournalError::Locked`]: another process has it.
    /// - [`JournalError::Version`]: a newer program wrote it; nothing was touched.
    /// - [`JournalError::Full`], [`JournalError::Io`]: it may succeed later. Damage is never an error.
    pub fn open(directory: &Path, options: Options) -> Result<(Self, Recovery), JournalError> {
        let disk = Disk::create(directory)
            .map_err(|source| Failure { operation: "open", path: directory.to_owned(), source })
            .map_err(JournalError::Io)?;
        Self::open_in(Arc::new(disk), options)
    }

    /// As [`Self::open`], in any storage.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(storage: Arc<dyn Storage>, options: Options) -> Result<(Self, Recovery), JournalError> {
        let options = Options { segment_bytes: options.segment_bytes.min(SEGMENT_BYTES_MAX), ..options };
        let lock = storage.lock(LOCK_NAME).map_err(failure(&*storage, "lock", LOCK_NAME)).map_err(JournalError::Io)?;
        let Some(lock) = lock else {
            let directory = storage.path().to_owned();
            return Err(JournalError::Locked { lock: path_of(&*storage, LOCK_NAME), directory });
        };
        let (rows, active, recovery) = recovery::recover(&*storage, options.preallocate_bytes())?;
        let table = Arc::new(Table::new(rows));
        let journal =
            Self { storage, options, table, active, buffer: Vec::new(), buffer_records: 0, poison: None, _lock: lock };
        Ok((journal, recovery))
    }

    /// Accepts a record into the active segment and returns its position. Flushes first if the buffer has no room.
    ///
    /// # Errors
    /// The record was not accepted; all records accepted before it are still there.
    pub fn append(&mut self, payload: &[u8]) -> Result<Position, JournalError> {
        self.check()?;
        if payload.is_empty() || payload.len() > RECORD_BYTES_MAX {
            return Err(JournalError::RecordSize { bytes: payload.len() });
        }
        let position = self.end();
        let record_bytes = RECORD_HEADER_BYTES as usize + payload.len();
        if u64::from(position.offset) + record_bytes as u64 > u64::from(u32::MAX) {
            return Err(JournalError::SegmentFull { segment: position.segment });
        }
        if self.buffer.len() + record_bytes > self.options.buffer_bytes {
            self.flush()?;
        }
        format::encode_record(&mut self.buffer, self.active.seed, position.offset, self.active.durable, payload);
        self.buffer_records += 1;
        Ok(position)
    }

    /// Writes the accepted records to the file: they survive the end of the process, and readers see them.
    ///
    /// # Errors
    /// [`JournalError::Full`]: they stay accepted, and the next call tries again.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let at = u64::from(self.active.flushed);
        let (written, result) = write_all_at(&*self.active.file, &self.buffer, at);
        self.active.file_bytes = self.active.file_bytes.max(at + written);
        if let Err(source) = result {
            // What was written of it is behind the end that readers see, and will be written again as it is.
            let name = segment_name(self.active.number);
            let trouble = Trouble::of_write(failure(&*self.storage, "write", &name)(source));
            self.publish();
            return Err(self.troubled(trouble));
        }
        self.active.flushed = self.end().offset;
        self.active.records += self.buffer_records;
        self.buffer_records = 0;
        self.buffer.clear();
        // A record may have been longer than the buffer is meant to be.
        self.buffer.shrink_to(self.options.buffer_bytes);
        self.publish();
        Ok(())
    }

    /// Flushes, and makes all records survive a power loss. Returns [`Self::durable`].
    ///
    /// # Errors
    /// [`JournalError::Full`] as [`Self::flush`]. A failed fsync poisons the journal.
    pub fn sync(&mut self) -> Result<Position, JournalError> {
        self.flush()?;
        if self.active.durable < self.active.flushed {
            self.sync_active()?;
        }
        Ok(self.durable())
    }

    /// Makes all records durable and begins a new segment.
    ///
    /// # Errors
    /// [`JournalError::Full`], [`JournalError::Io`]: the segment is still the active one.
    pub fn roll(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        let number = self.active.number + 1;
        if number > SEGMENT_NUMBER_MAX {
            return Err(JournalError::NumbersUsedUp { directory: self.storage.path().to_owned() });
        }
        self.seal()?;
        let preallocate_bytes = self.options.preallocate_bytes();
        let fresh = segment::create(&*self.storage, number, self.active.flushed, preallocate_bytes)
            .map_err(|trouble| self.troubled(trouble))?;
        self.active = Active::fresh(number, fresh);
        self.table.push(self.active.row());
        Ok(())
    }

    /// Whether the owner should [`Self::roll`] before it appends a record of this length, because the segment
    /// would grow beyond
    /// [`Options::segment_bytes`]. Never of an empty segment.
    pub fn wants_roll(&self, payload_bytes: usize) -> bool {
        let grown = u64::from(self.end().offset) + u64::from(RECORD_HEADER_BYTES) + payload_bytes as u64;
        !self.segment_is_empty() && grown > u64::from(self.options.segment_bytes)
    }

    /// Whether no record has been accepted into the active segment yet.
    pub fn segment_is_empty(&self) -> bool {
        self.end().offset == SEGMENT_HEADER_BYTES
    }

    /// Whether segments that are begun from now on are preallocated.
    pub fn set_preallocate(&mut self, is_wanted: bool) {
        self.options.preallocate = is_wanted;
    }

    /// Preallocated bytes of the active segment that no accepted record takes.
    #[must_use]
    pub fn spare_bytes(&self) -> u64 {
        self.active.file_bytes.saturating_sub(self.end().offset.into())
    }

    /// Removes the oldest segment, durably, and says what it was; `None` if there is only the active one.
    ///
    /// # Errors
    /// [`JournalError::Io`]: it was not removed.
    pub fn remove_oldest(&mut self) -> Result<Option<Segment>, JournalError> {
        self.check()?;
        // First out of the readers' sight.
        let Some(row) = self.table.take_oldest() else { return Ok(None) };
        match self.remove_file(row) {
            Ok(()) => Ok(Some(row.segment())),
            Err(trouble) => {
                if !matches!(trouble, Trouble::Fatal(_)) {
                    self.table.put_back(row);
                }
                Err(self.troubled(trouble))
            }
        }
    }

    /// Removes the segments numbered up to `segment`, oldest first, each durably before the next, so that a crash
    /// leaves no gap. The active one stays in any case.
    ///
    /// # Errors
    /// As [`Self::remove_oldest`]; the ones before it are removed, and [`Self::segments`] has the rest.
    pub fn remove_through(&mut self, segment: u64) -> Result<Removed, JournalError> {
        self.check()?;
        let mut removed = Removed::default();
        while self.table.oldest().is_some_and(|oldest| oldest <= segment) {
            let Some(segment) = self.remove_oldest()? else { break };
            removed.segments += 1;
            removed.bytes += segment.bytes;
            removed.records += segment.records;
        }
        Ok(removed)
    }

    /// The segments in ascending order; the last is the active one. Allocates.
    pub fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = self.table.list().iter().map(Row::segment).collect();
        if let Some(active) = segments.last_mut() {
            active.records += self.buffer_records;
            active.bytes = active.bytes.max(u64::from(self.end().offset));
        }
        segments
    }

    /// Bytes on the disk, preallocated and accepted ones included; the quarantine is not.
    pub fn bytes(&self) -> u64 {
        let beyond = u64::from(self.end().offset).saturating_sub(self.active.file_bytes);
        self.table.file_bytes() + beyond
    }

    /// A reader of the records from `from` on, or after it if its segment is no more. It may go to another thread.
    ///
    /// # Errors
    /// [`ReadError::Beyond`]: the position is behind the end; what it knew has been lost with a torn tail.
    pub fn read(&self, from: Position) -> Result<Reader, ReadError> {
        let end = self.end();
        if from > end {
            return Err(ReadError::Beyond { from, end });
        }
        Ok(Reader::new(Arc::clone(&self.storage), Arc::clone(&self.table), from))
    }

    /// Where the next record will stand, unless the journal rolls.
    pub fn end(&self) -> Position {
        let buffered = u32::try_from(self.buffer.len()).expect("append keeps the end within 32 bits");
        Position { segment: self.active.number, offset: self.active.flushed + buffered }
    }

    /// Every record before this position survives a power loss.
    pub fn durable(&self) -> Position {
        Position { segment: self.active.number, offset: self.active.durable }
    }

    /// What poisoned the journal, if something did.
    pub fn poison(&self) -> Option<&Failure> {
        self.poison.as_deref()
    }

    /// Gives back what was preallocated beyond the records, and makes the segment durable as it will stay.
    fn seal(&mut self) -> Result<(), JournalError> {
        let end = u64::from(self.active.flushed);
        if self.active.file_bytes > end {
            let name = segment_name(self.active.number);
            let cut = self.active.file.set_len(end).map_err(failure(&*self.storage, "cut", &name));
            cut.map_err(|failure| self.troubled(Trouble::Fatal(failure)))?;
            self.active.file_bytes = end;
            self.publish();
            return self.sync_active();
        }
        if self.active.durable < self.active.flushed { self.sync_active() } else { Ok(()) }
    }

    fn sync_active(&mut self) -> Result<(), JournalError> {
        let name = segment_name(self.active.number);
        let synced = self.active.file.sync_data().map_err(failure(&*self.storage, "sync", &name));
        synced.map_err(|failure| self.troubled(Trouble::Fatal(failure)))?;
        self.active.durable = self.active.flushed;
        Ok(())
    }

    fn remove_file(&self, row: Row) -> Result<(), Trouble> {
        if row.is_evidence {
            return quarantine::take(&*self.storage, row.number).map(drop);
        }
        let name = segment_name(row.number);
        match self.storage.remove(&name) {
            // Somebody has removed it by hand.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(failure(&*self.storage, "remove", &name)).map_err(Trouble::Harmless)?,
        }
        self.storage.sync_folder("").map_err(failure(&*self.storage, "sync", "")).map_err(Trouble::Fatal)
    }

    fn publish(&self) {
        let row = self.active.row();
        self.table.update_active(|active| *active = row);
    }

    fn check(&self) -> Result<(), JournalError> {
        self.poison.as_ref().map_or(Ok(()), |cause| Err(JournalError::Poisoned(Arc::clone(cause))))
    }

    fn troubled(&mut self, trouble: Trouble) -> JournalError {
        let failure = match trouble {
            Trouble::Full(failure) => return JournalError::Full(failure),
            Trouble::Harmless(failure) => return JournalError::Io(failure),
            Trouble::Fatal(failure) => Arc::new(failure),
        };
        self.poison = Some(Arc::clone(&failure));
        JournalError::Poisoned(failure)
    }
}

//! One append-only journal, used by the agent's spool and by the collector's write-ahead log.
//!
//! It keeps opaque records of 1 to [`RECORD_BYTES_MAX`] bytes, in order, in numbered segment files. Its promise:
//! what [`Journal::sync`] confirmed is there after a power loss, once, in order, with the same bytes; what was never
//! appended is never served; and it always starts, whatever it finds on the disk, without deleting evidence.
//!
//! Data and position live in *one* place: there is no index, no cursor file, no manifest. Opening scans the
//! checksums, so deleting or damaging any one file costs that file alone.
//!
//! Absent on purpose: threads, async, clocks, retention rules, any knowledge of what a record says. The owner calls
//! from its own thread and decides when to sync, when to roll and what to remove.
//!
//! # Use
//!
//! ```
//! use belfry_common::journal::{Journal, JournalError, Options, Position};
//!
//! /// Each segment begins with a snapshot, so that it can be read without the ones before it.
//! fn store(journal: &mut Journal, snapshot: &[u8], record: &[u8]) -> Result<Position, JournalError> {
//!     if journal.wants_roll(record.len()) {
//!         journal.roll()?;
//!     }
//!     if journal.segment_is_empty() {
//!         journal.append(snapshot)?;
//!     }
//!     journal.append(record)
//! }
//!
//! # let directory = tempfile::tempdir()?;
//! let (mut journal, recovery) = Journal::open(directory.path(), Options::default())?;
//! assert!(recovery.is_clean());
//! let first = store(&mut journal, b"snapshot", b"one")?;
//! store(&mut journal, b"snapshot", b"two")?;
//! assert!(journal.sync()? > first); // one fdatasync for both: now they may be acknowledged
//!
//! let mut reader = journal.read(first)?;
//! while let Some(record) = reader.next_record()? {
//!     println!("{} at {}", record.payload.len(), record.position);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `append` never begins a segment by itself: only the owner knows what must stand at its beginning. Asking
//! `segment_is_empty` (and not only `wants_roll`) also covers a fresh journal, a crash between `roll` and the first
//! record, and a full disk at that moment.
//!
//! # What each call guarantees
//!
//! | call | afterwards the record survives |
//! |---|---|
//! | [`Journal::append`] | nothing yet: it is accepted into a bounded buffer and has its position |
//! | [`Journal::flush`] | the end of the process, `kill -9` included; readers see it |
//! | [`Journal::sync`], [`Journal::roll`] | a power loss |
//!
//! An accepted record keeps its position and its bytes: a flush that failed is repeated at the same place with the
//! same bytes. Hence:
//!
//! - [`JournalError::Full`] (no space, quota, file size limit): the call that returns it has accepted nothing and lost
//!   nothing. Records accepted before stay in the buffer, in order; a part of them may be in the file already,
//!   invisible to readers. Any later `append`, `flush` or `sync` carries on by itself once there is space. (A file size
//!   limit only if the process ignores `SIGXFSZ`, which kills it otherwise. An fsync that reports a lack of space, as a
//!   network file system may, poisons as every failed fsync does.)
//! - [`JournalError::Poisoned`] (a failed fsync, or a failed write that is not a lack of space): nobody can know what
//!   is on the disk. The fsync is never repeated, for the kernel may report success for pages that it dropped. This
//!   call and all later ones fail. Dropping the journal and opening it again recovers what the disk really has.
//! - [`JournalError::Io`]: nothing has changed; the call may be repeated (too many open files, for example).
//!
//! Dropping a journal flushes nothing. Positions at or beyond [`Journal::durable`] may be given to other records
//! after a power loss; those before it never are.
//!
//! # Format, version 1
//!
//! A directory holds:
//!
//! - `lock`, empty; the process that holds an exclusive `flock` on it owns the directory;
//! - segments `<number as 16 lower-case hex digits>.journal`, numbers from 1 to 2^48-1, ascending by one. A number is
//!   never used twice: the newest segment is never removed, so the highest number is always on the disk;
//! - `quarantine/`: segments as they were when damage was found in them. Nothing reads or deletes them.
//!
//! Other names are left alone. All integers are little-endian. CRC is CRC32C (Castagnoli). A segment begins with 32
//! bytes:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `BELFRYJ\n` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | where the segment numbered one lower ended when it was left for this one; 0 = unknown |
//! | 16 | 8 | the segment's number, as in its name |
//! | 24 | 4 | salt, random |
//! | 28 | 4 | CRC of bytes 0 to 27 |
//!
//! Records follow one another without padding:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | length of the payload, 1 to 4,259,840 |
//! | 4 | 4 | durable: an offset in this segment; everything before it was known to be on the disk when this record was accepted |
//! | 8 | 4 | header check: CRC of (bytes 0 to 27 of the segment, this record's offset in the segment as u32, length, durable) |
//! | 12 | 4 | payload check: CRC of (what the header check covers, payload) |
//! | 16 | length | payload |
//!
//! Both checks depend on the segment's number and salt and on the offset: stale bytes, or a record in a wrong place,
//! cannot pass. A length of 0 ends the data; the file may go on with preallocated zeros.
//!
//! **Versions.** The layout of the first 32 bytes up to the CRC stays in every version. A reader that finds a
//! valid header with a version above its own refuses the whole directory before touching anything
//! ([`JournalError::Version`]): the data waits for the newer program. A newer reader reads every older version,
//! appends only to its own: it rolls.
//!
//! # What opening does
//!
//! Segments are scanned with one small buffer. Where a check fails, at an offset *p*:
//!
//! - newest segment, no valid record after *p*: a **torn** write. The segment is cut at *p* and written on.
//! - newest segment, valid records after *p*: if one of them says that *p* was durable, this is damage
//!   ([`DamageKind::Record`]); if none does, a power loss may have kept later sectors and lost earlier ones, or
//!   the last records before the end were damaged: it cannot be known ([`DamageKind::Hole`]). Both are treated as
//!   damage.
//! - older segment: it was complete on the disk before the next began, so whatever is wrong is damage.
//!
//! **Damage**: the file as found is copied to `quarantine/`, then the segment is cut at *p*; a damaged newest segment
//! is left for a new one. The records before *p* stay. The ones after *p* are not served: they may depend on the lost
//! ones, and only the owner of the evidence can tell. If the copy fails (no space, unreadable sector), the segment
//! stays whole in its place, is served up to *p*, and is moved to the quarantine instead of being deleted when its
//! turn comes. A segment without a valid header serves nothing and is moved at once. A newest segment that is
//! empty, all zeros, or has the beginning of a header and nothing behind it, is a creation that a crash
//! interrupted, and is completed.
//!
//! Before it is scanned, the newest segment is synced and its clean pages are dropped from the page cache: what
//! is then reported is on the disk, also after an earlier process died of a failed fsync.
//!
//! What cannot be seen: rot in the very last records (it looks like a torn write), and removal of the newest or the
//! oldest files by hand.
//!
//! [`RECORD_BYTES_MAX`]: crate::limits::RECORD_BYTES_MAX

mod error;
mod format;
mod quarantine;
mod reader;
mod recovery;
mod scan;
mod segment;
mod table;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{JournalError, ReadError};
pub use format::{Position, segment_name, segment_number};
pub use reader::{Reader, Record};
pub use recovery::{Damage, DamageKind, Evidence, Recovery, Torn};
pub use segment::end_of_records;
pub use table::Segment;
pub use writer::{Journal, Options, Removed, SEGMENT_BYTES_MAX};

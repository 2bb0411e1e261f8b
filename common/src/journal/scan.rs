//! Walks through a segment by its checksums, without keeping a record in memory.
//!
//! Only reads; what follows from the result is decided in `recovery`.

use std::io;

use super::format::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, Seed};
use super::window::Window;
use crate::storage::StorageFile;

/// Bytes that are looked at together.
const PIECE_BYTES: usize = 64 * 1024;

const ZEROS: [u8; 4096] = [0; 4096];

/// The valid records at the beginning of a segment.
#[derive(Debug)]
pub(super) struct Prefix {
    /// Offset behind the last of them.
    pub(super) end: u32,
    pub(super) records: u64,
    pub(super) after: After,
}

/// What stands behind the valid prefix.
#[derive(Debug)]
pub(super) enum After {
    /// The end of the file, or zeros up to it.
    Nothing,
    /// Something that is not a valid record, up to this offset; zeros follow.
    Garbage { end: u64 },
    /// It could not be read.
    Unreadable,
}

/// A valid record behind something invalid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survivor {
    /// What it says was durable when it was accepted.
    pub(super) durable: u32,
}

/// One segment under examination.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    pub(super) file: &'a dyn StorageFile,
    pub(super) file_bytes: u64,
    pub(super) seed: Seed,
    pub(super) window: &'a mut Window,
}

impl Scanner<'_> {
    /// Finds the end of the valid records.
    pub(super) fn prefix(&mut self) -> Prefix {
        let mut end = SEGMENT_HEADER_BYTES;
        let mut records = 0;
        let after = loop {
            match self.record(end) {
                Ok(Some((next, _))) => {
                    end = next;
                    records += 1;
                }
                Ok(None) => {
                    break match last_data(self.file, self.window, u64::from(end), self.file_bytes) {
                        Ok(None) => After::Nothing,
                        Ok(Some(end)) => After::Garbage { end },
                        Err(_) => After::Unreadable,
                    };
                }
                Err(_) => break After::Unreadable,
            }
        };
        Prefix { end, records, after }
    }

    /// Looks for valid records between two offsets, and prefers one that says that `from` was durable.
    pub(super) fn survivor(&mut self, from: u32, to: u64) -> io::Result<Option<Survivor>> {
        let mut found = None;
        let mut offset = from;
        while u64::from(offset) < to {
            let Some((next, header)) = self.record(offset)? else {
                offset += 1;
                continue;
            };
            if header.durable > from {
                return Ok(Some(Survivor { durable: header.durable }));
            }
            found = Some(Survivor { durable: header.durable });
            offset = next;
        }
        Ok(found)
    }

    /// The header of the valid record at `offset` and the offset behind it; `None` if there is no valid record.
    fn record(&mut self, offset: u32) -> io::Result<Option<(u32, RecordHeader)>> {
        let bytes = self.window.fetch(self.file, u64::from(offset), RECORD_HEADER_BYTES as usize, self.file_bytes)?;
        let Some(header) = RecordHeader::decode(bytes, self.seed, offset) else { return Ok(None) };
        let Some(end) = header.end(offset).filter(|end| u64::from(*end) <= self.file_bytes) else { return Ok(None) };
        let mut check = header.payload_check();
        let mut at = u64::from(offset + RECORD_HEADER_BYTES);
        while at < u64::from(end) {
            let wanted = usize::try_from(u64::from(end) - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let piece = self.window.fetch(self.file, at, wanted, self.file_bytes)?;
            if piece.is_empty() {
                return Ok(None);
            }
            check.feed(piece);
            at += piece.len() as u64;
        }
        Ok(check.passes().then_some((end, header)))
    }
}

/// Offset behind the last byte that is not zero, from `from` on; `None` if there is none.
pub(super) fn last_data(
    file: &dyn StorageFile,
    window: &mut Window,
    from: u64,
    file_bytes: u64,
) -> io::Result<Option<u64>> {
    let mut last = None;
    let mut at = from;
    while at < file_bytes {
        let piece = window.fetch(file, at, PIECE_BYTES, file_bytes)?;
        if piece.is_empty() {
            break;
        }
        if !is_zero(piece)
            && let Some(in_piece) = piece.iter().rposition(|byte| *byte != 0)
        {
            last = Some(at + in_piece as u64 + 1);
        }
        at += piece.len() as u64;
    }
    Ok(last)
}

fn is_zero(bytes: &[u8]) -> bool {
    // A comparison of slices is one memcmp; a loop over bytes is not.
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}

//! Reads records in order, beside the writer: own file handles, own buffer, any thread.
//!
//! Serves what is flushed, and nothing that fails its checks.

use std::io;
use std::sync::Arc;

use super::Position;
use super::error::ReadError;
use super::format::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, Seed, SegmentHeader, segment_name};
use super::table::Table;
use super::window::Window;
use crate::storage::{Access, Storage, StorageFile, failure};

/// One record, borrowed from the reader's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins.
    pub position: Position,
    /// What was appended.
    pub payload: &'a [u8],
}

/// Iterates over the records from a position on; from [`Journal::read`](super::Journal::read).
///
/// Its memory is bounded by the longest record. Records of segments that are removed under its feet may be skipped: the
/// position of the next record shows it.
#[derive(Debug)]
pub struct Reader {
    storage: Arc<dyn Storage>,
    table: Arc<Table>,
    segment: u64,
    offset: u32,
    /// How far the segment may be read, as far as it is known here.
    end: u32,
    open: Option<(Box<dyn StorageFile>, Seed)>,
    window: Window,
}

impl Reader {
    pub(super) fn new(storage: Arc<dyn Storage>, table: Arc<Table>, from: Position) -> Self {
        let offset = from.offset.max(SEGMENT_HEADER_BYTES);
        Self { storage, table, segment: from.segment, offset, end: 0, open: None, window: Window::default() }
    }

    /// The next record; `None` when all that is flushed has been read. Later calls go on from there.
    ///
    /// # Errors
    /// See [`ReadError`]. No error ends the reading for good.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let (position, end, payload_bytes) = loop {
            while self.offset >= self.end {
                if !self.advance() {
                    return Ok(None);
                }
            }
            let position = self.position();
            match self.check_record() {
                Ok(Some((end, payload_bytes))) => break (position, end, payload_bytes),
                Ok(None) => {
                    self.leave_segment();
                    return Err(ReadError::Damaged { position });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_removed() => self.leave_segment(),
                Err(error) => return Err(self.failure(error)),
            }
        };
        let Some((file, _)) = &self.open else { return Err(ReadError::Damaged { position }) };
        let payload_at = u64::from(position.offset + RECORD_HEADER_BYTES);
        let payload = self.window.fetch(&**file, payload_at, payload_bytes, u64::from(end));
        let name = segment_name(position.segment);
        let payload = payload.map_err(failure(&*self.storage, "read", &name)).map_err(ReadError::Io)?;
        self.offset = end;
        Ok(Some(Record { position, payload }))
    }

    /// Where the next record begins, if it is in the segment being read.
    pub fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    /// Learns of newly flushed records, or goes to the next segment. False if there is nothing more yet.
    fn advance(&mut self) -> bool {
        let outlook = self.table.outlook(self.segment);
        match (outlook.end, outlook.next) {
            (Some(end), _) if end > self.offset => self.end = end,
            (_, Some(next)) => {
                (self.segment, self.offset, self.end) = (next, SEGMENT_HEADER_BYTES, 0);
                self.open = None;
                self.window.clear();
            }
            _ => return false,
        }
        true
    }

    /// Checks the record at the current offset: the offset behind it and its payload's length, `None` if it is not
    /// valid.
    fn check_record(&mut self) -> io::Result<Option<(u32, usize)>> {
        if self.open.is_none() {
            self.open = self.open_segment()?;
        }
        let Some((file, seed)) = &self.open else { return Ok(None) };
        let limit = u64::from(self.end);
        let bytes = self.window.fetch(&**file, u64::from(self.offset), RECORD_HEADER_BYTES as usize, limit)?;
        let Some(header) = RecordHeader::decode(bytes, *seed, self.offset) else { return Ok(None) };
        let Some(end) = header.end(self.offset).filter(|end| *end <= self.end) else { return Ok(None) };
        let payload_bytes = header.payload_bytes as usize;
        let payload_at = u64::from(self.offset + RECORD_HEADER_BYTES);
        let payload = self.window.fetch(&**file, payload_at, payload_bytes, limit)?;
        let mut check = header.payload_check();
        check.feed(payload);
        Ok((payload.len() == payload_bytes && check.passes()).then_some((end, payload_bytes)))
    }

    fn open_segment(&self) -> io::Result<Option<(Box<dyn StorageFile>, Seed)>> {
        let file = self.storage.open(&segment_name(self.segment), Access::Read)?;
        let bytes = u64::from(SEGMENT_HEADER_BYTES);
        let mut window = Window::default();
        let header = SegmentHeader::decode(window.fetch(&*file, 0, SEGMENT_HEADER_BYTES as usize, bytes)?);
        Ok(header.ok().filter(|(header, _)| header.number == self.segment).map(|(_, seed)| (file, seed)))
    }

    /// Never reads this segment again.
    fn leave_segment(&mut self) {
        self.offset = u32::MAX;
        self.open = None;
    }

    fn is_removed(&self) -> bool {
        self.table.outlook(self.segment).end.is_none()
    }

    fn failure(&self, source: io::Error) -> ReadError {
        ReadError::Io(failure(&*self.storage, "read", &segment_name(self.segment))(source))
    }
}

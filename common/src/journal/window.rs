//! A piece of a file in memory, so that small reads near one another cost one system call.

use std::io;

use crate::storage::StorageFile;

/// What one read asks for at least: large enough that its system call does not count.
const WINDOW_BYTES: usize = 128 * 1024;

/// A reused buffer over one file at a time.
#[derive(Debug, Default)]
pub(super) struct Window {
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    start: u64,
}

impl Window {
    /// Forgets what it holds: the next fetch is of another file, or of changed content.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// The `count` bytes at `offset`, or less at the end of the file or at `limit`. Nothing beyond `limit` is read,
    /// for it may still change.
    pub(super) fn fetch(&mut self, file: &dyn StorageFile, offset: u64, count: usize, limit: u64) -> io::Result<&[u8]> {
        let count = usize::try_from(limit.saturating_sub(offset)).map_or(count, |left| left.min(count));
        if self.held(offset, count).is_none() {
            self.fill(file, offset, count, limit)?;
        }
        // What is still missing is behind the end of the file.
        let held = offset.checked_sub(self.start).and_then(|skip| self.buffer.get(usize::try_from(skip).ok()?..));
        let held = held.unwrap_or_default();
        Ok(held.get(..count).unwrap_or(held))
    }

    fn held(&self, offset: u64, count: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.buffer.get(from..from.checked_add(count)?)
    }

    fn fill(&mut self, file: &dyn StorageFile, offset: u64, count: usize, limit: u64) -> io::Result<()> {
        let left = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.start = offset;
        self.buffer.clear();
        self.buffer.resize(count.max(WINDOW_BYTES).min(left), 0);
        let mut filled = 0;
        let result = loop {
            let Some(rest) = self.buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) else { break Ok(()) };
            match file.read_at(rest, offset + filled as u64) {
                Ok(0) => break Ok(()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The read ahead may have met a bad sector that nobody asked for.
                Err(_) if filled >= count => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.buffer.truncate(if result.is_ok() { filled } else { 0 });
        result
    }
}

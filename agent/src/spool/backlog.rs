//! Reads the spool from its oldest batch on.

use belfry_common::{
    journal::{Position, ReadError, Reader},
    model::{Batch, Sequence},
    sequences::SequenceSet,
    wire::codec::Decoder,
};
use tracing::error;

use super::{Spool, SpoolError, record::Record};

/// A batch from the spool.
#[derive(Debug)]
pub(crate) struct Spooled {
    pub(crate) sequence: Sequence,
    pub(crate) batch: Batch,
}

/// Where a reading of the spool stands. Each batch is served at most once by one cursor.
#[derive(Debug)]
pub(crate) struct Cursor {
    reader: Reader,
    segment: u64,
    decoder: Decoder,
}

impl Spool {
    /// A cursor at the oldest batch.
    pub(crate) fn cursor(&self) -> Result<Cursor, SpoolError> {
        let segment = self.journal.segments().first().map_or(1, |segment| segment.number);
        let reader = self.journal.read(Position { segment, offset: 0 })?;
        Ok(Cursor { reader, segment, decoder: Decoder::new() })
    }

    /// Up to `batches_max` further batches that are neither acknowledged nor in `skipped`; none when all have been served.
    pub(crate) fn backlog(
        &self,
        cursor: &mut Cursor,
        skipped: &SequenceSet,
        batches_max: usize,
    ) -> Result<Vec<Spooled>, SpoolError> {
        let mut found = Vec::new();
        while found.len() < batches_max {
            let record = match cursor.reader.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(ReadError::Damaged { position }) => {
                    error!(%position, "part of the spool cannot be read");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if record.position.segment != cursor.segment {
                cursor.segment = record.position.segment;
                cursor.decoder = Decoder::new();
            }
            let Ok(Record::Batch { sequence, body, .. }) = Record::parse(record.payload) else { continue };
            // Decoded in any case: the batches behind it build on it.
            let batch = match cursor.decoder.decode(body) {
                Ok(batch) => batch,
                Err(error) => {
                    error!(sequence, %error, "batch in the spool cannot be read");
                    continue;
                }
            };
            if !self.is_settled(sequence) && !skipped.contains(sequence) {
                found.push(Spooled { sequence, batch });
            }
        }
        Ok(found)
    }
}

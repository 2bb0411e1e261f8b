//! Reads back everything that the journal holds, record by record, for checks and for rescue. Serving uses the head.

use std::sync::Arc;

use belfry_common::{
    error_chain::ErrorChain,
    journal::{Journal, Position, ReadError},
    model::{Epoch, Gap},
};

use crate::{
    Entry, Keys, NodeId,
    record::{Context, Record},
    sealing::Opener,
};

/// What one record of the journal says. A batch that was stored twice comes twice.
#[derive(Debug, Clone)]
pub enum LogRecord {
    /// A batch.
    Batch(Entry),
    /// Numbers that will never be filled.
    Gap {
        /// Whose.
        node: NodeId,
        /// Of which epoch.
        epoch: Epoch,
        /// The numbers.
        gap: Gap,
    },
    /// A record that cannot be understood, and why.
    Unreadable(String),
}

/// Calls `visit` with every record that is flushed, from the oldest on; snapshots only repeat what the others say.
pub(crate) fn read(journal: &Journal, keys: &Keys, mut visit: impl FnMut(LogRecord)) -> Result<(), ReadError> {
    let Some(first) = journal.segments().first().map(|segment| segment.number) else { return Ok(()) };
    let mut reader = journal.read(Position { segment: first, offset: 0 })?;
    let mut context = Context::new(Arc::default());
    let mut opener = Opener::new(keys);
    loop {
        match reader.next_record() {
            Ok(Some(record)) => match opener.open(record) {
                Ok(Some(payload)) => parse(payload, &mut context, &mut visit),
                Ok(None) => {}
                Err(error) => visit(LogRecord::Unreadable(error.to_string())),
            },
            Ok(None) => return Ok(()),
            Err(error @ ReadError::Damaged { .. }) => visit(LogRecord::Unreadable(ErrorChain(&error).to_string())),
            Err(error) => return Err(error),
        }
    }
}

fn parse(payload: &[u8], context: &mut Context, visit: &mut impl FnMut(LogRecord)) {
    match Record::parse(payload) {
        // Each segment begins with one, and with it every node's context begins anew.
        Ok(Record::Snapshot { .. }) => context.clear(),
        Ok(Record::Gap { node, epoch, gap }) => visit(LogRecord::Gap { node, epoch, gap }),
        Ok(Record::Batch { node, key, received, body }) => {
            visit(match context.decode(node, body) {
                Ok(batch) => LogRecord::Batch(Entry { node, key, received, batch: Arc::new(batch) }),
                Err(error) => LogRecord::Unreadable(ErrorChain(&error).to_string()),
            });
        }
        Ok(Record::Layout { number, body }) => {
            if let Err(error) = context.learn(number, body) {
                visit(LogRecord::Unreadable(ErrorChain(&error).to_string()));
            }
        }
        // Only repeats what a batch said; the node's context goes on from it.
        Ok(Record::Newest { node, body, .. }) => {
            if let Err(error) = context.decode(node, body) {
                visit(LogRecord::Unreadable(ErrorChain(&error).to_string()));
            }
        }
        Ok(Record::Begun) => {}
        Err(error) => visit(LogRecord::Unreadable(error.to_string())),
    }
}

//! The journal of a store that is encrypted: each segment begins with a record that says how, and all others in it are sealed.
//!
//! ```text
//! record = kind u8, then by kind (integers little-endian):
//! 7 seal    key u32, salt 32 bytes
//! 8 sealed  number u64, ciphertext and tag: another record
//! ```
//! Numbers ascend in a segment and are the nonces; one that was written to no avail is not used again.

use belfry_common::journal::{Journal, JournalError, Position, Record};
use thiserror::Error;

use crate::keys::{Cipher, FileSeal, KeyNumber, Keys, NotSealed, Purpose, SALT_BYTES, TAG_BYTES};

const SEAL: u8 = 7;
const SEALED: u8 = 8;
const NUMBER_BYTES: usize = 8;
/// What a record that is sealed has more than the one in it.
pub(crate) const SEALED_BYTES: usize = 1 + NUMBER_BYTES + TAG_BYTES;

/// Seals the records of one segment.
#[derive(Debug)]
pub(crate) struct Sealer {
    seal: FileSeal,
    cipher: Cipher,
    next: u64,
    buffer: Vec<u8>,
}

impl Sealer {
    /// For a new segment; `None` if there are no keys.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn new(keys: &Keys) -> std::io::Result<Option<Self>> {
        let Some(seal) = keys.new_seal()? else { return Ok(None) };
        let cipher = keys.cipher(Purpose::Journal, &seal, &[]);
        Ok(cipher.ok().map(|cipher| Self { seal, cipher, next: 0, buffer: Vec::new() }))
    }

    /// The record that a segment begins with.
    pub(crate) fn record(&self) -> Vec<u8> {
        [&[SEAL], self.seal.key.0.to_le_bytes().as_slice(), &self.seal.salt].concat()
    }

    fn sealed(&mut self, record: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.push(SEALED);
        self.buffer.extend_from_slice(&self.next.to_le_bytes());
        self.buffer.extend_from_slice(record);
        self.cipher.seal(self.next, &mut self.buffer, 1 + NUMBER_BYTES);
        self.next += 1;
        &self.buffer
    }
}

/// Appends a record, sealed if the segment is.
///
/// # Errors
/// [`JournalError`]
pub(crate) fn append(journal: &mut Journal, sealer: Option<&mut Sealer>, record: &[u8]) -> Result<(), JournalError> {
    match sealer.filter(|_| record.first() != Some(&SEAL)) {
        Some(sealer) => journal.append(sealer.sealed(record)),
        None => journal.append(record),
    }
    .map(|_| ())
}

/// A record that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum UnsealError {
    #[error("it is encrypted with key {0}, which is not among the keys that there are")]
    Key(KeyNumber),
    #[error("a record is not what was encrypted")]
    NotSealed,
}

/// Opens the records of a journal, which come in order.
#[derive(Debug)]
pub(crate) struct Opener {
    keys: Keys,
    /// The segment, and what opens its records if they are sealed.
    segment: Option<(u64, Cipher)>,
    buffer: Vec<u8>,
}

impl Opener {
    pub(crate) fn new(keys: &Keys) -> Self {
        Self { keys: keys.clone(), segment: None, buffer: Vec::new() }
    }

    /// What is in a record; nothing in one that says how a segment is sealed.
    ///
    /// # Errors
    /// [`UnsealError`]
    pub(crate) fn open<'a>(&'a mut self, record: Record<'a>) -> Result<Option<&'a [u8]>, UnsealError> {
        let Record { position: Position { segment, .. }, payload } = record;
        match payload.split_first() {
            Some((&SEAL, seal)) => {
                let seal = parse_seal(seal).ok_or(UnsealError::NotSealed)?;
                let cipher = self.keys.cipher(Purpose::Journal, &seal, &[]).map_err(UnsealError::Key)?;
                self.segment = Some((segment, cipher));
                Ok(None)
            }
            Some((&SEALED, sealed)) => {
                let cipher = self.segment.as_ref().filter(|(known, _)| *known == segment).map(|(_, cipher)| cipher);
                let (number, sealed) = sealed.split_first_chunk().ok_or(UnsealError::NotSealed)?;
                self.buffer.clear();
                self.buffer.extend_from_slice(sealed);
                let cipher = cipher.ok_or(UnsealError::NotSealed)?;
                let opened = cipher.open(u64::from_le_bytes(*number), &mut self.buffer);
                opened.map_err(|NotSealed| UnsealError::NotSealed)?;
                Ok(Some(&self.buffer))
            }
            _ => Ok(Some(payload)),
        }
    }
}

fn parse_seal(bytes: &[u8]) -> Option<FileSeal> {
    let (key, salt) = bytes.split_first_chunk()?;
    let salt: [u8; SALT_BYTES] = salt.try_into().ok()?;
    Some(FileSeal { key: KeyNumber(u32::from_le_bytes(*key)), salt })
}

//! A file for what has no room in memory, and goes with its owner. In a store that is encrypted so is this, with a key of its own.
//!
//! ```text
//! encrypted = pages one behind the other, each: number u64 little-endian · ciphertext · tag
//! ```
//! A page that is written again has another number: numbers are the nonces.

use std::{io, sync::Arc};

use belfry_common::storage::{Storage, StorageFile, failure, write_all_at};

use crate::{
    block::{BlockError, read_exact_at},
    keys::{Cipher, Keys, Purpose, TAG_BYTES},
};

/// Plain bytes of a page but the last: as much as is mostly written at once.
const PAGE_BYTES: u64 = 80 * 1024;
const NUMBER_BYTES: usize = 8;
const SLOT_BYTES: u64 = NUMBER_BYTES as u64 + PAGE_BYTES + TAG_BYTES as u64;

#[derive(Debug)]
pub(crate) struct Scratch {
    storage: Arc<dyn Storage>,
    name: String,
    file: Box<dyn StorageFile>,
    cipher: Option<Cipher>,
    /// Plain bytes of the file.
    bytes: u64,
    next_number: u64,
}

impl Scratch {
    /// Makes the file `name`.
    ///
    /// # Errors
    /// [`BlockError::Io`]
    pub(crate) fn create(storage: Arc<dyn Storage>, name: String, keys: &Keys) -> Result<Self, BlockError> {
        // Nobody else is to read it, so that it need not say how it is encrypted.
        let seal = keys.new_seal().map_err(failure(&*storage, "encrypt", &name))?;
        let cipher = seal.and_then(|seal| keys.cipher(Purpose::Scratch, &seal, &[]).ok());
        let file = storage.create(&name).map_err(failure(&*storage, "create", &name))?;
        Ok(Self { storage, name, file, cipher, bytes: 0, next_number: 0 })
    }

    /// Writes at an offset, which is not behind the end.
    ///
    /// # Errors
    /// [`BlockError::Io`]
    pub(crate) fn write(&mut self, mut bytes: &[u8], mut offset: u64) -> Result<(), BlockError> {
        if self.cipher.is_none() {
            return self.write_raw(bytes, offset);
        }
        while !bytes.is_empty() {
            let (page, within) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
            let (part, rest) = bytes.split_at(bytes.len().min((PAGE_BYTES - within) as usize));
            let end = within as usize + part.len();
            let is_all = within == 0 && end as u64 >= self.page_bytes(page);
            let mut content = if is_all { Vec::new() } else { self.page(page)? };
            content.resize(content.len().max(end), 0);
            content.splice(within as usize..end, part.iter().copied());
            self.put_page(page, &content)?;
            offset += part.len() as u64;
            self.bytes = self.bytes.max(offset);
            bytes = rest;
        }
        Ok(())
    }

    /// Fills the buffer from this offset.
    ///
    /// # Errors
    /// [`BlockError::Io`], also if the file ends before.
    pub(crate) fn read(&self, buffer: &mut [u8], mut offset: u64) -> Result<(), BlockError> {
        if self.cipher.is_none() {
            return self.read_raw(buffer, offset);
        }
        let mut rest = buffer;
        while !rest.is_empty() {
            let page = self.page(offset / PAGE_BYTES)?;
            let found = page.get((offset % PAGE_BYTES) as usize..).unwrap_or_default();
            let (part, others) = rest.split_at_mut(rest.len().min(found.len()));
            if part.is_empty() {
                return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
            }
            part.copy_from_slice(found.get(..part.len()).unwrap_or_default());
            offset += part.len() as u64;
            rest = others;
        }
        Ok(())
    }

    fn page_bytes(&self, page: u64) -> u64 {
        self.bytes.saturating_sub(page * PAGE_BYTES).min(PAGE_BYTES)
    }

    fn page(&self, page: u64) -> Result<Vec<u8>, BlockError> {
        let mut number = [0; NUMBER_BYTES];
        self.read_raw(&mut number, page * SLOT_BYTES)?;
        let mut sealed = vec![0; self.page_bytes(page) as usize + TAG_BYTES];
        self.read_raw(&mut sealed, page * SLOT_BYTES + NUMBER_BYTES as u64)?;
        let opened = self.cipher.as_ref().map(|cipher| cipher.open(u64::from_le_bytes(number), &mut sealed));
        match opened {
            Some(Err(error)) => Err(self.failed(io::Error::new(io::ErrorKind::InvalidData, error))),
            _ => Ok(sealed),
        }
    }

    fn put_page(&mut self, page: u64, content: &[u8]) -> Result<(), BlockError> {
        let mut slot = [&self.next_number.to_le_bytes(), content].concat();
        if let Some(cipher) = &self.cipher {
            cipher.seal(self.next_number, &mut slot, NUMBER_BYTES);
        }
        self.next_number += 1;
        self.write_raw(&slot, page * SLOT_BYTES)
    }

    fn write_raw(&self, bytes: &[u8], offset: u64) -> Result<(), BlockError> {
        let (_, result) = write_all_at(&*self.file, bytes, offset);
        Ok(result.map_err(failure(&*self.storage, "write", &self.name))?)
    }

    fn read_raw(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlockError> {
        let is_whole = read_exact_at(&*self.file, buffer, offset).map_err(|error| self.failed(error))?;
        if is_whole { Ok(()) } else { Err(self.failed(io::ErrorKind::UnexpectedEof.into())) }
    }

    fn failed(&self, error: io::Error) -> BlockError {
        failure(&*self.storage, "read", &self.name)(error).into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next start would remove it, too.
        drop(self.storage.remove(&self.name));
    }
}

#[cfg(test)]
mod tests {
    use belfry_common::storage::simulated::Simulated;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_is_on_the_disk_only_if_there_are_no_keys(
            writes in proptest::collection::vec((0..200_000_usize, 100..150_000_usize), 1..6),
            is_encrypted: bool,
        ) {
            let disk = Simulated::new(1);
            let keys = if is_encrypted { Keys::of(&[7]) } else { Keys::default() };
            let mut scratch = Scratch::create(Arc::new(disk.clone()), "scratch".to_owned(), &keys).unwrap();
            let mut expected: Vec<u8> = Vec::new();
            for (number, (offset, length)) in (1_u8..).zip(writes) {
                let offset = offset.min(expected.len());
                let bytes = vec![number; length];
                expected.resize(expected.len().max(offset + length), 0);
                expected[offset..offset + length].fill(number);
                scratch.write(&bytes, offset as u64).unwrap();
            }
            for (from, to) in [(0, expected.len()), (expected.len() / 3, expected.len() / 2), (expected.len(), expected.len())] {
                let mut read = vec![0; to - from];
                scratch.read(&mut read, from as u64).unwrap();
                prop_assert!(read == expected[from..to]);
            }
            prop_assert!(scratch.read(&mut [0; 2], expected.len() as u64 - 1).is_err());
            let content = disk.contents("scratch").unwrap();
            let is_plain = content.windows(100).any(|run| run.iter().all(|byte| Some(byte) == run.first()));
            prop_assert_eq!(is_plain, !is_encrypted);
            drop(scratch);
            prop_assert!(disk.contents("scratch").is_none());
        }
    }
}

//! The two ends of a block, and what can be wrong with one.
//!
//! ```text
//! block   = header, pages and indexes of one metric after the other, axes, strings, catalog, trailer
//! header  = magic "BELFRYB\n" · version u16 · tier u8 · cipher u8 · key u32 · number u64 · salt 32 bytes · 0 u32 · CRC u32
//!           (cipher 0: none, key and salt are 0; 1: AES-256-GCM)
//! trailer = catalog: offset u64, bytes u32, CRC u32 · CRC of all before the trailer u32 · 0 u32 · magic "\nBLOCK\n\0"
//!           · CRC of the trailer before this u32 · 0 u32
//! ```
//! 64 and 40 bytes, integers little-endian, CRC32C. The magic's bytes, the version and both lengths stay what they are in all
//! versions.

use std::{io, path::PathBuf, sync::Arc};

use belfry_common::{
    model::Resolution,
    storage::{Failure, is_full},
};
use rustix::io::Errno;
use thiserror::Error;

use super::{bytes::Malformed, catalog::Section};
use crate::keys::{Cipher, FileSeal, KeyNumber, Keys, Purpose};

pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const TRAILER_BYTES: usize = 40;
/// The only version there is.
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"BELFRYB\n";
const END_MAGIC: &[u8; 8] = b"\nBLOCK\n\0";
const PLAIN: u8 = 0;
const AES_256_GCM: u8 = 1;

/// A catalog or index beyond this is not read. Two million series of a metric take some 40 MB.
pub(crate) const SECTION_BYTES_MAX: u32 = 1 << 29;

/// How coarse the samples of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// As they were read.
    Raw,
    /// One row a minute: the least, the greatest, the sum, the count and the last of its values.
    Minute,
    /// The same for an hour.
    Hour,
}

impl Tier {
    /// All, the finest first.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Minute, Self::Hour];

    /// The word for people and scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Minute => "1m",
            Self::Hour => "1h",
        }
    }

    /// Columns of each series.
    pub(crate) fn columns(self) -> usize {
        match self {
            Self::Raw => 1,
            Self::Minute | Self::Hour => 5,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Minute => 1,
            Self::Hour => 2,
        }
    }
}

/// The column of a row that counts.
const COUNT_COLUMN: usize = 3;

/// How exact a column of a series is: as its metric, but for counts.
pub(crate) fn column_resolution(tier: Tier, column: usize, of_metric: Resolution) -> Resolution {
    if tier != Tier::Raw && column == COUNT_COLUMN { Resolution::ONE } else { of_metric }
}

/// Why a block cannot be used.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The file could not be read or written.
    #[error("a block could not be read or written")]
    Io(#[source] Arc<Failure>),
    /// What the file holds is not what was written. The block should be moved to the quarantine.
    #[error("`{}` is damaged: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part does not fit its checksum, or what else is wrong.
        what: &'static str,
    },
    /// The file was written by a newer program, in a newer version or with a cipher of which this one knows nothing.
    #[error("`{}` is of a newer program (block format {found}, this one knows {VERSION}): install the newer program again", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// The file is encrypted, and its key is not among those that there are.
    #[error("`{}` is encrypted with key {key}, which is not among the keys of `store.key_file`: add it there, below the newest", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The number of its key.
        key: KeyNumber,
    },
    /// The work was broken off because the process ends. It is begun again at the next start.
    #[error("stopped")]
    Stopped,
}

impl From<Failure> for BlockError {
    fn from(failure: Failure) -> Self {
        Self::Io(Arc::new(failure))
    }
}

impl BlockError {
    /// Whether there was no space, or too many files were open, so that the same can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let Self::Io(failure) = self else { return false };
        is_full(&failure.source) || matches!(Errno::from_io_error(&failure.source), Some(Errno::MFILE | Errno::NFILE))
    }
}

/// The first bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) tier: Tier,
    pub(crate) number: u64,
    pub(crate) seal: Option<FileSeal>,
}

/// Why the first bytes are none of a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Malformed,
    Version(u16),
}

impl Header {
    /// The header of a new block, and what its parts are encrypted with if there are keys.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn new(tier: Tier, number: u64, keys: &Keys) -> io::Result<(Self, Option<Cipher>)> {
        let seal = keys.new_seal()?;
        let header = Self { tier, number, seal };
        Ok((header, header.cipher(keys).unwrap_or_default()))
    }

    /// What the parts are encrypted with, if they are; an error if that key is not among these.
    pub(crate) fn cipher(self, keys: &Keys) -> Result<Option<Cipher>, KeyNumber> {
        let Some(seal) = self.seal else { return Ok(None) };
        // Parts are of this block and tier, and no other.
        keys.cipher(Purpose::Block, &seal, &self.encode()).map(Some)
    }

    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let (cipher, FileSeal { key, salt }) = self.seal.map_or((PLAIN, FileSeal::NONE), |seal| (AES_256_GCM, seal));
        out.extend_from_slice(&[self.tier.code(), cipher]);
        out.extend_from_slice(&key.0.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&salt);
        out.resize(HEADER_BYTES - 4, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("64 bytes: 8 + 2 + 2 + 4 + 8 + 32, filled to 60, and 4")
    }

    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(HeaderError::Malformed)?;
        let mut fields = Fields(body);
        if fields.take() != Some(*MAGIC) {
            return Err(HeaderError::Malformed);
        }
        let version = fields.take().map(u16::from_le_bytes).ok_or(HeaderError::Malformed)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(HeaderError::Malformed);
        }
        let [tier, cipher] = fields.take().ok_or(HeaderError::Malformed)?;
        if version != VERSION || !matches!(cipher, PLAIN | AES_256_GCM) {
            return Err(HeaderError::Version(version));
        }
        let tier = Tier::ALL.into_iter().find(|known| known.code() == tier).ok_or(HeaderError::Malformed)?;
        let key = fields.take().map(u32::from_le_bytes).map(KeyNumber).ok_or(HeaderError::Malformed)?;
        let number = fields.take().map(u64::from_le_bytes).ok_or(HeaderError::Malformed)?;
        let salt = fields.take().ok_or(HeaderError::Malformed)?;
        Ok(Self { tier, number, seal: Some(FileSeal { key, salt }).filter(|_| cipher == AES_256_GCM) })
    }
}

/// The last bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) catalog: Section,
    /// Of everything before the trailer.
    pub(crate) crc: u32,
}

impl Trailer {
    pub(crate) fn encode(self) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&self.catalog.offset.to_le_bytes());
        out.extend_from_slice(&self.catalog.bytes.to_le_bytes());
        out.extend_from_slice(&self.catalog.crc.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(END_MAGIC);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.try_into().expect("40 bytes: 8 + 4 + 4 + 4 + 4 + 8 + 4 + 4")
    }

    pub(crate) fn parse(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, Malformed> {
        let mut fields = Fields(bytes);
        let (offset, length) = (fields.u64()?, fields.u32()?);
        let catalog = Section { offset, bytes: length, crc: fields.u32()? };
        let (crc, zero, magic) = (fields.u32()?, fields.u32()?, fields.take().ok_or(Malformed)?);
        let is_whole = crc32c::crc32c(bytes.get(..32).unwrap_or_default()) == fields.u32()?;
        if is_whole && magic == *END_MAGIC && zero == 0 && fields.u32()? == 0 {
            Ok(Self { catalog, crc })
        } else {
            Err(Malformed)
        }
    }
}

/// Integers of fixed length, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes).ok_or(Malformed)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes).ok_or(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { tier: Tier::Minute, number: 0x0102_0304, seal: Some(FileSeal { key: KeyNumber(5), salt: [6; 32] }) };

    #[test]
    fn both_ends_come_back_and_no_bit_of_them_can_flip_unnoticed() {
        let header = HEADER.encode();
        assert_eq!(Header::parse(&header), Ok(HEADER));
        let trailer = Trailer { catalog: Section { offset: 5, bytes: 6, crc: 7 }, crc: 8 };
        assert_eq!(Trailer::parse(&trailer.encode()), Ok(trailer));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Header::parse(&flipped), Ok(HEADER), "bit {bit}");
        }
        for bit in 0..TRAILER_BYTES * 8 {
            let mut flipped = trailer.encode();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::parse(&flipped), Err(Malformed), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut header = HEADER.encode();
        header[8] = 9;
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::parse(&header), Err(HeaderError::Version(9)));
    }
}

//! The bytes of a segment: names, headers, checks. The layout is in the [module's documentation](super).
//!
//! Pure: no I/O.

use std::fmt;

use crate::limits::RECORD_BYTES_MAX;

/// The only version so far.
pub(super) const VERSION: u32 = 1;

/// Bytes of a segment before its first record.
pub(super) const SEGMENT_HEADER_BYTES: u32 = 32;

/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: u32 = 16;

/// 2^48 segments: one a second for nine million years. Names above it are not ours.
pub(super) const SEGMENT_NUMBER_MAX: u64 = (1 << 48) - 1;

const MAGIC: [u8; 8] = *b"BELFRYJ\n";
const SUFFIX: &str = ".journal";

/// Where a record begins, or where the next one will: a segment and an offset in bytes from its beginning.
///
/// Ordered as the records are. A record at position `p` is durable when `p <`
/// [`Journal::durable`](super::Journal::durable).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes from the beginning of the segment.
    pub offset: u32,
}

impl Position {
    /// Before every record there can be: reading from here reads everything.
    pub const START: Self = Self { segment: 0, offset: 0 };

    /// Before every record of one segment.
    pub const fn segment_start(segment: u64) -> Self {
        Self { segment, offset: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}", self.segment, self.offset)
    }
}

/// Name of a segment's file.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// Number of the segment that a file's name stands for, or `None` for a foreign name.
#[must_use]
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    ((1..=SEGMENT_NUMBER_MAX).contains(&number) && segment_name(number) == name).then_some(number)
}

/// The first bytes of a segment, less magic, version and check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    /// 0: unknown.
    pub(super) previous_end: u32,
    pub(super) salt: u32,
}

/// Whether bytes could be the beginning of a header that was not written to its end.
pub(super) fn is_header_begun(bytes: &[u8]) -> bool {
    MAGIC.iter().zip(bytes).all(|(expected, found)| expected == found)
}

/// CRC of a segment's header, with which every check of its records begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Valid, but written by a newer program.
    Version(u32),
    Invalid,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> (Vec<u8>, Seed) {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.previous_end.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        let check = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        (bytes, Seed(check))
    }

    /// Reads the header from the first bytes of a file: at least 32 unless the file is shorter.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, Seed), HeaderError> {
        let Some((header, _)) = bytes.split_first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>() else {
            return Err(HeaderError::Invalid);
        };
        let mut fields = Fields(header);
        let decoded = (|| {
            let magic = fields.array::<8>()?;
            let version = fields.u32()?;
            let previous_end = fields.u32()?;
            let number = u64::from_le_bytes(fields.array()?);
            let salt = fields.u32()?;
            let check = fields.u32()?;
            Some((magic, version, Self { number, previous_end, salt }, check))
        })();
        let Some((magic, version, decoded, check)) = decoded else { return Err(HeaderError::Invalid) };
        let (checked, _) = header.split_at(SEGMENT_HEADER_BYTES as usize - 4);
        if magic != MAGIC || crc32c::crc32c(checked) != check {
            return Err(HeaderError::Invalid);
        }
        match version {
            VERSION => Ok((decoded, Seed(check))),
            0 => Err(HeaderError::Invalid),
            newer => Err(HeaderError::Version(newer)),
        }
    }
}

/// A record's header whose own check has passed; its payload is still to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// 1 to [`RECORD_BYTES_MAX`].
    pub(super) payload_bytes: u32,
    pub(super) durable: u32,
    payload_check: u32,
    /// What the payload's check continues from.
    seed: u32,
}

impl RecordHeader {
    /// Reads the header of the record at `offset`. `None`: there is no record.
    pub(super) fn decode(bytes: &[u8], seed: Seed, offset: u32) -> Option<Self> {
        let mut fields = Fields(bytes);
        let payload_bytes = fields.u32()?;
        let durable = fields.u32()?;
        // Cheaper than the check, and enough for almost all bytes that are no header.
        if payload_bytes == 0 || payload_bytes as usize > RECORD_BYTES_MAX || durable > offset {
            return None;
        }
        let header_check = fields.u32()?;
        let payload_check = fields.u32()?;
        let seed = header_check_of(seed, offset, payload_bytes, durable);
        (header_check == seed).then_some(Self { payload_bytes, durable, payload_check, seed })
    }

    /// Offset behind the record that begins at `offset`; `None` if no segment is so long.
    pub(super) fn end(&self, offset: u32) -> Option<u32> {
        offset.checked_add(RECORD_HEADER_BYTES)?.checked_add(self.payload_bytes)
    }

    /// The check of the payload, to be fed piece by piece.
    pub(super) fn payload_check(&self) -> PayloadCheck {
        PayloadCheck { expected: self.payload_check, so_far: self.seed }
    }
}

/// The running check of a payload that arrives in pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct PayloadCheck {
    expected: u32,
    so_far: u32,
}

impl PayloadCheck {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.so_far = crc32c::crc32c_append(self.so_far, piece);
    }

    pub(super) fn passes(&self) -> bool {
        self.so_far == self.expected
    }
}

/// Appends the record that will stand at `offset` to `buffer`. The caller has checked the payload's length.
pub(super) fn encode_record(buffer: &mut Vec<u8>, seed: Seed, offset: u32, durable: u32, payload: &[u8]) {
    let payload_bytes = u32::try_from(payload.len()).expect("a payload is at most RECORD_BYTES_MAX long");
    let header_check = header_check_of(seed, offset, payload_bytes, durable);
    let payload_check = crc32c::crc32c_append(header_check, payload);
    buffer.reserve(RECORD_HEADER_BYTES as usize + payload.len());
    for field in [payload_bytes, durable, header_check, payload_check] {
        buffer.extend_from_slice(&field.to_le_bytes());
    }
    buffer.extend_from_slice(payload);
}

fn header_check_of(seed: Seed, offset: u32, payload_bytes: u32, durable: u32) -> u32 {
    let [a, b, c, d] = offset.to_le_bytes();
    let [e, f, g, h] = payload_bytes.to_le_bytes();
    let [i, j, k, l] = durable.to_le_bytes();
    crc32c::crc32c_append(seed.0, &[a, b, c, d, e, f, g, h, i, j, k, l])
}

/// Takes little-endian fields from the front of a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!(segment_name(0x1f), "000000000000001f.journal");
        for number in [1, 2, 0xabc, SEGMENT_NUMBER_MAX] {
            assert_eq!(segment_number(&segment_name(number)), Some(number));
        }
        for foreign in [
            "000000000000001F.journal",
            "1f.journal",
            "+00000000000001f.journal",
            "0000000000000000.journal",
            "ffffffffffffffff.journal",
            "000000000000001f.journal.partial",
            "000000000000001f",
            "lock",
            "",
        ] {
            assert_eq!(segment_number(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let (mut bytes, _) = SegmentHeader { number: 7, previous_end: 99, salt: 5 }.encode();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Invalid));
        let check = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&check.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(2)));
    }

    #[test]
    fn a_record_passes_only_in_its_place() {
        let (_, seed) = SegmentHeader { number: 7, previous_end: 0, salt: 5 }.encode();
        let (_, other_number) = SegmentHeader { number: 8, previous_end: 0, salt: 5 }.encode();
        let (_, other_salt) = SegmentHeader { number: 7, previous_end: 0, salt: 6 }.encode();
        let mut bytes = Vec::new();
        encode_record(&mut bytes, seed, 100, 32, b"payload");
        let header = RecordHeader::decode(&bytes, seed, 100).expect("the record is in its place");
        assert_eq!((header.payload_bytes, header.durable, header.end(100)), (7, 32, Some(123)));
        assert_eq!(RecordHeader::decode(&bytes, seed, 101), None);
        assert_eq!(RecordHeader::decode(&bytes, other_number, 100), None);
        assert_eq!(RecordHeader::decode(&bytes, other_salt, 100), None);
    }
}

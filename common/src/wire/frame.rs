//! Frames: the envelope of every message on a stream.
//!
//! ```text
//! frame   = magic BF 59, version u8, kind u8, length u32 LE, CRC32C u32 LE, payload
//! length  = bytes of payload; its highest bit says that the payload is packed
//! packed  = unpacked length u32 LE, one zstd frame that declares the same size
//! CRC32C  = over the eight bytes before it and the payload
//! ```
//! A reader refuses another magic or version, a length above the limit of its kind (before it
//! allocates), and a wrong checksum. Kinds that it does not know are an error of their own, so that a newer peer
//! gets a clear answer.

use thiserror::Error;

use super::compress;
use crate::limits;

const MAGIC: [u8; 2] = [0xBF, 0x59];
/// Of the envelope. What is in it has its version in the handshake, see [`super::PROTOCOL_VERSION`].
const FRAME_VERSION: u8 = 1;
const PACKED: u32 = 1 << 31;
/// Below this, packing costs more time than it saves bytes.
const PACK_FROM_BYTES: usize = 512;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;

/// What a frame holds; the message types are in [`super::message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Agent: who I am and where I stand. Opens the live stream.
    Hello = 1,
    /// Collector: accepted; what is durable.
    Welcome = 2,
    /// Agent: batches.
    Batches = 3,
    /// Collector: these are durable.
    Ack = 4,
    /// Collector: so much more backlog may come.
    Credit = 5,
    /// Agent: these numbers will never be filled.
    Gaps = 6,
    /// Collector: this batch is refused for good.
    Refused = 7,
    /// Agent: opens the backlog stream.
    Backlog = 8,
    /// Agent or client: please certify this key.
    Renew = 9,
    /// Collector: the new certificate.
    Certified = 10,
    /// A newcomer with a token: please certify this key.
    Join = 11,
    /// Agent: I stop on purpose.
    Goodbye = 12,
    /// Either: what went wrong; the stream ends.
    Failure = 13,
    /// Agent: who uses the GPUs. Since protocol version 2.
    Inventory = 14,
    /// Client: a request, JSON.
    Request = 20,
    /// Collector: a piece of the reply, JSON.
    Reply = 21,
    /// Collector: the reply is complete.
    End = 22,
    /// Agent, to its own GPU worker: read this. This kind and those after it are refused on the network.
    GpuRequest = 40,
    /// GPU worker: the driver's state.
    GpuReady = 41,
    /// GPU worker: what was read.
    GpuReadings = 42,
    /// GPU worker: an error that the driver reported.
    GpuEvent = 43,
}

impl Kind {
    const ALL: [Self; 21] = [
        Self::Hello,
        Self::Welcome,
        Self::Batches,
        Self::Ack,
        Self::Credit,
        Self::Gaps,
        Self::Refused,
        Self::Backlog,
        Self::Renew,
        Self::Certified,
        Self::Join,
        Self::Goodbye,
        Self::Failure,
        Self::Inventory,
        Self::Request,
        Self::Reply,
        Self::End,
        Self::GpuRequest,
        Self::GpuReady,
        Self::GpuReadings,
        Self::GpuEvent,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// The most bytes that a payload of this kind may have as it travels.
    #[must_use]
    pub fn payload_bytes_max(self) -> usize {
        match self {
            Self::Batches | Self::GpuReadings => limits::FRAME_BYTES_MAX,
            Self::Reply => limits::REPLY_CHUNK_BYTES_MAX,
            Self::Inventory => limits::INVENTORY_BYTES_MAX,
            _ => limits::CONTROL_BYTES_MAX,
        }
    }

    /// The most bytes that a packed payload of this kind may unpack to.
    fn unpacked_bytes_max(self) -> usize {
        match self {
            Self::Batches | Self::GpuReadings => limits::FRAME_UNPACKED_BYTES_MAX,
            kind => kind.payload_bytes_max(),
        }
    }
}

/// A frame that is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The peer speaks something else.
    #[error("not a frame of this protocol")]
    Magic,
    /// The peer speaks a version that this build does not know.
    #[error("peer uses frames of version {0}, this build version {FRAME_VERSION}; update the older of the two")]
    Version(u8),
    /// The peer uses a kind of message that this build does not know.
    #[error("peer sent a message of unknown kind {0}; update the older of the two")]
    Kind(u8),
    /// The peer announces more than is allowed.
    #[error("{kind:?} frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Its kind.
        kind: Kind,
        /// What it announced.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The bytes were changed on their way.
    #[error("frame has a wrong checksum")]
    Checksum,
    /// A packed payload does not unpack to what it says.
    #[error("frame has a malformed packed payload")]
    Packed,
}

/// A checked header: how much to read before the frame can be opened.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// What the frame holds.
    pub kind: Kind,
    /// Bytes of the payload as it travels.
    pub length: usize,
    is_packed: bool,
    checksum: u32,
    checked: [u8; 8],
}

impl Header {
    /// Reads and checks a header.
    ///
    /// # Errors
    /// [`FrameError`] for another protocol or version, an unknown kind, or a length over its limit.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [m0, m1, version, kind, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        if [m0, m1] != MAGIC {
            return Err(FrameError::Magic);
        }
        if version != FRAME_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = Kind::from_code(kind).ok_or(FrameError::Kind(kind))?;
        let field = u32::from_le_bytes([l0, l1, l2, l3]);
        let length = (field & !PACKED) as usize;
        let limit = kind.payload_bytes_max();
        if length > limit {
            return Err(FrameError::TooLong { kind, length, limit });
        }
        let checked = [m0, m1, version, kind as u8, l0, l1, l2, l3];
        Ok(Self {
            kind,
            length,
            is_packed: field & PACKED != 0,
            checksum: u32::from_le_bytes([c0, c1, c2, c3]),
            checked,
        })
    }

    /// Checks the payload that followed this header and unpacks it if need be.
    ///
    /// # Errors
    /// [`FrameError`] for a wrong checksum, or a packed payload that is malformed or unpacks beyond its limit.
    pub fn open(&self, payload: Vec<u8>) -> Result<Vec<u8>, FrameError> {
        if payload.len() != self.length || checksum(&self.checked, &payload) != self.checksum {
            return Err(FrameError::Checksum);
        }
        if !self.is_packed {
            return Ok(payload);
        }
        let (size, packed) = payload.split_first_chunk::<4>().ok_or(FrameError::Packed)?;
        let size = u32::from_le_bytes(*size) as usize;
        let limit = self.kind.unpacked_bytes_max();
        if size > limit {
            return Err(FrameError::TooLong { kind: self.kind, length: size, limit });
        }
        compress::unpack(packed, size).map_err(|_| FrameError::Packed)
    }
}

/// Appends a frame with this payload to `out`, packed if that pays.
pub fn seal(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let packed = if payload.len() >= PACK_FROM_BYTES { compress::pack(payload) } else { None };
    let mut head = [MAGIC[0], MAGIC[1], FRAME_VERSION, kind as u8, 0, 0, 0, 0];
    let (length, size) = match &packed {
        Some(packed) => ((packed.len() + 4) as u32 | PACKED, Some(payload.len() as u32)),
        None => (payload.len() as u32, None),
    };
    head[4..].copy_from_slice(&length.to_le_bytes());
    let start = out.len();
    out.extend_from_slice(&head);
    out.extend_from_slice(&[0; 4]);
    if let Some(size) = size {
        out.extend_from_slice(&size.to_le_bytes());
    }
    out.extend_from_slice(packed.as_deref().unwrap_or(payload));
    if let Some((_, sealed)) = out.split_at_mut_checked(start + 8)
        && let Some((field, body)) = sealed.split_first_chunk_mut::<4>()
    {
        *field = checksum(&head, body).to_le_bytes();
    }
}

fn checksum(head: &[u8; 8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), payload)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn open(bytes: &[u8]) -> Result<(Kind, Vec<u8>), FrameError> {
        let header = Header::parse(bytes.first_chunk().ok_or(FrameError::Magic)?)?;
        let payload = bytes[HEADER_BYTES..].to_vec();
        Ok((header.kind, header.open(payload)?))
    }

    fn sealed(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal(kind, payload, &mut out);
        out
    }

    #[test]
    fn golden() {
        fn check(frame: &[u8], expected: &Expect) {
            let hex: Vec<String> =
                frame.chunks(16).map(|row| row.iter().map(|b| format!("{b:02x}")).collect()).collect();
            expected.assert_eq(&hex.join("\n"));
        }
        check(&sealed(Kind::Ack, &[1, 2, 3]), &expect!["bf590104030000004dcd262c010203"]);
        check(&sealed(Kind::End, &[]), &expect!["bf59011600000000780e8ab9"]);
    }

    proptest! {
        #[test]
        fn frames_come_back(payload in proptest::collection::vec(0_u8..4, 0..5000)) {
            let frame = sealed(Kind::Batches, &payload);
            prop_assert_eq!(open(&frame), Ok((Kind::Batches, payload)));
        }

        #[test]
        fn one_changed_byte_is_refused(payload in proptest::collection::vec(any::<u8>(), 0..1000), at: prop::sample::Index, mask in 1_u8..) {
            let mut frame = sealed(Kind::Batches, &payload);
            let at = at.index(frame.len());
            frame[at] ^= mask;
            prop_assert!(open(&frame).is_err());
        }

        #[test]
        fn garbage_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = open(&bytes);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused() {
        let frame = sealed(Kind::Batches, &[7; 2000]);
        for end in 0..frame.len() {
            assert!(open(&frame[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_zstd_bomb_is_refused_on_its_declared_size() {
        let zeros = vec![0; limits::FRAME_UNPACKED_BYTES_MAX + 1];
        let frame = sealed(Kind::Batches, &zeros);
        assert!(frame.len() < 2000, "the bomb is small: {}", frame.len());
        assert!(matches!(open(&frame), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_zstd_bomb_that_lies_about_its_size_is_refused() {
        let mut packed = zstd::bulk::compress(&vec![0; 100 << 20], 3).unwrap();
        let mut payload = 1000_u32.to_le_bytes().to_vec();
        payload.append(&mut packed);
        let mut frame = vec![MAGIC[0], MAGIC[1], 1, Kind::Batches as u8];
        frame.extend_from_slice(&(payload.len() as u32 | PACKED).to_le_bytes());
        let sum = checksum(frame.first_chunk().unwrap(), &payload);
        frame.extend_from_slice(&sum.to_le_bytes());
        frame.append(&mut payload);
        assert_eq!(open(&frame), Err(FrameError::Packed));
    }
}

//! How things travel: frames, the messages in them, and the coding of ticks.
//!
//! Pure: bytes in, values out. Sockets are in [`crate::quic`].

pub mod codec;
mod compress;
pub mod frame;
pub mod message;

/// The version of frames and of everything in them. One number: both ends must know a whole protocol.
pub const PROTOCOL_VERSION: u16 = 1;

/// The oldest version that this build still speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;

/// ALPN: a peer that speaks anything else is refused in the handshake.
pub const ALPN: &[u8] = b"belfry/1";

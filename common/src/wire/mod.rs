//! How things travel: frames, the messages in them, and the coding of ticks.
//!
//! Pure: bytes in, values out. Sockets are in [`crate::quic`].

pub mod codec;
mod compress;
pub mod frame;
pub mod message;

/// The version of the messages. Both ends say what they know, and speak the newest that both know.
///
/// 1: the first. 2: an agent may send [`message::Inventory`].
pub const PROTOCOL_VERSION: u16 = 2;

/// The version from which on an agent may send [`message::Inventory`].
pub const PROTOCOL_WITH_INVENTORY: u16 = 2;

/// The oldest version that this build still speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;

/// ALPN: a peer that speaks anything else is refused in the handshake.
pub const ALPN: &[u8] = b"belfry/1";

//! Frames over the socket between an agent and its GPU worker.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError},
};

use belfry_common::wire::{
    frame::{self, FrameError, HEADER_BYTES, Header, Kind},
    message::{self, Decoded, Message, MessageError},
};
use thiserror::Error;

/// What went wrong between the two.
#[derive(Debug, Error)]
pub(super) enum ProtocolError {
    #[error("the other end is gone")]
    Gone(#[source] io::Error),
    #[error("malformed frame")]
    Frame(#[from] FrameError),
    #[error("malformed message")]
    Message(#[from] MessageError),
    #[error("unexpected {0:?} message")]
    Unexpected(Kind),
}

/// The sending end, for several threads.
#[derive(Debug)]
pub(super) struct Outlet(Mutex<UnixStream>);

impl Outlet {
    pub(super) fn new(channel: UnixStream) -> Self {
        Self(Mutex::new(channel))
    }

    /// Sends one message, in one piece.
    pub(super) fn send(&self, kind: Kind, message: &impl Message) -> Result<(), ProtocolError> {
        let mut out = Vec::new();
        frame::seal(kind, &message::encode(message), &mut out);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&out).map_err(ProtocolError::Gone)
    }

    /// Says that nothing more comes, and that nothing more is read.
    pub(super) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both));
    }
}

/// Waits for one frame: its kind and its payload.
pub(super) fn receive(mut channel: &UnixStream) -> Result<(Kind, Vec<u8>), ProtocolError> {
    let mut header = [0; HEADER_BYTES];
    channel.read_exact(&mut header).map_err(ProtocolError::Gone)?;
    let header = Header::parse(&header)?;
    // Its length is within the limit of its kind.
    let mut payload = vec![0; header.length];
    channel.read_exact(&mut payload).map_err(ProtocolError::Gone)?;
    Ok((header.kind, header.open(payload)?))
}

/// Reads a message of the only kind that is expected.
pub(super) fn expect<'a, T: Decoded<'a>>(
    wanted: Kind,
    (kind, payload): &'a (Kind, Vec<u8>),
) -> Result<T, ProtocolError> {
    if *kind == wanted { Ok(message::decode(payload)?) } else { Err(ProtocolError::Unexpected(*kind)) }
}

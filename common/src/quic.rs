//! QUIC endpoints with settings that hold at fleet scale, and frames on their streams.
//!
//! Connections carry a few long-lived streams, so every window here is small: quinn's defaults would let one
//! authenticated peer hold 250 MB of the collector's memory. No retries here, no meaning of messages.

mod connection_ids;
mod small_socket;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, ReadError, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt, WriteError,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::RandomConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;
use tokio::time::Instant;
use tracing::warn;

use connection_ids::TaggedIds;

use crate::{
    clock, limits,
    wire::{
        frame::{self, FrameError, HEADER_BYTES, Header, Kind},
        message::{self, Message, MessageError},
    },
};

/// A peer that is silent for this long is gone; agents say something every 10 s.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A burst of a few thousand agents must fit the socket's queue while the collector is busy.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Live, backlog, and two for requests.
const STREAMS_MAX: u32 = 4;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
/// Between two answers to packets of connections that are not known any more: none. After a restart each of thousands of agents needs
/// one to come back before its idle timeout. Only connection IDs of our own making are answered, and with less than they sent.
const RESET_INTERVAL: Duration = Duration::ZERO;
/// A frame that has begun must be complete by then, plus what its length takes at [`BYTES_PER_SECOND_MIN`].
const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// Slower than this is no link but an attempt to hold memory.
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;

/// Why a connection was closed, as the peer sees it. Unknown codes mean: try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// All is done.
    Done = 0,
    /// The collector stops or restarts: come back, see [`CloseCode::close_until`].
    Stopping = 1,
    /// The identity is revoked.
    Revoked = 2,
    /// The certificate has expired.
    Expired = 3,
    /// The peer broke the protocol.
    Protocol = 4,
    /// Too many connections: come back later, see [`CloseCode::close_until`].
    Overloaded = 5,
    /// The same node connected again.
    Superseded = 6,
    /// The peer was silent in the middle of a message.
    TooSlow = 7,
}

impl CloseCode {
    const ALL: [Self; 8] = [
        Self::Done,
        Self::Stopping,
        Self::Revoked,
        Self::Expired,
        Self::Protocol,
        Self::Overloaded,
        Self::Superseded,
        Self::TooSlow,
    ];

    /// What a lost connection says, if the peer closed it with one of these.
    #[must_use]
    pub fn of(error: &ConnectionError) -> Option<(Self, String)> {
        let ConnectionError::ApplicationClosed(close) = error else { return None };
        let code = Self::ALL.into_iter().find(|code| VarInt::from_u32(*code as u32) == close.error_code)?;
        Some((code, String::from_utf8_lossy(&close.reason).into_owned()))
    }

    /// Closes a connection with this code and a reason for people.
    pub fn close(self, connection: &quinn::Connection, reason: &str) {
        connection.close(VarInt::from_u32(self as u32), reason.as_bytes());
    }

    /// Closes a connection and says when to come back, in words that [`retry_after`] understands.
    pub fn close_until(self, connection: &quinn::Connection, reason: &str, wait: Duration) {
        self.close(connection, &with_retry_after(reason, wait));
    }
}

/// Before the milliseconds, at the end of the reason.
const RETRY_AFTER: &str = ", come back in ";

fn with_retry_after(reason: &str, wait: Duration) -> String {
    format!("{reason}{RETRY_AFTER}{} ms", wait.as_millis())
}

/// When to come back, if the reason of a close says so; never later than in [`limits::RETRY_AFTER_MAX`].
#[must_use]
pub fn retry_after(reason: &str) -> Option<Duration> {
    let (_, wait) = reason.rsplit_once(RETRY_AFTER)?;
    let millis = wait.strip_suffix(" ms")?.parse().ok()?;
    Some(Duration::from_millis(millis).min(limits::RETRY_AFTER_MAX))
}

/// An endpoint that cannot be opened.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The address is taken, not this machine's, or not allowed.
    #[error("failed to listen on UDP {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No socket to connect from.
    #[error("failed to open a UDP socket")]
    Socket(#[source] io::Error),
    /// TLS without the cipher that QUIC begins with.
    #[error("failed to set up QUIC")]
    Crypto(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Listens on a UDP address.
///
/// With the same `secret` as before, a restarted listener tells peers of connections that it does not know any more so,
/// at their next packet (a stateless reset, RFC 9000, section 10.3). Without it they would find out by [`IDLE_TIMEOUT`].
///
/// # Errors
/// [`EndpointError`] when the address cannot be used.
pub fn listen(address: SocketAddr, tls: rustls::ServerConfig, secret: &[u8; 32]) -> Result<Endpoint, EndpointError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(EndpointError::Crypto)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(None)))
        .max_incoming(1024)
        .incoming_buffer_size(16 * 1024)
        .incoming_buffer_size_total(8 * 1024 * 1024)
        .retry_token_lifetime(Duration::from_secs(15));
    let socket = server_socket(address).map_err(|source| EndpointError::Bind { address, source })?;
    Endpoint::new(resettable(secret), Some(config), socket, Arc::new(TokioRuntime))
        .map_err(|source| EndpointError::Bind { address, source })
}

/// Both follow from the secret: which connection IDs are ours, and the token that ends a connection of such an ID.
fn resettable(secret: &[u8; 32]) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let ids_secret = hmac::sign(&key, b"connection IDs");
    let ids = TaggedIds::new(hmac::Key::new(hmac::HMAC_SHA256, ids_secret.as_ref()));
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(ids.clone())).min_reset_interval(RESET_INTERVAL);
    config
}

fn server_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    let granted = socket.recv_buffer_size()?;
    if granted < RECEIVE_BUFFER_BYTES / 2 {
        warn!(granted, wanted = RECEIVE_BUFFER_BYTES, "kernel clamps the receive buffer: raise net.core.rmem_max");
    }
    Ok(socket.into())
}

/// Opens an endpoint to connect from, for this address family.
///
/// # Errors
/// [`EndpointError::Socket`] when the system gives no socket.
pub fn client_endpoint(remote: SocketAddr) -> Result<Endpoint, EndpointError> {
    let local: SocketAddr = if remote.is_ipv6() { ([0_u16; 8], 0).into() } else { ([0_u8; 4], 0).into() };
    let socket = UdpSocket::bind(local).map_err(EndpointError::Socket)?;
    // Replies can be large where the kernel allows; a refusal costs speed only.
    drop(SockRef::from(&socket).set_recv_buffer_size(1024 * 1024));
    let mut config = EndpointConfig::default();
    // One connection per socket needs no connection ID to be found by: eight bytes less on each packet.
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(0)));
    let socket = small_socket::wrap(socket).map_err(EndpointError::Socket)?;
    Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).map_err(EndpointError::Socket)
}

/// The settings of the connecting side.
///
/// # Errors
/// [`EndpointError::Crypto`] when TLS lacks the cipher that QUIC begins with.
pub fn client_config(tls: rustls::ClientConfig) -> Result<ClientConfig, EndpointError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(EndpointError::Crypto)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(Some(KEEP_ALIVE))));
    Ok(config)
}

fn transport(keep_alive: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(64 * 1024)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .ack_frequency_config(None)
        .keep_alive_interval(keep_alive);
    config
}

/// A stream that gave no frame.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The connection or the stream is gone.
    #[error("connection lost")]
    Read(#[source] ReadError),
    /// The connection or the stream is gone.
    #[error("connection lost")]
    Write(#[source] WriteError),
    /// The stream ended inside a frame.
    #[error("stream ended in the middle of a frame")]
    Cut,
    /// The stream ended where a frame was expected.
    #[error("peer closed the stream")]
    Closed,
    /// A frame that began was not complete in time.
    #[error("peer was too slow to complete a frame")]
    TooSlow,
    /// Nothing came in time.
    #[error("no answer within {}", humane(*.0))]
    Timeout(Duration),
    /// The bytes are no frame that is accepted.
    #[error("unacceptable frame")]
    Frame(#[source] FrameError),
    /// The payload is not the message that its kind says.
    #[error("unacceptable message")]
    Message(#[source] MessageError),
    /// Another kind of message was expected here.
    #[error("unexpected {0:?} message")]
    Unexpected(Kind),
}

fn humane(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f32())
}

impl StreamError {
    /// The connection's end, if that is what happened.
    #[must_use]
    pub fn connection_error(&self) -> Option<&ConnectionError> {
        match self {
            Self::Read(ReadError::ConnectionLost(error)) | Self::Write(WriteError::ConnectionLost(error)) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// Whether the peer broke the protocol, rather than the network the connection.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::Cut | Self::TooSlow | Self::Frame(_) | Self::Message(_) | Self::Unexpected(_))
    }
}

/// Writes frames to a stream.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    buffer: Vec<u8>,
}

impl FrameWriter {
    /// Wraps a stream.
    #[must_use]
    pub fn new(stream: SendStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends one frame. Not cancel-safe: a dropped call leaves half a frame on the stream.
    ///
    /// # Errors
    /// [`StreamError::Write`] when the stream or connection is gone.
    pub async fn send_bytes(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StreamError> {
        self.buffer.clear();
        frame::seal(kind, payload, &mut self.buffer);
        self.stream.write_all(&self.buffer).await.map_err(StreamError::Write)
    }

    /// Sends one message. Not cancel-safe.
    ///
    /// # Errors
    /// [`StreamError::Write`] when the stream or connection is gone.
    pub async fn send(&mut self, kind: Kind, message: &impl Message) -> Result<(), StreamError> {
        self.send_bytes(kind, &message::encode(message)).await
    }

    /// Sets how urgent this stream is beside the connection's others; 0 is usual, more is sooner.
    pub fn set_priority(&self, priority: i32) {
        // Fails only when the stream is gone, which the next write tells.
        drop(self.stream.set_priority(priority));
    }

    /// Ready when the peer wants no more, or is gone.
    pub async fn closed(&self) {
        // Both outcomes mean the same here.
        drop(self.stream.stopped().await);
    }

    /// Says that nothing more will come, and waits until the peer has everything.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the peer went away first.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        self.stream.finish().map_err(|_| StreamError::Closed)?;
        self.stream.stopped().await.map(|_| ()).map_err(|_| StreamError::Closed)
    }
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    buffer: Vec<u8>,
    /// When the frame at the head of the buffer began.
    began: Option<Instant>,
}

impl FrameReader {
    /// Wraps a stream.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new(), began: None }
    }

    /// The next frame; `None` when the peer ended the stream between frames. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamError`]: the connection is gone, or the peer sent something unacceptable or too slowly.
    pub async fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, StreamError> {
        loop {
            let header = self.header()?;
            let wanted = HEADER_BYTES + header.map_or(0, |header| header.length);
            if let Some(header) = header
                && self.buffer.len() >= wanted
            {
                let mut payload: Vec<u8> = self.buffer.drain(..wanted).collect();
                payload.drain(..HEADER_BYTES);
                self.began = (!self.buffer.is_empty()).then(|| clock::monotonic().into());
                return Ok(Some((header.kind, header.open(payload).map_err(StreamError::Frame)?)));
            }
            let room = wanted.saturating_sub(self.buffer.len()).max(2048);
            let Some(bytes) = self.read(room, wanted).await? else {
                return if self.buffer.is_empty() { Ok(None) } else { Err(StreamError::Cut) };
            };
            self.began.get_or_insert_with(|| clock::monotonic().into());
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// The next frame, which must be of this kind and come within `timeout`. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamError`]: as [`Self::next`], or the wrong kind, or nothing in time.
    pub async fn expect(&mut self, kind: Kind, timeout: Duration) -> Result<Vec<u8>, StreamError> {
        match self.next_within(timeout).await? {
            (found, payload) if found == kind => Ok(payload),
            (found, _) => Err(StreamError::Unexpected(found)),
        }
    }

    /// The next frame, which must come within `timeout`. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamError`]: as [`Self::next`], or the stream's end, or nothing in time.
    pub async fn next_within(&mut self, timeout: Duration) -> Result<(Kind, Vec<u8>), StreamError> {
        let next = tokio::time::timeout(timeout, self.next()).await;
        next.map_err(|_| StreamError::Timeout(timeout))??.ok_or(StreamError::Closed)
    }

    fn header(&self) -> Result<Option<Header>, StreamError> {
        self.buffer.first_chunk().map(Header::parse).transpose().map_err(StreamError::Frame)
    }

    async fn read(&mut self, room: usize, wanted: usize) -> Result<Option<bytes::Bytes>, StreamError> {
        let read = self.stream.read_chunk(room, true);
        let chunk = match self.began {
            None => read.await,
            Some(began) => {
                let allowed = FRAME_DEADLINE + Duration::from_secs(wanted as u64 / BYTES_PER_SECOND_MIN);
                tokio::time::timeout_at(began + allowed, read).await.map_err(|_| StreamError::TooSlow)?
            }
        };
        Ok(chunk.map_err(StreamError::Read)?.map(|chunk| chunk.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_the_reason_of_a_close_is_found_and_bounded() {
        let wait = Duration::from_millis(1_250);
        assert_eq!(retry_after(&with_retry_after("the collector stops", wait)), Some(wait));
        let long = with_retry_after("closed for the winter", Duration::from_secs(1 << 30));
        assert_eq!(retry_after(&long), Some(limits::RETRY_AFTER_MAX));
        for silent in ["", "the collector stops", ", come back in ms", "x, come back in -1 ms", "x, come back in 5 s"] {
            assert_eq!(retry_after(silent), None, "{silent}");
        }
    }
}

//! The connecting side: reaches a collector, asks, and understands its refusals. Enrolment too, which agents and users share.

use std::{io, net::SocketAddr, time::Duration};

use quinn::{Connection, ConnectionError, WriteError};
use thiserror::Error;

use crate::{
    identity::{COLLECTOR_NAME, Identity, IdentityError, JoinToken, TlsError, join_config},
    limits,
    quic::{self, CloseCode, EndpointError, FrameReader, FrameWriter, StreamError},
    wire::{
        frame::Kind,
        message::{CertificateRequest, Certified, Decoded, Failure, FailureCode, decode},
    },
};

/// A handshake that takes longer than this is not going to succeed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A collector that has accepted a connection answers at once, unless its disk does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no connection, or no answer on it.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name is not known.
    #[error("failed to resolve `{address}` (it must be HOST:PORT)")]
    Resolve {
        /// What was to be resolved.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The name is known and has no address.
    #[error("`{address}` resolves to no address")]
    NoAddress {
        /// What was resolved.
        address: String,
    },
    /// No socket.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No usable identity.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be connected to at all.
    #[error("failed to connect to {address}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: quinn::ConnectError,
    },
    /// The handshake failed.
    #[error("failed to connect to the collector at {address}")]
    Handshake {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: ConnectionError,
    },
    /// The other end holds no certificate of the CA that is trusted.
    #[error(
        "the collector at {address} is not the one that this identity or token belongs to: its certificate is of another CA"
    )]
    WrongAuthority {
        /// The address.
        address: SocketAddr,
    },
    /// Nothing came back.
    #[error("no answer from {address} within {} s: is a collector running there, and UDP let through?", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// The address.
        address: SocketAddr,
    },
    /// The collector closed the connection and said why.
    #[error("the collector closed the connection: {reason}")]
    Closed {
        /// The code that it gave.
        code: CloseCode,
        /// Its words.
        reason: String,
    },
    /// The connection broke.
    #[error("connection to the collector failed")]
    Stream(#[source] StreamError),
    /// The collector said no.
    #[error("{message}")]
    Refused {
        /// How to react.
        code: FailureCode,
        /// Its words.
        message: String,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The certificate that came cannot be used or kept.
    #[error("failed to take on the new identity")]
    Identity(#[from] IdentityError),
}

impl From<StreamError> for ConnectError {
    fn from(error: StreamError) -> Self {
        match error.connection_error().map(|lost| (CloseCode::of(lost), is_certificate_refusal(lost))) {
            Some((Some((code, reason)), _)) => Self::Closed { code, reason },
            Some((None, true)) => Self::Closed {
                code: CloseCode::Expired,
                reason: "it does not accept this certificate or token (unknown, expired, or of another collector): join again with a new token".into(),
            },
            _ => Self::Stream(error),
        }
    }
}

/// How long a collector that ends its streams may take to say why.
const REASON_TIMEOUT: Duration = Duration::from_secs(3);

impl ConnectError {
    /// A collector that stops, or sends somebody away, ends its streams first and then says why: waits for that.
    pub async fn with_reason(self, connection: &Connection) -> Self {
        if !matches!(self, Self::Stream(_)) {
            return self;
        }
        match tokio::time::timeout(REASON_TIMEOUT, connection.closed()).await {
            Ok(error) => StreamError::Read(quinn::ReadError::ConnectionLost(error)).into(),
            Err(_) => self,
        }
    }

    /// How long the collector asks to stay away, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Closed { code: CloseCode::Overloaded | CloseCode::Stopping, reason } => quic::retry_after(reason),
            _ => None,
        }
    }
}

/// TLS alerts about certificates, as QUIC carries them (RFC 9001, section 4.8, and RFC 8446, section 6).
fn is_certificate_refusal(error: &ConnectionError) -> bool {
    let ConnectionError::ConnectionClosed(close) = error else { return false };
    (42..=49).chain([116]).any(|alert| close.error_code == quinn_proto::TransportErrorCode::crypto(alert))
}

/// Connects to the first of the address's hosts that answers.
///
/// # Errors
/// [`ConnectError`] of the last one tried.
pub async fn connect(address: &str, tls: rustls::ClientConfig) -> Result<Connection, ConnectError> {
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.map_err(|source| ConnectError::Resolve { address: address.to_string(), source })?;
    let config = quic::client_config(tls)?;
    let mut result = Err(ConnectError::NoAddress { address: address.to_string() });
    for address in resolved {
        result = connect_one(address, config.clone()).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn connect_one(address: SocketAddr, config: quinn::ClientConfig) -> Result<Connection, ConnectError> {
    let endpoint = quic::client_endpoint(address)?;
    let connecting = endpoint
        .connect_with(config, address, COLLECTOR_NAME)
        .map_err(|source| ConnectError::Connect { address, source })?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    let connected = connected.map_err(|_| ConnectError::Timeout { address })?;
    connected.map_err(|source| match &source {
        ConnectionError::TransportError(error) if error.code == quinn_proto::TransportErrorCode::crypto(48) => {
            ConnectError::WrongAuthority { address }
        }
        _ => ConnectError::Handshake { address, source },
    })
}

/// Opens a stream.
///
/// # Errors
/// [`ConnectError`] when the connection is gone.
pub async fn open(connection: &Connection) -> Result<(FrameWriter, FrameReader), ConnectError> {
    let opened = connection.open_bi().await;
    let (send, receive) = opened.map_err(|error| StreamError::Write(WriteError::ConnectionLost(error)))?;
    Ok((FrameWriter::new(send), FrameReader::new(receive)))
}

/// The answer to what was asked: a message of this kind, or the collector's refusal.
///
/// # Errors
/// [`ConnectError::Refused`] with the collector's words, or what broke.
pub async fn answer<T>(reader: &mut FrameReader, kind: Kind) -> Result<T, ConnectError>
where
    T: for<'a> Decoded<'a>,
{
    let (found, payload) = reader.next_within(ANSWER_TIMEOUT).await?;
    match found {
        _ if found == kind => Ok(decode(&payload).map_err(StreamError::Message)?),
        Kind::Failure => Err(refusal(&payload)),
        _ => Err(StreamError::Unexpected(found).into()),
    }
}

/// What a failure frame says.
#[must_use]
pub fn refusal(payload: &[u8]) -> ConnectError {
    match decode::<Failure>(payload) {
        Ok(Failure { code, message, retry_after_ms }) => ConnectError::Refused {
            code: FailureCode::from_code(code),
            message,
            retry_after: (retry_after_ms > 0)
                .then(|| Duration::from_millis(retry_after_ms.into()).min(limits::RETRY_AFTER_MAX)),
        },
        Err(error) => StreamError::Message(error).into(),
    }
}

/// Has a fresh key certified: by a token's connection for a newcomer, by its own for a renewal.
///
/// # Errors
/// [`ConnectError`] when the collector refuses or the connection breaks.
pub async fn certify(connection: &Connection, kind: Kind, name: &str) -> Result<Identity, ConnectError> {
    let (key, csr) = Identity::request()?;
    let (mut writer, mut reader) = open(connection).await?;
    writer.send(kind, &CertificateRequest { name: name.to_string(), csr }).await?;
    let certified: Certified = answer(&mut reader, Kind::Certified).await?;
    let authorities = certified.authorities.into_iter().map(Into::into).collect();
    Ok(Identity::new(key, certified.certificate.into(), authorities)?)
}

/// Joins with a token: the only way to a first certificate.
///
/// # Errors
/// [`ConnectError`]; a token that is unknown to the collector is refused in the handshake, one that is used up
/// or does not fit the name is refused with the reason.
pub async fn join(token: &JoinToken, address: &str, name: &str) -> Result<Identity, ConnectError> {
    let connection = connect(address, join_config(token)?).await?;
    let identity = certify(&connection, Kind::Join, name).await?;
    CloseCode::Done.close(&connection, "");
    Ok(identity)
}

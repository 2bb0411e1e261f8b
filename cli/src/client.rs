//! The client's side of the collector's protocol: connects, asks, and reads what comes back.
//!
//! One connection, one stream for each request. Nothing is retried here; who follows a stream for long does that itself.

use std::{
    fs::{File, OpenOptions},
    net::SocketAddr,
    time::{Duration, Instant},
};

use belfry_common::{
    client::{self, ConnectError},
    clock,
    error_chain::ErrorChain,
    identity::{Identity, client_config},
    limits,
    quic::{CloseCode, FrameReader, FrameWriter, StreamError},
    wire::{frame::Kind, message::FailureCode},
};
use quinn::{Connection, ConnectionError, TransportErrorCode};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::task::JoinSet;
use tracing::debug;

use crate::{
    api::{QueryAnswer, Request},
    commands::Global,
    credentials::{Credentials, CredentialsError},
};

/// The host's addresses are tried one after the other, each this long after the one before (RFC 8305, section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// A collector on this machine answers at once, or is not there.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Between the parts of a document.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const QUERY_PATIENCE: Duration = Duration::from_secs(10);
/// A renewal that failed.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The status of 5,000 nodes of 8 GPUs is about 20 MB.
const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// TLS' alert 120: no protocol in common (RFC 7301).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A request without an answer.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// Nobody to ask, or to ask as.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No connection, or the collector's refusal.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody listens on this machine.
    #[error(
        "nothing answers at {address}: is the collector running? (`belfry collect`, or `systemctl status belfry-collector`)"
    )]
    NotRunning { address: SocketAddr },
    /// It has ended a stream that has no end.
    #[error("the collector stops or restarts")]
    Stopping,
    /// It speaks another version of the protocol.
    #[error("the collector at {address} speaks another version of the protocol: update the older of the two")]
    OtherProtocol { address: SocketAddr },
    /// Not what this version expects.
    #[error("the collector's answer is not understood: is one of the two newer? (`belfry doctor` compares versions)")]
    Unreadable(#[source] serde_json::Error),
    /// Longer than a request may be.
    #[error("the request is too long: give fewer or shorter selectors")]
    TooLong,
    /// Longer than any answer should be.
    #[error("the collector's answer is longer than {REPLY_BYTES_MAX} bytes")]
    AnswerTooLong,
}

impl From<StreamError> for ClientError {
    fn from(error: StreamError) -> Self {
        Self::Connect(error.into())
    }
}

impl ClientError {
    /// Whether the collector says that the request itself is wrong.
    pub(crate) fn is_invalid_request(&self) -> bool {
        matches!(self, Self::TooLong | Self::Connect(ConnectError::Refused { code: FailureCode::Invalid, .. }))
    }

    /// Whether the certificate's time is over.
    fn is_expiry(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Closed { code: CloseCode::Expired, .. }))
    }

    /// Whether to ask again can help: the connection is gone or the collector is busy, and it has not said no.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Stopping => true,
            Self::Connect(ConnectError::Closed { code, .. }) => {
                !matches!(code, CloseCode::Revoked | CloseCode::Expired | CloseCode::Protocol)
            }
            Self::Connect(ConnectError::Refused { code, .. }) => *code == FailureCode::Retry,
            Self::Connect(ConnectError::Stream(error)) => !error.is_violation() || matches!(error, StreamError::Cut),
            Self::Connect(
                ConnectError::Resolve { .. }
                | ConnectError::NoAddress { .. }
                | ConnectError::Endpoint(_)
                | ConnectError::Connect { .. }
                | ConnectError::Handshake { .. }
                | ConnectError::Timeout { .. },
            ) => true,
            Self::Connect(ConnectError::Tls(_) | ConnectError::WrongAuthority { .. } | ConnectError::Identity(_))
            | Self::Credentials(_)
            | Self::OtherProtocol { .. }
            | Self::Unreadable(_)
            | Self::TooLong
            | Self::AnswerTooLong => false,
        }
    }
}

/// A connection to the collector.
#[derive(Debug)]
pub(crate) struct Client {
    connection: Connection,
    credentials: Credentials,
    /// The certificate that this connection lives on.
    serial: String,
    renew_after: Instant,
}

impl Client {
    /// Connects as whom and to where the command line says or this machine has.
    ///
    /// # Errors
    /// [`ClientError`], as [`Self::connect_as`].
    pub(crate) async fn connect(global: &Global) -> Result<Self, ClientError> {
        Self::connect_as(&Credentials::find(global)?).await
    }

    /// Connects, and renews the identity when it is time.
    ///
    /// # Errors
    /// [`ClientError`]. A collector that does not accept the identity says so with the first answer only.
    pub(crate) async fn connect_as(credentials: &Credentials) -> Result<Self, ClientError> {
        let connection = connect(&credentials.address, &credentials.identity).await?;
        let serial = credentials.identity.subject.serial.clone();
        let mut client = Self { connection, credentials: credentials.clone(), serial, renew_after: clock::monotonic() };
        client.keep_fresh().await;
        Ok(client)
    }

    /// Renews the identity when it is time; for a connection that lives for days, to be called now and then.
    pub(crate) async fn keep_fresh(&mut self) {
        if !self.credentials.is_to_renew() || clock::monotonic() < self.renew_after {
            return;
        }
        self.renew_after = clock::monotonic() + RENEW_AGAIN_AFTER;
        self.renew().await;
        self.credentials = self.credentials.refreshed();
    }

    /// With what to connect again after this error, if that can help: later, or with a certificate that has come since.
    pub(crate) fn again(&self, error: &ClientError) -> Option<Credentials> {
        let credentials = self.credentials.refreshed();
        let is_renewed = error.is_expiry() && credentials.identity.subject.serial != self.serial;
        (error.is_passing() || is_renewed).then_some(credentials)
    }

    /// The collector's address, as it was given.
    pub(crate) fn address(&self) -> &str {
        &self.credentials.address
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// [`ClientError`], the collector's refusal among others.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClientError> {
        serde_json::from_str(&self.text(request).await?).map_err(ClientError::Unreadable)
    }

    /// Asks for an expression to be evaluated, which may take so long.
    ///
    /// # Errors
    /// [`ClientError`], the collector's refusal among others.
    pub(crate) async fn query(&self, request: &Request, timeout: Duration) -> Result<QueryAnswer, ClientError> {
        // Longer than the collector allows it, so that its own words are heard.
        let text = self.text_within(request, timeout.saturating_add(QUERY_PATIENCE)).await?;
        serde_json::from_str(&text).map_err(ClientError::Unreadable)
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// [`ClientError`], the collector's refusal among others.
    pub(crate) async fn tell(&self, request: &Request) -> Result<(), ClientError> {
        self.text(request).await.map(drop)
    }

    /// Asks for a document and takes it as it comes: JSON, on one line.
    ///
    /// # Errors
    /// [`ClientError`], the collector's refusal among others.
    pub(crate) async fn text(&self, request: &Request) -> Result<String, ClientError> {
        self.text_within(request, ANSWER_TIMEOUT).await
    }

    /// As [`Self::text`], of an answer that may take longer than others.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub(crate) async fn text_within(&self, request: &Request, timeout: Duration) -> Result<String, ClientError> {
        let mut reply = self.open(request).await?;
        let mut document = Vec::new();
        while let Some(piece) = reply.next_within(timeout).await? {
            if document.len() + piece.len() > REPLY_BYTES_MAX {
                return Err(ClientError::AnswerTooLong);
            }
            document.extend_from_slice(&piece);
        }
        // Bytes that are no UTF-8 are no JSON either, which whoever parses it says.
        Ok(String::from_utf8(document).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Asks for what comes in pieces.
    ///
    /// # Errors
    /// [`ClientError`] when the connection is gone.
    pub(crate) async fn open(&self, request: &Request) -> Result<Reply, ClientError> {
        let request = serde_json::to_vec(request).map_err(ClientError::Unreadable)?;
        if request.len() > limits::CONTROL_BYTES_MAX {
            return Err(ClientError::TooLong);
        }
        let (mut writer, reader) = client::open(&self.connection).await?;
        writer.send_bytes(Kind::Request, &request).await?;
        Ok(Reply { _writer: writer, reader })
    }

    /// Takes leave, so that the collector need not find out by silence.
    pub(crate) async fn close(&self) {
        CloseCode::Done.close(&self.connection, "");
        // The connection's task sends the word; it needs a moment.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    /// A new certificate in place of one that ends soon. Whatever goes wrong can be made good the next time.
    async fn renew(&self) {
        let credentials = &self.credentials;
        // Two that renew at once would mix up their files.
        let lock_path = credentials.directory.join("renewal.lock");
        let lock = OpenOptions::new().create(true).append(true).open(lock_path);
        let Some(_lock) = lock.ok().filter(|lock: &File| lock.try_lock().is_ok()) else { return };
        let name = credentials.identity.subject.name.as_str();
        let renewed = tokio::time::timeout(ANSWER_TIMEOUT, client::certify(&self.connection, Kind::Renew, name)).await;
        match renewed {
            Ok(Ok(identity)) => match identity.save(&credentials.directory) {
                Ok(()) => debug!("certificate renewed"),
                Err(error) => debug!(error = %ErrorChain(&error), "renewed certificate cannot be kept"),
            },
            Ok(Err(error)) => debug!(error = %ErrorChain(&error), "certificate not renewed"),
            Err(_) => debug!("certificate not renewed: no answer"),
        }
    }
}

/// What comes back on one stream. Dropped, it tells the collector that no more is wanted.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its end would be the request's.
    _writer: FrameWriter,
    reader: FrameReader,
}

impl Reply {
    /// The next piece; `None` when the reply is complete. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError`]: the collector's refusal, or the connection is gone.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let frame = self.reader.next().await?;
        self.piece(frame.ok_or(StreamError::Closed)?)
    }

    /// The next piece, which must come within `timeout`. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError`] as [`Self::next`], or nothing in time.
    pub(crate) async fn next_within(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, ClientError> {
        let frame = self.reader.next_within(timeout).await?;
        self.piece(frame)
    }

    fn piece(&self, (kind, payload): (Kind, Vec<u8>)) -> Result<Option<Vec<u8>>, ClientError> {
        match kind {
            Kind::Reply => Ok(Some(payload)),
            Kind::End => Ok(None),
            Kind::Failure => Err(client::refusal(&payload).into()),
            other => Err(StreamError::Unexpected(other).into()),
        }
    }
}

/// Connects to whichever of the host's addresses answers first.
async fn connect(address: &str, identity: &Identity) -> Result<Connection, ClientError> {
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.map_err(|source| ConnectError::Resolve { address: address.to_string(), source })?;
    let mut tries = JoinSet::new();
    for (number, address) in (0..).zip(resolved) {
        let identity = identity.clone();
        tries.spawn(async move {
            tokio::time::sleep(NEXT_ADDRESS_AFTER * number).await;
            connect_one(address, &identity).await
        });
    }
    let mut first_error = None;
    while let Some(result) = tries.join_next().await {
        match result {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => _ = first_error.get_or_insert(error),
            // Only a panic could have ended it without a result.
            Err(_) => {}
        }
    }
    Err(first_error.unwrap_or_else(|| ConnectError::NoAddress { address: address.to_string() }.into()))
}

async fn connect_one(address: SocketAddr, identity: &Identity) -> Result<Connection, ClientError> {
    let text = address.to_string();
    let connecting = client::connect(&text, client_config(identity).map_err(ConnectError::Tls)?);
    let connected = if address.ip().is_loopback() {
        let local = tokio::time::timeout(LOCAL_TIMEOUT, connecting).await;
        local.map_err(|_| ClientError::NotRunning { address })?
    } else {
        connecting.await
    };
    connected.map_err(|error| match &error {
        ConnectError::Handshake { source: ConnectionError::ConnectionClosed(close), .. }
            if close.error_code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) =>
        {
            ClientError::OtherProtocol { address }
        }
        _ => error.into(),
    })
}

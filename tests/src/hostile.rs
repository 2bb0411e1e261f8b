//! A client that can say anything on the wire, and a node that usually does not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use belfry_common::{
    client, clock,
    identity::{Identity, client_config},
    model::{Batch, Epoch, Sequence},
    quic::{self, CloseCode, FrameReader, StreamError},
    wire::{
        PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
        codec::Encoder,
        frame::{self, HEADER_BYTES, Kind},
        message::{
            self, Ack, Backlog, Batches, Credit, Failure, FailureCode, Hello, Message, Refused, Run, SealedBatch,
            Welcome, decode,
        },
    },
};
use quinn::{Connection, ConnectionError, IdleTimeout, SendStream, TransportConfig, WriteError};

use crate::wait::SOON;

/// A dead path is to be noticed faster than by honest clients.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Shakes hands with whatever TLS says. That it succeeds does not mean that the collector agrees; see [`refusal`].
///
/// # Errors
/// When the handshake fails, or nobody answers.
pub async fn connect(address: SocketAddr, tls: rustls::ClientConfig) -> Result<Connection, ConnectionError> {
    let mut config = quic::client_config(tls).unwrap();
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok()).keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    let endpoint = quic::client_endpoint(address).unwrap();
    endpoint.connect_with(config, address, belfry_common::identity::COLLECTOR_NAME).unwrap().await
}

/// Why the collector ends this connection, which it must do in time.
pub async fn refusal(connection: &Connection, within: Duration) -> ConnectionError {
    let closed = tokio::time::timeout(within, connection.closed()).await;
    closed.unwrap_or_else(|_| panic!("the connection is still open after {within:?}"))
}

/// The code and the words with which the collector closes this connection, which it must do in time.
pub async fn close_code(connection: &Connection, within: Duration) -> (CloseCode, String) {
    let error = refusal(connection, within).await;
    CloseCode::of(&error).unwrap_or_else(|| panic!("not closed by the collector: {error}"))
}

/// A stream on which anything can be said.
#[derive(Debug)]
pub struct Stream {
    send: SendStream,
    /// What comes back.
    pub reader: FrameReader,
}

impl Stream {
    /// Opens one.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn open(connection: &Connection) -> Result<Self, ConnectionError> {
        let (send, receive) = connection.open_bi().await?;
        Ok(Self { send, reader: FrameReader::new(receive) })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the stream or the connection is gone.
    pub async fn raw(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.send.write_all(bytes).await
    }

    /// Sends a sealed frame.
    ///
    /// # Errors
    /// When the stream or the connection is gone.
    pub async fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), WriteError> {
        let mut bytes = Vec::new();
        frame::seal(kind, payload, &mut bytes);
        self.raw(&bytes).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the stream or the connection is gone.
    pub async fn message(&mut self, kind: Kind, message: &impl Message) -> Result<(), WriteError> {
        self.frame(kind, &message::encode(message)).await
    }

    /// The next thing that the collector says.
    ///
    /// # Errors
    /// When nothing comes in time, or the stream or the connection is gone.
    pub async fn answer(&mut self) -> Result<Answer, StreamError> {
        let (kind, payload) = self.reader.next_within(SOON).await?;
        Ok(Answer::parse(kind, &payload))
    }
}

/// What a collector says to a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The hello is accepted.
    Welcome(Welcome),
    /// These are durable.
    Ack(Vec<Run>),
    /// So much more backlog may come.
    Credit(u32),
    /// A batch is refused for good.
    Refused(Refused),
    /// The stream ends.
    Failure(FailureCode, String),
}

impl Answer {
    fn parse(kind: Kind, payload: &[u8]) -> Self {
        match kind {
            Kind::Welcome => Self::Welcome(decode(payload).unwrap()),
            Kind::Ack => Self::Ack(decode::<Ack>(payload).unwrap().runs),
            Kind::Credit => Self::Credit(decode::<Credit>(payload).unwrap().batches),
            Kind::Refused => Self::Refused(decode(payload).unwrap()),
            Kind::Failure => {
                let Failure { code, message, .. } = decode(payload).unwrap();
                Self::Failure(FailureCode::from_code(code), message)
            }
            other => panic!("{other:?} is no answer to a sender"),
        }
    }

    /// Whether this acknowledges the batch.
    #[must_use]
    pub fn acknowledges(&self, sequence: Sequence) -> bool {
        matches!(self, Self::Ack(runs) if runs.iter().any(|run| run.first <= sequence && sequence <= run.last()))
    }
}

/// The hello of an agent of this build.
#[must_use]
pub fn hello(epoch: Epoch) -> Hello {
    Hello {
        protocol_min: PROTOCOL_VERSION_MIN,
        protocol_max: PROTOCOL_VERSION,
        agent_version: "test".into(),
        epoch: epoch.0,
        next_sequence: u64::MAX,
        time_ms: clock::now().as_millis(),
        interval_ms: 1000,
    }
}

/// An agent's connection after its hello was accepted.
#[derive(Debug)]
pub struct Live {
    /// The connection.
    pub connection: Connection,
    /// The live stream.
    pub stream: Stream,
    /// The live stream's context.
    pub encoder: Encoder,
    /// What the collector said of itself and of what it has.
    pub welcome: Welcome,
    epoch: Epoch,
}

impl Live {
    /// Connects and says hello.
    ///
    /// # Errors
    /// What the collector said instead of a welcome, or why there is no connection.
    pub async fn open(address: SocketAddr, identity: &Identity, epoch: Epoch) -> Result<Self, String> {
        Self::open_with(address, identity, hello(epoch)).await
    }

    /// Connects and says this hello.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(address: SocketAddr, identity: &Identity, hello: Hello) -> Result<Self, String> {
        let connection = connect(address, client_config(identity).unwrap()).await.map_err(|error| error.to_string())?;
        Self::greet_with(connection, hello).await
    }

    /// Says hello on a connection.
    ///
    /// # Errors
    /// What the collector said instead of a welcome, or that the connection is gone.
    pub async fn greet(connection: Connection, epoch: Epoch) -> Result<Self, String> {
        Self::greet_with(connection, hello(epoch)).await
    }

    async fn greet_with(connection: Connection, hello: Hello) -> Result<Self, String> {
        let epoch = Epoch(hello.epoch);
        let mut stream = Stream::open(&connection).await.map_err(|error| error.to_string())?;
        stream.message(Kind::Hello, &hello).await.map_err(|error| error.to_string())?;
        match stream.answer().await {
            Ok(Answer::Welcome(welcome)) => Ok(Self { connection, stream, encoder: Encoder::new(), welcome, epoch }),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(format!("{error}: {:?}", connection.close_reason())),
        }
    }

    /// Sends a batch.
    ///
    /// # Errors
    /// When the stream or the connection is gone.
    pub async fn send(&mut self, sequence: Sequence, batch: &Batch) -> Result<(), WriteError> {
        let mut body = Vec::new();
        self.encoder.encode(batch, &mut body).unwrap();
        self.send_body(sequence, &body).await
    }

    /// Sends a batch whose body is made elsewhere.
    ///
    /// # Errors
    /// When the stream or the connection is gone.
    pub async fn send_body(&mut self, sequence: Sequence, body: &[u8]) -> Result<(), WriteError> {
        let batches = Batches { batches: vec![SealedBatch { sequence, body }] };
        self.stream.message(Kind::Batches, &batches).await
    }

    /// Sends a batch and waits until it is acknowledged; panics if it is not.
    pub async fn store(&mut self, sequence: Sequence, batch: &Batch) {
        self.send(sequence, batch).await.unwrap();
        self.acknowledged(sequence).await;
    }

    /// Waits until a batch is acknowledged; panics at anything else.
    pub async fn acknowledged(&mut self, sequence: Sequence) {
        loop {
            let answer = self.stream.answer().await;
            let answer = answer.unwrap_or_else(|error| panic!("{error:?}: {:?}", self.connection.close_reason()));
            assert!(matches!(answer, Answer::Ack(_)), "{answer:?} instead of an acknowledgement");
            if answer.acknowledges(sequence) {
                return;
            }
        }
    }

    /// Opens the backlog stream.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn backlog(&self) -> Result<Stream, ConnectionError> {
        let mut stream = Stream::open(&self.connection).await?;
        // A connection that is lost here is found lost at the next word as well.
        drop(stream.message(Kind::Backlog, &Backlog { epoch: self.epoch.0 }).await);
        Ok(stream)
    }
}

/// Sends batches as one frame of backlog, which is a context of its own.
///
/// # Errors
/// When the stream or the connection is gone.
pub async fn send_backlog<'a>(
    stream: &mut Stream,
    batches: impl IntoIterator<Item = (Sequence, &'a Batch)>,
) -> Result<(), WriteError> {
    let mut encoder = Encoder::new();
    let bodies: Vec<(Sequence, Vec<u8>)> = batches
        .into_iter()
        .map(|(sequence, batch)| {
            let mut body = Vec::new();
            encoder.encode(batch, &mut body).unwrap();
            (sequence, body)
        })
        .collect();
    let batches = bodies.iter().map(|(sequence, body)| SealedBatch { sequence: *sequence, body }).collect();
    stream.message(Kind::Batches, &Batches { batches }).await
}

/// A frame of this kind as it travels, to be spoilt.
#[must_use]
pub fn sealed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::seal(kind, payload, &mut bytes);
    bytes
}

/// Gives a spoilt frame its right checksum, so that what is wrong is what the test meant.
pub fn correct_checksum(frame: &mut [u8]) {
    let (head, rest) = frame.split_at_mut(HEADER_BYTES - 4);
    let (field, payload) = rest.split_at_mut(4);
    field.copy_from_slice(&crc32c::crc32c_append(crc32c::crc32c(head), payload).to_le_bytes());
}

/// Asks for something as a member; the collector's words if it refuses.
///
/// # Errors
/// The refusal.
pub async fn certify(
    connection: &Connection,
    kind: Kind,
    name: &str,
    csr: &[u8],
) -> Result<message::Certified, String> {
    let (mut writer, mut reader) = client::open(connection).await.map_err(|error| error.to_string())?;
    let request = message::CertificateRequest { name: name.into(), csr: csr.to_vec() };
    writer.send(kind, &request).await.map_err(|error| error.to_string())?;
    client::answer(&mut reader, Kind::Certified).await.map_err(|error| error.to_string())
}

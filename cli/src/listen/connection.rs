//! One connection: who is it, may it speak, and what is each of its streams for.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    identity::{Peer, Role, Subject},
    model::NodeName,
    quic::{CloseCode, FrameReader, FrameWriter, StreamError},
    wire::{
        frame::Kind,
        message::{CertificateRequest, Certified, Failure, FailureCode, decode},
    },
};
use quinn::Connection;
use rustls_pki_types::CertificateDer;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    access::{AccessError, Refusal},
    ingest, serve,
    services::Services,
    state::audit::{self, Deed, Outcome},
};

/// A stream that is opened says at once what it is for.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// For agents that find no room; each adds a random wait of its own.
const OVERLOADED_WAIT: Duration = Duration::from_secs(30);
/// For agents that come while the database cannot be written.
const DATABASE_WAIT: Duration = Duration::from_secs(5);

/// A member on a connection: what its streams are served with.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) subject: Subject,
    pub(crate) address: SocketAddr,
    /// The connection's number.
    pub(crate) number: u64,
    pub(crate) connection: Connection,
    pub(crate) services: Arc<Services>,
    pub(crate) token: CancellationToken,
}

/// Serves a connection until it ends.
pub(super) async fn serve(connection: Connection, services: Arc<Services>, token: CancellationToken) {
    let address = connection.remote_address();
    match identify(&connection, &services) {
        Ok(Peer::Joiner { key_sha256 }) => {
            if let Err(error) = join(&connection, &services, key_sha256).await {
                debug!(%address, error = %ErrorChain(&error), "join failed");
            }
        }
        Ok(Peer::Member(subject)) => {
            let refusal = services.access.refusal(&subject, clock::now());
            if let Some(refusal) = refusal {
                info!(%address, name = %subject.name, ?refusal, "refused");
                close_refused(&connection, refusal);
                return;
            }
            if let Some(why) = services.connections.no_room_for(&subject) {
                debug!(%address, name = %subject.name, why, "sent away");
                services.connections.count_refused();
                CloseCode::Overloaded.close_until(&connection, why, OVERLOADED_WAIT);
                return;
            }
            let number = services.connections.add(subject.clone(), connection.clone());
            let member = Member { subject, address, number, connection, services: Arc::clone(&services), token };
            serve_member(&member).await;
            if member.token.is_cancelled() {
                services.connections.dismiss(&member.connection);
            }
            services.connections.remove(number);
        }
        Err(reason) => {
            warn!(%address, reason, "peer without an accepted certificate");
            CloseCode::Protocol.close(&connection, "no accepted certificate");
        }
    }
}

fn close_refused(connection: &Connection, refusal: Refusal) {
    match refusal {
        Refusal::Revoked => CloseCode::Revoked.close(connection, "this identity is revoked"),
        Refusal::Expired => CloseCode::Expired.close(connection, "this certificate has expired: join again"),
    }
}

fn identify(connection: &Connection, services: &Services) -> Result<Peer, String> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = identity.and_then(|chain| chain.into_iter().next()).ok_or("no certificate")?;
    services.access.identify(&certificate, clock::now()).map_err(|error| ErrorChain(&error).to_string())
}

async fn serve_member(member: &Member) {
    let streams = TaskTracker::new();
    loop {
        let opened = tokio::select! {
            biased;
            () = member.token.cancelled() => break,
            opened = member.connection.accept_bi() => opened,
        };
        let Ok((send, receive)) = opened else { break };
        let member = member.clone();
        streams.spawn(async move {
            let (writer, reader) = (FrameWriter::new(send), FrameReader::new(receive));
            if let Err(error) = serve_stream(&member, writer, reader).await {
                debug!(name = %member.subject.name, error = %ErrorChain(&error), "stream ended");
                if error.is_violation() {
                    warn!(name = %member.subject.name, address = %member.address, error = %ErrorChain(&error), "peer broke the protocol");
                    // An honest peer on a bad path is slow, too: it may come again at once.
                    let code = if matches!(error, StreamError::TooSlow) { CloseCode::TooSlow } else { CloseCode::Protocol };
                    code.close(&member.connection, &ErrorChain(&error).to_string());
                }
            }
        });
    }
    streams.close();
    streams.wait().await;
}

async fn serve_stream(member: &Member, mut writer: FrameWriter, mut reader: FrameReader) -> Result<(), StreamError> {
    let (kind, payload) = reader.next_within(FIRST_FRAME_TIMEOUT).await?;
    // Rights may have been taken since the handshake: every request is judged anew.
    if member.services.access.refusal(&member.subject, clock::now()).is_some() {
        return deny(&mut writer, "this identity is revoked or expired").await;
    }
    match kind {
        Kind::Hello | Kind::Backlog if member.subject.role != Role::Agent => {
            audit_denied(member, "send batches").await;
            deny(&mut writer, "only agents send batches").await
        }
        Kind::Hello => {
            let hello = decode(&payload).map_err(StreamError::Message)?;
            ingest::live(member, hello, writer, reader).await
        }
        Kind::Backlog => {
            let backlog = decode(&payload).map_err(StreamError::Message)?;
            ingest::backlog(member, backlog, writer, reader).await
        }
        Kind::Renew => {
            let request = decode(&payload).map_err(StreamError::Message)?;
            renew(member, request, writer).await
        }
        Kind::Request => serve::request(member, &payload, writer).await,
        other => Err(StreamError::Unexpected(other)),
    }
}

async fn deny(writer: &mut FrameWriter, message: &str) -> Result<(), StreamError> {
    fail(writer, FailureCode::Denied, message.to_string()).await
}

/// Ends a stream with a refusal that says why.
pub(crate) async fn fail(writer: &mut FrameWriter, code: FailureCode, message: String) -> Result<(), StreamError> {
    writer.send(Kind::Failure, &Failure { code: code.code(), message, retry_after_ms: 0 }).await
}

/// Ends a stream because the database cannot be written now, and says when to come back.
pub(crate) async fn fail_for_now(writer: &mut FrameWriter) -> Result<(), StreamError> {
    let message = "the collector cannot write its database now".to_string();
    let retry_after_ms = DATABASE_WAIT.as_millis() as u32;
    writer.send(Kind::Failure, &Failure { code: FailureCode::Retry.code(), message, retry_after_ms }).await
}

async fn join(connection: &Connection, services: &Services, key_sha256: [u8; 32]) -> Result<(), StreamError> {
    let accepted = tokio::time::timeout(FIRST_FRAME_TIMEOUT, connection.accept_bi()).await;
    let accepted = accepted.map_err(|_| StreamError::Timeout(FIRST_FRAME_TIMEOUT))?;
    let (send, receive) = accepted.map_err(|error| StreamError::Read(quinn::ReadError::ConnectionLost(error)))?;
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
    let payload = reader.expect(Kind::Join, FIRST_FRAME_TIMEOUT).await?;
    let request: CertificateRequest = decode(&payload).map_err(StreamError::Message)?;
    match admit(services, key_sha256, request).await {
        Ok(certified) => writer.send(Kind::Certified, &certified).await?,
        Err(error) => {
            let message = ErrorChain(&error).to_string();
            info!(address = %connection.remote_address(), reason = message, "join refused");
            let code = if error.is_passing() { FailureCode::Retry } else { FailureCode::Denied };
            fail(&mut writer, code, message).await?;
        }
    }
    // Waits for the answer to be read before the connection is given up.
    drop(tokio::time::timeout(FIRST_FRAME_TIMEOUT, writer.finish()).await);
    Ok(())
}

async fn admit(
    services: &Services,
    key_sha256: [u8; 32],
    request: CertificateRequest,
) -> Result<Certified, AccessError> {
    let now = clock::now();
    let name: NodeName = request.name.parse().map_err(AccessError::Name)?;
    let admitted = services.access.admit(key_sha256, name, request.csr, now).await?;
    let admission = admitted.admission;
    if let Some(node) = admission.node {
        services.fleet.enrol(crate::fleet::store_id(node), admission.name.clone());
    }
    info!(name = %admission.name, role = %admission.role, token = admission.token, "joined");
    let deed = Deed {
        time: now,
        actor: format!("token {}", admission.token),
        role: admission.role,
        action: "join".into(),
        target: admission.name.to_string(),
        detail: String::new(),
        outcome: Outcome::Done,
    };
    services.state.write(move |transaction| audit::append(transaction, &deed).map(|_| ())).await?;
    Ok(Certified {
        name: admission.name.to_string(),
        certificate: admitted.certificate.to_vec(),
        authorities: services.access.authorities(),
    })
}

async fn renew(member: &Member, request: CertificateRequest, mut writer: FrameWriter) -> Result<(), StreamError> {
    match member.services.access.renew(&member.subject, request.csr, clock::now()).await {
        Ok(certificate) => {
            info!(name = %member.subject.name, "certificate renewed");
            let certified = Certified {
                name: member.subject.name.to_string(),
                certificate: certificate.to_vec(),
                authorities: member.services.access.authorities(),
            };
            writer.send(Kind::Certified, &certified).await
        }
        Err(error) => {
            let message = ErrorChain(&error).to_string();
            let code = if error.is_passing() { FailureCode::Retry } else { FailureCode::Denied };
            fail(&mut writer, code, message).await
        }
    }
}

/// Notes that somebody tried what its role does not allow.
pub(crate) async fn audit_denied(member: &Member, action: &str) {
    let Some(unwritten) = member.services.connections.count_denied(&member.subject, clock::monotonic()) else { return };
    let detail = match unwritten {
        0 => format!("from {}", member.address),
        before => format!("from {}, and {before} refusals before that were not written down", member.address),
    };
    let deed = Deed {
        time: clock::now(),
        actor: member.subject.name.to_string(),
        role: member.subject.role,
        action: action.to_string(),
        target: String::new(),
        detail,
        outcome: Outcome::Denied,
    };
    let written = member.services.state.write(move |transaction| audit::append(transaction, &deed).map(|_| ())).await;
    if let Err(error) = written {
        warn!(error = %ErrorChain(&error), "audit log cannot be written");
    }
}

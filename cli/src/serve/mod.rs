//! Answers clients, one request a stream. Rights are judged here, before anything is done.

mod alerts;
mod gpus;
mod nodes;
mod query;
mod status;
mod tail;
mod tokens;

use std::time::Duration;

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    identity::Role,
    limits,
    quic::{FrameWriter, StreamError},
    wire::{frame::Kind, message::FailureCode},
};
use serde::Serialize;
use thiserror::Error;
use tracing::warn;

use crate::{
    api::{self, Health, Request},
    listen::{Member, audit_denied, fail},
    own_counts,
    state::{
        Health as DatabaseHealth, StateError,
        audit::{self, Deed, Outcome},
    },
};

/// How long a client may take to read a document: 20 MB on a slow link.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A request that was not done.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    /// The connection is gone.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The request is wrong; the words are for the person who asked.
    #[error("{0}")]
    Invalid(String),
    /// What it names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It went wrong here.
    #[error("{0}")]
    Failed(String),
}

impl From<StateError> for ServeError {
    fn from(error: StateError) -> Self {
        Self::Failed(ErrorChain(&error).to_string())
    }
}

impl From<belfry_store::ReadError> for ServeError {
    fn from(error: belfry_store::ReadError) -> Self {
        let text = ErrorChain(&error).to_string();
        match error {
            belfry_store::ReadError::Limit { .. } => Self::Invalid(text),
            _ => Self::Failed(text),
        }
    }
}

impl ServeError {
    fn code(&self) -> FailureCode {
        match self {
            Self::Invalid(_) => FailureCode::Invalid,
            Self::NotFound(_) => FailureCode::NotFound,
            Self::Stream(_) | Self::Failed(_) => FailureCode::Retry,
        }
    }
}

/// The least role that may make a request, and what the audit log calls it if it changes something.
fn rule(request: &Request) -> (Role, Option<&'static str>) {
    match request {
        Request::Status { .. }
        | Request::Tail { .. }
        | Request::Query { .. }
        | Request::Nodes
        | Request::Alerts { .. }
        | Request::Follow { .. }
        | Request::MoveCursor { .. }
        | Request::Rules
        | Request::Health { with_audit: false } => (Role::Viewer, None),
        Request::ReloadRules => (Role::Operator, Some("rules reload")),
        Request::RevokeNode { .. } => (Role::Admin, Some("nodes revoke")),
        Request::ForgetNode { .. } => (Role::Admin, Some("nodes forget")),
        Request::CreateToken { .. } | Request::CreateHttpToken { .. } => (Role::Admin, Some("token create")),
        Request::RevokeToken { .. } => (Role::Admin, Some("token revoke")),
        // It reads the whole log.
        Request::Health { with_audit: true } | Request::Tokens | Request::Audit { .. } => (Role::Admin, None),
    }
}

/// Answers one request.
pub(crate) async fn request(member: &Member, payload: &[u8], writer: FrameWriter) -> Result<(), StreamError> {
    let mut reply = Reply { writer };
    let request: Request = match serde_json::from_slice(payload) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("the collector does not understand this request ({error}): is one of the two newer?");
            return fail(&mut reply.writer, FailureCode::Invalid, message).await;
        }
    };
    let (needed, action) = rule(&request);
    let has = member.subject.role;
    if has < needed || has == Role::Agent {
        audit_denied(member, action.unwrap_or("read")).await;
        let message = format!("this needs the role {needed}; {} has the role {has}", member.subject.name);
        return fail(&mut reply.writer, FailureCode::Denied, message).await;
    }
    match answer(member, request, &mut reply).await {
        Ok(()) => reply.writer.send_bytes(Kind::End, &[]).await,
        Err(ServeError::Stream(error)) => Err(error),
        Err(error) => fail(&mut reply.writer, error.code(), error.to_string()).await,
    }
}

async fn answer(member: &Member, request: Request, reply: &mut Reply) -> Result<(), ServeError> {
    match request {
        Request::Status { node } => reply.document(&status::document(&member.services, node.as_deref())?).await,
        Request::Tail { selectors, node, since_ms } => {
            tail::run(member, &selectors, node.as_deref(), since_ms, reply).await
        }
        Request::Query { expression, start_ms, end_ms, step_ms, timeout_ms } => {
            let wanted = query::Wanted { expression, start_ms, end_ms, step_ms, timeout_ms };
            query::run(member, wanted, reply).await
        }
        Request::Nodes => reply.document(&nodes::list(&member.services).await?).await,
        Request::RevokeNode { name } => nodes::revoke(member, &name).await,
        Request::ForgetNode { name } => nodes::forget(member, &name).await,
        Request::CreateToken { role, ttl_ms, uses, names } => {
            reply.document(&tokens::create(member, &role, ttl_ms, uses, &names).await?).await
        }
        Request::CreateHttpToken { name, role, ttl_ms } => {
            reply.document(&tokens::create_http(member, &name, &role, ttl_ms).await?).await
        }
        Request::Tokens => reply.document(&tokens::list(&member.services).await?).await,
        Request::RevokeToken { id } => tokens::revoke(member, &id).await,
        Request::Alerts { states } => reply.document(&alerts::standing(&member.services, &states).await?).await,
        Request::Follow { from, cursor, is_once } => alerts::follow(member, from, cursor, is_once, reply).await,
        Request::MoveCursor { name, seq } => alerts::move_cursor(member, &name, seq).await,
        Request::Rules => reply.document(&member.services.alerting.rules().await).await,
        Request::ReloadRules => reload(member).await,
        Request::Health { with_audit } => reply.document(&health(member, with_audit).await?).await,
        Request::Audit { count } => reply.document(&audit_rows(member, count).await?).await,
    }
}

async fn reload(member: &Member) -> Result<(), ServeError> {
    let result = member.services.alerting.reload().await;
    let result = result.ok_or_else(|| ServeError::Failed("alerting has stopped".into()))?;
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    record(member, "rules reload", "", String::new(), outcome).await;
    result.map(|_| ()).map_err(|error| ServeError::Invalid(ErrorChain(&error).to_string()))
}

async fn audit_rows(member: &Member, count: usize) -> Result<Vec<api::AuditRow>, ServeError> {
    let rows = member.services.state.read(move |view| audit::page(view, u64::MAX, count)).await?;
    let row = |row: audit::Entry| api::AuditRow {
        seq: row.seq,
        time: api::time(row.time),
        actor: row.actor,
        role: row.role,
        action: row.action,
        target: row.target,
        detail: row.detail,
        outcome: row.outcome,
    };
    Ok(rows.into_iter().map(row).collect())
}

async fn health(member: &Member, with_audit: bool) -> Result<Health, ServeError> {
    use std::sync::atomic::Ordering::Relaxed;
    let services = &member.services;
    let head = services.head.statistics();
    let writer = &services.writer.statistics;
    let rules = services.alerting.rules().await;
    let failing = rules.iter().filter(|rule| rule.health == crate::alerts::RuleHealth::Err).count();
    let database = match &*services.state.health().borrow() {
        DatabaseHealth::Good => "good".to_string(),
        DatabaseHealth::Retrying(error) => format!("retrying: {}", ErrorChain(error)),
        DatabaseHealth::Failed(error) => format!("failed: {}", ErrorChain(error)),
    };
    let audit = if with_audit { Some(audit_verdict(member).await?) } else { None };
    let (cpu_seconds, resident_bytes) = own_counts::cost();
    Ok(Health {
        cpu_seconds,
        resident_bytes,
        audit,
        version: env!("CARGO_PKG_VERSION").to_string(),
        time: api::time(clock::now()),
        started_at: api::time(services.started),
        data_directory: services.data_directory.display().to_string(),
        is_full: writer.is_full.load(Relaxed),
        database,
        nodes: services.fleet.names().len() as u64,
        connections: services.connections.open_now(),
        series: head.series as u64,
        head_bytes: head.bytes as u64,
        journal_bytes: writer.journal_bytes.load(Relaxed),
        batches: writer.batches.load(Relaxed),
        rules: rules.len() as u64,
        rules_failing: failing as u64,
        rules_refused: services.alerting.statistics.rules_refused(),
        next_event: *services.alerting.next_event().borrow(),
    })
}

async fn audit_verdict(member: &Member) -> Result<String, ServeError> {
    Ok(match member.services.state.read(|view| audit::verify(view, None)).await? {
        audit::Verdict::Intact(_) => "intact".to_string(),
        audit::Verdict::Broken { seq } => format!("row {seq} is not what was written"),
    })
}

/// Notes a deed in the audit log. A deed that is done is not undone because it cannot be noted, but said aloud.
async fn record(member: &Member, action: &'static str, target: &str, detail: String, outcome: Outcome) {
    let deed = deed(member, action, target, detail, outcome);
    let written = member.services.state.write(move |transaction| audit::append(transaction, &deed).map(|_| ())).await;
    if let Err(error) = written {
        warn!(action, error = %ErrorChain(&error), "audit log cannot be written");
    }
}

fn deed(member: &Member, action: &'static str, target: &str, detail: String, outcome: Outcome) -> Deed {
    Deed {
        time: clock::now(),
        actor: member.subject.name.to_string(),
        role: member.subject.role,
        action: action.to_string(),
        target: target.to_string(),
        detail,
        outcome,
    }
}

/// Writes a reply in pieces.
#[derive(Debug)]
pub(crate) struct Reply {
    writer: FrameWriter,
}

impl Reply {
    /// Ready when the client has gone away or wants no more.
    async fn closed(&self) {
        self.writer.closed().await;
    }

    /// Sends a whole document.
    async fn document(&mut self, document: &impl Serialize) -> Result<(), ServeError> {
        let bytes = serde_json::to_vec(document).map_err(|error| ServeError::Failed(error.to_string()))?;
        // It is in memory until it is read.
        let read = tokio::time::timeout(DOCUMENT_TIMEOUT, self.bytes(&bytes)).await;
        read.map_err(|_| ServeError::Stream(StreamError::TooSlow))?
    }

    /// Sends a part of the reply; whoever sends lines sends whole ones.
    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), ServeError> {
        for piece in bytes.chunks(limits::REPLY_CHUNK_BYTES_MAX) {
            self.writer.send_bytes(Kind::Reply, piece).await?;
        }
        Ok(())
    }
}

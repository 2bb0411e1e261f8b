//! Tokens, to join and for HTTP: made, listed, taken back.

use std::{num::NonZeroU32, time::Duration};

use belfry_common::{clock, error_chain::ErrorChain, identity::Role, model::NodeName};

use super::{ServeError, deed, record};
use crate::{
    access::{HttpTokenWish, TokenWish},
    api::{self, HttpTokenCreated, TokenCreated, TokenRow},
    listen::Member,
    services::Services,
    state::{
        StateError,
        audit::{self, Outcome},
        http_tokens,
        tokens::{self, JoinError, TokenError},
    },
};

/// A token that lives longer than this is a password.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl From<TokenError> for ServeError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::State(error) => error.into(),
            error @ TokenError::Unknown { .. } => Self::NotFound(error.to_string()),
            error => Self::Invalid(ErrorChain(&error).to_string()),
        }
    }
}

pub(super) async fn create(
    member: &Member,
    role: &str,
    ttl_ms: u64,
    uses: u32,
    names: &str,
) -> Result<TokenCreated, ServeError> {
    let invalid = |error: &dyn std::error::Error| ServeError::Invalid(ErrorChain(error).to_string());
    let role: Role = role.parse().map_err(|error| invalid(&error))?;
    let names = names.parse().map_err(|error| invalid(&error))?;
    let uses = NonZeroU32::new(uses).ok_or_else(|| ServeError::Invalid("a token has at least one use".into()))?;
    let life = life(ttl_ms)?;
    let now = clock::now();
    let wish = TokenWish { role, names, uses, life, created_by: member.subject.name.clone() };
    let created = member.services.access.create_token(wish, now).await;
    let (id, token) = created.map_err(|error| invalid(&error))?;
    record(member, "token create", &id, format!("role {role}, {uses} uses"), Outcome::Done).await;
    Ok(TokenCreated {
        id,
        token: token.reveal(),
        role: role.to_string(),
        expires_at: api::time(now.plus(life)),
        collector: member.services.address.clone(),
    })
}

pub(super) async fn create_http(
    member: &Member,
    name: &str,
    role: &str,
    ttl_ms: u64,
) -> Result<HttpTokenCreated, ServeError> {
    let invalid = |error: &dyn std::error::Error| ServeError::Invalid(ErrorChain(error).to_string());
    let name: NodeName = name.parse().map_err(|error| invalid(&error))?;
    let role: Role = role.parse().map_err(|error| invalid(&error))?;
    if role == Role::Agent {
        return Err(ServeError::Invalid("agents do not ask over HTTP: choose viewer, operator or admin".into()));
    }
    let life = life(ttl_ms)?;
    let now = clock::now();
    let wish = HttpTokenWish { name: name.clone(), role, life, created_by: member.subject.name.clone() };
    let created = member.services.access.create_http_token(wish, now).await;
    let (id, token) = created.map_err(|error| invalid(&error))?;
    record(member, "token create", &id, format!("role {role}, HTTP, for {name}"), Outcome::Done).await;
    Ok(HttpTokenCreated {
        id,
        token,
        name: name.to_string(),
        role: role.to_string(),
        expires_at: api::time(now.plus(life)),
        url: member.services.http.clone(),
    })
}

fn life(ttl_ms: u64) -> Result<Duration, ServeError> {
    let life = Duration::from_millis(ttl_ms);
    if life.is_zero() || life > LIFE_MAX {
        return Err(ServeError::Invalid("a token lives for more than nothing and at most a year".into()));
    }
    Ok(life)
}

pub(super) async fn list(services: &Services) -> Result<Vec<TokenRow>, ServeError> {
    let now = clock::now();
    let both = services.state.read(|view| Ok::<_, StateError>((tokens::list(view)?, http_tokens::list(view)?)));
    let (tokens, http_tokens) = both.await?;
    let row = |token: tokens::Token| TokenRow {
        state: match token.check_usable(now) {
            Ok(()) => "usable",
            Err(JoinError::Revoked { .. }) => "revoked",
            Err(JoinError::Expired { .. }) => "expired",
            Err(_) => "used up",
        }
        .to_string(),
        id: token.id,
        role: token.role.to_string(),
        names: token.names.as_str().to_string(),
        uses_left: Some(token.uses_left),
        uses_total: Some(token.uses_total),
        expires_at: api::time(token.expires_at),
        created_at: api::time(token.created_at),
        created_by: token.created_by.to_string(),
        kind: "join".to_string(),
    };
    let http_row = |token: http_tokens::HttpToken| TokenRow {
        state: match token.revoked_at {
            Some(_) => "revoked",
            None if token.expires_at <= now => "expired",
            None => "usable",
        }
        .to_string(),
        id: token.id,
        role: token.role.to_string(),
        names: token.name.to_string(),
        uses_left: None,
        uses_total: None,
        expires_at: api::time(token.expires_at),
        created_at: api::time(token.created_at),
        created_by: token.created_by.to_string(),
        kind: "http".to_string(),
    };
    Ok(tokens.into_iter().map(row).chain(http_tokens.into_iter().map(http_row)).collect())
}

pub(super) async fn revoke(member: &Member, id: &str) -> Result<(), ServeError> {
    let deed = deed(member, "token revoke", id, String::new(), Outcome::Done);
    if member.services.access.revoke_http_token(id, deed.clone()).await? {
        return Ok(());
    }
    let id = id.to_string();
    let revoked = member.services.state.write(move |transaction| {
        tokens::revoke(transaction, &id, deed.time)?;
        audit::append(transaction, &deed)?;
        Ok::<_, TokenError>(())
    });
    Ok(revoked.await?)
}

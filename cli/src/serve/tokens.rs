//! Join tokens: made, listed, taken back.

use std::{num::NonZeroU32, time::Duration};

use belfry_common::{clock, error_chain::ErrorChain, identity::Role};

use super::{ServeError, deed, record};
use crate::{
    access::TokenWish,
    api::{self, TokenCreated, TokenRow},
    listen::Member,
    services::Services,
    state::{
        audit::{self, Outcome},
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
    let life = Duration::from_millis(ttl_ms);
    if life.is_zero() || life > LIFE_MAX {
        return Err(ServeError::Invalid("a token lives for more than nothing and at most a year".into()));
    }
    let now = clock::now();
    let wish = TokenWish { role, names, uses, life, created_by: member.subject.name.clone() };
    let created = member.services.access.create_token(wish, now).await;
    let (id, token) = created.map_err(|error| invalid(&error))?;
    record(member, "token create", &id, format!("role {role}, {uses} uses"), Outcome::Done).await;
    Ok(TokenCreated {
        id,
        token: token.reveal(),
        role: role.to_string(),
        expires_at: api::time(now.plus_millis(i64::try_from(ttl_ms).unwrap_or(i64::MAX))),
        collector: member.services.address.clone(),
    })
}

pub(super) async fn list(services: &Services) -> Result<Vec<TokenRow>, ServeError> {
    let now = clock::now();
    let tokens = services.state.read(tokens::list).await?;
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
        uses_left: token.uses_left,
        uses_total: token.uses_total,
        expires_at: api::time(token.expires_at),
        created_at: api::time(token.created_at),
        created_by: token.created_by.to_string(),
    };
    Ok(tokens.into_iter().map(row).collect())
}

pub(super) async fn revoke(member: &Member, id: &str) -> Result<(), ServeError> {
    let deed = deed(member, "token revoke", id, String::new(), Outcome::Done);
    let id = id.to_string();
    let revoked = member.services.state.write(move |transaction| {
        tokens::revoke(transaction, &id, deed.time)?;
        audit::append(transaction, &deed)?;
        Ok::<_, TokenError>(())
    });
    Ok(revoked.await?)
}

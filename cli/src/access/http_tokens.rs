//! Tokens for HTTP, in memory for every request.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use belfry_common::{
    identity::Role,
    model::{NodeName, Timestamp},
};
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use thiserror::Error;

use super::{Access, AccessError};
use crate::state::{
    StateError,
    audit::{self, Deed},
    http_tokens::{self, HttpToken, NewHttpToken},
};

/// What each begins with, so that people and scanners for secrets know one when they see it.
const PREFIX: &str = "belfry-http-";

/// Who showed a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// What the token is called.
    pub(crate) id: String,
    pub(crate) name: NodeName,
    pub(crate) role: Role,
}

/// A token that opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum BearerError {
    #[error("token is not known to this collector: make one with `belfry token create --http NAME`")]
    Unknown,
    #[error("token was revoked: make another with `belfry token create --http NAME`")]
    Revoked(Bearer),
    #[error("token has expired: make another with `belfry token create --http NAME`")]
    Expired(Bearer),
}

/// All tokens there are, by the hash of their text. To look one up by a hash tells nothing of the others: there is nothing to time.
#[derive(Debug, Default)]
pub(super) struct HttpTokens(RwLock<HashMap<[u8; 32], HttpToken>>);

impl HttpTokens {
    pub(super) fn replace(&self, tokens: Vec<HttpToken>) {
        let tokens = tokens.into_iter().map(|token| (token.text_sha256, token)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    fn insert(&self, token: HttpToken) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(token.text_sha256, token);
    }

    fn revoke(&self, id: &str, now: Timestamp) {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.values_mut().filter(|token| token.id == id).for_each(|token| token.revoked_at = Some(now));
    }

    fn find(&self, text: &str, now: Timestamp) -> Result<Bearer, BearerError> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let token = tokens.get(&sha256(text)).ok_or(BearerError::Unknown)?;
        let bearer = Bearer { id: token.id.clone(), name: token.name.clone(), role: token.role };
        if token.revoked_at.is_some() {
            Err(BearerError::Revoked(bearer))
        } else if token.expires_at <= now {
            Err(BearerError::Expired(bearer))
        } else {
            Ok(bearer)
        }
    }
}

/// A token that somebody wants.
#[derive(Debug)]
pub(crate) struct HttpTokenWish {
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) life: Duration,
    pub(crate) created_by: NodeName,
}

impl Access {
    /// Makes a token for HTTP. Its text exists only in the answer.
    pub(crate) async fn create_http_token(
        &self,
        wish: HttpTokenWish,
        now: Timestamp,
    ) -> Result<(String, String), AccessError> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| AccessError::Random)?;
        let text = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        let new = NewHttpToken {
            text_sha256: sha256(&text),
            name: wish.name,
            role: wish.role,
            expires_at: now.plus(wish.life),
            created_by: wish.created_by,
        };
        let _turn = self.changes.lock().await;
        let token = self.state.write(move |transaction| http_tokens::create(transaction, new, now)).await?;
        let id = token.id.clone();
        self.http_tokens.insert(token);
        Ok((id, text))
    }

    /// Takes a token for HTTP back and writes down who did; false if there is none of this id.
    pub(crate) async fn revoke_http_token(&self, id: &str, deed: Deed) -> Result<bool, StateError> {
        let (name, time) = (id.to_string(), deed.time);
        let _turn = self.changes.lock().await;
        let revoked = self.state.write(move |transaction| {
            let is_known = http_tokens::revoke(transaction, &name, time)?;
            if is_known {
                audit::append(transaction, &deed)?;
            }
            Ok::<_, StateError>(is_known)
        });
        let is_known = revoked.await?;
        self.http_tokens.revoke(id, time);
        Ok(is_known)
    }

    /// Who shows this token.
    pub(crate) fn bearer(&self, text: &str, now: Timestamp) -> Result<Bearer, BearerError> {
        self.http_tokens.find(text, now)
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_until_it_is_revoked_or_over() {
        let at = Timestamp::from_millis;
        let tokens = HttpTokens::default();
        let name = NodeName::from_host_name("grafana");
        let token = HttpToken {
            id: "1".into(),
            text_sha256: sha256("secret"),
            name: name.clone(),
            role: Role::Viewer,
            expires_at: at(100),
            created_at: at(0),
            created_by: name.clone(),
            revoked_at: None,
        };
        tokens.replace(vec![token]);
        let bearer = Bearer { id: "1".into(), name, role: Role::Viewer };
        assert_eq!(tokens.find("secret", at(99)), Ok(bearer.clone()));
        assert_eq!(tokens.find("secret", at(100)), Err(BearerError::Expired(bearer.clone())));
        assert_eq!(tokens.find("Secret", at(0)), Err(BearerError::Unknown));
        tokens.revoke("1", at(50));
        assert_eq!(tokens.find("secret", at(60)), Err(BearerError::Revoked(bearer)));
    }
}

//! Who may ask: on this machine everybody, from elsewhere who shows a token.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use axum::{
    Extension,
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use belfry_common::{clock, error_chain::ErrorChain, identity::Role, model::Timestamp};
use tracing::{info, warn};

use super::{
    App,
    door::Peer,
    envelope::{ApiError, ErrorType},
};
use crate::{
    access::{Bearer, BearerError},
    listen::network,
    state::audit::{self, Deed, Outcome},
};

/// How often it is written down that a token is used from a network.
const ACCESS_EVERY_MS: i64 = 24 * 3_600_000;
/// How often that one is that opens nothing any more.
const DENIAL_EVERY_MS: i64 = 60_000;
/// Tokens and networks that are remembered; of more, nothing is written down.
const REMEMBERED_MAX: usize = 4096;
/// Every endpoint reads.
const NEEDED: Role = Role::Viewer;

/// What of late was written down of whom.
#[derive(Debug, Default)]
pub(super) struct Accesses(Mutex<HashMap<(String, Option<IpAddr>), Timestamp>>);

impl Accesses {
    /// Whether this is news. That a token opens nothing is so from wherever it is shown: whoever has one could otherwise make as many rows
    /// as there are addresses.
    fn is_news(&self, id: &str, ip: IpAddr, outcome: Outcome, now: Timestamp) -> bool {
        let (network, every_ms) = match outcome {
            Outcome::Done => (Some(network(ip)), ACCESS_EVERY_MS),
            _ => (None, DENIAL_EVERY_MS),
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (id.to_string(), network);
        if known.get(&key).is_some_and(|last| now.millis_since(*last) < every_ms) {
            return false;
        }
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, last| now.millis_since(*last) < DENIAL_EVERY_MS);
        }
        let is_room = known.len() < REMEMBERED_MAX;
        if is_room {
            known.insert(key, now);
        }
        is_room
    }
}

/// Lets a request through if whoever asks may.
pub(super) async fn guard(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if !peer.is_stranger {
        return next.run(request).await;
    }
    let now = clock::now();
    let Some(text) = token(&request) else {
        return unauthorized("show a token: `Authorization: Bearer …`; `belfry token create --http NAME` makes one");
    };
    match app.services.access.bearer(text, now) {
        Ok(bearer) if bearer.role >= NEEDED => {
            note(&app, &bearer, peer, Outcome::Done, now).await;
            next.run(request).await
        }
        Ok(bearer) => {
            note(&app, &bearer, peer, Outcome::Denied, now).await;
            let message = format!("this needs the role {NEEDED}; {} has the role {}", bearer.name, bearer.role);
            ApiError::new(ErrorType::Forbidden, message).into_response()
        }
        Err(error) => {
            if let BearerError::Revoked(bearer) | BearerError::Expired(bearer) = &error {
                note(&app, bearer, peer, Outcome::Denied, now).await;
            }
            unauthorized(&error.to_string())
        }
    }
}

fn token(request: &Request) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthorized(message: &str) -> Response {
    // Who may not ask need not stay.
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"belfry\""), (header::CONNECTION, "close")];
    (challenge, ApiError::new(ErrorType::Unauthorized, message)).into_response()
}

/// Writes down who asked, if that is news.
async fn note(app: &App, bearer: &Bearer, peer: Peer, outcome: Outcome, now: Timestamp) {
    let ip = peer.address.ip();
    if !app.accesses.is_news(&bearer.id, ip, outcome, now) {
        return;
    }
    info!(token = bearer.id, name = %bearer.name, %ip, outcome = outcome.as_str(), "HTTP access");
    let deed = Deed {
        time: now,
        actor: bearer.name.to_string(),
        role: bearer.role,
        action: "http".to_string(),
        target: bearer.id.clone(),
        detail: format!("from {ip}"),
        outcome,
    };
    let written = app.services.state.write(move |transaction| audit::append(transaction, &deed).map(|_| ())).await;
    if let Err(error) = written {
        warn!(error = %ErrorChain(&error), "audit log cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_is_news_once_a_day_and_a_refusal_once_a_minute() {
        let accesses = Accesses::default();
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let is_news = |id: &str, ip, outcome, ms| accesses.is_news(id, ip, outcome, Timestamp::from_millis(ms));
        assert!(is_news("a", here, Outcome::Done, 0));
        assert!(!is_news("a", here, Outcome::Done, ACCESS_EVERY_MS - 1));
        assert!(is_news("a", there, Outcome::Done, 1));
        assert!(is_news("a", here, Outcome::Denied, 1));
        assert!(!is_news("a", there, Outcome::Denied, DENIAL_EVERY_MS));
        assert!(is_news("a", here, Outcome::Denied, DENIAL_EVERY_MS + 1));
        assert!(is_news("a", here, Outcome::Done, ACCESS_EVERY_MS));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let accesses = Accesses::default();
        for n in 0..10_000_i64 {
            let now = Timestamp::from_millis(n);
            let is_news = accesses.is_news(&n.to_string(), IpAddr::from([10, 0, 0, 1]), Outcome::Denied, now);
            assert_eq!(is_news, n < REMEMBERED_MAX as i64);
        }
        assert_eq!(accesses.0.lock().unwrap().len(), REMEMBERED_MAX);
    }
}

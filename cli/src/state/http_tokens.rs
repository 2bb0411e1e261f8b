//! Tokens for HTTP: who may ask, as what, until when.
//!
//! What is kept of a token is SHA-256 of its text, which opens nothing. People name it by the first digits of that hash, as they name
//! join tokens.

use belfry_common::{
    identity::Role,
    model::{NodeName, Timestamp},
};

use super::{
    error::StateError,
    hex,
    sqlite::{Row, Snapshot, Transaction, invalid, params},
    tokens::{EXPIRED_KEPT_MS, ID_DIGITS, TokenError},
};

pub(super) const TABLES_V3: &str = "
CREATE TABLE http_tokens (
    id             TEXT    PRIMARY KEY,
    text_sha256    TEXT    NOT NULL UNIQUE,
    name           TEXT    NOT NULL,
    role           TEXT    NOT NULL,
    expires_at_ms  INTEGER NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    created_by     TEXT    NOT NULL,
    revoked_at_ms  INTEGER
) STRICT, WITHOUT ROWID;
";

/// A token, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpToken {
    pub(crate) id: String,
    pub(crate) text_sha256: [u8; 32],
    /// Who shows it: what the audit log calls them.
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) expires_at: Timestamp,
    pub(crate) created_at: Timestamp,
    pub(crate) created_by: NodeName,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// A token to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewHttpToken {
    pub(crate) text_sha256: [u8; 32],
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) expires_at: Timestamp,
    pub(crate) created_by: NodeName,
}

/// Makes a token valid and returns it.
///
/// # Errors
/// [`TokenError::Exists`] when the text is known.
pub(crate) fn create(
    transaction: &Transaction<'_>,
    new: NewHttpToken,
    now: Timestamp,
) -> Result<HttpToken, TokenError> {
    let NewHttpToken { text_sha256, name, role, expires_at, created_by } = new;
    let hash = hex::encode(&text_sha256);
    let id: String = hash.chars().take(ID_DIGITS).collect();
    let created = transaction.execute(
        "INSERT INTO http_tokens (id, text_sha256, name, role, expires_at_ms, created_at_ms, created_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        params![id, hash, name.as_str(), role.as_str(), expires_at.as_millis(), now.as_millis(), created_by.as_str()],
    )?;
    if created == 0 {
        return Err(TokenError::Exists);
    }
    Ok(HttpToken { id, text_sha256, name, role, expires_at, created_at: now, created_by, revoked_at: None })
}

/// Every token that is not pruned, the newest first.
pub(crate) fn list(view: &Snapshot<'_>) -> Result<Vec<HttpToken>, StateError> {
    view.rows("SELECT * FROM http_tokens ORDER BY created_at_ms DESC, id", [], read)
}

/// Takes a token back, if there is one of this id. Doing it again changes nothing.
pub(crate) fn revoke(transaction: &Transaction<'_>, id: &str, now: Timestamp) -> Result<bool, StateError> {
    let found = transaction.execute(
        "UPDATE http_tokens SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE id = ?1",
        params![id, now.as_millis()],
    )?;
    Ok(found > 0)
}

/// Removes tokens that expired [`EXPIRED_KEPT_MS`] ago and returns how many.
pub(crate) fn prune(transaction: &Transaction<'_>, now: Timestamp) -> Result<usize, StateError> {
    transaction.execute(
        "DELETE FROM http_tokens WHERE expires_at_ms < ?1",
        params![now.plus_millis(-EXPIRED_KEPT_MS).as_millis()],
    )
}

fn read(row: &Row<'_>) -> Result<HttpToken, StateError> {
    let hash: String = row.get("text_sha256")?;
    Ok(HttpToken {
        id: row.get("id")?,
        text_sha256: hex::decode(&hash).ok_or_else(|| invalid("text_sha256", &hash))?,
        name: row.parse("name")?,
        role: row.parse("role")?,
        expires_at: row.time("expires_at_ms")?,
        created_at: row.time("created_at_ms")?,
        created_by: row.parse("created_by")?,
        revoked_at: row.time_if_any("revoked_at_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scratch::{Scratch, at, name};

    fn create_one(scratch: &Scratch, hash: [u8; 32]) -> Result<HttpToken, TokenError> {
        let new = NewHttpToken {
            text_sha256: hash,
            name: name("grafana"),
            role: Role::Viewer,
            expires_at: at(1_000),
            created_by: name("ops"),
        };
        scratch.write(move |t| create(t, new, at(10)))
    }

    #[test]
    fn a_token_is_made_listed_revoked_and_pruned() {
        let scratch = Scratch::new();
        let token = create_one(&scratch, [0xCD; 32]).unwrap();
        assert_eq!(token.id, "cdcdcdcdcdcd");
        assert_eq!(scratch.read(list).unwrap(), [token]);
        assert!(matches!(create_one(&scratch, [0xCD; 32]), Err(TokenError::Exists)));

        assert!(!scratch.write(|t| revoke(t, "nosuch", at(20))).unwrap());
        assert!(scratch.write(|t| revoke(t, "cdcdcdcdcdcd", at(20))).unwrap());
        assert!(scratch.write(|t| revoke(t, "cdcdcdcdcdcd", at(30))).unwrap());
        assert_eq!(scratch.read(list).unwrap()[0].revoked_at, Some(at(20)));

        assert_eq!(scratch.write(|t| prune(t, at(1_000 + EXPIRED_KEPT_MS))).unwrap(), 0);
        assert_eq!(scratch.write(|t| prune(t, at(1_001 + EXPIRED_KEPT_MS))).unwrap(), 1);
    }
}

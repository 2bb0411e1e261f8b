//! Join tokens: who may join, as what, under which names, how often and until when.
//!
//! A token's secret is a private key, and the newcomer signs its handshake with it. What is kept here is SHA-256 of the public
//! half, which opens nothing: so it may be looked up by an index, and there is no comparison to time. People name a token
//! by the first digits of that hash.
//!
//! Absent: the token's text (shown once by whoever made it), signing (the authority's, called from within [`consume`]).

use std::{fmt, str::FromStr};

use belfry_common::{
    identity::{IssueError, Issued, Role},
    model::{NodeName, Timestamp},
};
use thiserror::Error;

use super::{
    certificates::{self, CertificateError, Holder},
    error::StateError,
    hex,
    nodes::{self, NodeError, NodeId},
    sqlite::{Row, Snapshot, Transaction, invalid, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE tokens (
    id             TEXT    PRIMARY KEY,
    key_sha256     TEXT    NOT NULL UNIQUE,
    role           TEXT    NOT NULL,
    name_pattern   TEXT    NOT NULL,
    uses_total     INTEGER NOT NULL CHECK (uses_total > 0),
    uses_left      INTEGER NOT NULL CHECK (uses_left BETWEEN 0 AND uses_total),
    expires_at_ms  INTEGER NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    created_by     TEXT    NOT NULL,
    revoked_at_ms  INTEGER
) STRICT, WITHOUT ROWID;
";

/// How long a token that is over can still say why.
pub(crate) const EXPIRED_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;

/// Digits of the hash that name a token among people: 48 bits do not meet by chance.
pub(super) const ID_DIGITS: usize = 12;

/// Longer than any name that it could match.
const PATTERN_BYTES_MAX: usize = belfry_common::limits::NODE_NAME_BYTES_MAX;

/// Which names a token admits: node names in which `*` stands for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern(String);

/// Not a pattern of names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "name pattern {0:?} is not valid: it may have letters, digits, `.`, `_`, `-`, `*` and `?`, and 1 to {max} characters",
    max = PATTERN_BYTES_MAX
)]
pub(crate) struct PatternError(String);

impl NamePattern {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole name fits.
    pub(crate) fn matches(&self, name: &NodeName) -> bool {
        glob_matches(self.0.as_bytes(), name.as_str().as_bytes())
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'*' | b'?'));
        if fits && (1..=PATTERN_BYTES_MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PatternError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns to the last `*` and lets it take one byte more whenever the rest does not fit: at most pattern × text steps.
fn glob_matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => return true,
            (Some((b'*', rest)), _) => {
                star = Some((rest, text));
                pattern = rest;
            }
            (Some((&wanted, pattern_rest)), Some((&byte, text_rest))) if wanted == b'?' || wanted == byte => {
                (pattern, text) = (pattern_rest, text_rest);
            }
            _ => {
                let Some((after, from)) = star else { return false };
                let Some((_, shorter)) = from.split_first() else { return false };
                star = Some((after, shorter));
                (pattern, text) = (after, shorter);
            }
        }
    }
}

/// A token to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    /// SHA-256 of its public key.
    pub(crate) key_sha256: [u8; 32],
    /// What its holders become.
    pub(crate) role: Role,
    /// Under which names.
    pub(crate) names: NamePattern,
    /// How often.
    pub(crate) uses: std::num::NonZeroU32,
    /// Until when.
    pub(crate) expires_at: Timestamp,
    /// Who asked for it.
    pub(crate) created_by: NodeName,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What people call it.
    pub(crate) id: String,
    /// What its holders become.
    pub(crate) role: Role,
    /// Under which names.
    pub(crate) names: NamePattern,
    /// How often in all.
    pub(crate) uses_total: u32,
    /// How often still.
    pub(crate) uses_left: u32,
    /// Until when.
    pub(crate) expires_at: Timestamp,
    /// Since when.
    pub(crate) created_at: Timestamp,
    /// Who asked for it.
    pub(crate) created_by: NodeName,
    /// When it was taken back.
    pub(crate) revoked_at: Option<Timestamp>,
}

impl Token {
    /// Whether it admits anybody now: enough to let its holder speak. [`consume`] decides.
    ///
    /// # Errors
    /// [`JoinError`] says why not.
    pub(crate) fn check_usable(&self, now: Timestamp) -> Result<(), JoinError> {
        if let Some(revoked_at) = self.revoked_at {
            return Err(JoinError::Revoked { ago: Ago(now.millis_since(revoked_at)) });
        }
        if now >= self.expires_at {
            return Err(JoinError::Expired { ago: Ago(now.millis_since(self.expires_at)) });
        }
        if self.uses_left == 0 {
            return Err(JoinError::UsedUp { uses: self.uses_total });
        }
        Ok(())
    }

    fn check_name(&self, name: &NodeName) -> Result<(), JoinError> {
        if self.names.matches(name) {
            Ok(())
        } else {
            Err(JoinError::Name { name: name.clone(), pattern: self.names.clone() })
        }
    }
}

/// Whom a token has admitted: what the certificate must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Its name.
    pub(crate) name: NodeName,
    /// What it may do.
    pub(crate) role: Role,
    /// Its number, if it is a node.
    pub(crate) node: Option<NodeId>,
    /// The token that admitted it.
    pub(crate) token: String,
}

/// Why somebody with a token may not join. Each says what to do.
#[derive(Debug, Error)]
pub(crate) enum JoinError {
    /// Nobody made it here, or it was over long ago.
    #[error("token is not known to this collector; create a new one with `belfry token create`")]
    Unknown,
    /// A person took it back.
    #[error("token was revoked {ago} ago; create a new one with `belfry token create`")]
    Revoked {
        /// How long since.
        ago: Ago,
    },
    /// Its time is over.
    #[error("token expired {ago} ago; create a new one with `belfry token create`")]
    Expired {
        /// How long since.
        ago: Ago,
    },
    /// Somebody else joined with it.
    #[error("token has been used {uses} of {uses} times; create a new one with `belfry token create`")]
    UsedUp {
        /// How often it could be used.
        uses: u32,
    },
    /// It was made for others.
    #[error("token admits names like `{pattern}`, not `{name}`; create one with `belfry token create --name {name}`")]
    Name {
        /// The name that asked.
        name: NodeName,
        /// The names that may.
        pattern: NamePattern,
    },
    /// The node cannot be enrolled.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The newcomer's certificate request was refused.
    #[error("failed to certify the newcomer")]
    Certify(#[from] IssueError),
    /// Its certificate cannot be recorded.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A token that cannot be made or found.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    /// The same key twice.
    #[error("this token exists already; create another one")]
    Exists,
    /// No token has this id.
    #[error("no token has the id {id:?}; `belfry token list` shows them")]
    Unknown {
        /// The id.
        id: String,
    },
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Makes a token valid and returns its id.
///
/// # Errors
/// [`TokenError::Exists`] when the key is known.
pub(crate) fn create(transaction: &Transaction<'_>, token: &NewToken, now: Timestamp) -> Result<String, TokenError> {
    let key = hex::encode(&token.key_sha256);
    let id: String = key.chars().take(ID_DIGITS).collect();
    let created = transaction.execute(
        "INSERT INTO tokens (id, key_sha256, role, name_pattern, uses_total, uses_left, expires_at_ms, created_at_ms,
                             created_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        params![
            id,
            key,
            token.role.as_str(),
            token.names.as_str(),
            token.uses.get(),
            token.expires_at.as_millis(),
            now.as_millis(),
            token.created_by.as_str()
        ],
    )?;
    if created == 0 { Err(TokenError::Exists) } else { Ok(id) }
}

/// Every token that is not pruned, the newest first.
pub(crate) fn list(view: &Snapshot<'_>) -> Result<Vec<Token>, StateError> {
    view.rows("SELECT * FROM tokens ORDER BY created_at_ms DESC, id", [], read)
}

/// The keys of every token, usable or not, for the check that comes before a newcomer can speak.
pub(crate) fn keys(view: &Snapshot<'_>) -> Result<Vec<[u8; 32]>, StateError> {
    view.rows("SELECT key_sha256 FROM tokens ORDER BY id", [], |row| {
        let text: String = row.get("key_sha256")?;
        hex::decode(&text).ok_or_else(|| invalid("key_sha256", &text))
    })
}

/// The token with this key, usable or not.
pub(crate) fn by_key(view: &Snapshot<'_>, key_sha256: &[u8; 32]) -> Result<Option<Token>, StateError> {
    view.row("SELECT * FROM tokens WHERE key_sha256 = ?1", params![hex::encode(key_sha256)], read)
}

/// Lets one newcomer in: takes a use of its token, enrols it, has its key certified and records the certificate. All of it
/// happens or nothing, so that whoever is refused has used nothing up.
///
/// # Errors
/// [`JoinError`] says why not.
pub(crate) fn consume(
    transaction: &Transaction<'_>,
    key_sha256: &[u8; 32],
    name: &NodeName,
    now: Timestamp,
    certify: impl FnOnce(&Admission) -> Result<Issued, IssueError>,
) -> Result<(Admission, Issued), JoinError> {
    transaction.attempt(|transaction| {
        let token = by_key(transaction, key_sha256)?.ok_or(JoinError::Unknown)?;
        token.check_usable(now)?;
        token.check_name(name)?;
        let node = match token.role {
            Role::Agent => Some(nodes::enrol(transaction, name, now)?),
            Role::Viewer | Role::Operator | Role::Admin => None,
        };
        let admission = Admission { name: name.clone(), role: token.role, node, token: token.id };
        let issued = certify(&admission)?;
        let holder = node.map_or_else(|| Holder::User(name.clone()), Holder::Node);
        certificates::record(transaction, &holder, token.role, &issued, now)?;
        transaction
            .execute("UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?1", params![admission.token.as_str()])?;
        Ok((admission, issued))
    })
}

/// Takes a token back. Doing it again changes nothing.
///
/// # Errors
/// [`TokenError::Unknown`] when no token has this id.
pub(crate) fn revoke(transaction: &Transaction<'_>, id: &str, now: Timestamp) -> Result<(), TokenError> {
    let found = transaction.execute(
        "UPDATE tokens SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE id = ?1",
        params![id, now.as_millis()],
    )?;
    if found == 0 { Err(TokenError::Unknown { id: id.chars().take(80).collect() }) } else { Ok(()) }
}

/// Removes tokens that expired [`EXPIRED_KEPT_MS`] ago and returns how many.
pub(crate) fn prune(transaction: &Transaction<'_>, now: Timestamp) -> Result<usize, StateError> {
    transaction
        .execute("DELETE FROM tokens WHERE expires_at_ms < ?1", params![now.plus_millis(-EXPIRED_KEPT_MS).as_millis()])
}

fn read(row: &Row<'_>) -> Result<Token, StateError> {
    let count = |column| {
        let count = row.unsigned(column)?;
        u32::try_from(count).map_err(|_| invalid(column, &count.to_string()))
    };
    Ok(Token {
        id: row.get("id")?,
        role: row.parse("role")?,
        names: row.parse("name_pattern")?,
        uses_total: count("uses_total")?,
        uses_left: count("uses_left")?,
        expires_at: row.time("expires_at_ms")?,
        created_at: row.time("created_at_ms")?,
        created_by: row.parse("created_by")?,
        revoked_at: row.time_if_any("revoked_at_ms")?,
    })
}

/// A duration in milliseconds as people say it, in its largest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ago(i64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.max(0) / 1000;
        let (count, unit) = match seconds {
            0..60 => (seconds, "s"),
            60..3600 => (seconds / 60, "m"),
            3600..86_400 => (seconds / 3600, "h"),
            _ => (seconds / 86_400, "d"),
        };
        write!(f, "{count} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::state::{
        State,
        certificates::Serial,
        scratch::{Scratch, at, issued, name},
    };

    const KEY: [u8; 32] = [0xAB; 32];

    fn new_token(role: Role, names: &str, uses: u32) -> NewToken {
        NewToken {
            key_sha256: KEY,
            role,
            names: names.parse().unwrap(),
            uses: NonZeroU32::new(uses).unwrap(),
            expires_at: at(1_000_000),
            created_by: name("ops"),
        }
    }

    fn with_token(role: Role, names: &str, uses: u32) -> Scratch {
        let scratch = Scratch::new();
        let token = new_token(role, names, uses);
        let id = scratch.write(move |t| create(t, &token, at(10))).unwrap();
        assert_eq!(id, "abababababab");
        scratch
    }

    fn join(scratch: &Scratch, who: &str, serial: u8, now: i64) -> Result<Admission, JoinError> {
        let who = name(who);
        scratch.write(move |t| {
            consume(t, &KEY, &who, at(now), |_| Ok(issued(serial, 2_000_000))).map(|(admission, _)| admission)
        })
    }

    fn check_refusal(result: Result<Admission, JoinError>, message: &Expect) {
        message.assert_eq(&result.unwrap_err().to_string());
    }

    #[test]
    fn a_join_enrols_the_node_records_its_certificate_and_takes_one_use() {
        let scratch = with_token(Role::Agent, "gpu-*", 2);
        let admission = join(&scratch, "gpu-01", 1, 20).unwrap();
        let node = scratch.read(|view| nodes::by_name(view, &name("gpu-01"))).unwrap().unwrap();
        assert_eq!(admission.node, Some(node.id));
        let serial = "01".repeat(16).parse::<Serial>().unwrap();
        let certificate = scratch.read(|view| certificates::by_serial(view, &serial)).unwrap().unwrap();
        assert_eq!((certificate.holder, certificate.role), (Holder::Node(node.id), Role::Agent));
        assert_eq!(scratch.read(list).unwrap()[0].uses_left, 1);
    }

    #[test]
    fn a_user_joins_without_becoming_a_node() {
        let scratch = with_token(Role::Viewer, "*", 2);
        assert_eq!(join(&scratch, "eve", 1, 20).unwrap().node, None);
        assert_eq!(join(&scratch, "eve", 2, 20).unwrap().node, None, "her other machine");
        assert_eq!(scratch.read(nodes::list).unwrap(), []);
    }

    #[test]
    fn each_refusal_says_what_is_wrong_and_what_to_do() {
        let scratch = with_token(Role::Agent, "gpu-*", 1);
        check_refusal(
            join(&scratch, "db-01", 1, 20),
            &expect![
                "token admits names like `gpu-*`, not `db-01`; create one with `belfry token create --name db-01`"
            ],
        );
        check_refusal(
            join(&scratch, "gpu-01", 1, 1_000_000 + 200_000),
            &expect!["token expired 3 m ago; create a new one with `belfry token create`"],
        );
        join(&scratch, "gpu-01", 1, 20).unwrap();
        check_refusal(
            join(&scratch, "gpu-02", 2, 20),
            &expect!["token has been used 1 of 1 times; create a new one with `belfry token create`"],
        );
        scratch.write(|t| revoke(t, "abababababab", at(30))).unwrap();
        check_refusal(
            join(&scratch, "gpu-02", 2, 7_200_030),
            &expect!["token was revoked 2 h ago; create a new one with `belfry token create`"],
        );
        let unknown = scratch
            .write(|t| consume(t, &[0; 32], &name("a"), at(20), |_| Ok(issued(1, 1))).map(|(admission, _)| admission));
        check_refusal(
            unknown,
            &expect!["token is not known to this collector; create a new one with `belfry token create`"],
        );
    }

    #[test]
    fn whoever_is_refused_late_has_used_nothing_up() {
        let scratch = with_token(Role::Agent, "*", 1);
        let refused = scratch.write(|t| {
            let result = consume(t, &KEY, &name("a"), at(20), |_| Err(IssueError::Request));
            // The caller goes on in the same transaction, to record the refusal.
            Ok::<_, StateError>(result.map(|(admission, _)| admission))
        });
        check_refusal(refused.unwrap(), &expect!["failed to certify the newcomer"]);
        assert_eq!(scratch.read(nodes::list).unwrap(), []);
        assert_eq!(scratch.read(list).unwrap()[0].uses_left, 1);
        join(&scratch, "a", 1, 21).unwrap();
    }

    #[test]
    fn a_name_in_use_is_refused_and_takes_no_use() {
        let scratch = with_token(Role::Agent, "*", 2);
        join(&scratch, "a", 1, 20).unwrap();
        check_refusal(
            join(&scratch, "a", 2, 21),
            &expect!["node `a` is already enrolled; to let it join anew, run `belfry nodes forget a` first"],
        );
        assert_eq!(scratch.read(list).unwrap()[0].uses_left, 1);
    }

    #[test]
    fn a_dead_token_is_known_before_its_holder_has_a_name() {
        let scratch = with_token(Role::Agent, "gpu-*", 1);
        let token = scratch.read(|view| by_key(view, &KEY)).unwrap().unwrap();
        token.check_usable(at(20)).unwrap();
        assert!(matches!(token.check_usable(at(1_000_000)), Err(JoinError::Expired { .. })));
        assert_eq!(scratch.read(|view| by_key(view, &[0; 32])).unwrap(), None);
        assert_eq!(scratch.read(keys).unwrap(), [KEY]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_who_come_at_once_one_gets_the_last_use() {
        let state = State::in_memory();
        let token = new_token(Role::Agent, "*", 1);
        state.write(move |t| create(t, &token, at(10))).await.unwrap();
        let mut joins = tokio::task::JoinSet::new();
        for serial in 0..32 {
            let state = state.clone();
            joins.spawn(async move {
                let who = name(&format!("node-{serial}"));
                state.write(move |t| consume(t, &KEY, &who, at(20), |_| Ok(issued(serial + 1, 30)))).await
            });
        }
        let results = joins.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        let used_up = results.iter().filter(|result| matches!(result, Err(JoinError::UsedUp { uses: 1 }))).count();
        assert_eq!(used_up, 31);
        assert_eq!(state.read(nodes::list).await.unwrap().len(), 1);
    }

    #[test]
    fn tokens_are_unique_revocable_and_pruned() {
        let scratch = with_token(Role::Agent, "*", 1);
        let again = scratch.write(|t| create(t, &new_token(Role::Admin, "*", 9), at(11)));
        assert!(matches!(again, Err(TokenError::Exists)), "{again:?}");
        let unknown = scratch.write(|t| revoke(t, "feed", at(12)));
        assert!(matches!(unknown, Err(TokenError::Unknown { .. })), "{unknown:?}");
        assert_eq!(scratch.write(|t| prune(t, at(1_000_000 + EXPIRED_KEPT_MS))).unwrap(), 0);
        assert_eq!(scratch.write(|t| prune(t, at(1_000_001 + EXPIRED_KEPT_MS))).unwrap(), 1);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, fits) in [
            ("*", "anything", true),
            ("gpu-01", "gpu-01", true),
            ("gpu-01", "gpu-011", false),
            ("gpu-??", "gpu-01", true),
            ("gpu-??", "gpu-1", false),
            ("gpu-*", "gpu-", true),
            ("*-gpu", "rack-3-gpu", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("?*", "a", true),
            ("**", "a", true),
        ] {
            let pattern: NamePattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(&name(text)), fits, "{pattern} on {text}");
        }
        for bad in ["", "a b", "a/b", "[ab]", "ä", &"a".repeat(254)] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_is_the_regular_expression_that_it_looks_like(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let expression = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            let expected = regex::Regex::new(&expression).unwrap().is_match(&text);
            prop_assert_eq!(glob_matches(pattern.as_bytes(), text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_glob_made_to_backtrack_ends_soon() {
        let text = "a".repeat(253);
        assert!(!glob_matches(format!("{}b", "a*".repeat(126)).as_bytes(), text.as_bytes()));
    }
}

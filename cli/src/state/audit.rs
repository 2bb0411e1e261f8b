//! The audit log: who did what, when, and whether it was allowed.
//!
//! Each row's hash covers the row and the hash before it, so that a row that was edited, removed or put between others shows
//! (NIST SP 800-92 asks for this; the scheme is the plain hash chain):
//!
//! ```text
//! hash(n) = hex( SHA-256( hash(n-1) ‖ 0x01 ‖ seq i64 BE ‖ time_ms i64 BE ‖ text(actor) ‖ text(role)
//!                         ‖ text(action) ‖ text(target) ‖ text(detail) ‖ text(outcome) ) )
//! text(t) = length u64 BE ‖ bytes
//! hash(0) = 64 characters `0`
//! ```
//! A row is written in the transaction of what it records, so that there is no deed without its row.
//!
//! What a chain cannot show: rows cut off its end, or a chain that was computed anew by somebody who can write the file. For
//! both, a [`Witness`] noted elsewhere earlier (a log line, a ticket) must still be on the chain.
//!
//! Absent: removal. Rows are people's deeds and few; whoever could make many at no cost must be slowed down by the caller.

use std::ops::ControlFlow;

use belfry_common::{identity::Role, model::Timestamp};
use ring::digest;

use super::{
    error::StateError,
    hex,
    sqlite::{Row, Snapshot, Transaction, integer, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    time_ms  INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    role     TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    target   TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    outcome  TEXT    NOT NULL,
    hash     TEXT    NOT NULL
) STRICT;
";

/// A name, a word or a sentence. What is longer is cut: an audited request must not fail for its length.
const TEXT_BYTES_MAX: usize = 1024;

/// Rows of one page, whatever the reader asks for.
pub(crate) const ROWS_PER_PAGE_MAX: usize = 1000;

/// The version of the encoding under the hash.
const ENCODING: u8 = 1;

/// What precedes the first row.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Whether a deed was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It was.
    Done,
    /// It was not allowed.
    Denied,
    /// It was allowed and went wrong.
    Failed,
}

impl Outcome {
    /// The word in the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A deed to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deed {
    /// When.
    pub(crate) time: Timestamp,
    /// Who: a user's or node's name, or a token's id.
    pub(crate) actor: String,
    /// In which role.
    pub(crate) role: Role,
    /// What, as a command names it: `nodes revoke`.
    pub(crate) action: String,
    /// To what.
    pub(crate) target: String,
    /// Whatever else a person wants to know.
    pub(crate) detail: String,
    /// With which result.
    pub(crate) outcome: Outcome,
}

/// A row of the log, its words as they stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number, from 1.
    pub(crate) seq: u64,
    /// When.
    pub(crate) time: Timestamp,
    /// Who.
    pub(crate) actor: String,
    /// In which role.
    pub(crate) role: String,
    /// What.
    pub(crate) action: String,
    /// To what.
    pub(crate) target: String,
    /// Whatever else there was to say.
    pub(crate) detail: String,
    /// `ok`, `denied` or `failed`.
    pub(crate) outcome: String,
    /// The chain up to here.
    pub(crate) hash: String,
}

/// A point of the chain, small enough to note elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Up to which row; 0 is before the first.
    pub(crate) seq: u64,
    /// What the chain was there, in hexadecimal.
    pub(crate) hash: String,
}

/// Whether the log is what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is, up to here.
    Intact(Witness),
    /// It is not.
    Broken {
        /// The first row that is missing, added or changed.
        seq: u64,
    },
}

/// Adds a row and returns the point that the chain has reached.
pub(crate) fn append(transaction: &Transaction<'_>, deed: &Deed) -> Result<Witness, StateError> {
    let head = head(transaction)?;
    let seq = head.seq + 1;
    let texts = [
        cut(&deed.actor),
        deed.role.as_str(),
        cut(&deed.action),
        cut(&deed.target),
        cut(&deed.detail),
        deed.outcome.as_str(),
    ];
    let hash = link(&head.hash, integer(seq), deed.time.as_millis(), texts.map(str::as_bytes));
    let [actor, role, action, target, detail, outcome] = texts;
    transaction.execute(
        "INSERT INTO audit (seq, time_ms, actor, role, action, target, detail, outcome, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![integer(seq), deed.time.as_millis(), actor, role, action, target, detail, outcome, hash],
    )?;
    Ok(Witness { seq, hash })
}

/// The point that the chain has reached.
pub(crate) fn head(view: &Snapshot<'_>) -> Result<Witness, StateError> {
    let last = view.row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| {
        Ok(Witness { seq: row.unsigned("seq")?, hash: row.get("hash")? })
    })?;
    Ok(last.unwrap_or_else(|| Witness { seq: 0, hash: GENESIS.to_owned() }))
}

/// Up to `count` rows before row `before`, the newest first. `u64::MAX` begins at the end.
pub(crate) fn page(view: &Snapshot<'_>, before: u64, count: usize) -> Result<Vec<Entry>, StateError> {
    view.rows(
        "SELECT * FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
        params![integer(before), integer(count.min(ROWS_PER_PAGE_MAX) as u64)],
        read,
    )
}

/// Walks the whole chain, which must pass through `witness` if there is one.
pub(crate) fn verify(view: &Snapshot<'_>, witness: Option<&Witness>) -> Result<Verdict, StateError> {
    let mut reached = Witness { seq: 0, hash: GENESIS.to_owned() };
    let mut is_broken = false;
    view.each("SELECT * FROM audit ORDER BY seq", [], |row| {
        let next = follow(row, &reached)?;
        let contradicts = |witness: &Witness| witness.seq == reached.seq + 1 && Some(witness) != next.as_ref();
        match next {
            Some(next) if !witness.is_some_and(contradicts) => reached = next,
            _ => is_broken = true,
        }
        Ok(if is_broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let is_cut_off = witness.is_some_and(|witness| witness.seq > reached.seq);
    Ok(if is_broken || is_cut_off { Verdict::Broken { seq: reached.seq + 1 } } else { Verdict::Intact(reached) })
}

/// The point that a row leads to from the one before; `None` when it is not the row that was written there.
///
/// Reads bytes, so that an edit that left no valid text is a broken row as well.
fn follow(row: &Row<'_>, previous: &Witness) -> Result<Option<Witness>, StateError> {
    let columns = ["actor", "role", "action", "target", "detail", "outcome"];
    let mut texts: [Vec<u8>; 6] = Default::default();
    for (text, column) in texts.iter_mut().zip(columns) {
        *text = row.bytes(column)?;
    }
    let seq: i64 = row.get("seq")?;
    let hash = link(&previous.hash, seq, row.get("time_ms")?, texts.each_ref().map(Vec::as_slice));
    let is_next = seq == integer(previous.seq + 1) && row.bytes("hash")? == hash.as_bytes();
    Ok(is_next.then(|| Witness { seq: previous.seq + 1, hash }))
}

fn link(previous: &str, seq: i64, time_ms: i64, texts: [&[u8]; 6]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(previous.as_bytes());
    context.update(&[ENCODING]);
    context.update(&seq.to_be_bytes());
    context.update(&time_ms.to_be_bytes());
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text);
    }
    hex::encode(context.finish().as_ref())
}

fn read(row: &Row<'_>) -> Result<Entry, StateError> {
    Ok(Entry {
        seq: row.unsigned("seq")?,
        time: row.time("time_ms")?,
        actor: row.get("actor")?,
        role: row.get("role")?,
        action: row.get("action")?,
        target: row.get("target")?,
        detail: row.get("detail")?,
        outcome: row.get("outcome")?,
        hash: row.get("hash")?,
    })
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        scratch::{Scratch, at},
        sqlite::raw,
    };

    fn deed(n: i64) -> Deed {
        Deed {
            time: at(n),
            actor: format!("actor-{n}"),
            role: Role::Operator,
            action: "nodes revoke".to_owned(),
            target: "gpu-01".to_owned(),
            detail: "lost its disk".to_owned(),
            outcome: if n % 2 == 0 { Outcome::Denied } else { Outcome::Done },
        }
    }

    fn log_of(rows: i64) -> Scratch {
        let scratch = Scratch::new();
        for n in 1..=rows {
            scratch.write(move |t| append(t, &deed(n))).unwrap();
        }
        scratch
    }

    fn check_broken(edit: &str, seq: u64) {
        let scratch = log_of(5);
        raw::execute(&scratch.path(), edit);
        let verdict = scratch.read(|view| verify(view, None)).unwrap();
        assert_eq!(verdict, Verdict::Broken { seq }, "{edit}");
    }

    #[test]
    fn an_untouched_log_is_intact_also_after_a_restart() {
        assert_eq!(
            log_of(0).read(|view| verify(view, None)).unwrap(),
            Verdict::Intact(Witness { seq: 0, hash: GENESIS.to_owned() })
        );
        let scratch = log_of(5).reopen();
        let head = scratch.read(head).unwrap();
        assert_eq!(head.seq, 5);
        assert_eq!(scratch.read(|view| verify(view, Some(&head))).unwrap(), Verdict::Intact(head));
    }

    #[test]
    fn the_encoding_does_not_change() {
        let hash = log_of(1).read(head).unwrap().hash;
        assert_eq!(hash, "124a20b54fb8d69822de2c5ed360e24d3b8533bf3a890369f7e205c8f7162a34");
    }

    #[test]
    fn one_byte_edited_anywhere_names_its_row() {
        for column in ["actor", "role", "action", "target", "detail", "outcome", "hash"] {
            let first = format!("substr({column}, 1, 1)");
            let other = format!("CASE {first} WHEN 'x' THEN 'y' ELSE 'x' END || substr({column}, 2)");
            check_broken(&format!("UPDATE audit SET {column} = {other} WHERE seq = 3"), 3);
        }
        check_broken("UPDATE audit SET time_ms = time_ms + 1 WHERE seq = 3", 3);
        check_broken("UPDATE audit SET detail = CAST(x'ff' || detail AS TEXT) WHERE seq = 3", 3);
        check_broken("UPDATE audit SET actor = 'actor-', role = '3' || role WHERE seq = 3", 3);
    }

    #[test]
    fn rows_removed_added_or_moved_show() {
        check_broken("DELETE FROM audit WHERE seq = 3", 3);
        check_broken("DELETE FROM audit WHERE seq = 1", 1);
        check_broken(
            "INSERT INTO audit SELECT 0, time_ms, actor, role, action, target, detail, outcome, hash FROM audit WHERE seq = 1",
            1,
        );
        check_broken(
            "UPDATE audit SET seq = 9 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 9",
            3,
        );
    }

    #[test]
    fn a_witness_shows_a_cut_end_and_a_chain_made_anew() {
        let scratch = log_of(5);
        let witness = scratch.read(head).unwrap();
        raw::execute(&scratch.path(), "DELETE FROM audit WHERE seq >= 4");
        let verdict = scratch.read(|view| verify(view, Some(&witness))).unwrap();
        assert_eq!(verdict, Verdict::Broken { seq: 4 });
        for n in [7, 8] {
            scratch.write(move |t| append(t, &deed(n))).unwrap();
        }
        assert!(matches!(scratch.read(|view| verify(view, None)).unwrap(), Verdict::Intact(_)));
        let verdict = scratch.read(|view| verify(view, Some(&witness))).unwrap();
        assert_eq!(verdict, Verdict::Broken { seq: 5 });
    }

    #[test]
    fn a_failed_write_leaves_no_row() {
        let scratch = log_of(1);
        let failed = scratch.write(|t| {
            append(t, &deed(2))?;
            Err::<(), _>(StateError::Closed)
        });
        assert!(failed.is_err());
        assert_eq!(scratch.read(head).unwrap().seq, 1);
    }

    #[test]
    fn pages_go_back_from_the_newest() {
        let scratch = log_of(5);
        let seqs = |before, count| {
            let rows = scratch.read(move |view| page(view, before, count)).unwrap();
            rows.into_iter().map(|entry| entry.seq).collect::<Vec<_>>()
        };
        assert_eq!(seqs(u64::MAX, 2), [5, 4]);
        assert_eq!(seqs(4, 99), [3, 2, 1]);
        assert_eq!(seqs(1, 99), [] as [u64; 0]);
        let first = scratch.read(|view| page(view, 2, 1)).unwrap().remove(0);
        assert_eq!((first.actor.as_str(), first.role.as_str(), first.outcome.as_str()), ("actor-1", "operator", "ok"));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let scratch = Scratch::new();
        let deed = Deed { detail: "ä".repeat(TEXT_BYTES_MAX), ..deed(1) };
        scratch.write(move |t| append(t, &deed)).unwrap();
        let entry = scratch.read(|view| page(view, u64::MAX, 1)).unwrap().remove(0);
        assert_eq!(entry.detail.len(), TEXT_BYTES_MAX);
        assert!(matches!(scratch.read(|view| verify(view, None)).unwrap(), Verdict::Intact(_)));
    }
}

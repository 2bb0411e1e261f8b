//! The alerts that are not inactive, as they must be found again after a restart.
//!
//! A record's body is the rules' own JSON: its state, since when, what was sent last, who acknowledged it. Here it is text under
//! the key (rule, fingerprint). Changes are written together with the events that they cause (see `events`).
//!
//! Absent: what the states mean, silences (see `silences`), history (it is the event log).

use super::{
    error::StateError,
    sqlite::{Row, Snapshot, Transaction, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE alerts (
    rule         TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    body         TEXT NOT NULL,
    PRIMARY KEY (rule, fingerprint)
) STRICT, WITHOUT ROWID;
";

/// What names one alert: the rule's key and the fingerprint of its labels, both as the rules write them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AlertKey {
    /// Which rule.
    pub(crate) rule: String,
    /// Which of its label sets.
    pub(crate) fingerprint: String,
}

/// What became of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AlertChange {
    /// It is like this now.
    Put {
        /// Which.
        key: AlertKey,
        /// Its record in JSON.
        body: String,
    },
    /// It is inactive: nothing needs to be remembered.
    Delete {
        /// Which.
        key: AlertKey,
    },
}

/// Applies changes in their order.
pub(crate) fn apply(transaction: &Transaction<'_>, changes: &[AlertChange]) -> Result<(), StateError> {
    for change in changes {
        match change {
            AlertChange::Put { key, body } => transaction.execute(
                "INSERT INTO alerts (rule, fingerprint, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT (rule, fingerprint) DO UPDATE SET body = excluded.body",
                params![key.rule, key.fingerprint, body],
            )?,
            AlertChange::Delete { key } => transaction.execute(
                "DELETE FROM alerts WHERE rule = ?1 AND fingerprint = ?2",
                params![key.rule, key.fingerprint],
            )?,
        };
    }
    Ok(())
}

/// Every record with its key, for the collector's start.
pub(crate) fn all(view: &Snapshot<'_>) -> Result<Vec<(AlertKey, String)>, StateError> {
    view.rows("SELECT * FROM alerts ORDER BY rule, fingerprint", [], read)
}

fn read(row: &Row<'_>) -> Result<(AlertKey, String), StateError> {
    Ok((AlertKey { rule: row.get("rule")?, fingerprint: row.get("fingerprint")? }, row.get("body")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scratch::{Scratch, delete, put};

    #[test]
    fn records_are_replaced_removed_and_found_after_a_restart() {
        let scratch = Scratch::new();
        scratch.write(|t| apply(t, &[put("Down", "1", "{\"a\":1}"), put("Down", "2", "{}")])).unwrap();
        scratch.write(|t| apply(t, &[put("Down", "1", "{\"a\":2}"), delete("Down", "2"), delete("X", "9")])).unwrap();
        let scratch = scratch.reopen();
        let key = AlertKey { rule: "Down".to_owned(), fingerprint: "1".to_owned() };
        assert_eq!(scratch.read(all).unwrap(), [(key, "{\"a\":2}".to_owned())]);
    }
}

//! The versions of the database, and how one becomes the next.
//!
//! `user_version` counts the steps that a database has taken. A step that has been released is never edited: what
//! changes later is a new step at the end, and `fixtures/` keeps a database of each version. An older build refuses a
//! newer database; a newer build takes the missing steps, each in a transaction of its own.

use std::path::Path;

use super::{
    alerts, audit, certificates, cursors, epochs,
    error::{OpenError, StateError},
    events, gpu_jobs, http_tokens, nodes, silences,
    sqlite::Connection,
    tokens,
};

/// "BLFY" in the file's header, where `file(1)` and the check below find it.
const APPLICATION_ID: u32 = 0x424c_4659;

/// The statements that lead from each version to the next, from version 0, the empty file.
pub(super) const STEPS: &[Step] = &[
    &[
        nodes::TABLES_V1,
        epochs::TABLES_V1,
        certificates::TABLES_V1,
        tokens::TABLES_V1,
        alerts::TABLES_V1,
        silences::TABLES_V1,
        events::TABLES_V1,
        cursors::TABLES_V1,
        audit::TABLES_V1,
    ],
    &[gpu_jobs::TABLES_V2],
    &[http_tokens::TABLES_V3],
];

/// What one version adds to the one before.
pub(super) type Step = &'static [&'static str];

/// Refuses a database that this build must not touch.
///
/// # Errors
/// [`OpenError`] when it is another program's, newer than this build, or damaged.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let pragma = |name| connection.pragma(name).map_err(|error| OpenError::of(path, error));
    let (application, found) = (pragma("application_id")?, pragma("user_version")?);
    let is_fresh = application == 0 && found == 0 && pragma("schema_version")? == 0;
    if is_fresh {
        return Ok(());
    }
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_path_buf() });
    }
    let known = version_after(STEPS);
    if found > known {
        return Err(OpenError::Newer { path: path.to_path_buf(), found, known });
    }
    let first: Option<String> = connection
        .snapshot(|view| view.row("PRAGMA quick_check(1)", [], |row| row.get("quick_check")))
        .map_err(|error| OpenError::of(path, error))?;
    match first {
        Some(answer) if answer == "ok" => Ok(()),
        answer => Err(OpenError::Damaged { path: path.to_path_buf(), detail: answer.unwrap_or_default() }),
    }
}

/// Takes the steps that the database has not taken yet.
///
/// # Errors
/// [`OpenError::Migrate`]; the steps before the failed one stay.
pub(super) fn migrate(connection: &Connection, path: &Path, steps: &[Step]) -> Result<(), OpenError> {
    let taken = connection.pragma("user_version").map_err(|error| OpenError::of(path, error))?;
    let mut from = taken;
    for step in steps.iter().skip(taken as usize) {
        let to = from + 1;
        take(connection, step, to).map_err(|source| OpenError::Migrate {
            path: path.to_path_buf(),
            from,
            to,
            source,
        })?;
        from = to;
    }
    Ok(())
}

fn take(connection: &Connection, step: Step, to: u32) -> Result<(), StateError> {
    let group = connection.begin()?;
    for statements in step {
        connection.batch(statements)?;
    }
    connection.batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {to};"))?;
    group.commit()
}

fn version_after(steps: &[Step]) -> u32 {
    u32::try_from(steps.len()).unwrap_or(u32::MAX)
}

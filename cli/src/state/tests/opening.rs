//! What opening accepts, refuses and sets.

use std::fs;

use expect_test::expect;
use tempfile::TempDir;

use super::{SCHEMA, damage, file, pair, wal};
use crate::state::{
    OpenError, State, StateError,
    schema::STEPS,
    scratch::{Scratch, plant},
    sqlite::raw,
};

#[test]
fn a_fresh_database_has_this_schema() {
    let scratch = Scratch::new();
    expect![[r#"
        CREATE TABLE alerts (
            rule         TEXT NOT NULL,
            fingerprint  TEXT NOT NULL,
            body         TEXT NOT NULL,
            PRIMARY KEY (rule, fingerprint)
        ) STRICT, WITHOUT ROWID
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
        ) STRICT
        CREATE TABLE certificates (
            serial         TEXT    PRIMARY KEY,
            node           INTEGER REFERENCES nodes (id),
            user           TEXT,
            role           TEXT    NOT NULL,
            not_before_ms  INTEGER NOT NULL,
            not_after_ms   INTEGER NOT NULL,
            issued_at_ms   INTEGER NOT NULL,
            revoked_at_ms  INTEGER,
            CHECK ((node IS NULL) <> (user IS NULL))
        ) STRICT, WITHOUT ROWID
        CREATE INDEX certificates_end ON certificates (not_after_ms)
        CREATE INDEX certificates_node ON certificates (node) WHERE node IS NOT NULL
        CREATE INDEX certificates_user ON certificates (user) WHERE user IS NOT NULL
        CREATE TABLE cursors (
            name           TEXT    PRIMARY KEY,
            seq            INTEGER NOT NULL,
            updated_at_ms  INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        CREATE TABLE epochs (
            node              INTEGER NOT NULL REFERENCES nodes (id),
            epoch             TEXT    NOT NULL,
            first_seen_ms     INTEGER NOT NULL,
            superseded_at_ms  INTEGER,
            PRIMARY KEY (node, epoch)
        ) STRICT, WITHOUT ROWID
        CREATE UNIQUE INDEX epochs_current ON epochs (node) WHERE superseded_at_ms IS NULL
        CREATE TABLE events (
            seq      INTEGER PRIMARY KEY,
            time_ms  INTEGER NOT NULL,
            schema   INTEGER NOT NULL,
            body     TEXT    NOT NULL
        ) STRICT
        CREATE INDEX events_time ON events (time_ms)
        CREATE TABLE gpu_jobs (
            id        INTEGER PRIMARY KEY AUTOINCREMENT,
            node      INTEGER NOT NULL REFERENCES nodes (id),
            labels    TEXT    NOT NULL,
            start_ms  INTEGER NOT NULL,
            end_ms    INTEGER
        ) STRICT
        CREATE INDEX gpu_jobs_end ON gpu_jobs (end_ms)
        CREATE TABLE http_tokens (
            id             TEXT    PRIMARY KEY,
            text_sha256    TEXT    NOT NULL UNIQUE,
            name           TEXT    NOT NULL,
            role           TEXT    NOT NULL,
            expires_at_ms  INTEGER NOT NULL,
            created_at_ms  INTEGER NOT NULL,
            created_by     TEXT    NOT NULL,
            revoked_at_ms  INTEGER
        ) STRICT, WITHOUT ROWID
        CREATE TABLE nodes (
            id               INTEGER PRIMARY KEY AUTOINCREMENT,
            name             TEXT    NOT NULL,
            first_seen_ms    INTEGER NOT NULL,
            last_seen_ms     INTEGER,
            has_left         INTEGER NOT NULL DEFAULT 0,
            agent_version    TEXT,
            address          TEXT,
            generation       TEXT,
            locked_at_ms     INTEGER,
            revoked_at_ms    INTEGER,
            forgotten_at_ms  INTEGER
        ) STRICT
        CREATE UNIQUE INDEX nodes_name ON nodes (name) WHERE forgotten_at_ms IS NULL
        CREATE TABLE silences (
            id          TEXT    PRIMARY KEY,
            ends_at_ms  INTEGER NOT NULL,
            body        TEXT    NOT NULL
        ) STRICT, WITHOUT ROWID
        CREATE TABLE sqlite_sequence(name,seq)
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
        ) STRICT, WITHOUT ROWID"#]]
    .assert_eq(&raw::query(&scratch.path(), SCHEMA).join("\n"));
    assert_eq!(raw::query(&scratch.path(), "PRAGMA user_version"), [STEPS.len().to_string()]);
}

#[cfg(unix)]
#[test]
fn its_files_are_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    drop(State::open(directory.path()).unwrap());
    fs::set_permissions(file(&directory), fs::Permissions::from_mode(0o644)).unwrap();
    let _state = State::open(directory.path()).unwrap();
    let mut seen = Vec::new();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        seen.push(entry.file_name().into_string().unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["belfry.db", "belfry.db-shm", "belfry.db-wal", "belfry.db.lock"]);
}

#[test]
fn the_settings_that_durability_rests_on_are_in_force() {
    let scratch = Scratch::new();
    let setting = |name: &str| {
        let sql = format!("SELECT CAST({name} AS TEXT) AS value FROM pragma_{name}");
        scratch.write(|t| t.row(&sql, [], |row| row.get::<String>("value"))).unwrap().unwrap()
    };
    let settings = ["journal_mode", "synchronous", "foreign_keys", "trusted_schema"].map(setting);
    assert_eq!(settings, ["wal", "2", "1", "0"]);
    let refused = scratch.read(|view| view.row("DELETE FROM nodes RETURNING id", [], |_| Ok(())));
    assert!(matches!(refused, Err(StateError::Statement { .. })), "{refused:?}");
}

#[test]
fn a_second_collector_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = State::open(directory.path()).unwrap();
    let second = State::open(directory.path()).unwrap_err();
    assert!(
        second.to_string().ends_with("is in use by another collector: stop that one, or choose another data directory")
    );
    drop(first);
    State::open(directory.path()).unwrap();
}

/// Opening is refused, and every byte stays.
fn check_refused(directory: &TempDir) -> OpenError {
    // SQLite may put an empty log where there was none.
    let content = || [file(directory), wal(directory)].map(|path| fs::read(path).unwrap_or_default());
    let before = content();
    let refused = State::open(directory.path()).unwrap_err();
    assert!(content() == before, "a byte was changed");
    assert!(refused.to_string().contains(&*file(directory).to_string_lossy()), "{refused}");
    refused
}

#[test]
fn a_newer_database_is_refused_with_both_versions() {
    let directory = tempfile::tempdir().unwrap();
    drop(State::open(directory.path()).unwrap());
    raw::execute(&file(&directory), "PRAGMA user_version = 7");
    let refused = check_refused(&directory);
    assert!(matches!(refused, OpenError::Newer { found: 7, known: 3, .. }), "{refused}");
    assert!(refused.to_string().contains("has version 7, this build knows versions up to 3"), "{refused}");
}

#[test]
fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    plant(directory.path(), "CREATE TABLE bookmarks (url TEXT)");
    let refused = check_refused(&directory);
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(file(&directory), "not a database, but long enough to have had a header once".repeat(20)).unwrap();
    let refused = check_refused(&directory);
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

#[test]
fn a_damaged_page_is_found_and_kept_as_evidence() {
    let directory = tempfile::tempdir().unwrap();
    drop(State::open(directory.path()).unwrap());
    damage(&file(&directory), "events");
    let refused = check_refused(&directory);
    assert!(refused.to_string().contains("restore a backup"), "{refused}");
}

#[tokio::test]
async fn the_log_of_a_damaged_database_is_kept_too() {
    let (directory, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state = State::open(directory.path()).unwrap();
    damage(&file(&directory), "cursors");
    state.write(|t| pair(t, 1)).await.unwrap();
    fs::copy(file(&directory), file(&killed)).unwrap();
    assert!(fs::copy(wal(&directory), wal(&killed)).unwrap() > 0);
    let refused = check_refused(&killed);
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

//! The database as a whole: opening, versions, crashes, and the writer with its neighbours.

mod copies;
mod crashes;
mod failures;
mod opening;
mod versions;
mod writing;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    FILE, StateError, Transaction, alerts, events,
    location::Location,
    scratch::{at, put},
    sqlite::{Connection, raw},
};

const SCHEMA: &str = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name";

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join(FILE)
}

fn wal(directory: &TempDir) -> PathBuf {
    directory.path().join("belfry.db-wal")
}

/// One event with its alert's record: what must never be seen apart.
fn pair(transaction: &Transaction<'_>, n: u64) -> Result<u64, StateError> {
    let event = events::NewEvent::new(at(1), 1, format!("{{\"n\":{n}}}")).unwrap();
    let range = events::append(transaction, &[event], &[put("Rule", &n.to_string(), "{}")])?;
    Ok(range.start)
}

/// How many of either are in the database of this directory.
fn pairs(directory: &Path) -> (u64, usize) {
    let location = Location::File(directory.join(FILE));
    Connection::open_writer(&location).unwrap();
    let reader = Connection::open_reader(&location).unwrap();
    let read = reader.snapshot(|view| Ok::<_, StateError>((events::kept(view)?.end - 1, alerts::all(view)?.len())));
    read.unwrap()
}

/// Overwrites the root page of a table.
fn damage(path: &Path, table: &str) {
    raw::execute(path, "PRAGMA wal_checkpoint(TRUNCATE)");
    let number = |sql: &str| raw::query(path, sql)[0].parse::<usize>().unwrap();
    let size = number("PRAGMA page_size");
    let page = number(&format!("SELECT rootpage FROM sqlite_master WHERE name = '{table}'"));
    let mut bytes = fs::read(path).unwrap();
    bytes[(page - 1) * size..page * size].fill(0xA5);
    fs::write(path, bytes).unwrap();
}

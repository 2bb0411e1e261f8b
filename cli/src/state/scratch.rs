//! What the tests of the tables share: a database in a temporary directory, and short ways to say things.

use std::path::{Path, PathBuf};

use belfry_common::{
    identity::Issued,
    model::{NodeName, Timestamp},
};

use super::{
    FILE,
    alerts::{AlertChange, AlertKey},
    error::StateError,
    location::Location,
    sqlite::{Connection, Snapshot, Transaction},
};

/// A database on disk, without the writer's thread.
#[derive(Debug)]
pub(super) struct Scratch {
    writer: Connection,
    reader: Connection,
    directory: tempfile::TempDir,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    /// What another process would find now.
    pub(super) fn reopen(self) -> Self {
        let Self { writer, reader, directory } = self;
        drop((writer, reader));
        Self::open(directory)
    }

    fn open(directory: tempfile::TempDir) -> Self {
        let location = Location::File(directory.path().join(FILE));
        let writer = Connection::open_writer(&location).unwrap();
        Self { writer, reader: Connection::open_reader(&location).unwrap(), directory }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join(FILE)
    }

    pub(super) fn write<T, E: From<StateError>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let group = self.writer.begin()?;
        let mut result = None;
        group.run(|transaction| result.insert(work(transaction)).is_ok())?;
        group.commit()?;
        result.unwrap()
    }

    pub(super) fn read<T, E: From<StateError>>(
        &self,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.reader.snapshot(work)
    }
}

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(super) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A certificate whose serial number is one byte 16 times, valid up to `not_after`.
pub(super) fn issued(serial: u8, not_after: i64) -> Issued {
    Issued {
        certificate: Vec::new().into(),
        serial: format!("{serial:02x}").repeat(16),
        not_before: at(0),
        not_after: at(not_after),
    }
}

pub(super) fn put(rule: &str, fingerprint: &str, body: &str) -> AlertChange {
    AlertChange::Put { key: key(rule, fingerprint), body: body.to_owned() }
}

pub(super) fn delete(rule: &str, fingerprint: &str) -> AlertChange {
    AlertChange::Delete { key: key(rule, fingerprint) }
}

pub(super) fn key(rule: &str, fingerprint: &str) -> AlertKey {
    AlertKey { rule: rule.to_owned(), fingerprint: fingerprint.to_owned() }
}

/// A database of version 1 as the build of that version left it.
pub(super) const FIXTURE_V1: &str = include_str!("fixtures/v1.sql");

/// The same of version 2.
pub(super) const FIXTURE_V2: &str = include_str!("fixtures/v2.sql");

/// The same of version 3.
pub(super) const FIXTURE_V3: &str = include_str!("fixtures/v3.sql");

/// Puts a database made of `sql` into `directory`.
pub(super) fn plant(directory: &Path, sql: &str) -> PathBuf {
    let path = directory.join(FILE);
    super::sqlite::raw::execute(&path, sql);
    path
}

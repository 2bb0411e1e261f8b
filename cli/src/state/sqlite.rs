//! The one file that names `rusqlite`: connections, transactions, and errors by kind.
//!
//! WAL with `synchronous=FULL`: a commit has returned from fsync before anybody is told of it, and readers never wait for
//! the writer. The writer's connection belongs to one thread (see `writer`); reads go through a second one that
//! cannot write.
//!
//! Absent: tables (each has its own file), the order of versions (see `schema`), clocks, async.

use std::{
    cell::RefCell,
    ops::{ControlFlow, Deref},
    path::Path,
    str::FromStr,
    time::Duration,
};

use belfry_common::model::Timestamp;
use rusqlite::{ErrorCode, OpenFlags, Params, TransactionBehavior, config::DbConfig, ffi, types::FromSql};

pub(super) use rusqlite::params;

use super::{
    error::{Cause, OpenError, StateError},
    files,
    location::Location,
    schema,
};

/// A person with the `sqlite3` shell may hold the write lock for a moment. The writer's callers wait this long for them.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages in the WAL from which on it is emptied into the database: 4 MiB, SQLite's own measure.
const WAL_PAGES: i64 = 1000;

/// What stays of the WAL file after a checkpoint. One that grew under a long read gives its space back.
const WAL_KEPT_BYTES: u32 = 16 * 1024 * 1024;

/// Enough of an invalid value to recognise it.
const VALUE_EXCERPT_CHARS: usize = 80;

/// The savepoint of one write within its group.
const MEMBER: &str = "member";

/// The savepoint of a part of a write. Parts within parts share the name; the innermost answers to it.
const PART: &str = "part";

impl Location {
    fn open(&self, access: OpenFlags) -> rusqlite::Result<rusqlite::Connection> {
        let connection = self.connect(access)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        // Closing only closes: after a failure, or with a damaged file, the WAL is evidence and may be the better half.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    }

    fn connect(&self, access: OpenFlags) -> rusqlite::Result<rusqlite::Connection> {
        match self {
            // Each connection belongs to one thread at a time, so that SQLite's own mutex is not needed.
            Self::File(path) => rusqlite::Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX),
            #[cfg(test)]
            Self::Memory(name) => {
                let writes = access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE);
                let create = if writes { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
                let access = access | create | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                rusqlite::Connection::open_with_flags_and_vfs(name, access, "memdb")
            }
        }
    }
}

/// One connection to the database.
#[derive(Debug)]
pub(super) struct Connection(rusqlite::Connection);

impl Connection {
    /// Opens the connection that writes: checks the file, then brings it to this build's version.
    ///
    /// # Errors
    /// [`OpenError`]; a newer, foreign or damaged database is left as it is.
    pub(super) fn open_writer(location: &Location) -> Result<Self, OpenError> {
        let path = location.path();
        if location.is_file() {
            files::open_private(path).map_err(|source| OpenError::File { path: path.to_path_buf(), source })?;
        }
        let connection = Self(location.open(OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(opening(path))?);
        schema::check(&connection, path)?;
        connection.set_up(location).map_err(|error| OpenError::of(path, error))?;
        schema::migrate(&connection, path, schema::STEPS)?;
        Ok(connection)
    }

    /// Opens a connection that can only read.
    ///
    /// # Errors
    /// [`OpenError`] when the engine cannot open the file.
    pub(super) fn open_reader(location: &Location) -> Result<Self, OpenError> {
        let open = || {
            let connection = location.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.pragma_update(None, "query_only", true)?;
            Ok(Self(connection))
        };
        open().map_err(opening(location.path()))
    }

    /// Writes the database, as it is at one instant, into an empty file: one file, whatever is in the WAL, and no writer waits for it.
    ///
    /// # Errors
    /// [`OpenError`] when the engine cannot open the file, or cannot read or write all of it.
    pub(super) fn copy(location: &Location, to: &str) -> Result<(), OpenError> {
        let connection = location.open(OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(opening(location.path()))?;
        connection.execute("VACUUM INTO ?1", [to]).map(drop).map_err(opening(location.path()))
    }

    fn set_up(&self, location: &Location) -> Result<(), StateError> {
        if location.is_file() {
            let mode: String = self.0.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
            if mode != "wal" {
                let source = Cause("its file system has no shared memory, which the WAL needs".into());
                return Err(StateError::Statement { source });
            }
        }
        self.0.pragma_update(None, "synchronous", "full")?;
        self.0.pragma_update(None, "foreign_keys", true)?;
        self.0.pragma_update(None, "cell_size_check", true)?;
        self.0.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT_BYTES, |_| Ok(()))?;
        // SQLite's own checkpoints hide their failures; see `relieve`.
        Ok(self.0.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?)
    }

    /// Runs reads that all see the database at one instant.
    ///
    /// # Errors
    /// Those of `work`.
    pub(super) fn snapshot<T, E: From<StateError>>(
        &self,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self.0.unchecked_transaction().map_err(StateError::from)?;
        work(&Snapshot::new(&transaction))
    }

    /// Begins a group of writes that become durable together.
    ///
    /// # Errors
    /// [`StateError::Busy`] when another program writes.
    pub(super) fn begin(&self) -> Result<Group<'_>, StateError> {
        Ok(Group(rusqlite::Transaction::new_unchecked(&self.0, TransactionBehavior::Immediate)?))
    }

    /// Runs statements that have no parameters and no rows.
    pub(super) fn batch(&self, sql: &str) -> Result<(), StateError> {
        Ok(self.0.execute_batch(sql)?)
    }

    /// Reads an integer of the file's header.
    pub(super) fn pragma(&self, name: &str) -> Result<u32, StateError> {
        Ok(self.0.pragma_query_value(None, name, |row| row.get(0))?)
    }

    /// Moves what it can from a WAL that has grown into the database, so that the WAL's space is used again.
    ///
    /// # Errors
    /// [`StateError`]; nothing is lost by that, but after [`StateError::Io`] nothing may be written.
    pub(super) fn relieve(&self) -> Result<(), StateError> {
        if self.checkpoint("NOOP")? < WAL_PAGES { Ok(()) } else { self.checkpoint("PASSIVE").map(drop) }
    }

    /// As [`Connection::relieve`], however little there is: on a full disk the WAL's own space may be the last.
    ///
    /// # Errors
    /// Those of [`Connection::relieve`].
    pub(super) fn reclaim(&self) -> Result<(), StateError> {
        self.checkpoint("PASSIVE").map(drop)
    }

    /// Moves everything from the WAL into the database, so that it is one file to copy.
    ///
    /// # Errors
    /// Those of [`Connection::relieve`].
    pub(super) fn empty_wal(&self) -> Result<(), StateError> {
        self.checkpoint("TRUNCATE").map(drop)
    }

    /// Returns how many pages the WAL had; -1 when there is no WAL.
    fn checkpoint(&self, mode: &str) -> Result<i64, StateError> {
        Ok(self.0.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get("log"))?)
    }
}

/// Writes that become durable together. Rolled back when dropped.
#[derive(Debug)]
pub(super) struct Group<'c>(rusqlite::Transaction<'c>);

impl Group<'_> {
    /// Runs one member of the group, which says whether its effects are to stay.
    ///
    /// # Errors
    /// [`StateError`] when the whole group is lost with it, and nobody's effects remain.
    pub(super) fn run(&self, member: impl FnOnce(&Transaction<'_>) -> bool) -> Result<(), StateError> {
        let transaction = Transaction(Snapshot::new(&self.0));
        transaction.savepoint(MEMBER)?;
        let keep = member(&transaction);
        let failure = transaction.0.failure.take();
        let lost = self.0.is_autocommit();
        match failure {
            Some(failure) if lost || failure.is_fatal() => Err(failure),
            _ => transaction.settle(MEMBER, keep),
        }
    }

    /// Makes the group durable.
    ///
    /// # Errors
    /// [`StateError`]; then nobody's effects remain.
    pub(super) fn commit(self) -> Result<(), StateError> {
        Ok(self.0.commit()?)
    }
}

/// The database at one instant, to be read.
#[derive(Debug)]
pub(crate) struct Snapshot<'c> {
    connection: &'c rusqlite::Connection,
    /// The last failure, or a fatal one before it: a closure that swallows an error cannot hide it from the writer.
    failure: RefCell<Option<StateError>>,
}

impl<'c> Snapshot<'c> {
    fn new(connection: &'c rusqlite::Connection) -> Self {
        Self { connection, failure: RefCell::new(None) }
    }

    /// The only row of a query, if there is one.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, StateError>,
    ) -> Result<Option<T>, StateError> {
        let query = || -> Result<Option<T>, StateError> {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query(params)?;
            rows.next()?.map(|row| read(&Row(row))).transpose()
        };
        self.noting(query())
    }

    /// Every row of a query. The statement bounds how many that can be.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let mut all = Vec::new();
        self.each(sql, params, |row| {
            all.push(read(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }

    /// Visits the rows of a query until the visitor has had enough.
    pub(super) fn each(
        &self,
        sql: &str,
        params: impl Params,
        mut visit: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, StateError>,
    ) -> Result<(), StateError> {
        let query = || -> Result<(), StateError> {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query(params)?;
            while let Some(row) = rows.next()? {
                if visit(&Row(row))?.is_break() {
                    break;
                }
            }
            Ok(())
        };
        self.noting(query())
    }

    fn noting<T>(&self, result: Result<T, StateError>) -> Result<T, StateError> {
        if let Err(error) = &result {
            let mut failure = self.failure.borrow_mut();
            if !failure.as_ref().is_some_and(StateError::is_fatal) {
                *failure = Some(error.clone());
            }
        }
        result
    }
}

/// A write in progress: sees its own effects, and all of them stay or none.
#[derive(Debug)]
pub(crate) struct Transaction<'c>(Snapshot<'c>);

impl<'c> Deref for Transaction<'c> {
    type Target = Snapshot<'c>;

    fn deref(&self) -> &Snapshot<'c> {
        &self.0
    }
}

impl Transaction<'_> {
    /// Runs one statement and tells how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StateError> {
        self.noting(self.connection.execute(sql, params).map_err(StateError::from))
    }

    /// The key of the row inserted last.
    pub(super) fn inserted(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Runs a part of the write that leaves nothing behind when it fails, so that the rest can go on and record the failure.
    ///
    /// # Errors
    /// Those of `part`.
    pub(crate) fn attempt<T, E: From<StateError>>(&self, part: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        self.savepoint(PART)?;
        let result = part(self);
        // A failure can cost the whole transaction; the group sees that for itself.
        if !self.connection.is_autocommit() {
            self.settle(PART, result.is_ok())?;
        }
        result
    }

    fn savepoint(&self, name: &str) -> Result<(), StateError> {
        self.batch(&format!("SAVEPOINT {name}"))
    }

    fn settle(&self, name: &str, keep: bool) -> Result<(), StateError> {
        let undo = if keep { String::new() } else { format!("ROLLBACK TO {name};") };
        self.batch(&format!("{undo} RELEASE {name}"))
    }

    fn batch(&self, sql: &str) -> Result<(), StateError> {
        self.noting(self.connection.execute_batch(sql).map_err(StateError::from))
    }
}

/// One row of a query's result.
#[derive(Debug)]
pub(super) struct Row<'r>(&'r rusqlite::Row<'r>);

impl Row<'_> {
    /// A column as it is.
    pub(super) fn get<T: FromSql>(&self, column: &str) -> Result<T, StateError> {
        Ok(self.0.get(column)?)
    }

    /// A column in milliseconds since the epoch.
    pub(super) fn time(&self, column: &str) -> Result<Timestamp, StateError> {
        Ok(Timestamp::from_millis(self.get(column)?))
    }

    /// A column in milliseconds since the epoch, or NULL.
    pub(super) fn time_if_any(&self, column: &str) -> Result<Option<Timestamp>, StateError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp::from_millis))
    }

    /// A column that is never negative.
    pub(super) fn unsigned(&self, column: &str) -> Result<u64, StateError> {
        let value: i64 = self.get(column)?;
        u64::try_from(value).map_err(|_| invalid(column, &value.to_string()))
    }

    /// A column of text in the form of `T`.
    pub(super) fn parse<T: FromStr>(&self, column: &str) -> Result<T, StateError> {
        let text: String = self.get(column)?;
        text.parse().map_err(|_| invalid(column, &text))
    }

    /// The bytes of a column of text, whatever they are.
    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>, StateError> {
        Ok(self.0.get_ref(column)?.as_bytes_or_null().ok().flatten().unwrap_or_default().to_vec())
    }
}

/// A number as SQLite has them. One beyond its range is clamped: no row is that far.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The error for a value that this program would not have written.
pub(super) fn invalid(column: &str, value: &str) -> StateError {
    StateError::Value { column: column.to_owned(), value: value.chars().take(VALUE_EXCERPT_CHARS).collect() }
}

impl From<rusqlite::Error> for StateError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let extended = error.sqlite_error().map(|error| error.extended_code);
        let source = Cause(match &error {
            rusqlite::Error::SqliteFailure(failure, Some(message)) => {
                format!("{message} (SQLite error {})", failure.extended_code).into()
            }
            other => other.to_string().into(),
        });
        match code {
            Some(ErrorCode::DiskFull) => Self::Full { source },
            // The WAL's index could not grow: it is a file like any other, so that a full disk shows here first.
            Some(ErrorCode::SystemIoFailure) if extended == Some(ffi::SQLITE_IOERR_SHMSIZE) => Self::Full { source },
            Some(ErrorCode::SystemIoFailure) => Self::Io { source },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { source },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { source },
            _ => Self::Statement { source },
        }
    }
}

/// Names the database in the engine's error.
fn opening(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError + '_ {
    |error| OpenError::of(path, StateError::from(error))
}

/// The database as somebody with a shell sees it.
#[cfg(test)]
pub(super) mod raw {
    use std::path::Path;

    /// Runs any statements, without this program's checks and settings.
    pub(in crate::state) fn execute(path: &Path, sql: &str) {
        rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    /// The first column of a query, as text.
    pub(in crate::state) fn query(path: &Path, sql: &str) -> Vec<String> {
        let connection = rusqlite::Connection::open(path).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            Ok(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                other => other.as_str_or_null()?.unwrap_or("NULL").to_owned(),
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Holds the write lock until it is dropped.
    pub(in crate::state) fn hold(path: &Path) -> impl Sized + use<> {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }
}

//! What is left after a kill at any moment.

use std::fs;

use tempfile::TempDir;

use super::{file, pair, pairs, wal};
use crate::state::{State, StateError, alerts, events, scratch::put, sqlite::raw};

/// What a kill at this moment leaves behind, in another directory.
fn snatch(from: &TempDir, log: &[u8]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(file(from), file(&directory)).unwrap();
    fs::write(wal(&directory), log).unwrap();
    directory
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    for n in 1..=20 {
        assert_eq!(state.write(move |t| pair(t, n)).await.unwrap(), n);
        let log = fs::read(wal(&directory)).unwrap();
        assert_eq!(pairs(snatch(&directory, &log).path()), (n, usize::try_from(n).unwrap()));
    }
}

#[tokio::test]
async fn a_write_under_way_leaves_nothing_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.write(|t| pair(t, 1)).await.unwrap();
    let (path, log) = (file(&directory), wal(&directory));
    let seen = state.write(move |t| {
        pair(t, 2)?;
        // More than SQLite keeps in memory: the log has pages of this write already.
        for n in 0..300 {
            alerts::apply(t, &[put("Bulk", &n.to_string(), &"x".repeat(20_000))])?;
        }
        let killed = tempfile::tempdir().unwrap();
        fs::copy(path, file(&killed)).unwrap();
        assert!(fs::copy(log, wal(&killed)).unwrap() > 1_000_000);
        Ok::<_, StateError>(pairs(killed.path()))
    });
    assert_eq!(seen.await.unwrap(), (1, 1));
}

#[tokio::test]
async fn a_torn_log_leaves_whole_writes_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.write(|t| pair(t, 1)).await.unwrap();
    state.read(events::kept).await.unwrap();
    raw::execute(&file(&directory), "PRAGMA wal_checkpoint(TRUNCATE)");
    for n in 2..=6 {
        state.write(move |t| pair(t, n)).await.unwrap();
    }
    let log = fs::read(wal(&directory)).unwrap();
    let mut last = 0;
    for length in (0..=log.len()).step_by(509).chain([log.len()]) {
        let (events, alerts) = pairs(snatch(&directory, &log[..length]).path());
        assert_eq!(events, alerts as u64, "cut to {length} bytes");
        assert!(events >= last.max(1), "cut to {length} bytes");
        last = events;
    }
    assert_eq!(last, 6);
}

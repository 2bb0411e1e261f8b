//! Full disks, locks, damage.

use tokio::task::JoinSet;

use super::{damage, file, pair};
use crate::state::{
    Health, OpenError, State, StateError, Transaction, alerts, cursors, events,
    scratch::{Scratch, at, name, put},
    sqlite::{params, raw},
};

async fn limit_pages(state: &State, pages: u64) {
    let sql = format!("PRAGMA max_page_count = {pages}");
    state.write(move |t| t.row(&sql, [], |_| Ok(()))).await.unwrap();
}

/// An alert whose record fills pages.
fn bulk(transaction: &Transaction<'_>, n: usize) -> Result<(), StateError> {
    alerts::apply(transaction, &[put("Bulk", &n.to_string(), &"x".repeat(20_000))])
}

#[tokio::test]
async fn a_full_disk_stops_writing_until_there_is_room_and_never_reading() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.write(|t| pair(t, 1)).await.unwrap();
    limit_pages(&state, 1).await;
    let full = state.write(|t| bulk(t, 1)).await.unwrap_err();
    assert!(matches!(full, StateError::Full { .. }) && full.is_retryable(), "{full:?}");
    assert!(matches!(*state.health().borrow(), Health::Retrying(StateError::Full { .. })));
    assert_eq!(state.read(events::kept).await.unwrap(), 1..2);
    limit_pages(&state, 1_000_000).await;
    state.write(|t| bulk(t, 1)).await.unwrap();
    assert!(matches!(*state.health().borrow(), Health::Good));
}

#[tokio::test]
async fn a_full_disk_costs_the_group_and_not_those_behind_it() {
    let state = State::in_memory();
    limit_pages(&state, 40).await;
    let mut writes = JoinSet::new();
    for n in 0..40 {
        let state = state.clone();
        writes.spawn(async move { (n, state.write(move |t| bulk(t, n)).await) });
    }
    let mut done = Vec::new();
    for (n, result) in writes.join_all().await {
        match result {
            Ok(()) => done.push(n.to_string()),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    let mut kept: Vec<_> = state.read(alerts::all).await.unwrap().into_iter().map(|(key, _)| key.fingerprint).collect();
    kept.sort();
    done.sort();
    assert_eq!(kept, done, "what was answered is there, and nothing else");
}

#[tokio::test]
async fn a_failure_that_the_write_hides_still_counts() {
    let state = State::in_memory();
    limit_pages(&state, 1).await;
    let hidden = state.write(|t| {
        let _ = bulk(t, 1);
        Ok::<_, StateError>(())
    });
    let hidden = hidden.await;
    assert!(matches!(hidden, Err(StateError::Full { .. })), "{hidden:?}");
}

#[tokio::test]
async fn another_programs_lock_is_waited_for_and_then_reported() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.write(|t| t.row("PRAGMA busy_timeout = 10", [], |_| Ok(()))).await.unwrap();
    let lock = raw::hold(&file(&directory));
    let busy = state.write(|t| pair(t, 1)).await.unwrap_err();
    assert!(matches!(busy, StateError::Busy { .. }) && busy.is_retryable(), "{busy:?}");
    drop(lock);
    assert_eq!(state.write(|t| pair(t, 1)).await.unwrap(), 1);
}

#[tokio::test]
async fn damage_ends_writing_for_good_and_not_reading() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.write(|t| pair(t, 1)).await.unwrap();
    damage(&file(&directory), "cursors");
    // Another program's commit makes the writer read its pages anew.
    raw::execute(&file(&directory), "UPDATE alerts SET body = '{ }'");
    let set =
        |seq| move |t: &Transaction<'_>| cursors::reset(t, &name("a"), seq, at(1)).map_err(|_| StateError::Closed);
    state.write(set(1)).await.unwrap_err();
    let mut health = state.health();
    assert!(matches!(*health.borrow_and_update(), Health::Failed(StateError::Damaged { .. })));
    assert!(matches!(state.failed().await, StateError::Damaged { .. }));
    let next = state.write(|t| pair(t, 2)).await.unwrap_err();
    assert!(matches!(next, StateError::Poisoned { .. }) && !next.is_retryable(), "{next:?}");
    assert_eq!(state.read(events::kept).await.unwrap(), 1..2);
    drop(state);
    let reopened = State::open(directory.path()).unwrap_err();
    assert!(matches!(reopened, OpenError::Damaged { .. }), "{reopened}");
}

#[test]
fn a_part_that_fails_leaves_nothing_while_the_rest_stays() {
    let scratch = Scratch::new();
    let written = scratch.write(|t| {
        pair(t, 1)?;
        let part = t.attempt(|t| {
            pair(t, 2)?;
            t.execute("INSERT INTO epochs VALUES (?1, 'x', 0, NULL)", params![99])
        });
        assert!(matches!(part, Err(StateError::Statement { .. })), "{part:?}");
        pair(t, 3)
    });
    assert_eq!(written.unwrap(), 2);
}

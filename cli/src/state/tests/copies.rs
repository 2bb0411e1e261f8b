//! A copy taken while the database is in use.

use std::fs;

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{damage, file, pair, pairs};
use crate::state::{FILE, OpenError, State, back_up, sqlite::raw};

#[tokio::test]
async fn a_copy_is_one_file_with_all_that_was_answered_before_it() {
    let [directory, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let state = State::open(directory.path()).unwrap();
    for n in 1..=10 {
        state.write(move |t| pair(t, n)).await.unwrap();
    }
    // Others go on writing.
    let mut writes = JoinSet::new();
    for n in 11..=60 {
        let state = state.clone();
        writes.spawn(async move { state.write(move |t| pair(t, n)).await });
    }
    back_up(directory.path(), &to.path().join(FILE)).unwrap();
    assert!(writes.join_all().await.iter().all(Result::is_ok));
    let names: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE]);
    let versions = ["application_id", "user_version"]
        .map(|name| [&directory, &to].map(|place| raw::query(&file(place), &format!("PRAGMA {name}"))[0].clone()));
    assert!(versions.iter().all(|[a, b]| a == b), "{versions:?}");
    let (events, alerts) = pairs(to.path());
    assert!((10..=60).contains(&events) && alerts as u64 == events, "{events} events, {alerts} alerts");
}

#[tokio::test]
async fn a_copy_of_what_a_kill_left_has_what_is_in_the_log() {
    let [directory, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let killed: TempDir = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.write(|t| pair(t, 1)).await.unwrap();
    for name in [FILE, "belfry.db-wal"] {
        fs::copy(directory.path().join(name), killed.path().join(name)).unwrap();
    }
    back_up(killed.path(), &to.path().join(FILE)).unwrap();
    assert_eq!(pairs(to.path()), (1, 1));
}

#[tokio::test]
async fn what_is_damaged_is_not_copied() {
    let [directory, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let state = State::open(directory.path()).unwrap();
    state.write(|t| pair(t, 1)).await.unwrap();
    state.shutdown().await;
    drop(state);
    damage(&file(&directory), "events");
    let refused = back_up(directory.path(), &to.path().join(FILE)).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
}

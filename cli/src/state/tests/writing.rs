//! The writer and those who wait for it.

use std::{
    fs,
    future::{Future, poll_fn},
    pin::Pin,
    sync::mpsc as blocking,
    task::Poll,
};

use tokio::task::JoinSet;

use super::{file, pair, pairs, wal};
use crate::state::{OpenError, State, StateError, alerts, events, scratch::put};

/// Holds the writer inside a write until the sender is used or dropped.
async fn occupy(state: &State) -> (blocking::Sender<()>, JoinSet<Result<(), StateError>>) {
    let (release, released) = blocking::channel();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let state = state.clone();
    let mut write = JoinSet::new();
    write.spawn(async move {
        let write = state.write(move |_| {
            entered.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        });
        write.await
    });
    inside.await.unwrap();
    (release, write)
}

/// Lets a write reach the queue and no further.
async fn enqueue<T>(mut write: Pin<&mut impl Future<Output = T>>) {
    poll_fn(|context| {
        assert!(write.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_failing_write_fails_alone() {
    let state = State::in_memory();
    let (release, mut held) = occupy(&state).await;
    let mut writes = JoinSet::new();
    for n in 1..=9 {
        let state = state.clone();
        writes.spawn(async move {
            let result = state.write(move |t| {
                pair(t, n)?;
                if n % 3 == 0 {
                    return Err(t.execute("INSERT INTO nowhere VALUES (1)", []).unwrap_err());
                }
                Ok(())
            });
            (n, result.await.is_ok())
        });
    }
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    for (n, is_ok) in writes.join_all().await {
        assert_eq!(is_ok, n % 3 != 0, "write {n}");
    }
    held.join_next().await.unwrap().unwrap().unwrap();
    let kept = state.read(|view| Ok::<_, StateError>((events::kept(view)?, alerts::all(view)?.len())));
    assert_eq!(kept.await.unwrap(), (1..7, 6));
}

#[tokio::test]
async fn readers_do_not_wait_for_the_writer_and_see_only_what_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.write(|t| pair(t, 1)).await.unwrap();
    let reader = state.clone();
    let seen = tokio::runtime::Handle::current();
    let inside = state.write(move |t| {
        pair(t, 2)?;
        seen.block_on(reader.read(events::kept))
    });
    assert_eq!(inside.await.unwrap(), 1..2);
    assert_eq!(state.read(events::kept).await.unwrap(), 1..3);
}

#[tokio::test]
async fn a_write_happens_even_if_nobody_waits_for_it() {
    let state = State::in_memory();
    let (release, mut held) = occupy(&state).await;
    let mut given_up = Box::pin(state.write(|t| pair(t, 1)));
    enqueue(given_up.as_mut()).await;
    drop(given_up);
    release.send(()).unwrap();
    held.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(state.write(|t| pair(t, 2)).await.unwrap(), 2);
}

#[tokio::test]
async fn shutting_down_finishes_what_waits_and_refuses_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    let (release, mut held) = occupy(&state).await;
    let mut waiting = Box::pin(state.write(|t| pair(t, 1)));
    enqueue(waiting.as_mut()).await;
    release.send(()).unwrap();
    state.shutdown().await;
    held.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(waiting.await.unwrap(), 1);
    let late = state.write(|t| pair(t, 2)).await;
    assert!(matches!(late, Err(StateError::Closed)), "{late:?}");
    assert_eq!(state.read(events::kept).await.unwrap(), 1..2, "reading goes on");
    let alone = tempfile::tempdir().unwrap();
    fs::copy(file(&directory), file(&alone)).unwrap();
    assert_eq!(pairs(alone.path()), (1, 1), "the file is whole without its log");
}

#[tokio::test]
async fn the_last_handle_may_be_dropped_by_a_write() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    let (release, mut held) = occupy(&state).await;
    let last = state.clone();
    let mut write = Box::pin(async move {
        let handle = last.clone();
        last.write(move |t| pair(t, 1).inspect(|_| drop(handle))).await
    });
    enqueue(write.as_mut()).await;
    drop((state, write));
    release.send(()).unwrap();
    held.join_next().await.unwrap().unwrap().unwrap();
    drop(held);
    let reopened = loop {
        match State::open(directory.path()) {
            Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(reopened.read(events::kept).await.unwrap(), 1..2);
}

#[tokio::test]
async fn the_log_is_emptied_as_it_grows() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    for n in 100..400 {
        let key = (n % 10).to_string();
        // Another text each time, because SQLite writes only the pages that change.
        let body = n.to_string().repeat(7_000);
        state.write(move |t| alerts::apply(t, &[put("Bulk", &key, &body)])).await.unwrap();
    }
    // 300 times 5 pages or more of 4 KiB; it is emptied at 1,000 pages, after the write that reached them.
    let length = fs::metadata(wal(&directory)).unwrap().len();
    assert!(length < 4_400_000, "{length}");
    let moved = fs::metadata(file(&directory)).unwrap().len();
    assert!(moved > 200_000, "{moved}, log {length}");
}

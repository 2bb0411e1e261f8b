//! The event log: what happened to alerts, numbered without a gap.
//!
//! A script that follows the log knows from `seq` alone that it missed nothing, so that numbers are given here, inside the
//! transaction that writes the event *and* the alert's new record: one as old as the other after any crash. The next number
//! is the newest one plus 1, and retention always leaves the newest, so there is no second place that could disagree.
//!
//! ```text
//! stored:  schema = 1, seq = 42, body = {"time":"…","event":"firing",…}
//! line:    {"schema":1,"seq":42,"time":"…","event":"firing",…}
//! ```
//! The body is kept as its writer made it; what a reader years later gets is the text of today.
//!
//! Absent: what the events mean, waking of followers, delivery. A sink's position is a cursor (see `cursors`).

use std::ops::{ControlFlow, Range};

use belfry_common::{limits, model::Timestamp};
use serde::de::IgnoredAny;
use thiserror::Error;

use super::{
    alerts::{self, AlertChange},
    error::StateError,
    sqlite::{Row, Snapshot, Transaction, integer, params},
};

pub(super) const TABLES_V1: &str = "
CREATE TABLE events (
    seq      INTEGER PRIMARY KEY,
    time_ms  INTEGER NOT NULL,
    schema   INTEGER NOT NULL,
    body     TEXT    NOT NULL
) STRICT;
CREATE INDEX events_time ON events (time_ms);
";

/// An event names one alert with its labels and annotations: 32 labels of 512 bytes and as much again of text fit twice.
pub(crate) const EVENT_BODY_BYTES_MAX: usize = 64 * 1024;

/// Events of one page, whatever the reader asks for.
pub(crate) const EVENTS_PER_PAGE_MAX: usize = 1000;

/// Bytes of one page, after which it ends early: it travels as one reply.
const PAGE_BYTES_MAX: usize = limits::REPLY_CHUNK_BYTES_MAX;

/// Events that one call of [`prune`] removes at most: tens of milliseconds, during which other writes wait.
const EVENTS_PRUNED_PER_CALL_MAX: u64 = 10_000;

/// An event to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewEvent {
    time: Timestamp,
    schema: u32,
    body: String,
}

impl NewEvent {
    /// Takes a JSON object on one line, without the members `schema` and `seq`, which are added on reading.
    ///
    /// # Errors
    /// [`EventError`] when it could not be delivered as one line of JSON.
    pub(crate) fn new(time: Timestamp, schema: u32, body: String) -> Result<Self, EventError> {
        if body.len() > EVENT_BODY_BYTES_MAX {
            return Err(EventError::TooLong { length: body.len() });
        }
        let is_object = body.starts_with('{') && body.ends_with('}') && !body.contains(['\n', '\r']);
        if !is_object || serde_json::from_str::<IgnoredAny>(&body).is_err() {
            return Err(EventError::NotAnObject);
        }
        Ok(Self { time, schema, body })
    }
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its number, from 1.
    pub(crate) seq: u64,
    /// When it happened, by the collector's clock, which can be set back: order is by `seq`.
    pub(crate) time: Timestamp,
    /// The version of its body's form.
    pub(crate) schema: u32,
    /// The JSON object as it was logged.
    pub(crate) body: String,
}

impl Event {
    /// The event as one line of JSON, without the line's end.
    pub(crate) fn line(&self) -> String {
        let members = self.body.strip_prefix('{').unwrap_or(&self.body);
        let comma = if members.trim_start().starts_with('}') { "" } else { "," };
        format!("{{\"schema\":{},\"seq\":{}{comma}{members}", self.schema, self.seq)
    }
}

/// Some consecutive events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The numbers that were asked for and are gone: retention was faster than the reader.
    pub(crate) missed: Range<u64>,
    /// The events from there on.
    pub(crate) events: Vec<Event>,
    /// Where to read on.
    pub(crate) next: u64,
}

/// What is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Events before this time may go.
    pub(crate) before: Timestamp,
    /// Events beyond so many must go.
    pub(crate) events_max: u64,
}

/// An event or a position that cannot be right.
#[derive(Debug, Error)]
pub(crate) enum EventError {
    /// Longer than anything that alerting says.
    #[error("event of {length} bytes is longer than {max}", max = EVENT_BODY_BYTES_MAX)]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Not one JSON object on one line.
    #[error("event is not one JSON object on one line")]
    NotAnObject,
    /// A position that the log has not reached.
    #[error(
        "event {seq} has not happened yet, the next one is {next}: if the collector was restored from a backup, start again with `--since`"
    )]
    Ahead {
        /// The position.
        seq: u64,
        /// The next number that will be given.
        next: u64,
    },
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Logs events and keeps the alert records that changed with them. Returns the events' numbers.
pub(crate) fn append(
    transaction: &Transaction<'_>,
    events: &[NewEvent],
    changes: &[AlertChange],
) -> Result<Range<u64>, StateError> {
    alerts::apply(transaction, changes)?;
    let first = kept(transaction)?.end;
    let mut next = first;
    for event in events {
        transaction.execute(
            "INSERT INTO events (seq, time_ms, schema, body) VALUES (?1, ?2, ?3, ?4)",
            params![integer(next), event.time.as_millis(), event.schema, event.body],
        )?;
        next += 1;
    }
    Ok(first..next)
}

/// The numbers that can be read. Its end is the next number that will be given, also while the log is empty.
pub(crate) fn kept(view: &Snapshot<'_>) -> Result<Range<u64>, StateError> {
    // Two subqueries, because SQLite looks up min and max in the index only when each stands alone.
    let kept = view.row(
        "SELECT (SELECT coalesce(min(seq), 1) FROM events) AS first, (SELECT coalesce(max(seq), 0) FROM events) AS last",
        [],
        |row| Ok(row.unsigned("first")?..row.unsigned("last")? + 1),
    )?;
    Ok(kept.unwrap_or(1..1))
}

/// Up to `count` events from number `from` on; 0 means the oldest that is kept.
///
/// # Errors
/// [`EventError::Ahead`] when that number is beyond the next one.
pub(crate) fn read(view: &Snapshot<'_>, from: u64, count: usize) -> Result<Page, EventError> {
    let kept = kept(view)?;
    if from > kept.end {
        return Err(EventError::Ahead { seq: from, next: kept.end });
    }
    let missed = if from == 0 { kept.start..kept.start } else { from..kept.start.max(from) };
    let mut page = Page { next: missed.end, missed, events: Vec::new() };
    let mut bytes = 0;
    view.each(
        "SELECT * FROM events WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
        params![integer(page.next), integer(count.min(EVENTS_PER_PAGE_MAX) as u64)],
        |row| {
            let event = read_event(row)?;
            bytes += event.body.len();
            page.next = event.seq + 1;
            page.events.push(event);
            Ok(if bytes < PAGE_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        },
    )?;
    Ok(page)
}

/// The number of the first event at or after `time`; the next number that will be given if there is none.
pub(crate) fn first_since(view: &Snapshot<'_>, time: Timestamp) -> Result<u64, StateError> {
    let first =
        view.row("SELECT min(seq) AS first FROM events WHERE time_ms >= ?1", params![time.as_millis()], |row| {
            row.get::<Option<i64>>("first")
        })?;
    match first.flatten().and_then(|seq| u64::try_from(seq).ok()) {
        Some(first) => Ok(first),
        None => Ok(kept(view)?.end),
    }
}

/// Removes the oldest events that need not be kept, and returns how many. Call again while it returns some.
///
/// What remains has no gap: an old event behind a young one, left by a clock that was set back, stays as long as that.
pub(crate) fn prune(transaction: &Transaction<'_>, retention: &Retention) -> Result<u64, StateError> {
    let kept = kept(transaction)?;
    let by_time = first_since(transaction, retention.before)?;
    let by_count = kept.end.saturating_sub(retention.events_max);
    // The newest stays, so that its number is not given again.
    let wanted = by_time.max(by_count).min(kept.end.saturating_sub(1));
    let first = wanted.min(kept.start.saturating_add(EVENTS_PRUNED_PER_CALL_MAX));
    let removed = transaction.execute("DELETE FROM events WHERE seq < ?1", params![integer(first)])?;
    Ok(removed as u64)
}

fn read_event(row: &Row<'_>) -> Result<Event, StateError> {
    Ok(Event {
        seq: row.unsigned("seq")?,
        time: row.time("time_ms")?,
        schema: row.get("schema")?,
        body: row.get("body")?,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::state::{
        State,
        scratch::{Scratch, at, delete, put},
    };

    fn event(millis: i64) -> NewEvent {
        NewEvent::new(at(millis), 1, format!("{{\"event\":\"firing\",\"n\":{millis}}}")).unwrap()
    }

    fn log_of(times: &[i64]) -> Scratch {
        let scratch = Scratch::new();
        let events: Vec<_> = times.iter().copied().map(event).collect();
        scratch.write(move |t| append(t, &events, &[])).unwrap();
        scratch
    }

    fn seqs(page: &Page) -> Vec<u64> {
        page.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn a_line_is_the_body_with_its_schema_and_number_first() {
        let scratch = log_of(&[5]);
        scratch.write(|t| append(t, &[NewEvent::new(at(6), 2, "{ }".to_owned()).unwrap()], &[])).unwrap();
        let page = scratch.read(|view| read(view, 1, 10)).unwrap();
        let lines: Vec<_> = page.events.iter().map(Event::line).collect();
        expect![[r#"
            {"schema":1,"seq":1,"event":"firing","n":5}
            {"schema":2,"seq":2 }"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn a_body_that_is_not_one_line_of_json_is_refused() {
        for bad in ["", "{", "[]", "{\"a\":1}{", "{\n}", "{\"a\":}", " {}", "{} "] {
            let refused = NewEvent::new(at(1), 1, bad.to_owned());
            assert!(matches!(refused, Err(EventError::NotAnObject)), "{bad:?}");
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_BODY_BYTES_MAX));
        assert!(matches!(NewEvent::new(at(1), 1, long), Err(EventError::TooLong { .. })));
    }

    #[test]
    fn an_event_and_its_alerts_record_are_written_together_or_not_at_all() {
        let scratch = Scratch::new();
        scratch.write(|t| append(t, &[event(1)], &[put("Down", "1", "{}")])).unwrap();
        let failed = scratch.write(|t| {
            append(t, &[event(2)], &[delete("Down", "1")])?;
            Err::<(), _>(StateError::Closed)
        });
        assert!(failed.is_err());
        let scratch = scratch.reopen();
        assert_eq!(scratch.read(alerts::all).unwrap().len(), 1);
        assert_eq!(scratch.read(kept).unwrap(), 1..2);
    }

    #[test]
    fn pages_follow_each_other() {
        let scratch = log_of(&[1, 2, 3, 4, 5]);
        let first = scratch.read(|view| read(view, 0, 2)).unwrap();
        assert_eq!((seqs(&first), first.next), (vec![1, 2], 3));
        let second = scratch.read(|view| read(view, 3, 99)).unwrap();
        assert_eq!((seqs(&second), second.next), (vec![3, 4, 5], 6));
        let end = scratch.read(|view| read(view, 6, 99)).unwrap();
        assert_eq!(end, Page { missed: 6..6, events: vec![], next: 6 });
    }

    #[test]
    fn a_page_ends_when_it_is_heavy() {
        let scratch = Scratch::new();
        let body = format!("{{\"a\":\"{}\"}}", "x".repeat(EVENT_BODY_BYTES_MAX - 10));
        let heavy = vec![NewEvent::new(at(1), 1, body).unwrap(); 40];
        scratch.write(move |t| append(t, &heavy, &[])).unwrap();
        let page = scratch.read(|view| read(view, 1, 99)).unwrap();
        assert_eq!((page.events.len(), page.next), (17, 18));
    }

    #[test]
    fn a_reader_ahead_of_the_log_is_told() {
        let scratch = log_of(&[1]);
        let ahead = scratch.read(|view| read(view, 9, 1)).unwrap_err();
        expect!["event 9 has not happened yet, the next one is 2: if the collector was restored from a backup, start again with `--since`"]
            .assert_eq(&ahead.to_string());
        assert!(scratch.read(|view| read(view, u64::MAX, 1)).is_err());
    }

    #[test]
    fn a_time_leads_to_the_first_event_since() {
        let scratch = log_of(&[10, 20, 20, 30]);
        let since = |millis| scratch.read(move |view| first_since(view, at(millis))).unwrap();
        assert_eq!([since(0), since(10), since(11), since(20), since(30), since(31)], [1, 1, 2, 2, 4, 5]);
        assert_eq!(Scratch::new().read(|view| first_since(view, at(1))).unwrap(), 1);
    }

    #[test]
    fn retention_removes_the_oldest_and_never_renumbers() {
        let scratch = log_of(&[10, 20, 30, 40]);
        let prune = |before, events_max| {
            let retention = Retention { before: at(before), events_max };
            scratch.write(move |t| prune(t, &retention)).unwrap()
        };
        assert_eq!(prune(20, 100), 1, "by time");
        assert_eq!(prune(0, 2), 1, "by count");
        let page = scratch.read(|view| read(view, 1, 99)).unwrap();
        assert_eq!((page.missed.clone(), seqs(&page)), (1..3, vec![3, 4]));
        assert_eq!(prune(i64::MAX, 0), 1, "all but the newest");
        let scratch = scratch.reopen();
        assert_eq!(scratch.read(kept).unwrap(), 4..5);
        assert_eq!(scratch.write(|t| append(t, &[event(50)], &[])).unwrap(), 5..6);
    }

    #[test]
    fn retention_leaves_no_hole_where_the_clock_was_set_back() {
        let scratch = log_of(&[100, 10, 200]);
        let retention = Retention { before: at(50), events_max: 100 };
        assert_eq!(scratch.write(move |t| prune(t, &retention)).unwrap(), 0);
        assert_eq!(scratch.read(kept).unwrap(), 1..4);
    }

    #[test]
    fn retention_takes_a_long_log_in_pieces() {
        let scratch = Scratch::new();
        let count = EVENTS_PRUNED_PER_CALL_MAX + 500;
        scratch.write(move |t| append(t, &vec![event(1); usize::try_from(count).unwrap()], &[])).unwrap();
        let retention = Retention { before: at(0), events_max: 100 };
        let mut pieces = Vec::new();
        loop {
            match scratch.write(move |t| prune(t, &retention)).unwrap() {
                0 => break,
                removed => pieces.push(removed),
            }
        }
        assert_eq!(pieces, [EVENTS_PRUNED_PER_CALL_MAX, 400]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn numbers_have_no_gap_among_writes_that_fail() {
        let state = State::in_memory();
        let mut writes = tokio::task::JoinSet::new();
        for n in 0..200_i64 {
            let state = state.clone();
            writes.spawn(async move {
                state
                    .write(move |t| {
                        let range = append(t, &[event(n), event(n)], &[])?;
                        if n % 3 == 0 { Err(StateError::Closed) } else { Ok(range) }
                    })
                    .await
            });
        }
        let mut given: Vec<u64> = writes.join_all().await.into_iter().flatten().flatten().collect();
        given.sort_unstable();
        assert_eq!(given, (1..=266).collect::<Vec<_>>());
        let page = state.read(|view| read(view, 1, 999)).await.unwrap();
        assert_eq!(seqs(&page), given);
    }
}

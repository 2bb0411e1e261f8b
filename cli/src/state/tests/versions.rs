//! From each earlier version to this one.

use super::SCHEMA;
use crate::state::{
    OpenError, State, StateError, alerts, audit, certificates, cursors, epochs, events, gpu_jobs, http_tokens,
    location::Location,
    nodes,
    schema::{self, STEPS},
    scratch::{FIXTURE_V1, FIXTURE_V2, FIXTURE_V3, Scratch, at, plant},
    silences,
    sqlite::{Connection, raw},
    tokens,
};

#[test]
fn a_database_of_every_earlier_version_becomes_this_builds() {
    let fresh = Scratch::new();
    let fixtures = [FIXTURE_V1, FIXTURE_V2, FIXTURE_V3];
    assert_eq!(fixtures.len(), STEPS.len(), "each released version has its fixture");
    for (version, fixture) in (1..).zip(fixtures) {
        let directory = tempfile::tempdir().unwrap();
        let path = plant(directory.path(), fixture);
        assert_eq!(raw::query(&path, "PRAGMA user_version"), [version.to_string()]);
        drop(State::open(directory.path()).unwrap());
        assert_eq!(raw::query(&path, SCHEMA), raw::query(&fresh.path(), SCHEMA), "from version {version}");
    }
}

#[tokio::test]
async fn what_version_1_held_can_still_be_read() {
    let directory = tempfile::tempdir().unwrap();
    plant(directory.path(), FIXTURE_V1);
    let state = State::open(directory.path()).unwrap();
    let held = state.read(|view| {
        let verdict = audit::verify(view, None)?;
        assert!(matches!(verdict, audit::Verdict::Intact(audit::Witness { seq: 2, .. })), "{verdict:?}");
        Ok::<_, StateError>((
            nodes::list(view)?.len(),
            epochs::all(view)?.len(),
            certificates::refusals(view)?,
            tokens::list(view)?.len(),
            alerts::all(view)?.len(),
            silences::all(view)?.len(),
            events::kept(view)?,
            cursors::list(view)?.len(),
        ))
    });
    let (nodes, epochs, refusals, tokens, alerts, silences, events, cursors) = held.await.unwrap();
    assert_eq!((nodes, epochs, refusals.nodes.len(), refusals.serials.len()), (2, 2, 2, 2));
    assert_eq!((tokens, alerts, silences, events, cursors), (1, 2, 1, 2..4, 1));
}

#[tokio::test]
async fn what_version_2_held_can_still_be_read() {
    let directory = tempfile::tempdir().unwrap();
    plant(directory.path(), FIXTURE_V2);
    let state = State::open(directory.path()).unwrap();
    let jobs = state.read(|view| gpu_jobs::since(view, at(1_700_000_000_000), 10)).await.unwrap();
    let ends: Vec<_> = jobs.iter().map(|job| (job.id, job.end)).collect();
    assert_eq!(ends, [(2, None), (1, Some(at(1_700_000_060_000)))]);
}

#[tokio::test]
async fn what_version_3_held_can_still_be_read() {
    let directory = tempfile::tempdir().unwrap();
    plant(directory.path(), FIXTURE_V3);
    let state = State::open(directory.path()).unwrap();
    let tokens = state.read(http_tokens::list).await.unwrap();
    assert_eq!((tokens.len(), tokens[0].name.as_str(), tokens[0].revoked_at), (1, "grafana", None));
}

#[test]
fn a_step_that_fails_leaves_the_version_before_it() {
    let scratch = Scratch::new();
    let (directory, location) = (tempfile::tempdir().unwrap(), Location::File(scratch.path()));
    let steps: &[schema::Step] =
        &[STEPS[0], STEPS[1], STEPS[2], &["CREATE TABLE b (x)"], &["CREATE TABLE c (x)", "CREATE TABLE c (x)"]];
    let writer = Connection::open_writer(&location).unwrap();
    let failed = schema::migrate(&writer, directory.path(), steps).unwrap_err();
    assert!(matches!(failed, OpenError::Migrate { from: 4, to: 5, .. }), "{failed}");
    assert_eq!(writer.pragma("user_version").unwrap(), 4);
    let tables = raw::query(&scratch.path(), "SELECT name FROM sqlite_master WHERE name IN ('b', 'c')");
    assert_eq!(tables, ["b"]);
}

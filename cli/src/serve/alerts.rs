//! Alerts: those that stand, and the stream of what happens to them.

use std::time::Duration;

use belfry_common::{
    clock,
    error_chain::ErrorChain,
    model::{NodeName, Timestamp},
};
use tokio::time::{Instant, sleep_until};

use super::{Reply, ServeError};
use crate::{
    alerts::{AlertView, Event, RuleState},
    api::Start,
    listen::Member,
    services::Services,
    state::{
        Snapshot, StateError,
        cursors::{self, CursorError},
        events::{self, EventError, Page},
    },
};

/// How often a silent stream says that it is alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
const EVENTS_PER_PAGE: usize = 500;

impl From<EventError> for ServeError {
    fn from(error: EventError) -> Self {
        match error {
            EventError::State(error) => error.into(),
            error => Self::Invalid(ErrorChain(&error).to_string()),
        }
    }
}

impl From<CursorError> for ServeError {
    fn from(error: CursorError) -> Self {
        match error {
            CursorError::State(error) => error.into(),
            error => Self::Invalid(ErrorChain(&error).to_string()),
        }
    }
}

pub(super) async fn standing(services: &Services, states: &[String]) -> Result<Vec<AlertView>, ServeError> {
    let mut alerts = services.alerting.alerts().await;
    if !states.is_empty() {
        let word = |alert: &AlertView| match RuleState::from(alert.state) {
            RuleState::Pending => "pending",
            RuleState::Firing => "firing",
            RuleState::Recovering => "recovering",
            RuleState::Inactive => "inactive",
        };
        alerts.retain(|alert| states.iter().any(|state| state == word(alert)));
    }
    alerts.sort_by_key(|alert| (std::cmp::Reverse(RuleState::from(alert.state)), alert.active_at.0));
    Ok(alerts)
}

/// Sends events from a place in the log on; with `is_once` only up to its present end.
pub(super) async fn follow(
    member: &Member,
    from: Start,
    cursor: Option<String>,
    is_once: bool,
    reply: &mut Reply,
) -> Result<(), ServeError> {
    let cursor = cursor.as_deref().map(cursor_name).transpose()?;
    let mut follower = Follower { member, next: start(&member.services, from, cursor).await? };
    let mut watch = member.services.alerting.next_event();
    let mut heartbeat_at = Instant::from_std(clock::monotonic());
    loop {
        watch.mark_unchanged();
        if follower.send(reply).await? {
            heartbeat_at = Instant::from_std(clock::monotonic()) + HEARTBEAT_INTERVAL;
            continue;
        }
        if is_once {
            return Ok(());
        }
        if Instant::from_std(clock::monotonic()) >= heartbeat_at {
            follower.heartbeat(reply).await?;
            heartbeat_at = Instant::from_std(clock::monotonic()) + HEARTBEAT_INTERVAL;
        }
        tokio::select! {
            biased;
            () = member.token.cancelled() => return Ok(()),
            // Alerting that has ended makes no more events; the heartbeat goes on until the collector has ended, too.
            changed = watch.changed() => if changed.is_err() { return Ok(()) },
            () = sleep_until(heartbeat_at) => {}
        }
    }
}

/// Notes what a reader says was delivered to it. Only the reader knows: what was sent may be lost on the way.
pub(super) async fn move_cursor(member: &Member, name: &str, seq: u64) -> Result<(), ServeError> {
    let (name, now) = (cursor_name(name)?, clock::now());
    member.services.state.write(move |transaction| cursors::advance(transaction, &name, seq, now)).await?;
    Ok(())
}

fn cursor_name(name: &str) -> Result<NodeName, ServeError> {
    let rule = "letters, digits, `.`, `_` and `-`, the first one a letter or digit";
    name.parse().map_err(|_| ServeError::Invalid(format!("{name:?} is no name for a cursor: it must be of {rule}")))
}

/// The first event to send. A cursor stands before it when this returns: whoever is killed before the first event goes on
/// from the same place.
async fn start(services: &Services, from: Start, cursor: Option<NodeName>) -> Result<u64, ServeError> {
    let now = clock::now();
    let Some(name) = cursor else {
        return Ok(services.state.read(move |view| first(view, from, now)).await?);
    };
    let start = services.state.write(move |transaction| {
        if from == Start::Cursor
            && let Some(cursor) = cursors::by_name(transaction, &name)?
        {
            return Ok(cursor.seq.saturating_add(1));
        }
        let first = first(transaction, from, now)?;
        cursors::reset(transaction, &name, first.saturating_sub(1), now)?;
        Ok::<_, CursorError>(first)
    });
    Ok(start.await?)
}

fn first(view: &Snapshot<'_>, from: Start, now: Timestamp) -> Result<u64, StateError> {
    match from {
        Start::Now | Start::Cursor => Ok(events::kept(view)?.end),
        Start::After(seq) => Ok(seq.saturating_add(1)),
        Start::Ago(millis) => {
            let ago = i64::try_from(millis).unwrap_or(i64::MAX);
            events::first_since(view, now.plus_millis(-ago))
        }
    }
}

struct Follower<'a> {
    member: &'a Member,
    next: u64,
}

impl Follower<'_> {
    /// Sends a page of events; false if there were none.
    async fn send(&mut self, reply: &mut Reply) -> Result<bool, ServeError> {
        let next = self.next;
        let page: Page = self.member.services.state.read(move |view| events::read(view, next, EVENTS_PER_PAGE)).await?;
        if !page.missed.is_empty() {
            let gone = page.missed.end - page.missed.start;
            tracing::warn!(gone, "events were deleted before a follower read them");
        }
        self.next = page.next;
        let mut lines = String::new();
        for event in &page.events {
            lines.push_str(&event.line());
            lines.push('\n');
        }
        reply.bytes(lines.as_bytes()).await?;
        Ok(!page.events.is_empty())
    }

    async fn heartbeat(&self, reply: &mut Reply) -> Result<(), ServeError> {
        let event = Event::heartbeat(clock::now().as_millis(), self.next.saturating_sub(1));
        let mut line = serde_json::to_string(&event).map_err(|error| ServeError::Failed(error.to_string()))?;
        line.push('\n');
        reply.bytes(line.as_bytes()).await
    }
}

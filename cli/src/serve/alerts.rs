//! Alerts: those that stand, and the stream of what happens to them.

use std::time::Duration;

use belfry_common::{clock, error_chain::ErrorChain, model::NodeName};
use tokio::time::{Instant, sleep_until};

use super::{Reply, ServeError};
use crate::{
    alerts::{AlertView, Event, RuleState},
    api::Start,
    listen::Member,
    services::Services,
    state::{
        StateError,
        cursors::{self, CursorError},
        events::{self, EventError, Page},
    },
};

/// How often a silent stream says that it is alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
const EVENTS_PER_PAGE: usize = 500;
/// How often a cursor is written while events flow. What was delivered since may be delivered again after a crash.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);

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
    let cursor: Option<NodeName> = cursor
        .map(|name| name.parse())
        .transpose()
        .map_err(|error| ServeError::Invalid(ErrorChain(&error).to_string()))?;
    let mut follower =
        Follower { member, next: start(&member.services, from, cursor.as_ref()).await?, cursor, unwritten: None };
    let mut watch = member.services.alerting.next_event();
    let mut heartbeat_at = Instant::from_std(clock::monotonic());
    loop {
        watch.mark_unchanged();
        if follower.send(reply).await? {
            heartbeat_at = Instant::from_std(clock::monotonic()) + HEARTBEAT_INTERVAL;
            continue;
        }
        if is_once {
            return follower.write_cursor().await;
        }
        if Instant::from_std(clock::monotonic()) >= heartbeat_at {
            follower.heartbeat(reply).await?;
            heartbeat_at = Instant::from_std(clock::monotonic()) + HEARTBEAT_INTERVAL;
        }
        tokio::select! {
            biased;
            () = member.token.cancelled() => return follower.write_cursor().await,
            // Alerting that has ended makes no more events; the heartbeat goes on until the collector has ended, too.
            changed = watch.changed() => if changed.is_err() { return follower.write_cursor().await },
            () = sleep_until(heartbeat_at) => {}
            () = sleep_until(follower.write_at()) => follower.write_cursor().await?,
        }
    }
}

async fn start(services: &Services, from: Start, cursor: Option<&NodeName>) -> Result<u64, ServeError> {
    let cursor = cursor.cloned();
    let now = clock::now();
    let start = services.state.read(move |view| {
        let end = events::kept(view)?.end;
        Ok::<_, StateError>(match from {
            Start::Now => end,
            Start::After(seq) => seq.saturating_add(1),
            Start::Ago(millis) => {
                let ago = i64::try_from(millis).unwrap_or(i64::MAX);
                events::first_since(view, now.plus_millis(-ago))?
            }
            Start::Cursor => match cursor {
                Some(name) => cursors::by_name(view, &name)?.map_or(end, |cursor| cursor.seq + 1),
                None => end,
            },
        })
    });
    Ok(start.await?)
}

struct Follower<'a> {
    member: &'a Member,
    next: u64,
    cursor: Option<NodeName>,
    /// Delivered and not written to the cursor yet, and since when.
    unwritten: Option<(u64, Instant)>,
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
        let Some(last) = page.events.last().map(|event| event.seq) else { return Ok(false) };
        let mut lines = String::new();
        for event in &page.events {
            lines.push_str(&event.line());
            lines.push('\n');
        }
        reply.bytes(lines.as_bytes()).await?;
        if self.cursor.is_some() {
            let since = self.unwritten.map_or_else(|| Instant::from_std(clock::monotonic()), |(_, since)| since);
            self.unwritten = Some((last, since));
        }
        Ok(true)
    }

    async fn heartbeat(&self, reply: &mut Reply) -> Result<(), ServeError> {
        let event = Event::heartbeat(clock::now().as_millis(), self.next.saturating_sub(1));
        let mut line = serde_json::to_string(&event).map_err(|error| ServeError::Failed(error.to_string()))?;
        line.push('\n');
        reply.bytes(line.as_bytes()).await
    }

    fn write_at(&self) -> Instant {
        let far = Instant::from_std(clock::monotonic()) + HEARTBEAT_INTERVAL;
        self.unwritten.map_or(far, |(_, since)| since + CURSOR_INTERVAL)
    }

    async fn write_cursor(&mut self) -> Result<(), ServeError> {
        let (Some(name), Some((seq, _))) = (self.cursor.clone(), self.unwritten.take()) else { return Ok(()) };
        let now = clock::now();
        self.member.services.state.write(move |transaction| cursors::advance(transaction, &name, seq, now)).await?;
        Ok(())
    }
}

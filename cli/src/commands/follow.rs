//! The stream of `belfry alerts --follow`: every event once, in order, across lost connections and restarts of the collector.
//!
//! `seq` has no gaps, so that the last number printed is all there is to remember. A cursor on the collector remembers it between
//! runs, and moves when events have been written, not before: who is killed may see some again, and misses none. A stream that is
//! silent for longer than the collector's heartbeat is lost, whatever the connection says of itself.

use std::{process::ExitCode, time::Duration};

use belfry_common::{backoff::Backoff, error_chain::ErrorChain};
use serde::Deserialize;

use super::{Global, run, until_unwanted};
use crate::{
    api::{Request, Start},
    client::{Client, ClientError},
    credentials::Credentials,
    exit::note,
    render::{
        event::{self, Columns, EventLine},
        machine,
        output::{Format, Output},
    },
};

/// The collector says something every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// A script waits for alerts: better ask too often.
const RETRY_LAST: Duration = Duration::from_secs(5);

/// Runs until it is interrupted, nobody reads any more, or the collector says no.
pub(super) fn execute(global: &Global, from: Start, cursor: Option<String>, is_once: bool) -> anyhow::Result<ExitCode> {
    let output = match global.output {
        None | Some(Format::Json) => global.output_as(Format::Jsonl),
        Some(format) => global.output_as(format),
    };
    run(global, async {
        let last = match from {
            // Behind nothing is where the log begins, wherever that is by now.
            Start::After(seq) if seq > 0 => Some(seq),
            _ => None,
        };
        let columns = Columns::default();
        let mut stream = Stream { from, cursor, is_once, is_begun: false, last, moved_to: None, output, columns };
        until_unwanted(&output, stream.run(global)).await
    })
}

struct Stream {
    from: Start,
    cursor: Option<String>,
    is_once: bool,
    /// Whether the collector has said anything: then the cursor stands.
    is_begun: bool,
    /// The last event that was printed, or that happened before the first one that will be.
    last: Option<u64>,
    /// Where the cursor was put last.
    moved_to: Option<u64>,
    output: Output,
    columns: Columns,
}

/// How a connection ended.
enum Ended {
    /// There is no more, and none was to come.
    Complete,
    /// Perhaps for good.
    Lost(ClientError),
}

impl Stream {
    async fn run(&mut self, global: &Global) -> anyhow::Result<ExitCode> {
        if self.output.format == Format::Csv {
            self.output.send(machine::csv(&event::CSV_NAMES, [])?).await?;
        }
        // What fails at first is more likely a mistake than an outage.
        let mut client = Client::connect(global).await?;
        loop {
            let ended = self.session(&mut client).await;
            client.close().await;
            let lost = match ended {
                Ok(Ended::Complete) => return Ok(ExitCode::SUCCESS),
                Ok(Ended::Lost(error)) => error,
                Err(error) => return Err(error),
            };
            let Some(credentials) = client.again(&lost) else { return Err(lost.into()) };
            note(&format!("stream lost ({}); reconnecting", ErrorChain(&lost)));
            client = reconnect(credentials).await?;
            match self.last {
                Some(last) => note(&format!("reconnected; going on behind event {last}")),
                None => note("reconnected"),
            }
        }
    }

    /// One connection's share of the stream.
    async fn session(&mut self, client: &mut Client) -> anyhow::Result<Ended> {
        let request = match self.last {
            // The cursor stands already, and another run of its name may be further.
            Some(last) if self.is_begun => {
                Request::Follow { from: Start::After(last), cursor: None, is_once: self.is_once }
            }
            _ => Request::Follow { from: self.from, cursor: self.cursor.clone(), is_once: self.is_once },
        };
        let mut reply = match client.open(&request).await {
            Ok(reply) => reply,
            Err(error) => return Ok(Ended::Lost(error)),
        };
        loop {
            let piece = match reply.next_within(SILENCE_MAX).await {
                Ok(Some(piece)) => piece,
                Ok(None) if self.is_once => return Ok(Ended::Complete),
                Ok(None) => return Ok(Ended::Lost(ClientError::Stopping)),
                Err(error) => return Ok(Ended::Lost(error)),
            };
            self.is_begun = true;
            let text = self.take(&String::from_utf8_lossy(&piece))?;
            if !text.is_empty() {
                self.output.send(text).await?;
                if let Err(error) = self.move_cursor(client).await {
                    return Ok(Ended::Lost(error));
                }
            }
            client.keep_fresh().await;
        }
    }

    /// Tells the collector what has been written.
    async fn move_cursor(&mut self, client: &Client) -> Result<(), ClientError> {
        let (Some(name), Some(seq)) = (&self.cursor, self.last) else { return Ok(()) };
        if self.moved_to != Some(seq) {
            client.tell(&Request::MoveCursor { name: name.clone(), seq }).await?;
            self.moved_to = Some(seq);
        }
        Ok(())
    }

    /// What to print of some lines.
    fn take(&mut self, lines: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        for line in lines.lines() {
            let Place { seq, event } = serde_json::from_str(line).map_err(ClientError::Unreadable)?;
            let is_heartbeat = event == "heartbeat";
            match self.last {
                Some(last) if !is_heartbeat && seq <= last => continue,
                Some(last) if !is_heartbeat && seq > last + 1 => {
                    note(&format!(
                        "events {} to {} are gone: the collector had deleted them before they were read",
                        last + 1,
                        seq - 1
                    ));
                }
                _ => {}
            }
            self.last = self.last.max(Some(seq));
            text.push_str(&self.show(line)?);
        }
        Ok(text)
    }

    fn show(&mut self, line: &str) -> anyhow::Result<String> {
        if self.output.format == Format::Jsonl {
            return Ok(machine::json(line));
        }
        let event: EventLine = serde_json::from_str(line).map_err(ClientError::Unreadable)?;
        match self.output.format {
            _ if event.is_heartbeat() => Ok(String::new()),
            Format::Csv => Ok(event::csv_row(&event)?),
            _ => Ok(self.columns.line(&event, &self.output.look())),
        }
    }
}

/// Where a line stands in the stream.
#[derive(Deserialize)]
struct Place {
    seq: u64,
    event: String,
}

/// Tries until it is back.
async fn reconnect(mut credentials: Credentials) -> anyhow::Result<Client> {
    let mut backoff = Backoff::try_new(RETRY_FIRST, RETRY_LAST)?;
    loop {
        tokio::time::sleep(backoff.next(fastrand::f64())).await;
        match Client::connect_as(&credentials).await {
            Ok(client) => return Ok(client),
            Err(error) if error.is_passing() => tracing::debug!(error = %ErrorChain(&error), "not back yet"),
            Err(error) => return Err(error.into()),
        }
        credentials = credentials.refreshed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::output::Color;

    fn stream() -> Stream {
        let output = Output::new(Format::Jsonl, Color::Never);
        Stream {
            from: Start::Now,
            cursor: None,
            is_once: false,
            is_begun: false,
            last: None,
            moved_to: None,
            output,
            columns: Columns::default(),
        }
    }

    fn line(seq: u64, event: &str) -> String {
        format!("{{\"schema\":1,\"seq\":{seq},\"event\":\"{event}\"}}\n")
    }

    #[test]
    fn an_event_that_comes_again_is_printed_once() {
        let mut stream = stream();
        assert_eq!(stream.take(&line(4, "heartbeat")).unwrap(), line(4, "heartbeat"));
        let both = line(5, "firing") + &line(6, "resolved");
        assert_eq!(stream.take(&both).unwrap(), both);
        let again = line(6, "resolved") + &line(7, "firing");
        assert_eq!(stream.take(&again).unwrap(), line(7, "firing"));
        assert_eq!(stream.take(&line(7, "heartbeat")).unwrap(), line(7, "heartbeat"));
        assert_eq!(stream.last, Some(7));
    }

    #[test]
    fn what_a_newer_collector_adds_is_passed_on() {
        let line = "{\"schema\":1,\"seq\":1,\"event\":\"escalated\",\"to\":\"the night shift\"}\n";
        assert_eq!(stream().take(line).unwrap(), line);
    }

    #[test]
    fn a_line_that_is_no_event_is_an_error() {
        assert!(stream().take("{\"seq\":\"one\"}\n").is_err());
    }
}

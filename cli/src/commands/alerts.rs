//! `belfry alerts`

use std::{process::ExitCode, str::FromStr};

use super::{Global, duration, follow, millis, with_client};
use crate::{
    api::{Request, Start},
    exit::UsageError,
    render::{
        Look,
        alert::{self, StandingAlert},
        listing::{self, Listed},
        machine::field,
        output::Format,
    },
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only alerts in this state; may be given more than once
    #[arg(long, hide_possible_values = true, value_name = "pending|firing|recovering", conflicts_with_all = ["follow", "since", "cursor"])]
    state: Vec<State>,
    /// Stream what happens to alerts, one JSON object a line unless `-o table` or `-o csv`; goes on by itself after a lost connection
    #[arg(long)]
    follow: bool,
    /// Begin behind the event with this number, with the events of this last time, or with what happens from now on
    ///
    /// Without --follow: print those events and end.
    #[arg(long, value_name = "SEQ|5m|now")]
    since: Option<Since>,
    /// Keep on the collector, under this name, what was delivered, and go on from there the next time
    ///
    /// A cursor that is new begins now. With --since, that is where it goes on from.
    #[arg(long, value_name = "NAME")]
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum State {
    Pending,
    Firing,
    Recovering,
}

/// Where the events begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since(Start);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self(Start::Now));
        }
        if let Ok(seq) = text.parse() {
            return Ok(Self(Start::After(seq)));
        }
        match duration(text) {
            Ok(ago) => Ok(Self(Start::Ago(millis(ago)))),
            Err(_) => Err("it must be the number of an event, a time such as 5m or 1h, or `now`".to_string()),
        }
    }
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let is_stream = args.follow || args.since.is_some() || args.cursor.is_some();
    if !is_stream {
        return standing(global, args);
    }
    let is_once = !args.follow;
    let from = match (args.since, &args.cursor) {
        (Some(Since(Start::Now)), _) if is_once => {
            return Err(UsageError("`--since now` shows what is to come: add --follow".into()).into());
        }
        (Some(Since(from)), _) => from,
        (None, Some(_)) => Start::Cursor,
        (None, None) => Start::Now,
    };
    follow::execute(global, from, args.cursor.clone(), is_once)
}

fn standing(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let word = |state: &State| match state {
        State::Pending => "pending".to_string(),
        State::Firing => "firing".to_string(),
        State::Recovering => "recovering".to_string(),
    };
    let request = Request::Alerts { states: args.state.iter().map(word).collect() };
    let output = global.output(Format::Table);
    with_client(global, async |client| {
        listing::print::<StandingAlert>(&client.text(&request).await?, &output)?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Listed for StandingAlert {
    const CSV_NAMES: &'static [&'static str] = &[
        "state",
        "rule",
        "severity",
        "fingerprint",
        "labels",
        "annotations",
        "active_at",
        "fired_at",
        "no_data_since",
    ];

    fn csv_row(&self) -> Vec<String> {
        let object = |map| serde_json::to_string(map).unwrap_or_default();
        vec![
            self.state.clone(),
            self.rule.clone(),
            field(self.severity.as_ref()),
            self.fingerprint.clone(),
            object(&self.labels),
            object(&self.annotations),
            self.active_at.clone(),
            field(self.fired_at.as_ref()),
            field(self.no_data_since.as_ref()),
        ]
    }

    fn table(list: &[Self], look: &Look) -> String {
        alert::table(list, look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_at_a_number_a_time_or_now() {
        let since = |text: &str| text.parse::<Since>().map(|since| since.0);
        assert_eq!(since("0"), Ok(Start::After(0)));
        assert_eq!(since("41"), Ok(Start::After(41)));
        assert_eq!(since("5m"), Ok(Start::Ago(300_000)));
        assert_eq!(since("now"), Ok(Start::Now));
        assert!(since("yesterday").is_err());
    }
}

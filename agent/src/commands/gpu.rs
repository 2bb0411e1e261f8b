//! `belfry-agent gpu`

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use super::output::{Output, print_one, rfc3339};
use crate::{config::Settings, gpu::Pause};

/// The agent notices within a second; a worker ends within another, unless its driver hangs.
const RELEASE_MAX: Duration = Duration::from_secs(10);
/// A pause that ends by itself: not before the GPUs are let go, and not after it was forgotten.
const LENGTH_MIN: Duration = Duration::from_secs(10);
const LENGTH_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

const COLUMNS: &[&str] = &["is_paused", "until"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lets go of every GPU, and returns when none is held any more: before a reset, a change of MIG, a reload of the driver
    Pause {
        /// Resume by itself after so long, such as 30m: from 10s to 30d
        #[arg(long = "for", value_name = "TIME", value_parser = pause_length)]
        length: Option<Duration>,
    },
    /// Reads the GPUs again
    Resume,
}

fn pause_length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| format!("{error}: write it as 10s, 30m or 2h"))?;
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Err("a pause lasts from 10s to 30d; without `--for`, until `gpu resume`".to_owned());
    }
    Ok(length)
}

pub(super) fn execute(args: &Args, settings: &Settings, output: Output) -> anyhow::Result<ExitCode> {
    let directory = &settings.state_directory;
    if !directory.is_dir() {
        bail!("{} is not there: is this the agent's state directory? See --state-dir", directory.display());
    }
    let pause = Pause::new(directory);
    let denied = || format!("failed to write in {}: run this as root", directory.display());
    match args.command {
        Command::Pause { length } => {
            let until = pause.request(length).with_context(denied)?;
            if !pause.wait_until_released(RELEASE_MAX).with_context(denied)? {
                bail!(
                    "a worker still holds GPUs after {} s: its driver hangs. See `belfry-agent doctor`; the pause stands",
                    RELEASE_MAX.as_secs()
                );
            }
            let length =
                length.map(|length| format!(" for {}", humantime::format_duration(length))).unwrap_or_default();
            let words = format!("paused{length}: no GPU is held. `belfry-agent gpu resume` ends it");
            let object = json!({"is_paused": true, "until": until.map(rfc3339)});
            print_one(output, &words, &object, COLUMNS)?;
        }
        Command::Resume => {
            let was_paused = pause.end().with_context(denied)?;
            let words = if was_paused { "resumed" } else { "was not paused" };
            print_one(output, words, &json!({"is_paused": false, "until": null}), COLUMNS)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_cannot_be_meant_is_refused() {
        assert_eq!(pause_length("30m"), Ok(Duration::from_secs(1800)));
        for text in ["0s", "1ms", "9s", "31d", "9000y", "soon", ""] {
            assert!(pause_length(text).is_err(), "{text}");
        }
    }
}

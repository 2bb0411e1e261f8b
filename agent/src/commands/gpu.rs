//! `belfry-agent gpu`

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::output::output;
use crate::{config::Settings, gpu::Pause};

/// The agent notices within a second; a worker ends within another, unless its driver hangs.
const RELEASE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lets go of every GPU, and comes back when none is held any more: before a reset, a change of MIG, a reload of the driver
    Pause {
        /// Resume by itself after so long, such as 30m
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        length: Option<Duration>,
    },
    /// Reads the GPUs again
    Resume,
}

pub(super) fn execute(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let directory = &settings.state_directory;
    if !directory.is_dir() {
        bail!("{} is not there: is this the agent's state directory? See --state-dir", directory.display());
    }
    let pause = Pause::new(directory);
    let denied = || format!("failed to write in {}: run this as root", directory.display());
    match args.command {
        Command::Pause { length } => {
            pause.request(length).with_context(denied)?;
            if !pause.wait_until_released(RELEASE_MAX).with_context(denied)? {
                bail!(
                    "a worker still holds GPUs after {} s: its driver hangs. See `belfry-agent doctor`; the pause stands",
                    RELEASE_MAX.as_secs()
                );
            }
            writeln!(output(), "paused: no GPU is held. `belfry-agent gpu resume` ends it")?;
        }
        Command::Resume => {
            let was_paused = pause.end().with_context(denied)?;
            writeln!(output(), "{}", if was_paused { "resumed" } else { "was not paused" })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

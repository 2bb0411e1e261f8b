//! `belfry-agent run`

use std::process::ExitCode;

use belfry_common::error_chain::ErrorChain;
use tracing::{error, info};

use super::{log_level, runtime, settings, start_logging};
use crate::{
    Cli,
    app::{self, Outcome},
    config::Settings,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop when standard input ends: for whoever starts the agent as its child and may die before it
    #[arg(long, hide = true)]
    with_parent: bool,
}

pub(super) fn execute(cli: &Cli, args: &Args, mut current: Settings) -> anyhow::Result<ExitCode> {
    let level = start_logging(log_level(cli, &current));
    let runtime = runtime()?;
    let parent = if args.with_parent { app::Parent::watch()? } else { app::Parent::none() };
    while runtime.block_on(app::run(&current, &parent))? == Outcome::Reload {
        // A reload is a short stop: everything can change, and nothing is lost, for the spool has it.
        match settings(cli) {
            Ok(new) => {
                info!("configuration read again");
                current = new;
                if let Err(error) = level.reload(log_level(cli, &current)) {
                    error!(error = %ErrorChain(&error), "log level cannot be changed");
                }
            }
            Err(error) => error!(error = format!("{error:#}"), "configuration refused: going on with the one before"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

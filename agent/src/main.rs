//! The agent of Belfry: samples a node's counters and streams them to the collector.

mod allocator;
mod app;
mod commands;
mod config;
mod gpu;
mod itself;
mod lanes;
mod outbox;
mod readings;
mod samplers;
mod sampling;
mod schedule;
mod spool;
mod statistics;
mod uplink;
mod urgent;

use std::{io, path::PathBuf, process::ExitCode};

use belfry_common::identity::TokenError;
use clap::{Parser, Subcommand};

/// Samples this node's counters and streams them to a Belfry collector.
#[derive(Debug, Parser)]
#[command(name = "belfry-agent", version, arg_required_else_help = true)]
struct Cli {
    /// Configuration file [default: /etc/belfry/agent.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where identity and spool are kept [default: /var/lib/belfry-agent]
    #[arg(long, visible_alias = "identity", global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How to print: tables are for people and may change, the rest is for scripts and does not
    #[arg(short, long, global = true, value_enum, default_value_t = commands::Format::Table)]
    output: commands::Format,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t = clap::ColorChoice::Auto)]
    color: clap::ColorChoice,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Samples and sends until it is stopped, or its terminal is closed; SIGHUP reads the configuration again
    Run(commands::run::Args),
    /// Gives this node an identity, with a token from `belfry token create`
    Join(commands::join::Args),
    /// Prints what would be sent, without a collector
    Sample(commands::sample::Args),
    /// Checks this installation and says what to mend
    Doctor(commands::doctor::Args),
    /// Lets go of the GPUs for a while, so that they can be reset or reconfigured
    Gpu(commands::gpu::Args),
    /// Reads the GPUs for an agent, which starts it
    #[command(hide = true)]
    GpuWorker(gpu::worker::Args),
}

fn main() -> ExitCode {
    allocator::keep_little();
    let cli = Cli::parse();
    match commands::execute(&cli) {
        Ok(code) => code,
        // Whoever reads has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // The only thing left to do with a broken standard error is nothing.
            drop(commands::print_error(&error));
            // A token is copied by hand: one that is damaged is wrong usage.
            ExitCode::from(if error.is::<TokenError>() { 2 } else { 1 })
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

//! Watches a fleet of GPU and CPU nodes: the collector and its command line.

mod access;
mod alerting;
mod alerts;
mod allocator;
mod api;
mod backup;
mod client;
mod collector;
mod commands;
mod config;
mod credentials;
mod exchange;
mod exit;
mod fleet;
mod glob;
mod gpu_jobs;
mod housekeeping;
mod http;
mod hub;
mod ingest;
mod instant;
mod listen;
mod maintenance;
mod own_counts;
mod paths;
mod priority;
mod queries;
mod recorded;
mod rehearsal;
mod render;
mod rule_files;
mod rules;
mod series;
mod serve;
mod services;
mod simulate;
mod state;
mod store_keys;
mod writer;
mod xid;
mod xid_files;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::CompleteEnv;

/// Batches are made on one thread and let go of on another, thousands a second: the C library's allocator takes a seventh of the
/// collector's time more for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Watches a fleet of GPU and CPU nodes.
#[derive(Debug, Parser)]
#[command(name = "belfry", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: commands::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a collector and an agent on this machine and shows the status: the place to begin
    Up(commands::up::Args),
    /// Runs the collector
    Collect(commands::collect::Args),
    /// Shows the fleet, or one node with its GPUs, processes and alerts
    Status(commands::status::Args),
    /// Shows samples as they arrive
    Tail(commands::tail::Args),
    /// Evaluates a PromQL expression: at an instant, or over a range as a plot
    Query(commands::query::Args),
    /// Shows the alerts that stand, or follows what happens to them
    Alerts(commands::alerts::Args),
    /// Lists rules and checks rule files
    Rules(commands::rules::Args),
    /// Lists nodes and takes their rights away
    Nodes(commands::nodes::Args),
    /// Makes, lists and revokes the tokens with which nodes and people join
    Token(commands::token::Args),
    /// Gives this user an identity, with a token from `belfry token create`
    Join(commands::join::Args),
    /// Puts the load of many nodes on a collector, over the real protocol
    Simulate(commands::simulate::Args),
    /// Shows, checks and exports what is on a collector's disk
    Store(commands::store::Args),
    /// Checks this installation and says what to mend
    Doctor(commands::doctor::Args),
    /// Says what an error means and what to do about it
    Explain(commands::explain::Args),
}

fn main() -> ExitCode {
    // A shell that asks what could follow gets an answer, and nothing else is done.
    CompleteEnv::with_factory(Cli::command).complete();
    let cli = Cli::parse();
    exit::code(commands::execute(&cli))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::Global, render::output::Format};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_every_command_understands_may_stand_before_or_behind_it() {
        for line in ["belfry -o json --collector h:1 status gpu-01", "belfry status gpu-01 -o json --collector h:1"] {
            let cli = parse(line).unwrap();
            let Global { collector, output, .. } = cli.global;
            assert_eq!((collector.as_deref(), output), (Some("h:1"), Some(Format::Json)), "{line}");
        }
    }

    #[test]
    fn wrong_words_are_refused() {
        for line in [
            "belfry",
            "belfry status --watch --check",
            "belfry alerts --follow --state firing",
            "belfry alerts --since yesterday",
            "belfry alerts --state gone",
            "belfry token",
            "belfry token create --uses 0",
            "belfry token create --role king",
            "belfry tail --since 5",
            "belfry rules check",
            "belfry -o xml status",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

//! `belfry rules`

mod backtest;
mod check;
mod list;
mod test;

use std::{path::PathBuf, process::ExitCode};

use belfry_common::error_chain::ErrorChain;

use super::Global;
use crate::{
    render::output::Format,
    rules::{self, Problem, Severity, Source},
};

pub(super) use list::RuleRow;

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists the collector's rules and how they fare
    List,
    /// Checks rule files, all together as the collector would load them; needs no collector
    Check(check::Args),
    /// Runs tests of rules, in the form of promtool's unit tests; needs no collector
    Test(test::Args),
    /// Tells which alerts would have fired over the history that the collector has
    Backtest(backtest::Args),
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    match &args.command {
        Command::List => list::execute(global, &output),
        Command::Check(args) => check::execute(args, &output),
        Command::Test(args) => test::execute(args, &output),
        Command::Backtest(args) => backtest::execute(global, args, &output),
    }
}

/// The files that can be read, and what is wrong with the others.
fn read(files: &[PathBuf]) -> (Vec<Source>, Vec<Problem>) {
    let (mut sources, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match rules::read(std::slice::from_ref(file)) {
            Ok(read) => sources.extend(read),
            Err(error) => problems.push(Problem {
                severity: Severity::Error,
                file: file.display().to_string(),
                position: None,
                group: None,
                rule: None,
                message: ErrorChain(&error).to_string(),
                help: "name files that are there and can be read".into(),
            }),
        }
    }
    (sources, problems)
}

//! `belfry explain`

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;

use super::Global;
use crate::{
    render::{explain, output::Format},
    xid_files,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// An error that NVIDIA's driver reports by number: `NVRM: Xid (PCI:0000:3b:00): 79`
    Xid {
        code: u32,
        /// A file that goes before the catalogue that ships
        #[arg(long, value_name = "FILE", default_value = xid_files::LOCAL)]
        catalogue: PathBuf,
    },
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    let Command::Xid { code, catalogue } = &args.command;
    let catalogue = xid_files::load(catalogue)?;
    let Some(xid) = catalogue.of(*code) else {
        bail!("XID {code} is not in the catalogue: NVIDIA documents no such error, or a later driver brought it");
    };
    output.print(&explain::xid(xid, output.format, &output.look())?)?;
    Ok(ExitCode::SUCCESS)
}

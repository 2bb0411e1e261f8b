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
        /// Its number: `79` or `XID79`
        #[arg(value_name = "NUMBER", value_parser = code)]
        code: u32,
        /// A file that goes before the catalogue that ships
        #[arg(long, value_name = "FILE", default_value = xid_files::LOCAL)]
        catalogue: PathBuf,
    },
}

fn code(text: &str) -> Result<u32, String> {
    let has_word = text.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("xid"));
    let number = if has_word { text.get(3..).unwrap_or_default().trim_start() } else { text };
    number.parse().map_err(|_| "the number of an error is wanted, such as 79".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_named_as_people_name_it() {
        for text in ["79", "XID79", "Xid 79", "xid  79"] {
            assert_eq!(code(text), Ok(79), "{text}");
        }
        for text in ["", "xid", "-1", "0x4f", "99999999999", "é79"] {
            assert!(code(text).is_err(), "{text}");
        }
    }
}

//! `belfry store backup`: a copy of the data directory, taken while the collector runs.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::Context as _;
use belfry_common::{clock, error_chain::ErrorChain};
use belfry_store::Keys;
use serde::{Deserialize, Serialize};

use super::{DamageRow, copying, print, progress};
use crate::{
    api, backup,
    exit::note,
    render::{
        Look,
        listing::Listed,
        output::{Format, Output},
        text::escape,
        units::{bytes, count},
    },
};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Where backups are, side by side and each named by its time; best on another disk
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Then remove the oldest ones, until so many are left
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroUsize>,
}

/// Takes a backup until it is done or told to stop; whether nothing was damaged.
pub(super) fn run(
    args: &Args,
    (data, keys): (&Path, &Keys),
    output: Output,
    stop: &AtomicBool,
) -> anyhow::Result<bool> {
    let bar = progress(0, "reading");
    let taken = backup::take((data, keys), &args.directory, args.keep, clock::now(), &copying(&bar, stop));
    bar.finish_and_clear();
    let taken = taken.context("no backup was taken")?;
    let row = Row {
        backup: taken.path.display().to_string(),
        created: api::time(taken.created),
        files: taken.files,
        bytes: taken.bytes,
        new_bytes: taken.bytes_new,
    };
    print(&[row], &output)?;
    if taken.removed > 0 {
        note(&format!("{} removed", count(taken.removed, "older backup")));
    }
    for (block, error) in &taken.damaged {
        note(&format!("{block} is not in it: {}; `belfry store repair` moves it aside", ErrorChain(error)));
    }
    Ok(taken.damaged.is_empty())
}

/// Compares a backup with its manifest; whether nothing was damaged.
pub(super) fn verify(backup: &Path, output: Output, stop: &AtomicBool) -> anyhow::Result<bool> {
    let bar = progress(0, "verifying");
    let verified = backup::verify(backup, &copying(&bar, stop));
    bar.finish_and_clear();
    let verified = verified?;
    let damage = "it is missing, or not what was copied";
    let row = |file: &String| DamageRow { block: file.clone(), damage: damage.to_owned() };
    if verified.damaged.is_empty() && output.format == Format::Table {
        let files = count(verified.files, "file");
        output.print(&format!("{files}, {}: all as they were copied\n", bytes(verified.bytes as f64)))?;
    } else {
        print(&verified.damaged.iter().map(row).collect::<Vec<_>>(), &output)?;
    }
    Ok(verified.damaged.is_empty())
}

/// A backup.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    backup: String,
    created: String,
    files: usize,
    bytes: u64,
    /// Of these, what the backup before does not have.
    new_bytes: u64,
}

impl Listed for Row {
    const CSV_NAMES: &'static [&'static str] = &["backup", "created", "files", "bytes", "new_bytes"];

    fn csv_row(&self) -> Vec<String> {
        let numbers = [self.files as u64, self.bytes, self.new_bytes].map(|number| number.to_string());
        [self.backup.clone(), self.created.clone()].into_iter().chain(numbers).collect()
    }

    fn table(list: &[Self], _look: &Look) -> String {
        let line = |row: &Self| {
            let [all, new] = [row.bytes, row.new_bytes].map(|number| bytes(number as f64));
            format!("{}: {}, {all}, of which {new} are new\n", escape(&row.backup), count(row.files, "file"))
        };
        list.iter().map(line).collect()
    }
}

//! `belfry store restore`: a backup becomes a data directory.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{copying, print, progress};
use crate::{
    api, backup,
    exit::note,
    render::{
        Look,
        listing::Listed,
        output::Output,
        text::escape,
        units::{bytes, count},
    },
};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// A backup, or the directory of backups, of which the newest is taken
    #[arg(value_name = "DIR")]
    backup: PathBuf,
    /// Leave out blocks that are damaged in the backup, instead of restoring nothing
    #[arg(long)]
    skip_damaged: bool,
}

/// Restores until it is done or told to stop; whether nothing was damaged.
pub(super) fn run(args: &Args, data: &Path, output: Output, stop: &AtomicBool) -> anyhow::Result<bool> {
    let bar = progress(0, "copying");
    let restored = backup::restore(&args.backup, data, args.skip_damaged, &copying(&bar, stop));
    bar.finish_and_clear();
    let restored = restored.context("the backup is not restored")?;
    let created = api::time(restored.created);
    let row = Row {
        data_directory: data.display().to_string(),
        backup: restored.backup.display().to_string(),
        created: created.clone(),
        files: restored.files,
        bytes: restored.bytes,
    };
    print(&[row], &output)?;
    note(&format!(
        "all is as of {created}: who was revoked after that is admitted again; agents send again what they still have"
    ));
    for file in &restored.damaged {
        note(&format!("{file} is damaged in the backup, and left out"));
    }
    Ok(restored.damaged.is_empty())
}

/// A data directory that was restored.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    data_directory: String,
    backup: String,
    created: String,
    files: usize,
    bytes: u64,
}

impl Listed for Row {
    const CSV_NAMES: &'static [&'static str] = &["data_directory", "backup", "created", "files", "bytes"];

    fn csv_row(&self) -> Vec<String> {
        let numbers = [self.files as u64, self.bytes].map(|number| number.to_string());
        [self.data_directory.clone(), self.backup.clone(), self.created.clone()].into_iter().chain(numbers).collect()
    }

    fn table(list: &[Self], _look: &Look) -> String {
        let line = |row: &Self| {
            let files = count(row.files, "file");
            let [to, from] = [&row.data_directory, &row.backup].map(|path| escape(path));
            format!("{to}: {files}, {}, from {from}\n", bytes(row.bytes as f64))
        };
        list.iter().map(line).collect()
    }
}

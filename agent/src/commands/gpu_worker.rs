//! `belfry-agent gpu-worker`, which only an agent starts.

use std::process::ExitCode;

use tracing::level_filters::LevelFilter;

use super::start_logging;
use crate::gpu::worker;

pub(super) fn execute(args: &worker::Args) -> anyhow::Result<ExitCode> {
    drop(start_logging(LevelFilter::INFO));
    worker::run(args)?;
    Ok(ExitCode::SUCCESS)
}

//! `belfry tail`

use std::{process::ExitCode, time::Duration};

use clap_complete::ArgValueCompleter;

use super::{Global, completion, duration, millis, until_unwanted, with_client};
use crate::{
    api::{Request, TailLine},
    client::{Client, ClientError, Reply},
    exit::note,
    render::{
        machine,
        output::{Format, Output},
        sample::{self, Columns, Line},
    },
};

/// Most samples come every second, some every ten.
const PATIENCE: Duration = Duration::from_secs(12);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to show: PromQL selectors such as `gpu_temperature_celsius{gpu="3"}`, or globs of metric names such as `gpu_*` [default: everything]
    #[arg(value_name = "SELECTOR", add = ArgValueCompleter::new(completion::expression))]
    selectors: Vec<String>,
    /// Only this node's samples
    #[arg(long, add = ArgValueCompleter::new(completion::node))]
    node: Option<String>,
    /// Begin with the samples of this last time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = match global.output(Format::Table) {
        // A stream is no document: each line is one.
        Output { format: Format::Json, .. } => global.output_as(Format::Jsonl),
        output => output,
    };
    with_client(global, async |client| until_unwanted(&output, stream(client, args, &output)).await)
}

async fn stream(client: &Client, args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    let since_ms = args.since.map(millis);
    let request = Request::Tail { selectors: args.selectors.clone(), node: args.node.clone(), since_ms };
    let mut reply = client.open(&request).await?;
    let mut columns = Columns::default();
    if output.format == Format::Csv {
        output.send(machine::csv(&sample::CSV_NAMES, [])?).await?;
    }
    let mut is_silent = true;
    while let Some(piece) = next(&mut reply, &mut is_silent).await? {
        let lines = String::from_utf8_lossy(&piece);
        let mut text = String::new();
        for line in lines.lines() {
            text.push_str(&render(line, output, &mut columns)?);
        }
        output.send(text).await?;
    }
    Err(ClientError::Stopping.into())
}

/// The next piece. The first is waited for in silence only for a while: who asks for what there is not shall hear of it.
async fn next(reply: &mut Reply, is_silent: &mut bool) -> Result<Option<Vec<u8>>, ClientError> {
    if std::mem::take(is_silent) {
        match tokio::time::timeout(PATIENCE, reply.next()).await {
            Ok(piece) => return piece,
            Err(_) => note(
                "no sample so far: nothing of that name is measured, or it is not due yet. What is made when it is read, such as \
                 gpu_job_info, does not come here",
            ),
        }
    }
    reply.next().await
}

/// A line in the form that was asked for.
fn render(line: &str, output: &Output, columns: &mut Columns) -> anyhow::Result<String> {
    if output.format == Format::Jsonl {
        return Ok(machine::json(line));
    }
    match Line::parse(line).map_err(ClientError::Unreadable)? {
        Line::Sample(sample) => show(&sample, output, columns),
        Line::Lost(batches) => {
            note(&format!("{batches} batches left out: more comes than is read here; select less"));
            Ok(String::new())
        }
    }
}

fn show(sample: &TailLine, output: &Output, columns: &mut Columns) -> anyhow::Result<String> {
    match output.format {
        Format::Csv => Ok(sample::csv_row(sample)?),
        _ => Ok(columns.line(sample, &output.look())),
    }
}

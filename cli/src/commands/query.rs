//! `belfry query`

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use belfry_common::{clock, error_chain::ErrorChain, model::Timestamp};
use belfry_promql::{Plan, PlanError};
use clap_complete::ArgValueCompleter;

use super::{
    Global, completion, duration, millis,
    times::{Moment, length_ms, step_within},
    with_client,
};
use crate::{
    api::{QueryAnswer, Request},
    client::{Client, ClientError},
    exit::{UsageError, note},
    render::{
        chart,
        output::{Format, Output},
        query,
    },
};

/// Up to this one, a step is short: nobody misses what is newer than its last multiple.
const SHORT_STEP_MS: i64 = 60_000;
/// Points of a plot: two for each character of a line.
const POINTS_PER_COLUMN: usize = 2;
/// Points where nothing is plotted: what Grafana asks for on a screen.
const POINTS: usize = 250;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to evaluate, such as `topk(10, gpu_utilization_ratio)`
    #[arg(value_name = "EXPR", add = ArgValueCompleter::new(completion::expression))]
    expression: String,
    /// At which time, or where the range ends: RFC 3339, seconds since 1970, or `5m` for five minutes ago [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    time: Option<Moment>,
    /// Over this last time, as a plot
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    range: Option<Duration>,
    /// How far the points of a range are apart [default: as far as the plot can show]
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "range")]
    step: Option<Duration>,
    /// Draw the range into this file, as SVG
    #[arg(long, value_name = "FILE", requires = "range")]
    svg: Option<PathBuf>,
    /// Draw the range into this file, as PNG
    #[arg(long, value_name = "FILE", requires = "range")]
    png: Option<PathBuf>,
    /// End the query after this time
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    timeout: Duration,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    let times = times(args, &output)?;
    with_client(global, async |client| show(client, args, times, &output).await)
}

/// Start, end and step of a range; of an instant at most the end.
fn times(args: &Args, output: &Output) -> anyhow::Result<(Option<i64>, Option<i64>, Option<i64>)> {
    let now = clock::now();
    let asked = args.time.map(|moment| moment.time(now));
    let Some(range) = args.range else { return Ok((None, asked.map(Timestamp::as_millis), None)) };
    if args.step.is_some_and(|step| step < Duration::from_millis(1)) {
        return Err(UsageError("--step must be at least 1ms".into()).into());
    }
    let step_ms = length_ms(args.step.unwrap_or_else(|| step(range, output)));
    // Points at whole multiples of a short step: the same range asked for again a second later has the same ones, and one more. A long step
    // would leave out what is new.
    let is_short = args.step.is_none() && step_ms <= SHORT_STEP_MS;
    let newest_ms = if is_short { now.as_millis().div_euclid(step_ms) * step_ms } else { now.as_millis() };
    let end_ms = asked.map_or(newest_ms, Timestamp::as_millis);
    Ok((Some(end_ms.saturating_sub(length_ms(range))), Some(end_ms), Some(step_ms)))
}

/// Writes the pictures that are asked for of a range.
fn draw(args: &Args, range: (i64, i64), answer: &QueryAnswer) -> anyhow::Result<()> {
    let (chart, show) = query::chart(&args.expression, range, answer);
    let write = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).with_context(|| format!("failed to write `{}`", path.display()))?;
        note(&format!("{}: {} series", path.display(), answer.series.len()));
        anyhow::Ok(())
    };
    if let Some(path) = &args.svg {
        write(path, chart::svg(&chart, &show).as_bytes())?;
    }
    if let Some(path) = &args.png {
        write(path, &chart::png(&chart, &show)?)?;
    }
    Ok(())
}

async fn show(
    client: &Client,
    args: &Args,
    (start_ms, end_ms, step_ms): (Option<i64>, Option<i64>, Option<i64>),
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let (expression, timeout_ms) = (args.expression.clone(), millis(args.timeout));
    let request = Request::Query { expression, start_ms, end_ms, step_ms, timeout_ms };
    let answer = client.query(&request, args.timeout).await.map_err(|error| pointed(&args.expression, error))?;
    let is_drawn = args.svg.is_some() || args.png.is_some();
    if let (true, Some(start_ms), Some(end_ms)) = (is_drawn, start_ms, end_ms) {
        draw(args, (start_ms, end_ms), &answer)?;
    } else {
        output.print(&match output.format {
            Format::Table => query::table(&args.expression, &answer, &output.look()),
            Format::Json => query::document(&answer)?,
            Format::Jsonl => query::lines(&answer)?,
            Format::Csv => query::csv(&answer)?,
        })?;
    }
    // JSON has them in it.
    if is_drawn || output.format != Format::Json {
        answer.warnings.iter().chain(&answer.infos).for_each(|remark| note(remark));
    }
    Ok(ExitCode::SUCCESS)
}

/// The error with the place of the mistake in the expression, if that is what the collector says.
fn pointed(expression: &str, error: ClientError) -> anyhow::Error {
    let said = ErrorChain(&error).to_string();
    let mistake = Plan::parse(expression).err().filter(|mistake| said.contains(&mistake.to_string()));
    match mistake.as_ref().and_then(PlanError::span) {
        Some(span) => anyhow::Error::from(error)
            .context(format!("the expression is not valid:\n{}", query::pointer(expression, span))),
        None => error.into(),
    }
}

/// The least step of which not more than fit go into a range.
fn step(range: Duration, output: &Output) -> Duration {
    let points = match output.format {
        Format::Table => output.look().width.map_or(POINTS, |width| width.max(20) * POINTS_PER_COLUMN),
        _ => POINTS,
    };
    step_within(range, points as u64)
}

//! `belfry query`

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use belfry_common::clock;
use clap_complete::ArgValueCompleter;

use super::{Global, completion, duration, millis, with_client};
use crate::{
    api::{QueryAnswer, Request},
    client::{Client, ClientError},
    exit::{UsageError, note},
    instant,
    render::{
        chart,
        output::{Format, Output},
        query,
    },
};

/// Beyond what the collector allows a query, so that its own words are heard.
const PATIENCE: Duration = Duration::from_secs(10);
const WEEK: u64 = 604_800;
/// Up to a step of a minute, points lie on its multiples.
const FINE_MS: i64 = 60_000;
/// Points of a plot: two for each character of a line.
const POINTS_PER_COLUMN: usize = 2;
/// Points where nothing is plotted: what Grafana asks for on a screen.
const POINTS: usize = 250;
/// Steps that people can do sums with, in seconds.
const STEPS: [u64; 19] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 604_800];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to evaluate, such as `topk(10, gpu_utilization_ratio)`
    #[arg(value_name = "EXPR", add = ArgValueCompleter::new(completion::expression))]
    expression: String,
    /// At which time, or where the range ends: RFC 3339, seconds since 1970, or `5m` for five minutes ago [default: now]
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, allow_hyphen_values = true)]
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

/// A time as it was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    At(i64),
    Ago(Duration),
}

impl Moment {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let ago = || duration(text.strip_suffix("ago").unwrap_or(text).trim()).ok();
        instant::parse(text)
            .map(Self::At)
            .or_else(|| ago().map(Self::Ago))
            .ok_or_else(|| "write it like 2026-11-23T14:03:27Z, 1795000000, or 5m for five minutes ago".to_owned())
    }

    pub(super) fn millis(self) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::Ago(ago) => clock::now().plus_millis(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)).as_millis(),
        }
    }
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    let (start_ms, end_ms, step_ms) = times(args, &output)?;
    let (expression, timeout_ms) = (args.expression.clone(), millis(args.timeout));
    let request = Request::Query { expression, start_ms, end_ms, step_ms, timeout_ms };
    with_client(global, async |client| show(client, &request, args, &output).await)
}

/// Start, end and step of a range; of an instant at most the end.
fn times(args: &Args, output: &Output) -> anyhow::Result<(Option<i64>, Option<i64>, Option<i64>)> {
    let end_ms = args.time.map(Moment::millis);
    let Some(range) = args.range else { return Ok((None, end_ms, None)) };
    if args.step.is_some_and(|step| step < Duration::from_millis(1)) {
        return Err(UsageError("--step must be at least 1ms".into()).into());
    }
    let length = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let step_ms = length(args.step.unwrap_or_else(|| step(range, output)));
    let asked_ms = end_ms;
    let now_ms = clock::now().as_millis();
    // Whole multiples: the same range asked for again a second later has the same points, and one more. Of a step that people would wait for
    // the last point is now.
    let is_fine = step_ms <= FINE_MS && args.step.is_none();
    let end_ms = asked_ms.unwrap_or(if is_fine { now_ms.div_euclid(step_ms) * step_ms } else { now_ms });
    Ok((Some(end_ms.saturating_sub(length(range))), Some(end_ms), Some(step_ms)))
}

/// Writes the pictures that are asked for.
fn draw(request: &Request, args: &Args, answer: &QueryAnswer) -> anyhow::Result<()> {
    let Request::Query { start_ms: Some(from_ms), end_ms: Some(until_ms), .. } = request else {
        anyhow::bail!("only a range can be drawn");
    };
    let (chart, show) = query::chart(&args.expression, (*from_ms, *until_ms), answer);
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

async fn show(client: &Client, request: &Request, args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    let text = client.text_within(request, args.timeout.saturating_add(PATIENCE)).await?;
    let answer: QueryAnswer = serde_json::from_str(&text).map_err(ClientError::Unreadable)?;
    if args.svg.is_some() || args.png.is_some() {
        draw(request, args, &answer)?;
        answer.warnings.iter().chain(&answer.infos).for_each(|remark| note(remark));
        return Ok(ExitCode::SUCCESS);
    }
    let text = match output.format {
        Format::Table => query::table(&args.expression, &answer, &output.look()),
        Format::Json => query::document(&answer)?,
        Format::Jsonl => query::lines(&answer)?,
        Format::Csv => query::csv(&answer)?,
    };
    output.print(&text)?;
    if output.format != Format::Json {
        answer.warnings.iter().chain(&answer.infos).for_each(|remark| note(remark));
    }
    Ok(ExitCode::SUCCESS)
}

/// The least step of which not more than fit go into a range.
fn step(range: Duration, output: &Output) -> Duration {
    let points = match output.format {
        Format::Table => output.look().width.map_or(POINTS, |width| width.max(20) * POINTS_PER_COLUMN),
        _ => POINTS,
    };
    step_within(range, points as u64)
}

/// The least step that people can do sums with of which no more than so many go into a range.
pub(super) fn step_within(range: Duration, most: u64) -> Duration {
    let fits = |step: &u64| range.as_secs() / step <= most;
    let weeks = || (range.as_secs() / most.max(1)).div_ceil(WEEK).max(1) * WEEK;
    Duration::from_secs(STEPS.into_iter().find(fits).unwrap_or_else(weeks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_that_people_count_in() {
        let within = |seconds: u64, most: u64| step_within(Duration::from_secs(seconds), most).as_secs();
        assert_eq!((within(3_600, 160), within(3_600, 250), within(86_400, 250)), (30, 15, 600));
        assert_eq!((within(5 * 365 * 86_400, 250), within(60 * 365 * 86_400, 250)), (2 * WEEK, 13 * WEEK));
    }
}

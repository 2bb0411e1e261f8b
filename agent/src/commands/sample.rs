//! `belfry-agent sample`

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    process::ExitCode,
};

use belfry_common::{
    clock,
    model::{Batch, Reason, SeriesDefinition, Tick},
};
use serde_json::json;

use super::{
    Format,
    output::{Output, csv_line, output, rfc3339},
    runtime,
};
use crate::{app, config::Settings, sampling::Sampling, schedule::Schedule, statistics::Statistics};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Every sampler once, then end
    #[arg(long)]
    once: bool,
}

const COLUMNS: [&str; 5] = ["time", "metric", "labels", "value", "reason"];

pub(super) fn execute(args: &Args, settings: &Settings, output: Output) -> anyhow::Result<ExitCode> {
    match runtime()?.block_on(print(args, settings, output.format)) {
        // The reader has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => Ok(result.map(|()| ExitCode::SUCCESS)?),
    }
}

async fn print(args: &Args, settings: &Settings, format: Format) -> io::Result<()> {
    let statistics = Statistics::new();
    let mut sampling = Sampling::new(app::dry_samplers(settings, &statistics), settings, statistics)?;
    let mut schedule = Schedule::new(&sampling.intervals(), clock::now());
    let mut out = BufWriter::new(output());
    if format == Format::Csv {
        writeln!(out, "{}", COLUMNS.join(","))?;
    }
    loop {
        tokio::time::sleep(schedule.wait(clock::now())).await;
        let Some(round) = schedule.take(clock::now()) else { continue };
        let batch = if args.once { sampling.sample_all(&round).await } else { sampling.sample(&round).await };
        write_batch(&batch, format, &mut out)?;
        out.flush()?;
        if args.once {
            return Ok(());
        }
    }
}

/// Tables have `name{labels} value` on each line; JSON is one array for each round.
fn write_batch(batch: &Batch, format: Format, out: &mut impl Write) -> io::Result<()> {
    let samples = batch.ticks.iter().flat_map(|tick| {
        let readings = tick.layout.series.iter().zip(&tick.values);
        readings.map(move |(series, raw)| (tick, series, raw.value(series.metric.resolution)))
    });
    match format {
        Format::Table => {
            for (_, series, value) in samples {
                match value {
                    Ok(value) => writeln!(out, "{} {value}", display(series))?,
                    Err(reason) => writeln!(out, "{} ({})", display(series), reason.as_str())?,
                }
            }
            Ok(())
        }
        Format::Jsonl => {
            for (tick, series, value) in samples {
                serde_json::to_writer(&mut *out, &object(tick, series, value))?;
                writeln!(out)?;
            }
            Ok(())
        }
        Format::Csv => {
            for (tick, series, value) in samples {
                writeln!(out, "{}", csv_line(&object(tick, series, value), &COLUMNS))?;
            }
            Ok(())
        }
        Format::Json => {
            let all: Vec<_> = samples.map(|(tick, series, value)| object(tick, series, value)).collect();
            serde_json::to_writer_pretty(&mut *out, &all)?;
            writeln!(out)
        }
    }
}

/// One sample as `belfry tail -o jsonl` shows it.
fn object(tick: &Tick, series: &SeriesDefinition, value: Result<f64, Reason>) -> serde_json::Value {
    let time = rfc3339(tick.time);
    let labels: serde_json::Map<_, _> =
        labels(series).map(|(name, value)| (name.to_string(), value.to_string().into())).collect();
    let metric = &*series.metric.name;
    match value {
        Ok(value) => json!({"time": time, "metric": metric, "labels": labels, "value": value}),
        Err(reason) => {
            json!({"time": time, "metric": metric, "labels": labels, "value": null, "reason": reason.as_str()})
        }
    }
}

/// `name{label="value"}`, with everything that could act on a terminal escaped.
fn display(series: &SeriesDefinition) -> String {
    let labels: Vec<String> = labels(series).map(|(name, value)| format!("{name}={value:?}")).collect();
    if labels.is_empty() {
        series.metric.name.to_string()
    } else {
        format!("{}{{{}}}", series.metric.name, labels.join(","))
    }
}

fn labels(series: &SeriesDefinition) -> impl Iterator<Item = (&str, &str)> {
    series.metric.label_names.iter().zip(&series.label_values).map(|(name, value)| (&**name, &**value))
}

//! `belfry rules backtest`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use belfry_common::{clock, model::Timestamp};
use belfry_promql::{Labels, Sample, Series};
use serde::Serialize;

use super::read;
use crate::{
    alerts::{Number, Time},
    api::{self, QueryAnswer, Request},
    client::Client,
    commands::{
        Global, duration, millis,
        times::{Moment, length_ms, step_within},
        with_client,
    },
    exit::{self, UsageError, note},
    rehearsal::{Episode, History},
    render::{
        Look,
        machine::{self, field},
        output::{Format, Output},
        style::Style,
        table::{Cell, Column, Fit, Table},
        units::{age, count, short_time},
    },
    rules::{Checked, LoadError, Reads, Rule, RuleKind, RuleSet, duration::show},
};

/// One query goes over so many steps: what one answer holds is bounded.
const STEPS_PER_QUERY: i64 = 10_000;
/// A rule is evaluated so often, if nobody says how often.
const STEPS: u64 = 20_000;
/// Nor more often than this.
const STEP_MIN: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files in Prometheus' form; the collector need not have them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How far back to begin
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "7d")]
    since: Duration,
    /// When to end: RFC 3339, seconds since 1970, or `5m` for five minutes ago [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// How often to evaluate each rule: what is shorter is not seen [default: at most 20,000 times, never more often than each 15s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    step: Option<Duration>,
}

/// A rule and what would have come of it.
#[derive(Debug, Serialize)]
struct Outcome {
    file: String,
    group: String,
    rule: String,
    /// Why it could not be evaluated.
    error: Option<String>,
    /// How often an alert fired, and how often one began and ended before it did.
    fired: usize,
    pending_only: usize,
    firing_seconds: f64,
    longest_seconds: f64,
    episodes: Vec<Shown>,
}

/// An episode as documents tell it.
#[derive(Debug, Serialize)]
struct Shown {
    labels: BTreeMap<String, String>,
    active_at: Time,
    fired_at: Option<Time>,
    ended_at: Option<Time>,
    value: Number,
}

/// When rules are evaluated.
#[derive(Debug, Clone, Copy)]
struct Period {
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
}

pub(super) fn execute(global: &Global, args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    let (sources, unread) = read(&args.files);
    let Checked { rules, problems } = RuleSet::check(&sources);
    let Some(rules) = rules.filter(|_| unread.is_empty()) else {
        return Err(LoadError { problems: problems.into_iter().chain(unread).collect() }.into());
    };
    let period = period(args)?;
    warn_of_recorded(&rules);
    with_client(global, async |client| {
        let mut outcomes = Vec::new();
        for (_, group, rule) in rules.iter() {
            let RuleKind::Alert(alert) = &rule.kind else { continue };
            let mut history = History::new(rule.name(), alert, period.step_ms);
            let (seen_ms, error) = replay(client, rule, period, &mut history).await?;
            // What was not looked at says nothing of whether an alert ended.
            let seen = Period { end_ms: seen_ms, ..period };
            outcomes.push(outcome((&group.file, &group.name, rule.name()), error, &history.finish(seen_ms), seen));
        }
        output.print(&shown(&outcomes, period, output)?)?;
        let has_failed = outcomes.iter().any(|outcome| outcome.error.is_some());
        Ok(if has_failed { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
    })
}

fn period(args: &Args) -> anyhow::Result<Period> {
    let least = Duration::from_millis(1);
    if args.step.is_some_and(|step| step < least) || args.since < least {
        return Err(UsageError("--since and --step must be at least 1ms".into()).into());
    }
    let fitting = || step_within(args.since, STEPS).max(STEP_MIN);
    let step_ms = length_ms(args.step.unwrap_or_else(fitting));
    let now = clock::now();
    let end = args.until.map_or(now, |until| until.time(now));
    let end_ms = end.as_millis().div_euclid(step_ms) * step_ms;
    Ok(Period { start_ms: end_ms.saturating_sub(length_ms(args.since)), end_ms, step_ms })
}

/// What the files record is read as the collector recorded it, if it did.
fn warn_of_recorded(rules: &RuleSet) {
    let recorded: BTreeSet<&str> = rules
        .iter()
        .filter(|(_, _, rule)| matches!(rule.kind, RuleKind::Record(_)))
        .map(|(_, _, rule)| rule.name())
        .collect();
    let mut read: BTreeSet<String> = BTreeSet::new();
    for (_, _, rule) in rules.iter() {
        if let Reads::Named(names) = rule.reads() {
            read.extend(names.into_iter().filter(|name| recorded.contains(name.as_str())));
        }
    }
    if !read.is_empty() {
        let names: Vec<String> = read.into_iter().collect();
        note(&format!("{}: read as the collector recorded it, not as these files would", names.join(", ")));
    }
}

/// Goes through a period query by query; says up to when, and why a rule cannot be evaluated further.
async fn replay(
    client: &Client,
    rule: &Rule,
    period: Period,
    history: &mut History<'_>,
) -> anyhow::Result<(i64, Option<String>)> {
    let Period { start_ms, end_ms, step_ms } = period;
    let mut from_ms = start_ms;
    while from_ms <= end_ms {
        let to_ms = end_ms.min(from_ms.saturating_add(step_ms.saturating_mul(STEPS_PER_QUERY - 1)));
        let request = Request::Query {
            expression: rule.plan.expression().to_owned(),
            start_ms: Some(from_ms),
            end_ms: Some(to_ms),
            step_ms: Some(step_ms),
            timeout_ms: millis(TIMEOUT),
        };
        let answer = match client.query(&request, TIMEOUT).await {
            Ok(answer) => answer,
            Err(error) if error.is_invalid_request() => return Ok((from_ms - step_ms, Some(error.to_string()))),
            Err(error) => return Err(error.into()),
        };
        answer.warnings.iter().for_each(|warning| note(&format!("{}: {warning}", rule.name())));
        if let Err(error) = history.add(&series(answer)) {
            return Ok((to_ms, Some(error.to_string())));
        }
        from_ms = to_ms + step_ms;
    }
    Ok((end_ms, None))
}

fn series(answer: QueryAnswer) -> Vec<Series> {
    let of = |series: api::QuerySeries| Series {
        labels: Labels::from_pairs(series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
        samples: series.samples.iter().map(|(time_ms, value)| Sample { time_ms: *time_ms, value: value.0 }).collect(),
    };
    answer.series.into_iter().map(of).collect()
}

fn outcome(
    (file, group, rule): (&str, &str, &str),
    error: Option<String>,
    episodes: &[Episode],
    period: Period,
) -> Outcome {
    let seconds = |ms: i64| Duration::from_millis(ms.max(0).unsigned_abs()).as_secs_f64();
    let firing = || episodes.iter().map(|episode| episode.firing_ms(period.end_ms));
    let fired = episodes.iter().filter(|episode| episode.fired_at_ms.is_some()).count();
    let pending_only =
        episodes.iter().filter(|episode| episode.fired_at_ms.is_none() && episode.ended_at_ms.is_some()).count();
    let shown = |episode: &Episode| Shown {
        labels: episode.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        active_at: Time(episode.active_at_ms),
        fired_at: episode.fired_at_ms.map(Time),
        ended_at: episode.ended_at_ms.map(Time),
        value: Number(episode.value),
    };
    Outcome {
        file: file.to_owned(),
        group: group.to_owned(),
        rule: rule.to_owned(),
        error,
        fired,
        pending_only,
        firing_seconds: seconds(firing().sum()),
        longest_seconds: seconds(firing().max().unwrap_or_default()),
        episodes: episodes.iter().map(shown).collect(),
    }
}

const CSV_NAMES: [&str; 10] =
    ["file", "group", "rule", "labels", "active_at", "fired_at", "ended_at", "value", "error", "fired"];

fn shown(outcomes: &[Outcome], period: Period, output: &Output) -> anyhow::Result<String> {
    Ok(match output.format {
        Format::Table => table(outcomes, period, &output.look()),
        Format::Json => machine::document(outcomes)?,
        Format::Jsonl => machine::documents(outcomes)?,
        Format::Csv => machine::csv(&CSV_NAMES, outcomes.iter().flat_map(csv_rows))?,
    })
}

/// A row for each episode; for a rule that failed, one that says why.
fn csv_rows(outcome: &Outcome) -> Vec<Vec<String>> {
    let named = || vec![outcome.file.clone(), outcome.group.clone(), outcome.rule.clone()];
    let time = |time: &Time| api::time(Timestamp::from_millis(time.0));
    let episode = |episode: &Shown| {
        let labels = serde_json::to_string(&episode.labels).unwrap_or_default();
        let times =
            [Some(time(&episode.active_at)), episode.fired_at.as_ref().map(time), episode.ended_at.as_ref().map(time)];
        let rest = [episode.value.0.to_string(), String::new(), episode.fired_at.is_some().to_string()];
        [named(), vec![labels], times.map(field).to_vec(), rest.to_vec()].concat()
    };
    let failed = outcome.error.iter().map(|error| {
        let mut row = named();
        row.resize(CSV_NAMES.len() - 2, String::new());
        row.extend([error.clone(), String::new()]);
        row
    });
    failed.chain(outcome.episodes.iter().map(episode)).collect()
}

const COLUMNS: &[Column<'_>] = &[
    Column::left("ALERT", Fit::Flexible(20)),
    Column::right("FIRED", Fit::Always),
    Column::right("SERIES", Fit::Always),
    Column::right("FIRING FOR", Fit::Always),
    Column::right("LONGEST", Fit::Droppable),
    Column::right("LAST FIRED", Fit::Always),
    Column::right("ONLY PENDING", Fit::Droppable),
    Column::left("NOTE", Fit::Flexible(30)),
];

fn table(outcomes: &[Outcome], period: Period, look: &Look) -> String {
    let Period { start_ms, end_ms, step_ms } = period;
    let row = |outcome: &Outcome| {
        let fired = outcome.episodes.iter().filter(|episode| episode.fired_at.is_some());
        let series: BTreeSet<_> = fired.clone().map(|episode| &episode.labels).collect();
        let last = fired.filter_map(|episode| Some(episode.fired_at.as_ref()?.0)).max();
        let lasting = |seconds: f64| {
            let ms = Duration::from_secs_f64(seconds.max(0.0)).as_millis();
            Cell::known((seconds > 0.0).then(|| age(i64::try_from(ms).unwrap_or(i64::MAX))))
        };
        let is_firing = outcome.episodes.iter().any(|episode| episode.fired_at.is_some() && episode.ended_at.is_none());
        let style = if outcome.fired == 0 { Style::Dim } else { Style::Warning };
        let note = match &outcome.error {
            Some(error) => error.as_str(),
            None if is_firing => "still firing at the end",
            None => "",
        };
        vec![
            Cell::plain(&outcome.rule),
            Cell::new(&outcome.fired.to_string(), style),
            Cell::plain(&series.len().to_string()),
            lasting(outcome.firing_seconds),
            lasting(outcome.longest_seconds),
            Cell::known(last.map(|at| format!("{} ago", age(look.now.as_millis() - at)))),
            Cell::plain(&outcome.pending_only.to_string()),
            Cell::new(note, if outcome.error.is_some() { Style::Bad } else { Style::Dim }),
        ]
    };
    let fired: usize = outcomes.iter().map(|outcome| outcome.fired).sum();
    let alerts = count(outcomes.iter().filter(|outcome| outcome.fired > 0).count(), "rule");
    let table = Table { columns: COLUMNS, rows: outcomes.iter().map(row).collect() }.render(look);
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    let failed =
        if failed == 0 { String::new() } else { format!(", {} could not be evaluated", count(failed, "rule")) };
    let summary = format!(
        "{alerts} of {} would have fired, {} in all{failed}; evaluated each {} from {} to {}\n",
        outcomes.len(),
        count(fired, "alert"),
        show(step_ms),
        short_time(Timestamp::from_millis(start_ms)),
        short_time(Timestamp::from_millis(end_ms))
    );
    table + &summary
}

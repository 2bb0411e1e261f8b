//! Results of `belfry query`.

use std::collections::{BTreeMap, BTreeSet};

use belfry_common::model::Timestamp;
use belfry_promql::{METRIC_NAME, Span};
use serde::Serialize;

use super::{
    Look,
    chart::Chart,
    machine::{self, value as plain},
    plot::{Curve, Extent, Plot},
    style::{Style, Tint},
    table::{Cell, Column, Fit, Table},
    text::{self, cut, escape, width},
    units::{number, of_metric, short_time},
};
use crate::{
    alerts::{Number, Time},
    api::{QueryAnswer, QuerySeries, ResultType},
};

/// Width where nothing says how wide it is.
const WIDTH: usize = 80;
/// Lines of a plot, without its axes.
const PLOT_HEIGHT: usize = 12;
/// Series in the list under a plot: more than eyes follow.
const LISTED_MAX: usize = 20;

/// Characters of an expression's line that are shown on each side of a mistake.
const AROUND: usize = 36;

/// The line of an expression with a mistake, and a mark below this; of a long line what is around it.
pub(crate) fn pointer(expression: &str, at: Span) -> String {
    let line = expression.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
    let (before, rest) = line.split_at_checked(at.column.saturating_sub(1)).unwrap_or((line, ""));
    let skipped = before.chars().count().saturating_sub(AROUND);
    let before = escape(&before.chars().skip(skipped).collect::<String>());
    let start = if skipped > 0 { "…" } else { "" };
    let rest = cut(&escape(rest), AROUND);
    format!("{start}{before}{rest}\n{}^", " ".repeat(width(start) + width(&before)))
}

/// `-o json`: the whole result.
#[derive(Serialize)]
struct Document<'a> {
    r#type: ResultType,
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    series: Vec<SeriesDocument<'a>>,
    warnings: &'a [String],
    infos: &'a [String],
}

#[derive(Serialize)]
struct SeriesDocument<'a> {
    /// Nothing where an operation has taken the name away.
    metric: Option<&'a str>,
    labels: BTreeMap<&'a str, &'a str>,
    samples: Vec<SampleDocument>,
}

#[derive(Serialize)]
struct SampleDocument {
    time: Time,
    value: Number,
}

/// `-o jsonl`: a sample, in the form of `belfry tail`.
#[derive(Serialize)]
struct Line<'a> {
    time: Time,
    metric: Option<&'a str>,
    labels: &'a BTreeMap<&'a str, &'a str>,
    value: Number,
}

fn metric(series: &QuerySeries) -> Option<&str> {
    series.labels.get(METRIC_NAME).map(String::as_str)
}

fn labels(series: &QuerySeries) -> BTreeMap<&str, &str> {
    let others = series.labels.iter().filter(|(name, _)| *name != METRIC_NAME);
    others.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

pub(crate) fn document(answer: &QueryAnswer) -> serde_json::Result<String> {
    let series = answer.series.iter().map(|series| SeriesDocument {
        metric: metric(series),
        labels: labels(series),
        samples: series.samples.iter().map(|&(ms, value)| SampleDocument { time: Time(ms), value }).collect(),
    });
    let document = Document {
        r#type: answer.r#type,
        time: Time(answer.time_ms),
        text: answer.text.as_deref(),
        series: series.collect(),
        warnings: &answer.warnings,
        infos: &answer.infos,
    };
    Ok(machine::json(&serde_json::to_string(&document)?))
}

pub(crate) fn lines(answer: &QueryAnswer) -> serde_json::Result<String> {
    let mut text = String::new();
    for series in &answer.series {
        let labels = labels(series);
        for &(ms, value) in &series.samples {
            let line = Line { time: Time(ms), metric: metric(series), labels: &labels, value };
            text.push_str(&machine::json(&serde_json::to_string(&line)?));
        }
    }
    Ok(text)
}

/// `-o csv`: a row for each sample, a column for each label.
pub(crate) fn csv(answer: &QueryAnswer) -> anyhow::Result<String> {
    let names: BTreeSet<&str> = answer.series.iter().flat_map(|series| labels(series).into_keys()).collect();
    let titles: Vec<&str> = ["time", "metric"].into_iter().chain(names.iter().copied()).chain(["value"]).collect();
    let mut rows = Vec::new();
    for series in &answer.series {
        for &(ms, value) in &series.samples {
            let mut row =
                vec![crate::api::time(Timestamp::from_millis(ms)), metric(series).unwrap_or_default().to_owned()];
            row.extend(names.iter().map(|name| series.labels.get(*name).cloned().unwrap_or_default()));
            row.push(plain(&serde_json::to_value(value)?));
            rows.push(row);
        }
    }
    Ok(machine::csv(&titles, rows)?)
}

/// How values are written for people.
#[derive(Debug, Clone, Copy)]
struct Scale {
    with_units: bool,
}

impl Scale {
    /// Whoever groups by the metric's name counts series more often than adds their values: only the number is certain then.
    fn of(expression: &str) -> Self {
        Self { with_units: !expression.contains(METRIC_NAME) }
    }

    fn show(self, metric: &str, value: f64) -> String {
        if self.with_units { of_metric(metric, value) } else { number(value) }
    }
}

/// For people: a table of an instant, a plot of a range.
pub(crate) fn table(expression: &str, answer: &QueryAnswer, look: &Look) -> String {
    let scale = Scale::of(expression);
    match (answer.r#type, &answer.text) {
        (ResultType::String, text) => escape(text.as_deref().unwrap_or_default()) + "\n",
        (ResultType::Scalar, _) => {
            let sample = answer.series.first().and_then(|series| series.samples.first());
            sample.map_or_else(String::new, |(_, value)| number(value.0) + "\n")
        }
        _ if answer.series.is_empty() => "no series match\n".to_owned(),
        (ResultType::Vector, _) => vector(answer, scale, look),
        (ResultType::Matrix, _) => matrix(answer, scale, look),
    }
}

/// What the series have in common, and the names of labels in which they differ.
fn in_common(series: &[QuerySeries]) -> (QuerySeries, Vec<&str>) {
    let names: BTreeSet<&str> = series.iter().flat_map(|series| series.labels.keys().map(String::as_str)).collect();
    let mut common = QuerySeries { labels: BTreeMap::new(), samples: Vec::new() };
    let mut different = Vec::new();
    for name in names {
        let mut values = series.iter().map(|series| series.labels.get(name));
        let first = values.next().flatten();
        if values.all(|value| value == first) {
            common.labels.extend(first.map(|value| (name.to_owned(), value.clone())));
        } else {
            different.push(name);
        }
    }
    (common, different)
}

fn shown(series: &QuerySeries) -> String {
    text::selector(metric(series).unwrap_or_default(), labels(series).into_iter())
}

/// A line with what all rows share and the time, if it is worth one.
fn heading(common: &QuerySeries, rows: usize, time: &str, look: &Look) -> String {
    let what = shown(common);
    let what = if what.is_empty() { String::new() } else { format!("{what}  ") };
    let tail = format!("{rows} series · {time}");
    let room = look.width.unwrap_or(usize::MAX).saturating_sub(width(&tail));
    let what = if room < 8 { String::new() } else { cut(&what, room) };
    Style::Bold.paint(&what, look.is_colored) + &Style::Dim.paint(&tail, look.is_colored) + "\n"
}

fn vector(answer: &QueryAnswer, scale: Scale, look: &Look) -> String {
    let (common, different) = in_common(&answer.series);
    let titles: Vec<String> = different.iter().map(|name| title(name)).collect();
    let mut columns: Vec<Column<'_>> = vec![Column::right("VALUE", Fit::Always)];
    columns.extend(titles.iter().map(|title| Column::left(title, Fit::Flexible(8))));
    let rows = answer.series.iter().map(|series| {
        let value = series.samples.first().map_or(f64::NAN, |(_, value)| value.0);
        let mut row = vec![Cell::plain(&scale.show(metric(series).unwrap_or_default(), value))];
        row.extend(different.iter().map(|name| Cell::plain(series.labels.get(*name).map_or("", String::as_str))));
        row
    });
    let heading = heading(&common, answer.series.len(), &short_time(Timestamp::from_millis(answer.time_ms)), look);
    heading + &Table { columns: &columns, rows: rows.collect() }.render(look)
}

fn title(label: &str) -> String {
    if label == METRIC_NAME { "METRIC".to_owned() } else { escape(label).to_uppercase() }
}

fn matrix(answer: &QueryAnswer, scale: Scale, look: &Look) -> String {
    let times = || answer.series.iter().flat_map(|series| series.samples.iter().map(|(ms, _)| *ms));
    let (Some(from_ms), Some(until_ms)) = (times().min(), times().max()) else { return String::new() };
    let (common, different) = in_common(&answer.series);
    let short = |ms: i64| short_time(Timestamp::from_millis(ms));
    let mut text = heading(&common, answer.series.len(), &format!("{} to {}", short(from_ms), short(until_ms)), look);
    let shown = |value: f64| scale.show(metric(&common).unwrap_or_default(), value);
    text.push_str(&plot(answer, shown, (from_ms, until_ms), look));
    text.push_str(&legend(answer, &different, scale, look));
    text
}

fn plot(answer: &QueryAnswer, shown: impl Fn(f64) -> String, (from_ms, until_ms): (i64, i64), look: &Look) -> String {
    let curves = answer.series.iter().enumerate().map(|(at, series)| Curve {
        points: series.samples.iter().map(|&(ms, value)| (ms, value.0)).collect(),
        tint: Tint::of(at),
    });
    let gap_ms = gap_ms(answer);
    let mut plot = Plot { curves: curves.collect(), from_ms, until_ms, gap_ms, width: 0, height: PLOT_HEIGHT };
    let Some(extent) = plot.extent() else { return "no value is finite\n".to_owned() };
    let labels: BTreeMap<usize, String> =
        [0, PLOT_HEIGHT / 2, PLOT_HEIGHT - 1].map(|line| (line, shown(at_line(extent, line)))).into();
    let margin = labels.values().map(|label| width(label)).max().unwrap_or_default();
    plot.width = look.width.unwrap_or(WIDTH).saturating_sub(margin + 3).max(8);
    let mut text = String::new();
    for (line, dots) in plot.lines(look.is_colored).into_iter().enumerate() {
        let label = labels.get(&line).map_or("", String::as_str);
        let axis = if label.is_empty() { '│' } else { '┤' };
        let padding = " ".repeat(margin - width(label));
        text.push_str(&format!("{padding}{} {axis}{dots}\n", Style::Dim.paint(label, look.is_colored)));
    }
    let clock = |ms: i64| clock(ms, until_ms - from_ms);
    let (left, right) = (clock(from_ms), clock(until_ms));
    let between = " ".repeat(plot.width.saturating_sub(left.len() + right.len()));
    text + &format!("{} └{}\n", " ".repeat(margin), "─".repeat(plot.width))
        + &format!(
            "{}{}\n",
            " ".repeat(margin + 2),
            Style::Dim.paint(&format!("{left}{between}{right}"), look.is_colored)
        )
}

/// A range as a picture: its curves, each named by what tells it from the others, and what its values are called.
pub(crate) fn chart<'a>(
    expression: &'a str,
    (from_ms, until_ms): (i64, i64),
    answer: &QueryAnswer,
) -> (Chart<'a>, impl Fn(f64) -> String) {
    let scale = Scale::of(expression);
    let (common, different) = in_common(&answer.series);
    let name = |series: &QuerySeries| {
        let pairs = different.iter().filter_map(|name| Some(format!("{name}={}", series.labels.get(*name)?)));
        let name = pairs.collect::<Vec<_>>().join(" ");
        if name.is_empty() { shown(series) } else { name }
    };
    let points = |series: &QuerySeries| series.samples.iter().map(|&(ms, value)| (ms, value.0)).collect();
    let curves = answer.series.iter().map(|series| (name(series), points(series)));
    let chart = Chart { heading: expression, curves: curves.collect(), from_ms, until_ms, gap_ms: gap_ms(answer) };
    let metric = metric(&common).unwrap_or_default().to_owned();
    (chart, move |value| scale.show(&metric, value))
}

/// Points that are farther apart have nothing between them.
fn gap_ms(answer: &QueryAnswer) -> i64 {
    answer.series.iter().filter_map(step).min().unwrap_or(i64::MAX).saturating_mul(3) / 2
}

/// The value in the middle of a line of the plot.
fn at_line(extent: Extent, line: usize) -> f64 {
    extent.at(1.0 - line as f64 / (PLOT_HEIGHT - 1) as f64)
}

/// The least distance of two samples.
fn step(series: &QuerySeries) -> Option<i64> {
    series.samples.windows(2).filter_map(|pair| Some(pair.get(1)?.0 - pair.first()?.0)).min()
}

/// The day where the range is longer than one, else the time of day.
fn clock(ms: i64, range_ms: i64) -> String {
    let text = short_time(Timestamp::from_millis(ms));
    let (day, time) = text.split_once(' ').unwrap_or(("", &text));
    if range_ms > 86_400_000 { format!("{day} {}Z", time.get(..5).unwrap_or_default()) } else { time.to_owned() }
}

/// The series with the greatest last values, and their colours.
fn legend(answer: &QueryAnswer, different: &[&str], scale: Scale, look: &Look) -> String {
    let last = |series: &QuerySeries| series.samples.last().map_or(f64::NEG_INFINITY, |(_, value)| value.0);
    let mut order: Vec<(usize, &QuerySeries)> = answer.series.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| last(b).total_cmp(&last(a)));
    let rows = order.iter().take(LISTED_MAX).map(|(at, series)| {
        let name = metric(series).unwrap_or_default();
        let values = || series.samples.iter().map(|(_, value)| value.0).filter(|value| !value.is_nan());
        let cell = |value: f64| Cell::plain(&scale.show(name, value));
        let mean = values().sum::<f64>() / values().count() as f64;
        let own = QuerySeries {
            labels: different
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), series.labels.get(*name)?.clone())))
                .collect(),
            samples: Vec::new(),
        };
        vec![
            Cell::new("━━", Style::Tint(Tint::of(*at))),
            cell(last(series)),
            cell(values().fold(f64::INFINITY, f64::min)),
            cell(mean),
            cell(values().fold(f64::NEG_INFINITY, f64::max)),
            Cell::plain(&shown(&own)),
        ]
    });
    const COLUMNS: &[Column<'_>] = &[
        Column::left("", Fit::Always),
        Column::right("LAST", Fit::Always),
        Column::right("MIN", Fit::Droppable),
        Column::right("MEAN", Fit::Droppable),
        Column::right("MAX", Fit::Droppable),
        Column::left("SERIES", Fit::Flexible(12)),
    ];
    let mut text = Table { columns: COLUMNS, rows: rows.collect() }.render(look);
    if order.len() > LISTED_MAX {
        text.push_str(&format!("and {} more: `-o csv` has them all\n", order.len() - LISTED_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_below_the_mistake() {
        let mark = |expression: &str, word: &str| {
            let start = expression.find(word).unwrap();
            let shown = pointer(expression, Span::of(expression, start, start + word.len()));
            let (line, below) = shown.split_once('\n').unwrap();
            assert!(width(line) <= 2 * AROUND + 1 && below.ends_with('^'), "{shown}");
            line.char_indices()
                .scan(0, |columns, (at, character)| {
                    let place = *columns;
                    *columns += width(character.encode_utf8(&mut [0; 4]));
                    Some((place, at))
                })
                .find(|(columns, _)| *columns == width(below) - 1)
                .map(|(_, at)| line[at..].to_owned())
        };
        assert_eq!(mark("sum(a) bby (c)", "bby").unwrap(), "bby (c)");
        assert_eq!(mark("a +\n\t* b", "*").unwrap(), "* b");
        assert_eq!(mark("{\"温度\"} ? 1", "?").unwrap(), "? 1");
        let long = format!("{} ? {}", "a + ".repeat(30), "b * ".repeat(30));
        assert!(mark(&long, "?").unwrap().starts_with("? b * b"));
        assert_eq!(pointer("a +", Span::of("a +", 3, 3)), "a +\n   ^");
        assert_eq!(pointer("", Span::default()), "\n^");
    }
}

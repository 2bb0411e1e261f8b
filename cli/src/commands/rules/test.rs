//! `belfry rules test`

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use belfry_common::error_chain::ErrorChain;
use regex::Regex;
use serde::Serialize;

use super::read;
use crate::{
    exit,
    rehearsal::{self, CheckKind, Verdict},
    render::{
        Look,
        machine::{self, field},
        output::{Format, Output},
        style::Style,
        text::escape,
        units::count,
    },
    rule_files::{self, AlertingError},
    rules::{Checked, NoData, Position, Problem, RuleSet, Severity, Source, Suite},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files of tests, in the form of promtool's unit tests
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run only the tests whose names match this regular expression
    #[arg(long, value_name = "REGEX")]
    run: Option<Regex>,
    /// End alerts whose series end, as Prometheus does, rather than keep them until data contradicts them
    #[arg(long)]
    prometheus: bool,
}

/// One file of tests, and what came of it.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    tests: usize,
    /// What keeps the tests from being run.
    problems: Vec<Problem>,
    checks: Vec<Verdict>,
}

impl Report {
    fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.passed).count()
    }

    fn is_good(&self) -> bool {
        self.problems.is_empty() && self.failed() == 0
    }
}

pub(super) fn execute(args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    let (sources, unread) = read(&args.files);
    let unread = unread.into_iter().map(|problem| Report {
        file: problem.file.clone(),
        tests: 0,
        problems: vec![problem],
        checks: Vec::new(),
    });
    let reports: Vec<Report> = sources.iter().map(|source| report(source, args)).chain(unread).collect();
    if args.run.is_some() && reports.iter().all(|report| report.is_good() && report.tests == 0) {
        anyhow::bail!("no test has a name that matches; name tests by `name: …`");
    }
    let text = match output.format {
        Format::Table => verdict(&reports, &output.look()),
        Format::Json => machine::document(&reports)?,
        Format::Jsonl => machine::documents(&reports)?,
        Format::Csv => machine::csv(&CSV_NAMES, reports.iter().flat_map(csv_rows))?,
    };
    output.print(&text)?;
    Ok(if reports.iter().all(Report::is_good) { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn report(source: &Source, args: &Args) -> Report {
    let mut report = Report { file: source.name.clone(), tests: 0, problems: Vec::new(), checks: Vec::new() };
    let prepared = Suite::parse(&source.name, &source.text)
        .and_then(|suite| rules_of(&suite, &source.name).map(|rules| (suite, rules)));
    let (suite, rules) = match prepared {
        Ok(prepared) => prepared,
        Err(problems) => {
            report.problems = problems;
            return report;
        }
    };
    let no_data = args.prometheus.then_some(NoData::Ok);
    let rules = Arc::new(rules.rehearsed(&suite.group_order, no_data));
    for (number, test) in (1..).zip(&suite.tests) {
        let is_wanted = |regex: &Regex| test.name.as_ref().is_some_and(|name| regex.is_match(name));
        if args.run.as_ref().is_none_or(is_wanted) {
            report.tests += 1;
            report.checks.extend(rehearsal::run(&suite, (number, test), &rules));
        }
    }
    report
}

/// The rules under test. Their files are named from where the file of tests stands, by patterns or not.
fn rules_of(suite: &Suite, file: &str) -> Result<RuleSet, Vec<Problem>> {
    let directory = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut paths = Vec::new();
    let mut problems = Vec::new();
    for (pattern, position) in &suite.rule_files {
        match rule_files::expand(&directory.join(pattern).to_string_lossy()) {
            Ok(found) => paths.extend(found),
            Err(error) => problems.push(problem(file, *position, &error)),
        }
    }
    // A file that two patterns name is one.
    let mut seen = BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    let (sources, unread) = read(&paths);
    problems.extend(unread);
    let Checked { rules, problems: found } = RuleSet::check(&sources);
    problems.extend(found.into_iter().filter(|problem| problem.severity == Severity::Error));
    rules.filter(|_| problems.is_empty()).ok_or(problems)
}

fn problem(file: &str, position: Position, error: &AlertingError) -> Problem {
    Problem {
        severity: Severity::Error,
        file: file.to_string(),
        position: Some(position),
        group: None,
        rule: None,
        message: ErrorChain(error).to_string(),
        help: "name files from where the file of tests stands".into(),
    }
}

/// What failed, and a last line that sums up.
fn verdict(reports: &[Report], look: &Look) -> String {
    let paint = |style: Style, text: &str| style.paint(&escape(text), look.is_colored);
    let mut lines = Vec::new();
    for report in reports {
        lines.extend(report.problems.iter().map(|problem| paint(Style::Bad, &problem.to_string())));
        for check in report.checks.iter().filter(|check| !check.passed || check.note.is_some()) {
            let (word, style) = if check.passed { ("warning", Style::Warning) } else { ("failed", Style::Bad) };
            lines.push(paint(style, &format!("{}:{}: {word}: {check}", report.file, check.position)));
            let note = check.note.iter().map(|note| format!("  {}", escape(note)));
            if check.check != CheckKind::Rules && !check.passed {
                lines.extend(listed("expected", &check.expected));
            }
            if !check.passed {
                lines.extend(listed("found   ", &check.found));
            }
            lines.extend(note);
        }
    }
    let total = |count: fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    let (tests, checks) = (total(|report| report.tests), total(|report| report.checks.len()));
    let (failed, refused) = (total(Report::failed), total(|report| usize::from(!report.problems.is_empty())));
    let ran = format!("{}, {} in {}", count(tests, "test"), count(checks, "check"), count(reports.len(), "file"));
    let outcome = match (failed, refused) {
        (0, 0) => "all passed".to_string(),
        (failed, 0) => format!("{failed} failed"),
        (0, refused) => format!("{} could not be run", count(refused, "file")),
        (failed, refused) => format!("{failed} failed, {} could not be run", count(refused, "file")),
    };
    lines.push(format!("{ran}: {outcome}"));
    lines.join("\n") + "\n"
}

fn listed(title: &str, items: &[String]) -> Vec<String> {
    match items {
        [] => vec![format!("  {title}  nothing")],
        items => items.iter().map(|item| format!("  {title}  {}", escape(item))).collect(),
    }
}

const CSV_NAMES: [&str; 12] = [
    "file",
    "line",
    "column",
    "test",
    "check",
    "subject",
    "time_seconds",
    "passed",
    "expected",
    "found",
    "note",
    "problem",
];

fn csv_rows(report: &Report) -> Vec<Vec<String>> {
    let checks = report.checks.iter().map(|check| {
        vec![
            report.file.clone(),
            check.position.line.to_string(),
            check.position.column.to_string(),
            check.test.clone(),
            format!("{:?}", check.check).to_lowercase(),
            check.subject.clone(),
            check.time_seconds.to_string(),
            check.passed.to_string(),
            check.expected.join("\n"),
            check.found.join("\n"),
            field(check.note.as_ref()),
            String::new(),
        ]
    });
    let problems = report.problems.iter().map(|problem| {
        let mut row = vec![String::new(); CSV_NAMES.len()];
        let filled = [
            (0, problem.file.clone()),
            (1, field(problem.position.map(|position| position.line))),
            (2, field(problem.position.map(|position| position.column))),
            (11, problem.message.clone()),
        ];
        for (at, text) in filled {
            if let Some(place) = row.get_mut(at) {
                *place = text;
            }
        }
        row
    });
    problems.chain(checks).collect()
}

//! `belfry rules`

use std::{path::PathBuf, process::ExitCode};

use belfry_common::error_chain::ErrorChain;
use serde::Deserialize;

use super::{Global, with_client};
use crate::{
    api::Request,
    exit,
    render::{
        Look,
        listing::{self, Listed},
        machine::{self, field},
        output::{Format, Output},
        style::Style,
        table::{Cell, Column, Fit, Table},
        text::escape,
        units::{age_of, count},
    },
    rules::{self, Checked, Problem, RuleSet, Severity, Source},
};

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists the collector's rules and how they fare
    List,
    /// Checks rule files, all together as the collector would load them; needs no collector
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Files in Prometheus' form
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Fail for warnings, too
    #[arg(long)]
    strict: bool,
}

pub(crate) fn execute(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let output = global.output(Format::Table);
    match &args.command {
        Command::List => with_client(global, async |client| {
            listing::print::<RuleRow>(&client.text(&Request::Rules).await?, &output)?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Check(args) => check(args, &output),
    }
}

fn check(args: &Check, output: &Output) -> anyhow::Result<ExitCode> {
    let (sources, unread) = read(&args.files);
    let Checked { rules, mut problems } = RuleSet::check(&sources);
    let rules = rules.filter(|_| unread.is_empty());
    problems.extend(unread);
    let text = match output.format {
        Format::Table => verdict(rules.as_ref(), &problems, args.files.len(), &output.look()),
        Format::Json => machine::json(&serde_json::to_string(&problems)?),
        Format::Jsonl => {
            let lines: Result<String, _> = problems
                .iter()
                .map(|problem| serde_json::to_string(problem).map(|line| machine::json(&line)))
                .collect();
            lines?
        }
        Format::Csv => {
            let names = ["severity", "file", "line", "column", "group", "rule", "message", "help"];
            machine::csv(&names, problems.iter().map(csv_row))?
        }
    };
    output.print(&text)?;
    let is_bad = rules.is_none() || (args.strict && !problems.is_empty());
    Ok(if is_bad { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

/// The files that can be read, and what is wrong with the others.
fn read(files: &[PathBuf]) -> (Vec<Source>, Vec<Problem>) {
    let (mut sources, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match rules::read(std::slice::from_ref(file)) {
            Ok(read) => sources.extend(read),
            Err(error) => problems.push(Problem {
                severity: Severity::Error,
                file: file.display().to_string(),
                position: None,
                group: None,
                rule: None,
                message: ErrorChain(&error).to_string(),
                help: "name files that are there and can be read".into(),
            }),
        }
    }
    (sources, problems)
}

/// `file:line:column: error: …`, as compilers say it and editors find it, and a last line that sums up.
fn verdict(rules: Option<&RuleSet>, problems: &[Problem], files: usize, look: &Look) -> String {
    let mut text = String::new();
    for problem in problems {
        let style = if problem.severity == Severity::Error { Style::Bad } else { Style::Warning };
        text.push_str(&style.paint(&escape(&problem.to_string()), look.is_colored));
        text.push('\n');
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let found = [(errors, "error"), (warnings, "warning")].into_iter().filter(|(found, _)| *found > 0);
    let found: Vec<String> = found.map(|(found, noun)| count(found, noun)).collect();
    let found = if found.is_empty() { "no problems".to_string() } else { found.join(", ") };
    let files = count(files, "file");
    text + &match rules {
        Some(rules) => format!("{} in {files}: {found}\n", count(rules.len(), "rule")),
        None => format!("{files}: {found}\n"),
    }
}

fn csv_row(problem: &Problem) -> Vec<String> {
    let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
    vec![
        severity.to_string(),
        problem.file.clone(),
        field(problem.position.map(|position| position.line)),
        field(problem.position.map(|position| position.column)),
        field(problem.group.as_ref()),
        field(problem.rule.as_ref()),
        problem.message.clone(),
        problem.help.clone(),
    ]
}

/// A rule as the collector lists it.
#[derive(Debug, Deserialize)]
pub(super) struct RuleRow {
    file: String,
    group: String,
    pub(super) rule: String,
    r#type: String,
    state: Option<String>,
    /// `unknown`, `ok` or `err`.
    pub(super) health: String,
    pub(super) last_error: Option<String>,
    warnings: Vec<String>,
    last_evaluation: Option<String>,
    evaluation_seconds: f64,
    evaluations: u64,
    evaluation_seconds_total: f64,
    alerts: u64,
    pub(super) left_out: u64,
    expression: String,
}

const COLUMNS: &[Column] = &[
    Column::left("RULE", Fit::Flexible(20)),
    Column::left("STATE", Fit::Always),
    Column::right("ALERTS", Fit::Always),
    Column::left("HEALTH", Fit::Always),
    Column::right("EVALUATED", Fit::Droppable),
    Column::right("TOOK", Fit::Droppable),
    Column::left("GROUP", Fit::Droppable),
    Column::left("FILE", Fit::Droppable),
    Column::left("NOTE", Fit::Flexible(30)),
];

impl Listed for RuleRow {
    const CSV_NAMES: &'static [&'static str] = &[
        "file",
        "group",
        "rule",
        "type",
        "state",
        "health",
        "last_error",
        "warnings",
        "last_evaluation",
        "evaluation_seconds",
        "evaluations",
        "evaluation_seconds_total",
        "alerts",
        "left_out",
        "expression",
    ];

    fn csv_row(&self) -> Vec<String> {
        vec![
            self.file.clone(),
            self.group.clone(),
            self.rule.clone(),
            self.r#type.clone(),
            field(self.state.as_ref()),
            self.health.clone(),
            field(self.last_error.as_ref()),
            self.warnings.join("; "),
            field(self.last_evaluation.as_ref()),
            self.evaluation_seconds.to_string(),
            self.evaluations.to_string(),
            self.evaluation_seconds_total.to_string(),
            self.alerts.to_string(),
            self.left_out.to_string(),
            self.expression.clone(),
        ]
    }

    fn table(list: &[Self], look: &Look) -> String {
        if list.is_empty() {
            return "no rules are loaded\n".to_string();
        }
        let rows = list.iter().map(|rule| {
            let state = rule.state.as_deref().unwrap_or("recording");
            let (health, health_style) = match rule.health.as_str() {
                "err" => ("failing", Style::Bad),
                "ok" => ("ok", Style::Good),
                other => (other, Style::Dim),
            };
            let is_firing = matches!(state, "firing" | "recovering");
            vec![
                Cell::plain(&rule.rule),
                Cell::new(state, if is_firing { Style::Warning } else { Style::Plain }),
                if rule.state.is_some() { Cell::plain(&rule.alerts.to_string()) } else { Cell::default() },
                Cell::new(health, health_style),
                Cell::known(
                    rule.last_evaluation
                        .as_deref()
                        .and_then(|time| age_of(time, look.now))
                        .map(|age| format!("{age} ago")),
                ),
                Cell::plain(&format!("{:.1} ms", rule.evaluation_seconds * 1000.0)),
                Cell::plain(&rule.group),
                Cell::plain(&rule.file),
                Cell::new(&rule.note(), health_style),
            ]
        });
        Table { columns: COLUMNS, rows: rows.collect() }.render(look)
    }
}

impl RuleRow {
    fn note(&self) -> String {
        let left_out =
            (self.left_out > 0).then(|| format!("{} alerts left out: over the limit of a rule", self.left_out));
        let notes: Vec<String> =
            self.last_error.iter().cloned().chain(left_out).chain(self.warnings.iter().cloned()).collect();
        notes.join("; ")
    }
}

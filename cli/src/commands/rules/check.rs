//! `belfry rules check`

use std::{path::PathBuf, process::ExitCode};

use super::read;
use crate::{
    exit,
    render::{
        Look,
        machine::{self, field},
        output::{Format, Output},
        style::Style,
        text::escape,
        units::count,
    },
    rules::{Checked, Problem, RuleSet, Severity},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files in Prometheus' form
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Fail for warnings, too
    #[arg(long)]
    strict: bool,
}

pub(super) fn execute(args: &Args, output: &Output) -> anyhow::Result<ExitCode> {
    let (sources, unread) = read(&args.files);
    let Checked { rules, mut problems } = RuleSet::check(&sources);
    let rules = rules.filter(|_| unread.is_empty());
    problems.extend(unread);
    let text = match output.format {
        Format::Table => verdict(rules.as_ref(), &problems, args.files.len(), &output.look()),
        Format::Json => machine::document(&problems)?,
        Format::Jsonl => machine::documents(&problems)?,
        Format::Csv => {
            let names = ["severity", "file", "line", "column", "group", "rule", "message", "help"];
            machine::csv(&names, problems.iter().map(csv_row))?
        }
    };
    output.print(&text)?;
    let is_bad = rules.is_none() || (args.strict && !problems.is_empty());
    Ok(if is_bad { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
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

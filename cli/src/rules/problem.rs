//! What is wrong, or doubtful, in a rule file: one line a person can act on.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::Position;

/// How serious a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The files are refused.
    Error,
    /// The rule works, but perhaps not as meant.
    Warning,
}

/// One problem and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) file: String,
    pub(crate) position: Option<Position>,
    pub(crate) group: Option<String>,
    /// The rule's name, or its number in the group where it has none.
    pub(crate) rule: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: String,
}

impl fmt::Display for Problem {
    /// `node.yml:12:7: error: group "node", rule "Hot": unknown field "fore"; did you mean "for"?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(position) = self.position {
            write!(f, "{position}:")?;
        }
        f.write_str(match self.severity {
            Severity::Error => " error: ",
            Severity::Warning => " warning: ",
        })?;
        if let Some(group) = &self.group {
            write!(f, "group {group:?}")?;
            if let Some(rule) = &self.rule {
                // Its number, where it has no name.
                match rule.bytes().all(|byte| byte.is_ascii_digit()) {
                    true => write!(f, ", rule {rule}")?,
                    false => write!(f, ", rule {rule:?}")?,
                }
            }
            f.write_str(": ")?;
        }
        write!(f, "{}; {}", self.message, self.help)
    }
}

/// Rule files that were refused, all of them because of these.
#[derive(Debug, Error)]
#[error("{}", listed(.problems))]
pub(crate) struct LoadError {
    /// Every error of every file, and the warnings beside them.
    pub(crate) problems: Vec<Problem>,
}

fn listed(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let count = errors.clone().count();
    let noun = if count == 1 { "error" } else { "errors" };
    errors.fold(format!("rules not loaded, {count} {noun}:"), |text, problem| format!("{text}\n  {problem}"))
}

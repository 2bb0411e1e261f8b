//! The rule files that a collector is told to use, found and loaded: all or none.

use std::path::PathBuf;

use thiserror::Error;

use crate::{
    rules::{self, LoadError, RuleSet, Source},
    state::StateError,
};

/// Rules that cannot be put in force.
#[derive(Debug, Error)]
pub(crate) enum AlertingError {
    #[error(transparent)]
    Read(#[from] rules::ReadError),
    #[error("rules are refused:\n{}", show(.0))]
    Rules(LoadError),
    #[error("failed to list rule files of `{pattern}`")]
    Pattern { pattern: String, source: std::io::Error },
    #[error("no rule file matches `{pattern}`")]
    NoFile { pattern: String },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("an alert in the database cannot be read")]
    Record(#[source] serde_json::Error),
}

fn show(error: &LoadError) -> String {
    error.problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

/// Which rules to load.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleFiles {
    pub(crate) patterns: Vec<String>,
    /// Whether the rules that ship with the program are in force, too.
    pub(crate) with_pack: bool,
}

impl RuleFiles {
    /// Reads and checks all files; all or none.
    pub(crate) fn load(&self) -> Result<RuleSet, AlertingError> {
        let mut sources: Vec<Source> = Vec::new();
        if self.with_pack {
            sources.extend(rules::pack());
        }
        for pattern in &self.patterns {
            let paths = expand(pattern)?;
            sources.extend(rules::read(&paths)?);
        }
        RuleSet::load(&sources).map_err(AlertingError::Rules)
    }
}

/// The files that a pattern names: `*` and `?` in its last part.
pub(crate) fn expand(pattern: &str) -> Result<Vec<PathBuf>, AlertingError> {
    let path = PathBuf::from(pattern);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return Ok(vec![path]);
    }
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let failed = |source| AlertingError::Pattern { pattern: pattern.to_string(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if crate::glob::matches(&name, &entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() { Err(AlertingError::NoFile { pattern: pattern.to_string() }) } else { Ok(found) }
}

//! Reads the fields of a rule file's tree, and collects what is wrong with them.

use std::collections::HashSet;
use std::sync::Arc;

use super::problem::{Problem, Severity};
use super::yaml::{Node, NodeValue};
use super::{Position, duration, limits};

/// Collects problems while the tree is walked.
pub(super) struct Checker<'a> {
    file: Arc<str>,
    text: &'a str,
    group: Option<String>,
    rule: Option<String>,
    problems: Vec<Problem>,
    dropped: usize,
}

impl<'a> Checker<'a> {
    pub(super) fn new(file: &str, text: &'a str) -> Self {
        Self { file: file.into(), text, group: None, rule: None, problems: Vec::new(), dropped: 0 }
    }

    /// The file's name.
    pub(super) fn file(&self) -> Arc<str> {
        Arc::clone(&self.file)
    }

    /// What follows is about this group, or about none.
    pub(super) fn enter_group(&mut self, name: Option<&str>) {
        (self.group, self.rule) = (name.map(str::to_owned), None);
    }

    /// What follows is about this rule of the group.
    pub(super) fn enter_rule(&mut self, name: String) {
        self.rule = Some(name);
    }

    /// All problems there are.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        if self.dropped > 0 {
            (self.group, self.rule) = (None, None);
            let message = format!("{} more problems are not shown", self.dropped);
            let problem = self.problem(Severity::Error, None, message, "mend the ones above first");
            self.problems.push(problem);
        }
        self.problems
    }

    /// A mapping of names to texts.
    pub(super) fn labels<'n>(&mut self, node: Option<&'n Node>, what: &str) -> Vec<Label<'n>> {
        let pairs = match node.map(|node| (&node.value, node)) {
            None | Some((NodeValue::Null, _)) => return Vec::new(),
            Some((NodeValue::Mapping(pairs), _)) => pairs,
            Some((_, node)) => {
                let message = format!("`{what}s` is {}", node.kind());
                self.error(node.position, message, "write one `name: text` a line below it");
                return Vec::new();
            }
        };
        if let Some((key, _)) = pairs.get(limits::LABELS_PER_RULE_MAX) {
            let message = format!("more than {} {what}s", limits::LABELS_PER_RULE_MAX);
            self.error(key.position, message, "remove some");
            return Vec::new();
        }
        let mut names = HashSet::new();
        pairs.iter().filter_map(|(key, value)| self.label(key, value, what, &mut names)).collect()
    }

    fn label<'n>(
        &mut self,
        key: &'n Node,
        value: &'n Node,
        what: &str,
        names: &mut HashSet<&'n str>,
    ) -> Option<Label<'n>> {
        let name = key.text().filter(|&name| !name.is_empty() && name != belfry_promql::METRIC_NAME);
        let Some(name) = name else {
            let message = format!("{:?} is no valid name of a {what}", key.text().unwrap_or_default());
            self.error(key.position, message, "rename it");
            return None;
        };
        if !names.insert(name) {
            self.error(key.position, format!("{what} {name:?} stands here twice"), "remove one");
            return None;
        }
        let text = match &value.value {
            NodeValue::Text(text) => text,
            NodeValue::Null => "",
            NodeValue::Sequence(_) | NodeValue::Mapping(_) => {
                let message = format!("{what} {name:?} is {}", value.kind());
                self.error(value.position, message, "it must be a text; quote it if it begins with `{` or `[`");
                return None;
            }
        };
        Some(Label { name, key, value: Text { text, node: value } })
    }

    pub(super) fn limit(&mut self, node: Option<&Node>) -> Option<usize> {
        let (text, node) = self.text(node, "limit")?;
        let limit = text.parse::<usize>().ok();
        if limit.is_none() {
            let message = format!("`limit` is {text:?}");
            self.error(node.position, message, "it must be a whole number; 0 is no limit");
        }
        limit.filter(|&limit| limit > 0)
    }

    pub(super) fn duration(&mut self, node: Option<&Node>, key: &str) -> Option<i64> {
        let (text, node) = self.text(node, key)?;
        match duration::parse(text) {
            Ok(ms) => Some(ms),
            Err(error) => {
                self.error(node.position, format!("`{key}`: {error}"), "write it like 30s, 5m or 1h30m");
                None
            }
        }
    }

    /// A field that is a single value; nothing where it is missing or empty.
    pub(super) fn text<'n>(&mut self, node: Option<&'n Node>, key: &str) -> Option<(&'n str, &'n Node)> {
        let node = node.filter(|node| !matches!(node.value, NodeValue::Null))?;
        if node.text().is_none() {
            self.error(node.position, format!("`{key}` is {}", node.kind()), "it must be a single value");
        }
        node.text().map(|text| (text, node))
    }

    pub(super) fn items<'n>(&mut self, node: Option<&'n Node>, key: &str) -> &'n [Node] {
        match node.map(|node| (&node.value, node)) {
            None | Some((NodeValue::Null, _)) => &[],
            Some((NodeValue::Sequence(items), _)) => items,
            Some((_, node)) => {
                self.error(node.position, format!("`{key}` is {}", node.kind()), "begin each entry with `- `");
                &[]
            }
        }
    }

    /// The fields of a mapping, each known and there once.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&'static str]) -> Option<Fields<'n>> {
        let NodeValue::Mapping(pairs) = &node.value else {
            let help = format!("it must have fields such as `{}:`", known.first().copied().unwrap_or_default());
            self.error(node.position, format!("{what} is {}", node.kind()), &help);
            return None;
        };
        let mut fields = Fields(Vec::with_capacity(known.len()));
        for (key, value) in pairs {
            let name = key.text().unwrap_or_default();
            let Some(known) = known.iter().find(|known| **known == name) else {
                let help = suggestion(name, known);
                self.error(key.position, format!("unknown field {name:?} in {what}"), &help);
                continue;
            };
            if fields.get(known).is_some() {
                self.error(key.position, format!("field {name:?} stands here twice"), "remove one");
                continue;
            }
            fields.0.push((known, value));
        }
        Some(fields)
    }

    pub(super) fn locate(&self, text: Text<'_>, offset: usize) -> Position {
        text.node.place.locate(self.text, text.text, offset)
    }

    pub(super) fn error(&mut self, position: Position, message: String, help: &str) {
        self.report(Severity::Error, position, message, help);
    }

    pub(super) fn warning(&mut self, position: Position, message: String, help: &str) {
        self.report(Severity::Warning, position, message, help);
    }

    fn report(&mut self, severity: Severity, position: Position, message: String, help: &str) {
        if self.problems.len() >= limits::PROBLEMS_PER_FILE_MAX {
            self.dropped += usize::from(severity == Severity::Error);
            return;
        }
        let problem = self.problem(severity, Some(position), message, help);
        self.problems.push(problem);
    }

    fn problem(&self, severity: Severity, position: Option<Position>, message: String, help: &str) -> Problem {
        Problem {
            severity,
            file: self.file.to_string(),
            position,
            group: self.group.clone(),
            rule: self.rule.clone(),
            message,
            help: help.to_owned(),
        }
    }
}

/// The value of a scalar and its node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'n> {
    pub(super) text: &'n str,
    pub(super) node: &'n Node,
}

/// One entry under `labels` or `annotations`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label<'n> {
    pub(super) name: &'n str,
    pub(super) key: &'n Node,
    pub(super) value: Text<'n>,
}

pub(super) struct Fields<'n>(Vec<(&'static str, &'n Node)>);

impl<'n> Fields<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, node)| *node)
    }
}

fn suggestion(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 2 => format!("did you mean {known:?}?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

//! One rule file: from its tree to checked groups, and to every problem on the way.
//!
//! What is accepted is what Prometheus 3 accepts, and what it refuses is refused. Three things are stricter, because
//! they would otherwise go unnoticed: a second YAML document, a template function that is not supported, and an
//! expression that yields neither a vector nor a number.

use std::collections::HashSet;

use belfry_common::model::check_metric_name;
use belfry_promql::{Plan, ValueType};

use super::checker::{Checker, Fields, Label, Text};
use super::problem::Problem;
use super::rule::{AlertRule, Group, NoData, RecordRule, Rule, RuleKey, RuleKind};
use super::template::Template;
use super::yaml::{self, Node, NodeValue};
use super::{Position, duration, limits, lint};

/// What a file came to.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The groups; those with errors may be incomplete.
    pub(super) groups: Vec<Group>,
    pub(super) problems: Vec<Problem>,
}

/// Reads and checks the text of a rule file.
pub(super) fn parse(file: &str, text: &str) -> Parsed {
    let mut checker = Checker::new(file, text);
    let groups = match yaml::parse(text) {
        Ok(Some(root)) => checker.groups(&root),
        Ok(None) => Vec::new(),
        Err(error) => {
            checker.error(error.position, error.message, error.help);
            Vec::new()
        }
    };
    Parsed { groups, problems: checker.finish() }
}

impl Checker<'_> {
    fn groups(&mut self, root: &Node) -> Vec<Group> {
        let Some(fields) = self.fields(root, "a rule file", &["groups"]) else { return Vec::new() };
        let mut names = HashSet::new();
        let items = self.items(fields.get("groups"), "groups");
        items.iter().filter_map(|node| self.group(node, &mut names)).collect()
    }

    fn group(&mut self, node: &Node, names: &mut HashSet<String>) -> Option<Group> {
        const KEYS: [&str; 6] = ["name", "interval", "query_offset", "limit", "rules", "labels"];
        let fields = self.fields(node, "a group", &KEYS)?;
        let name = self.text(fields.get("name"), "name").map(|(name, _)| name.to_owned()).unwrap_or_default();
        self.enter_group(Some(&name));
        if name.is_empty() {
            self.error(node.position, "the group has no name".to_owned(), "add `name: …`");
        } else if name.len() > limits::NAME_BYTES_MAX {
            let message = format!("the name of the group is longer than {} bytes", limits::NAME_BYTES_MAX);
            self.error(node.position, message, "shorten it");
        } else if !names.insert(name.clone()) {
            let message = "a group of this name stands further up in the file".to_owned();
            self.error(node.position, message, "rename one, or join their rules");
        }
        let interval_ms = self.duration(fields.get("interval"), "interval").filter(|&ms| ms > 0);
        let query_offset_ms = self.duration(fields.get("query_offset"), "query_offset").unwrap_or_default();
        let limit = self.limit(fields.get("limit"));
        let labels = self.labels(fields.get("labels"), "label");
        let items = self.items(fields.get("rules"), "rules");
        let mut rules = Vec::new();
        for (at, item) in items.iter().enumerate() {
            self.enter_rule(name_of(item).map_or_else(|| (at + 1).to_string(), str::to_owned));
            rules.extend(self.rule(item, &name, &labels, interval_ms));
        }
        self.enter_group(None);
        Some(Group { name, file: self.file(), interval_ms, limit, query_offset_ms, rules })
    }

    fn rule(&mut self, node: &Node, group: &str, group_labels: &[Label<'_>], interval_ms: Option<i64>) -> Option<Rule> {
        const KEYS: [&str; 7] = ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
        let fields = self.fields(node, "a rule", &KEYS)?;
        let alert = self.text(fields.get("alert"), "alert").filter(|(name, _)| !name.is_empty());
        let record = self.text(fields.get("record"), "record").filter(|(name, _)| !name.is_empty());
        let name = alert.or(record).map(|(name, _)| name);
        let expression = self.expression("the rule", node, fields.get("expr"));
        let labels = merged(group_labels, self.labels(fields.get("labels"), "label"));
        let annotations = self.labels(fields.get("annotations"), "annotation");
        let for_ms = self.duration(fields.get("for"), "for").unwrap_or_default();
        let keep_firing_for_ms = self.duration(fields.get("keep_firing_for"), "keep_firing_for").unwrap_or_default();
        let kind = match (alert, record) {
            (Some((name, alert)), None) => {
                self.alert_name(name, alert.position);
                let (no_data, annotations) = self.no_data(annotations);
                RuleKind::Alert(AlertRule {
                    for_ms,
                    keep_firing_for_ms,
                    labels: self.templates(&labels, "label"),
                    annotations: self.templates(&annotations, "annotation"),
                    no_data,
                })
            }
            (None, Some((name, record))) => {
                self.recording_only(&fields);
                self.record_name(name, record.position);
                RuleKind::Record(RecordRule { labels: owned(&labels) })
            }
            (Some(_), Some((_, record))) => {
                let message = "the rule has both `alert` and `record`".to_owned();
                self.error(record.position, message, "make two rules of it");
                return None;
            }
            (None, None) => {
                let message = "the rule has neither `alert` nor `record`".to_owned();
                self.error(
                    node.position,
                    message,
                    "give it a name: `alert: …` to alert, `record: …` to store the result",
                );
                return None;
            }
        };
        let (plan, expression) = expression?;
        let key = RuleKey { group: group.to_owned(), name: name?.to_owned(), labels: as_lines(&labels), ordinal: 0 };
        let rule = Rule { key, position: node.position, plan, kind };
        lint::check(self, &rule, &labels, expression, interval_ms);
        Some(rule)
    }

    /// The plan of an expression, and where it stands.
    pub(super) fn expression<'n>(
        &mut self,
        what: &str,
        owner: &Node,
        node: Option<&'n Node>,
    ) -> Option<(Plan, Text<'n>)> {
        let found = self.text(node, "expr").filter(|(text, _)| !text.trim().is_empty());
        let Some((text, node)) = found else {
            let position = node.map_or(owner.position, |node| node.position);
            self.error(position, format!("{what} has no expression"), "add `expr: …`");
            return None;
        };
        let text = Text { text, node };
        match Plan::parse(text.text) {
            Ok(plan) if matches!(plan.value_type(), ValueType::Vector | ValueType::Scalar) => Some((plan, text)),
            Ok(plan) => {
                let message = format!("the expression yields a {}", plan.value_type());
                self.error(node.position, message, &format!("{what} needs an instant vector or a number"));
                None
            }
            Err(error) => {
                let position = error.span().map_or(node.position, |span| self.locate(text, span.start));
                // The position in the file takes the place of the one in the expression.
                let within = error.span().map_or_else(String::new, |span| format!(" at {span}"));
                let message = format!("the expression is not valid: {}", chain(&error).replacen(&within, "", 1));
                self.error(position, message, "mend the expression");
                None
            }
        }
    }

    fn recording_only(&mut self, fields: &Fields<'_>) {
        for key in ["for", "keep_firing_for", "annotations"] {
            if let Some(node) = fields.get(key).filter(|node| !is_empty(node)) {
                self.error(node.position, format!("a recording rule has no `{key}`"), "remove it");
            }
        }
    }

    fn alert_name(&mut self, name: &str, position: Position) {
        if name.len() > limits::NAME_BYTES_MAX {
            let message = format!("the name of the alert is longer than {} bytes", limits::NAME_BYTES_MAX);
            self.error(position, message, "shorten it");
        }
    }

    fn record_name(&mut self, name: &str, position: Position) {
        if name.contains(['{', '}']) {
            let message = format!("braces in the recorded name {name:?}");
            self.error(position, message, "write only the new metric's name; labels go under `labels`");
        } else if let Err(error) = check_metric_name(name) {
            self.error(position, error.to_string(), "rename it");
        }
    }

    /// Takes the instruction for missing data out of the annotations.
    fn no_data<'n>(&mut self, annotations: Vec<Label<'n>>) -> (NoData, Vec<Label<'n>>) {
        let (chosen, rest): (Vec<_>, Vec<_>) =
            annotations.into_iter().partition(|label| label.name == NoData::ANNOTATION);
        let no_data = chosen.first().and_then(|label| match label.value.text {
            "keep" => Some(NoData::Keep),
            "ok" => Some(NoData::Ok),
            other => {
                let message = format!("annotation {:?} is {other:?}", NoData::ANNOTATION);
                self.error(label.value.node.position, message, "it must be \"keep\" or \"ok\"");
                None
            }
        });
        (no_data.unwrap_or_default(), rest)
    }

    fn templates(&mut self, labels: &[Label<'_>], what: &str) -> Vec<(String, Template)> {
        let mut templates = Vec::with_capacity(labels.len());
        for label in labels {
            match Template::parse(label.value.text) {
                Ok(template) => templates.push((label.name.to_owned(), template)),
                Err(error) => {
                    let position = self.locate(label.value, error.offset);
                    self.error(position, format!("{what} {:?}: {error}", label.name), error.help());
                }
            }
        }
        templates
    }
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        NodeValue::Null => true,
        NodeValue::Text(text) => matches!(duration::parse(text), Ok(0)),
        NodeValue::Mapping(pairs) => pairs.is_empty(),
        NodeValue::Sequence(items) => items.is_empty(),
    }
}

/// The group's labels under the rule's own.
fn merged<'n>(group: &[Label<'n>], own: Vec<Label<'n>>) -> Vec<Label<'n>> {
    let mut labels: Vec<Label<'n>> =
        group.iter().filter(|label| own.iter().all(|other| other.name != label.name)).copied().collect();
    labels.extend(own);
    labels.sort_by_key(|label| label.name);
    labels
}

fn owned(labels: &[Label<'_>]) -> Vec<(String, String)> {
    labels.iter().map(|label| (label.name.to_owned(), label.value.text.to_owned())).collect()
}

fn as_lines(labels: &[Label<'_>]) -> String {
    let lines: Vec<_> = labels.iter().map(|label| format!("{}={:?}", label.name, label.value.text)).collect();
    lines.join("\n")
}

/// An error and its causes on one line; of a cause that draws a picture the last line, which says what is wrong.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        let last = cause_text.lines().last().unwrap_or_default();
        text = format!("{text}: {}", last.strip_prefix("error: ").unwrap_or(last));
        source = cause.source();
    }
    text
}

/// The name of a rule whatever else is wrong with it.
fn name_of(rule: &Node) -> Option<&str> {
    let NodeValue::Mapping(pairs) = &rule.value else { return None };
    let is_name = |key: &Node| matches!(key.text(), Some("alert" | "record"));
    pairs.iter().find(|(key, _)| is_name(key)).and_then(|(_, value)| value.text()).filter(|name| !name.is_empty())
}

//! All rules in force: the groups of every file, numbered, and which rule reads which metric.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::limits;
use super::problem::{LoadError, Problem, Severity};
use super::rule::{Group, NoData, Reads, Rule, RuleKey, RuleKind};
use super::{Position, file};

/// The name and text of a rule file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// What the file is called in messages.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A rule of a set, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RuleId(pub(crate) usize);

/// Rules that were all understood.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleSet {
    groups: Vec<Group>,
    /// The group and the place in it of each rule, in the order of evaluation.
    rules: Vec<(usize, usize)>,
    by_metric: HashMap<String, Vec<RuleId>>,
    reads_everything: Vec<RuleId>,
}

/// What checking files came to.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The rules, if there are no errors.
    pub(crate) rules: Option<RuleSet>,
    /// Errors and warnings, in the order of the files and within each of its lines.
    pub(crate) problems: Vec<Problem>,
}

impl RuleSet {
    /// Loads files, all of them or none.
    pub(crate) fn load(sources: &[Source]) -> Result<Self, LoadError> {
        let Checked { rules, problems } = Self::check(sources);
        rules.ok_or(LoadError { problems })
    }

    /// Loads files and tells everything there is to say about them.
    pub(crate) fn check(sources: &[Source]) -> Checked {
        let mut groups = Vec::new();
        let mut problems = Vec::new();
        for source in sources {
            let parsed = file::parse(&source.name, &source.text);
            problems.extend(parsed.problems);
            groups.extend(parsed.groups);
        }
        number_equals(&mut groups, &mut problems);
        let count: usize = groups.iter().map(|group| group.rules.len()).sum();
        if count > limits::RULES_MAX {
            problems.push(Problem {
                severity: Severity::Error,
                file: groups.last().map_or_else(String::new, |group| group.file.to_string()),
                position: None,
                group: None,
                rule: None,
                message: format!("{count} rules in all are more than {}", limits::RULES_MAX),
                help: "load fewer files".to_owned(),
            });
        }
        let order: BTreeMap<_, _> = sources.iter().enumerate().map(|(at, source)| (&source.name, at)).collect();
        problems.sort_by_key(|problem| (order.get(&problem.file).copied(), problem.position));
        let refused = problems.iter().any(|problem| problem.severity == Severity::Error);
        Checked { rules: (!refused).then(|| Self::index(groups)), problems }
    }

    fn index(groups: Vec<Group>) -> Self {
        let mut set = Self { groups, ..Self::default() };
        for (at, group) in set.groups.iter().enumerate() {
            for (place, rule) in group.rules.iter().enumerate() {
                let id = RuleId(set.rules.len());
                set.rules.push((at, place));
                match rule.reads() {
                    Reads::Everything => set.reads_everything.push(id),
                    Reads::Named(names) => {
                        names.into_iter().for_each(|name| set.by_metric.entry(name).or_default().push(id));
                    }
                }
            }
        }
        set
    }

    /// Every rule with its group, in the order of evaluation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RuleId, &Group, &Rule)> {
        (0..self.rules.len()).filter_map(|id| {
            let (group, rule) = self.get(RuleId(id))?;
            Some((RuleId(id), group, rule))
        })
    }

    /// The same rules for being run through at instants that somebody else chooses, without intervals of their own.
    /// Groups that are named in an order come in it, the others before them.
    pub(crate) fn rehearsed(&self, order: &[String], no_data: Option<NoData>) -> Self {
        let mut groups = self.groups.clone();
        groups.sort_by_key(|group| order.iter().position(|name| *name == group.name).map_or(0, |at| at + 1));
        for group in &mut groups {
            group.interval_ms = None;
            for rule in &mut group.rules {
                if let (RuleKind::Alert(alert), Some(no_data)) = (&mut rule.kind, no_data) {
                    alert.no_data = no_data;
                }
            }
        }
        Self::index(groups)
    }

    /// A rule and its group.
    pub(crate) fn get(&self, id: RuleId) -> Option<(&Group, &Rule)> {
        let (group, place) = *self.rules.get(id.0)?;
        let group = self.groups.get(group)?;
        Some((group, group.rules.get(place)?))
    }

    /// How many rules there are.
    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The rules that read any of these metrics, each once, in the order of evaluation. Looked up are the names that
    /// rules use: of a metric with an alias both are to be asked for.
    pub(crate) fn readers_of<'a>(&self, metrics: impl IntoIterator<Item = &'a str>) -> BTreeSet<RuleId> {
        let named = metrics.into_iter().filter_map(|metric| self.by_metric.get(metric)).flatten();
        named.chain(&self.reads_everything).copied().collect()
    }
}

/// Numbers rules that nothing tells apart. Two that are the same in all, or would yield alerts with the same labels, deserve a
/// word.
fn number_equals(groups: &mut [Group], problems: &mut Vec<Problem>) {
    let mut seen: HashMap<RuleKey, Vec<Seen>> = HashMap::new();
    for group in groups {
        for rule in &mut group.rules {
            let equals = seen.entry(rule.key.clone()).or_default();
            rule.key.ordinal = u32::try_from(equals.len()).unwrap_or(u32::MAX);
            let found = Seen {
                file: group.file.to_string(),
                position: rule.position,
                expression: rule.plan.expression().trim().to_owned(),
                is_alert: matches!(rule.kind, RuleKind::Alert(_)),
            };
            let equal = |other: &&Seen| other.is_alert == found.is_alert;
            let repeated = equals.iter().filter(equal).find(|other| other.expression == found.expression);
            if let Some(other) = repeated.or(equals.iter().find(equal)) {
                problems.push(found.problem(&rule.key, other));
            }
            equals.push(found);
        }
    }
}

struct Seen {
    file: String,
    position: Position,
    expression: String,
    is_alert: bool,
}

impl Seen {
    fn problem(&self, key: &RuleKey, other: &Self) -> Problem {
        let place = format!("{}:{}", other.file, other.position);
        let repeats = self.expression == other.expression;
        let (message, help) = match (repeats, self.is_alert) {
            (true, _) => (format!("the rule repeats the one at {place}"), "remove one"),
            (false, true) => (
                format!("the rule has the name and labels of the one at {place}: their alerts look the same"),
                "give them different labels",
            ),
            (false, false) => (
                format!("the rule records the same series as the one at {place}"),
                "rename one, or give it another label",
            ),
        };
        Problem {
            severity: Severity::Warning,
            file: self.file.clone(),
            position: Some(self.position),
            group: Some(key.group.clone()),
            rule: Some(key.name.clone()),
            message,
            help: help.to_owned(),
        }
    }
}

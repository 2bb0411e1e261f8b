//! YAML text to a tree that knows where everything stands.
//!
//! The parser is serde-saphyr's. Its events are taken rather than deserialised into types, because every problem of
//! a file is to be told, with its position, and a deserialiser stops at the first. What a node means is left to
//! the reader of the tree: text stays as it was written, so that `severity: 1` is the text "1" as in Prometheus.
//!
//! Aliases and merge keys are expanded; the weight of the tree is bounded while it grows. No recursion: depth is
//! bounded by the parser, and the tree is built on a stack.

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span};
use thiserror::Error;

use super::limits;
use super::position::{Place, Position, Style};

/// What every node weighs beside its text.
const NODE_BYTES: usize = 64;

/// Why a text has no tree.
#[derive(Debug, Error)]
#[error("{message}")]
pub(super) struct YamlError {
    pub(super) message: String,
    pub(super) help: &'static str,
    pub(super) position: Position,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: NodeValue,
    pub(super) position: Position,
    pub(super) place: Place,
    weight: usize,
}

#[derive(Debug, Clone)]
pub(super) enum NodeValue {
    Null,
    Text(String),
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// What kind of value this is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            NodeValue::Null => "nothing",
            NodeValue::Text(_) => "a text",
            NodeValue::Sequence(_) => "a list",
            NodeValue::Mapping(_) => "a mapping",
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The tree of the only document of a text, or nothing if the text is empty.
pub(super) fn parse(text: &str) -> Result<Option<Node>, YamlError> {
    let options = granit_parser::options! {
        flow_nesting_limit: limits::YAML_DEPTH_MAX,
        block_nesting_limit: limits::YAML_DEPTH_MAX,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| YamlError {
            message: format!("not valid YAML: {}", error.info()),
            help: "mend the line, or the one above it",
            position: Position { line: error.marker().line(), column: error.marker().col() + 1 },
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.root.filter(|root| !matches!(root.value, NodeValue::Null)))
}

/// A collection whose end was not seen yet.
struct Open {
    anchor: usize,
    span: Span,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { pairs: Vec<(Node, Node)>, key: Option<Node> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    weight: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(..) => self.document(span),
            Event::Scalar(text, style, anchor, tag) => {
                let is_null = style == ScalarStyle::Plain && tag.is_none() && is_null(&text);
                let value = if is_null { NodeValue::Null } else { NodeValue::Text(text.into_owned()) };
                let node = node(value, span, style_of(style));
                self.grow(node.weight, span)?;
                self.add(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open { anchor, span, items: Items::Sequence(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                let items = Items::Mapping { pairs: Vec::new(), key: None };
                self.open.push(Open { anchor, span, items });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(error("an alias stands inside its own anchor", "write the value out", span));
                };
                self.grow(node.weight, span)?;
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn document(&mut self, span: Span) -> Result<(), YamlError> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(error("a second YAML document begins here", "put it into a file of its own", span));
        }
        Ok(())
    }

    fn grow(&mut self, weight: usize, span: Span) -> Result<(), YamlError> {
        self.weight += weight;
        if self.weight > limits::TREE_BYTES_MAX {
            return Err(error("the file grows too large here", "use fewer aliases, or split the file", span));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(Open { anchor, span, items }) = self.open.pop() else { return Ok(()) };
        self.grow(NODE_BYTES, span)?;
        let value = match items {
            Items::Sequence(items) => NodeValue::Sequence(items),
            Items::Mapping { pairs, .. } => NodeValue::Mapping(self.merged(pairs)?),
        };
        self.add(node(value, span, Style::Plain), anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.weight += node.weight;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            Some(Items::Sequence(items)) => items.push(node),
            Some(Items::Mapping { pairs, key }) => match key.take() {
                Some(key) => pairs.push((key, node)),
                None => *key = Some(node),
            },
            None => self.root = Some(node),
        }
        Ok(())
    }

    /// Resolves `<<: *defaults`: what the mapping says itself wins over what it merges, the earlier over the later.
    fn merged(&self, pairs: Vec<(Node, Node)>) -> Result<Vec<(Node, Node)>, YamlError> {
        let is_merge = |key: &Node| key.place.style == Style::Plain && key.text() == Some("<<");
        let (merges, mut own): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(key, _)| is_merge(key));
        let mut present: HashSet<String> = own.iter().filter_map(|(key, _)| key.text().map(str::to_owned)).collect();
        for (_, value) in merges {
            let position = value.position;
            let sources = match value.value {
                NodeValue::Sequence(items) => items,
                _ => vec![value],
            };
            for source in sources {
                let NodeValue::Mapping(pairs) = source.value else {
                    return Err(YamlError {
                        message: "`<<` merges something that is no mapping".to_owned(),
                        help: "give it an alias of a mapping",
                        position,
                    });
                };
                for (key, value) in pairs {
                    if key.text().is_none_or(|key| present.insert(key.to_owned())) {
                        own.push((key, value));
                    }
                }
            }
        }
        Ok(own)
    }
}

fn node(value: NodeValue, span: Span, style: Style) -> Node {
    let weight = NODE_BYTES
        + match &value {
            NodeValue::Null => 0,
            NodeValue::Text(text) => text.len(),
            NodeValue::Sequence(items) => items.iter().map(|item| item.weight).sum(),
            NodeValue::Mapping(pairs) => pairs.iter().map(|(key, value)| key.weight + value.weight).sum(),
        };
    let range = span.byte_range().unwrap_or_default();
    Node { value, position: position(span), place: Place { start: range.start, end: range.end, style }, weight }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn error(message: &str, help: &'static str, span: Span) -> YamlError {
    YamlError { message: message.to_owned(), help, position: position(span) }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(node: &Node) -> String {
        match &node.value {
            NodeValue::Null => "null".to_owned(),
            NodeValue::Text(text) => format!("{text:?}"),
            NodeValue::Sequence(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(", ")),
            NodeValue::Mapping(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{}: {}", shape(k), shape(v))).collect();
                format!("{{{}}}", pairs.join(", "))
            }
        }
    }

    fn check(text: &str, expected: &str) {
        let root = parse(text).expect("valid YAML").expect("a document");
        assert_eq!(shape(&root), expected);
    }

    #[test]
    fn text_stays_as_written() {
        check(
            "a: 1.50\nb: yes\nc: ~\nd: '~'\ne: 0x1f",
            r#"{"a": "1.50", "b": "yes", "c": null, "d": "~", "e": "0x1f"}"#,
        );
    }

    #[test]
    fn aliases_and_merge_keys_are_expanded() {
        check("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3", r#"{"a": {"p": "1", "q": "2"}, "b": {"q": "3", "p": "1"}}"#);
        check("a: &x [1]\nb: *x", r#"{"a": ["1"], "b": ["1"]}"#);
    }

    #[test]
    fn empty_texts_have_no_tree() {
        for text in ["", "# nothing\n", "---\n", "null", "\n\n"] {
            assert!(parse(text).expect("valid YAML").is_none(), "{text:?}");
        }
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(9);
            laughs += &format!("a{level}: &a{level} [{below}]\n");
        }
        let message = |text: &str| parse(text).expect_err("not a tree").to_string();
        assert_eq!(message(&laughs), "the file grows too large here");
        assert_eq!(message("a: &a [*a]"), "an alias stands inside its own anchor");
        assert_eq!(message("a: 1\n---\nb: 2"), "a second YAML document begins here");
        assert!(message(&"[".repeat(10_000)).starts_with("not valid YAML: "));
        assert!(message("a: b: c").starts_with("not valid YAML: "));
    }
}

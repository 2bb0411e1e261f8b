//! Every function of templates, in one list.

use regex::{Regex, RegexBuilder};

use super::TemplateErrorKind;
use super::format;
use super::value::Value;
use crate::rules::{duration, limits};

/// A function and how many arguments it takes.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) arguments_min: usize,
    pub(super) arguments_max: usize,
    pub(super) run: Run,
}

#[derive(Debug)]
pub(super) enum Run {
    /// Computes from its arguments, of which there are as many as the function takes.
    Plain(for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, String>),
    /// As `Plain`, but the first argument is a regular expression.
    Pattern(for<'a> fn(&Regex, &[Value<'a>]) -> Result<Value<'a>, String>),
}

const MANY: usize = 100;

/// All functions.
const FUNCTIONS: &[Function] = &[
    plain("and", 1, MANY, |values| Ok(pick(values, |value| !value.is_true()))),
    plain("or", 1, MANY, |values| Ok(pick(values, Value::is_true))),
    plain("not", 1, 1, |values| Ok(Value::Bool(values.iter().all(|value| !value.is_true())))),
    plain("eq", 2, MANY, |values| {
        let [first, others @ ..] = values else { return Err(COUNT.to_owned()) };
        let equal = |other: &Value<'_>| Ok::<_, String>(first.compare(other)? == Some(std::cmp::Ordering::Equal));
        for other in others {
            if equal(other)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    plain("ne", 2, 2, |values| compared(values, |ordering| ordering.is_none_or(std::cmp::Ordering::is_ne))),
    plain("lt", 2, 2, |values| compared(values, |ordering| ordering.is_some_and(std::cmp::Ordering::is_lt))),
    plain("le", 2, 2, |values| compared(values, |ordering| ordering.is_some_and(std::cmp::Ordering::is_le))),
    plain("gt", 2, 2, |values| compared(values, |ordering| ordering.is_some_and(std::cmp::Ordering::is_gt))),
    plain("ge", 2, 2, |values| compared(values, |ordering| ordering.is_some_and(std::cmp::Ordering::is_ge))),
    plain("len", 1, 1, |values| match values {
        [Value::Text(text)] => Ok(Value::Integer(i64::try_from(text.len()).unwrap_or(i64::MAX))),
        [Value::Labels(labels)] => Ok(Value::Integer(i64::try_from(labels.len()).unwrap_or(i64::MAX))),
        _ => Err("it needs a text or labels".to_owned()),
    }),
    plain("index", 2, 2, |values| match values {
        [Value::Labels(labels), Value::Text(name)] => Ok(Value::text(labels.value(name))),
        _ => Err("it needs labels and the name of one".to_owned()),
    }),
    plain("print", 0, MANY, |values| Ok(Value::text(printed(values)))),
    plain("println", 0, MANY, |values| {
        let texts: Vec<_> = values.iter().map(Value::shown).collect();
        Ok(Value::text(texts.join(" ") + "\n"))
    }),
    plain("printf", 1, MANY, |values| match values {
        [Value::Text(text), arguments @ ..] => Ok(Value::text(format::printf(text, arguments)?)),
        _ => Err("its first argument must be a text".to_owned()),
    }),
    plain("humanize", 1, 1, |values| Ok(Value::text(format::humanize(number(values)?)))),
    plain("humanize1024", 1, 1, |values| Ok(Value::text(format::humanize1024(number(values)?)))),
    plain("humanizeDuration", 1, 1, |values| Ok(Value::text(format::humanize_duration(number(values)?)))),
    plain("humanizePercentage", 1, 1, |values| Ok(Value::text(format::humanize_percentage(number(values)?)))),
    plain("humanizeTimestamp", 1, 1, |values| Ok(Value::text(format::humanize_timestamp(number(values)?)?))),
    plain("parseDuration", 1, 1, |values| {
        #[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 ms")]
        let seconds = duration::parse(text(values)?).map_err(|error| error.to_string())? as f64 / 1000.0;
        Ok(Value::Number(seconds))
    }),
    plain("title", 1, 1, |values| Ok(Value::text(title(text(values)?)))),
    plain("toUpper", 1, 1, |values| Ok(Value::text(text(values)?.to_uppercase()))),
    plain("toLower", 1, 1, |values| Ok(Value::text(text(values)?.to_lowercase()))),
    plain("safeHtml", 1, 1, |values| Ok(Value::text(text(values)?.to_owned()))),
    plain("stripPort", 1, 1, |values| Ok(Value::text(split_port(text(values)?).0.to_owned()))),
    plain("stripDomain", 1, 1, |values| Ok(Value::text(strip_domain(text(values)?)))),
    pattern("match", 2, |pattern, values| Ok(Value::Bool(pattern.is_match(text(values)?)))),
    pattern("reReplaceAll", 3, |pattern, values| match values {
        [Value::Text(replacement), Value::Text(text)] => replace_all(pattern, replacement, text).map(Value::text),
        _ => Err("it needs an expression, a replacement and a text".to_owned()),
    }),
];

/// Functions and keywords of Prometheus' templates that are not supported.
pub(super) const UNSUPPORTED: &[&str] = &[
    "args",
    "block",
    "break",
    "call",
    "continue",
    "define",
    "first",
    "graphLink",
    "html",
    "js",
    "label",
    "nil",
    "now",
    "pathPrefix",
    "query",
    "range",
    "slice",
    "sortByLabel",
    "strvalue",
    "tableLink",
    "template",
    "tmpl",
    "toDuration",
    "toTime",
    "urlQueryEscape",
    "urlquery",
    "value",
    "with",
];

/// What is said where a count of arguments that was checked when parsing turns out wrong.
const COUNT: &str = "it got the wrong number of arguments";

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// Compiles a regular expression of a template. Go's syntax and Rust's agree in what people use.
pub(super) fn compile(pattern: &str) -> Result<Regex, TemplateErrorKind> {
    RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build().map_err(|error| {
        let message = error.to_string();
        let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
        TemplateErrorKind::Pattern { pattern: pattern.to_owned(), message: last.to_owned() }
    })
}

const fn plain(
    name: &'static str,
    arguments_min: usize,
    arguments_max: usize,
    run: for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, String>,
) -> Function {
    Function { name, arguments_min, arguments_max, run: Run::Plain(run) }
}

const fn pattern(
    name: &'static str,
    arguments: usize,
    run: for<'a> fn(&Regex, &[Value<'a>]) -> Result<Value<'a>, String>,
) -> Function {
    Function { name, arguments_min: arguments, arguments_max: arguments, run: Run::Pattern(run) }
}

/// The first value that decides, or the last.
fn pick<'a>(values: &[Value<'a>], decides: impl Fn(&Value<'a>) -> bool) -> Value<'a> {
    let decided = values.iter().find(|value| decides(value)).or(values.last());
    decided.cloned().unwrap_or(Value::Bool(false))
}

fn compared<'a>(values: &[Value<'a>], holds: impl Fn(Option<std::cmp::Ordering>) -> bool) -> Result<Value<'a>, String> {
    let [a, b] = values else { return Err(COUNT.to_owned()) };
    Ok(Value::Bool(holds(a.compare(b)?)))
}

/// Go's `Sprint`: a space between two values of which neither is a text.
fn printed(values: &[Value<'_>]) -> String {
    let is_text = |value: &Value<'_>| matches!(value, Value::Text(_));
    let mut text = String::new();
    let mut before_is_text = true;
    for value in values {
        if !before_is_text && !is_text(value) {
            text.push(' ');
        }
        text.push_str(&value.shown());
        before_is_text = is_text(value);
    }
    text
}

fn number(values: &[Value<'_>]) -> Result<f64, String> {
    values.first().ok_or(COUNT)?.number()
}

fn text<'v>(values: &'v [Value<'_>]) -> Result<&'v str, String> {
    match values {
        [Value::Text(text)] => Ok(text),
        [other, ..] => Err(format!("it needs a text, not a {}", other.type_name())),
        [] => Err(COUNT.to_owned()),
    }
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut within = false;
    let mut titled = String::with_capacity(text.len());
    for c in text.chars() {
        if within {
            titled.push(c);
        } else {
            titled.extend(c.to_uppercase());
        }
        within = c.is_alphanumeric() || matches!(c, '_' | '\'');
    }
    titled
}

/// Host and port of `host:port`; an address in brackets may hold colons.
fn split_port(address: &str) -> (&str, &str) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest);
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port),
        _ => (address, ""),
    }
}

fn strip_domain(address: &str) -> String {
    let (host, port) = split_port(address);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let short = host.split('.').next().unwrap_or_default();
    if port.is_empty() { short.to_owned() } else { format!("{short}:{port}") }
}

/// As `Regex::replace_all`, but never longer than a template may yield.
fn replace_all(pattern: &Regex, replacement: &str, text: &str) -> Result<String, String> {
    let mut replaced = String::new();
    let mut copied = 0;
    for captures in pattern.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        replaced.push_str(text.get(copied..whole.start()).unwrap_or_default());
        captures.expand(replacement, &mut replaced);
        copied = whole.end();
        if replaced.len() > limits::TEMPLATE_OUTPUT_BYTES_MAX {
            return Err("the text grows too long".to_owned());
        }
    }
    replaced.push_str(text.get(copied..).unwrap_or_default());
    Ok(replaced)
}

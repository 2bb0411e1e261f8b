//! Scripts: text to commands.

use belfry_promql::Labels;

use super::number::{self, Values};

/// One command and where it stands.
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Clear,
    Load(Load),
    /// A command that this format does not have: for whoever has some of their own.
    Other,
    Eval(Box<Eval>),
}

pub(crate) struct Load {
    pub(crate) step_ms: i64,
    /// Whether classic histograms are to be loaded as native ones with custom buckets, too.
    pub(crate) with_native: bool,
    pub(crate) series: Vec<(Labels, Values)>,
}

pub(crate) struct Eval {
    pub(crate) expression: String,
    pub(crate) when: When,
    pub(crate) ordered: bool,
    pub(crate) expect_fail: bool,
    pub(crate) expectations: Vec<Expectation>,
    pub(crate) series: Vec<(Labels, Values)>,
    pub(crate) scalar: Option<f64>,
    pub(crate) string: Option<String>,
    /// The result of an instant query is a range vector with these start and step.
    pub(crate) matrix: Option<(i64, i64)>,
}

#[derive(Clone, Copy)]
pub(crate) enum When {
    Instant(i64),
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

pub(crate) enum Expectation {
    Warning(Option<Text>),
    Info(Option<Text>),
    NoWarning,
    NoInfo,
    FailWith(Text),
}

pub(crate) enum Text {
    Exactly(String),
    Matching(String),
}

pub(crate) fn parse(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while let Some(&line) = lines.get(at) {
        let number = at + 1;
        at += 1;
        if line.is_empty() {
            continue;
        }
        let block: Vec<&str> = lines.iter().skip(at).copied().take_while(|line| !line.is_empty()).collect();
        let wrong = |error: String| format!("line {number}: {error}");
        let kind = match line.split_whitespace().next().unwrap_or_default() {
            "clear" => Kind::Clear,
            "load" | "load_with_nhcb" => {
                at += block.len();
                Kind::Load(load(line, &block).map_err(wrong)?)
            }
            word if word.starts_with("eval") => {
                at += block.len();
                Kind::Eval(Box::new(eval(line, &block).map_err(wrong)?))
            }
            _ => Kind::Other,
        };
        commands.push(Command { line: number, text: line.to_owned(), kind });
    }
    Ok(commands)
}

fn load(line: &str, block: &[&str]) -> Result<Load, String> {
    let (word, step) = line.split_once(char::is_whitespace).ok_or("load without a step")?;
    let series = block.iter().map(|line| series(line)).collect::<Result<_, _>>()?;
    Ok(Load { step_ms: number::duration_ms(step.trim())?, with_native: word == "load_with_nhcb", series })
}

fn eval(line: &str, block: &[&str]) -> Result<Eval, String> {
    let (word, rest) = split_word(line);
    let (kind, rest) = split_word(rest);
    let (when, expression) = match kind {
        "instant" => {
            let (time, expression) = split_word(rest.strip_prefix("at").ok_or("expected `at`")?.trim_start());
            (When::Instant(number::duration_ms(time)?), expression)
        }
        "range" => {
            let (start, rest) = split_word(rest.strip_prefix("from").ok_or("expected `from`")?.trim_start());
            let (end, rest) = split_word(rest.strip_prefix("to").ok_or("expected `to`")?.trim_start());
            let (step, expression) = split_word(rest.strip_prefix("step").ok_or("expected `step`")?.trim_start());
            let [start_ms, end_ms, step_ms] = [start, end, step].map(number::duration_ms);
            (When::Range { start_ms: start_ms?, end_ms: end_ms?, step_ms: step_ms? }, expression)
        }
        _ => return Err(format!("unknown kind of evaluation {kind:?}")),
    };
    let mut eval = Eval {
        expression: expression.to_owned(),
        when,
        ordered: word == "eval_ordered",
        expect_fail: word == "eval_fail",
        expectations: Vec::new(),
        series: Vec::new(),
        scalar: None,
        string: None,
        matrix: None,
    };
    match word {
        "eval_warn" => eval.expectations.push(Expectation::Warning(None)),
        "eval_info" => eval.expectations.push(Expectation::Info(None)),
        _ => {}
    }
    for line in block {
        eval.line(line)?;
    }
    Ok(eval)
}

impl Eval {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(message) = line.strip_prefix("expected_fail_message") {
            self.expectations.push(Expectation::FailWith(Text::Exactly(message.trim().to_owned())));
        } else if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
            self.expectations.push(Expectation::FailWith(Text::Matching(pattern.trim().to_owned())));
        } else if let Some(rest) = line.strip_prefix("expect ") {
            self.expect(rest.trim())?;
        } else if let Ok(number) = number::float(line) {
            self.scalar = Some(number);
        } else {
            self.series.push(series(line)?);
        }
        Ok(())
    }

    fn expect(&mut self, what: &str) -> Result<(), String> {
        let (word, rest) = split_word(what);
        match word {
            "fail" => {
                self.expect_fail = true;
                self.expectations.extend(text(rest).map(Expectation::FailWith));
            }
            "warn" => self.expectations.push(Expectation::Warning(text(rest))),
            "info" => self.expectations.push(Expectation::Info(text(rest))),
            "no_warn" => self.expectations.push(Expectation::NoWarning),
            "no_info" => self.expectations.push(Expectation::NoInfo),
            "ordered" => self.ordered = true,
            "string" => {
                let quoted = rest.trim();
                let inner = quoted.get(1..quoted.len() - 1).ok_or("malformed string")?;
                self.string = Some(inner.to_owned());
            }
            "range" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let ["vector", "from", start, "to", _, "step", step] = words[..] else {
                    return Err(format!("malformed expectation {what:?}"));
                };
                self.matrix = Some((number::duration_ms(start)?, number::duration_ms(step)?));
            }
            _ => return Err(format!("unknown expectation {what:?}")),
        }
        Ok(())
    }
}

fn text(rest: &str) -> Option<Text> {
    let exactly = rest.strip_prefix("msg:").map(|text| Text::Exactly(text.trim().to_owned()));
    exactly.or_else(|| rest.strip_prefix("regex:").map(|text| Text::Matching(text.trim().to_owned())))
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// `name{label="value"} 1 2 3`
fn series(line: &str) -> Result<(Labels, Values), String> {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace()).unwrap_or(line.len());
    let (name, mut rest) = line.split_at(name_end);
    let mut pairs = Vec::new();
    if !name.is_empty() {
        pairs.push(("__name__".to_owned(), name.to_owned()));
    }
    rest = rest.trim_start();
    if rest.starts_with('{') && !rest.starts_with("{{") {
        rest = labels(&rest[1..], &mut pairs)?;
    }
    Ok((Labels::from_pairs(pairs), number::values(rest)?))
}

/// What stands between braces; returns what follows them.
fn labels<'a>(text: &'a str, pairs: &mut Vec<(String, String)>) -> Result<&'a str, String> {
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let name;
        (name, rest) = if rest.starts_with(['"', '\'']) {
            quoted(rest)?
        } else {
            let end = rest.find(['=', ' ']).ok_or_else(|| format!("malformed labels {text:?}"))?;
            (rest[..end].to_owned(), &rest[end..])
        };
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('=') {
            let value;
            (value, rest) = quoted(after.trim_start())?;
            pairs.push((name, value));
        } else {
            pairs.push(("__name__".to_owned(), name));
        }
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().ok_or("expected a quote")?;
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((value, &text[at + 1..]));
        }
        match (c, quote) {
            ('\\', '"' | '\'') => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, other)) => value.push(other),
                None => break,
            },
            _ => value.push(c),
        }
    }
    Err(format!("unclosed quote in {text:?}"))
}

//! Reading OpenMetrics text, line by line.
//!
//! What Prometheus' older text has besides, empty lines and other comments, is passed over; exemplars are, too. Every sample must have a time,
//! and the file its `# EOF`: one that was cut short is taken for nothing.

use std::{
    collections::HashMap,
    io::{BufRead, Read as _},
    str::Chars,
};

use belfry_common::{limits, model::Kind};
use belfry_store::Sample;

use crate::exchange::intake::{FileError, Intake, KnownSeries, SeriesText, time_of};

/// 32 labels of 512 bytes, each escaped, and an exemplar.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Families that are described. An agent has about 400 metrics.
const FAMILIES_MAX: usize = 100_000;
/// Types of families by which kinds of metrics are told apart.
const KINDS: [&str; 5] = ["counter", "gauge", "info", "histogram", "summary"];
/// Lines after which progress is told.
const LINES_TOLD: u64 = 10_000;

/// Reads a file to its end.
///
/// # Errors
/// [`FileError`], or what the intake says.
pub(in crate::exchange) fn read(
    file: impl BufRead,
    intake: &mut dyn Intake,
    progress: &dyn Fn(u64),
) -> anyhow::Result<()> {
    let mut reader = Reader { intake, families: HashMap::new(), known: KnownSeries::default() };
    let mut lines = Lines { file, buffer: Vec::new(), line: 0, bytes: 0 };
    let mut has_ended = false;
    while let Some(line) = lines.next()? {
        let result = match line {
            _ if has_ended => {
                Err(Trouble::Text("behind `# EOF` there must be nothing: import the files one by one".into()))
            }
            "# EOF" => {
                has_ended = true;
                Ok(())
            }
            line => reader.line(line),
        };
        if let Err(trouble) = result {
            return Err(match trouble {
                Trouble::Text(what) => FileError::Line { line: lines.line, what }.into(),
                Trouble::Refused(error) => error.context(format!("line {}", lines.line)),
            });
        }
        if lines.line % LINES_TOLD == 0 {
            progress(lines.bytes);
        }
    }
    progress(lines.bytes);
    if !has_ended {
        let what = "the file ends without `# EOF`: it was cut short, or is none of OpenMetrics";
        return Err(FileError::Line { line: lines.line, what: what.to_owned() }.into());
    }
    Ok(())
}

/// What is wrong with a line.
enum Trouble {
    Text(String),
    Refused(anyhow::Error),
}

impl From<String> for Trouble {
    fn from(what: String) -> Self {
        Self::Text(what)
    }
}

/// Lines without their ends, each within the limit.
struct Lines<R> {
    file: R,
    buffer: Vec<u8>,
    line: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<&str>, FileError> {
        self.buffer.clear();
        let read = (&mut self.file).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.bytes += read as u64;
        let wrong = |what: &str| FileError::Line { line: self.line, what: what.to_owned() };
        if read > LINE_BYTES_MAX {
            return Err(wrong("it is longer than 64 KiB: is this a text file?"));
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|_| wrong("it is not UTF-8: is this a text file?"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(Some(text.strip_suffix('\r').unwrap_or(text)))
    }
}

/// What the file has said so far.
struct Reader<'a> {
    intake: &'a mut dyn Intake,
    /// Type and help by the family's name.
    families: HashMap<String, (&'static str, String)>,
    known: KnownSeries,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) -> Result<(), Trouble> {
        if let Some(comment) = line.strip_prefix('#') {
            return self.comment(comment.trim_start());
        }
        if line.trim().is_empty() {
            return Ok(());
        }
        let end = series_end(line)?;
        let (series, rest) = line.split_at(end);
        let number = match self.known.get(series.as_bytes()) {
            Some(number) => number,
            None => {
                let text = self.series(series)?;
                let number = self.intake.series(&text).map_err(Trouble::Refused)?;
                self.known.insert(series.as_bytes(), number)?;
                number
            }
        };
        let sample = sample(rest)?;
        match number {
            Some(number) => self.intake.sample(number, sample).map_err(Trouble::Refused),
            None => Ok(()),
        }
    }

    fn comment(&mut self, comment: &str) -> Result<(), Trouble> {
        let mut words = comment.splitn(3, ' ');
        let (word, name, text) = (words.next(), words.next(), words.next().unwrap_or_default());
        // No series has a name longer than a metric's.
        let is_possible = |name: &&str| name.len() <= limits::METRIC_NAME_BYTES_MAX;
        let Some(name) = name.filter(|_| matches!(word, Some("TYPE" | "HELP"))).filter(is_possible) else {
            return Ok(());
        };
        if self.families.len() >= FAMILIES_MAX && !self.families.contains_key(name) {
            return Err(format!("more than {FAMILIES_MAX} families are described").into());
        }
        let (kind, help) = self.families.entry(name.to_owned()).or_default();
        if word == Some("TYPE") {
            *kind = KINDS.into_iter().find(|known| *known == text.trim_end()).unwrap_or_default();
        } else {
            let end = text.floor_char_boundary(limits::HELP_BYTES_MAX);
            *help = unescaped(text.get(..end).unwrap_or_default());
        }
        Ok(())
    }

    fn series(&self, text: &str) -> Result<SeriesText, String> {
        let (name, labels) = match text.split_once('{') {
            Some((name, labels)) => (name.trim_end(), parse_labels(labels)?),
            None => (text, Vec::new()),
        };
        let (kind, help) = self.family_of(name);
        SeriesText::new(name, labels, kind, help)
    }

    /// What is known of the family of a sample, whose name can end in more than its.
    fn family_of(&self, name: &str) -> (Kind, &str) {
        let suffixes = ["", "_total", "_info", "_bucket", "_count", "_sum", "_created"];
        let found = suffixes.iter().find_map(|suffix| {
            let family = name.strip_suffix(suffix)?;
            self.families.get(family).map(|(kind, help)| (*suffix, *kind, help.as_str()))
        });
        let is_total = name.ends_with("_total");
        match found {
            Some(("" | "_total", "counter", help)) => (Kind::Counter, help),
            Some(("_info" | "", "info", help)) => (Kind::Info, help),
            Some(("_bucket" | "_count" | "_sum", "histogram" | "summary", help)) => (Kind::Counter, help),
            Some((_, "", help)) if is_total => (Kind::Counter, help),
            Some((_, _, help)) => (Kind::Gauge, help),
            None => (if is_total { Kind::Counter } else { Kind::Gauge }, ""),
        }
    }
}

/// Where the name and the labels of a sample end.
fn series_end(line: &str) -> Result<usize, String> {
    let name_end = line.find([' ', '{']).ok_or("a sample is `name{label=\"value\"} value time`".to_owned())?;
    if !line.get(name_end..).is_some_and(|rest| rest.trim_start().starts_with('{')) {
        return Ok(name_end);
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate().skip(name_end) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'}' if !is_quoted => return Ok(at + 1),
            _ => {}
        }
    }
    Err("the labels are not closed: a `}` or a `\"` is missing".to_owned())
}

/// `name="value",…}`
fn parse_labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut labels = Vec::new();
    let mut rest = text.trim_start();
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once('=').ok_or_else(|| "a label is `name=\"value\"`".to_owned())?;
        let after = after.trim_start().strip_prefix('"');
        let after = after.ok_or_else(|| format!("the value of label {:?} does not begin with `\"`", excerpt(name)))?;
        let mut value = String::new();
        let mut chars = after.chars();
        loop {
            match chars.next() {
                Some('"') => break,
                Some('\\') => put_escaped(&mut chars, &mut value),
                Some(character) => value.push(character),
                None => return Err(format!("the value of label {:?} has no end", excerpt(name))),
            }
        }
        labels.push((name.trim().to_owned(), value));
        rest = chars.as_str().trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err("labels are separated by `,`".to_owned()),
        }
    }
    Ok(labels)
}

/// Appends what an escape stands for; one that is none is taken as it is.
fn put_escaped(chars: &mut Chars<'_>, out: &mut String) {
    match chars.next() {
        Some('n') => out.push('\n'),
        Some(character @ ('\\' | '"')) => out.push(character),
        other => {
            out.push('\\');
            out.extend(other);
        }
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        if character == '\\' { put_escaped(&mut chars, &mut out) } else { out.push(character) }
    }
    out
}

/// ` value time`, and what may follow an exemplar's `#`.
fn sample(text: &str) -> Result<Sample, String> {
    let text = text.split_once(" # ").map_or(text, |(text, _)| text);
    let mut words = text.split_ascii_whitespace();
    let value = words.next().ok_or("there is no value".to_owned())?;
    let value: f64 = value.parse().map_err(|_| format!("{:?} is no value", excerpt(value)))?;
    let Some(time) = words.next() else {
        return Err("there is no time, and history needs one: seconds since 1970, behind the value".to_owned());
    };
    let seconds: f64 = time.parse().map_err(|_| format!("{:?} is no time in seconds since 1970", excerpt(time)))?;
    let Some(time) = time_of(seconds).filter(|_| seconds.is_finite()) else {
        return Err(format!(
            "time {:?} is beyond the year 5000: OpenMetrics has seconds, Prometheus' older text milliseconds",
            excerpt(time)
        ));
    };
    match words.next() {
        Some(word) => Err(format!("{:?} stands behind the time", excerpt(word))),
        None => Ok(Sample { time, value: Ok(value) }),
    }
}

/// Enough of a word to recognise it.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

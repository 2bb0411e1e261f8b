//! Go's ways of writing numbers: `%v`, `%f`, `%e`, `%g`, `printf` and Prometheus' `humanize` family.
//!
//! See the documentation of Go's `fmt` and `strconv.FormatFloat`, and Prometheus' `template` package.

use super::value::Value;
use crate::rules::limits;

/// Significant digits and the power of ten of the first of them.
struct Decimal {
    digits: String,
    exponent: i32,
}

impl Decimal {
    /// The fewest digits that tell the number from every other, or a number of them. The number is finite.
    fn new(number: f64, significant: Option<usize>) -> Self {
        let text = match significant {
            None => format!("{:e}", number.abs()),
            Some(significant) => format!("{:.*e}", significant.max(1) - 1, number.abs()),
        };
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let trimmed = digits.trim_end_matches('0');
        Self {
            digits: if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() },
            exponent: exponent.parse().unwrap_or_default(),
        }
    }
}

/// `%v` of a float: the shortest text that reads back as the same number.
pub(super) fn shortest(number: f64) -> String {
    general(number, None)
}

/// `%g`, with a number of significant digits or the shortest.
pub(super) fn general(number: f64, precision: Option<usize>) -> String {
    if let Some(text) = not_finite(number) {
        return text.to_owned();
    }
    let precision = precision.map(|precision| precision.max(1));
    let decimal = Decimal::new(number, precision);
    let digits = i32::try_from(decimal.digits.len()).unwrap_or(i32::MAX);
    let threshold = match precision.map(|precision| i32::try_from(precision).unwrap_or(i32::MAX)) {
        None => 6,
        Some(precision) if precision > digits && digits > decimal.exponent => digits,
        Some(precision) => precision,
    };
    if decimal.exponent < -4 || decimal.exponent >= threshold {
        let places = decimal.digits.len() - 1;
        return scientific(number, places);
    }
    let places = usize::try_from(digits - 1 - decimal.exponent).unwrap_or_default();
    format!("{number:.places$}")
}

/// `%e`, with a number of decimals.
pub(super) fn scientific(number: f64, places: usize) -> String {
    if let Some(text) = not_finite(number) {
        return text.to_owned();
    }
    let text = format!("{number:.places$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// `%f`, with a number of decimals.
pub(super) fn fixed(number: f64, places: usize) -> String {
    not_finite(number).map_or_else(|| format!("{number:.places$}"), str::to_owned)
}

fn not_finite(number: f64) -> Option<&'static str> {
    match number {
        _ if number.is_nan() => Some("NaN"),
        f64::INFINITY => Some("+Inf"),
        f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const LARGE_BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// `1234567` as `1.235M`.
pub(super) fn humanize(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return general(number, Some(4));
    }
    let (number, prefix) = if number.abs() >= 1.0 { divided(number, 1000.0, &LARGE) } else { multiplied(number) };
    format!("{}{prefix}", general(number, Some(4)))
}

/// `1048576` as `1Mi`.
pub(super) fn humanize1024(number: f64) -> String {
    if number.abs() <= 1.0 || !number.is_finite() {
        return general(number, Some(4));
    }
    let (number, prefix) = divided(number, 1024.0, &LARGE_BINARY);
    format!("{}{prefix}", general(number, Some(4)))
}

/// Seconds as `1d 2h 3m 4s`.
pub(super) fn humanize_duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return general(seconds, Some(4));
    }
    if seconds == 0.0 {
        return "0s".to_owned();
    }
    if seconds.abs() < 1.0 {
        let (number, prefix) = multiplied(seconds);
        return format!("{}{prefix}s", general(number, Some(4)));
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as Go converts; it saturates")]
    let whole = seconds.abs() as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", general(seconds.abs(), Some(4))),
        (0, 0, _) => format!("{sign}{minutes}m {rest}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {rest}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {rest}s"),
    }
}

/// A ratio as per cent.
pub(super) fn humanize_percentage(ratio: f64) -> String {
    format!("{}%", general(ratio * 100.0, Some(4)))
}

/// Seconds since the epoch as Go prints a time: `2009-02-13 23:31:30 +0000 UTC`.
pub(super) fn humanize_timestamp(seconds: f64) -> Result<String, String> {
    if !seconds.is_finite() {
        return Ok(general(seconds, Some(4)));
    }
    if !(0.0..253_402_300_800.0).contains(&seconds) {
        return Err(format!("{} is beyond the times that can be shown", shortest(seconds)));
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs_f64(seconds);
    let text = humantime::format_rfc3339_millis(time).to_string().replace('T', " ");
    let text = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    Ok(format!("{text} +0000 UTC"))
}

fn divided(mut number: f64, step: f64, prefixes: &[&'static str]) -> (f64, &'static str) {
    let mut chosen = "";
    for prefix in prefixes {
        if number.abs() < step {
            break;
        }
        chosen = prefix;
        number /= step;
    }
    (number, chosen)
}

fn multiplied(mut number: f64) -> (f64, &'static str) {
    let mut chosen = "";
    for prefix in SMALL {
        if number.abs() >= 1.0 {
            break;
        }
        chosen = prefix;
        number *= 1000.0;
    }
    (number, chosen)
}

/// One `%…` of a format.
#[derive(Debug, Default)]
struct Field {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// Go's `Sprintf`. Verbs and values that do not fit yield Go's own notes, such as `%!d(float64=5)`.
pub(super) fn printf(format: &str, arguments: &[Value<'_>]) -> Result<String, String> {
    let mut text = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let (field, tail) = field(after)?;
        let mut chars = tail.chars();
        match chars.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(verb) => match arguments.next() {
                Some(argument) => text.push_str(&field.apply(verb, argument)),
                None => text.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
        rest = chars.as_str();
        if text.len() > limits::TEMPLATE_OUTPUT_BYTES_MAX {
            return Err("the text grows too long".to_owned());
        }
    }
    text.push_str(rest);
    let extra: Vec<_> = arguments.map(|value| format!("{}={}", value.type_name(), value.shown())).collect();
    if !extra.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(text)
}

/// Flags, width and precision, and what follows them.
fn field(text: &str) -> Result<(Field, &str), String> {
    let mut field = Field::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next().filter(|c| "-+ 0#".contains(*c)) {
        match flag {
            '-' => field.minus = true,
            '+' => field.plus = true,
            ' ' => field.space = true,
            '0' => field.zero = true,
            _ => {}
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    let (width, tail) = number(rest)?;
    field.width = width.unwrap_or_default();
    rest = tail;
    if let Some(tail) = rest.strip_prefix('.') {
        let (precision, tail) = number(tail)?;
        field.precision = Some(precision.unwrap_or_default());
        rest = tail;
    }
    Ok((field, rest))
}

fn number(text: &str) -> Result<(Option<usize>, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Ok((None, rest));
    }
    match digits.parse() {
        Ok(number) if number <= limits::PRINTF_WIDTH_MAX => Ok((Some(number), rest)),
        _ => Err(format!("width or precision {digits} is too large")),
    }
}

impl Field {
    fn apply(&self, verb: char, value: &Value<'_>) -> String {
        let text = match (verb, value) {
            ('v', Value::Number(number)) => self.signed(
                self.precision.map_or_else(|| shortest(*number), |precision| general(*number, Some(precision))),
            ),
            ('g' | 'G', Value::Number(number)) => self.signed(general(*number, self.precision)),
            ('f' | 'F', Value::Number(number)) => self.signed(fixed(*number, self.precision.unwrap_or(6))),
            ('e' | 'E', Value::Number(number)) => self.signed(scientific(*number, self.precision.unwrap_or(6))),
            ('d' | 'v', Value::Integer(number)) => self.signed(number.to_string()),
            ('x', Value::Integer(number)) => self.signed(hexadecimal(*number)),
            ('t' | 'v', Value::Bool(truth)) => truth.to_string(),
            ('s' | 'v', Value::Text(text)) => match self.precision {
                Some(precision) => text.chars().take(precision).collect(),
                None => text.to_string(),
            },
            ('q', Value::Text(text)) => format!("{text:?}"),
            ('v' | 's', Value::Labels(_)) => value.shown().into_owned(),
            _ => return format!("%!{verb}({}={})", value.type_name(), value.shown()),
        };
        let text = if verb.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text };
        self.padded(text, matches!(value, Value::Number(_) | Value::Integer(_)))
    }

    fn signed(&self, text: String) -> String {
        if self.plus && !text.starts_with(['-', '+']) && text != "NaN" {
            format!("+{text}")
        } else if self.space && !self.plus && !text.starts_with(['-', '+']) {
            format!(" {text}")
        } else {
            text
        }
    }

    fn padded(&self, text: String, is_number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if missing == 0 {
            return text;
        }
        if self.minus {
            return text + &" ".repeat(missing);
        }
        let looks_like_number = text.contains(|c: char| c.is_ascii_digit());
        if !(self.zero && is_number && looks_like_number) {
            return " ".repeat(missing) + &text;
        }
        let sign = usize::from(text.starts_with(['-', '+', ' ']));
        let (sign, digits) = text.split_at(sign);
        format!("{sign}{}{digits}", "0".repeat(missing))
    }
}

fn hexadecimal(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{:x}", number.unsigned_abs())
}

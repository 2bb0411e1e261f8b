//! What scripts read: JSON as the collector made it, and CSV.
//!
//! JSON is passed on and not made anew, so that a field of a newer collector is not lost. The one change: characters that would act on a
//! terminal are spelled `\uXXXX`, which every reader takes for the same.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::text::is_harmful;

/// A document on one line.
pub(crate) fn json(raw: &str) -> String {
    let mut out = harmless(raw);
    out.push('\n');
    out
}

/// A list, one element a line.
pub(crate) fn json_lines(elements: &[Box<RawValue>]) -> String {
    elements.iter().map(|element| json(element.get())).collect()
}

/// What we make ourselves, as one document.
pub(crate) fn document(made: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    Ok(json(&serde_json::to_string(made)?))
}

/// What we make ourselves, one document a line.
pub(crate) fn documents(made: &[impl Serialize]) -> serde_json::Result<String> {
    made.iter().map(document).collect()
}

/// A table with a line of names.
pub(crate) fn csv(names: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(names)?;
    for row in rows {
        writer.write_record(row)?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One row of CSV without the names, for streams.
pub(crate) fn csv_row(row: &[String]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(row)?;
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A field of CSV that may be missing.
pub(crate) fn field(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A field of CSV from a value of JSON; the texts of what JSON has no number for stand without quotes.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Inside JSON such characters can stand in strings only, where the escape means the same. Line ends between elements stay.
fn harmless(json: &str) -> String {
    if !json.contains(|character| is_harmful(character) && character != '\n') {
        return json.to_string();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_harmful(character) && character != '\n' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_and_cannot_act_on_a_terminal() {
        let raw = "{\"b\":1,\"a\":\"x\u{9b}31m\u{202e}y\u{e0041}\"}";
        let shown = json(raw);
        assert_eq!(shown, "{\"b\":1,\"a\":\"x\\u009b31m\\u202ey\\udb40\\udc41\"}\n");
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&shown), value(raw));
    }

    #[test]
    fn a_list_becomes_lines_with_its_fields_in_order() {
        let list: Vec<Box<RawValue>> = serde_json::from_str("[{\"z\":1,\"a\":[2, 3]},\n {\"new\":null}]").unwrap();
        assert_eq!(json_lines(&list), "{\"z\":1,\"a\":[2, 3]}\n{\"new\":null}\n");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let rows = vec![vec!["a,b".to_string(), "say \"hi\"\n".to_string()]];
        assert_eq!(csv(&["x", "y"], rows).unwrap(), "x,y\n\"a,b\",\"say \"\"hi\"\"\n\"\n");
    }
}

//! Lists that the collector sends: the same four forms for each.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    Look, machine,
    output::{Format, Output},
};
use crate::client::ClientError;

/// An element of a list, and how lists of it look.
pub(crate) trait Listed: DeserializeOwned {
    /// The names of [`Self::csv_row`]'s fields.
    const CSV_NAMES: &'static [&'static str];

    fn csv_row(&self) -> Vec<String>;

    /// The list for people.
    fn table(list: &[Self], look: &Look) -> String;
}

/// Prints a list in the form that was asked for.
///
/// # Errors
/// An answer that is no such list, or output that goes nowhere.
pub(crate) fn print<T: Listed>(json: &str, output: &Output) -> anyhow::Result<()> {
    let text = match output.format {
        Format::Json => machine::json(json),
        Format::Jsonl => {
            let elements: Vec<Box<RawValue>> = serde_json::from_str(json).map_err(ClientError::Unreadable)?;
            machine::json_lines(&elements)
        }
        Format::Csv => machine::csv(T::CSV_NAMES, parse::<T>(json)?.iter().map(T::csv_row))?,
        Format::Table => T::table(&parse::<T>(json)?, &output.look()),
    };
    Ok(output.print(&text)?)
}

fn parse<T: Listed>(json: &str) -> Result<Vec<T>, ClientError> {
    serde_json::from_str(json).map_err(ClientError::Unreadable)
}

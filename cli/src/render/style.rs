//! Colours, by meaning. Sixteen colours only: every terminal has them, and people choose how they look.

use super::output::Color;

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Known, but not the point.
    Dim,
    Good,
    Warning,
    Bad,
    /// One of several things, told from the others by its colour.
    Tint(Tint),
}

/// A colour without a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tint(&'static str);

impl Tint {
    /// Of the thing with this number; from the seventh on they begin again.
    pub(crate) fn of(number: usize) -> Self {
        const CODES: [&str; 6] = ["36", "33", "32", "35", "34", "31"];
        Self(CODES.get(number % CODES.len()).copied().unwrap_or_default())
    }
}

impl Style {
    /// A reading against the values from which on it deserves attention.
    pub(crate) fn by_threshold(value: f64, warning: f64, bad: f64) -> Self {
        match value {
            value if value >= bad => Self::Bad,
            value if value >= warning => Self::Warning,
            _ => Self::Plain,
        }
    }

    /// The text as a terminal shows it in this style.
    pub(crate) fn paint(self, text: &str, is_colored: bool) -> String {
        let code = match self {
            _ if !is_colored || text.is_empty() => return text.to_string(),
            Self::Plain => return text.to_string(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "1;31",
            Self::Tint(Tint(code)) => code,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Whether to colour what goes to a stream. The convention of no-color.org holds unless colours were asked for.
pub(crate) fn is_wanted(color: Color, is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb(),
    }
}

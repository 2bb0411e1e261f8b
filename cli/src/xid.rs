//! What the driver's XID codes mean, how grave they are, and what to do about them.
//!
//! The catalogue is data, because NVIDIA's catalogue and operators' practice disagree in places and a fleet may have its
//! own mind: `packaging/xid.toml` is built in, and a local file of the same form goes before it, key by key.
//!
//! Pure: reads no file and no log. Who reads the local file bounds its size, see `belfry_common::config_file`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use belfry_common::config_file::{self, ConfigError};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

/// Names stand in tables and in the summaries of alerts.
const NAME_BYTES_MAX: usize = 100;
/// Somebody reads it at night; the longest that ships has under 300.
const TEXT_BYTES_MAX: usize = 2_000;
/// The longest list that ships, that of 154, has 27.
const FOLLOWS_MAX: usize = 32;
/// The driver knows fewer than 200 codes.
const ENTRIES_MAX: usize = 1_000;

/// Every code that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    codes: BTreeMap<u32, Xid>,
}

/// What is known of one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xid {
    pub(crate) code: u32,
    pub(crate) name: String,
    pub(crate) class: Class,
    pub(crate) action: Action,
    /// What has happened. Empty if a local file names a code and says no more.
    pub(crate) meaning: String,
    /// What an operator does. Empty like `meaning`.
    pub(crate) todo: String,
    /// What NVIDIA's own catalogue says, where that is more or something else.
    pub(crate) nvidia: Option<String>,
    /// What those who run fleets do, where that differs.
    pub(crate) practice: Option<String>,
    /// Codes after which this one is only an echo.
    pub(crate) follows: Vec<u32>,
}

/// How grave a code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// The GPU, or what runs on it, is not to be trusted until something is done.
    Fatal,
    /// Somebody should look, today or when it suits.
    Warning,
    /// Good to know.
    Info,
}

/// What to do about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Inspect,
    RebootInspect,
    RebootOrIgnore,
    Reboot,
    CheckApplication,
    CheckApplicationInspect,
    Ignore,
    None,
}

impl Catalogue {
    /// The catalogue that ships. It is parsed at each call: keep it.
    pub(crate) fn built_in() -> Self {
        Self::parse(include_str!("../../packaging/xid.toml"), Path::new("xid.toml (built in)"))
            .expect("the test `the_catalogue_that_ships_is_whole` parses this text")
    }

    /// A catalogue on its own: every entry needs what a new code needs. `path` is what errors call it.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::default().override_with(Overrides::parse(text, path)?)
    }

    /// Puts local entries on top: keys that an entry leaves out stay as they were.
    pub(crate) fn override_with(mut self, overrides: Overrides) -> Result<Self, ConfigError> {
        let Overrides { path, entries } = overrides;
        for (line, entry) in entries {
            let code = entry.code();
            let xid = match self.codes.remove(&code) {
                Some(known) => entry.over(known),
                None => entry.alone().map_err(|missing| refuse(&path, line, not_enough(code, &missing)))?,
            };
            self.codes.insert(code, xid);
        }
        Ok(self)
    }

    /// What is known of a code.
    pub(crate) fn of(&self, code: u32) -> Option<&Xid> {
        self.codes.get(&code)
    }
}

impl Class {
    /// The word of the file, and of labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Action {
    /// The word of the file, and of labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::RebootInspect => "reboot_inspect",
            Self::RebootOrIgnore => "reboot_or_ignore",
            Self::Reboot => "reboot",
            Self::CheckApplication => "check_application",
            Self::CheckApplicationInspect => "check_application_inspect",
            Self::Ignore => "ignore",
            Self::None => "none",
        }
    }

    /// For people.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Inspect => "inspect the hardware",
            Self::RebootInspect => "reboot, then inspect the hardware",
            Self::RebootOrIgnore => "reboot when it suits, or ignore",
            Self::Reboot => "reboot",
            Self::CheckApplication => "check the application",
            Self::CheckApplicationInspect => "check the application, then the hardware",
            Self::Ignore => "ignore",
            Self::None => "nothing to do",
        }
    }
}

/// A file of entries, each of which says as much of its code as it likes.
#[derive(Debug)]
pub(crate) struct Overrides {
    path: PathBuf,
    /// Each with the line of its code. No code stands twice.
    entries: Vec<(usize, Entry)>,
}

impl Overrides {
    /// Parses the text of a file; `path` is what errors call it.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let (file, _): (File, _) = config_file::parse(path, text)?;
        let mut lines = BTreeMap::new();
        let mut entries = Vec::with_capacity(file.xid.len());
        for entry in file.xid {
            let (code, line) = (entry.code(), line_of(text, entry.code.span().start));
            if let Some(first) = lines.insert(code, line) {
                let message = format!("XID {code} has an entry in line {first} already; join the two");
                return Err(refuse(path, line, message));
            }
            if entry.follows.iter().flatten().any(|&leader| leader == code) {
                return Err(refuse(path, line, format!("XID {code} cannot follow itself; take it out of `follows`")));
            }
            entries.push((line, entry));
        }
        Ok(Self { path: path.to_path_buf(), entries })
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "entries")]
    xid: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    code: Spanned<u32>,
    #[serde(default, deserialize_with = "text::<NAME_BYTES_MAX, _>")]
    name: Option<String>,
    class: Option<Class>,
    action: Option<Action>,
    #[serde(default, deserialize_with = "text::<TEXT_BYTES_MAX, _>")]
    meaning: Option<String>,
    #[serde(default, deserialize_with = "text::<TEXT_BYTES_MAX, _>")]
    todo: Option<String>,
    #[serde(default, deserialize_with = "text::<TEXT_BYTES_MAX, _>")]
    nvidia: Option<String>,
    #[serde(default, deserialize_with = "text::<TEXT_BYTES_MAX, _>")]
    practice: Option<String>,
    #[serde(default, deserialize_with = "follows")]
    follows: Option<Vec<u32>>,
}

impl Entry {
    fn code(&self) -> u32 {
        *self.code.get_ref()
    }

    /// The entry on top of what is known of its code.
    fn over(self, known: Xid) -> Xid {
        Xid {
            code: known.code,
            name: self.name.unwrap_or(known.name),
            class: self.class.unwrap_or(known.class),
            action: self.action.unwrap_or(known.action),
            meaning: self.meaning.unwrap_or(known.meaning),
            todo: self.todo.unwrap_or(known.todo),
            nvidia: self.nvidia.or(known.nvidia),
            practice: self.practice.or(known.practice),
            follows: self.follows.unwrap_or(known.follows),
        }
    }

    /// The entry of a code of which nothing is known, or the keys that it lacks.
    fn alone(self) -> Result<Xid, Vec<&'static str>> {
        let code = self.code();
        let Self { name: Some(name), class: Some(class), action: Some(action), .. } = self else {
            let keys =
                [("name", self.name.is_some()), ("class", self.class.is_some()), ("action", self.action.is_some())];
            return Err(keys.into_iter().filter(|(_, is_there)| !is_there).map(|(key, _)| key).collect());
        };
        Ok(Xid {
            code,
            name,
            class,
            action,
            meaning: self.meaning.unwrap_or_default(),
            todo: self.todo.unwrap_or_default(),
            nvidia: self.nvidia,
            practice: self.practice,
            follows: self.follows.unwrap_or_default(),
        })
    }
}

fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    let entries = Vec::deserialize(deserializer)?;
    if entries.len() > ENTRIES_MAX {
        let message = format!("there can be at most {ENTRIES_MAX} entries, and here are {}", entries.len());
        return Err(de::Error::custom(message));
    }
    Ok(entries)
}

/// A text that is not empty, not too long, and stands on one line.
fn text<'de, const BYTES_MAX: usize, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(de::Error::custom("the text is empty; fill it, or leave the key out"));
    }
    if text.len() > BYTES_MAX {
        let message = format!("the text has {} bytes, and at most {BYTES_MAX} are allowed; shorten it", text.len());
        return Err(de::Error::custom(message));
    }
    if text.chars().any(char::is_control) {
        return Err(de::Error::custom(
            "a text stands on one line and has no control characters; end a line with `\\` to go on in the next",
        ));
    }
    Ok(Some(text))
}

fn follows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u32>>, D::Error> {
    let codes = Vec::deserialize(deserializer)?;
    if codes.len() > FOLLOWS_MAX {
        let message = format!("a code can follow at most {FOLLOWS_MAX} others, and here are {}", codes.len());
        return Err(de::Error::custom(message));
    }
    Ok(Some(codes))
}

fn not_enough(code: u32, missing: &[&str]) -> String {
    let keys = missing.join("`, `");
    format!("XID {code} is not in the catalogue, and a new code needs `name`, `class` and `action`; add `{keys}`")
}

fn line_of(text: &str, start: usize) -> usize {
    text.get(..start).unwrap_or_default().matches('\n').count() + 1
}

fn refuse(path: &Path, line: usize, message: String) -> ConfigError {
    ConfigError::Content { path: path.to_path_buf(), line, message, hint: String::new() }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// A catalogue of one entry, in lines 1 to 7.
    const ONE: &str = "\
[[xid]]
code = 79
name = \"Off the bus\"
class = \"fatal\"
action = \"reboot_inspect\"
meaning = \"Gone.\"
todo = \"Drain.\"
";

    fn overridden(local: &str) -> Result<Catalogue, ConfigError> {
        let built_in = Catalogue::parse(ONE, Path::new("built-in.toml"))?;
        built_in.override_with(Overrides::parse(local, Path::new("xid.toml"))?)
    }

    #[track_caller]
    fn check(local: &str, expected: &Expect) {
        let shown = match overridden(local) {
            Ok(catalogue) => catalogue.codes.values().map(|xid| format!("{xid:?}\n")).collect(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn local_entries_go_before_key_by_key() {
        check(
            "",
            &expect![[r#"
            Xid { code: 79, name: "Off the bus", class: Fatal, action: RebootInspect, meaning: "Gone.", todo: "Drain.", nvidia: None, practice: None, follows: [] }
        "#]],
        );
        check(
            "[[xid]]\ncode = 79",
            &expect![[r#"
            Xid { code: 79, name: "Off the bus", class: Fatal, action: RebootInspect, meaning: "Gone.", todo: "Drain.", nvidia: None, practice: None, follows: [] }
        "#]],
        );
        check(
            "[[xid]]\ncode = 79\naction = \"inspect\"\nnvidia = \"Restart.\"\nfollows = [48, 62]",
            &expect![[r#"
            Xid { code: 79, name: "Off the bus", class: Fatal, action: Inspect, meaning: "Gone.", todo: "Drain.", nvidia: Some("Restart."), practice: None, follows: [48, 62] }
        "#]],
        );
        check(
            "[[xid]]\ncode = 79\nclass = \"warning\"\nname = \"Lost\"\nmeaning = \"a\"\ntodo = \"b\"\npractice = \"c\"",
            &expect![[r#"
                Xid { code: 79, name: "Lost", class: Warning, action: RebootInspect, meaning: "a", todo: "b", nvidia: None, practice: Some("c"), follows: [] }
            "#]],
        );
    }

    #[test]
    fn a_new_code_needs_a_name_a_class_and_an_action() {
        check(
            "[[xid]]\ncode = 999\nname = \"New\"\nclass = \"info\"\naction = \"none\"",
            &expect![[r#"
            Xid { code: 79, name: "Off the bus", class: Fatal, action: RebootInspect, meaning: "Gone.", todo: "Drain.", nvidia: None, practice: None, follows: [] }
            Xid { code: 999, name: "New", class: Info, action: None, meaning: "", todo: "", nvidia: None, practice: None, follows: [] }
        "#]],
        );
        check(
            "[[xid]]\ncode = 79\n\n[[xid]]\ncode = 999\nclass = \"info\"",
            &expect![
                "xid.toml:5: XID 999 is not in the catalogue, and a new code needs `name`, `class` and `action`; add `name`, `action`"
            ],
        );
        check(
            "[[xid]]\ncode = 999\nname = \"New\"\nclass = \"info\"",
            &expect![
                "xid.toml:2: XID 999 is not in the catalogue, and a new code needs `name`, `class` and `action`; add `action`"
            ],
        );
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        check(
            "[[xid]]\ncode = 79\ntodos = \"x\"",
            &expect![
                "xid.toml:3: unknown field `todos`, expected one of `code`, `name`, `class`, `action`, `meaning`, `todo`, `nvidia`, `practice`, `follows`; did you mean `todo`?"
            ],
        );
        check("[[xyd]]\ncode = 79", &expect!["xid.toml:1: unknown field `xyd`, expected `xid`; did you mean `xid`?"]);
        check("\n[[xid]]\nname = \"x\"", &expect!["xid.toml:2: missing field `code`"]);
        check("[[xid]]\ncode = -1", &expect!["xid.toml:2: invalid value: integer `-1`, expected u32"]);
        check("[[xid]]\ncode = \"79\"", &expect![[r#"xid.toml:2: invalid type: string "79", expected u32"#]]);
        check(
            "[[xid]]\ncode = 79\nclass = \"warn\"",
            &expect![
                "xid.toml:3: unknown variant `warn`, expected one of `fatal`, `warning`, `info`; did you mean `warning`?"
            ],
        );
        check(
            "[[xid]]\ncode = 79\naction = \"rebot\"",
            &expect![
                "xid.toml:3: unknown variant `rebot`, expected one of `inspect`, `reboot_inspect`, `reboot_or_ignore`, `reboot`, `check_application`, `check_application_inspect`, `ignore`, `none`; did you mean `reboot`?"
            ],
        );
        check(
            "[[xid]]\ncode = 79\n[[xid]]\ncode = 80\n[[xid]]\ncode = 79",
            &expect!["xid.toml:6: XID 79 has an entry in line 2 already; join the two"],
        );
        check(
            "[[xid]]\ncode = 45\nfollows = [48, 45]",
            &expect!["xid.toml:2: XID 45 cannot follow itself; take it out of `follows`"],
        );
        check("[xid]\ncode = 45", &expect!["xid.toml:1: invalid type: map, expected a sequence"]);
        check(
            "[[xid]]\ncode = 79\nname = ",
            &expect!["xid.toml:3: string values must be quoted, expected literal string"],
        );
    }

    #[test]
    fn texts_and_lists_have_caps() {
        let long = |key: &str, bytes| format!("[[xid]]\ncode = 79\n{key} = \"{}\"", "x".repeat(bytes));
        assert!(overridden(&long("name", NAME_BYTES_MAX)).is_ok());
        check(
            &long("name", NAME_BYTES_MAX + 1),
            &expect!["xid.toml:3: the text has 101 bytes, and at most 100 are allowed; shorten it"],
        );
        assert!(overridden(&long("todo", TEXT_BYTES_MAX)).is_ok());
        check(
            &long("todo", TEXT_BYTES_MAX + 1),
            &expect!["xid.toml:3: the text has 2001 bytes, and at most 2000 are allowed; shorten it"],
        );
        check(&long("practice", 0), &expect!["xid.toml:3: the text is empty; fill it, or leave the key out"]);
        check(
            "[[xid]]\ncode = 79\nmeaning = \"\"\"\none\ntwo\"\"\"",
            &expect![[
                r#"xid.toml:3: a text stands on one line and has no control characters; end a line with `\` to go on in the next"#
            ]],
        );
        check(
            "[[xid]]\ncode = 79\nmeaning = \"a\\u001bb\"",
            &expect![[
                r#"xid.toml:3: a text stands on one line and has no control characters; end a line with `\` to go on in the next"#
            ]],
        );

        let list = |len: u32| format!("[[xid]]\ncode = 79\nfollows = {:?}", (100..100 + len).collect::<Vec<_>>());
        assert!(overridden(&list(32)).is_ok());
        check(&list(33), &expect!["xid.toml:3: a code can follow at most 32 others, and here are 33"]);

        let entry = |code| format!("[[xid]]\ncode = {code}\nname = \"x\"\nclass = \"info\"\naction = \"none\"\n");
        assert!(overridden(&(1..=1_000).map(entry).collect::<String>()).is_ok());
        check(
            &(1..=1_001).map(entry).collect::<String>(),
            &expect!["xid.toml:1: there can be at most 1000 entries, and here are 1001"],
        );
    }

    #[test]
    fn the_catalogue_that_ships_is_whole() {
        let text = include_str!("../../packaging/xid.toml");
        let catalogue = Catalogue::parse(text, Path::new("xid.toml")).unwrap();
        assert_eq!(catalogue, Catalogue::built_in());
        for xid in catalogue.codes.values() {
            assert!(!xid.meaning.is_empty() && !xid.todo.is_empty(), "{xid:?}");
            assert!(xid.follows.is_sorted(), "{xid:?}");
            assert!(xid.follows.iter().all(|&leader| catalogue.of(leader).is_some()), "{xid:?}");
        }

        let codes: Vec<u32> = text.lines().filter_map(|line| line.strip_prefix("code = ")?.parse().ok()).collect();
        assert!(codes.is_sorted(), "entries are ascending");
        assert!((1..=176).all(|code| codes.contains(&code)), "no gap");
    }

    /// Where NVIDIA's catalogue and practice disagree, this is what was decided.
    #[test]
    fn classes_and_actions_are_those_agreed() {
        use Action::{
            CheckApplication, CheckApplicationInspect, Ignore, Inspect, Reboot, RebootInspect, RebootOrIgnore,
        };
        use Class::{Fatal, Info, Warning};
        let table: [(Class, Action, &[u32]); 10] = [
            (Fatal, Inspect, &[81, 143]),
            (Fatal, RebootInspect, &[32, 38, 44, 48, 62, 63, 64, 65, 68, 69, 74, 79, 95, 110, 119, 120, 121, 123, 140]),
            (Fatal, RebootOrIgnore, &[94]),
            (Fatal, Reboot, &[9, 12, 16, 18, 19, 26, 27, 28, 29, 30, 33, 34, 35, 36, 42, 46, 47, 59, 60, 61, 78]),
            (Warning, CheckApplication, &[13, 43, 137, 170]),
            (Warning, CheckApplicationInspect, &[31]),
            (Warning, Ignore, &[45, 92]),
            (Warning, Reboot, &[144, 145, 146, 147, 148, 149, 150, 151, 155, 156, 158, 163, 166, 167, 169, 172, 173]),
            (Info, Action::None, &[152, 153, 157, 161, 162, 164, 165]),
            // Newer than the table: what used to be a 119, with its cause.
            (Fatal, RebootInspect, &[175]),
        ];
        let catalogue = Catalogue::built_in();
        for (class, action, codes) in table {
            for &code in codes {
                let xid = catalogue.of(code).unwrap();
                assert_eq!((xid.class, xid.action), (class, action), "XID {code}");
            }
        }
        let fatal: Vec<u32> = table.iter().filter(|row| row.0 == Fatal).flat_map(|row| row.2).copied().collect();
        let is_fatal = |xid: &&Xid| xid.class == Fatal;
        let found: Vec<u32> = catalogue.codes.values().filter(is_fatal).map(|xid| xid.code).collect();
        assert!(found.iter().all(|code| fatal.contains(code)), "no other code is fatal");
        assert_eq!(found.len(), fatal.len());
        assert!([48, 79, 95].iter().all(|leader| catalogue.of(45).unwrap().follows.contains(leader)));
    }

    #[test]
    fn words_are_those_of_the_file() {
        let classes = ["fatal", "warning", "info"];
        let actions = [
            "inspect",
            "reboot_inspect",
            "reboot_or_ignore",
            "reboot",
            "check_application",
            "check_application_inspect",
            "ignore",
            "none",
        ];
        for class in classes {
            for action in actions {
                let local = format!("[[xid]]\ncode = 79\nclass = \"{class}\"\naction = \"{action}\"");
                let catalogue = overridden(&local).unwrap();
                let xid = catalogue.of(79).unwrap();
                assert_eq!((xid.class.as_str(), xid.action.as_str()), (class, action));
                assert!(!xid.action.describe().contains('_'));
            }
        }
    }
}

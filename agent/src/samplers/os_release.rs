//! The distribution, from `os-release`.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use belfry_common::model::{Kind, Metric, Resolution};

use super::{MINUTE, Roots, SampleError, Sampler, Source, declare};
use crate::readings::Readings;

/// The labels of `node_os_info`, which are the file's keys in lower case.
const LABELS: [&str; 12] = [
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

#[derive(Debug)]
pub(crate) struct OsRelease {
    sources: [Source; 2],
    info: Arc<Metric>,
    version: Arc<Metric>,
}

impl OsRelease {
    pub(crate) fn new(roots: &Roots) -> Self {
        let source = |path| Source::new(roots.root.join(path));
        Self {
            sources: [source("etc/os-release"), source("usr/lib/os-release")],
            info: declare::info("node_os_info", &LABELS, "The distribution, as os-release names it."),
            version: declare::metric(
                "node_os_version",
                Kind::Gauge,
                Resolution::Float,
                &["id", "id_like", "name"],
                "Metric containing the major.minor part of the OS version.",
            ),
        }
    }
}

impl Sampler for OsRelease {
    fn name(&self) -> &'static str {
        "os"
    }

    fn interval(&self) -> Duration {
        MINUTE
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let [first, second] = &mut self.sources;
        let text = match first.read_if_offered()? {
            Some(text) => text,
            // A container's image may have neither.
            None => match second.read_if_offered()? {
                Some(text) => text,
                None => return Ok(()),
            },
        };
        let values: HashMap<_, _> = text.lines().filter_map(assignment).collect();
        let value = |label: &str| values.get(&*label.to_ascii_uppercase()).map_or("", |value| &**value);
        readings.integer(&self.info, &LABELS.map(value), 1);
        if let Some(version) = major_minor(value("version_id")) {
            readings.float(&self.version, &[value("id"), value("id_like"), value("name")], version);
        }
        Ok(())
    }
}

/// `NAME="Debian GNU/Linux"`, in the quotes and escapes of a shell.
fn assignment(line: &str) -> Option<(&str, Cow<'_, str>)> {
    let (key, value) = line.trim().split_once('=')?;
    if key.starts_with('#') {
        return None;
    }
    let in_quotes = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    let value = match (in_quotes('\''), in_quotes('"')) {
        (Some(literal), _) => Cow::Borrowed(literal),
        (None, quoted) => unescape(quoted.unwrap_or(value)),
    };
    Some((key, value))
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut is_escaped = false;
    let keep = |c: &char| {
        is_escaped = *c == '\\' && !is_escaped;
        !is_escaped
    };
    Cow::Owned(text.chars().filter(keep).collect())
}

/// The number with at most one point at the start of `22.04.1`.
fn major_minor(version: &str) -> Option<f64> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let major = digits(version);
    let minor = version.get(major..)?.strip_prefix('.').map_or(0, |rest| 1 + digits(rest));
    version.get(..major + minor)?.parse().ok().filter(|_| major > 0)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn labels_are_the_files_keys() {
        let fixture = Fixture::new().root(
            "usr/lib/os-release",
            "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE='debian'\nPRETTY_NAME=\"Ubuntu \\\"Noble\\\"\"\n# X=1\nVERSION_ID=\"24.04.1\"\n\nodd\n",
        );
        expect![[r#"
            node_os_info{build_id="",id="ubuntu",id_like="debian",image_id="",image_version="",name="Ubuntu",pretty_name="Ubuntu \"Noble\"",variant="",variant_id="",version="",version_codename="",version_id="24.04.1"} 1
            node_os_version{id="ubuntu",id_like="debian",name="Ubuntu"} 24.04
        "#]].assert_eq(&fixture.print(&mut OsRelease::new(&fixture.roots())));
    }

    #[test]
    fn versions_have_one_point_at_most() {
        for (text, version) in [
            ("12", Some(12.0)),
            ("22.04.1", Some(22.04)),
            ("7.", Some(7.0)),
            ("rolling", None),
            ("", None),
            (".5", None),
        ] {
            assert_eq!(major_minor(text), version, "{text}");
        }
    }

    #[test]
    fn a_machine_without_it_has_no_series() {
        let fixture = Fixture::new();
        assert_eq!(fixture.print(&mut OsRelease::new(&fixture.roots())), "");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in r#".*|([A-Z_]{1,9}=["'\\a-z0-9.]{0,9}\n){0,6}"#) {
            let fixture = Fixture::new().root("etc/os-release", &text);
            let _ = fixture.try_print(&mut OsRelease::new(&fixture.roots()));
        }
    }
}

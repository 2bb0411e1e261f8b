//! What a backup has. A line of JSON for each file:
//!
//! ```text
//! {"belfry_backup":1,"created":"2026-11-27T02:10:00.000Z","version":"0.1.0"}
//! {"path":"belfry.db","bytes":241664,"crc32c":"1f0a33c4"}
//! …
//! {"files":1,"bytes":241664,"crc32c":"90a1be07"}      of all lines before this one
//! ```
//! CRC-32C (Castagnoli), in hexadecimal digits. Paths are those of a data directory and no others. A reader refuses a format above its own.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use belfry_common::model::Timestamp;
use belfry_store::{Checksum, open_file};
use serde::{Deserialize, Serialize};

use super::{BackupError, DataFile, failed};
use crate::api;

/// Its name.
pub(super) const FILE: &str = "manifest.jsonl";
const FORMAT: u32 = 1;
/// A line is some eighty bytes: three million files.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a backup has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) created: Timestamp,
    /// Of the program that took it.
    pub(super) version: String,
    pub(super) files: BTreeMap<DataFile, Checksum>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    belfry_backup: u32,
    created: String,
    version: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    path: String,
    bytes: u64,
    crc32c: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    files: usize,
    bytes: u64,
    crc32c: String,
}

impl End {
    fn of(lines: &str, manifest: &Manifest) -> Self {
        Self { files: manifest.files.len(), bytes: manifest.bytes(), crc32c: hex(crc32c::crc32c(lines.as_bytes())) }
    }
}

impl Manifest {
    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().fold(0, |sum, checksum| sum.saturating_add(checksum.bytes))
    }

    /// The text of the file.
    pub(super) fn encode(&self) -> Result<String, serde_json::Error> {
        let (created, version) = (api::time(self.created), self.version.clone());
        let head = Head { belfry_backup: FORMAT, created, version };
        let mut text = serde_json::to_string(&head)? + "\n";
        for (file, checksum) in &self.files {
            let line = FileLine { path: file.path(), bytes: checksum.bytes, crc32c: hex(checksum.crc32c) };
            text += &serde_json::to_string(&line)?;
            text.push('\n');
        }
        let end = serde_json::to_string(&End::of(&text, self))?;
        Ok(text + &end + "\n")
    }

    /// Understands the text of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(text: &str) -> Result<Self, String> {
        let cut = "it is cut short";
        let (lines, end) = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')).ok_or(cut)?;
        let lines = text.get(..=lines.len()).ok_or(cut)?;
        let (head, files) = lines.split_once('\n').ok_or(cut)?;
        let head: Head = serde_json::from_str(head).map_err(|_| "it does not begin as one")?;
        if head.belfry_backup > FORMAT {
            return Err(format!(
                "it has format {}, and this program knows formats up to {FORMAT}: use the newer program",
                head.belfry_backup
            ));
        }
        let created = humantime::parse_rfc3339(&head.created).ok();
        let created = created.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).ok_or("its time")?;
        let created = Timestamp::from_millis(i64::try_from(created.as_millis()).map_err(|_| "its time")?);
        let mut manifest = Self { created, version: head.version, files: BTreeMap::new() };
        for (line, number) in files.lines().zip(2..) {
            let wrong = || format!("its line {number}");
            let FileLine { path, bytes, crc32c } = serde_json::from_str(line).map_err(|_| wrong())?;
            let file = DataFile::parse(&path).ok_or_else(wrong)?;
            let crc32c = u32::from_str_radix(&crc32c, 16).map_err(|_| wrong())?;
            if manifest.files.insert(file, Checksum { bytes, crc32c }).is_some() {
                return Err(wrong());
            }
        }
        let end: End = serde_json::from_str(end).map_err(|_| cut)?;
        if end == End::of(lines, &manifest) { Ok(manifest) } else { Err("its checksum does not fit".to_owned()) }
    }

    /// Reads that of a backup.
    ///
    /// # Errors
    /// [`BackupError::Manifest`] and those of reading.
    pub(super) fn read(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(FILE);
        let wrong = |what: String| BackupError::Manifest { path: backup.to_owned(), what };
        let mut text = String::new();
        let read = open_file(&path)?.take(BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(failed("read", &path))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(wrong("it is larger than 256 MiB".to_owned()));
        }
        Self::parse(&text).map_err(wrong)
    }
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

#[cfg(test)]
mod tests {
    use belfry_store::StoreFile;
    use expect_test::expect;

    use super::*;

    fn manifest() -> Manifest {
        let files = [DataFile::Database, DataFile::Authority("ca.pem"), DataFile::Store(StoreFile::Block(31))];
        let files = files
            .into_iter()
            .zip(1..)
            .map(|(file, number)| (file, Checksum { bytes: 100 * u64::from(number), crc32c: number }));
        let created = Timestamp::from_millis(1_700_000_000_123);
        Manifest { created, version: "0.1.0".to_owned(), files: files.collect() }
    }

    #[test]
    fn it_is_lines_of_json_and_comes_back() {
        let text = manifest().encode().unwrap();
        expect![[r#"
            {"belfry_backup":1,"created":"2023-11-14T22:13:20.123Z","version":"0.1.0"}
            {"path":"blocks/000000000000001f.block","bytes":300,"crc32c":"00000003"}
            {"path":"belfry.db","bytes":100,"crc32c":"00000001"}
            {"path":"ca.pem","bytes":200,"crc32c":"00000002"}
            {"files":3,"bytes":600,"crc32c":"d7e31d34"}
        "#]]
        .assert_eq(&text);
        assert_eq!(Manifest::parse(&text), Ok(manifest()));
    }

    #[test]
    fn one_that_was_cut_or_changed_is_refused() {
        let text = manifest().encode().unwrap();
        for end in 0..text.len() {
            assert!(Manifest::parse(&text[..end]).is_err(), "cut at {end}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            assert_ne!(Manifest::parse(&flipped), Ok(manifest()), "flipped at {at}");
        }
    }

    /// What somebody else wrote, with a checksum that fits.
    fn forged(lines: &[&str]) -> Result<Manifest, String> {
        let text = lines.join("\n") + "\n";
        let files = lines.len() - 1;
        Manifest::parse(&format!(
            "{text}{{\"files\":{files},\"bytes\":{files},\"crc32c\":\"{}\"}}\n",
            hex(crc32c::crc32c(text.as_bytes()))
        ))
    }

    #[test]
    fn only_files_of_a_data_directory_can_be_named() {
        let head = r#"{"belfry_backup":1,"created":"2023-11-14T22:13:20Z","version":"x","more":1}"#;
        let line = |path: &str| format!("{{\"path\":{path:?},\"bytes\":1,\"crc32c\":\"0\"}}");
        assert_eq!(forged(&[head, &line("ca.key.pem")]).map(|manifest| manifest.files.len()), Ok(1));
        for path in ["../ca.pem", "/etc/passwd", "blocks", "blocks/x", "journal/../belfry.db", "", "ca.pem/", "lock"] {
            assert_eq!(forged(&[head, &line(path)]), Err("its line 2".to_owned()), "{path}");
        }
        assert_eq!(forged(&[head, &line("ca.pem"), &line("ca.pem")]), Err("its line 3".to_owned()));
        let newer = head.replace(":1,", ":2,");
        assert!(forged(&[&newer]).unwrap_err().contains("use the newer program"));
    }
}

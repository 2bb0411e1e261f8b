//! The names of users, from `/etc/passwd` alone.
//!
//! A directory service (LDAP, SSSD) is not asked: that would need the C library's plug-ins and the network, on a path
//! that must neither hang nor fail. Its users are shown by number.

use std::{collections::HashMap, fs, path::PathBuf, time::SystemTime};

use super::text;
use crate::samplers::Roots;

/// Some 50,000 users.
const PASSWD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The users of this machine, read again when the file changes.
#[derive(Debug)]
pub(super) struct Users {
    path: PathBuf,
    /// The time and size of the file that the names are from.
    version: Option<(SystemTime, u64)>,
    names: HashMap<u32, String>,
}

impl Users {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { path: roots.root.join("etc/passwd"), version: None, names: HashMap::new() }
    }

    pub(super) fn name(&mut self, uid: u32) -> Option<&str> {
        self.refresh();
        self.names.get(&uid).map(String::as_str)
    }

    /// A file that cannot be read now leaves the names that were there.
    fn refresh(&mut self) {
        let Ok(metadata) = fs::metadata(&self.path) else { return };
        let version = metadata.modified().ok().map(|time| (time, metadata.len()));
        if version.is_some() && version == self.version {
            return;
        }
        if let Ok(bytes) = text::read(&self.path, PASSWD_BYTES_MAX) {
            self.names = parse(&bytes);
            self.version = version;
        }
    }
}

/// The names by uid. Of two lines with one uid the first counts, as it does for `getpwuid`.
fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for (uid, name) in bytes.split(|b| *b == b'\n').filter_map(user) {
        names.entry(uid).or_insert(name);
    }
    names
}

/// The user of `name:password:uid:…`.
fn user(line: &[u8]) -> Option<(u32, String)> {
    let mut fields = line.split(|b| *b == b':');
    let name = text::clean(fields.next()?)?;
    let uid = str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
    Some((uid, name)).filter(|(_, name)| !name.starts_with(['#', '+', '-']))
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::Fixture, *};

    #[test]
    fn users_have_the_first_of_their_names() {
        let names =
            parse(b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::\nada:x:1000:\n#x:x:1:\n+nis:x:2:\nodd:x\nodd:x:-1:\n");
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        assert_eq!(names, [(0, "root".into()), (1000, "ada".into())]);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_lost_one_is_remembered() {
        let fixture = Fixture::new();
        let mut users = Users::new(&fixture.roots());
        assert_eq!(users.name(1000), None);
        fixture.write("root/etc/passwd", "ada:x:1000:");
        assert_eq!(users.name(1000), Some("ada"));
        fixture.write("root/etc/passwd", "grace:x:1000:");
        assert_eq!(users.name(1000), Some("grace"));
        fixture.remove("root/etc/passwd");
        assert_eq!(users.name(1000), Some("grace"));
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read_without_a_panic(bytes: Vec<u8>, text in "([a-z#:0-9]{0,12}\n){0,5}") {
            let _ = (parse(&bytes), parse(text.as_bytes()));
        }
    }
}

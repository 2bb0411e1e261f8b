//! What is mounted where, from `mountinfo`, and which mounts are worth watching.
//!
//! The excludes are node_exporter's defaults. No system calls.

use std::borrow::Cow;

/// Kernel interfaces, images and layers: nothing that can fill up.
const TYPES_EXCLUDED: [&str; 25] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

/// One line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount<'l> {
    pub(super) device: Cow<'l, str>,
    pub(super) fstype: &'l str,
    pub(super) mountpoint: Cow<'l, str>,
    pub(super) is_readonly: bool,
}

impl<'l> Mount<'l> {
    /// `36 35 98:0 /root /mount-point options [tag[:value]]... - type device super-options`, see proc(5).
    pub(super) fn parse(line: &'l str) -> Option<Self> {
        // Fields may be empty, but none has a space in it: that is written \040.
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(4);
        let (mountpoint, options) = (head.next()?, head.next()?);
        let mut tail = tail.split(' ');
        let (fstype, device) = (tail.next()?, tail.next()?);
        let has = |options: &str, wanted| options.split(',').any(|option| option == wanted);
        let of_the_disk = tail.next().unwrap_or_default();
        Some(Self {
            device: unescape(device),
            fstype,
            mountpoint: unescape(mountpoint),
            is_readonly: has(options, "ro") || has(of_the_disk, "ro") || has(of_the_disk, "emergency_ro"),
        })
    }

    pub(super) fn is_watched(&self) -> bool {
        !TYPES_EXCLUDED.contains(&self.fstype) && !is_mountpoint_excluded(&self.mountpoint)
    }

    /// Whether asking it may mean asking another machine.
    pub(super) fn is_remote(&self) -> bool {
        !self.device.starts_with("/dev/") && !matches!(self.fstype, "tmpfs" | "ramfs" | "zfs" | "btrfs" | "bcachefs")
    }

    /// What it shares its fate with: `host` of `host:/export`, `//host` of `//host/share`, else the device itself.
    pub(super) fn server(&self) -> &str {
        if let Some((host, _)) = self.device.strip_prefix("//").and_then(|rest| rest.split_once('/')) {
            return host;
        }
        self.device.split_once(":/").map_or(&self.device, |(host, _)| host)
    }
}

/// `^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`
fn is_mountpoint_excluded(mountpoint: &str) -> bool {
    let is_or_is_below = |directory| {
        mountpoint.strip_prefix(directory).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'))
    };
    let is_below = |directory| mountpoint.strip_prefix(directory).is_some_and(|rest: &str| !rest.is_empty());
    ["/dev", "/proc", "/sys"].into_iter().any(is_or_is_below)
        || ["/run/credentials/", "/var/lib/docker/", "/var/lib/containers/storage/"].into_iter().any(is_below)
}

/// Undoes the kernel's `\040` for a space, and its like.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match octal(rest) {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// The byte of an escape at the start of `bytes`, and what follows it.
fn octal(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'\\', digits @ ..] = bytes else { return None };
    let (digits, rest) = digits.split_at_checked(3)?;
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    Some((u8::from_str_radix(text, 8).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str) -> Mount<'_> {
        Mount::parse(line).unwrap()
    }

    #[test]
    fn a_line_with_tags_and_one_without() {
        let tagged = mount("36 35 98:0 / /mnt rw,noatime shared:1 master:7 - ext3 /dev/root rw,errors=continue");
        assert_eq!((&*tagged.device, tagged.fstype, &*tagged.mountpoint), ("/dev/root", "ext3", "/mnt"));
        assert!(!tagged.is_readonly && !tagged.is_remote());
        let plain = mount("36 35 0:50 / /data rw - nfs4 nas:/export/data rw,vers=4.2");
        assert_eq!((plain.server(), plain.is_remote()), ("nas", true));
        assert_eq!(mount("1 1 0:1 / /c rw - cifs //files/share rw").server(), "files");
        assert_eq!(mount("1 1 0:1 / /t rw - tmpfs  rw").device, "");
        assert!(!mount("1 1 0:1 / /t rw - tmpfs tmpfs rw").is_remote());
    }

    #[test]
    fn read_only_is_said_by_the_mount_or_by_the_disk() {
        for (options, of_the_disk, is_readonly) in [
            ("rw", "rw", false),
            ("ro,nosuid", "rw", true),
            ("rw", "ro", true),
            ("rw", "rw,emergency_ro", true),
            ("rw", "rw,rota=ro", false),
        ] {
            let line = format!("1 1 8:1 / / {options} - ext4 /dev/sda1 {of_the_disk}");
            assert_eq!(mount(&line).is_readonly, is_readonly, "{line}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"/my\040disk\011\134\012"), "/my disk\t\\\n");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
        assert_eq!(unescape(r"/a\999\777b"), r"/a\999\777b");
        assert_eq!(unescape(r"/\303\274"), "/ü");
        assert_eq!(unescape(r"/\377"), "/\u{fffd}");
    }

    #[test]
    fn node_exporters_excludes() {
        for path in ["/dev", "/dev/shm", "/proc", "/sys/fs", "/var/lib/docker/x", "/run/credentials/a.service"] {
            assert!(is_mountpoint_excluded(path), "{path}");
        }
        for path in
            ["/", "/development", "/var/lib/docker", "/var/lib/docker/", "/run", "/mnt/x", "/home/dev", "/system"]
        {
            assert!(!is_mountpoint_excluded(path), "{path}");
        }
        assert!(!mount("1 1 0:1 / /x rw - overlay overlay rw").is_watched());
        assert!(mount("1 1 0:1 / /x rw - xfs /dev/sda rw").is_watched());
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in r".*|[0-9 :/\\a-z]{0,60} - [0-9/\\a-z ]{0,30}") {
            if let Some(mount) = Mount::parse(&line) {
                let _ = (mount.is_watched(), mount.is_remote(), mount.server());
            }
        }
    }
}

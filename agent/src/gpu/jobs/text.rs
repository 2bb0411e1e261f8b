//! What other people's processes write, made fit to be shown: capped, and without what a terminal would obey.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// A label's value may have 512 bytes, and a character has at most 4.
const NAME_CHARS_MAX: usize = 128;
/// What most files of a process fit into, so that they are read in one piece.
const FILE_BYTES: usize = 4096;

/// The first bytes of a file.
pub(super) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(bytes_max.min(FILE_BYTES));
    File::open(path)?.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A name as it can be shown, if anything of it can.
pub(super) fn clean(bytes: &[u8]) -> Option<String> {
    // Four bytes for each character that may stay: what is cut is never looked at.
    let start = bytes.get(..NAME_CHARS_MAX * 4).unwrap_or(bytes);
    let text = String::from_utf8_lossy(start);
    let text: String = text.chars().filter(|c| !is_hidden(*c)).take(NAME_CHARS_MAX).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// Control characters, and those that reorder or join the text around them.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A whole number above zero without sign or spaces.
pub(super) fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        for (bytes, shown) in [
            (&b"train.py"[..], Some("train.py")),
            (b" a\nb\x1b[31m\t ", Some("ab[31m")),
            ("a\u{202e}b\u{200b}ü".as_bytes(), Some("abü")),
            (b"a\xffb", Some("a\u{fffd}b")),
            (b"\x01\x02 ", None),
            (b"", None),
        ] {
            assert_eq!(clean(bytes).as_deref(), shown, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_are_plain() {
        assert_eq!(number("123"), Some(123));
        for odd in ["", "0", "+1", "-1", " 1", "1 ", "4294967296", "1e3"] {
            assert_eq!(number(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_cap() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abcdef").unwrap();
        assert_eq!(read(file.path(), 4).unwrap(), b"abcd");
        assert_eq!(read(file.path(), 40).unwrap(), b"abcdef");
        assert!(read(&file.path().join("none"), 4).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_name_fits_a_label(bytes: Vec<u8>, repeat in 1..200_usize) {
            if let Some(name) = clean(&bytes.repeat(repeat)) {
                proptest::prop_assert!(!name.is_empty() && name.len() <= 512);
                proptest::prop_assert!(!name.chars().any(is_hidden));
            }
        }
    }
}

//! The values of all labels in a block, each once and sorted: numbers compare as the texts do.
//!
//! ```text
//! strings = strings varint, for each: bytes shared with the one before varint · the other bytes (length varint, bytes)
//! ```

use super::bytes::{Bytes, Malformed, put_bytes, put_varint};

/// A sorted table of texts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Strings {
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

/// A block's texts together. The largest fleets have some 10 MB.
const BYTES_MAX: usize = 1 << 30;

impl Strings {
    /// The table of these texts.
    pub(crate) fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut texts: Vec<&str> = texts.into_iter().collect();
        texts.sort_unstable();
        texts.dedup();
        let mut strings = Self::default();
        texts.into_iter().for_each(|text| strings.push(text));
        strings
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text with this number.
    pub(crate) fn text(&self, number: u32) -> Option<&str> {
        let number = number as usize;
        let end = *self.ends.get(number)? as usize;
        let start = if number == 0 { 0 } else { *self.ends.get(number - 1)? as usize };
        self.text.get(start..end)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).filter_map(|number| self.text(number))
    }

    /// What it occupies.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * 4
    }

    /// The section.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(self.len() as u64, &mut out);
        let mut before = "";
        for text in self.iter() {
            let shared = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
            put_varint(shared as u64, &mut out);
            put_bytes(text.as_bytes().get(shared..).unwrap_or_default(), &mut out);
            before = text;
        }
        out
    }

    /// Reads the section.
    ///
    /// # Errors
    /// [`Malformed`], also when texts are not sorted or not UTF-8.
    pub(crate) fn parse(section: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(section);
        let mut strings = Self::default();
        let mut text: Vec<u8> = Vec::new();
        for place in 0..bytes.count()? {
            let shared = bytes.u32()? as usize;
            let rest = bytes.bytes()?;
            let is_after = match text.get(shared..) {
                Some(replaced) => rest > replaced || (place == 0 && rest.is_empty()),
                None => return Err(Malformed),
            };
            text.truncate(shared);
            text.extend_from_slice(rest);
            // A few bytes can repeat a long text: what comes out is bounded, too.
            if !is_after || strings.text.len() + text.len() > BYTES_MAX {
                return Err(Malformed);
            }
            strings.push(std::str::from_utf8(&text).map_err(|_| Malformed)?);
        }
        bytes.end()?;
        Ok(strings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tables_come_back(texts: Vec<String>) {
            let strings = Strings::new(texts.iter().map(String::as_str));
            let section = strings.encode();
            prop_assert_eq!(Strings::parse(&section), Ok(strings.clone()));
            for text in &texts {
                prop_assert!(strings.iter().any(|known| known == text));
            }
            for end in 0..section.len() {
                prop_assert_eq!(Strings::parse(&section[..end]), Err(Malformed));
            }
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Strings::parse(&bytes);
        }
    }

    #[test]
    fn numbers_compare_as_texts_do() {
        let strings = Strings::new(["b", "", "aa", "b", "a"]);
        assert_eq!(strings.iter().collect::<Vec<_>>(), ["", "a", "aa", "b"]);
        assert_eq!(strings.text(4), None);
    }
}

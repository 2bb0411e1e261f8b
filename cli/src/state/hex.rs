//! Bytes as people can read and compare them in the database.

/// Lower-case hexadecimal.
pub(super) fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The inverse of [`encode`]; `None` for anything that it did not make.
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || text.bytes().any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_encoded_is_decoded() {
        let bytes = [0x00, 0x7f, 0xff];
        assert_eq!(encode(&bytes), "007fff");
        assert_eq!(decode("007fff"), Some(bytes));
        for bad in ["", "007ff", "007fff00", "007fFF", "+07fff", "00 fff", "00ä7f"] {
            assert_eq!(decode::<3>(bad), None, "{bad}");
        }
    }
}

//! A stream of bits, least significant first.

use super::CodecError;

/// The most bits that one call writes or reads: what a 64-bit word surely has room for beside a part of a byte.
pub(super) const BITS_PER_CALL_MAX: u32 = 56;

/// Writes bits behind the bytes that are already in `out`, eight bytes at a time.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    word: u64,
    /// Bits in the word, fewer than 64.
    used: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, word: 0, used: 0 }
    }

    /// Writes the low `count` bits of `value`, at most [`BITS_PER_CALL_MAX`]; the others must be zero.
    #[inline]
    pub(super) fn write(&mut self, value: u64, count: u32) {
        debug_assert!(count <= BITS_PER_CALL_MAX && (value >> count) == 0, "{value} in {count} bits");
        self.word |= value << self.used;
        self.used += count;
        if self.used >= u64::BITS {
            self.out.extend_from_slice(&self.word.to_le_bytes());
            self.used -= u64::BITS;
            // What did not fit: `count` is small enough that this shifts by fewer than 64.
            self.word = value >> (count - self.used);
        }
    }

    /// Writes all 64 bits.
    pub(super) fn write_word(&mut self, value: u64) {
        self.write(value & 0xFFFF_FFFF, 32);
        self.write(value >> 32, 32);
    }

    pub(super) fn write_flag(&mut self, flag: bool) {
        self.write(u64::from(flag), 1);
    }

    /// Fills the last byte with zeros.
    pub(super) fn finish(self) {
        let bytes = self.used.div_ceil(8) as usize;
        self.out.extend_from_slice(self.word.to_le_bytes().get(..bytes).unwrap_or_default());
    }
}

/// Reads what [`BitWriter`] wrote. Never reads beyond its slice; past the end it is an error.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The first byte that is not in the word.
    at: usize,
    word: u64,
    available: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, word: 0, available: 0 }
    }

    /// Makes at least [`BITS_PER_CALL_MAX`] bits available, or all that are left.
    #[inline]
    fn refill(&mut self) {
        let room = (63 - self.available) / 8;
        if let Some(&head) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            self.word |= u64::from_le_bytes(head) << self.available;
            self.at += room as usize;
            self.available += room * 8;
        } else {
            self.refill_at_end(room);
        }
    }

    /// Takes up to so many of the last bytes, of which there are fewer than eight.
    #[inline]
    fn refill_at_end(&mut self, room: u32) {
        let left = (self.bytes.len() - self.at) as u32;
        let Some(&tail) = self.bytes.last_chunk::<8>() else { return self.refill_from_few(room) };
        if left > 0 {
            let taken = left.min(room);
            self.word |= (u64::from_le_bytes(tail) >> (64 - 8 * left)) << self.available;
            self.at += taken as usize;
            self.available += taken * 8;
        }
    }

    /// As [`Self::refill_at_end`], of fewer than eight bytes in all.
    fn refill_from_few(&mut self, room: u32) {
        for _ in 0..room {
            let Some(&byte) = self.bytes.get(self.at) else { return };
            self.word |= u64::from(byte) << self.available;
            self.available += 8;
            self.at += 1;
        }
    }

    #[inline]
    pub(super) fn read(&mut self, count: u32) -> Result<u64, CodecError> {
        debug_assert!(count <= BITS_PER_CALL_MAX, "{count} bits");
        if self.available < count {
            self.refill();
            if self.available < count {
                return Err(CodecError::Truncated);
            }
        }
        let value = self.word & ((1 << count) - 1);
        self.consume(count);
        Ok(value)
    }

    pub(super) fn read_word(&mut self) -> Result<u64, CodecError> {
        let low = self.read(32)?;
        Ok(low | (self.read(32)? << 32))
    }

    pub(super) fn read_flag(&mut self) -> Result<bool, CodecError> {
        Ok(self.read(1)? == 1)
    }

    /// Counts zeros up to the next one, which is read too; `max` zeros end the count by themselves.
    #[inline]
    pub(super) fn read_unary(&mut self, max: u32) -> Result<u32, CodecError> {
        if self.available <= max {
            self.refill();
        }
        let zeros = self.word.trailing_zeros().min(max);
        let bits = if zeros == max { max } else { zeros + 1 };
        if bits > self.available {
            return Err(CodecError::Truncated);
        }
        self.consume(bits);
        Ok(zeros)
    }

    /// Reads a Rice code at once: the zeros up to the next one and the bits behind it, so many. `None`, and nothing is read, if there are
    /// `max` zeros or more than fits into one call, or the end comes first.
    #[inline]
    pub(super) fn read_rice(&mut self, parameter: u32, max: u32) -> Option<(u32, u64)> {
        self.refill();
        let zeros = self.word.trailing_zeros();
        let bits = zeros + 1 + parameter;
        if zeros >= max || bits > self.available.min(BITS_PER_CALL_MAX) {
            return None;
        }
        let rest = (self.word >> (zeros + 1)) & ((1 << parameter) - 1);
        self.consume(bits);
        Some((zeros, rest))
    }

    /// Whether nothing but the padding of the last byte is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len() && self.available < 8 && self.word & ((1 << self.available) - 1) == 0
    }

    #[inline]
    fn consume(&mut self, count: u32) {
        // Bits above `available` may stand in the word from an eight-byte refill: they are read again, so that or-ing
        // them in once more changes nothing.
        self.word >>= count;
        self.available -= count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in proptest::collection::vec((any::<u64>(), 0_u32..=56), 0..200)) {
            let mut bytes = vec![0xAA];
            let mut writer = BitWriter::new(&mut bytes);
            for &(value, count) in &fields {
                writer.write(value & ((1 << count) - 1), count);
            }
            writer.finish();
            let mut reader = BitReader::new(&bytes[1..]);
            for &(value, count) in &fields {
                prop_assert_eq!(reader.read(count).unwrap(), value & ((1 << count) - 1));
            }
            prop_assert!(reader.is_at_end());
            prop_assert!(reader.read(8).is_err());
        }
    }

    #[test]
    fn unary_counts_zeros_up_to_its_limit() {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        writer.write(1 << 5, 6);
        writer.write(0, 20);
        writer.write(0b101, 3);
        writer.finish();
        let mut reader = BitReader::new(&bytes);
        assert_eq!(reader.read_unary(20).unwrap(), 5);
        assert_eq!(reader.read_unary(20).unwrap(), 20);
        assert_eq!(reader.read(3).unwrap(), 0b101);
    }
}

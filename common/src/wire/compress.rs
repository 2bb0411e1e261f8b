//! Compression of what is text: definitions, replies. Ticks are bits already and are left alone.

use std::io::Read as _;

/// Fast, and on definitions nearly as small as higher levels.
const LEVEL: i32 = 3;

/// The unpacked size is above its limit, or not what was declared, or the bytes are no zstd.
#[derive(Debug, thiserror::Error)]
#[error("compressed payload is malformed or larger than it says")]
pub(super) struct UnpackError;

/// Compresses `bytes` if that saves at least an eighth.
pub(super) fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    let packed = zstd::bulk::compress(bytes, LEVEL).ok()?;
    (packed.len() < bytes.len() - bytes.len() / 8).then_some(packed)
}

/// Unpacks to exactly `size` bytes, never holding more than that. The caller has checked `size` against its limit.
pub(super) fn unpack(bytes: &[u8], size: usize) -> Result<Vec<u8>, UnpackError> {
    let declared = zstd::zstd_safe::get_frame_content_size(bytes).map_err(|_| UnpackError)?;
    if declared != Some(size as u64) {
        return Err(UnpackError);
    }
    let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| UnpackError)?.single_frame();
    let mut unpacked = Vec::with_capacity(size);
    let read = decoder.take(size as u64 + 1).read_to_end(&mut unpacked).map_err(|_| UnpackError)?;
    if read == size { Ok(unpacked) } else { Err(UnpackError) }
}

//! Bodies packed with zstd, and frames with the five bytes gRPC puts before each.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::{FRAME_BYTES_MAX, UNPACKED_BYTES_MAX};

/// Before each message: one byte that says whether it is compressed (never here), four of length.
pub const GRPC_HEADER_BYTES: usize = 5;

/// Bodies below this go as they are: on a change of a few services zstd saves nothing.
const PACK_BYTES_MIN: usize = 4 << 10;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It says it is larger than any body may be.
    #[error("body of {0} bytes is over the limit of {UNPACKED_BYTES_MAX}")]
    TooLarge(usize),
    /// Not zstd, or not of the size it says.
    #[error("body does not unpack: {0}")]
    Unpack(String),
    /// Not the message it should be.
    #[error("body is no message: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// The encoding of a message, packed if that pays: the size when unpacked (0 if it is not packed), and the body.
pub(super) fn pack(message: &impl Message, level: i32) -> (u32, Bytes) {
    let raw = message.encode_to_vec();
    let size = u32::try_from(raw.len()).ok().filter(|_| raw.len() >= PACK_BYTES_MIN);
    let packed = size.and_then(|size| zstd::bulk::compress(&raw, level).ok().map(|packed| (size, packed)));
    match packed {
        Some((size, packed)) if packed.len() < raw.len() => (size, packed.into()),
        _ => (0, raw.into()),
    }
}

/// The message in a body, unpacked if `unpacked_bytes` is not 0.
pub(super) fn unpack<M: Message + Default>(unpacked_bytes: u32, body: &Bytes) -> Result<M, PackError> {
    let size = usize::try_from(unpacked_bytes).unwrap_or(usize::MAX).max(body.len());
    if size > UNPACKED_BYTES_MAX {
        return Err(PackError::TooLarge(size));
    }
    if unpacked_bytes == 0 {
        return Ok(M::decode(body.clone())?);
    }
    let raw = zstd::bulk::decompress(body, size).map_err(|error| PackError::Unpack(error.to_string()))?;
    Ok(M::decode(Bytes::from(raw))?)
}

/// A message with its gRPC header.
///
/// # Panics
/// If the message is over 4 GiB; bodies are bounded long before.
pub fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(GRPC_HEADER_BYTES + len);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).expect("bodies are bounded"));
    message.encode(&mut bytes).expect("the buffer has room for what encoded_len says");
    bytes.freeze()
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The peer compresses messages, which was not agreed.
    #[error("frame is compressed")]
    Compressed,
    /// The header asks for more than any frame has.
    #[error("frame of {0} bytes is over the limit of {1}")]
    TooLarge(usize, usize),
    /// Not the message it should be.
    #[error("frame is no message: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// Takes the next whole message off `bytes`; `None` if it has not arrived yet.
///
/// # Errors
/// Those of [`split_bytes`], and if the bytes are not an `M`.
pub fn split<M: Message + Default>(bytes: &mut BytesMut, max: usize) -> Result<Option<M>, SplitError> {
    Ok(split_bytes(bytes, max)?.map(M::decode).transpose()?)
}

/// As [`split`], still encoded.
///
/// # Errors
/// If the header is no gRPC header, or asks for more than `max` bytes.
pub fn split_bytes(bytes: &mut BytesMut, max: usize) -> Result<Option<Bytes>, SplitError> {
    let Some((header, _)) = bytes.split_first_chunk::<GRPC_HEADER_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *header;
    if compressed != 0 {
        return Err(SplitError::Compressed);
    }
    let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let max = max.min(FRAME_BYTES_MAX);
    if len > max {
        return Err(SplitError::TooLarge(len, max));
    }
    if bytes.len() < GRPC_HEADER_BYTES + len {
        return Ok(None);
    }
    bytes.advance(GRPC_HEADER_BYTES);
    Ok(Some(bytes.split_to(len).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Changes, Drain};

    #[test]
    fn bodies_are_packed_only_where_it_pays() {
        for (count, packed) in [(1, false), (2_000, true)] {
            let message = Changes { remove: vec!["prod/some-service".to_owned(); count], ..Changes::default() };
            let (size, body) = pack(&message, 3);
            assert_eq!(size != 0, packed, "{count}");
            assert_eq!(unpack::<Changes>(size, &body).unwrap(), message);
        }
    }

    #[test]
    fn a_body_that_lies_about_its_size_is_refused() {
        let message = Changes { remove: vec!["prod/some-service".to_owned(); 2_000], ..Changes::default() };
        let (size, body) = pack(&message, 3);
        assert!(matches!(unpack::<Changes>(size - 1, &body), Err(PackError::Unpack(_))));
        assert!(matches!(unpack::<Changes>(u32::MAX, &body), Err(PackError::TooLarge(_))));
        assert!(matches!(unpack::<Changes>(size, &Bytes::from_static(b"garbage")), Err(PackError::Unpack(_))));
        assert!(matches!(unpack::<Changes>(0, &Bytes::from_static(b"\xff\xff")), Err(PackError::Decode(_))));
    }

    #[test]
    fn frames_split_wherever_the_network_cuts_them() {
        let message = Drain { window_ms: 7, hubs: vec!["10.0.0.1:7443".into()] };
        let whole = [framed(&message), framed(&message)].concat();
        for cut in 0..whole.len() {
            let mut bytes = BytesMut::from(&whole[..cut]);
            let mut seen = 0;
            while split::<Drain>(&mut bytes, 1024).unwrap().is_some() {
                seen += 1;
            }
            bytes.extend_from_slice(&whole[cut..]);
            while let Some(read) = split::<Drain>(&mut bytes, 1024).unwrap() {
                assert_eq!(read, message);
                seen += 1;
            }
            assert_eq!(seen, 2, "cut at {cut}");
        }
    }

    #[test]
    fn garbage_is_no_frame() {
        let cases: [(&[u8], &str); 3] = [
            (b"\x01\0\0\0\x01x", "frame is compressed"),
            (b"\0\xff\xff\xff\xff", "frame of 4294967295 bytes is over the limit of 1024"),
            (b"\0\0\0\0\x02\xff\xff", "frame is no message"),
        ];
        for (bytes, expected) in cases {
            let error = split::<Drain>(&mut BytesMut::from(bytes), 1024).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}

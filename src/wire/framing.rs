//! Takes the framing off a record value: one byte that says what follows, and bounded decompression.
//!
//! `0x00` is plain protobuf, `0x01` one zstd frame of it. Neither byte can begin a protobuf message, so unframed values
//! of older producers can be told apart where they are allowed. It must not know protobuf or policy.

use zstd::zstd_safe::{self, DCtx, zstd_sys::ZSTD_ErrorCode};

/// First byte of a value that holds plain protobuf.
pub const PLAIN: u8 = 0x00;
/// First byte of a value that holds one zstd frame.
pub const ZSTD: u8 = 0x01;

/// How every zstd frame begins.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// How hard is compressed: as producers do.
const LEVEL: i32 = 3;

/// The first output buffer, in bytes; it doubles when a frame of unknown size needs more.
const FIRST_BUFFER: usize = 64 * 1024;
/// The largest output buffer, in bytes, that is kept from one record to the next.
const KEPT_BUFFER: usize = 1024 * 1024;

/// Why no content could be taken out of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The first byte names no known framing.
    #[error("the first byte names no known framing")]
    Unknown,
    /// It is not exactly one intact zstd frame.
    #[error("the value does not hold exactly one intact zstd frame")]
    DecompressionFailed,
    /// The content is larger than the limit, or says so.
    #[error("the decompressed content is larger than the limit")]
    TooLarge,
}

/// Which values are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Framed values only.
    Strict,
    /// Also unframed protobuf, and bare zstd frames of it.
    Legacy,
}

/// Bytes of `value` that are framing and not payload.
pub fn framing_len(value: &[u8]) -> usize {
    usize::from(matches!(value.first(), Some(&(PLAIN | ZSTD))))
}

/// `content` framed as `like` is: compressed if that is. `None` when it cannot be compressed.
pub fn frame_like(like: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let compressed = || zstd::bulk::compress(content, LEVEL).ok();
    Some(match like.first() {
        Some(&PLAIN) => [&[PLAIN], content].concat(),
        Some(&ZSTD) => [&[ZSTD], &*compressed()?].concat(),
        _ if like.starts_with(&ZSTD_MAGIC) => compressed()?,
        _ => content.to_vec(),
    })
}

/// Takes framings off, with one zstd context and one output buffer for all records.
pub struct Unframer {
    mode: Mode,
    max_content: usize,
    context: DCtx<'static>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Unframer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unframer")
            .field("mode", &self.mode)
            .field("max_content", &self.max_content)
            .field("buffer_len", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl Unframer {
    /// Accepts values by `mode`, and compressed content up to `max_content` bytes.
    pub fn new(mode: Mode, max_content: usize) -> Self {
        Self { mode, max_content, context: DCtx::create(), buffer: Vec::new() }
    }

    /// The content of a value; valid until the next call.
    ///
    /// # Errors
    /// When there is none, see [`FramingError`].
    pub fn content<'a>(&'a mut self, value: &'a [u8]) -> Result<&'a [u8], FramingError> {
        match value.split_first() {
            Some((&PLAIN, content)) => Ok(content),
            Some((&ZSTD, frame)) => self.decompress(frame),
            _ if self.mode == Mode::Strict => Err(FramingError::Unknown),
            _ if value.starts_with(&ZSTD_MAGIC) => self.decompress(value),
            _ => Ok(value),
        }
    }

    /// Bytes that the output buffer holds now.
    pub fn buffer_len(&self) -> usize {
        self.buffer.len()
    }

    /// Every allocation is bounded by the limit, and by what the frame declares if it does; the output buffer's length is
    /// what stops a frame that declares nothing or lies.
    fn decompress(&mut self, frame: &[u8]) -> Result<&[u8], FramingError> {
        if !frame.starts_with(&ZSTD_MAGIC) {
            return Err(FramingError::DecompressionFailed);
        }
        let declared = zstd_safe::get_frame_content_size(frame).map_err(|_| FramingError::DecompressionFailed)?;
        let declared = declared.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
        if declared > self.max_content {
            return Err(FramingError::TooLarge);
        }
        self.make_room(declared.max(FIRST_BUFFER));
        let written = loop {
            let room = self.buffer.len().min(self.max_content);
            let output = self.buffer.get_mut(..room).unwrap_or(&mut []);
            match self.context.decompress(output, frame) {
                Ok(written) => break written,
                Err(code) if code == OUTPUT_TOO_SMALL && room < self.max_content => self.make_room(room * 2),
                Err(code) if code == OUTPUT_TOO_SMALL => return Err(FramingError::TooLarge),
                Err(_) => return Err(FramingError::DecompressionFailed),
            }
        };
        // Several frames, or something behind the first: all of it was bounded above, none of it is accepted.
        if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err(FramingError::DecompressionFailed);
        }
        self.buffer.get(..written).ok_or(FramingError::DecompressionFailed)
    }

    /// Replaces the buffer when it is shorter than `len` (or than the limit, if that is less). Nothing in it is needed, and
    /// zeroed memory from the allocator is not touched until it is written.
    fn make_room(&mut self, len: usize) {
        let len = len.min(self.max_content);
        if self.buffer.len() < len {
            self.buffer = Vec::new();
            self.buffer = vec![0; len];
        }
    }

    /// Gives an unusually large buffer back, so that one large record does not hold its memory for ever. To be called when
    /// the content is done with; costs nothing for usual records.
    pub fn trim(&mut self) {
        if self.buffer.len() > KEPT_BUFFER {
            self.buffer = Vec::new();
        }
    }
}

/// zstd's error codes are negative error numbers; this one says that the content did not fit.
const OUTPUT_TOO_SMALL: usize = (ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg();

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const LIMIT: usize = 1024 * 1024;
    const BLOCK: usize = 128 * 1024;

    /// A zstd frame of `len` equal bytes, a few bytes per 128 KiB, which declares what it is told to declare.
    pub(crate) fn repeated(len: usize, declared: Option<u32>) -> Vec<u8> {
        const WINDOW: u8 = 0x58;
        let mut frame = ZSTD_MAGIC.to_vec();
        match declared {
            Some(size) => {
                frame.extend_from_slice(&[0x80, WINDOW]);
                frame.extend_from_slice(&size.to_le_bytes());
            }
            None => frame.extend_from_slice(&[0x00, WINDOW]),
        }
        let mut left = len;
        loop {
            let block = left.min(BLOCK);
            left -= block;
            let header = u32::try_from(block).unwrap() << 3 | 0b010 | u32::from(left == 0);
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.push(b'x');
            if left == 0 {
                return frame;
            }
        }
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        [&[ZSTD], frame].concat()
    }

    #[test]
    fn each_first_byte_is_known_or_refused() {
        for first in 0..=u8::MAX {
            let value = [&[first], &b"rest"[..]].concat();
            let strict = Unframer::new(Mode::Strict, LIMIT).content(&value).map(<[u8]>::to_vec);
            let legacy = Unframer::new(Mode::Legacy, LIMIT).content(&value).map(<[u8]>::to_vec);
            match first {
                PLAIN => assert_eq!((strict, legacy), (Ok(b"rest".to_vec()), Ok(b"rest".to_vec()))),
                ZSTD => {
                    let broken = Err(FramingError::DecompressionFailed);
                    assert_eq!((strict, legacy), (broken.clone(), broken));
                }
                _ => assert_eq!((strict, legacy), (Err(FramingError::Unknown), Ok(value))),
            }
        }
    }

    #[test]
    fn legacy_values_may_be_bare_zstd_and_strict_ones_not() {
        let bare = zstd::bulk::compress(b"content", 3).unwrap();
        assert_eq!(Unframer::new(Mode::Legacy, LIMIT).content(&bare), Ok(&b"content"[..]));
        assert_eq!(Unframer::new(Mode::Strict, LIMIT).content(&bare), Err(FramingError::Unknown));
    }

    #[test]
    fn content_up_to_the_limit_passes_and_one_byte_more_does_not_however_it_is_declared() {
        let exact = u32::try_from(LIMIT).unwrap();
        let mut unframer = Unframer::new(Mode::Strict, LIMIT);
        for len in [0, 1, FIRST_BUFFER, FIRST_BUFFER + 1, LIMIT - 1, LIMIT] {
            for declared in [Some(u32::try_from(len).unwrap()), None] {
                let value = framed(&repeated(len, declared));
                assert_eq!(unframer.content(&value).map(<[u8]>::len), Ok(len), "{len} declared as {declared:?}");
            }
        }
        for len in [LIMIT + 1, 64 * LIMIT] {
            for declared in [Some(u32::try_from(len).unwrap()), Some(u32::MAX), Some(5), Some(exact), None] {
                let value = framed(&repeated(len, declared));
                assert_eq!(unframer.content(&value), Err(FramingError::TooLarge), "{len} declared as {declared:?}");
                assert!(unframer.buffer_len() <= LIMIT);
            }
        }
    }

    #[test]
    fn a_frame_that_lies_about_its_size_below_the_limit_is_broken() {
        let mut unframer = Unframer::new(Mode::Strict, LIMIT);
        for (len, declared) in [(10, 9), (10, 11), (200_000, 5), (5, 200_000), (LIMIT, 1)] {
            let value = framed(&repeated(len, Some(declared)));
            assert_eq!(
                unframer.content(&value),
                Err(FramingError::DecompressionFailed),
                "{len} declared as {declared}"
            );
        }
    }

    #[test]
    fn several_frames_are_refused_by_what_the_bound_shows() {
        let mut unframer = Unframer::new(Mode::Strict, LIMIT);
        let half = repeated(LIMIT / 2, Some(u32::try_from(LIMIT / 2).unwrap()));
        let small = [repeated(5, Some(5)), repeated(5, None)].concat();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        for (frames, expected) in [
            (small.clone(), FramingError::DecompressionFailed),
            ([&half[..], &half].concat(), FramingError::DecompressionFailed),
            ([&half[..], &half, &small].concat(), FramingError::TooLarge),
            ([repeated(5, Some(5)), repeated(64 * LIMIT, None)].concat(), FramingError::TooLarge),
            ([&small[..], &skippable].concat(), FramingError::DecompressionFailed),
            ([&repeated(5, Some(5))[..], &skippable].concat(), FramingError::DecompressionFailed),
            ([&skippable, &repeated(5, Some(5))[..]].concat(), FramingError::DecompressionFailed),
            (skippable.to_vec(), FramingError::DecompressionFailed),
            ([&repeated(5, Some(5))[..], b"trailing"].concat(), FramingError::DecompressionFailed),
            (Vec::new(), FramingError::DecompressionFailed),
        ] {
            assert_eq!(unframer.content(&framed(&frames)), Err(expected), "{frames:02x?}");
        }
    }

    #[test]
    fn a_cut_or_damaged_frame_is_refused_and_the_next_good_one_is_read() {
        let text = "some text that zstd can compress, some text that zstd can compress".repeat(20);
        let whole = framed(&zstd::bulk::compress(text.as_bytes(), 3).unwrap());
        let mut unframer = Unframer::new(Mode::Strict, LIMIT);
        for cut in 1..whole.len() {
            assert_eq!(unframer.content(&whole[..cut]), Err(FramingError::DecompressionFailed), "cut at {cut}");
            assert_eq!(unframer.content(&whole), Ok(text.as_bytes()));
        }
        for at in 1..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            // Without a checksum some damage is not seen here; it must stay inside the bound and harm nobody else.
            let _seen = unframer.content(&damaged).map(<[u8]>::len);
            assert_eq!(unframer.content(&whole), Ok(text.as_bytes()));
        }
    }

    #[test]
    fn one_large_record_does_not_keep_its_memory() {
        let mut unframer = Unframer::new(Mode::Strict, 10 * LIMIT);
        assert!(unframer.content(&framed(&repeated(9 * LIMIT, None))).is_ok());
        assert!(unframer.buffer_len() >= 9 * LIMIT);
        unframer.trim();
        assert_eq!(unframer.buffer_len(), 0);
        assert!(unframer.content(&framed(&repeated(1000, None))).is_ok());
        unframer.trim();
        assert_eq!(unframer.buffer_len(), FIRST_BUFFER, "the usual buffer stays");
    }
}

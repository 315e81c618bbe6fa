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

//! The codings themselves: bytes in, bytes out, and a flush between them.

use std::fmt;
use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;
use zstd::zstd_safe::CParameter;

use super::accept::Coding;

/// Quality of Brotli (0 to 11), level of zstd (1 to 22) and of gzip (1 to 9): what a server can do
/// while its client waits.
const BROTLI_QUALITY: i32 = 4;
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 5;
/// How far back Brotli and zstd look, as a power of two: 256 KiB. Their own choice of 2 and 4 MiB
/// would be held for each response in progress.
const WINDOW_LOG: u32 = 18;
/// What Brotli hands over at once, in bytes.
const BROTLI_BUFFER: usize = 4096;

/// One response's encoder, which collects what it makes.
pub(super) enum Codec {
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<ZstdEncoder<'static, Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Brotli(_) => "Brotli",
            Self::Zstd(_) => "Zstd",
            Self::Gzip(_) => "Gzip",
        })
    }
}

impl Codec {
    /// For content of `length` bytes, where that is known.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn new(coding: Coding, length: Option<u64>) -> io::Result<Self> {
        Ok(match coding {
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: WINDOW_LOG.cast_signed(),
                    size_hint: length.and_then(|it| usize::try_from(it).ok()).unwrap_or(0),
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, &params);
                Self::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                Self::Zstd(Box::new(encoder))
            }
            Coding::Gzip => {
                let level = Compression::new(GZIP_LEVEL);
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Brotli(writer) => &mut **writer,
            Self::Zstd(encoder) => &mut **encoder,
            Self::Gzip(encoder) => &mut **encoder,
        }
    }

    fn take(&mut self) -> Bytes {
        let made = match self {
            Self::Brotli(writer) => writer.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        };
        std::mem::take(made).into()
    }

    /// Takes content in; what comes of it so far may be nothing.
    pub(super) fn write(&mut self, content: &[u8]) -> io::Result<Bytes> {
        self.writer().write_all(content)?;
        Ok(self.take())
    }

    /// All that was taken in, so that its reader can expand it without what follows.
    pub(super) fn flush(&mut self) -> io::Result<Bytes> {
        self.writer().flush()?;
        Ok(self.take())
    }

    /// The rest.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        let made = match self {
            Self::Brotli(writer) => writer.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
        };
        Ok(made.into())
    }
}

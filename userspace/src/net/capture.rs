//! Capture files as a source of frames: pcap (microseconds and nanoseconds, either byte order) and pcapng, also gzipped.
//!
//! What a file is follows from its first bytes, never from its name. The file is read as it is used up, so its size does
//! not matter. A damaged file is an error that says where; the frames before it have been delivered.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;
use pcap_parser::pcapng::{Block, InterfaceDescriptionBlock, OptionCode};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// Read buffer at first, bytes; a block must fit.
const BUFFER_BYTES: usize = 1 << 18;

/// Read buffer for a file with longer blocks (pcapng keeps more than packets), bytes.
const MAX_BUFFER_BYTES: usize = 1 << 24;

/// One captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// When it was captured, nanoseconds since the epoch, UTC.
    pub utc_ns: u64,
    /// The frame from its Ethernet header on, as far as it was captured.
    pub frame: &'a [u8],
    /// Length on the wire, bytes; longer than `frame` if the capture cut it off.
    pub wire_bytes: u32,
}

/// Why a capture cannot be read (further).
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a capture, or damaged.
    #[error("{}: offset {offset}{}: {what}", path.display(), if *gzip { " (uncompressed)" } else { "" })]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Offset of the block that is wrong, in the uncompressed bytes.
        offset: u64,
        /// Whether the file is gzipped.
        gzip: bool,
        /// What is wrong.
        what: String,
    },
}

/// Reads the frames of one file in order.
pub struct CaptureReader {
    path: PathBuf,
    gzip: bool,
    reader: Box<dyn PcapReaderIterator>,
    /// Offset of the next block in the uncompressed bytes.
    offset: u64,
    content: Content,
    /// Why the last read failed.
    failure: Arc<Mutex<Option<String>>>,
}

impl std::fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureReader").field("path", &self.path).field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// How an interface of the file gives times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    ticks_per_second: u64,
    offset_seconds: i64,
}

impl Scale {
    /// By pcapng's `if_tsresol`: a power of ten, or of two if the top bit is set. `None` if it is finer than 64 bits hold.
    fn from_tsresol(tsresol: u8, offset_seconds: i64) -> Option<Self> {
        let exponent = u32::from(tsresol & 0x7f);
        let ticks_per_second =
            if tsresol & 0x80 == 0 { 10_u64.checked_pow(exponent)? } else { 1_u64.checked_shl(exponent)? };
        Some(Self { ticks_per_second, offset_seconds })
    }

    /// Ticks since the epoch in nanoseconds, rounded down; times before 1970 become 0.
    fn to_ns(self, ticks: u64) -> u64 {
        let per_second = u128::from(self.ticks_per_second);
        let ns = u128::from(ticks) * 1_000_000_000 / per_second;
        let ns = i128::try_from(ns).unwrap_or(i128::MAX) + i128::from(self.offset_seconds) * 1_000_000_000;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// What a block came to.
enum Step {
    Frame { wire_bytes: u32 },
    Other,
}

impl CaptureReader {
    /// Opens a capture file.
    ///
    /// # Errors
    /// The file cannot be read, or does not begin like a capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|source| CaptureError::Io { path: path.to_owned(), source })?;
        Self::read(path, file)
    }

    /// Reads a capture from its bytes; `path` is the name that errors give.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(path: &Path, bytes: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let io = |source| CaptureError::Io { path: path.to_owned(), source };
        let mut file = BufReader::new(bytes);
        let gzip = file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
        let bytes: Box<dyn Read + Send> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let failure = Arc::new(Mutex::new(None));
        let whole = WholeReads { inner: bytes, failure: Arc::clone(&failure) };
        let reader = create_reader(BUFFER_BYTES, whole).map_err(|error| {
            let cause = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            let what = format!("not a capture: {}", cause.unwrap_or_else(|| describe(&error)));
            CaptureError::Malformed { path: path.to_owned(), offset: 0, gzip, what }
        })?;
        Ok(Self { path: path.to_owned(), gzip, reader, offset: 0, content: Content::default(), failure })
    }

    /// The next frame; `None` at the end of the file.
    ///
    /// # Errors
    /// The file is damaged or ends within a block. Reading further is pointless.
    pub fn next_frame(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        loop {
            match self.step()? {
                None => return Ok(None),
                Some(Step::Other) => {}
                Some(Step::Frame { wire_bytes }) => {
                    let Content { newest_ns: utc_ns, frame, .. } = &self.content;
                    return Ok(Some(Captured { utc_ns: *utc_ns, frame, wire_bytes }));
                }
            }
        }
    }

    /// Frames left out because they were captured on an interface that is not Ethernet.
    #[must_use]
    pub fn skipped_count(&self) -> u64 {
        self.content.skipped
    }

    /// Reads one block; a frame is left in `self.content`.
    fn step(&mut self) -> Result<Option<Step>, CaptureError> {
        let mut had = None;
        loop {
            let problem = match self.reader.next() {
                Ok((consumed, block)) => {
                    let step = self.content.read(&block);
                    drop(block);
                    self.reader.consume(consumed);
                    let step = step.map_err(|what| self.malformed(what))?;
                    self.offset += consumed as u64;
                    return Ok(Some(step));
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(problem) => problem.to_owned_vec(),
            };
            match problem {
                PcapError::BufferTooSmall if self.reader.grow(MAX_BUFFER_BYTES) => {}
                PcapError::Incomplete(_) if had != Some(self.reader.data().len()) => {}
                problem => return Err(self.malformed(describe(&problem))),
            }
            // A refill that brings nothing new, while the file goes on, means a block that does not fit.
            had = Some(self.reader.data().len());
            if self.reader.refill().is_err() {
                return Err(self.malformed("read error"));
            }
            if self.reader.reader_exhausted() {
                had = None;
            }
        }
    }

    fn malformed(&self, what: impl Into<String>) -> CaptureError {
        let cause = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        CaptureError::Malformed {
            path: self.path.clone(),
            offset: self.offset,
            gzip: self.gzip,
            what: cause.unwrap_or_else(|| what.into()),
        }
    }
}

/// What has been read: how to read times, and the newest frame.
#[derive(Debug, Default)]
struct Content {
    /// By interface of the section; `None` for one that is not Ethernet.
    scales: Vec<Option<Scale>>,
    frame: Vec<u8>,
    newest_ns: u64,
    skipped: u64,
}

impl Content {
    /// Takes one block over.
    fn read(&mut self, block: &PcapBlockOwned<'_>) -> Result<Step, String> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                if header.network != Linktype::ETHERNET {
                    return Err(format!("link type {} is not Ethernet (1)", header.network.0));
                }
                let ticks_per_second = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
                self.scales = vec![Some(Scale { ticks_per_second, offset_seconds: 0 })];
                Ok(Step::Other)
            }
            PcapBlockOwned::Legacy(block) => {
                let per_second = self.scales[0].map_or(1, |scale| scale.ticks_per_second);
                let ticks = u64::from(block.ts_sec) * per_second + u64::from(block.ts_usec);
                self.packet(0, Some(ticks), block.data, block.origlen)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.scales.clear();
                Ok(Step::Other)
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let scale = Scale::from_tsresol(interface.if_tsresol, tsoffset(interface))
                    .ok_or_else(|| format!("if_tsresol {} is finer than 64 bits hold", interface.if_tsresol))?;
                self.scales.push((interface.linktype == Linktype::ETHERNET).then_some(scale));
                Ok(Step::Other)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                self.packet(packet.if_id, Some(ticks), packet.packet_data(), packet.origlen)
            }
            // Has no time and belongs to the first interface.
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                self.packet(0, None, packet.packet_data(), packet.origlen)
            }
            PcapBlockOwned::NG(_) => Ok(Step::Other),
        }
    }

    fn packet(&mut self, interface: u32, ticks: Option<u64>, data: &[u8], wire_bytes: u32) -> Result<Step, String> {
        let Some(scale) = self.scales.get(interface as usize) else {
            return Err(format!("a packet of interface {interface}, of which there is no description"));
        };
        let Some(scale) = scale else {
            self.skipped += 1;
            return Ok(Step::Other);
        };
        self.newest_ns = ticks.map_or(self.newest_ns, |ticks| scale.to_ns(ticks));
        self.frame.clear();
        self.frame.extend_from_slice(data);
        Ok(Step::Frame { wire_bytes })
    }
}

/// The interface's `if_tsoffset`, seconds; 0 if absent. Not the parser's own, which takes it for little endian always.
fn tsoffset(interface: &InterfaceDescriptionBlock<'_>) -> i64 {
    let option = interface.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
    let Some(bytes) = option.and_then(|option| option.value().first_chunk::<8>()) else { return 0 };
    // The type is kept as read in little endian.
    let is_big_endian = interface.block_type != pcap_parser::IDB_MAGIC;
    if is_big_endian { i64::from_be_bytes(*bytes) } else { i64::from_le_bytes(*bytes) }
}

/// What the parser found, in words.
fn describe<I>(error: &PcapError<I>) -> String {
    match error {
        PcapError::UnexpectedEof | PcapError::Incomplete(_) | PcapError::Eof => "the file ends within a block".into(),
        PcapError::BufferTooSmall => format!("a block longer than {MAX_BUFFER_BYTES} bytes"),
        PcapError::ReadError => "read error".into(),
        PcapError::HeaderNotRecognized => "neither a pcap nor a pcapng header".into(),
        PcapError::NomError(_, kind) | PcapError::OwnedNomError(_, kind) => {
            format!("a block that is not as the format says ({kind:?})")
        }
    }
}

/// Fills each read completely: decompressors return less, and the parser takes its header from the first read. Keeps the
/// reason of a failure, which the parser drops.
struct WholeReads<R> {
    inner: R,
    failure: Arc<Mutex<Option<String>>>,
}

impl<R: Read> Read for WholeReads<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // What came before the damage is delivered first; the next read meets it again.
                Err(_) if filled > 0 => break,
                Err(error) => {
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    return Err(error);
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests;

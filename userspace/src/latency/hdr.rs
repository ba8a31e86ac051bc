//! Histograms as text: HdrHistogram's V2 compressed encoding in base64, the form of its logs and tools.
//!
//! Source: HdrHistogram, `AbstractHistogram.encodeIntoCompressedByteBuffer` (V2) and `HistogramLogWriter`.
#![forbid(unsafe_code)]

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

/// First word of the compressed and of the plain encoding.
const COOKIES: [u32; 2] = [0x1c84_9314, 0x1c84_9313];
/// Header of the plain encoding, bytes.
const HEAD_BYTES: usize = 40;
/// Longest plain encoding that is read, bytes. The largest histogram that there can be (five digits, all of `u64`, no count
/// zero) takes less.
const MOST_BYTES: u64 = 64 << 20;
/// Most values in a histogram that is read: two millennia of a million a second; sums of a whole log stay within 64 bits.
const MOST_VALUES: u64 = 1 << 56;

/// Why a text is no histogram.
#[derive(Debug, thiserror::Error)]
pub enum HdrError {
    /// Not base64.
    #[error("no base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Too short, or it does not begin as the encoding does.
    #[error("not HdrHistogram's V2 compressed encoding")]
    NotV2,
    /// Its compressed part is damaged.
    #[error("damaged: {0}")]
    Damaged(std::io::Error),
    /// It is not as long as it says.
    #[error("its length is wrong")]
    Length,
    /// No program has recorded so many values.
    #[error("it claims to hold more than 2^56 values")]
    TooMany,
    /// Its content is wrong.
    #[error("no histogram: {0}")]
    Content(String),
}

/// A histogram as text.
#[must_use]
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Into memory, of a histogram that has a legal form: neither can fail. An empty text is refused by every reader.
    if V2DeflateSerializer::new().serialize(histogram, &mut bytes).is_err() {
        return String::new();
    }
    STANDARD.encode(bytes)
}

/// The histogram that a text holds.
///
/// # Errors
/// It holds none. Lengths are checked before anything is allocated for them.
pub fn decode(text: &str) -> Result<Histogram<u64>, HdrError> {
    let bytes = STANDARD.decode(text)?;
    let (head, compressed) = bytes.split_at_checked(8).ok_or(HdrError::NotV2)?;
    if word(head) != COOKIES[0] {
        return Err(HdrError::NotV2);
    }
    if word(&head[4..]) as usize != compressed.len() {
        return Err(HdrError::Length);
    }
    let mut plain = Vec::new();
    ZlibDecoder::new(compressed).take(MOST_BYTES).read_to_end(&mut plain).map_err(HdrError::Damaged)?;
    if plain.len() < HEAD_BYTES || word(&plain) != COOKIES[1] {
        return Err(HdrError::NotV2);
    }
    if word(&plain[4..]) as usize != plain.len() - HEAD_BYTES {
        return Err(HdrError::Length);
    }
    let read = Deserializer::new().deserialize(&mut plain.as_slice());
    let histogram: Histogram<u64> = read.map_err(|error| HdrError::Content(error.to_string()))?;
    // The sum in the histogram saturates.
    if histogram.len() > MOST_VALUES { Err(HdrError::TooMany) } else { Ok(histogram) }
}

/// The first four bytes, big-endian; 0 if there are fewer.
fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::latency::{Stage, StageHistograms};

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut stages = StageHistograms::default();
        values.iter().for_each(|ns| stages.record(Stage::EntryToSent, *ns));
        stages.stage(Stage::EntryToSent).clone()
    }

    #[test]
    fn a_histogram_is_read_back_as_it_was() {
        for values in [&[][..], &[0, 1, 2_500, 2_500, 80_000_000, 59_000_000_000]] {
            let written = histogram(values);
            assert_eq!(decode(&encode(&written)).unwrap(), written);
        }
    }

    /// Written by HdrHistogram's Python port, version 0.10.8: 1000 values, 1 to 1000 µs, in nanoseconds.
    #[test]
    fn what_another_program_wrote_is_read() {
        let histogram = decode(
            "HISTFAAAAIl4nJNpmSzMwMB+mgECmKE0IxDz/nCPYLD/ABE4z890lp9pKgfTU3amhSxMH5mhaDkT03dGLGglI1M1UyUenM1kDYS2YJI8W\
             pdJmkkWCBEk/fn8TLxM3EAMgQgWdtHhKs/OxAqGzFAaFRIvOqp/6OtnZmJEgxgCuCDRCmlh5qjlo5aPDMsBm9Y/Jg==",
        )
        .unwrap();
        let quantiles = [0.5, 0.999].map(|quantile| histogram.value_at_quantile(quantile));
        assert_eq!((histogram.len(), quantiles, histogram.max()), (1000, [500_223, 999_423], 1_000_447));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = encode(&histogram(&[1_000, 2_000]));
        let short = &good[..good.len() - 8];
        assert!(matches!(decode(short), Err(HdrError::Length)), "{:?}", decode(short));
        assert!(matches!(decode("not base64!"), Err(HdrError::Base64(_))));
        assert!(matches!(decode(""), Err(HdrError::NotV2)));
        assert!(matches!(decode(&STANDARD.encode(b"0123456789")), Err(HdrError::NotV2)));
        let mut bytes = STANDARD.decode(&good).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(decode(&STANDARD.encode(bytes)), Err(HdrError::Damaged(_))));
    }

    #[test]
    fn counts_that_would_overflow_a_sum_are_refused() {
        let mut most = Histogram::<u64>::new(3).unwrap();
        most.record_n(1_000, MOST_VALUES).unwrap();
        assert_eq!(decode(&encode(&most)).unwrap().len(), MOST_VALUES);
        for count in [1, 1 << 62, i64::MAX.unsigned_abs() - MOST_VALUES] {
            let mut more = most.clone();
            more.record_n(5_000_000, count).unwrap();
            more.record_n(9_000_000, count).unwrap();
            assert!(matches!(decode(&encode(&more)), Err(HdrError::TooMany)), "{count}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_text_is_refused_or_read_and_never_a_panic(at in 0_usize..200, byte: u8, values in prop::collection::vec(0_u64..1 << 40, 0..20)) {
            let mut bytes = STANDARD.decode(encode(&histogram(&values))).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode(&STANDARD.encode(bytes));
        }
    }
}

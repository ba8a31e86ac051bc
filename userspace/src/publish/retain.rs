//! The way of sent packets to whoever retains them for consumers that lost them: a bounded ring of bytes between the worker
//! and one other thread. The worker copies and goes on: it neither waits nor wakes anybody, and what finds no room is counted.
#![forbid(unsafe_code)]

use std::fmt;

/// Bytes that wait in a stream's ring at most: a third of a second of 100,000 order messages per second.
pub const RETAIN_RING_BYTES: usize = 2 << 20;

/// Each packet has its length in front of it.
const LENGTH_BYTES: usize = size_of::<u16>();

/// The worker's end.
pub struct Retainer(rtrb::Producer<u8>);

/// The other end.
pub struct Retained(rtrb::Consumer<u8>);

/// Both ends of a ring of so many bytes.
#[must_use]
pub fn retention(bytes: usize) -> (Retainer, Retained) {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(bytes);
    // Written once, so that the pages exist before the first packet needs them.
    while producer.push(1).is_ok() {}
    if let Ok(all) = consumer.read_chunk(bytes) {
        all.commit_all();
    }
    (Retainer(producer), Retained(consumer))
}

impl Retainer {
    /// Copies a packet's UDP payload, which is the parts in a row; false if there is no room for it now.
    #[must_use]
    pub fn retain(&mut self, parts: &[&[u8]]) -> bool {
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let Ok(length) = u16::try_from(payload_bytes) else { return false };
        let bytes = LENGTH_BYTES + payload_bytes;
        // The other thread's cache line is only looked at when what is known of it is not enough.
        if self.0.cached_slots() < bytes && self.0.slots() < bytes {
            return false;
        }
        self.0.push_entire_slice(&length.to_ne_bytes()).is_ok()
            && parts.iter().all(|part| self.0.push_entire_slice(part).is_ok())
    }
}

impl Retained {
    /// Moves the oldest packet that is there as a whole to the front of `buffer`; its length.
    ///
    /// # Panics
    /// If the buffer is shorter than the packet; 65,535 bytes are enough for any.
    pub fn next(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let mut length = [0; LENGTH_BYTES];
        // Looked at, not taken: the payload may not be there yet.
        let chunk = self.0.read_chunk(LENGTH_BYTES).ok()?;
        let (one, two) = chunk.as_slices();
        length.iter_mut().zip(one.iter().chain(two)).for_each(|(to, from)| *to = *from);
        let payload_bytes = usize::from(u16::from_ne_bytes(length));
        let chunk = self.0.read_chunk(LENGTH_BYTES + payload_bytes).ok()?;
        chunk.commit(LENGTH_BYTES);
        self.0.pop_entire_slice(&mut buffer[..payload_bytes]).ok()?;
        Some(payload_bytes)
    }
}

impl fmt::Debug for Retainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retainer").field("room", &self.0.slots()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retained").field("waiting", &self.0.slots()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in_and_what_finds_no_room_does_not() {
        let (mut retainer, mut retained) = retention(16);
        let mut buffer = [0; 64];
        // Round and round, so that lengths and payloads lie across the end of the ring in every way.
        for round in 0..100_u8 {
            let payload = vec![round; usize::from(round % 8)];
            assert!(retainer.retain(&[&payload]) && retainer.retain(&[b"."]));
            assert!(!retainer.retain(&[&[7; 14]]), "no room");
            assert_eq!(retained.next(&mut buffer).map(|length| buffer[..length].to_vec()), Some(payload));
            assert_eq!(retained.next(&mut buffer).map(|length| buffer[..length].to_vec()), Some(b".".to_vec()));
            assert_eq!(retained.next(&mut buffer), None);
        }
        assert!(retainer.retain(&[&[1; 14]]) && !retainer.retain(&[b""]), "full to the last byte");
    }

    #[test]
    fn a_packet_whose_payload_is_not_there_yet_waits() {
        let (mut retainer, mut retained) = retention(16);
        retainer.0.push_entire_slice(&3_u16.to_ne_bytes()).unwrap();
        retainer.0.push_entire_slice(b"ab").unwrap();
        let mut buffer = [0; 8];
        assert_eq!((retained.next(&mut buffer), retained.next(&mut buffer)), (None, None));
        retainer.0.push_entire_slice(b"c").unwrap();
        assert_eq!((retained.next(&mut buffer), &buffer[..3]), (Some(3), &b"abc"[..]));
    }
}

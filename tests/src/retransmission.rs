//! The exchange's retransmission server: answers MoldUDP64 request packets with the messages that were published, within the
//! venue's limits, or not as it should.
//!
//! It knows no socket: a request goes in, answers with their times come out, so it serves simulations and real sockets alike.
#![forbid(unsafe_code)]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::itch::Message;
use crate::mold::{self, Packet, Session};

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nothing.
    Honest,
    /// It never answers.
    Silent,
    /// It answers with another session.
    OtherSession,
    /// It answers with the messages under other numbers.
    WrongSequence,
    /// It answers with numbers that nobody has sent yet.
    Ahead,
    /// It answers with more messages than were asked for.
    TooMany,
    /// It says that the session is over, far ahead.
    EndOfSession,
    /// It answers with random bytes.
    Garbage,
    /// It answers a hundred times, with all of the above.
    Flood,
}

impl Manner {
    /// All that are wrong.
    pub const HOSTILE: [Self; 8] = [
        Self::Silent,
        Self::OtherSession,
        Self::WrongSequence,
        Self::Ahead,
        Self::TooMany,
        Self::EndOfSession,
        Self::Garbage,
        Self::Flood,
    ];
}

/// How a server answers. Times are nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Session that is served.
    pub session: Session,
    /// Shortest and longest time to the answer.
    pub delay_ns: (u64, u64),
    /// Share of requests or answers (0–1) that get lost.
    pub loss: f64,
    /// Share of answers that come twice.
    pub duplicate: f64,
    /// Messages in an answer at most, if so many fit into a packet.
    pub most_messages: u16,
    /// Requests per second that are answered at most; 0 = all.
    pub requests_per_second: u64,
    /// Newest messages that are kept.
    pub retention: usize,
    /// What is wrong with it.
    pub manner: Manner,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            session: *b"DEMO000001",
            delay_ns: (50_000, 200_000),
            loss: 0.0,
            duplicate: 0.0,
            most_messages: u16::MAX,
            requests_per_second: 0,
            retention: 1 << 20,
            manner: Manner::Honest,
        }
    }
}

/// What a server did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Requests that came.
    pub requests: u64,
    /// Requests that were not answered: over the limit, unknown, or no request at all.
    pub refused: u64,
    /// Packets sent.
    pub answers: u64,
}

/// One server, of the messages of `I`.
#[derive(Debug)]
pub struct RetransmissionServer<I> {
    settings: ServerSettings,
    source: I,
    rng: ChaCha8Rng,
    /// Number of the first message that is kept.
    first: u64,
    /// Messages kept, one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// When the next request is within the limit.
    allowed_ns: u64,
    counts: ServerCounts,
}

impl<I: Iterator<Item = Message>> RetransmissionServer<I> {
    /// A server to which nothing was published. `source` gives the messages that the exchange sends, from number 1 on.
    pub fn new(settings: ServerSettings, source: I) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(settings.seed ^ 0x5E7E_11A5);
        let (bytes, ends) = (Vec::new(), Vec::new());
        Self { settings, source, rng, first: 1, bytes, ends, allowed_ns: 0, counts: ServerCounts::default() }
    }

    /// Everything before `next` has been published.
    pub fn advance(&mut self, next: u64) {
        while self.next() < next {
            let Some(message) = self.source.next() else { break };
            message.encode(&mut self.bytes);
            self.ends.push(self.bytes.len());
        }
        // Not at every message: what is kept moves.
        if self.ends.len() >= 2 * self.settings.retention.max(1) {
            let gone = self.ends.len() - self.settings.retention.max(1);
            let cut = self.ends[gone - 1];
            self.bytes.drain(..cut);
            self.ends.drain(..gone);
            self.ends.iter_mut().for_each(|end| *end -= cut);
            self.first += gone as u64;
        }
    }

    fn next(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// What it did so far.
    pub fn counts(&self) -> ServerCounts {
        self.counts
    }

    /// Takes a request at `now_ns`; returns each answer with the time at which it arrives.
    pub fn request(&mut self, request: &[u8], now_ns: u64) -> Vec<(u64, Vec<u8>)> {
        self.counts.requests += 1;
        let answers = self.answers(request, now_ns);
        self.counts.refused += u64::from(answers.is_empty());
        self.counts.answers += answers.len() as u64;
        answers
    }

    fn answers(&mut self, request: &[u8], now_ns: u64) -> Vec<(u64, Vec<u8>)> {
        let Ok(request) = <&[u8; mold::HEADER_BYTES]>::try_from(request) else { return Vec::new() };
        let session: Session = request[..10].try_into().expect("ten bytes");
        let sequence = u64::from_be_bytes(request[10..18].try_into().expect("eight bytes"));
        let count = u16::from_be_bytes([request[18], request[19]]);
        if let Some(interval_ns) = 1_000_000_000_u64.checked_div(self.settings.requests_per_second) {
            // A tenth of a second's worth at once.
            if self.allowed_ns > now_ns + 100_000_000 {
                return Vec::new();
            }
            self.allowed_ns = self.allowed_ns.max(now_ns) + interval_ns;
        }
        let is_known = session == self.settings.session && (self.first..self.next()).contains(&sequence);
        if !is_known || count == 0 || count == mold::END_OF_SESSION || self.draw(self.settings.loss) {
            return Vec::new();
        }
        let manner = self.settings.manner;
        let mut payloads = match manner {
            Manner::Flood => {
                let all = Manner::HOSTILE.into_iter().filter(|manner| *manner != Manner::Flood).cycle().take(100);
                all.collect::<Vec<_>>().into_iter().flat_map(|manner| self.answer(manner, sequence, count)).collect()
            }
            manner => self.answer(manner, sequence, count).into_iter().collect::<Vec<_>>(),
        };
        if self.draw(self.settings.duplicate) {
            payloads.extend(payloads.clone());
        }
        let (shortest, longest) = self.settings.delay_ns;
        payloads.into_iter().map(|payload| (now_ns + self.rng.random_range(shortest..=longest), payload)).collect()
    }

    fn answer(&mut self, manner: Manner, sequence: u64, count: u16) -> Option<Vec<u8>> {
        let session = self.settings.session;
        let mut other = session;
        other[9] ^= 1;
        Some(match manner {
            Manner::Silent => return None,
            Manner::Honest | Manner::Flood => self.packet(&session, sequence, sequence, count),
            Manner::OtherSession => self.packet(&other, sequence, sequence, count),
            // Not a number that the client has just asked for as well: whoever lies about what a message contains is believed.
            Manner::WrongSequence => {
                self.packet(&session, if sequence > 100 { sequence / 2 } else { sequence + 1000 }, sequence, count)
            }
            Manner::Ahead => {
                let lie = self.next() + self.rng.random_range(1..1 << 22);
                self.packet(&session, lie, sequence, count)
            }
            Manner::TooMany => {
                let packet = self.packet(&session, sequence, sequence, count.saturating_mul(2).max(2));
                // Where there are no more messages, or they do not fit, it would be an honest answer.
                let is_more = u16::from_be_bytes([packet[18], packet[19]]) > count;
                return is_more.then_some(packet);
            }
            Manner::EndOfSession => mold::end_of_session(&session, self.next() + self.rng.random_range(0..1 << 22)),
            Manner::Garbage => {
                let mut bytes = vec![0; self.rng.random_range(0..1472)];
                self.rng.fill(&mut bytes[..]);
                bytes
            }
        })
    }

    /// The messages from `sequence` on, at most `count`, as many as fit, numbered from `number` on.
    fn packet(&self, session: &Session, number: u64, sequence: u64, count: u16) -> Vec<u8> {
        let mut packet = Packet::new(session, number);
        let start = usize::try_from(sequence - self.first).expect("it is kept");
        for index in (start..self.ends.len()).take(usize::from(count.min(self.settings.most_messages))) {
            let from = if index == 0 { 0 } else { self.ends[index - 1] };
            let message = &self.bytes[from..self.ends[index]];
            if !packet.has_room(message) {
                break;
            }
            packet.push(message);
        }
        packet.into_payload()
    }

    fn draw(&mut self, share: f64) -> bool {
        self.rng.random_bool(share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::{Day, DaySettings};

    fn day() -> Day {
        Day::new(&DaySettings { seed: 4, messages: 5_000, ..Default::default() })
    }

    fn server(settings: ServerSettings) -> RetransmissionServer<Day> {
        let mut server = RetransmissionServer::new(settings, day());
        server.advance(1_001);
        server
    }

    fn request(sequence: u64, count: u16) -> Vec<u8> {
        let mut bytes = mold::heartbeat(b"DEMO000001", sequence);
        bytes[18..].copy_from_slice(&count.to_be_bytes());
        bytes
    }

    #[test]
    fn an_answer_has_the_messages_that_were_asked_for_as_many_as_fit() {
        let mut server = server(ServerSettings::default());
        let answers = server.request(&request(990, 3), 5);
        let view = mold::parse(&answers[0].1).unwrap();
        let mut encoded = Vec::new();
        day().nth(989).unwrap().encode(&mut encoded);
        assert_eq!((view.sequence, view.blocks.len(), view.blocks[0]), (990, 3, &encoded[..]));
        assert!(answers.len() == 1 && answers[0].0 >= 50_005);
        let cut = server.request(&request(1, 900), 5);
        let count = mold::parse(&cut[0].1).unwrap().blocks.len();
        assert!((20..200).contains(&count) && cut[0].1.len() <= mold::MAX_PAYLOAD_BYTES, "{count}");
        assert_eq!(mold::parse(&server.request(&request(999, 100), 5)[0].1).unwrap().blocks.len(), 2);
        for (sequence, count) in [(1_001, 1), (0, 1), (5, 0), (5, 0xFFFF)] {
            assert!(server.request(&request(sequence, count), 5).is_empty(), "{sequence} {count}");
        }
        assert!(server.request(b"?", 5).is_empty());
        assert_eq!(server.counts(), ServerCounts { requests: 8, refused: 5, answers: 3 });
    }

    #[test]
    fn old_messages_are_gone_and_requests_over_the_limit_are_not_answered() {
        let mut server = server(ServerSettings { retention: 100, requests_per_second: 100, ..Default::default() });
        assert!(server.request(&request(1, 1), 0).is_empty());
        assert!(!server.request(&request(990, 1), 0).is_empty());
        let answered = (0..50).filter(|_| !server.request(&request(990, 1), 0).is_empty()).count();
        assert_eq!(answered, 9, "a tenth of a second's worth, two of which are used");
    }

    #[test]
    fn no_hostile_answer_is_the_honest_one() {
        let honest = server(ServerSettings::default()).request(&request(100, 5), 0).remove(0).1;
        for manner in Manner::HOSTILE {
            let mut server = server(ServerSettings { manner, ..Default::default() });
            let answers = server.request(&request(100, 5), 0);
            assert!(answers.iter().all(|(_, payload)| *payload != honest), "{manner:?}");
            assert_eq!(
                answers.len(),
                match manner {
                    Manner::Silent => 0,
                    Manner::Flood => 85,
                    _ => 1,
                },
                "{manner:?}"
            );
        }
    }
}

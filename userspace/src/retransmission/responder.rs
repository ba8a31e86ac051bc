//! What one stream's server does with a request, without a socket and without a clock.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use super::limits::{Limit, Limits};
use super::store::{Extent, Missing, Store};
use crate::config::plan::{Network, RetransmissionPlan};
use crate::feed::transport::moldudp64::{END_OF_SESSION, HEADER_BYTES};
use crate::metrics::RetransmissionCounts;

/// Why a request is not answered. MoldUDP64 has no word for it: nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not of the length of a request.
    Malformed,
    /// The client is in no network that is answered.
    Network,
    /// For no message at all.
    Count,
    /// All clients together ask for too much.
    Overload,
    /// This client asks for too much.
    ClientOverload,
    /// It is not there.
    Missing(Missing),
}

/// The server of one stream.
#[derive(Debug)]
pub struct Responder {
    store: Store,
    limits: Limits,
    allow: Vec<Network>,
    most_bytes: usize,
    answer: Vec<u8>,
    /// Messages in it.
    answer_messages: u16,
    counts: RetransmissionCounts,
}

impl Responder {
    /// With nothing retained. `payload_bytes` is the longest packet of the stream, and of an answer.
    #[must_use]
    pub fn new(plan: &RetransmissionPlan, payload_bytes: usize) -> Self {
        Self {
            store: Store::new(plan.retain_bytes),
            limits: Limits::new(plan),
            allow: plan.allow.clone(),
            most_bytes: payload_bytes,
            answer: Vec::with_capacity(payload_bytes),
            answer_messages: 0,
            counts: RetransmissionCounts::default(),
        }
    }

    /// Retains a packet that was sent.
    pub fn retain(&mut self, payload: &[u8]) {
        if self.store.insert(payload) {
            self.counts.retained += 1;
        } else {
            self.counts.unfit += 1;
        }
    }

    /// Takes what came from a client; what to send to where it came from.
    ///
    /// # Errors
    /// Why nothing is to be sent; it is counted already.
    pub fn request(&mut self, client: Ipv4Addr, request: &[u8], now_ns: u64) -> Result<&[u8], Refused> {
        self.counts.requests += 1;
        match self.judge(client, request, now_ns) {
            Ok(messages) => {
                self.counts.answers += 1;
                self.counts.answered_messages += u64::from(messages);
                self.answer_messages = messages;
                self.counts.answered_bytes += self.answer.len() as u64;
                Ok(&self.answer)
            }
            Err(refused) => {
                *match refused {
                    Refused::Malformed => &mut self.counts.refused_malformed,
                    Refused::Network => &mut self.counts.refused_network,
                    Refused::Count => &mut self.counts.refused_count,
                    Refused::Overload => &mut self.counts.refused_overload,
                    Refused::ClientOverload => &mut self.counts.refused_client_overload,
                    Refused::Missing(Missing::Session) => &mut self.counts.refused_session,
                    Refused::Missing(Missing::Gone) => &mut self.counts.refused_gone,
                    Refused::Missing(Missing::Ahead) => &mut self.counts.refused_ahead,
                } += 1;
                Err(refused)
            }
        }
    }

    fn judge(&mut self, client: Ipv4Addr, request: &[u8], now_ns: u64) -> Result<u16, Refused> {
        if !self.allow.iter().any(|network| network.contains(client)) {
            return Err(Refused::Network);
        }
        let request: &[u8; HEADER_BYTES] = request.try_into().map_err(|_| Refused::Malformed)?;
        let [session @ .., s0, s1, s2, s3, s4, s5, s6, s7, c0, c1] = request;
        let sequence = u64::from_be_bytes([*s0, *s1, *s2, *s3, *s4, *s5, *s6, *s7]);
        let count = u16::from_be_bytes([*c0, *c1]);
        if count == 0 || count == END_OF_SESSION || sequence == 0 {
            return Err(Refused::Count);
        }
        // From here on it costs something, whether it is answered or not.
        self.limits.take_request(client, now_ns).map_err(|limit| match limit {
            Limit::All => Refused::Overload,
            Limit::Client => Refused::ClientOverload,
        })?;
        let found = self.store.answer(session, sequence, count, self.most_bytes, &mut self.answer);
        let messages = found.map_err(Refused::Missing)?;
        self.limits.take_bytes(client, self.answer.len(), now_ns);
        Ok(messages)
    }

    /// The kernel did not send an answer.
    pub fn not_sent(&mut self) {
        self.counts.answers -= 1;
        self.counts.answered_messages -= u64::from(self.answer_messages);
        self.counts.answered_bytes -= self.answer.len() as u64;
        self.counts.send_errors += 1;
    }

    /// What was counted, and what is retained now.
    #[must_use]
    pub fn counts(&self) -> RetransmissionCounts {
        let Extent { messages, bytes, first, next } = self.store.extent();
        RetransmissionCounts {
            retained_messages: messages,
            retained_bytes: bytes,
            first_sequence: first,
            next_sequence: next,
            ..self.counts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Rates;
    use crate::feed::transport::moldudp64::write_header;

    const SESSION: [u8; 10] = *b"SESSION001";
    const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn responder() -> Responder {
        let rates = Rates { requests_per_second: 1_000, bytes_per_second: 1 << 30 };
        let plan = RetransmissionPlan {
            address: "10.0.0.9:18000".parse().unwrap(),
            retain_bytes: 1 << 20,
            rates: Rates { requests_per_second: 200, ..rates },
            client_rates: Rates { requests_per_second: 100, ..rates },
            allow: vec![Network::new([10, 0, 0, 0].into(), 8).unwrap()],
        };
        let mut responder = Responder::new(&plan, 774);
        responder.retain(&packet(5, 2, b"\0\x03abc\0\0"));
        responder.retain(&packet(7, 1, b"\0\x01d"));
        responder
    }

    fn packet(sequence: u64, count: u16, blocks: &[u8]) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        write_header(&mut header, &SESSION, sequence, count);
        [&header[..], blocks].concat()
    }

    #[test]
    fn a_request_is_answered_by_one_packet_with_the_messages_from_its_number_on() {
        let mut responder = responder();
        let mut ask = |sequence, count| responder.request(NEAR, &packet(sequence, count, b""), 0).map(<[u8]>::to_vec);
        assert_eq!(ask(5, 1), Ok(packet(5, 1, b"\0\x03abc")));
        assert_eq!(ask(6, 9), Ok(packet(6, 2, b"\0\0\0\x01d")));
        let counts = responder.counts();
        assert_eq!((counts.requests, counts.answers, counts.answered_messages), (2, 2, 3));
        assert_eq!(
            (counts.retained, counts.retained_messages, counts.first_sequence, counts.next_sequence),
            (2, 3, 5, 8)
        );
    }

    #[test]
    fn what_is_not_answered_is_counted_by_its_reason() {
        let mut responder = responder();
        let mut other = packet(5, 1, b"");
        other[9] = b'2';
        for (client, request, refused) in [
            (NEAR, b"?".to_vec(), Refused::Malformed),
            (NEAR, vec![], Refused::Malformed),
            (NEAR, packet(5, 1, b"\0"), Refused::Malformed),
            ([11, 0, 0, 1].into(), packet(5, 1, b""), Refused::Network),
            (NEAR, packet(5, 0, b""), Refused::Count),
            (NEAR, packet(5, 0xFFFF, b""), Refused::Count),
            (NEAR, packet(0, 1, b""), Refused::Count),
            (NEAR, other, Refused::Missing(Missing::Session)),
            (NEAR, packet(4, 9, b""), Refused::Missing(Missing::Gone)),
            (NEAR, packet(8, 1, b""), Refused::Missing(Missing::Ahead)),
            (NEAR, packet(u64::MAX, 0xFFFE, b""), Refused::Missing(Missing::Ahead)),
        ] {
            assert_eq!(responder.request(client, &request, 0), Err(refused), "{request:?}");
        }
        // Four of ten requests at once are used up; that of all is 20.
        let mut refusals = |client: [u8; 4], count: usize| -> Vec<Refused> {
            let requests = (0..count).map(|_| responder.request(client.into(), &packet(5, 1, b""), 0).err());
            requests.collect::<Vec<_>>().into_iter().flatten().collect()
        };
        assert_eq!(refusals([10, 0, 0, 1], 8), [Refused::ClientOverload; 2]);
        assert_eq!(refusals([10, 0, 0, 2], 13), [Refused::Overload; 3]);
        let counts = responder.counts();
        let refused = [counts.refused_malformed, counts.refused_network, counts.refused_count, counts.refused_session];
        assert_eq!(refused, [3, 1, 3, 1]);
        let refused =
            [counts.refused_gone, counts.refused_ahead, counts.refused_overload, counts.refused_client_overload];
        assert_eq!(refused, [1, 2, 3, 2]);
        assert_eq!((counts.requests, counts.answers), (32, 16));
    }

    #[test]
    fn an_answer_is_never_as_long_as_a_request() {
        // Two servers that answer each other for ever, from a forged source: an answer is no request.
        let mut responder = responder();
        let answer = responder.request(NEAR, &packet(6, 1, b""), 0).unwrap().to_vec();
        assert_eq!(answer.len(), HEADER_BYTES + 2, "the shortest there is");
        assert_eq!(responder.request(NEAR, &answer, 0), Err(Refused::Malformed));
    }
}

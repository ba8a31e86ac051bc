//! How much is answered: of all clients together, and of each.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::config::plan::{Rates, RetransmissionPlan};

/// What was not used of so much time may come at once, nanoseconds.
const BURST_NS: u64 = 100_000_000;

/// Clients that are told apart at most. Beyond that the one that has used the least is forgotten, and begins anew.
const MOST_CLIENTS: usize = 1024;

const SECOND_NS: u64 = 1_000_000_000;

/// What was used of a rate, as the times up to which it is used up (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    requests_ns: u64,
    bytes_ns: u64,
}

impl Used {
    fn is_left(&self, now_ns: u64) -> bool {
        // Less than a burst's worth ahead: what is taken now is within it.
        self.requests_ns.max(self.bytes_ns) < now_ns + BURST_NS
    }

    fn take_request(&mut self, rates: &Rates, now_ns: u64) {
        let cost_ns = SECOND_NS / u64::from(rates.requests_per_second.max(1));
        self.requests_ns = self.requests_ns.max(now_ns) + cost_ns;
    }

    fn take_bytes(&mut self, rates: &Rates, bytes: usize, now_ns: u64) {
        let cost_ns = bytes as u64 * SECOND_NS / rates.bytes_per_second.max(1);
        self.bytes_ns = self.bytes_ns.max(now_ns) + cost_ns;
    }
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// That of all clients together.
    All,
    /// The client's own.
    Client,
}

/// The limits of one stream. Allocates in [`Limits::new`] and never again.
#[derive(Debug)]
pub struct Limits {
    rates: Rates,
    client_rates: Rates,
    used: Used,
    clients: HashMap<Ipv4Addr, Used>,
}

impl Limits {
    /// With nothing used.
    #[must_use]
    pub fn new(plan: &RetransmissionPlan) -> Self {
        Self {
            rates: plan.rates,
            client_rates: plan.client_rates,
            used: Used::default(),
            clients: HashMap::with_capacity(2 * MOST_CLIENTS),
        }
    }

    /// Takes a request of a client.
    ///
    /// # Errors
    /// Which limit it would go beyond. Then it takes nothing: who is refused by its own limit leaves that of all to others.
    pub fn take_request(&mut self, client: Ipv4Addr, now_ns: u64) -> Result<(), Limit> {
        if !self.used.is_left(now_ns) {
            return Err(Limit::All);
        }
        if self.clients.len() >= MOST_CLIENTS && !self.clients.contains_key(&client) {
            self.forget();
        }
        let used = self.clients.entry(client).or_default();
        if !used.is_left(now_ns) {
            return Err(Limit::Client);
        }
        used.take_request(&self.client_rates, now_ns);
        self.used.take_request(&self.rates, now_ns);
        Ok(())
    }

    /// Takes the answer to the request that was taken before.
    pub fn take_bytes(&mut self, client: Ipv4Addr, bytes: usize, now_ns: u64) {
        self.used.take_bytes(&self.rates, bytes, now_ns);
        if let Some(used) = self.clients.get_mut(&client) {
            used.take_bytes(&self.client_rates, bytes, now_ns);
        }
    }

    fn forget(&mut self) {
        let least = self.clients.iter().min_by_key(|(_, used)| used.requests_ns.max(used.bytes_ns));
        if let Some(client) = least.map(|(client, _)| *client) {
            self.clients.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn limits(all: (u32, u64), client: (u32, u64)) -> Limits {
        let rates = |(requests_per_second, bytes_per_second)| Rates { requests_per_second, bytes_per_second };
        Limits::new(&RetransmissionPlan {
            address: "127.0.0.1:1".parse().unwrap(),
            retain_bytes: 1,
            rates: rates(all),
            client_rates: rates(client),
            allow: Vec::new(),
        })
    }

    /// How many of `count` requests with answers of `bytes` are taken at one time.
    fn taken(limits: &mut Limits, client: Ipv4Addr, bytes: usize, count: usize, now_ns: u64) -> usize {
        let mut take =
            || limits.take_request(client, now_ns).map(|()| limits.take_bytes(client, bytes, now_ns)).is_ok();
        (0..count).filter(|_| take()).count()
    }

    #[test]
    fn a_tenth_of_a_second_s_worth_at_once_and_then_the_rate() {
        let start = 7 * SECOND_NS;
        let mut limits = limits((1_000, 1 << 40), (100, 1 << 40));
        assert_eq!(taken(&mut limits, A, 20, 50, start), 10);
        assert_eq!(limits.take_request(A, start), Err(Limit::Client));
        assert_eq!(taken(&mut limits, A, 20, 50, start + 10 * MS), 1);
        assert_eq!(taken(&mut limits, A, 20, 50, start + 9 * SECOND_NS), 10, "not more for having waited");
        let within = (0..1_000).map(|ms| taken(&mut limits, A, 20, 3, start + 20 * SECOND_NS + ms * MS)).sum::<usize>();
        assert!((109..=111).contains(&within), "{within} in a second at 100 per second");
    }

    #[test]
    fn bytes_count_as_well_and_others_have_their_own() {
        let mut limits = limits((1 << 20, 1 << 40), (1 << 20, 100_000));
        // 10,000 bytes at once; the answer that goes beyond is still sent.
        assert_eq!(taken(&mut limits, A, 1_400, 50, 0), 8);
        assert_eq!(taken(&mut limits, B, 1_400, 50, 0), 8);
        assert_eq!(taken(&mut limits, A, 1_400, 50, 14 * MS), 1);
    }

    #[test]
    fn whoever_asks_too_much_leaves_the_others_their_part() {
        let mut limits = limits((40, 1 << 40), (10, 1 << 40));
        let mut answered = [0; 2];
        for ms in 0..10_000 {
            answered[0] += taken(&mut limits, A, 20, 10, ms * MS);
            answered[1] += if ms % 150 == 0 { taken(&mut limits, B, 20, 1, ms * MS) } else { 0 };
        }
        assert_eq!(answered, [101, 67], "the greedy one its ten per second, the other all of its requests");
    }

    #[test]
    fn all_together_have_a_limit_whatever_their_number() {
        let mut limits = limits((1_000, 1 << 40), (1_000, 1 << 40));
        let room = limits.clients.capacity();
        let mut answered = 0;
        for i in 0..100_000_u32 {
            // A hundred thousand sources within a second, as somebody makes them up.
            answered += taken(&mut limits, Ipv4Addr::from_bits(i), 20, 1, SECOND_NS + u64::from(i) * 10_000);
        }
        assert!((1_090..=1_110).contains(&answered), "{answered}");
        // What was removed may leave its place unusable for a while: less than there was, never more.
        assert!(limits.clients.len() == MOST_CLIENTS && limits.clients.capacity() <= room);
    }
}

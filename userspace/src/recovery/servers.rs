//! Which server to ask: the one that answers, and when it does not, the next one.
#![forbid(unsafe_code)]

/// Longest time that a server is left alone, nanoseconds.
const LONGEST_REST_NS: u64 = 1_000_000_000;

/// The servers of one channel.
#[derive(Clone, Debug)]
pub struct Servers {
    list: Vec<Server>,
    current: usize,
    timeout_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Server {
    /// Failures since its last answer.
    failures: u32,
    /// When the newest was counted: what was asked before says nothing more.
    failed_ns: u64,
    rest_until_ns: u64,
}

impl Servers {
    /// So many servers, the first of which is asked first.
    #[must_use]
    pub fn new(count: usize, timeout_ns: u64) -> Self {
        Self { list: vec![Server::default(); count], current: 0, timeout_ns }
    }

    /// The server to ask now: the one that was asked before unless it is resting, then the next around. `None` = all rest.
    /// The second value tells whether it is another one than before.
    pub fn pick(&mut self, now_ns: u64) -> Option<(usize, bool)> {
        let count = self.list.len();
        let around = (self.current..count).chain(0..self.current);
        let found = around.into_iter().find(|server| self.list[*server].rest_until_ns <= now_ns)?;
        let is_other = found != self.current;
        self.current = found;
        Some((found, is_other))
    }

    /// Goes on to the server after the one that was asked last, whichever of them rests: somebody knows better.
    pub fn advance(&mut self) {
        self.current = (self.current + 1) % self.list.len().max(1);
        self.list.iter_mut().for_each(|server| server.rest_until_ns = 0);
    }

    /// The server answered something that was asked for.
    pub fn answered(&mut self, server: usize) {
        self.list[server] = Server::default();
    }

    /// The server did not answer what it was asked at `asked_ns`. The more often in a row, the longer it rests; where there
    /// is only one, a single lost packet must not cost a rest.
    pub fn failed(&mut self, server: usize, asked_ns: u64, now_ns: u64) {
        let is_only = self.list.len() == 1;
        let server = &mut self.list[server];
        if asked_ns < server.failed_ns {
            return;
        }
        server.failures = server.failures.saturating_add(1);
        server.failed_ns = now_ns;
        let doublings = server.failures.saturating_sub(1 + u32::from(is_only)).min(16);
        let rest_ns = (self.timeout_ns << doublings).min(LONGEST_REST_NS);
        let rests = !(is_only && server.failures == 1);
        server.rest_until_ns = now_ns + if rests { rest_ns } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_next_server_is_asked_and_kept_until_it_fails() {
        let mut servers = Servers::new(3, 10 * MS);
        assert_eq!(servers.pick(0), Some((0, false)));
        servers.failed(0, 0, 10 * MS);
        assert_eq!(servers.pick(10 * MS), Some((1, true)));
        // Its rest is over, and the other one answers: no reason to go back.
        assert_eq!(servers.pick(500 * MS), Some((1, false)));
        servers.failed(1, 500 * MS, 510 * MS);
        servers.failed(2, 500 * MS, 510 * MS);
        assert_eq!(servers.pick(510 * MS), Some((0, true)));
    }

    #[test]
    fn requests_of_one_moment_fail_once() {
        let mut servers = Servers::new(2, 10 * MS);
        for asked in 0..16 {
            servers.failed(0, asked, 10 * MS);
        }
        assert_eq!(servers.list[0].failures, 1);
        servers.failed(1, 0, 10 * MS);
        assert_eq!(servers.pick(20 * MS - 1), None, "both rest for one timeout");
        assert_eq!(servers.pick(20 * MS), Some((0, false)));
    }

    #[test]
    fn rests_double_up_to_a_second_and_an_answer_ends_them() {
        let mut servers = Servers::new(1, 10 * MS);
        let mut now = 0;
        let mut rests = Vec::new();
        for _ in 0..12 {
            servers.failed(0, now, now);
            rests.push((servers.list[0].rest_until_ns - now) / MS);
            now += 2_000 * MS;
        }
        assert_eq!(rests, [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000]);
        servers.answered(0);
        servers.failed(0, now, now);
        assert_eq!(servers.pick(now), Some((0, false)));
    }
}

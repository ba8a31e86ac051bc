//! One connection of a server, from the login to its end.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::packet::{self, Login};
use super::{Shared, TICK, Trouble};

/// Why a connection is over.
enum Over {
    /// As the protocol wants it, or as the trouble does.
    Closed,
    /// The client or the system says so.
    Broken,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    stream: TcpStream,
    rng: ChaCha8Rng,
    trouble: Trouble,
    cuts: u64,
    /// What was read and is not a whole packet yet.
    unread: Vec<u8>,
    heard: Instant,
    said: Instant,
    idle: Duration,
    /// Number of the next message to send, and how many were sent.
    next: u64,
    sent: u64,
    began: Instant,
    generation: u64,
}

pub(super) fn serve(shared: &Shared, stream: TcpStream) {
    let _ = stream.set_nonblocking(true);
    let _ = stream.set_nodelay(true);
    let (number, trouble) = {
        let mut book = shared.book();
        book.counts.connections += 1;
        let trouble = book.troubles.pop_front().unwrap_or(Trouble::None);
        (book.counts.connections, trouble)
    };
    let now = Instant::now();
    let mut connection = Connection {
        shared,
        stream,
        rng: ChaCha8Rng::seed_from_u64(shared.settings.seed ^ number),
        trouble,
        cuts: shared.cuts(),
        unread: Vec::new(),
        heard: now,
        said: now,
        idle: shared.settings.idle,
        next: 0,
        sent: 0,
        began: now,
        generation: 0,
    };
    let _ = connection.run();
}

impl Connection<'_> {
    fn run(&mut self) -> Result<(), Over> {
        let login = self.login()?;
        self.answer(&login)?;
        loop {
            self.listen()?;
            let said = self.data()?;
            self.alive()?;
            if !said {
                std::thread::sleep(TICK);
            }
        }
    }

    /// Ends the connection if the server, the test or the client's silence wants it.
    fn alive(&mut self) -> Result<(), Over> {
        if self.shared.is_over.load(Relaxed) || self.shared.cuts() != self.cuts {
            return Err(Over::Closed);
        }
        if self.heard.elapsed() >= self.idle {
            self.shared.book().counts.idle += 1;
            return Err(Over::Closed);
        }
        if self.trouble != Trouble::Mute && self.said.elapsed() >= self.shared.settings.heartbeat {
            self.write(&packet::packet(b'H', b""))?;
        }
        Ok(())
    }

    fn login(&mut self) -> Result<Login, Over> {
        loop {
            if self.trouble == Trouble::Early {
                self.write(&packet::packet(b'S', b"early"))?;
            }
            for (kind, payload) in self.read()? {
                if kind == b'L'
                    && !matches!(self.trouble, Trouble::Mute | Trouble::NoAnswer)
                    && let Some(login) = packet::login(&payload)
                {
                    return Ok(login);
                }
            }
            self.alive()?;
            std::thread::sleep(TICK);
        }
    }

    fn answer(&mut self, login: &Login) -> Result<(), Over> {
        if let Some(ms) = login.heartbeat_ms {
            self.idle = Duration::from_millis(ms);
        }
        let mut book = self.shared.book();
        book.asked.push((login.session.clone(), login.sequence));
        let is_known = |(user, password): &(String, String)| {
            login.username.eq_ignore_ascii_case(user) && login.password.eq_ignore_ascii_case(password)
        };
        let is_let_in = self.shared.settings.login.as_ref().is_none_or(is_known);
        let session = String::from_utf8_lossy(&book.session).trim().to_owned();
        let next = match login.sequence {
            0 => (book.next() - 1).max(book.first),
            sequence => sequence.max(book.first),
        };
        let reason = match self.trouble {
            Trouble::Reject(reason) => Some(reason),
            _ if !is_let_in => Some(b'A'),
            _ if !login.session.is_empty() && login.session != session => Some(b'S'),
            _ if next > book.next() || (book.has_ended && next == book.next()) => Some(b'S'),
            _ => None,
        };
        let answer = match (reason, self.trouble) {
            (Some(reason), _) => {
                book.counts.rejects += 1;
                packet::packet(b'J', &[reason])
            }
            (None, Trouble::NoNumber) => packet::packet(b'A', &[&book.session[..], b"                 4x2"].concat()),
            (None, _) => {
                book.counts.logins += 1;
                packet::accepted(&book.session, next)
            }
        };
        (self.next, self.generation, self.began) = (next, book.generation, Instant::now());
        drop(book);
        self.write(&answer)?;
        if self.trouble == Trouble::Twice {
            self.write(&answer)?;
        }
        if reason.is_some() { Err(Over::Closed) } else { Ok(()) }
    }

    /// Sends what there is; whether it was anything.
    fn data(&mut self) -> Result<bool, Over> {
        if let Some(after) = self.trouble_after()
            && self.sent >= after
        {
            self.go_wrong()?;
            return Ok(false);
        }
        let mut book = self.shared.book();
        if book.generation != self.generation {
            return Err(Over::Closed);
        }
        let from = usize::try_from(self.next.saturating_sub(book.first)).expect("fits");
        let due = match self.shared.settings.rate {
            0 => u64::MAX,
            rate => (self.began.elapsed().as_micros() as u64).saturating_mul(rate) / 1_000_000,
        };
        let before_trouble = self.trouble_after().map_or(u64::MAX, |after| after - self.sent);
        let most = before_trouble.min(due.saturating_sub(self.sent)).min(256);
        let mut bytes = Vec::new();
        let mut count = 0;
        for message in book.messages.iter().skip(from).take(usize::try_from(most).expect("at most 256")) {
            bytes.extend(packet::packet(b'S', message));
            count += 1;
        }
        book.counts.messages += count;
        self.next += count;
        self.sent += count;
        let has_ended = book.has_ended && self.next == book.next();
        drop(book);
        self.write(&bytes)?;
        if has_ended {
            self.write(&packet::packet(b'Z', b""))?;
            return Err(Over::Closed);
        }
        Ok(count > 0)
    }

    fn trouble_after(&self) -> Option<u64> {
        match self.trouble {
            Trouble::CloseWithin { after }
            | Trouble::Close { after }
            | Trouble::Stall { after }
            | Trouble::Garbage { after }
            | Trouble::Empty { after }
            | Trouble::Flood { after } => Some(after),
            _ => None,
        }
    }

    fn go_wrong(&mut self) -> Result<(), Over> {
        // The next message, if there is one, is what breaks off.
        let message = {
            let book = self.shared.book();
            let index = usize::try_from(self.next.saturating_sub(book.first)).expect("fits");
            let Some(message) = book.messages.get(index) else { return Ok(()) };
            packet::packet(b'S', message)
        };
        let cut = self.rng.random_range(1..message.len());
        match self.trouble {
            Trouble::CloseWithin { .. } => self.write(&message[..cut])?,
            Trouble::Stall { .. } => {
                self.write(&message[..cut])?;
                // Until the client gives up, which closes the connection.
                loop {
                    self.listen()?;
                    if self.shared.is_over.load(Relaxed) || self.shared.cuts() != self.cuts {
                        return Err(Over::Closed);
                    }
                    std::thread::sleep(TICK);
                }
            }
            Trouble::Garbage { .. } => {
                // A length, so that it is certain to be wrong in the end: what follows it is no packet.
                let mut bytes = vec![0; self.rng.random_range(100..2000)];
                self.rng.fill(&mut bytes[..]);
                bytes[..3].copy_from_slice(&[0, 2, b'H']);
                self.write(&bytes)?;
            }
            Trouble::Empty { .. } => self.write(&[0, 0])?,
            Trouble::Flood { .. } => loop {
                let text = vec![b'!'; self.rng.random_range(0..5000)];
                let kind = if self.rng.random() { b'+' } else { b'?' };
                self.write(&packet::packet(kind, &text))?;
                self.listen()?;
                self.alive()?;
            },
            _ => {}
        }
        Err(Over::Closed)
    }

    /// Takes what the client says after its login.
    fn listen(&mut self) -> Result<(), Over> {
        for (kind, _) in self.read()? {
            match kind {
                b'R' => self.shared.book().counts.client_heartbeats += 1,
                b'O' => {
                    self.shared.book().counts.logouts += 1;
                    return Err(Over::Closed);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The whole packets that have come.
    fn read(&mut self) -> Result<Vec<(u8, Vec<u8>)>, Over> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Over::Broken),
            Ok(len) => {
                self.heard = Instant::now();
                self.unread.extend_from_slice(&buffer[..len]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let mut packets = Vec::new();
        while let [a, b, rest @ ..] = &self.unread[..] {
            let length = usize::from(u16::from_be_bytes([*a, *b]));
            let Some((kind, payload)) = rest.get(..length).and_then(|packet| packet.split_first()) else { break };
            packets.push((*kind, payload.to_vec()));
            self.unread.drain(..2 + length);
        }
        Ok(packets)
    }

    /// Writes all of it, in pieces if the settings say so, for as long as nobody wants the connection closed.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Over> {
        while !bytes.is_empty() {
            let len = match self.shared.settings.pieces {
                0 => bytes.len(),
                most => self.rng.random_range(1..=most).min(bytes.len()),
            };
            match self.stream.write(&bytes[..len]) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.said = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The client does not read: what it says meanwhile counts as life.
                    if self.shared.is_over.load(Relaxed) || self.shared.cuts() != self.cuts {
                        return Err(Over::Closed);
                    }
                    std::thread::sleep(TICK);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

//! One channel's connection: made, logged in, read, lost, made again.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::{SocketAddrV4, TcpStream};

use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{Connection, Over};
use super::packer::{MESSAGE_BYTES, Packer};
use super::redial::{Accepted, Redial, RedialSettings};
use crate::config::plan::{Plan, SoupPlan, StartAt};
use crate::feed::Session;
use crate::feed::transport::moldudp64;
use crate::metrics::{SoupCounts, SoupState};
use crate::net::LineIndex;
use crate::net::handoff::Handoff;
use crate::soup::{Client, Event, Login, Timers};

/// Room that the ring must have for one event to be taken: the packet that is open, and one of the event's own.
pub(super) const ROOM: usize = 2;

/// Beyond `give_up_ms`, until the worker has surely seen to it, nanoseconds.
const GRACE_NS: u64 = 250_000_000;

/// How far the connection is.
#[derive(Debug)]
enum State {
    Waiting { until_ns: u64 },
    Connecting { stream: TcpStream, until_ns: u64 },
    Open(Box<Connection>),
    Stopped,
}

/// One channel that comes over TCP.
#[derive(Debug)]
pub struct Link {
    /// Index into `Plan::channels`.
    pub(super) channel: usize,
    /// Index into `Plan::workers`.
    pub(super) worker: usize,
    name: String,
    line: LineIndex,
    plan: SoupPlan,
    login: Login,
    timers: Timers,
    give_up_ns: u64,
    redial: Redial,
    state: State,
    packer: Packer,
    /// Failures since the last login: the first is worth a warning.
    failures: u32,
    counts: SoupCounts,
}

impl Link {
    pub(super) fn new(plan: &Plan, channel: usize, login: Login) -> Self {
        let channel_plan = &plan.channels[channel];
        let soup = channel_plan.soup.clone().expect("a channel over TCP");
        let ms = |ms: u64| ms * 1_000_000;
        let (heartbeat_ns, idle_ns) = (ms(soup.heartbeat_ms), ms(soup.idle_ms));
        let redial = Redial::new(RedialSettings {
            servers: soup.servers.len(),
            session: soup.session,
            start: match channel_plan.start {
                // The configuration refuses a snapshot beside a stream that can be replayed.
                StartAt::Now | StartAt::Snapshot { .. } => 0,
                StartAt::First => 1,
            },
            first_ns: ms(soup.reconnect_ms),
            most_ns: ms(soup.reconnect_max_ms),
        });
        Self {
            channel,
            worker: channel_plan.worker,
            name: channel_plan.name.clone(),
            line: plan.soup_line(channel),
            plan: soup,
            login,
            timers: Timers { heartbeat_ns, idle_ns, login_ns: idle_ns },
            give_up_ns: ms(channel_plan.give_up_ms),
            redial,
            state: State::Waiting { until_ns: 0 },
            packer: Packer::default(),
            failures: 0,
            counts: SoupCounts::default(),
        }
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn cycle(&mut self, out: &mut Handoff, now_ns: u64) {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Waiting { until_ns } if now_ns >= until_ns => self.connect(now_ns),
            State::Connecting { stream, until_ns } => self.look(stream, until_ns, now_ns),
            State::Open(connection) => self.go_on(connection, out, now_ns),
            state => self.state = state,
        }
    }

    fn server(&self) -> SocketAddrV4 {
        self.plan.servers[self.redial.server()]
    }

    fn connect(&mut self, now_ns: u64) {
        let server = self.server();
        let open = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            if let Some(source) = self.plan.source {
                socket.bind(&SocketAddrV4::new(source, 0).into())?;
            }
            match socket.connect(&server.into()) {
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
                _ => Ok(socket.into()),
            }
        };
        match open() {
            Ok(stream) => self.state = State::Connecting { stream, until_ns: now_ns + self.timers.login_ns },
            Err(error) => self.not_connected(&error, now_ns),
        }
    }

    /// Whether the connection has come about.
    fn look(&mut self, stream: TcpStream, until_ns: u64, now_ns: u64) {
        match stream.take_error().and_then(|error| error.map_or_else(|| stream.peer_addr(), Err)) {
            Ok(_) => {
                let (session, sequence) = self.redial.ask();
                let login = self.login.from(session, sequence);
                let client = Client::new(&login, self.plan.version, self.timers, now_ns);
                self.counts.connections += 1;
                self.state = State::Open(Box::new(Connection::new(stream, client)));
            }
            Err(error) if error.kind() == ErrorKind::NotConnected && now_ns < until_ns => {
                self.state = State::Connecting { stream, until_ns };
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => self.not_connected(&"no answer in time", now_ns),
            Err(error) => self.not_connected(&error, now_ns),
        }
    }

    fn not_connected(&mut self, why: &dyn Display, now_ns: u64) {
        self.counts.connect_errors += 1;
        self.leave(&format_args!("cannot connect: {why}"), now_ns);
    }

    /// One round of an open connection: write, read once, take what there is.
    fn go_on(&mut self, mut connection: Box<Connection>, out: &mut Handoff, now_ns: u64) {
        let over = self.round(&mut connection, out, now_ns);
        self.count(&mut connection);
        match over {
            Ok(()) => self.state = State::Open(connection),
            Err(over) => self.part(connection, over, now_ns),
        }
    }

    fn round(&mut self, connection: &mut Connection, out: &mut Handoff, now_ns: u64) -> Result<(), Over> {
        connection.write(now_ns);
        self.take_events(connection, out, now_ns)?;
        if connection.is_listening() && !connection.is_at_end {
            connection.read(now_ns)?;
            self.take_events(connection, out, now_ns)?;
        }
        if connection.is_listening() && connection.is_at_end {
            return Err(Over::Closed);
        }
        if !connection.is_listening() {
            self.counts.full += u64::from(connection.has_unread);
            connection.client.not_read(now_ns);
        }
        connection.client.poll(now_ns);
        self.take_events(connection, out, now_ns)?;
        connection.write(now_ns);
        Ok(())
    }

    /// Takes events for as long as the ring has room for what they become.
    fn take_events(&mut self, connection: &mut Connection, out: &mut Handoff, now_ns: u64) -> Result<(), Over> {
        let mut over = Ok(());
        connection.has_unread = false;
        connection.pause_ns = connection.pause_ns.filter(|pause_ns| now_ns < *pause_ns);
        while over.is_ok() && connection.pause_ns.is_none() {
            if out.room() < ROOM {
                connection.has_unread = true;
                break;
            }
            let Some(event) = connection.client.next() else { break };
            match event {
                Event::Message { sequence, bytes } => {
                    connection.pause_ns = self.message(sequence, bytes, out, now_ns);
                    self.redial.progress(sequence + 1);
                }
                Event::LoggedIn { session, next } => match self.logged_in(session, next, out, now_ns) {
                    Ok(pause_ns) => (connection.is_logged_in, connection.pause_ns) = (true, pause_ns),
                    Err(old) => over = Err(old),
                },
                Event::Heartbeat if connection.is_logged_in => {
                    let next = connection.client.next_sequence();
                    self.tell(next, moldudp64::HEARTBEAT, out, now_ns);
                    self.redial.progress(next);
                }
                Event::Heartbeat | Event::Unsequenced(_) => {}
                Event::EndOfSession { next } => {
                    self.tell(next, moldudp64::END_OF_SESSION, out, now_ns);
                    tracing::info!(channel = self.name, session = %text(self.redial.session()), next, "end of session");
                    self.redial.ended();
                    over = Err(Over::Ended);
                }
                Event::Rejected(reason) => over = Err(Over::Rejected(reason)),
                Event::Failed(error) => over = Err(Over::Failed(error)),
            }
        }
        self.flush(out, now_ns);
        over
    }

    /// Puts a message into the open packet. Returns until when to wait if it does not fit any, and is lost.
    fn message(&mut self, sequence: u64, bytes: &[u8], out: &mut Handoff, now_ns: u64) -> Option<u64> {
        if bytes.len() > MESSAGE_BYTES {
            self.counts.oversized += 1;
            if self.counts.oversized == 1 {
                let bytes = bytes.len();
                tracing::warn!(channel = self.name, sequence, bytes, "a message too long for a packet is lost");
            }
            self.tell(sequence + 1, moldudp64::HEARTBEAT, out, now_ns);
            return Some(now_ns + self.give_up_ns + GRACE_NS);
        }
        if !self.packer.push(sequence, bytes) {
            self.flush(out, now_ns);
            assert!(self.packer.push(sequence, bytes), "an empty packet has room");
        }
        None
    }

    /// A login holds; returns until when to wait for what is missing to be given up.
    fn logged_in(&mut self, session: Session, next: u64, out: &mut Handoff, now_ns: u64) -> Result<Option<u64>, Over> {
        let accepted = self.redial.accepted(session, next);
        if accepted == Accepted::Over {
            return Err(Over::OldSession);
        }
        self.counts.logins += 1;
        self.failures = 0;
        let (channel, server, session_text) = (&self.name, self.server(), text(Some(session)));
        tracing::info!(channel, %server, session = %session_text, next, "logged in");
        let mut pause_ns = None;
        match accepted {
            Accepted::Gap { from, to } => {
                self.counts.gaps += 1;
                tracing::warn!(channel, %server, session = %session_text, from, to, "the server begins later: these are lost");
                pause_ns = Some(now_ns + self.give_up_ns + GRACE_NS);
            }
            Accepted::Earlier { asked } => {
                tracing::warn!(channel, %server, session = %session_text, next, asked, "the server begins earlier");
            }
            Accepted::Begun | Accepted::Resumed | Accepted::Over => {}
        }
        self.tell(next, moldudp64::HEARTBEAT, out, now_ns);
        Ok(pause_ns)
    }

    /// Hands over the packet that is open.
    fn flush(&mut self, out: &mut Handoff, now_ns: u64) {
        let Some(session) = self.redial.session() else { return };
        let line = self.line;
        self.packer.take(&session, |payload| assert!(out.hand(line, payload, now_ns), "there is room"));
    }

    /// Hands over a packet without messages, behind the one that is open.
    fn tell(&mut self, next: u64, count: u16, out: &mut Handoff, now_ns: u64) {
        self.flush(out, now_ns);
        let Some(session) = self.redial.session() else { return };
        let mut packet = [0; moldudp64::HEADER_BYTES];
        moldudp64::write_header(&mut packet, &session, next, count);
        assert!(out.hand(self.line, &packet, now_ns), "there is room");
    }

    /// Adds what the client has counted since the last time.
    fn count(&mut self, connection: &mut Connection) {
        let (now, before) = (connection.client.counts(), connection.counted);
        let counts = &mut self.counts;
        counts.bytes += now.bytes - before.bytes;
        counts.messages += now.messages - before.messages;
        counts.unsequenced += now.unsequenced - before.unsequenced;
        counts.heartbeats += now.heartbeats - before.heartbeats;
        counts.skipped += now.debug + now.unknown - before.debug - before.unknown;
        connection.counted = now;
    }

    /// The end of a connection.
    fn part(&mut self, mut connection: Box<Connection>, over: Over, now_ns: u64) {
        match over {
            Over::Rejected(reason) => {
                self.counts.rejects += 1;
                self.redial.rejected(reason);
            }
            Over::Failed(_) => self.counts.protocol_errors += 1,
            Over::OldSession => {
                self.counts.old_sessions += 1;
                connection.log_out(now_ns);
            }
            Over::Ended => {
                connection.log_out(now_ns);
                self.wait_again(now_ns);
                return;
            }
            Over::Closed | Over::Broken(_) => {}
        }
        if connection.is_logged_in {
            self.counts.disconnects += 1;
        }
        self.leave(&over, now_ns);
    }

    /// Waits for its next turn, or stops for good; and says why, the first time.
    fn leave(&mut self, why: &dyn Display, now_ns: u64) {
        let (channel, server) = (self.name.clone(), self.server());
        if !self.wait_again(now_ns) {
            tracing::error!(
                channel,
                %server,
                "{why}: nothing is received any more until a restart; mend username and password"
            );
        } else if self.failures == 0 && !self.redial.is_between_sessions() {
            tracing::warn!(channel, %server, "{why}; trying again");
        } else {
            tracing::debug!(channel, %server, failures = self.failures, "{why}; trying again");
        }
        self.failures = self.failures.saturating_add(1);
    }

    fn wait_again(&mut self, now_ns: u64) -> bool {
        let until_ns = self.redial.again(now_ns);
        self.state = until_ns.map_or(State::Stopped, |until_ns| State::Waiting { until_ns });
        until_ns.is_some()
    }

    /// Says goodbye, as far as the socket takes it.
    pub(super) fn log_out(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.log_out(0);
        }
    }

    /// Whether events wait for room in the ring.
    pub(super) fn has_unread(&self) -> bool {
        matches!(&self.state, State::Open(connection) if connection.has_unread)
    }

    /// When the next cycle is due at the latest, if nothing happens.
    pub(super) fn due_ns(&self) -> u64 {
        match &self.state {
            State::Waiting { until_ns } | State::Connecting { until_ns, .. } => *until_ns,
            State::Open(connection) => connection.client.due_ns().min(connection.pause_ns.unwrap_or(u64::MAX)),
            State::Stopped => u64::MAX,
        }
    }

    /// What to wait for.
    pub(super) fn poll_fd(&self, has_room: bool) -> Option<PollFd<'_>> {
        match &self.state {
            State::Connecting { stream, .. } => Some(PollFd::new(stream, PollFlags::OUT)),
            State::Open(connection) => {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, has_room && !connection.is_at_end && connection.pause_ns.is_none());
                flags.set(PollFlags::OUT, !connection.client.outgoing().is_empty());
                // A closed socket is reported whatever is asked for: better not to ask.
                (!flags.is_empty()).then(|| PollFd::new(&connection.stream, flags))
            }
            State::Waiting { .. } | State::Stopped => None,
        }
    }

    /// The counters now.
    pub(super) fn counts(&self) -> SoupCounts {
        let state = match &self.state {
            State::Stopped => SoupState::Stopped,
            State::Open(connection) if connection.is_logged_in => SoupState::LoggedIn,
            _ if self.redial.is_between_sessions() => SoupState::Ended,
            State::Waiting { .. } => SoupState::Waiting,
            State::Connecting { .. } | State::Open(_) => SoupState::Connecting,
        };
        SoupCounts { state: state as u64, ..self.counts }
    }
}

fn text(session: Option<Session>) -> String {
    session.map_or_else(String::new, |session| String::from_utf8_lossy(&session).trim().to_owned())
}

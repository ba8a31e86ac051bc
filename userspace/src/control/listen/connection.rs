//! A connection that is not waited for longer than it deserves.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::control::access::credentials::Origin;
use crate::control::access::places::{Door, Place};
use crate::control::locked;

/// An HTTP/2 client begins with so many bytes (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Until they must have come.
const PREFACE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a write may wait for the other end to read.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// How long a connection may be open without a call.
const IDLE_PATIENCE: Duration = Duration::from_secs(600);
/// How long one from outside, until a first call is let through: nobody is known before that.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long one that is only told that there are too many.
const TOLD_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks at all that.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of a connection, for every call on it.
#[derive(Debug)]
pub(in crate::control) struct Caller {
    pub(in crate::control) origin: Origin,
    pub(in crate::control) door: Door,
    /// There are too many connections, and that is all that this one is told.
    pub(in crate::control) is_surplus: bool,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
struct Calls {
    next: u64,
    /// Open ones, and when each must be over: never, for streams.
    open: BTreeMap<u64, Option<Instant>>,
    /// When the last one began or ended.
    changed: Instant,
}

impl Caller {
    pub(in crate::control) fn new(origin: Origin, door: Door, is_surplus: bool) -> Arc<Self> {
        let calls = Calls { next: 0, open: BTreeMap::new(), changed: Instant::now() };
        Arc::new(Self { origin, door, is_surplus, calls: Mutex::new(calls) })
    }

    /// Notes a call; it is over when what is returned is dropped.
    pub(in crate::control) fn call(self: &Arc<Self>, until: Option<Instant>) -> OpenCall {
        let mut calls = locked(&self.calls);
        let number = calls.next;
        calls.next += 1;
        calls.open.insert(number, until);
        calls.changed = Instant::now();
        OpenCall { caller: Arc::clone(self), number }
    }

    /// Why the connection has to end; `None`: it does not.
    fn is_over(&self, now: Instant) -> Option<&'static str> {
        let calls = locked(&self.calls);
        if calls.open.is_empty() && now.duration_since(calls.changed) > IDLE_PATIENCE {
            return Some("no call for a long time");
        }
        // Calls that were refused are not counted.
        let is_stranger = calls.next == 0 && matches!(self.door, Door::Remote(_));
        if is_stranger && now.duration_since(calls.changed) > FIRST_PATIENCE {
            return Some("no call that was let through");
        }
        let is_late = calls.open.values().flatten().any(|until| *until < now);
        is_late.then_some("the answer of a call is not taken")
    }
}

/// A call that is under way.
#[derive(Debug)]
pub(in crate::control) struct OpenCall {
    caller: Arc<Caller>,
    number: u64,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = locked(&self.caller.calls);
        calls.open.remove(&self.number);
        calls.changed = Instant::now();
    }
}

/// What it runs over.
#[derive(Debug)]
pub(super) enum Io {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An accepted connection. It ends itself when the other end keeps it waiting.
#[derive(Debug)]
pub(in crate::control) struct Connection {
    io: Io,
    caller: Arc<Caller>,
    /// Bytes of the client's first that have not come.
    preface_left: usize,
    since: Instant,
    write_waits_since: Option<Instant>,
    look: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    pub(super) fn new(io: Io, caller: Arc<Caller>, place: Place) -> Self {
        Self {
            io,
            caller,
            preface_left: PREFACE_BYTES,
            since: Instant::now(),
            write_waits_since: None,
            look: Box::pin(sleep(LOOK_INTERVAL)),
            _place: place,
        }
    }

    /// Fails once the other end has been waited for long enough.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.look.as_mut().reset(now + LOOK_INTERVAL);
            let age = now.duration_since(self.since);
            let why = if self.preface_left > 0 && age > PREFACE_PATIENCE {
                Some("no HTTP/2 preface")
            } else if self.caller.is_surplus && age > TOLD_PATIENCE {
                Some("too many connections")
            } else if self.write_waits_since.is_some_and(|since| now.duration_since(since) > WRITE_PATIENCE) {
                Some("nothing is read")
            } else {
                self.caller.is_over(now)
            };
            if let Some(why) = why {
                tracing::debug!(from = ?self.caller.origin, why, "connection closed");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
        Ok(())
    }

    fn note_write<T>(&mut self, result: Poll<T>) -> Poll<T> {
        match result {
            Poll::Ready(_) => self.write_waits_since = None,
            Poll::Pending => {
                self.write_waits_since.get_or_insert_with(Instant::now);
            }
        }
        result
    }
}

/// Calls the same method of whatever it runs over.
macro_rules! of_io {
    ($connection:expr, $method:ident $(, $argument:expr)*) => {
        match &mut $connection.io {
            Io::Unix(io) => Pin::new(io).$method($($argument),*),
            Io::Tcp(io) => Pin::new(io).$method($($argument),*),
            Io::Tls(io) => Pin::new(&mut **io).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        ready!(of_io!(self, poll_read, cx, buffer))?;
        self.preface_left = self.preface_left.saturating_sub(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let result = of_io!(self, poll_write, cx, bytes);
        self.note_write(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let result = of_io!(self, poll_flush, cx);
        self.note_write(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let result = of_io!(self, poll_shutdown, cx);
        self.note_write(result)
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Arc<Caller> {
        Arc::clone(&self.caller)
    }
}

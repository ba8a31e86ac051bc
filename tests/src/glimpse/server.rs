//! A GLIMPSE server: gives every client that logs in the same snapshot, or does not as it should.
//!
//! Source: Nasdaq, *SoupBinTCP*, version 3.00, as far as a snapshot needs it. Real sockets and threads.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::soup::acceptor::Acceptor;
use crate::soup::packet::{self, Session, accepted, packet};

/// How often a connection's thread looks whether the server is over.
const TICK: Duration = Duration::from_millis(5);

/// Bytes of a Login Request.
const LOGIN_BYTES: usize = 49;

/// What a server does with a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// Sends the snapshot.
    Honest,
    /// Sends it in pieces of so many bytes.
    Pieces(usize),
    /// Closes after this share (0–1) of its bytes, wherever that is.
    BreakOff(f64),
    /// Sends this share of it and then nothing any more, not even a heartbeat.
    Stall(f64),
    /// Sends this share of it and then heartbeats only.
    Idle(f64),
    /// Sends a message of it at a time, so far apart.
    Trickle(Duration),
    /// Sends this and nothing else.
    Say(Vec<u8>),
    /// Answers the login, and then sends packets of no known type without end.
    Flood,
}

/// What is served.
#[derive(Debug)]
struct Content {
    session: Session,
    messages: Vec<Vec<u8>>,
    /// For the next connections, the last first; then honest.
    manners: Vec<Manner>,
    logins: Vec<Vec<u8>>,
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct GlimpseServer {
    content: Arc<Mutex<Content>>,
    connections: Arc<AtomicU64>,
    acceptor: Acceptor,
}

impl GlimpseServer {
    /// Starts a server in the calling thread's network namespace that serves these messages. Port 0 takes any.
    ///
    /// # Errors
    /// If the address is not to be had.
    pub fn start(address: SocketAddrV4, session: &str, messages: Vec<Vec<u8>>) -> Result<Self> {
        let (manners, logins) = (Vec::new(), Vec::new());
        let content = Content { session: packet::session(session), messages, manners, logins };
        let content = Arc::new(Mutex::new(content));
        let (connections, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (served, counted, told) = (Arc::clone(&content), Arc::clone(&connections), Arc::clone(&is_over));
        let acceptor = Acceptor::start(address, is_over, move |stream| {
            counted.fetch_add(1, Relaxed);
            // However a client leaves: the next one is served.
            drop(serve(stream, &served, &told));
        })?;
        Ok(Self { content, connections, acceptor })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.acceptor.address()
    }

    /// What it does with the next connections; with those after them it is honest.
    pub fn behave(&self, manners: impl IntoIterator<Item = Manner>) {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.manners = manners.into_iter().collect();
        content.manners.reverse();
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// The Login Requests so far.
    #[must_use]
    pub fn logins(&self) -> Vec<Vec<u8>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).logins.clone()
    }
}

fn serve(mut stream: TcpStream, content: &Mutex<Content>, is_over: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let mut login = vec![0; LOGIN_BYTES];
    let mut got = 0;
    while got < LOGIN_BYTES {
        if is_over.load(Relaxed) {
            return Ok(());
        }
        match stream.read(&mut login[got..]) {
            Ok(0) => return Ok(()),
            Ok(bytes) => got += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    let (manner, answer, messages) = {
        let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
        content.logins.push(login);
        let manner = content.manners.pop().unwrap_or(Manner::Honest);
        (manner, accepted(&content.session, 1), content.messages.clone())
    };
    let data: Vec<Vec<u8>> = messages.iter().map(|message| packet(b'S', message)).collect();
    let whole = || [answer.clone(), data.concat()].concat();
    let share = |share: f64| {
        let mut bytes = whole();
        bytes.truncate((bytes.len() as f64 * share) as usize);
        bytes
    };
    let mut heartbeats = false;
    match manner {
        Manner::Honest => stream.write_all(&whole())?,
        Manner::Pieces(bytes) => whole().chunks(bytes).try_for_each(|piece| stream.write_all(piece))?,
        Manner::BreakOff(part) => return stream.write_all(&share(part)),
        Manner::Stall(part) => stream.write_all(&share(part))?,
        Manner::Idle(part) => {
            // At the end of a packet: what follows is whole.
            let packets = (data.len() as f64 * part) as usize;
            stream.write_all(&[answer, data[..packets].concat()].concat())?;
            heartbeats = true;
        }
        Manner::Trickle(apart) => {
            stream.write_all(&answer)?;
            for message in data {
                stream.write_all(&message)?;
                std::thread::sleep(apart);
                if is_over.load(Relaxed) {
                    return Ok(());
                }
            }
        }
        Manner::Say(bytes) => stream.write_all(&bytes)?,
        Manner::Flood => {
            stream.write_all(&answer)?;
            let nonsense = [packet(b'?', &[b'!'; 900]), packet(b'+', b"debug"), packet(b'U', b"x")].concat();
            while !is_over.load(Relaxed) {
                stream.write_all(&nonsense)?;
            }
        }
    }
    hold(&mut stream, heartbeats, is_over)
}

/// Keeps the connection open until the client closes it.
fn hold(stream: &mut TcpStream, heartbeats: bool, is_over: &AtomicBool) -> io::Result<()> {
    let mut said = Instant::now();
    while !is_over.load(Relaxed) {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        if heartbeats && said.elapsed() > Duration::from_millis(100) {
            said = Instant::now();
            stream.write_all(&packet(b'H', b""))?;
        }
    }
    Ok(())
}

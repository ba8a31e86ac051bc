//! From listening sockets to connections: places are taken, handshakes are made, and nobody waits for anybody.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::net;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use super::connection::{Caller, Connection, Io};
use crate::control::Desk;
use crate::control::access::credentials::{self, Origin};
use crate::control::access::places::{Door, Place};

/// How long a TLS handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that was refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// Connections for which the server has not had time.
const BACKLOG: usize = 64;
/// Handshakes begun in a second at most: each takes a good part of a millisecond of a core. More wait in the kernel.
const HANDSHAKES_PER_SECOND: usize = 200;
/// So many of them from one address; what is more waits for the next second.
const HANDSHAKES_OF_ONE: usize = 140;
/// After an accept that failed (no more open files, mostly).
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Connections of all addresses, ready for HTTP/2. Accepts until dropped.
#[derive(Debug)]
pub(in crate::control) struct Incoming {
    ready: mpsc::Receiver<Connection>,
    give: mpsc::Sender<Connection>,
    desk: Arc<Desk>,
    accepting: JoinSet<()>,
}

impl Stream for Incoming {
    type Item = Result<Connection, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl Incoming {
    pub(in crate::control) fn new(desk: Arc<Desk>) -> Self {
        let (give, ready) = mpsc::channel(BACKLOG);
        Self { ready, give, desk, accepting: JoinSet::new() }
    }

    pub(in crate::control) fn unix(&mut self, listener: UnixListener) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (desk, give) = (Arc::clone(&self.desk), self.give.clone());
        self.accepting.spawn(async move {
            loop {
                let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
                let origin = Origin::Local(peer(&stream));
                take(&desk, &give, Io::Unix(stream), origin).await;
            }
        });
        Ok(())
    }

    pub(in crate::control) fn plain(&mut self, listener: net::TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (desk, give) = (Arc::clone(&self.desk), self.give.clone());
        self.accepting.spawn(async move {
            loop {
                let Some((stream, address)) = accepted(listener.accept().await).await else { continue };
                let _ = stream.set_nodelay(true);
                take(&desk, &give, Io::Tcp(stream), Origin::Plain(address.to_string())).await;
            }
        });
        Ok(())
    }

    pub(in crate::control) fn tls(&mut self, listener: net::TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (desk, give) = (Arc::clone(&self.desk), self.give.clone());
        self.accepting.spawn(async move {
            // Those that are under way end with us.
            let mut handshakes = JoinSet::new();
            let mut second = Instant::now() + Duration::from_secs(1);
            // Who began one within it.
            let mut begun = Vec::with_capacity(HANDSHAKES_PER_SECOND);
            loop {
                let Some((stream, address)) = accepted(listener.accept().await).await else { continue };
                while handshakes.try_join_next().is_some() {}
                let door = Door::remote(address.ip());
                // First: who is closed without a word costs nothing, and delays nobody.
                let (place, is_surplus) = match desk.access.places.connection(door) {
                    Ok(place) => (place, false),
                    Err(Some(place)) => (place, true),
                    Err(None) => continue,
                };
                if begun.len() >= HANDSHAKES_PER_SECOND {
                    sleep_until(second).await;
                }
                if Instant::now() >= second {
                    second = Instant::now() + Duration::from_secs(1);
                    begun.clear();
                }
                // Who comes too often waits, in a place of its own, and takes nobody's turn.
                let is_frequent = begun.iter().filter(|one| **one == door).count() >= HANDSHAKES_OF_ONE;
                if !is_frequent {
                    begun.push(door);
                }
                let from = is_frequent.then_some(second);
                let (desk, give) = (Arc::clone(&desk), give.clone());
                handshakes.spawn(async move {
                    if let Some(from) = from {
                        sleep_until(from).await;
                    }
                    handshake(desk, give, stream, address, place, is_surplus).await;
                });
            }
        });
        Ok(())
    }
}

async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::debug!(%error, "a connection could not be accepted");
            sleep(RETRY_INTERVAL).await;
            None
        }
    }
}

/// A connection of this host.
async fn take(desk: &Desk, give: &mpsc::Sender<Connection>, io: Io, origin: Origin) {
    let (place, is_surplus) = match desk.access.places.connection(Door::Local) {
        Ok(place) => (place, false),
        Err(Some(place)) => (place, true),
        Err(None) => return,
    };
    // An error says that the server ends.
    let _ = give.send(Connection::new(io, Caller::new(origin, Door::Local, is_surplus), place)).await;
}

async fn handshake(
    desk: Arc<Desk>,
    give: mpsc::Sender<Connection>,
    stream: TcpStream,
    address: net::SocketAddr,
    place: Place,
    is_surplus: bool,
) {
    let Some(config) = desk.access.credentials().tls() else { return };
    let _ = stream.set_nodelay(true);
    let made = timeout(HANDSHAKE_PATIENCE, TlsAcceptor::from(config).accept(stream).into_fallible()).await;
    let mut lingering = None;
    let reason = match made {
        Ok(Ok(stream)) => {
            let names = credentials::names(stream.get_ref().1.peer_certificates());
            let door = Door::remote(address.ip());
            let caller = Caller::new(Origin::Tls(address.to_string(), names), door, is_surplus);
            let _ = give.send(Connection::new(Io::Tls(Box::new(stream)), caller, place)).await;
            return;
        }
        Ok(Err((error, stream))) => {
            lingering = Some(stream);
            error.to_string()
        }
        Err(_) => format!("not over within {} s", HANDSHAKE_PATIENCE.as_secs()),
    };
    desk.access.counts.handshakes_failed.fetch_add(1, Relaxed);
    if desk.access.may_log() {
        tracing::warn!(%address, reason, "TLS handshake failed");
    }
    if let Some(stream) = lingering {
        let _ = timeout(LINGER, linger(stream)).await;
    }
}

/// Takes what the client still sends: closed at once, it would be told of a broken connection and not why.
async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut waste = [0; 1024];
    while stream.read(&mut waste).await.is_ok_and(|count| count > 0) {}
}

/// Who is at the other end, as the kernel says.
fn peer(stream: &UnixStream) -> String {
    let Ok(peer) = stream.peer_cred() else { return "unknown".to_owned() };
    let process = peer.pid().map(|pid| format!(", pid {pid}")).unwrap_or_default();
    format!("uid {}{process}", peer.uid())
}

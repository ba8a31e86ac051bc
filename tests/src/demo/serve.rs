//! The exchange's retransmission servers: a thread each, with a kernel socket.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::day::{Day, DaySettings};
use crate::retransmission::{RetransmissionServer, ServerCounts, ServerSettings};
use crate::testbed::Network;

/// UDP port of every server.
pub(crate) const PORT: u16 = 18_000;

/// How often a server looks whether it is over.
const TICK: Duration = Duration::from_millis(20);

/// Where the servers are: one on each line's network, on the exchange's own address.
pub(crate) fn addresses(network: &Network) -> Vec<SocketAddrV4> {
    let mut addresses: Vec<Ipv4Addr> = network.line_sources.values().copied().collect();
    addresses.sort_unstable();
    addresses.into_iter().map(|address| SocketAddrV4::new(address, PORT)).collect()
}

/// Their sockets.
pub(crate) fn sockets(network: &Network) -> Result<Vec<UdpSocket>> {
    addresses(network).into_iter().map(|address| network.server_socket(address)).collect()
}

/// The running servers; they end when dropped.
pub(crate) struct Servers {
    threads: Vec<JoinHandle<ServerCounts>>,
    is_over: Arc<AtomicBool>,
}

impl Servers {
    /// Starts a server per socket. `sent` is how many messages of the day have been sent.
    pub(crate) fn start(
        sockets: impl IntoIterator<Item = UdpSocket>,
        settings: &[ServerSettings],
        day: &DaySettings,
        sent: &Arc<AtomicU64>,
    ) -> Result<Self> {
        let is_over = Arc::<AtomicBool>::default();
        let mut servers = Self { threads: Vec::new(), is_over: Arc::clone(&is_over) };
        for (socket, settings) in sockets.into_iter().zip(settings) {
            socket.set_read_timeout(Some(TICK)).context("read timeout of a server")?;
            let server = RetransmissionServer::new(settings.clone(), Day::new(day));
            let (sent, is_over) = (Arc::clone(sent), Arc::clone(&is_over));
            let spawn = std::thread::Builder::new().name("retransmission".to_owned());
            let thread = spawn.spawn(move || serve(server, &socket, &sent, &is_over));
            servers.threads.push(thread.context("thread of a server")?);
        }
        Ok(servers)
    }

    /// Ends the servers; what each did.
    pub(crate) fn finish(mut self) -> Vec<ServerCounts> {
        self.is_over.store(true, Relaxed);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

/// Answers at once: the network has its own delays.
fn serve(
    mut server: RetransmissionServer<Day>,
    socket: &UdpSocket,
    sent: &AtomicU64,
    is_over: &AtomicBool,
) -> ServerCounts {
    let start = Instant::now();
    let mut request = [0; 64];
    while !is_over.load(Relaxed) {
        match socket.recv_from(&mut request) {
            Ok((len, client)) => {
                server.advance(sent.load(Relaxed) + 1);
                let now_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                for (_, answer) in server.request(&request[..len], now_ns) {
                    // A client that is gone misses nothing.
                    let _ = socket.send_to(&answer, client);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // An answer that nobody took any more.
            Err(_) => {}
        }
    }
    server.counts()
}

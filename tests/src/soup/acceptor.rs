//! The listening end of the servers that speak SoupBinTCP: a thread that accepts, and one per connection.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often it looks whether it is over.
const TICK: Duration = Duration::from_millis(5);

/// Accepts until it is dropped, which waits for the connections' threads.
#[derive(Debug)]
pub struct Acceptor {
    address: SocketAddrV4,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Listens in the calling thread's network namespace; port 0 takes any. Each connection is served on a thread of its own,
    /// which ends soon after `is_over` is true.
    ///
    /// # Errors
    /// If the address is not to be had.
    pub fn start(
        address: SocketAddrV4,
        is_over: Arc<AtomicBool>,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let SocketAddr::V4(address) = listener.local_addr()? else { unreachable!("bound to IPv4") };
        let (serve, told) = (Arc::new(serve), Arc::clone(&is_over));
        let accept = move || {
            let mut open: Vec<JoinHandle<()>> = Vec::new();
            while !told.load(Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(TICK);
                    continue;
                };
                let serve = Arc::clone(&serve);
                open.retain(|thread| !thread.is_finished());
                open.push(std::thread::spawn(move || serve(stream)));
            }
            open.into_iter().for_each(|thread| drop(thread.join()));
        };
        // Threads inherit the network namespace of the one that makes them.
        let thread = std::thread::Builder::new().name("soup-accept".to_owned()).spawn(accept)?;
        Ok(Self { address, is_over, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

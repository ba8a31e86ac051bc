//! The consumer: stamps what arrives and puts it aside; it is read when the run is over.
#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use crate::bench::stream::SESSION;
use crate::consumer::Receiver;
use crate::mold;
use crate::records::Record;

/// Where the count of a MoldUDP64 header lies.
const COUNT: std::ops::Range<usize> = 18..20;

/// A received payload's place in the log and its times.
#[derive(Clone, Copy, Debug)]
struct Logged {
    end: usize,
    /// The kernel's receive stamp, CLOCK_REALTIME.
    kernel_utc_ns: u64,
    /// After the receive call, CLOCK_MONOTONIC.
    received_ns: u64,
}

/// One message's times at the consumer, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The record's `ts_recv`: kernel entry at the handler's host, UTC. `None`: the message's records have none.
    pub(super) entry_utc_ns: Option<u64>,
    /// The consumer's kernel's receive stamp, UTC.
    pub(super) kernel_utc_ns: u64,
    /// After the receive call, CLOCK_MONOTONIC.
    pub(super) received_ns: u64,
}

/// What arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    /// By message, from 1 on; `None` = lost.
    pub(super) messages: Vec<Option<Arrival>>,
    /// Messages that came again.
    pub(super) doubled: u64,
}

/// The consumer's socket and its log.
pub(super) struct Log {
    receiver: Receiver,
    payload: Vec<u8>,
    control: Vec<u8>,
    bytes: Vec<u8>,
    logged: Vec<Logged>,
    message_count: u64,
}

impl Log {
    /// Prepares for about `count` messages.
    pub(super) fn new(receiver: Receiver, count: usize) -> Result<Self> {
        receiver.socket().set_nonblocking(true)?;
        setsockopt(receiver.socket(), sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        Ok(Self {
            receiver,
            payload: vec![0; 65_536],
            control: nix::cmsg_space!(nix::sys::time::TimeSpec),
            bytes: Vec::with_capacity(count * 128),
            logged: Vec::with_capacity(count + 1024),
            message_count: 0,
        })
    }

    /// Takes one payload if there is one; `clock` is read just after the call.
    pub(super) fn poll(&mut self, clock: impl Fn() -> u64) -> Result<bool> {
        let mut vectors = [IoSliceMut::new(&mut self.payload)];
        let control = {
            self.control.resize(self.control.capacity(), 0);
            Some(&mut self.control[..])
        };
        let fd = self.receiver.socket().as_raw_fd();
        let message = match recvmsg::<()>(fd, &mut vectors, control, MsgFlags::MSG_DONTWAIT) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error).context("receive of the bench"),
        };
        let received_ns = clock();
        let stamp = message.cmsgs().context("control messages")?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        });
        let stamp = stamp.context("the kernel gave no receive stamp")?;
        let kernel_utc_ns = stamp.tv_sec() as u64 * 1_000_000_000 + stamp.tv_nsec() as u64;
        let length = message.bytes;
        self.bytes.extend_from_slice(&self.payload[..length]);
        self.logged.push(Logged { end: self.bytes.len(), kernel_utc_ns, received_ns });
        if let Some(&[high, low]) = self.payload[..length].get(COUNT) {
            let count = u16::from_be_bytes([high, low]);
            self.message_count += if count == mold::END_OF_SESSION { 0 } else { u64::from(count) };
        }
        Ok(true)
    }

    /// Messages in all payloads so far.
    pub(super) fn message_count(&self) -> u64 {
        self.message_count
    }

    /// Payloads that the socket dropped for lack of room. Only on a thread in its namespace.
    pub(super) fn dropped(&self) -> Result<u64> {
        self.receiver.dropped()
    }

    /// Reads the log: the first arrival of each of the messages 1 to `count`.
    pub(super) fn arrivals(&self, count: usize) -> Result<Arrivals> {
        let mut arrivals = Arrivals { messages: vec![None; count], doubled: 0 };
        let mut start = 0;
        for logged in &self.logged {
            let payload = &self.bytes[start..logged.end];
            start = logged.end;
            let view = mold::parse(payload).map_err(|error| anyhow::anyhow!("malformed output packet: {error}"))?;
            ensure!(view.session == SESSION, "output of session {}", view.session.escape_ascii());
            for (sequence, block) in (view.sequence..).zip(&view.blocks) {
                let index = usize::try_from(sequence - 1).context("sequence number")?;
                let slot = arrivals.messages.get_mut(index);
                let slot = slot.with_context(|| format!("message {sequence} of {count} in the output"))?;
                if slot.is_some() {
                    arrivals.doubled += 1;
                    continue;
                }
                let entry_utc_ns = entry(block).map_err(|error| anyhow::anyhow!("message {sequence}: {error}"))?;
                *slot = Some(Arrival {
                    entry_utc_ns,
                    kernel_utc_ns: logged.kernel_utc_ns,
                    received_ns: logged.received_ns,
                });
            }
        }
        Ok(arrivals)
    }
}

/// `ts_recv` of the first record in the block that has one.
fn entry(mut block: &[u8]) -> Result<Option<u64>, String> {
    while !block.is_empty() {
        if let Some(ts_recv) = Record::cut(&mut block)?.ts_recv() {
            return Ok(Some(ts_recv));
        }
    }
    Ok(None)
}

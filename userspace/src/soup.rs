//! SoupBinTCP: one ordered, resumable stream of messages over TCP, without a socket and without a clock.
//!
//! Sources: Nasdaq, *SoupBinTCP*, version 3.00; 4.00 and 4.10 as public implementations speak them (4.00: the server may send
//! Unsequenced Data; 4.10: the login carries a heartbeat timeout). [`packet`] is the codec, [`buffer`] puts packets together
//! again that TCP split, [`client`] is the client's side of a connection: told bytes and time, it says what came and what to
//! send.
#![forbid(unsafe_code)]

pub mod buffer;
pub mod client;
pub mod login;
pub mod packet;

pub use buffer::Buffer;
pub use client::{Client, ClientCounts, Event, ProtocolError, Timers};
pub use login::{Login, LoginError, Version};
pub use packet::{Malformed, Packet, Reject, TooLong};

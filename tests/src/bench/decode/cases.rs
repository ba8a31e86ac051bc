//! The loops that are timed. Each does its work for every message of a chunk and nothing else.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::ops::{ControlFlow, Range};

use feedhandler::config::plan::TransportKind;
use feedhandler::feed::decode::itch50::messages::{self, Body, Message};
use feedhandler::feed::orders::{Order, OrderStore, Side};
use feedhandler::feed::transport::{self, PacketHeader};
use feedhandler::feed::{Block, BlockSink, Channel, ChannelIndex, LineRole, Session};
use itch5::messages as other;

use crate::bench::stream::Stream;

/// Accesses that are prefetched together in the bare store.
pub(super) const STORE_BATCH: usize = 32;

/// What a message does to an order store.
#[derive(Clone, Copy)]
enum Access {
    Insert(u64, Order),
    Reduce(u64, u32),
    Remove(u64),
    Replace(u64, u64, u32, u32),
}

/// A part of the day, in the form that each case wants.
pub(super) struct Chunk {
    bytes: Vec<u8>,
    packets: Vec<Range<usize>>,
    /// The same messages as a file: `[length][message]`.
    file: Vec<u8>,
    accesses: Vec<Access>,
    messages: usize,
    /// Orders live after it.
    pub live_after: usize,
}

impl Chunk {
    pub fn generate(stream: &mut Stream, messages: usize) -> Self {
        let mut chunk = Self {
            bytes: Vec::with_capacity(messages * 36),
            packets: Vec::new(),
            file: Vec::with_capacity(messages * 36),
            accesses: Vec::with_capacity(messages),
            messages: 0,
            live_after: 0,
        };
        while chunk.messages < messages {
            let start = chunk.bytes.len();
            chunk.messages += usize::from(stream.packet(&mut chunk.bytes));
            chunk.packets.push(start..chunk.bytes.len());
        }
        for packet in &chunk.packets {
            let payload = &chunk.bytes[packet.clone()];
            chunk.file.extend_from_slice(&payload[transport::moldudp64::HEADER_BYTES..]);
            let header = PacketHeader::parse(TransportKind::MoldUdp64, payload).expect("as generated");
            for message in transport::blocks(TransportKind::MoldUdp64, payload, header.count) {
                chunk.accesses.extend(access(message));
            }
        }
        chunk.live_after = stream.live();
        chunk
    }

    pub fn messages(&self) -> usize {
        self.messages
    }

    fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().map(|packet| &self.bytes[packet.clone()])
    }

    pub fn touch(&self) {
        for payload in self.payloads() {
            black_box(payload.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        }
    }

    pub fn frame(&self) {
        for payload in self.payloads() {
            let header = PacketHeader::parse(TransportKind::MoldUdp64, payload).expect("as generated");
            black_box(transport::check_blocks(TransportKind::MoldUdp64, payload, header.count)).expect("as generated");
            for message in transport::blocks(TransportKind::MoldUdp64, payload, header.count) {
                black_box(message);
            }
        }
    }

    /// Like the other decoders: the bytes are split once, as a file's would be.
    pub fn decode(&self) {
        let mut rest = &self.file[..];
        while let Some((length, tail)) = rest.split_first_chunk::<2>() {
            let (message, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)));
            decode_one(message);
            rest = tail;
        }
    }

    pub fn itch5(&self) {
        itch5::Parser::new(&self.file).parse_stream(&mut AllFields).expect("as generated");
    }

    pub fn itchy(&self) {
        for message in itchy::MessageStream::from_reader(&self.file[..]) {
            black_box(&message).as_ref().expect("as generated");
        }
    }

    pub fn access(&self, store: &mut OrderStore, batch: usize) {
        for accesses in self.accesses.chunks(batch) {
            if batch > 1 {
                for access in accesses {
                    match *access {
                        Access::Insert(reference, _) | Access::Reduce(reference, _) | Access::Remove(reference) => {
                            store.prefetch(reference);
                        }
                        Access::Replace(old, new, ..) => {
                            store.prefetch(old);
                            store.prefetch(new);
                        }
                    }
                }
            }
            for access in accesses {
                match *access {
                    Access::Insert(reference, order) => {
                        black_box(store.insert(reference, order));
                    }
                    Access::Reduce(reference, shares) => {
                        black_box(store.reduce(reference, shares));
                    }
                    Access::Remove(reference) => {
                        black_box(store.remove(reference));
                    }
                    Access::Replace(old, new, shares, price) => {
                        let side = store.remove(old).map_or(Side::Bid, |order| order.side);
                        black_box(store.insert(new, Order { side, price, shares }));
                    }
                }
            }
        }
    }

    pub fn channel(&self, channel: &mut Channel, batch: usize, sink: &mut Discard) {
        for packets in self.packets.chunks(batch) {
            for (slot, packet) in packets.iter().enumerate() {
                channel.admit(slot as u16, LineRole::A, &self.bytes[packet.clone()], 1_000).expect("in sequence");
            }
            channel.deliver(|slot| &self.bytes[packets[usize::from(slot)].clone()], 0, sink);
        }
    }
}

/// Decodes all fields of a message, dispatching as the channel's decoder does.
#[inline(always)]
fn decode_one(message: &[u8]) {
    macro_rules! by_type {
        ($($kind:ident)+) => {
            match message[0] {
                $(messages::$kind::TYPE => {
                    let message = messages::$kind::read(message).expect("as generated");
                    black_box(&message);
                })+
                _ => {
                    black_box(messages::parse(message)).expect("as generated");
                }
            }
        };
    }
    by_type! { AddOrder OrderDelete OrderReplace OrderExecuted AddOrderAttributed OrderCancel Trade }
}

fn access(message: &[u8]) -> Option<Access> {
    let (_, body) = messages::parse(message).expect("as generated");
    let side = |side| if side == b'B' { Side::Bid } else { Side::Ask };
    match body {
        Body::AddOrder(m) => {
            Some(Access::Insert(m.reference, Order { side: side(m.side), price: m.price, shares: m.shares }))
        }
        Body::AddOrderAttributed(m) => {
            Some(Access::Insert(m.reference, Order { side: side(m.side), price: m.price, shares: m.shares }))
        }
        Body::OrderExecuted(m) => Some(Access::Reduce(m.reference, m.shares)),
        Body::OrderExecutedWithPrice(m) => Some(Access::Reduce(m.reference, m.shares)),
        Body::OrderCancel(m) => Some(Access::Reduce(m.reference, m.shares)),
        Body::OrderDelete(m) => Some(Access::Remove(m.reference)),
        Body::OrderReplace(m) => Some(Access::Replace(m.original_reference, m.reference, m.shares, m.price)),
        _ => None,
    }
}

/// A consumer that looks at what it gets and keeps nothing.
#[derive(Default)]
pub(super) struct Discard {
    bytes: usize,
}

impl BlockSink for Discard {
    #[inline]
    fn block(&mut self, block: &Block<'_>) {
        self.bytes += black_box(block.records).len();
    }

    fn lost(&mut self, _: ChannelIndex, _: &Session, _: u64, _: u64) {}

    fn end_of_session(&mut self, _: ChannelIndex, _: &Session, _: u64) {}
}

/// `itch5` decodes a field when it is asked for: asks for all that a book needs, as our decoder gives them.
struct AllFields;

macro_rules! all_fields {
    ($($method:ident($kind:ty) { $($field:ident)+ })+) => {
        impl itch5::MessageHandler for AllFields {
            $(#[inline] fn $method(&mut self, m: &$kind) -> ControlFlow<()> {
                black_box(&(m.stock_locate(), m.tracking_number(), m.timestamp().to_u64(), $(m.$field(),)+));
                ControlFlow::Continue(())
            })+
        }
    };
}

all_fields! {
    on_add_order_no_mpid_attribution(other::AddOrderNoMPIDAttribution) {
        order_reference_number buy_sell_indicator shares stock price
    }
    on_add_order_with_mpid_attribution(other::AddOrderWithMPIDAttribution) {
        order_reference_number buy_sell_indicator shares stock price
    }
    on_order_executed(other::OrderExecuted) { order_reference_number executed_shares match_number }
    on_order_executed_with_price(other::OrderExecutedWithPrice) {
        order_reference_number executed_shares match_number execution_price
    }
    on_order_cancel(other::OrderCancel) { order_reference_number cancelled_shares }
    on_order_delete(other::OrderDelete) { order_reference_number }
    on_order_replace(other::OrderReplace) { original_order_reference_number new_order_reference_number shares price }
    on_trade(other::Trade) { order_reference_number shares stock price match_number }
}

//! Message fields by the names of the reference's decoded file.
#![forbid(unsafe_code)]

use serde_json::Value;

use crate::feed::decode::itch50::messages::{Body, Stock};

/// The fields of a message under the names of the `.jsonl` file.
pub(super) fn named_fields(body: &Body) -> Vec<(&'static str, Value)> {
    fn text(bytes: &[u8]) -> Value {
        String::from_utf8(bytes.to_vec()).unwrap().into()
    }
    let add = |reference: u64, side: u8, shares: u32, stock: &Stock, price: u32| {
        let (side, stock) = (text(&[side]), text(stock));
        vec![("ref", reference.into()), ("side", side), ("sh", shares.into()), ("stk", stock), ("px", price.into())]
    };
    match body {
        Body::AddOrder(m) => add(m.reference, m.side, m.shares, &m.stock, m.price),
        Body::AddOrderAttributed(m) => {
            [add(m.reference, m.side, m.shares, &m.stock, m.price), vec![("mpid", text(&m.mpid))]].concat()
        }
        Body::Trade(m) => {
            [add(m.reference, m.side, m.shares, &m.stock, m.price), vec![("match", m.match_number.into())]].concat()
        }
        Body::OrderExecuted(m) => {
            vec![("ref", m.reference.into()), ("sh", m.shares.into()), ("match", m.match_number.into())]
        }
        Body::OrderExecutedWithPrice(m) => vec![
            ("ref", m.reference.into()),
            ("sh", m.shares.into()),
            ("match", m.match_number.into()),
            ("prn", text(&[m.printable])),
            ("px", m.price.into()),
        ],
        Body::OrderCancel(m) => vec![("ref", m.reference.into()), ("sh", m.shares.into())],
        Body::OrderDelete(m) => vec![("ref", m.reference.into())],
        Body::OrderReplace(m) => vec![
            ("old", m.original_reference.into()),
            ("new", m.reference.into()),
            ("sh", m.shares.into()),
            ("px", m.price.into()),
        ],
        Body::CrossTrade(m) => vec![
            ("sh", m.shares.into()),
            ("stk", text(&m.stock)),
            ("px", m.price.into()),
            ("match", m.match_number.into()),
            ("ct", text(&[m.cross_type])),
        ],
        Body::Imbalance(m) => vec![
            ("paired", m.paired.into()),
            ("imb", m.imbalance.into()),
            ("dir", text(&[m.direction])),
            ("stk", text(&m.stock)),
            ("far", m.far_price.into()),
            ("near", m.near_price.into()),
            ("ref", m.reference_price.into()),
            ("ct", text(&[m.cross_type])),
            ("pvi", text(&[m.price_variation])),
        ],
        Body::TradingAction(m) => {
            vec![("stk", text(&m.stock)), ("st", text(&[m.state])), ("reason", text(&m.reason))]
        }
        Body::RegSho(m) => vec![("stk", text(&m.stock)), ("act", text(&[m.action]))],
        Body::RetailInterest(m) => vec![("stk", text(&m.stock)), ("fl", text(&[m.interest]))],
        Body::SystemEvent(m) => vec![("ev", text(&[m.event_code]))],
        Body::ParticipantPosition(m) => vec![
            ("mpid", text(&m.mpid)),
            ("stk", text(&m.stock)),
            ("pmm", text(&[m.primary])),
            ("mode", text(&[m.mode])),
            ("state", text(&[m.state])),
        ],
        Body::AuctionCollar(m) => vec![
            ("stk", text(&m.stock)),
            ("ref", m.reference_price.into()),
            ("up", m.upper.into()),
            ("lo", m.lower.into()),
            ("ext", m.extensions.into()),
        ],
        other => panic!("{other:?} is not in the file"),
    }
}

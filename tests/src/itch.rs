//! Nasdaq TotalView-ITCH 5.0 messages as the exchange sees them: typed, written to bytes and read back.
//!
//! Source: Nasdaq, *TotalView-ITCH 5.0* specification, revision of 2026-02-19, field tables. This is the simulator's own
//! reading of the specification; it shares nothing with the decoder it tests.
#![forbid(unsafe_code)]

/// Symbol, space-padded on the right.
pub type Symbol = [u8; 8];

/// Bytes of the header that all messages share: type, stock locate, tracking number, timestamp.
pub const HEADER_BYTES: usize = 11;

/// One ITCH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Stock locate; 0 where no security applies.
    pub locate: u16,
    /// Tracking number; means nothing to consumers.
    pub tracking: u16,
    /// Nanoseconds since local midnight of the exchange; 48 bits on the wire.
    pub timestamp_ns: u64,
    /// The rest, by type.
    pub body: Body,
}

/// A field as it is on the wire: big-endian integers, raw bytes.
trait Field: Copy {
    const BYTES: usize;
    fn put(self, out: &mut Vec<u8>);
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! integer_field {
    ($($int:ty),+) => {$(
        impl Field for $int {
            const BYTES: usize = size_of::<$int>();
            fn put(self, out: &mut Vec<u8>) { out.extend_from_slice(&self.to_be_bytes()); }
            fn take(bytes: &[u8]) -> Self { Self::from_be_bytes(bytes.try_into().expect("the caller cut it to size")) }
        }
    )+};
}
integer_field!(u8, u32, u64);

impl<const N: usize> Field for [u8; N] {
    const BYTES: usize = N;
    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self);
    }
    fn take(bytes: &[u8]) -> Self {
        bytes.try_into().expect("the caller cut it to size")
    }
}

/// Defines the message bodies once: type byte, name, fields in wire order behind the header.
macro_rules! messages {
    ($($(#[$doc:meta])* $code:literal $name:ident { $($field:ident: $ty:ty,)+ })+) => {
        /// What a message says, by type. Fields are in wire order; prices are Price(4) unless the field says otherwise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // The fields carry the specification's own names.
        pub enum Body { $($(#[$doc])* $name { $($field: $ty,)+ },)+ }

        /// Every message type with its length in bytes, in the order of the specification's sections.
        pub const TYPES: &[(u8, usize)] = &[$(($code, HEADER_BYTES $(+ <$ty as Field>::BYTES)+),)+];

        impl Body {
            /// The type byte.
            #[must_use]
            pub const fn code(&self) -> u8 {
                match self { $(Self::$name { .. } => $code,)+ }
            }

            fn put(&self, out: &mut Vec<u8>) {
                match *self { $(Self::$name { $($field,)+ } => { $($field.put(out);)+ })+ }
            }

            fn take(code: u8, bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                match code {
                    $($code => {
                        $(let (head, tail) = rest.split_at_checked(<$ty as Field>::BYTES)?;
                          rest = tail;
                          let $field = <$ty as Field>::take(head);)+
                        let _ = rest; // A longer message is legal: later revisions append fields.
                        Some(Self::$name { $($field,)+ })
                    })+
                    _ => None,
                }
            }
        }
    };
}

messages! {
    b'S' SystemEvent { event: u8, }
    b'R' StockDirectory {
        stock: Symbol, market_category: u8, financial_status: u8, round_lot: u32, round_lots_only: u8,
        classification: u8, sub_type: [u8; 2], authenticity: u8, short_sale_threshold: u8, ipo_flag: u8, luld_tier: u8,
        etp_flag: u8, etp_leverage: u32, inverse: u8,
    }
    b'H' TradingAction { stock: Symbol, state: u8, reserved: u8, reason: [u8; 4], }
    b'Y' RegSho { stock: Symbol, action: u8, }
    b'L' ParticipantPosition { mpid: [u8; 4], stock: Symbol, primary: u8, mode: u8, state: u8, }
    /// Levels are Price(8).
    b'V' MwcbLevels { level1: u64, level2: u64, level3: u64, }
    b'W' MwcbStatus { level: u8, }
    b'K' IpoQuoting { stock: Symbol, release_s: u32, qualifier: u8, price: u32, }
    b'J' AuctionCollar { stock: Symbol, reference_price: u32, upper: u32, lower: u32, extensions: u32, }
    b'h' OperationalHalt { stock: Symbol, market: u8, action: u8, }
    b'A' Add { reference: u64, side: u8, shares: u32, stock: Symbol, price: u32, }
    b'F' AddAttributed { reference: u64, side: u8, shares: u32, stock: Symbol, price: u32, mpid: [u8; 4], }
    b'E' Executed { reference: u64, shares: u32, match_number: u64, }
    b'C' ExecutedWithPrice { reference: u64, shares: u32, match_number: u64, printable: u8, price: u32, }
    b'X' Cancel { reference: u64, shares: u32, }
    b'D' Delete { reference: u64, }
    b'U' Replace { original: u64, reference: u64, shares: u32, price: u32, }
    b'P' Trade { reference: u64, side: u8, shares: u32, stock: Symbol, price: u32, match_number: u64, }
    b'Q' Cross { shares: u64, stock: Symbol, price: u32, match_number: u64, cross_type: u8, }
    b'B' Broken { match_number: u64, }
    b'I' Imbalance {
        paired: u64, shares: u64, direction: u8, stock: Symbol, far: u32, near: u32, reference_price: u32,
        cross_type: u8, variation: u8,
    }
    b'N' RetailInterest { stock: Symbol, flag: u8, }
    b'O' PriceDiscovery {
        stock: Symbol, eligibility: u8, minimum: u32, maximum: u32, near_price: u32, near_time_ns: u64, lower: u32,
        upper: u32,
    }
}

impl Message {
    /// Appends the message's bytes, without framing.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.body.code());
        out.extend_from_slice(&self.locate.to_be_bytes());
        out.extend_from_slice(&self.tracking.to_be_bytes());
        out.extend_from_slice(&self.timestamp_ns.to_be_bytes()[2..]);
        self.body.put(out);
    }

    /// Reads one message; `None` if its type is unknown or it is shorter than its type requires. A tail is ignored.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let mut timestamp = [0; 8];
        timestamp[2..].copy_from_slice(&header[5..]);
        Some(Self {
            locate: u16::from_be_bytes([header[1], header[2]]),
            tracking: u16::from_be_bytes([header[3], header[4]]),
            timestamp_ns: u64::from_be_bytes(timestamp),
            body: Body::take(header[0], rest)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length table of the specification, typed in apart from the field tables above.
    const SPECIFIED: [(u8, usize); 23] = [
        (b'S', 12),
        (b'R', 39),
        (b'H', 25),
        (b'Y', 20),
        (b'L', 26),
        (b'V', 35),
        (b'W', 12),
        (b'K', 28),
        (b'J', 35),
        (b'h', 21),
        (b'A', 36),
        (b'F', 40),
        (b'E', 31),
        (b'C', 36),
        (b'X', 23),
        (b'D', 19),
        (b'U', 35),
        (b'P', 44),
        (b'Q', 40),
        (b'B', 19),
        (b'I', 50),
        (b'N', 20),
        (b'O', 48),
    ];

    #[test]
    fn every_type_has_the_specified_length() {
        assert_eq!(TYPES, SPECIFIED);
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn real_messages_read_and_write_back() {
        let vectors = [
            "440dbd00001f1aced85ad80000000001668bd6",
            "49193e00001f1acede0ab2000000000000000100000000000000004e4d444320202020200007161000071610000716104f4c",
            "550b5c00001f1aced4d5e300000000002782ee00000000003608fe0000006400085fc0",
        ];
        for hex in vectors {
            let raw = bytes(hex);
            let message = Message::decode(&raw).expect(hex);
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(out, raw);
        }
        let replace = Message::decode(&bytes(vectors[2])).unwrap();
        let want = Body::Replace { original: 2_589_422, reference: 3_541_246, shares: 100, price: 548_800 };
        assert_eq!(replace.body, want);
        let delete = Message::decode(&bytes(vectors[0])).unwrap();
        assert_eq!((delete.locate, delete.timestamp_ns), (3517, 34_199_999_896_280));
    }

    #[test]
    fn short_and_unknown_messages_are_refused_and_tails_ignored() {
        let raw = bytes("440dbd00001f1aced85ad80000000001668bd6");
        for cut in 0..raw.len() {
            assert_eq!(Message::decode(&raw[..cut]), None, "{cut} bytes");
        }
        let mut longer = raw.clone();
        longer.push(7);
        assert_eq!(Message::decode(&longer), Message::decode(&raw));
        let mut unknown = raw;
        unknown[0] = b'z';
        assert_eq!(Message::decode(&unknown), None);
    }
}

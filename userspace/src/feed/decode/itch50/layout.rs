//! How a table of message layouts becomes structs and a parser.
#![forbid(unsafe_code)]

/// Bytes of the header that all messages share.
pub const HEADER_BYTES: usize = 11;

/// The header of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Index of the security, assigned anew each day; 0 where none applies.
    pub locate: u16,
    /// Nasdaq internal.
    pub tracking: u16,
    /// Nanoseconds since local midnight.
    pub timestamp_ns: u64,
}

impl Header {
    #[inline]
    pub(super) fn read(message: &[u8; HEADER_BYTES]) -> Self {
        let [_, l0, l1, t0, t1, time @ ..] = *message;
        let [a, b, c, d, e, f] = time;
        Self {
            locate: u16::from_be_bytes([l0, l1]),
            tracking: u16::from_be_bytes([t0, t1]),
            timestamp_ns: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
        }
    }
}

/// Why a message was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// No bytes: legal, and without meaning.
    Empty,
    /// Not a type of ITCH 5.0.
    UnknownType(u8),
    /// Shorter than its type requires.
    Short(u8),
}

/// A message type.
pub trait Message: Sized {
    /// Type byte.
    const TYPE: u8;
    /// Length in bytes, header included.
    const LENGTH: usize;

    /// Decodes a message that has this type byte; `None` if it is too short.
    fn read(message: &[u8]) -> Option<(Header, Self)>;
}

/// A symbol, left-justified and space-padded.
pub type Stock = [u8; 8];

/// Reads one field at a fixed offset.
pub(super) trait Field: Sized {
    fn read<const N: usize>(message: &[u8; N], offset: usize) -> Self;
}

#[inline]
fn bytes<const N: usize, const M: usize>(message: &[u8; N], offset: usize) -> [u8; M] {
    let mut field = [0; M];
    field.copy_from_slice(&message[offset..offset + M]);
    field
}

impl Field for u8 {
    #[inline]
    fn read<const N: usize>(message: &[u8; N], offset: usize) -> Self {
        message[offset]
    }
}

impl Field for u32 {
    #[inline]
    fn read<const N: usize>(message: &[u8; N], offset: usize) -> Self {
        Self::from_be_bytes(bytes(message, offset))
    }
}

impl Field for u64 {
    #[inline]
    fn read<const N: usize>(message: &[u8; N], offset: usize) -> Self {
        Self::from_be_bytes(bytes(message, offset))
    }
}

impl<const M: usize> Field for [u8; M] {
    #[inline]
    fn read<const N: usize>(message: &[u8; N], offset: usize) -> Self {
        bytes(message, offset)
    }
}

/// Defines a struct per message, the enum over them and the parser: one table, like the specification's.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident $type:literal $length:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $offset:literal,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$field_doc])* pub $field: $kind,)+ }

            impl Message for $name {
                const TYPE: u8 = $type;
                const LENGTH: usize = $length;

                #[inline(always)]
                fn read(message: &[u8]) -> Option<(Header, Self)> {
                    let message: &[u8; $length] = message.first_chunk()?;
                    let header = Header::read(message.first_chunk().expect("no message is shorter than the header"));
                    Some((header, Self { $($field: <$kind as Field>::read(message, $offset),)+ }))
                }
            }
        )+

        /// A decoded message, without its header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Body { $($(#[$doc])* $name($name),)+ }

        /// Every message type: type byte and length.
        pub const TYPES: &[(u8, usize)] = &[$(($type, $length),)+];

        /// Decodes one message of any type.
        ///
        /// # Errors
        /// [`ParseError`].
        #[inline]
        pub fn parse(message: &[u8]) -> Result<(Header, Body), ParseError> {
            match message.first() {
                $(Some(&$type) => match $name::read(message) {
                    Some((header, body)) => Ok((header, Body::$name(body))),
                    None => Err(ParseError::Short($type)),
                },)+
                Some(unknown) => Err(ParseError::UnknownType(*unknown)),
                None => Err(ParseError::Empty),
            }
        }
    };
}

pub(super) use messages;

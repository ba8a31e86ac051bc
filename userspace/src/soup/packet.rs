//! The logical packets, written and read. Integers are big-endian, text is ASCII.
//!
//! Liberal in what is read: numbers and names may be padded on either side, with spaces or NULs. What is written is padded as
//! the specification says. A session is kept padded on the right, as MoldUDP64 senders write it, whatever side the wire
//! had it on: so it can be compared.
#![forbid(unsafe_code)]

use super::login::{Login, MAX_HEARTBEAT_MS, PASSWORD_BYTES, USERNAME_BYTES};
use crate::feed::Session;

/// Length (2) and type (1); the length counts what follows it.
pub const HEADER_BYTES: usize = 3;

/// Longest payload.
pub const MAX_PAYLOAD_BYTES: usize = u16::MAX as usize - 1;

/// Longest packet, with its length.
pub const MAX_PACKET_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES;

const SESSION_BYTES: usize = 10;
const NUMBER_BYTES: usize = 20;
const HEARTBEAT_BYTES: usize = 5;
const ACCEPTED_BYTES: usize = SESSION_BYTES + NUMBER_BYTES;

/// What is wrong with the bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Length 0: not even a type.
    #[error("a packet of length 0")]
    Empty,
    /// A payload that is shorter or longer than its type has.
    #[error("a {} packet with a payload of {length} bytes", kind.escape_ascii())]
    Length {
        /// The packet's type.
        kind: u8,
        /// Bytes of its payload.
        length: usize,
    },
    /// Not decimal digits, or a number beyond 64 bits; 0 where numbering starts at 1.
    #[error("a sequence that is no number from 1 on")]
    Sequence,
    /// No name, or not printable.
    #[error("a session without a printable name")]
    Session,
}

/// More than fits a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {0} bytes: a SoupBinTCP packet has at most {MAX_PAYLOAD_BYTES}")]
pub struct TooLong(pub usize);

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// `A`: user name or password.
    NotAuthorised,
    /// `S`: the session is not available.
    NoSession,
    /// A reason that the specification does not know.
    Other(u8),
}

impl Reject {
    /// Of the reason on the wire.
    #[must_use]
    pub const fn of(code: u8) -> Self {
        match code {
            b'A' => Self::NotAuthorised,
            b'S' => Self::NoSession,
            code => Self::Other(code),
        }
    }

    /// The reason on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::NotAuthorised => b'A',
            Self::NoSession => b'S',
            Self::Other(code) => code,
        }
    }
}

/// One logical packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `+`, either side's: text for people.
    Debug(&'a [u8]),
    /// `A`, the server's: the login holds, and the next Sequenced Data is number `next`.
    LoginAccepted {
        /// Session that is served.
        session: Session,
        /// Number of the next message, from 1 on.
        next: u64,
    },
    /// `J`, the server's.
    LoginRejected(Reject),
    /// `S`, the server's: one message.
    Sequenced(&'a [u8]),
    /// `U`, the client's, from 4.00 on also the server's: one message, not numbered.
    Unsequenced(&'a [u8]),
    /// `H`, the server's.
    ServerHeartbeat,
    /// `Z`, the server's: there are no more messages.
    EndOfSession,
    /// `L`, the client's.
    LoginRequest(Login),
    /// `R`, the client's.
    ClientHeartbeat,
    /// `O`, the client's.
    Logout,
    /// A type that no version knows.
    Unknown(u8),
}

/// The first packet's type and payload; `None` until it is whole.
///
/// # Errors
/// [`Malformed::Empty`].
#[inline]
pub fn split(bytes: &[u8]) -> Result<Option<(u8, &[u8])>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 {
        return Err(Malformed::Empty);
    }
    Ok(rest.get(..length).and_then(<[u8]>::split_first).map(|(kind, payload)| (*kind, payload)))
}

impl<'a> Packet<'a> {
    /// Reads a payload of a type.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse(kind: u8, payload: &'a [u8]) -> Result<Self, Malformed> {
        let of_length = |length: usize| {
            if payload.len() == length { Ok(()) } else { Err(Malformed::Length { kind, length: payload.len() }) }
        };
        let packet = match kind {
            b'S' => return Ok(Self::Sequenced(payload)),
            b'U' => return Ok(Self::Unsequenced(payload)),
            b'+' => return Ok(Self::Debug(payload)),
            b'L' => return login_request(payload).map(Self::LoginRequest),
            b'A' => {
                of_length(ACCEPTED_BYTES)?;
                let (name, number) = payload.split_at(SESSION_BYTES);
                let session = session(name)?.ok_or(Malformed::Session)?;
                let next = number_of(number).filter(|next| *next > 0).ok_or(Malformed::Sequence)?;
                return Ok(Self::LoginAccepted { session, next });
            }
            b'J' => {
                of_length(1)?;
                return Ok(Self::LoginRejected(Reject::of(payload[0])));
            }
            b'H' => Self::ServerHeartbeat,
            b'Z' => Self::EndOfSession,
            b'R' => Self::ClientHeartbeat,
            b'O' => Self::Logout,
            unknown => return Ok(Self::Unknown(unknown)),
        };
        of_length(0)?;
        Ok(packet)
    }

    /// Appends the packet as it is on the wire.
    ///
    /// # Errors
    /// A payload that does not fit; nothing is appended then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        match self {
            Self::Debug(text) => put(out, b'+', &[text]),
            Self::LoginAccepted { session, next } => {
                put(out, b'A', &[&left_padded::<SESSION_BYTES>(trimmed(session)), &number(*next)])
            }
            Self::LoginRejected(reason) => put(out, b'J', &[&[reason.code()]]),
            Self::Sequenced(message) => put(out, b'S', &[message]),
            Self::Unsequenced(message) => put(out, b'U', &[message]),
            Self::ServerHeartbeat => put(out, b'H', &[]),
            Self::EndOfSession => put(out, b'Z', &[]),
            Self::LoginRequest(login) => {
                let session = left_padded::<SESSION_BYTES>(login.session.as_ref().map_or(&[], |name| trimmed(name)));
                let heartbeat = login.heartbeat_ms.map(|ms| left_padded::<HEARTBEAT_BYTES>(ms.to_string().as_bytes()));
                let heartbeat: &[u8] = heartbeat.as_ref().map_or(&[], |digits| digits);
                put(out, b'L', &[&login.username, &login.password, &session, &number(login.sequence), heartbeat])
            }
            Self::ClientHeartbeat => put(out, b'R', &[]),
            Self::Logout => put(out, b'O', &[]),
            Self::Unknown(kind) => put(out, *kind, &[]),
        }
    }
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> Result<(), TooLong> {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let length = u16::try_from(payload + 1).map_err(|_| TooLong(payload))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    Ok(())
}

fn login_request(payload: &[u8]) -> Result<Login, Malformed> {
    let malformed = Malformed::Length { kind: b'L', length: payload.len() };
    let (username, rest) = payload.split_first_chunk::<USERNAME_BYTES>().ok_or(malformed)?;
    let (password, rest) = rest.split_first_chunk::<PASSWORD_BYTES>().ok_or(malformed)?;
    let (name, rest) = rest.split_first_chunk::<SESSION_BYTES>().ok_or(malformed)?;
    let (sequence, rest) = rest.split_first_chunk::<NUMBER_BYTES>().ok_or(malformed)?;
    let heartbeat_ms = match rest.len() {
        0 => None,
        HEARTBEAT_BYTES => {
            let ms = number_of(rest).and_then(|ms| u32::try_from(ms).ok()).ok_or(Malformed::Sequence)?;
            Some(ms.min(MAX_HEARTBEAT_MS))
        }
        _ => return Err(malformed),
    };
    Ok(Login {
        username: *username,
        password: *password,
        session: session(name)?,
        sequence: number_of(sequence).ok_or(Malformed::Sequence)?,
        heartbeat_ms,
    })
}

/// Without the padding of either side.
fn trimmed(field: &[u8]) -> &[u8] {
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(from) = field.iter().position(|byte| !is_padding(byte)) else { return &[] };
    let to = field.iter().rposition(|byte| !is_padding(byte)).map_or(from, |last| last + 1);
    &field[from..to]
}

/// A name, padded on the right; `None` if it is blank.
fn session(field: &[u8]) -> Result<Option<Session>, Malformed> {
    let name = trimmed(field);
    if !name.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return Err(Malformed::Session);
    }
    let mut session = [b' '; SESSION_BYTES];
    session[..name.len()].copy_from_slice(name);
    Ok(if name.is_empty() { None } else { Some(session) })
}

/// A decimal number, as GLIMPSE's End of Snapshot also has it: digits padded with spaces or NULs on either side.
#[must_use]
pub fn number_of(field: &[u8]) -> Option<u64> {
    let digits = trimmed(field);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn number(number: u64) -> [u8; NUMBER_BYTES] {
    left_padded(number.to_string().as_bytes())
}

/// # Panics
/// If it does not fit: a `u64` has at most 20 digits, and all other fields are checked where they come from.
fn left_padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut field = [b' '; N];
    field[N - text.len()..].copy_from_slice(text);
    field
}

#[cfg(test)]
mod tests;

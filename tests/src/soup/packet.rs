//! SoupBinTCP packets, written and read: the server's own framing.
#![forbid(unsafe_code)]

/// A session's name as on the wire: padded on the left.
pub type Session = [u8; 10];

/// A name of at most ten characters.
///
/// # Panics
/// If it is longer.
#[must_use]
pub fn session(name: &str) -> Session {
    format!("{name:>10}").into_bytes().try_into().expect("at most ten characters")
}

/// A packet of a type.
///
/// # Panics
/// If the payload is longer than 65,534 bytes.
#[must_use]
pub fn packet(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 1).expect("at most 65,534 bytes of payload");
    [&length.to_be_bytes()[..], &[kind], payload].concat()
}

/// Login Accepted.
#[must_use]
pub fn accepted(session: &Session, next: u64) -> Vec<u8> {
    packet(b'A', &[&session[..], format!("{next:>20}").as_bytes()].concat())
}

/// A Login Request as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Without padding.
    pub username: String,
    /// Without padding.
    pub password: String,
    /// Without padding; empty = the active one.
    pub session: String,
    /// The next number wanted.
    pub sequence: u64,
    /// Version 4.10: silence of the client after which the server may close.
    pub heartbeat_ms: Option<u64>,
}

/// Reads the payload of an `L` packet; `None` if it is none.
#[must_use]
pub fn login(payload: &[u8]) -> Option<Login> {
    let text = |range: std::ops::Range<usize>| Some(std::str::from_utf8(payload.get(range)?).ok()?.trim().to_owned());
    let heartbeat_ms = match payload.len() {
        46 => None,
        51 => Some(text(46..51)?.parse().ok()?),
        _ => return None,
    };
    Some(Login {
        username: text(0..6)?,
        password: text(6..16)?,
        session: text(16..26)?,
        sequence: text(26..46)?.parse().ok()?,
        heartbeat_ms,
    })
}

//! What a client says when it logs in.
#![forbid(unsafe_code)]

use std::fmt;

use crate::feed::Session;

/// Bytes of the user name.
pub const USERNAME_BYTES: usize = 6;

/// Bytes of the password.
pub const PASSWORD_BYTES: usize = 10;

/// Longest heartbeat timeout that fits its five digits, milliseconds.
pub const MAX_HEARTBEAT_MS: u32 = 99_999;

/// Version of the protocol. It is not on the wire: both sides must know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 3.00.
    #[default]
    V3_00,
    /// 4.00: the server may send Unsequenced Data.
    V4_00,
    /// 4.10: the login says after how long a silence of the client the server may close.
    V4_10,
}

impl Version {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::V3_00, Self::V4_00, Self::V4_10];

    /// The word used in the configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::V3_00 => "3.00",
            Self::V4_00 => "4.00",
            Self::V4_10 => "4.10",
        }
    }
}

/// Why something cannot be sent as a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Longer than the field, or not to be written in it.
    #[error("user name: must be at most {USERNAME_BYTES} printable ASCII characters")]
    Username,
    /// The same.
    #[error("password: must be at most {PASSWORD_BYTES} printable ASCII characters")]
    Password,
    /// More than five digits, or nothing.
    #[error("heartbeat timeout of {0} ms: must be 1 to {MAX_HEARTBEAT_MS}")]
    Heartbeat(u32),
}

/// A Login Request.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Padded with spaces on the right.
    pub(super) username: [u8; USERNAME_BYTES],
    /// The same.
    pub(super) password: [u8; PASSWORD_BYTES],
    /// The session wanted; `None` = the one that is active.
    pub session: Option<Session>,
    /// The next message wanted: 1 = everything, 0 = from the most recently generated one on.
    pub sequence: u64,
    /// Version 4.10: silence of the client after which the server may close, milliseconds.
    pub(super) heartbeat_ms: Option<u32>,
}

impl Login {
    /// A login to the active session from its first message on.
    ///
    /// # Errors
    /// What does not fit its field. The texts are not in the errors.
    pub fn new(username: &str, password: &str) -> Result<Self, LoginError> {
        Ok(Self {
            username: padded(username).ok_or(LoginError::Username)?,
            password: padded(password).ok_or(LoginError::Password)?,
            session: None,
            sequence: 1,
            heartbeat_ms: None,
        })
    }

    /// The same with the heartbeat timeout of version 4.10, which makes it a login of that version.
    ///
    /// # Errors
    /// A timeout that does not fit.
    pub fn with_heartbeat(mut self, heartbeat_ms: u32) -> Result<Self, LoginError> {
        if !(1..=MAX_HEARTBEAT_MS).contains(&heartbeat_ms) {
            return Err(LoginError::Heartbeat(heartbeat_ms));
        }
        self.heartbeat_ms = Some(heartbeat_ms);
        Ok(self)
    }

    /// The same for another session and number.
    #[must_use]
    pub fn from(&self, session: Option<Session>, sequence: u64) -> Self {
        Self { session, sequence, ..self.clone() }
    }
}

impl fmt::Debug for Login {
    /// Without the password: it must not get into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username.escape_ascii().to_string())
            .field("session", &self.session.map(|session| session.escape_ascii().to_string()))
            .field("sequence", &self.sequence)
            .field("heartbeat_ms", &self.heartbeat_ms)
            .finish_non_exhaustive()
    }
}

/// A session's name of at most ten printable characters, as [`Session`] has it: padded on the right.
#[must_use]
pub fn session(text: &str) -> Option<Session> {
    padded(text).filter(|session| session[0] != b' ')
}

fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut field = [b' '; N];
    field.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    let is_text = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    is_text.then_some(field)
}

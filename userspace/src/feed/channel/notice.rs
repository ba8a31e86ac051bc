//! What a consumer is told beside the messages: a DBN system record in front of the first block that follows.
//!
//! The stream keeps the exchange's numbers, so lost ones stay missing in it. The record says that they will not come, and
//! what else cannot be seen from the numbers: that a session begins, or was joined late, or that the input had been silent.
//! DBN 3 has no code for it (`SystemCode`), so the code is 255 and the text says it, in sentences apart by `; `:
//!
//! - `session S: begins at message 1`
//! - `session S: joined at message N, what came before is unknown`
//! - `session S: begins with a snapshot, at message N`, in front of the snapshot and again behind it: whoever was in the session
//!   before has dropped its beginning as old, and must clear its books and ask for all from N on
//! - `session S: numbers begin again at message 1`
//! - `session S: messages A to B lost`, both included
//! - `session S: was silent and is back`
#![forbid(unsafe_code)]

use std::ffi::c_char;
use std::fmt::{self, Write};

use arrayvec::ArrayString;
use dbn::record::{RecordHeader, SystemMsg};
use dbn::{SystemCode, rtype};

use crate::feed::{Beginning, Session};

/// Bytes of a system record.
pub(super) const RECORD_BYTES: usize = size_of::<SystemMsg>();

/// The text's field, and a NUL behind it.
const TEXT_BYTES: usize = 302;

/// What the next block's system record will say.
#[derive(Debug)]
pub(super) struct Notice {
    is_pending: bool,
    /// The newest session that was left with messages lost at its end, and which.
    left: Option<(Session, u64, u64)>,
    begun: Option<(Beginning, u64)>,
    /// All in one: without a message between them losses touch.
    lost: Option<(u64, u64)>,
    is_back: bool,
    record: Box<[u8; RECORD_BYTES]>,
}

impl Notice {
    pub(super) fn new() -> Self {
        let record = Box::new([0; RECORD_BYTES]);
        Self { is_pending: false, left: None, begun: None, lost: None, is_back: false, record }
    }

    pub(super) fn began(&mut self, left: &Session, how: Beginning, first: u64) {
        if let Some((from, to)) = self.lost.take() {
            self.left = Some((*left, from, to));
        }
        (self.begun, self.is_back, self.is_pending) = (Some((how, first)), false, true);
    }

    pub(super) fn lost(&mut self, from: u64, to: u64) {
        let (from, _) = self.lost.unwrap_or((from, to));
        (self.lost, self.is_pending) = (Some((from, to)), true);
    }

    pub(super) fn is_back(&mut self) {
        (self.is_back, self.is_pending) = (true, true);
    }

    /// The record, once; nothing most of the time.
    #[inline]
    pub(super) fn take(&mut self, session: &Session, publisher_id: u16, ts_recv: u64) -> &[u8] {
        if !self.is_pending {
            return &[];
        }
        self.write(session, publisher_id, ts_recv);
        &self.record[..]
    }

    #[cold]
    fn write(&mut self, session: &Session, publisher_id: u16, ts_recv: u64) {
        let mut text = ArrayString::new();
        // What does not fit is cut off: it cannot happen, with sentences of at most 90 bytes.
        let _ = self.say(session, &mut text);
        let mut record = SystemMsg {
            hd: RecordHeader::new::<SystemMsg>(rtype::SYSTEM, publisher_id, 0, ts_recv),
            code: SystemCode::Unset as u8,
            ..SystemMsg::default()
        };
        record.msg = [0; TEXT_BYTES + 1];
        for (to, from) in record.msg.iter_mut().zip(text.bytes()) {
            *to = from as c_char;
        }
        self.record.copy_from_slice(record.as_ref());
        (self.is_pending, self.left, self.begun, self.lost, self.is_back) = (false, None, None, None, false);
    }

    fn say(&self, session: &Session, text: &mut ArrayString<TEXT_BYTES>) -> fmt::Result {
        let mut between = "";
        let mut sentence = |session: &Session, words: fmt::Arguments<'_>| {
            write!(text, "{between}session {}: {words}", Name(session))?;
            between = "; ";
            Ok(())
        };
        if let Some((left, from, to)) = &self.left {
            sentence(left, format_args!("messages {from} to {} lost", to - 1))?;
        }
        match self.begun {
            Some((Beginning::New, first)) => sentence(session, format_args!("begins at message {first}"))?,
            Some((Beginning::Late, first)) => {
                sentence(session, format_args!("joined at message {first}, what came before is unknown"))?;
            }
            Some((Beginning::Joined, first)) => {
                sentence(session, format_args!("begins with a snapshot, at message {first}"))?;
            }
            Some((Beginning::Restarted, first)) => {
                sentence(session, format_args!("numbers begin again at message {first}"))?;
            }
            None => {}
        }
        if let Some((from, to)) = self.lost {
            sentence(session, format_args!("messages {from} to {} lost", to - 1))?;
        }
        if self.is_back {
            sentence(session, format_args!("was silent and is back"))?;
        }
        Ok(())
    }
}

/// A session's name without its padding; what is not printable ASCII is a question mark.
struct Name<'a>(&'a Session);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .trim_ascii()
            .iter()
            .try_for_each(|byte| f.write_char(if matches!(byte, b' '..=b'~') { *byte as char } else { '?' }))
    }
}

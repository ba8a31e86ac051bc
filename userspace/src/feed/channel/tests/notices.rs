//! What the stream says of itself: system records in front of messages.
#![forbid(unsafe_code)]

use super::*;
use crate::feed::Beginning;

const UTC_OFFSET_NS: u64 = 1_700_000_000_000_000_000;

/// Notes notices and beginnings in the order in which they come.
#[derive(Default)]
struct Told(Vec<String>);

impl BlockSink for Told {
    fn block(&mut self, block: &Block<'_>) {
        if !block.notice.is_empty() {
            self.0.push(format!("{}: {}", block.sequence, text(block.notice)));
        }
    }

    fn lost(&mut self, _: ChannelIndex, _: &Session, _: u64, _: u64) {}

    fn began(&mut self, channel: ChannelIndex, session: &Session, first: u64, how: Beginning) {
        assert_eq!(channel, 3);
        self.0.push(format!("{} {how:?} {first}", session.escape_ascii()));
    }

    fn end_of_session(&mut self, _: ChannelIndex, _: &Session, _: u64) {}
}

/// The text of a system record whose other fields are right: DBN 3, `SystemMsg`, received at time 7.
fn text(record: &[u8]) -> String {
    let mut head = vec![(320_u16 / 4) as u8, 0x17, 2, 0, 0, 0, 0, 0];
    head.extend((UTC_OFFSET_NS + 7).to_le_bytes());
    assert_eq!((record.len(), &record[..16], record[319]), (320, &head[..], 255));
    let text = &record[16..319];
    let end = text.iter().position(|byte| *byte == 0).expect("a NUL at least");
    assert!(text[end..].iter().all(|byte| *byte == 0));
    String::from_utf8(text[..end].to_vec()).unwrap()
}

struct Loud {
    channel: Channel,
    told: Told,
}

impl Loud {
    fn new(settings: ChannelSettings) -> Self {
        Self { channel: Channel::new(settings).unwrap(), told: Told::default() }
    }

    fn send(&mut self, role: LineRole, session: &Session, sequence: u64, count: u16) {
        let payload = packet(session, sequence, count);
        let _ = self.channel.admit(0, role, &payload, 7);
        self.channel.deliver(|_| &payload, UTC_OFFSET_NS, &mut self.told);
    }

    fn poll(&mut self, now_ns: u64) {
        self.channel.poll(now_ns);
        self.channel.deliver(|_| unreachable!("nothing was admitted"), UTC_OFFSET_NS, &mut self.told);
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told.0)
    }
}

#[test]
fn a_session_that_begins_says_so_once_and_a_late_start_what_it_does_not_know() {
    let mut loud = Loud::new(ChannelSettings { start: StartAt::First, ..settings() });
    loud.send(A, b" S1       ", 1, 0);
    assert_eq!(loud.take(), [" S1        New 1"]);
    loud.send(A, b" S1       ", 1, 2);
    loud.send(A, b" S1       ", 3, 2);
    assert_eq!(loud.take(), ["1: session S1: begins at message 1"]);
    let mut loud = Loud::new(settings());
    loud.send(B, &SESSION, 500, 2);
    let told = ["SESSION001 Late 500", "500: session SESSION001: joined at message 500, what came before is unknown"];
    assert_eq!(loud.take(), told);
    assert_eq!(loud.channel.counts().notices, 1);
}

#[test]
fn a_loss_is_named_in_front_of_what_follows_it() {
    let mut loud = Loud::new(settings());
    loud.send(A, &SESSION, 1, 2);
    loud.take();
    loud.send(A, &SESSION, 4, 2);
    loud.send(A, &SESSION, 9, 1);
    loud.send(A, &SESSION, 12, 0);
    loud.poll(1_007);
    let told = ["4: session SESSION001: messages 3 to 3 lost", "9: session SESSION001: messages 6 to 8 lost"];
    assert_eq!(loud.take(), told);
    // The end of it is told in front of the next message; losses without one between them are one.
    loud.send(A, &SESSION, 14, 1);
    loud.poll(2_014);
    assert_eq!(loud.take(), ["14: session SESSION001: messages 10 to 13 lost"]);
    assert_eq!(loud.channel.counts().notices, 4);
}

#[test]
fn a_session_left_with_a_loss_says_so_when_the_next_begins() {
    let mut loud = Loud::new(settings());
    loud.send(A, &SESSION, 1, 2);
    loud.take();
    loud.send(A, &SESSION, 5, 0);
    for role in [A, B] {
        loud.send(role, &NEXT_SESSION, 3, 1);
    }
    loud.poll(1_007);
    let told = [
        "SESSION002 New 1",
        "3: session SESSION001: messages 3 to 4 lost; session SESSION002: begins at message 1; session SESSION002: messages 1 \
         to 2 lost",
    ];
    assert_eq!(loud.take(), told);
}

#[test]
fn lines_that_were_silent_and_are_back_say_so_in_front_of_the_next_message() {
    let mut loud = Loud::new(settings());
    loud.send(A, &SESSION, 1, 2);
    loud.take();
    loud.poll(5_007);
    loud.send(A, &SESSION, 3, 0);
    loud.poll(5_007);
    loud.send(B, &SESSION, 3, 1);
    assert_eq!(loud.take(), ["3: session SESSION001: was silent and is back"]);
    loud.send(B, &SESSION, 4, 1);
    loud.send(B, &SESSION, 5, moldudp64::END_OF_SESSION);
    loud.poll(90_000);
    loud.send(B, &SESSION, 5, moldudp64::END_OF_SESSION);
    loud.send(B, &NEXT_SESSION, 1, 1);
    let told = ["SESSION002 New 1", "1: session SESSION002: begins at message 1"];
    assert_eq!(loud.take(), told, "after its end a session may be silent");
}

#[test]
fn numbers_that_begin_again_say_so() {
    let mut loud = Loud::new(settings());
    loud.send(A, &SESSION, 1, 600);
    loud.send(B, &SESSION, 601, 600);
    loud.take();
    // All of it arrives at time 7: what makes it stale is that time has passed.
    loud.channel.poll(6_000);
    for sequence in [1, 3] {
        let payload = packet(&SESSION, sequence, 2);
        loud.channel.admit(0, A, &payload, 6_000).unwrap();
        loud.channel.deliver(|_| &payload, UTC_OFFSET_NS + 7 - 6_000, &mut loud.told);
    }
    let told = ["SESSION001 Restarted 1", "1: session SESSION001: numbers begin again at message 1"];
    assert_eq!(loud.take(), told);
}

#[test]
fn the_longest_text_fits_and_names_are_printable() {
    let mut loud = Loud::new(settings());
    let far = u64::MAX - 100;
    loud.send(A, &[0xFF; 10], 1, 1);
    loud.take();
    for (role, sequence) in [(A, far), (B, far)] {
        loud.send(role, &[0xFF; 10], sequence, 0);
    }
    for role in [A, B] {
        loud.send(role, b"A\0B\n=;:~\x7F ", far, 0);
    }
    for role in [A, B] {
        loud.send(role, b"A\0B\n=;:~\x7F ", far, 1);
    }
    loud.poll(1_007);
    let told = loud.take().pop().unwrap();
    assert!(
        told.starts_with(&format!("{far}: session ??????????: messages 2 to {} lost; session A?B?=;:~?: ", far - 1))
    );
    assert!(told.ends_with(&format!("; session A?B?=;:~?: messages 1 to {} lost", far - 1)), "{told}");
}

#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::super::login;
use super::*;

const SESSION: Session = *b"SESS01    ";
const S: u64 = 1_000_000_000;

fn client(version: Version) -> Client {
    let login = Login::new("FMUSER", "secret").unwrap();
    Client::new(&login, version, Timers::default(), 0)
}

fn bytes(packets: &[Packet<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    packets.iter().for_each(|packet| packet.write(&mut out).unwrap());
    out
}

fn accepted(next: u64) -> Packet<'static> {
    Packet::LoginAccepted { session: SESSION, next }
}

/// The events, in words.
fn events(client: &mut Client) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(event) = client.next() {
        words.push(match event {
            Event::LoggedIn { session, next } => format!("in {} {next}", String::from_utf8_lossy(&session).trim_end()),
            Event::Message { sequence, bytes } => format!("{sequence}={}", bytes.escape_ascii()),
            Event::Unsequenced(bytes) => format!("?={}", bytes.escape_ascii()),
            Event::Heartbeat => "alive".to_owned(),
            Event::EndOfSession { next } => format!("end {next}"),
            Event::Rejected(reason) => format!("rejected {reason:?}"),
            Event::Failed(error) => format!("failed {error:?}"),
        });
    }
    words
}

/// What a fresh client makes of some packets.
fn after(version: Version, packets: &[Packet<'_>]) -> Vec<String> {
    let mut client = client(version);
    let bytes = bytes(packets);
    assert_eq!(client.receive(&bytes, 5), bytes.len());
    events(&mut client)
}

fn after_raw(raw: &[u8]) -> Vec<String> {
    let mut client = client(Version::V3_00);
    client.receive(raw, 5);
    events(&mut client)
}

#[test]
fn a_session_from_login_to_end() {
    let mut client = client(Version::V3_00);
    assert_eq!(client.outgoing().len(), 49, "the login is the first thing that is sent");
    client.sent(49, 0);
    let stream = bytes(&[
        Packet::Debug(b"welcome"),
        accepted(42),
        Packet::Sequenced(b"a"),
        Packet::ServerHeartbeat,
        Packet::Sequenced(b""),
        Packet::Debug(b""),
        Packet::EndOfSession,
    ]);
    client.receive(&stream, 7);
    assert_eq!(events(&mut client), ["in SESS01 42", "42=a", "alive", "43=", "end 44"]);
    assert!(client.has_ended());
    assert_eq!((client.session(), client.next_sequence()), (Some(SESSION), 44));
    let counts =
        ClientCounts { bytes: stream.len() as u64, messages: 2, heartbeats: 1, debug: 2, ..Default::default() };
    assert_eq!(client.counts(), counts);
}

#[test]
fn unsequenced_data_is_a_message_from_4_00_on_and_takes_no_number() {
    let stream = [accepted(1), Packet::Sequenced(b"a"), Packet::Unsequenced(b"u"), Packet::Sequenced(b"b")];
    assert_eq!(after(Version::V3_00, &stream), ["in SESS01 1", "1=a", "2=b"]);
    for version in [Version::V4_00, Version::V4_10] {
        assert_eq!(after(version, &stream), ["in SESS01 1", "1=a", "?=u", "2=b"]);
    }
    let login = Login::new("FMUSER", "secret").unwrap().with_heartbeat(1500).unwrap();
    assert_eq!(Client::new(&login, Version::V3_00, Timers::default(), 0).version, Version::V4_10);
}

#[test]
fn what_ends_a_connection() {
    let data = Packet::Sequenced(b"a");
    let in_1 = "in SESS01 1";
    let v = Version::V3_00;
    assert_eq!(after(v, &[data.clone(), accepted(1)]), ["failed BeforeLogin(83)"]);
    assert_eq!(after(v, &[Packet::EndOfSession, accepted(1)]), ["failed BeforeLogin(90)"]);
    assert_eq!(after(v, &[accepted(1), data.clone(), accepted(1), data.clone()]), [in_1, "1=a", "failed SecondAnswer"]);
    let reject = Packet::LoginRejected(Reject::NotAuthorised);
    assert_eq!(after(v, &[accepted(1), reject.clone()]), [in_1, "failed SecondAnswer"]);
    assert_eq!(after(v, &[reject, accepted(1)]), ["rejected NotAuthorised"]);
    assert_eq!(after(v, &[Packet::LoginRejected(Reject::Other(b'?'))]), ["rejected Other(63)"]);
    assert_eq!(after(v, &[accepted(1), Packet::EndOfSession, data.clone()]), [in_1, "end 1", "failed AfterEnd"]);
    let last = after(v, &[accepted(u64::MAX - 1), data.clone(), data]);
    assert_eq!(last, ["in SESS01 18446744073709551614", "18446744073709551614=a", "failed AfterEnd"]);
    assert_eq!(after_raw(b"\0\0"), ["failed Malformed(Empty)"]);
    let bad = [&bytes(&[accepted(1)])[..], b"\0\0\0\x01H"].concat();
    assert_eq!(after_raw(&bad), [in_1, "failed Malformed(Empty)"]);
    assert_eq!(after_raw(b"\0\x1fA    SESS01                  4x"), ["failed Malformed(Sequence)"]);
    assert_eq!(after_raw(b"\0\x02Hx\0\x01H"), ["failed Malformed(Length { kind: 72, length: 1 })"]);
}

#[test]
fn what_is_unknown_is_skipped_by_its_length() {
    let mut client = client(Version::V3_00);
    let unknown = b"\0\x05\xf0abcd\0\x01R\0\x01O\0\x01q";
    let stream = [&bytes(&[accepted(1)])[..], unknown, &bytes(&[Packet::Sequenced(b"a")])].concat();
    client.receive(&stream, 0);
    assert_eq!(events(&mut client), ["in SESS01 1", "1=a"]);
    assert_eq!(client.counts().unknown, 4);
}

#[test]
fn a_heartbeat_is_sent_when_nothing_else_was_for_a_second() {
    let mut client = client(Version::V3_00);
    client.poll(5 * S);
    assert_eq!(client.outgoing().len(), 49, "the login comes first");
    client.sent(20, 2 * S);
    client.sent(29, 2 * S);
    client.poll(3 * S - 1);
    assert!(client.outgoing().is_empty());
    client.poll(3 * S);
    client.poll(9 * S);
    assert_eq!(client.outgoing(), b"\0\x01R", "one, however long it waits");
    client.sent(3, 9 * S);
    client.poll(10 * S - 1);
    assert!(client.outgoing().is_empty() && client.due_ns() == 10 * S);
    client.log_out();
    assert_eq!(client.outgoing(), b"\0\x01O");
    client.receive(&bytes(&[accepted(1)]), 11 * S);
    assert!(events(&mut client).is_empty(), "after a logout nothing counts");
}

#[test]
fn silence_ends_a_connection_and_any_byte_is_a_sign_of_life() {
    let mut client = client(Version::V3_00);
    client.receive(&bytes(&[accepted(1)]), S);
    assert_eq!(events(&mut client), ["in SESS01 1"]);
    client.poll(16 * S - 1);
    assert!(events(&mut client).is_empty());
    // Half a packet.
    client.receive(b"\0\x09S", 10 * S);
    client.poll(25 * S - 1);
    assert!(events(&mut client).is_empty());
    client.not_read(24 * S);
    client.poll(39 * S - 1);
    assert!(events(&mut client).is_empty(), "we did not listen");
    client.poll(39 * S);
    assert_eq!(events(&mut client), ["failed Idle"]);
    client.poll(90 * S);
    client.receive(b"12345678", 91 * S);
    assert!(events(&mut client).is_empty(), "once");
}

#[test]
fn heartbeats_alone_are_no_answer_to_a_login() {
    let mut client = client(Version::V3_00);
    client.sent(49, 0);
    for second in 1..15 {
        client.receive(b"\0\x01H", second * S);
        client.poll(second * S);
        assert_eq!(events(&mut client), ["alive"]);
    }
    client.receive(b"\0\x01H", 15 * S);
    client.poll(15 * S);
    assert_eq!(events(&mut client), ["failed LoginTimeout"]);
}

#[test]
fn who_takes_nothing_has_no_space_and_loses_nothing() {
    let mut client = client(Version::V3_00);
    let message = vec![b'x'; 1000];
    let mut stream = bytes(&[accepted(1)]);
    (0..500).for_each(|_| Packet::Sequenced(&message).write(&mut stream).unwrap());
    let mut rest = &stream[..];
    let mut got = 0;
    while !rest.is_empty() {
        let taken = client.receive(rest, 1);
        rest = &rest[taken..];
        if taken == 0 {
            assert!(client.space().is_empty());
            got += events(&mut client).len();
            assert!(!client.space().is_empty(), "what was taken gives space");
        }
    }
    got += events(&mut client).len();
    assert_eq!(got, 501);
}

#[test]
fn split_at_every_byte() {
    let stream = bytes(&[
        Packet::Debug(b"hello"),
        accepted(7),
        Packet::Sequenced(b"first"),
        Packet::Unsequenced(b"u"),
        Packet::ServerHeartbeat,
        Packet::Sequenced(b""),
        Packet::Sequenced(&[9; 300]),
        Packet::EndOfSession,
    ]);
    let mut whole = client(Version::V4_00);
    whole.receive(&stream, 1);
    let wanted = events(&mut whole);
    assert_eq!(wanted.len(), 7);
    for cut in 0..=stream.len() {
        let mut client = client(Version::V4_00);
        client.receive(&stream[..cut], 1);
        let mut got = events(&mut client);
        client.receive(&stream[cut..], 2);
        got.extend(events(&mut client));
        assert_eq!(got, wanted, "cut at {cut}");
    }
}

/// Packets of a server, honest or not, as bytes.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..40);
    let part = prop_oneof![
        8 => payload().prop_map(|message| bytes(&[Packet::Sequenced(&message)])),
        2 => payload().prop_map(|message| bytes(&[Packet::Debug(&message)])),
        2 => Just(bytes(&[Packet::ServerHeartbeat])),
        1 => Just(bytes(&[Packet::EndOfSession])),
        1 => (1..u64::MAX).prop_map(|next| bytes(&[accepted(next)])),
        1 => payload(),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(length, kind)| [&length.to_be_bytes()[..], &[kind]].concat()),
    ];
    prop::collection::vec(part, 0..30).prop_map(|parts| [&bytes(&[accepted(1)])[..], &parts.concat()].concat())
}

proptest! {
    /// However TCP cuts it, the same comes out, whatever the server sends; and messages are numbered without a hole.
    #[test]
    fn any_stream_in_any_pieces(stream in any_stream(), cuts in prop::collection::vec(1..50_usize, 1..200)) {
        let mut whole = client(Version::V4_00);
        whole.receive(&stream, 1);
        let wanted = events(&mut whole);
        let mut client = client(Version::V4_00);
        let (mut rest, mut got, mut cuts) = (&stream[..], Vec::new(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let len = cuts.next().unwrap().min(rest.len());
            prop_assert_eq!(client.receive(&rest[..len], 2), len);
            rest = &rest[len..];
            got.extend(events(&mut client));
        }
        prop_assert_eq!(&got, &wanted);
        let numbers: Vec<u64> =
            got.iter().filter_map(|word| word.split_once('=')?.0.parse().ok()).collect();
        prop_assert!(numbers.iter().copied().eq(1..1 + numbers.len() as u64), "{:?}", numbers);
        prop_assert_eq!(client.counts(), whole.counts());
    }
}

#[test]
fn a_login_asks_for_what_it_is_told_to() {
    let login = Login::new("FMUSER", "secret").unwrap().from(login::session("SESS01"), 42);
    let client = Client::new(&login, Version::V3_00, Timers::default(), 0);
    assert_eq!(client.outgoing(), b"\0\x2fLFMUSERsecret        SESS01                  42");
}

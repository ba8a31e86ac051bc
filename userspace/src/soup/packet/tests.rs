#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::super::login;
use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn written(packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.write(&mut out).unwrap();
    out
}

/// The one packet that the bytes are.
fn read(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (kind, payload) = split(bytes)?.expect("whole");
    assert_eq!(payload.len() + HEADER_BYTES, bytes.len(), "nothing behind it");
    Packet::parse(kind, payload)
}

fn login() -> Login {
    Login::new("FMUSER", "secret").unwrap()
}

fn accepted(name: &[u8; 10], number: &[u8; 20]) -> Vec<u8> {
    [b"\0\x1fA", &name[..], &number[..]].concat()
}

#[test]
fn packets_have_the_bytes_of_the_vectors() {
    let session = login::session("SESS01").unwrap();
    for (hex, packet) in [
        (
            "002f 4c 464d55534552 73656372657420202020 20202020202020202020 2020202020202020202020202020202020202031",
            Packet::LoginRequest(login()),
        ),
        (
            "001f 41 20202020534553533031 2020202020202020202020202020202020203432",
            Packet::LoginAccepted { session, next: 42 },
        ),
        ("0001 48", Packet::ServerHeartbeat),
        ("0001 52", Packet::ClientHeartbeat),
        ("0001 5a", Packet::EndOfSession),
        ("0001 4f", Packet::Logout),
        ("0002 4a 41", Packet::LoginRejected(Reject::NotAuthorised)),
        ("0002 4a 53", Packet::LoginRejected(Reject::NoSession)),
        ("0006 53 68656c6c6f", Packet::Sequenced(b"hello")),
        ("0001 53", Packet::Sequenced(b"")),
        ("0006 55 68656c6c6f", Packet::Unsequenced(b"hello")),
        ("0003 2b 6869", Packet::Debug(b"hi")),
    ] {
        assert_eq!(written(&packet), bytes(hex), "{packet:?}");
        assert_eq!(read(&bytes(hex)), Ok(packet));
    }
}

#[test]
fn the_login_of_4_10_has_a_timeout_behind_it() {
    let session = login::session("SESS01");
    let login = login().with_heartbeat(2_500).unwrap().from(session, 0);
    let want = "0034 4c 464d55534552 73656372657420202020 20202020534553533031 2020202020202020202020202020202020202030 2032353030";
    let packet = Packet::LoginRequest(login);
    assert_eq!(written(&packet), bytes(want));
    assert_eq!(written(&packet).len(), 54);
    assert_eq!(read(&bytes(want)), Ok(packet));
    for ms in [0, 100_000] {
        assert_eq!(self::login().with_heartbeat(ms), Err(login::LoginError::Heartbeat(ms)));
    }
}

#[test]
fn numbers_and_names_are_read_with_padding_on_either_side() {
    let session = login::session("SESS01").unwrap();
    let wanted = Ok(Packet::LoginAccepted { session, next: 42 });
    for name in [b"    SESS01", b"SESS01    ", b"SESS01\0\0\0\0", b"\0\0 SESS01 "] {
        for number in
            [b"                  42", b"42                  ", b"00000000000000000042", b"\0\0\x0042             \0\0"]
        {
            assert_eq!(read(&accepted(name, number)), wanted, "{name:?} {number:?}");
        }
    }
    // A name may have a space within.
    let spaced = accepted(b"  SESS 01 ", b"                   1");
    let spaced = read(&spaced);
    assert_eq!(spaced, Ok(Packet::LoginAccepted { session: login::session("SESS 01").unwrap(), next: 1 }));
}

#[test]
fn what_is_no_number_or_name_is_refused() {
    let name = b"    SESS01";
    for number in [
        b"                    ",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"                 4 2",
        b"                 -42",
        b"                 +42",
        b"                4.20",
        b"                0x2a",
        b"                   0",
        b"18446744073709551616",
        b"99999999999999999999",
    ] {
        assert_eq!(read(&accepted(name, number)), Err(Malformed::Sequence), "{}", number.escape_ascii());
    }
    let most = accepted(name, b"18446744073709551615");
    assert!(matches!(read(&most), Ok(Packet::LoginAccepted { next: u64::MAX, .. })));
    for name in [b"          ", b"\0\0\0\0\0\0\0\0\0\0", b"SESS\x0701   ", b"  SESS\xff01 "] {
        assert_eq!(read(&accepted(name, b"                   1")), Err(Malformed::Session), "{}", name.escape_ascii());
    }
}

#[test]
fn a_payload_of_another_length_than_its_type_has_is_refused() {
    assert_eq!(split(&[0, 0, b'H']), Err(Malformed::Empty));
    assert_eq!(split(&[0, 0]), Err(Malformed::Empty));
    for (kind, good) in
        [(b'A', vec![30]), (b'J', vec![1]), (b'H', vec![0]), (b'Z', vec![0]), (b'R', vec![0]), (b'O', vec![0])]
    {
        for length in (0..60).filter(|length| !good.contains(length)) {
            let payload = vec![b'1'; length];
            assert_eq!(Packet::parse(kind, &payload), Err(Malformed::Length { kind, length }), "{length}");
        }
    }
    for length in (0..60).filter(|length| ![46, 51].contains(length)) {
        let payload = vec![b'1'; length];
        assert_eq!(Packet::parse(b'L', &payload), Err(Malformed::Length { kind: b'L', length }));
    }
    assert_eq!(Packet::parse(b'?', b"whatever"), Ok(Packet::Unknown(b'?')));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut out = vec![7];
    let most = vec![1; MAX_PAYLOAD_BYTES];
    Packet::Sequenced(&most).write(&mut out).unwrap();
    assert_eq!((out.len(), &out[..4]), (1 + MAX_PACKET_BYTES, &[7, 0xff, 0xff, b'S'][..]));
    assert_eq!(read(&out[1..]), Ok(Packet::Sequenced(&most)));
    let more = vec![1; MAX_PAYLOAD_BYTES + 1];
    assert_eq!(Packet::Sequenced(&more).write(&mut out), Err(TooLong(MAX_PAYLOAD_BYTES + 1)));
    assert_eq!(out.len(), 1 + MAX_PACKET_BYTES, "nothing was appended");
    assert_eq!(Login::new("FMUSER1", "x"), Err(login::LoginError::Username));
    assert_eq!(Login::new("ü", "x"), Err(login::LoginError::Username));
    assert_eq!(Login::new("", "longer than 10"), Err(login::LoginError::Password));
    assert_eq!(Login::new("", "a\tb"), Err(login::LoginError::Password));
    assert_eq!(login::session("ELEVEN CHARS"), None);
    assert_eq!(login::session(""), None);
}

#[test]
fn a_password_is_not_printed() {
    let text = format!("{:?}", Packet::LoginRequest(login()));
    assert!(text.contains("FMUSER") && !text.contains("secret"), "{text}");
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| written(&Packet::Sequenced(&bytes))),
        prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| written(&Packet::Debug(&bytes))),
        ("[A-Z0-9]{1,10}", 1..u64::MAX).prop_map(|(name, next)| {
            written(&Packet::LoginAccepted { session: login::session(&name).unwrap(), next })
        }),
        ("[a-z]{0,6}", "[a-z]{0,10}", any::<u64>(), prop::option::of(1..100_000_u32)).prop_map(
            |(user, password, sequence, ms)| {
                let login = Login::new(&user, &password).unwrap().from(None, sequence);
                let login = ms.map_or(login.clone(), |ms| login.with_heartbeat(ms).unwrap());
                written(&Packet::LoginRequest(login))
            }
        ),
        Just(written(&Packet::ServerHeartbeat)),
    ]
}

proptest! {
    /// Whatever was written is read as it was, and a packet of which a byte is missing is waited for.
    #[test]
    fn round_trip(bytes in any_packet()) {
        for cut in 0..bytes.len() {
            prop_assert_eq!(split(&bytes[..cut]), Ok(None));
        }
        let packet = read(&bytes).unwrap();
        prop_assert_eq!(written(&packet), bytes.clone());
    }

    /// No bytes make it panic, and what it says lies within them.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some((kind, payload))) = split(&bytes) {
            prop_assert!(payload.len() + HEADER_BYTES <= bytes.len());
            let _ = Packet::parse(kind, payload);
        }
        let _ = number_of(&bytes);
    }
}

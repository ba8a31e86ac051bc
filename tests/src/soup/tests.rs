//! The server against a client of plain sockets.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;

fn server() -> SoupServer {
    let settings = ServerSettings { heartbeat: Duration::from_millis(20), ..Default::default() };
    let server = SoupServer::start(settings, "SESS01").unwrap();
    server.append((1..=5).map(|number| format!("m{number}").into_bytes()));
    server
}

fn connect(server: &SoupServer, session: &str, sequence: u64) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&packet::packet(b'L', format!("FMUSERsecret    {session:>10}{sequence:>20}").as_bytes())).unwrap();
    stream
}

/// So many bytes that are no heartbeats.
fn read(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut packet).ok()?;
        let kind = *packet.first()?;
        if kind != b'H' {
            return Some((kind, packet[1..].to_vec()));
        }
    }
}

fn text(stream: &mut TcpStream) -> String {
    read(stream).map_or("closed".to_owned(), |(kind, payload)| {
        format!(
            "{} {}",
            char::from(kind),
            String::from_utf8_lossy(&payload).split_whitespace().collect::<Vec<_>>().join(" ")
        )
    })
}

#[test]
fn serves_a_session_from_any_number_and_what_is_appended() {
    let server = server();
    let mut stream = connect(&server, "", 4);
    assert_eq!([(); 3].map(|()| text(&mut stream)), ["A SESS01 4", "S m4", "S m5"]);
    server.append([b"m6".to_vec()]);
    assert_eq!(text(&mut stream), "S m6");
    let mut newest = connect(&server, "SESS01", 0);
    assert_eq!([(); 2].map(|()| text(&mut newest)), ["A SESS01 6", "S m6"]);
    server.forget(6);
    assert_eq!(text(&mut connect(&server, "SESS01", 1)), "A SESS01 6");
    server.end_session();
    assert_eq!([(); 2].map(|()| text(&mut stream)), ["Z ", "closed"]);
    assert_eq!(text(&mut connect(&server, "SESS01", 7)), "J S", "that session can no longer be joined");
    server.begin_session("SESS02");
    assert_eq!(text(&mut connect(&server, "SESS01", 7)), "J S");
    assert_eq!(text(&mut connect(&server, "", 1)), "A SESS02 1");
    let asked = server.asked();
    assert_eq!((asked[0].clone(), asked[1].clone()), ((String::new(), 4), ("SESS01".to_owned(), 0)));
    assert_eq!(server.counts().rejects, 2);
}

#[test]
fn each_trouble_is_what_it_says() {
    let server = server();
    let with = |trouble, reads: usize| -> Vec<String> {
        server.go_wrong([trouble]);
        let mut stream = connect(&server, "", 1);
        (0..reads).map(|_| text(&mut stream)).collect()
    };
    assert_eq!(with(Trouble::Reject(b'A'), 2), ["J A", "closed"]);
    assert_eq!(with(Trouble::Early, 1), ["S early"]);
    assert_eq!(with(Trouble::Twice, 2), ["A SESS01 1", "A SESS01 1"]);
    assert_eq!(with(Trouble::NoNumber, 1), ["A SESS01 4x2"]);
    assert_eq!(with(Trouble::Close { after: 2 }, 4), ["A SESS01 1", "S m1", "S m2", "closed"]);
    assert_eq!(with(Trouble::CloseWithin { after: 1 }, 3), ["A SESS01 1", "S m1", "closed"]);
    assert_eq!(with(Trouble::Empty { after: 0 }, 2), ["A SESS01 1", "closed"]);
    assert!(matches!(&with(Trouble::Flood { after: 0 }, 2)[1][..1], "+" | "?"));
    let garbage = with(Trouble::Garbage { after: 1 }, 3);
    assert_eq!(garbage[..2], ["A SESS01 1", "S m1"]);
    assert_ne!(garbage[2], "S m2");
    // Half a message, and then not even a heartbeat.
    server.go_wrong([Trouble::Stall { after: 5 }]);
    server.append([vec![b'x'; 100]]);
    let mut stalled = connect(&server, "", 5);
    assert_eq!(text(&mut stalled), "A SESS01 5");
    server.go_wrong([Trouble::Mute]);
    let mut mute = connect(&server, "", 1);
    mute.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(mute.read(&mut [0; 10]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // After the trouble it is as it was.
    assert_eq!(text(&mut connect(&server, "", 1)), "A SESS01 1");
}

#[test]
fn what_is_written_in_pieces_is_the_same() {
    let settings = ServerSettings { pieces: 3, login: Some(("FMUSER".into(), "secret".into())), ..Default::default() };
    let server = SoupServer::start(settings, "S").unwrap();
    server.append((0..50).map(|number| vec![number; usize::from(number)]));
    let mut stream = connect(&server, "", 1);
    assert_eq!(text(&mut stream), "A S 1");
    for number in 0..50 {
        assert_eq!(read(&mut stream), Some((b'S', vec![number; usize::from(number)])));
    }
    let mut stranger = TcpStream::connect(server.address()).unwrap();
    stranger.write_all(&packet::packet(b'L', format!("OTHER secret    {:>10}{:>20}", "", 1).as_bytes())).unwrap();
    assert_eq!(text(&mut stranger), "J A");
}

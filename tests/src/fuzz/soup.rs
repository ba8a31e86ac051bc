//! SoupBinTCP as the client reads it: any bytes in any pieces. What happens does not depend on where they are cut, and
//! messages are numbered without a hole from what the login answered.
#![forbid(unsafe_code)]

use feedhandler::soup::client::{Client, Event, Timers};
use feedhandler::soup::login::{Login, Version};

/// Any stream of a server.
pub(super) fn soup(data: &[u8]) {
    let Some((&[version, step], stream)) = data.split_first_chunk() else { return };
    let whole = events(version, stream, usize::MAX);
    assert_eq!(whole, events(version, stream, usize::from(step) + 1), "in one piece, and in pieces");
}

fn events(version: u8, mut stream: &[u8], step: usize) -> Vec<String> {
    let login = Login::new("fuzz", "fuzz").expect("legal");
    let version = Version::ALL[usize::from(version) % Version::ALL.len()];
    let mut client = Client::new(&login, version, Timers::default(), 0);
    let (mut seen, mut expected) = (Vec::new(), 0);
    loop {
        let taken = client.receive(&stream[..stream.len().min(step)], 1);
        stream = &stream[taken..];
        while let Some(event) = client.next() {
            match event {
                Event::LoggedIn { next, .. } => expected = next,
                Event::Message { sequence, .. } => {
                    assert_eq!(sequence, expected);
                    expected = expected.wrapping_add(1);
                }
                _ => {}
            }
            seen.push(format!("{event:?}"));
        }
        if stream.is_empty() || taken == 0 {
            return seen;
        }
    }
}

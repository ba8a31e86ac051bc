//! The handler with one channel over TCP, its servers on the far side, and a consumer.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use feedhandler_testkit::consumer::Receiver;
use feedhandler_testkit::mold;
use feedhandler_testkit::soup::{ServerSettings, SoupServer};

use crate::site::{Running, Site};

/// How long anything may take on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);
const METRICS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9184);

/// Session, number and content of a message that came out.
pub type Got = (String, u64, Vec<u8>);

/// The message of a number, of a length of its own; some are empty.
pub fn message(sequence: u64) -> Vec<u8> {
    let text = format!("?{sequence}").into_bytes();
    let len = usize::try_from(sequence * 7 % 60).expect("small");
    text.into_iter().cycle().take(len).collect()
}

pub fn messages(numbers: Range<u64>) -> impl Iterator<Item = Vec<u8>> {
    numbers.map(message)
}

pub struct Rig {
    pub site: Site,
    pub servers: Vec<SoupServer>,
}

impl Rig {
    pub fn new(servers: &[ServerSettings], session: &str) -> Self {
        let site = Site::new();
        let start = |(port, settings): (u16, &ServerSettings)| {
            let settings = ServerSettings { address: SocketAddrV4::new(SERVER, port), ..settings.clone() };
            site.far.enter(|| SoupServer::start(settings, session)).expect("inside").expect("a server")
        };
        let servers = (19_000..).zip(servers).map(start).collect();
        Self { site, servers }
    }

    /// Starts the handler with what the destination sends, where the channel begins, and more keys of the servers' table.
    pub fn start(&self, format: &str, start: &str, more: &str) -> Running {
        let servers: Vec<String> = self.servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
        let table = format!(
            "[feed.channel.soupbintcp]\nservers = [{}]\nusername = \"FMUSER\"\npassword = \"secret\"\nreconnect_ms = 10\n\
             reconnect_max_ms = 100\n{more}\n",
            servers.join(", ")
        );
        let config = self.site.config("tcp", |text| {
            let (head, rest) = text.split_once("[[feed.channel.line]]").expect("a line");
            let destination = &rest[rest.find("[[destination]]").expect("a destination")..];
            let handler = format!("metrics = \"{METRICS}\"\n[[interface]]");
            let head = head.replacen("[[interface]]", &handler, 1).replace("\"native\"", "\"socket\"");
            // Nothing but the destination has an interface.
            let (before, after) = head.split_once("[[interface]]").expect("an interface");
            let after = &after[after.find("[[interface]]").expect("two interfaces")..];
            let channel = format!("max_orders = 100_000\nstart = \"{start}\"");
            format!("{before}{after}{table}{destination}format = \"{format}\"\n").replace("max_orders = 1000", &channel)
        });
        self.site.launch("tcp", self.site.command(&config))
    }

    pub fn consumer(&self) -> Receiver {
        consumer(&self.site)
    }

    /// So many messages, as they come out. The packets that end are among it only by what they bring.
    pub fn receive(&self, consumer: &mut Receiver, count: usize) -> Vec<Got> {
        let mut got = Vec::new();
        let deadline = Instant::now() + 2 * PATIENCE;
        while got.len() < count {
            assert!(Instant::now() < deadline, "{} of {count}, the last {:?}: {}", got.len(), got.last(), self.words());
            let Some((payload, _)) = consumer.receive().expect("a socket") else { continue };
            let view = mold::parse(payload).expect("MoldUDP64");
            let blocks = (view.sequence..).zip(&view.blocks);
            got.extend(blocks.map(|(sequence, block)| (text(&view.session), sequence, block.to_vec())));
        }
        assert_eq!(got.len(), count, "more than there should be: {:?}", got.last());
        got
    }

    /// The next end of session.
    pub fn end(&self, consumer: &mut Receiver) -> (String, u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no end: {}", self.words());
            let Some((payload, _)) = consumer.receive().expect("a socket") else { continue };
            let view = mold::parse(payload).expect("MoldUDP64");
            if view.is_end {
                return (text(&view.session), view.sequence);
            }
            assert!(view.blocks.is_empty(), "messages instead of the end");
        }
    }

    /// A metric now, by its name with labels as it stands there.
    pub fn metric(&self, name: &str) -> u64 {
        let get = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(METRICS)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = self.site.namespace.enter(get).expect("inside").expect("metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// Waits until a metric has this value: counters are published after what they count has left.
    pub fn settles(&self, name: &str, value: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(name) != value {
            assert!(Instant::now() < deadline, "{name} is {} instead of {value}: {}", self.metric(name), self.words());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn words(&self) -> String {
        std::fs::read_to_string(self.site.files.path().join("tcp.log")).unwrap_or_default()
    }
}

/// A socket on the far side that has joined the destination's group.
pub fn consumer(site: &Site) -> Receiver {
    let group = "239.20.0.1:30001".parse().expect("a group");
    let join = || Receiver::join(group, Ipv4Addr::new(10, 9, 2, 2));
    site.far.enter(join).expect("inside").expect("a socket")
}

fn text(session: &[u8; 10]) -> String {
    String::from_utf8_lossy(session).trim().to_owned()
}

impl Running {
    /// The handler's log so far.
    pub fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

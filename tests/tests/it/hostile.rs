//! Clients of the control service that mean harm, while packets come: nobody else notices, and not one packet is lost.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use feedhandler::control::{NewToken, Role};
use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::{Event, GetStatusRequest, GetStatusResponse, WatchEventsRequest};
use feedhandler_testkit::mold::{Packet, Session};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::site::{Running, Site};

const SESSION: Session = *b"0000000042";
/// A system event, which yields no record.
const MESSAGE: &[u8; 12] = b"S\0\0\0\0\0\0\0\0\0\x01O";
const CLIENTS: usize = 1_000;
const PORT: u16 = 50_052;

/// Where a client goes, and with what.
#[derive(Clone)]
struct Way {
    endpoint: Endpoint,
    token: String,
}

impl Way {
    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        self.endpoint.connect().await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse().expect("a token"));
        request
    }

    async fn watch(&self, channel: Channel) -> Result<Streaming<Event>, Status> {
        let request = self.request(WatchEventsRequest::default());
        ControlClient::new(channel).watch_events(request).await.map(tonic::Response::into_inner)
    }

    async fn status(&self) -> Result<GetStatusResponse, Status> {
        let channel = self.connect().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        ControlClient::new(channel).get_status(self.request(GetStatusRequest {})).await.map(tonic::Response::into_inner)
    }
}

fn tls(site: &Site) -> (String, Way) {
    let key = rcgen::generate_simple_self_signed(vec!["handler".to_owned()]).expect("a certificate");
    let token = NewToken::make("eyes", Role::Viewer).expect("a token");
    let path = |name: &str| site.files.path().join(name).display().to_string();
    for (name, text) in
        [("server.pem", key.cert.pem()), ("server.key", key.signing_key.serialize_pem()), ("tokens", token.line)]
    {
        std::fs::write(path(name), text).expect("a file");
    }
    let keys = format!(
        "grpc_tls = \"0.0.0.0:{PORT}\"\ntokens_file = \"{}\"\n[handler.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        path("tokens"),
        path("server.pem"),
        path("server.key")
    );
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(key.cert.pem())).domain_name("handler");
    let endpoint = Endpoint::from_shared(format!("https://10.9.1.1:{PORT}")).expect("an address");
    (keys, Way { endpoint: endpoint.tls_config(tls).expect("TLS"), token: token.token })
}

/// So many clients watch at once, and read nothing; how many may, and all others' refusals. The first stay until all came.
async fn crowd(way: &Way) -> (usize, Vec<Status>) {
    let at_once = Arc::new(Semaphore::new(50));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (way, at_once) = (way.clone(), Arc::clone(&at_once));
        clients.spawn(async move {
            let _turn = at_once.acquire().await.expect("never closed");
            let channel = way.connect().await.map_err(|error| Status::unknown(format!("{error:?}")))?;
            let watched = way.watch(channel.clone()).await;
            watched.map(|stream| (channel, stream))
        });
    }
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    while let Some(client) = clients.join_next().await {
        match client.expect("no panic") {
            Ok(watching) => held.push(watching),
            Err(status) => refused.push(status),
        }
    }
    (held.len(), refused)
}

fn assert_clear(refused: &[Status]) {
    let unclear: Vec<_> = refused.iter().filter(|status| status.code() != Code::ResourceExhausted).collect();
    assert!(unclear.is_empty(), "{} of {} say: {:?}", unclear.len(), refused.len(), unclear[0]);
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn status(handler: &Running) -> Value {
    let output = handler.feedctl(&["--output", "json", "status"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn hostile_clients_harm_neither_traffic_nor_other_clients() {
    let _turn = crate::turn::turn();
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).expect("files for a thousand clients");
    let site = Site::new();
    let (keys, way) = tls(&site);
    let config = site.config("h", |text| text.replacen("[[interface]]", &format!("{keys}[[interface]]"), 1));
    let handler = site.launch("h", site.command(&config));
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let sender = site.sender();
    std::thread::scope(|scope| {
        // Whatever fails below, the threads end.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let ending = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let mut packet = Packet::new(&SESSION, sent.load(Relaxed) + 1);
                packet.push(MESSAGE);
                sender.send(&packet.into_payload()).expect("sent");
                sent.fetch_add(1, Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let good = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Relaxed) {
                let began = Instant::now();
                status(&handler);
                longest = longest.max(began.elapsed());
                std::thread::sleep(Duration::from_millis(100));
            }
            longest
        });
        let (watching, refused) = site.far.enter(|| run(crowd(&way))).expect("inside");
        assert!((1..=16).contains(&watching), "{watching} of one address watch");
        assert_clear(&refused);
        let silent: Vec<TcpStream> = site
            .far
            .enter(|| (0..200).map(|_| TcpStream::connect(("10.9.1.1", PORT)).expect("accepted")).collect())
            .expect("inside");
        for mut stream in &silent[..20] {
            let _ = stream.write_all(&[0xA5; 4096]);
        }
        std::thread::sleep(Duration::from_secs(1));
        drop(ending);
        let longest = good.join().expect("a good client is answered all the time");
        assert!(longest < Duration::from_secs(5), "a good client waited {longest:?}");
        eprintln!("a good client waited {longest:?} at most, {watching} watched, {} were refused", refused.len());
    });
    let local = Endpoint::from_shared(format!("unix:{}", handler.socket.display())).expect("a socket");
    let local = Way { endpoint: local, token: String::new() };
    let (watching, refused) = run(crowd(&local));
    assert_eq!((watching, refused.len()), (64, CLIENTS - 64));
    assert_clear(&refused);
    // Those who were silent have been disconnected meanwhile, and there is a place again.
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = site.far.enter(|| run(way.status())).expect("inside") {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (sent, now) = (sent.into_inner(), status(&handler));
    let channel = &now["channels"][0];
    let counted = [&channel["messages"], &channel["gaps_opened"], &channel["messages_lost"]].map(Value::to_string);
    assert_eq!(counted.map(|text| text.trim_matches('"').parse::<u64>().expect("a number")), [sent, 0, 0], "{now:#}");
    eprintln!("{sent} packets; longest cycle {} ns", now["workers"][0]["longest_cycle_ns"]);
}

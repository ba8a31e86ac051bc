//! Who gets in, as what, and what becomes of those who do not behave.
#![forbid(unsafe_code)]

mod hostile;
mod pki;
mod roles;

use std::time::{Duration, Instant};

use clap::Parser as _;
use feedhandler_proto::v1::{GetStatusRequest, Selector as WireSelector, SubscribeRequest, WatchEventsRequest};
use tonic::transport::ClientTlsConfig;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::*;
use crate::control::cli;
use pki::{Authority, Files, client};

impl Served {
    async fn tls(&self, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
        let endpoint = format!("https://{}", self.tls.unwrap());
        Endpoint::from_shared(endpoint).unwrap().tls_config(tls)?.connect().await
    }
}

async fn status(channel: Channel) -> Result<(), Status> {
    ControlClient::new(channel).get_status(GetStatusRequest {}).await.map(drop)
}

/// Connects and asks; in TLS 1.3 a client learns of its refusal only then.
async fn ask(served: &Served, tls: ClientTlsConfig) -> Result<(), String> {
    let channel = served.tls(tls).await.map_err(|error| format!("{error:?}"))?;
    status(channel).await.map_err(|error| format!("{error:?}"))
}

async fn feedctl(arguments: &[&str]) -> Result<String, cli::Failure> {
    cli::run(&cli::Arguments::try_parse_from([&["feedctl"], arguments].concat()).unwrap()).await
}

/// Waits for it, but not for ever.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_the_ca_get_in_and_everybody_is_told_why_not() {
    let files = Files::new();
    let ops = files.clients.issue("ops", 2090);
    let expired = files.clients.issue("ops", 2020);
    let strangers = Authority::new("strangers").issue("ops", 2090);
    files.write("ops.pem", &ops.certificate);
    files.write("ops.key", &ops.key);
    files.write("ca.pem", &files.servers.pem());
    files.write("expired.pem", &expired.certificate);
    files.write("expired.key", &expired.key);
    let mut bench = files.mutual();
    let desk = Arc::clone(&bench.desk);
    bench
        .served(async |served| {
            ask(&served, files.client(Some(&ops))).await.unwrap();
            for (identity, says) in
                [(None, "CertificateRequired"), (Some(&strangers), "alert"), (Some(&expired), "CertificateExpired")]
            {
                // The library may find its connection ended before it has read why; feedctl, below, reads first.
                let error = ask(&served, files.client(identity)).await.unwrap_err();
                assert!(error.contains(says) || error.contains("Canceled"), "{says}: {error}");
            }
            let other = ask(&served, client(&files.clients, Some(&ops))).await.unwrap_err();
            assert!(other.contains("UnknownIssuer"), "{other}");
            until("failed handshakes are counted", || desk.access_counts().handshakes_failed >= 4).await;
            assert_eq!(desk.access_counts().expiries[0], ("certificate", 3_786_912_000));

            let endpoint = format!("https://localhost:{}", served.tls.unwrap().port());
            let ca = files.path("ca.pem");
            let known = ["--endpoint", &endpoint, "--tls-ca", &ca];
            let done = feedctl(
                &[&known[..], &["--tls-cert", &files.path("ops.pem"), "--tls-key", &files.path("ops.key"), "list"]]
                    .concat(),
            )
            .await;
            assert!(done.unwrap().contains("itch/equities"));
            let nobody = feedctl(&[&known[..], &["list"]].concat()).await.unwrap_err();
            assert!(nobody.0 == cli::EXIT_DENIED && nobody.1.contains("CertificateRequired"), "{nobody:?}");
            let shown = ["expired.pem", "expired.key"].map(|name| files.path(name));
            let late = [&known[..], &["--tls-cert", &shown[0], "--tls-key", &shown[1], "list"]].concat();
            let late = feedctl(&late).await.unwrap_err();
            assert!(late.0 == cli::EXIT_DENIED && late.1.contains("CertificateExpired"), "{late:?}");
            let wrong =
                feedctl(&["--endpoint", &endpoint, "--tls-ca", &files.path("clients.pem"), "list"]).await.unwrap_err();
            assert!(wrong.0 == cli::EXIT_UNREACHABLE && wrong.1.contains("UnknownIssuer"), "{wrong:?}");
            let name = feedctl(&[&known[..], &["--tls-server-name", "elsewhere", "list"]].concat()).await.unwrap_err();
            assert!(name.0 == cli::EXIT_UNREACHABLE && name.1.contains("not valid for name"), "{name:?}");
            let plain = format!("http://{}", served.tls.unwrap());
            let plain = feedctl(&["--endpoint", &plain, "list"]).await.unwrap_err();
            assert!(plain.0 == cli::EXIT_UNREACHABLE && plain.1.contains("does it want TLS?"), "{plain:?}");
            let no_ca = feedctl(&["--endpoint", &endpoint, "list"]).await.unwrap_err();
            assert!(no_ca.0 == cli::EXIT_USAGE && no_ca.1.contains("--tls-ca"), "{no_ca:?}");
        })
        .await;
}

#[tokio::test]
async fn a_client_refuses_an_expired_server() {
    let servers = Authority::new("servers");
    let issued = servers.issue("localhost", 2020);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, servers.pem()).unwrap();
    use rustls::pki_types::pem::PemObject as _;
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let failure = feedctl(&["--endpoint", &endpoint, "--tls-ca", ca.to_str().unwrap(), "list"]).await.unwrap_err();
    assert!(failure.0 == cli::EXIT_UNREACHABLE && failure.1.contains("certificate expired"), "{failure:?}");
}

#[test]
fn what_is_wrong_with_a_file_stops_the_start_and_is_said() {
    let files = Files::new();
    let good = files.servers.issue("localhost", 2090);
    let bench = files.mutual();
    let refused = || Listeners::bind(&bench.desk.plan()).unwrap_err().to_string();
    let check = |says: &[&str]| {
        let error = refused();
        says.iter().for_each(|part| assert!(error.contains(part), "{error}\ndoes not say {part}"));
        files.serve_with(&good);
        files.write("clients.pem", &files.clients.pem());
        files.write("tokens", "");
    };
    files.serve_with(&files.servers.issue("localhost", 2020));
    check(&["handler.tls.certificate", "server.pem has expired: it was valid until 2020-01-01T00:00:00Z"]);
    files.write("server.key", &files.servers.issue("localhost", 2090).key);
    check(&["handler.tls.key", "server.key is not the key of the certificate in", "server.pem"]);
    files.write("server.key", "nonsense");
    check(&["handler.tls.key", "holds no usable private key"]);
    files.write("server.pem", "nonsense");
    check(&["handler.tls.certificate", "holds no usable certificate in PEM: there is none"]);
    files.write("server.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    check(&["handler.tls.certificate", "no X.509 certificate"]);
    files.write("clients.pem", "");
    check(&["handler.tls.client_ca", "holds no usable certificate"]);
    files.write("tokens", "\nviewer x y\n");
    check(&["handler.tokens_file", "tokens: line 2: must end with a SHA-256"]);
    std::fs::remove_file(files.folder.path().join("server.key")).unwrap();
    check(&["handler.tls.key: cannot read", "No such file", "the handler's user"]);
    Listeners::bind(&bench.desk.plan()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_up_and_a_broken_one_is_not() {
    let files = Files::new();
    let ops = files.clients.issue("ops", 2090);
    let mut bench = files.mutual();
    let desk = Arc::clone(&bench.desk);
    bench
        .served(async |served| {
            let live = served.tls(files.client(Some(&ops))).await.unwrap();
            status(live.clone()).await.unwrap();
            files.write("server.pem", "half a cert");
            until("the failure is counted", || desk.access_counts().reloads_failed == 1).await;
            ask(&served, files.client(Some(&ops))).await.expect("the old one is in force");

            let others = Authority::new("others");
            files.serve_with(&others.issue("localhost", 2095));
            until("the new one is in force", || desk.access_counts().expiries[0].1 == 3_944_678_400).await;
            ask(&served, client(&others, Some(&ops))).await.expect("new connections get it");
            let old = ask(&served, files.client(Some(&ops))).await.unwrap_err();
            assert!(old.contains("UnknownIssuer"), "{old}");
            status(live).await.expect("an open connection goes on");

            // Tokens count from the next call on.
            let with_token = |token: &str| {
                let mut request = Request::new(GetStatusRequest {});
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                request
            };
            let mut client = ControlClient::new(served.tls(client(&others, Some(&ops))).await.unwrap());
            client.get_status(with_token(&files.viewer_token)).await.unwrap();
            // A token can be revoked whatever the certificate is like.
            files.write("server.pem", "half a cert again");
            until("the failure is counted", || desk.access_counts().reloads_failed == 2).await;
            files.write("tokens", "# nobody\n");
            let deadline = Instant::now() + Duration::from_secs(20);
            while client.get_status(with_token(&files.viewer_token)).await.is_ok() {
                assert!(Instant::now() < deadline, "the token is still taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(desk.access_counts().reloads_failed, 2, "once for each broken file");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_when_its_caller_says_so_and_a_change_goes_on() {
    let mut bench = Bench::new();
    let (desk, worker) = (Arc::clone(&bench.desk), Arc::clone(&bench.worker));
    bench
        .served(async |served| {
            let mut client = served.client().await;
            let mut request = Request::new(WatchEventsRequest::default());
            request.set_timeout(Duration::from_millis(300));
            let began = Instant::now();
            let mut events = client.watch_events(request).await.unwrap().into_inner();
            let end = tokio::time::timeout(Duration::from_secs(10), events.message()).await.unwrap().unwrap_err();
            assert_eq!(
                (end.code(), end.get_error_details().error_info().unwrap().reason.as_str()),
                (Code::DeadlineExceeded, "TOO_LATE")
            );
            assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());

            worker.is_stuck.store(true, Relaxed);
            let selector = Some(WireSelector { line: "A".to_owned(), ..WireSelector::default() });
            let mut request = Request::new(SubscribeRequest { selector, dry_run: false });
            request.set_timeout(Duration::from_millis(200));
            let error = client.subscribe(request).await.unwrap_err();
            // Whose clock was first, ours or the client's.
            assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&error.code()), "{error}");
            worker.is_stuck.store(false, Relaxed);
            until("the change is made all the same", || desk.line_states()[0].in_force).await;
        })
        .await;
}

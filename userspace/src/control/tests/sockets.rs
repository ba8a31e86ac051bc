//! Listening sockets: what is replaced, what is refused, what is left behind.
#![forbid(unsafe_code)]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::*;
use crate::config::plan::Endpoint as PlanEndpoint;

#[tokio::test]
async fn a_stale_socket_is_replaced_and_ours_is_removed_at_the_end() {
    let mut bench = Bench::new();
    let socket = bench.socket();
    // What a killed process leaves: the file, and nobody behind it.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    bench
        .served(async |served| {
            served.client().await.get_status(feedhandler_proto::v1::GetStatusRequest {}).await.unwrap();
            let mode = std::fs::metadata(&served.socket).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o660);
        })
        .await;
    let left = std::fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != "handler.toml").collect();
    assert!(left.is_empty(), "our socket and its lock must be gone after shutdown: {left:?}");
}

#[test]
fn a_living_socket_and_a_file_are_refused_and_left_alone() {
    let bench = Bench::new();
    let alive = UnixListener::bind(bench.socket()).unwrap();
    let error = Listeners::bind(&bench.desk.plan()).unwrap_err();
    assert!(matches!(error, ServeError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("is in use by another process (`ss -lxp"), "{error}");
    assert!(bench.socket().exists());
    drop(alive);

    std::fs::remove_file(bench.socket()).unwrap();
    std::fs::write(bench.socket(), "a person's notes").unwrap();
    let error = Listeners::bind(&bench.desk.plan()).unwrap_err();
    assert!(matches!(error, ServeError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(bench.socket()).unwrap(), "a person's notes");
}

#[test]
fn a_second_instance_is_refused_with_the_pid_of_the_first_and_a_dying_one_is_waited_for() {
    let bench = Bench::new();
    let first = Listeners::bind(&bench.desk.plan()).unwrap();
    let error = Listeners::bind(&bench.desk.plan()).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by another process (`ps -p {}`", std::process::id())), "{error}");
    let dying = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(first);
    });
    Listeners::bind(&bench.desk.plan()).unwrap();
    dying.join().unwrap();
}

#[test]
fn a_socket_that_another_instance_has_replaced_is_not_removed() {
    let bench = Bench::new();
    let ours = Listeners::bind(&bench.desk.plan()).unwrap();
    std::fs::remove_file(bench.socket()).unwrap();
    let _theirs = UnixListener::bind(bench.socket()).unwrap();
    drop(ours);
    assert!(bench.socket().exists());
}

#[test]
fn the_directory_of_the_socket_is_made_but_not_its_parents() {
    let bench = Bench::new();
    let mut plan = (*bench.desk.plan()).clone();
    plan.grpc = PlanEndpoint::Unix(bench.directory.path().join("run/control.sock"));
    drop(Listeners::bind(&plan).unwrap());
    plan.grpc = PlanEndpoint::Unix(bench.directory.path().join("a/b/control.sock"));
    let error = Listeners::bind(&plan).unwrap_err().to_string();
    assert!(error.contains("cannot listen on unix:") && error.contains("No such file"), "{error}");
    assert!(error.ends_with(&format!("`mkdir -p {}`", bench.directory.path().join("a/b").display())), "{error}");
}

#[test]
fn tcp_addresses_in_use_are_named_with_their_key() {
    let bench = Bench::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut plan = (*bench.desk.plan()).clone();
    plan.metrics = Some(address);
    let error = Listeners::bind(&plan).unwrap_err().to_string();
    assert!(error.starts_with(&format!("handler.metrics: {address} is in use")), "{error}");
    plan.metrics = None;
    plan.grpc = PlanEndpoint::Tcp(address);
    let error = Listeners::bind(&plan).unwrap_err().to_string();
    assert!(error.starts_with(&format!("handler.grpc: {address} is in use")), "{error}");
}

#[tokio::test]
async fn the_service_answers_on_a_loopback_address_too() {
    let bench = Bench::new();
    let mut plan = (*bench.desk.plan()).clone();
    plan.grpc = PlanEndpoint::Tcp("127.0.0.1:0".parse().unwrap());
    let listeners = Listeners::bind(&plan).unwrap();
    let address = listeners.grpc_address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(Arc::clone(&bench.desk), listeners, async {
        let _ = stopped.await;
    }));
    let mut client = ControlClient::connect(format!("http://{address}")).await.unwrap();
    let status = client.get_status(feedhandler_proto::v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.name, "bench");
    // The open connection must not keep the shutdown waiting for ever.
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

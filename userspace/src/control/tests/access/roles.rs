//! Every method, called by everybody.
#![forbid(unsafe_code)]

use feedhandler_proto::FILE_DESCRIPTOR_SET;
use prost_types::FileDescriptorSet;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;
use tonic_prost::prost::Message as _;

use super::*;
use crate::control::access::{Kind, METHODS};

/// Path, and whether the answer is a stream, of every method that a descriptor set has.
fn methods(encoded: &[u8]) -> Vec<(String, bool)> {
    let set = FileDescriptorSet::decode(encoded).unwrap();
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file, service)));
    let methods = services.flat_map(|(file, service)| {
        service.method.iter().map(move |method| {
            (format!("/{}.{}/{}", file.package(), service.name(), method.name()), method.server_streaming())
        })
    });
    methods.collect()
}

#[test]
fn every_method_that_is_served_is_in_the_table() {
    let mut served = methods(FILE_DESCRIPTOR_SET);
    assert!(served.len() >= 13, "{served:?}");
    served.extend(methods(tonic_health::pb::FILE_DESCRIPTOR_SET));
    served.extend(methods(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
    served.extend(methods(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
    for (path, is_stream) in &served {
        let entry = METHODS.iter().find(|(known, ..)| known == path);
        let (_, _, kind) = entry.unwrap_or_else(|| panic!("{path}: say in access.rs who may call it"));
        assert_eq!(*is_stream, *kind == Kind::Stream, "{path}");
    }
    assert_eq!(METHODS.len(), served.len(), "a method in the table is not served");
}

/// Calls with an empty message.
async fn call(channel: &Channel, path: &'static str, token: Option<&str>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token.parse().unwrap());
    }
    let codec = ProstCodec::<(), ()>::default();
    client.server_streaming(request, PathAndQuery::from_static(path), codec).await.map(drop)
}

fn is_refused(result: &Result<(), Status>) -> bool {
    result.as_ref().is_err_and(|status| [Code::PermissionDenied, Code::Unauthenticated].contains(&status.code()))
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_look_operators_do_and_nobody_else_gets_in() {
    let files = Files::new();
    let identities = ["ops", "eyes", "nobody"].map(|name| files.clients.issue(name, 2090));
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    let operator = bearer(&files.operator_token);
    let viewer = bearer(&files.viewer_token);
    let guess = bearer(&"0".repeat(64));
    let mut bench = files.mutual();
    let desk = Arc::clone(&bench.desk);
    bench
        .served(async |served| {
            let mut channels = Vec::new();
            for identity in &identities {
                channels.push(served.tls(files.client(Some(identity))).await.unwrap());
            }
            let [ops, eyes, nobody] = &channels[..] else { unreachable!() };
            let callers = [
                (ops, &None, Some(Role::Operator)),
                (eyes, &None, Some(Role::Viewer)),
                (nobody, &None, None),
                (nobody, &operator, Some(Role::Operator)),
                (nobody, &viewer, Some(Role::Viewer)),
                // A token counts before the certificate.
                (ops, &viewer, Some(Role::Viewer)),
                (ops, &guess, None),
            ];
            for (path, needs, _) in METHODS {
                for (caller, (channel, token, role)) in callers.iter().enumerate() {
                    let result = call(channel, path, token.as_deref()).await;
                    let is_allowed = role.is_some_and(|role| role >= needs);
                    assert_eq!(is_refused(&result), !is_allowed, "{path} by caller {caller}: {result:?}");
                }
            }
            let path = "/feedhandler.control.v1.Control/Subscribe";
            let says = async |channel, token: Option<&str>| call(channel, path, token).await.unwrap_err();
            let error = says(eyes, None).await;
            assert!(error.code() == Code::PermissionDenied && error.message().contains("Subscribe is for operators"));
            assert!(error.message().ends_with("(certificate eyes) is a viewer"), "{error}");
            assert_eq!(error.get_error_details().error_info().unwrap().reason, "ROLE_REQUIRED");
            let error = says(nobody, None).await;
            assert!(
                error.code() == Code::PermissionDenied && error.message().contains("`nobody` has no role"),
                "{error}"
            );
            let error = says(ops, Some("Basic eA==")).await;
            assert!(error.code() == Code::Unauthenticated && error.message().contains("`Bearer TOKEN`"), "{error}");
            assert!(is_refused(&call(eyes, "/feedhandler.control.v1.Control/Unheard", None).await), "default deny");

            // Who did it is in the events.
            let mut events = ControlClient::new(eyes.clone())
                .watch_events(WatchEventsRequest::default())
                .await
                .unwrap()
                .into_inner();
            let selector = Some(WireSelector { line: "A".to_owned(), ..WireSelector::default() });
            let request = SubscribeRequest { selector, dry_run: false };
            ControlClient::new(ops.clone()).subscribe(request).await.unwrap();
            let event = events.message().await.unwrap().unwrap();
            assert!(format!("{event:?}").contains("(certificate ops)"), "{event:?}");
        })
        .await;
    let refused = desk.access_counts().refused;
    assert!(refused.iter().any(|(reason, count)| *reason == "ROLE_REQUIRED" && *count > 5), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_client_ca_a_token_is_needed_and_the_local_socket_asks_for_none() {
    let files = Files::new();
    files.write("token", &files.viewer_token);
    files.write("ca.pem", &files.servers.pem());
    let mut bench = files.with_tokens();
    bench
        .served(async |served| {
            let channel = served.tls(files.client(None)).await.unwrap();
            let error = status(channel).await.unwrap_err();
            assert!(error.code() == Code::Unauthenticated && error.message().contains("say who you are"), "{error}");
            let endpoint = format!("https://localhost:{}", served.tls.unwrap().port());
            let (ca, token) = (files.path("ca.pem"), files.path("token"));
            let known = ["--endpoint", &endpoint, "--tls-ca", &ca, "--token-file", &token];
            assert!(feedctl(&[&known[..], &["list"]].concat()).await.is_ok());
            let denied = feedctl(&[&known[..], &["subscribe", "--all"]].concat()).await.unwrap_err();
            assert!(denied.0 == cli::EXIT_DENIED && denied.1.contains("(token eyes-token) is a viewer"), "{denied:?}");
            let local = format!("unix:{}", served.socket.display());
            assert!(feedctl(&["--endpoint", &local, "subscribe", "--all"]).await.is_ok());
        })
        .await;
}

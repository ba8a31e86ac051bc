//! A client in Python that is made of nothing but what the server says of itself does what `feedctl` does.
#![forbid(unsafe_code)]

use std::process::Command;

use serde_json::{Value, json};

use crate::site::{Running, Site};
use crate::tools::{folder, workspace};
use crate::turn::turn;

/// What a call printed, and whether it was carried out.
fn ask(running: &Running, method: &str, request: &Value) -> Result<Vec<Value>, Value> {
    let output = Command::new("python3")
        .arg(workspace("tests/tests/it/reflection/client.py"))
        .arg(format!("unix:{}", running.socket.display()))
        .args([method, &request.to_string()])
        .env("PYTHONPATH", folder().join("python"))
        .output()
        .expect("python3 starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
    match output.status.code() {
        Some(0) => Ok(answers),
        Some(1) if answers.len() == 1 => Err(answers[0].clone()),
        _ => panic!("{method}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

fn one(running: &Running, method: &str, request: &Value) -> Value {
    ask(running, method, request).unwrap_or_else(|error| panic!("{method}: {error}")).remove(0)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
}

#[test]
fn a_client_made_from_reflection_alone_does_the_job_of_feedctl() {
    let _turn = turn();
    let site = Site::new();
    let running = site.start("reflected");

    let services = one(&running, "services", &json!({}));
    for service in ["feedhandler.control.v1.Control", "grpc.health.v1.Health"] {
        assert!(services.as_array().expect("a list").contains(&json!(service)), "{services}");
    }

    // See.
    let groups = one(&running, "ListGroups", &json!({}));
    assert_eq!(
        (&groups["groups"][0]["group"], &groups["groups"][0]["in_force"]),
        (&json!("239.10.0.1:26400"), &json!(true))
    );
    assert_eq!(names(&one(&running, "GetStatus", &json!({}))["channels"]), ["itch/one"]);
    assert!(one(&running, "GetConfig", &json!({}))["toml"].as_str().expect("text").contains("239.10.0.1:26400"));
    assert_eq!(one(&running, "GetLatency", &json!({}))["stages"].as_array().expect("a list").len(), 4);
    assert_eq!(one(&running, "WatchStatus", &json!({"interval_ms": 100}))["name"], "reflected");

    // Switch.
    let line = json!({"selector": {"channel": "itch/one", "line": "A"}});
    assert_eq!(one(&running, "Unsubscribe", &line)["changed"][0]["line"], "A");
    assert_eq!(one(&running, "Subscribe", &line)["changed"][0]["in_force"], true);

    // Change: a second channel with a destination, drained and removed again.
    let channel = json!({"feed": "itch", "name": "two", "max_orders": 1000,
        "lines": [{"name": "A", "interface": "fh-in", "group": "239.10.0.2:26401"}]});
    let destination =
        json!({"name": "out-two", "channel": "itch/two", "interface": "fh-out", "group": "239.20.0.2:30002"});
    let edits = json!({"edits": [{"add_channel": channel}, {"add_destination": destination}]});
    let mut dry = edits.clone();
    dry["dry_run"] = json!(true);
    assert!(!one(&running, "Change", &dry)["changes"].as_array().expect("changes").is_empty());
    assert_eq!(names(&one(&running, "GetStatus", &json!({}))["channels"]), ["itch/one"], "a dry run changes nothing");
    one(&running, "Change", &edits);
    assert_eq!(names(&one(&running, "GetStatus", &json!({}))["channels"]), ["itch/one", "itch/two"]);
    let again = one(&running, "Change", &edits);
    assert!(again.get("changes").is_none_or(|changes| changes == &json!([])), "repeated, it changes nothing: {again}");
    one(&running, "Drain", &json!({"channel": "itch/two"}));
    one(&running, "Change", &json!({"edits": [{"remove_channel": "itch/two"}]}));
    let status = one(&running, "GetStatus", &json!({}));
    assert_eq!((names(&status["channels"]), names(&status["destinations"])), (vec!["itch/one"], vec!["out"]));
    one(&running, "Reload", &json!({}));

    // Be refused, with what is wrong and where.
    let wrong = json!({"edits": [{"add_channel": {"feed": "itch", "name": "three", "max_orders": 1000,
        "lines": [{"name": "A", "interface": "fh-in", "group": "10.0.0.1:1"}]}}]});
    let refusal = ask(&running, "Change", &wrong).expect_err("not multicast");
    assert_eq!(refusal["code"], "INVALID_ARGUMENT", "{refusal}");
    assert_eq!(refusal["violations"][0]["field"], "edits[0].add_channel.lines[0].group", "{refusal}");
    let refusal = ask(&running, "Recover", &json!({"channel": "itch/none"})).expect_err("no such channel");
    assert_eq!(refusal["code"], "NOT_FOUND", "{refusal}");
}

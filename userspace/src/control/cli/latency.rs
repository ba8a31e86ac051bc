//! `feedctl latency`: latencies by stage, since the start or as they are.
#![forbid(unsafe_code)]

use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::{GetLatencyResponse, WatchLatencyRequest};
use jiff::Timestamp;

use super::{Arguments, EXIT_UNREACHABLE, Failure, Output, connect, put, refusal};
use crate::control::tables;

/// Prints one interval after the other until `count` are over, nobody reads any more, or the handler stops.
pub(super) async fn watch(arguments: &Arguments, interval_s: u32, count: u64) -> Result<(), Failure> {
    let endpoint = &arguments.endpoint;
    let refused = |status: tonic::Status| refusal(endpoint, &status);
    let mut client = ControlClient::new(connect(arguments).await?);
    let request = WatchLatencyRequest { interval_ms: interval_s * 1_000 };
    let mut answers = client.watch_latency(request).await.map_err(refused)?.into_inner();
    for _ in 0..count {
        let Some(answer) = answers.message().await.map_err(refused)? else {
            return Err(Failure(EXIT_UNREACHABLE, format!("the handler at {endpoint} has stopped")));
        };
        let text = match arguments.output {
            Output::Table => text(&answer),
            Output::Json => serde_json::to_string(&answer).unwrap_or_else(|error| error.to_string()) + "\n",
        };
        if !put(std::io::stdout().lock(), &text)? {
            return Ok(());
        }
    }
    Ok(())
}

/// For a person: from when to when, and a row per stage.
pub(super) fn text(answer: &GetLatencyResponse) -> String {
    let time = |ns: u64| Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default();
    let length_s = answer.to_ns.saturating_sub(answer.from_ns) as f64 / 1e9;
    format!("{:.3} to {:.3} ({length_s:.1} s)\n{}\n", time(answer.from_ns), time(answer.to_ns), tables::latency(answer))
}

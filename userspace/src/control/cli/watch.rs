//! `feedctl watch`: events as they happen, a line each.
#![forbid(unsafe_code)]

use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::event::What;
use feedhandler_proto::v1::{Event, WatchEventsRequest};
use jiff::Timestamp;

use super::{Arguments, EXIT_UNREACHABLE, Failure, Output, connect, put, refusal};

/// Prints until `count` events came, nobody reads any more, or the handler stops.
pub(super) async fn run(arguments: &Arguments, channel: String, count: u64) -> Result<(), Failure> {
    let endpoint = &arguments.endpoint;
    let mut client = ControlClient::new(connect(arguments).await?);
    let request = WatchEventsRequest { channel };
    let mut events = client.watch_events(request).await.map_err(|status| refusal(endpoint, &status))?.into_inner();
    for _ in 0..count {
        let Some(event) = events.message().await.map_err(|status| refusal(endpoint, &status))? else {
            return Err(Failure(EXIT_UNREACHABLE, format!("the handler at {endpoint} has stopped")));
        };
        let line = match arguments.output {
            Output::Table => line(&event),
            Output::Json => serde_json::to_string(&event).unwrap_or_else(|error| error.to_string()),
        };
        if !put(std::io::stdout().lock(), &(line + "\n"))? {
            return Ok(());
        }
    }
    Ok(())
}

/// An event for a person.
fn line(event: &Event) -> String {
    let time = Timestamp::from_nanosecond(i128::from(event.time_ns)).unwrap_or_default();
    let what = match &event.what {
        None => "an event that this feedctl does not know: it is older than the handler".to_owned(),
        Some(What::MessagesLost(lost)) => {
            let messages = lost.to.saturating_sub(lost.from);
            format!(
                "{}: {messages} messages lost, {} to {} of session {}",
                lost.channel,
                lost.from,
                lost.to - 1,
                lost.session
            )
        }
        Some(What::ChannelChanged(changed)) => format!("{}: {}", changed.channel, changed.state().word()),
        Some(What::LineSwitched(switched)) => {
            let way = if switched.subscribed { "subscribed" } else { "unsubscribed" };
            let (channel, line, group, by) = (&switched.channel, &switched.line, &switched.group, &switched.by);
            if switched.error.is_empty() {
                format!("{channel}: line {line} ({group}) {way} by {by}")
            } else {
                format!("{channel}: line {line} ({group}) not {way}, asked by {by}: {}", switched.error)
            }
        }
        Some(What::InterfaceFault(fault)) if fault.over => format!("{}: no longer {}", fault.interface, fault.fault),
        Some(What::InterfaceFault(fault)) => format!("{}: {}, {}", fault.interface, fault.fault, fault.particulars),
        Some(What::SessionBegan(began)) => {
            format!("{}: session {} begins ({}) with message {}", began.channel, began.session, began.how, began.first)
        }
        Some(What::OperatorAction(action)) if action.error.is_empty() => {
            format!("{} by {}: {}", action.action, action.by, action.changes.join("; "))
        }
        Some(What::OperatorAction(action)) => {
            format!("{} asked by {} and refused: {}", action.action, action.by, action.error)
        }
        Some(What::EventsMissed(missed)) => format!("{} events missed: too slow", missed.count),
    };
    format!("{time:.3}  {what}")
}

#[cfg(test)]
mod tests {
    use feedhandler_proto::v1::{InterfaceFault, LineSwitched, MessagesLost};

    use super::*;

    #[test]
    fn events_are_a_line_each() {
        let at = |what| line(&Event { time_ns: 1_790_000_000_123_456_789, what: Some(what) });
        let lost = MessagesLost { channel: "itch/eq".into(), session: "S1".into(), from: 7, to: 9 };
        assert_eq!(
            at(What::MessagesLost(lost)),
            "2026-09-21T14:13:20.123Z  itch/eq: 2 messages lost, 7 to 8 of session S1"
        );
        let switched = LineSwitched {
            channel: "itch/eq".into(),
            line: "A".into(),
            group: "239.1.1.1:5".into(),
            by: "uid 0, pid 7".into(),
            ..LineSwitched::default()
        };
        let failed = LineSwitched { subscribed: true, error: "no".into(), ..switched.clone() };
        assert!(at(What::LineSwitched(switched)).ends_with("line A (239.1.1.1:5) unsubscribed by uid 0, pid 7"));
        assert!(at(What::LineSwitched(failed)).ends_with("not subscribed, asked by uid 0, pid 7: no"));
        let fault =
            InterfaceFault { interface: "e0".into(), fault: "down".into(), over: true, particulars: String::new() };
        assert!(at(What::InterfaceFault(fault)).ends_with("  e0: no longer down"));
        assert!(line(&Event { time_ns: 0, what: None }).contains("older than the handler"));
    }
}

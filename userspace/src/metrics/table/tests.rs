//! What there is, and how much of it.
#![forbid(unsafe_code)]

use super::*;

#[test]
fn every_metric_has_a_meaning_and_its_labels() {
    let families = families().unwrap();
    assert!(families.len() > 80, "{}", families.len());
    // One without labels has its one series; one that has none here has labels that are not known: they belong into ELSEWHERE.
    let text = Exporter::new(sample()).encode().unwrap();
    for family in families.iter().filter(|family| family.labels.is_empty()) {
        assert!(text.contains(&format!("\n{}{{}} ", family.name)), "{}: which labels does it have?", family.name);
    }
    for family in &families {
        assert!(family.name.starts_with("feedhandler_") && family.help.len() > 10, "{family:?}");
        assert!(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "{family:?}");
    }
    let line = families.iter().find(|family| family.name == "feedhandler_line_packets_total").unwrap();
    assert!(line.labels.iter().eq(["channel", "line"]));
    assert!(markdown().unwrap().contains("| `feedhandler_latency_seconds` | histogram | seconds | `stage` |"));
}

/// A configuration with `channels` channels, each with two lines, retransmission and a destination.
fn sized(channels: usize) -> Plan {
    let mut text = String::from(
        "[handler]\nname = \"n\"\n[[interface]]\nname = \"e0\"\nmode = \"socket\"\n[[worker]]\nname = \"w0\"\n[[feed]]\n\
         name = \"f\"\ntransport = \"moldudp64\"\ndecoder = \"itch50\"\npublisher_id = 2\ntime_zone = \"America/New_York\"\n",
    );
    for channel in 0..channels {
        let address = |of: usize| format!("239.{of}.{}.{}:26400", channel / 250, channel % 250 + 1);
        let _ = write!(
            text,
            "[[feed.channel]]\nname = \"c{channel}\"\n[feed.channel.recovery]\nservers = [\"10.0.0.1:1\"]\n"
        );
        for (line, of) in [("A", 1), ("B", 2)] {
            let _ = write!(
                text,
                "[[feed.channel.line]]\nname = \"{line}\"\ninterface = \"e0\"\ngroup = \"{}\"\n",
                address(of)
            );
        }
    }
    for channel in 0..channels {
        let _ = write!(
            text,
            "[[destination]]\nname = \"d{channel}\"\nchannel = \"f/c{channel}\"\ninterface = \"e0\"\n\
             group = \"239.3.{}.{}:26400\"\n",
            channel / 250,
            channel % 250 + 1
        );
    }
    Config::parse(&text, "sized.toml", &Host { cores: vec![] }).unwrap()
}

fn series(plan: &Plan) -> usize {
    let text = Exporter::new(desk(plan.clone())).encode().unwrap();
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn there_are_never_more_series_than_is_said() {
    for channels in [1, 2, 10, 100] {
        let plan = sized(channels);
        let (found, most) = (series(&plan), most_series(&plan));
        assert!(found <= most, "{channels} channels: {found} series, {most} were said");
        // And not many fewer: what only an XDP program has is missing here.
        assert!(found * 5 >= most * 4, "{channels} channels: {found} series, {most} were said");
    }
    let sample = sample();
    let found =
        Exporter::new(Arc::clone(&sample)).encode().unwrap().lines().filter(|line| !line.starts_with('#')).count();
    assert!(found <= most_series(&sample.plan()), "{found} {}", most_series(&sample.plan()));
}

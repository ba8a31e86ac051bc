//! Plans for tests of what runs beside a worker: one handler on the loopback interface, one worker, one channel.
#![forbid(unsafe_code)]

use super::plan::Plan;
use super::{Config, Host};

/// Line A of the channel.
pub const LINE: &str = "[[feed.channel.line]]\nname = \"A\"\ninterface = \"lo\"\ngroup = \"239.255.1.2:26400\"\n";

/// A destination of the channel.
pub const DESTINATION: &str = "[[destination]]\nname = \"out\"\nchannel = \"itch/equities\"\ninterface = \"lo\"\n\
                               group = \"239.255.1.1:30001\"\n";

/// The plan of a channel with these keys and tables, and of these destinations.
pub fn one_channel(channel: &str, destinations: &str) -> Plan {
    let text = format!(
        r#"
        [handler]
        name = "test"
        [[interface]]
        name = "lo"
        mode = "socket"
        [[worker]]
        name = "w0"
        [[feed]]
        name = "itch"
        transport = "moldudp64"
        decoder = "itch50"
        publisher_id = 2
        time_zone = "America/New_York"
        [[feed.channel]]
        name = "equities"
        {channel}
        {destinations}
        "#
    );
    Config::parse(&text, "test.toml", &Host { cores: vec![] }).unwrap()
}

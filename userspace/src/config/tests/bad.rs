//! Bad configurations, each one change away from a good one.
#![forbid(unsafe_code)]

/// What to replace in [`GOOD`](super::GOOD), by what, and what the error must say.
pub(super) const BAD: &[(&str, &str, &[&str])] = &[
    ("core = 1", "corr = 1", &["test.toml:13: `corr = 1`: unknown field `corr`", "expected one of", "`core`"]),
    ("publisher_id = 2\n", "", &["missing field `publisher_id`"]),
    ("name = \"test\"", "name = 5", &["test.toml:3: `name = 5`: invalid type: integer `5`, expected a string"]),
    ("[handler]", "[handler", &["test.toml:2: `[handler`: "]),
    ("name = \"test\"", "name = \"a b\"", &["test.toml:3: handler.name = \"a b\": must be 1 to 32 letters"]),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc = \"0.0.0.0:50051\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.grpc = \"0.0.0.0:50051\"", "loopback", "grpc_tls", "ssh"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc = \"unix:run/x\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.grpc = \"unix:run/x\"", "absolute"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.grpc_tls = \"0.0.0.0:1\": needs the table [handler.tls]"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"host:1\"\ntokens_file = \"/t\"\n[handler.tls]\ncertificate = \"/c\"\nkey = \"/k\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.grpc_tls = \"host:1\": must be \"ip:port\""],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "tokens_file = \"/t\"\n[handler.tls]\ncertificate = \"/c\"\nkey = \"/k\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.tls: nothing is served with it: grpc_tls is missing"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\n[handler.tls]\ncertificate = \"/c\"\nkey = \"/k\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.tls: nobody could do anything here", "tokens_file"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\ntokens_file = \"t\"\n[handler.tls]\ncertificate = \"/c\"\nkey = \"/k\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.tokens_file = \"t\": must be an absolute path"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\ntokens_file = \"/t\"\n[handler.tls]\ncertificate = \"c\"\nkey = \"/k\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.tls.certificate = \"c\": must be an absolute path"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\ntokens_file = \"/t\"\n[handler.tls]\ncertificate = \"/c\"\n[[interface]]\nname = \"fh-a\"",
        &["missing field `key`"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\ntokens_file = \"/t\"\n[handler.tls]\ncertificate = \"/c\"\nkey = \"/k\"\noperators = [\"ops\"]\n[[interface]]\nname = \"fh-a\"",
        &["handler.tls.operators: needs client_ca"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\n[handler.tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\noperators = [\"ops\", \" \"]\n[[interface]]\nname = \"fh-a\"",
        &["handler.tls.operators[1] = \" \": must be a name in a client certificate"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "grpc_tls = \"0.0.0.0:1\"\n[handler.tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\noperators = [\"ops\"]\nviewers = [\"ops\"]\n[[interface]]\nname = \"fh-a\"",
        &["handler.tls.viewers = \"ops\": is among the operators, too"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "metrics = \"9184\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.metrics = \"9184\"", "ip:port"],
    ),
    (
        "[[interface]]\nname = \"fh-a\"",
        "privileges = \"drop\"\n[[interface]]\nname = \"fh-a\"",
        &["handler.privileges = \"drop\": must be one of `keeper`, `none`, `keep`"],
    ),
    ("name = \"equities\"", "name = \"equities\"\nstart = \"snapshot\"", &["channel[0].snapshot", "needs this table"]),
    (
        "name = \"out\"",
        "name = \"out\"\nrecords = [\"mbo\", \"mbp\"]",
        &["destination[0].records[1] = \"mbp\": must be one of `mbo`, `trade`, `definition`, `status`, `imbalance`"],
    ),
    (
        "name = \"out\"",
        "name = \"out\"\nrecords = [\"mbo\", \"status\", \"mbo\"]",
        &["destination[0].records[2] = \"mbo\": is in the list already"],
    ),
    (
        "name = \"out\"",
        "name = \"out\"\nformat = \"raw\"\nrecords = [\"mbo\"]",
        &["destination[0].records = 1 of them: must be left out with format = \"raw\""],
    ),
    (
        "name = \"out\"",
        "name = \"out\"\ninstruments = [\"AAPL\", \"TOOLONGER\"]",
        &["destination[0].instruments[1] = \"TOOLONGER\": must be a symbol", "1 to 8 printable ASCII characters"],
    ),
    (
        "name = \"out\"",
        "name = \"out\"\ninstruments = [\"AAPL \"]",
        &["destination[0].instruments[0] = \"AAPL \"", "without padding"],
    ),
    (
        "name = \"out\"",
        "name = \"out\"\ninstruments = [\"\"]",
        &["destination[0].instruments[0] = \"\": must be a symbol"],
    ),
    (
        "name = \"out\"",
        "name = \"out\"\ninstruments = [\"AAPL\", \"MSFT\", \"AAPL\"]",
        &["destination[0].instruments[2] = \"AAPL\": is in the list already; name each symbol once"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.snapshot]\nservers = [\"10.0.0.9:1\"]",
        &["channel[0].snapshot", "unless start = \"snapshot\""],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nstart = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"224.0.1.9:1\"]",
        &["snapshot.servers[0] = \"224.0.1.9:1\": must be a server's IPv4 address and TCP port"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nstart = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"10.0.0.9:1\"]\nusername = \"SEVENTH\"",
        &["snapshot.username = 7 bytes: must be at most 6 ASCII characters"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nstart = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"10.0.0.9:1\"]\npassword = \"a b\"",
        &["snapshot.password = 3 bytes: must be at most 10 ASCII characters without spaces"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nstart = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"10.0.0.9:1\"]\ngive_up_ms = 100",
        &["snapshot.timeout_ms = 5000: the first server would still be waited for", "give_up_ms = 100"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nstart = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"10.0.0.9:1\"]\nmax_messages = 999",
        &["snapshot.max_messages = 999: must be 1000 to 100000000 messages"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nstart = \"snapshot\"\n[feed.channel.snapshot]\nservers = [\"10.0.0.9:1\"]\nmessages_per_second = 0",
        &["snapshot.messages_per_second = 0: must be 1000 to 100000000 messages"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nsource = \"10.0.0.1\"",
        &["missing field `servers`"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = []",
        &["feed[0].channel[0].recovery.servers = 0 of them: must name 1 to 8 servers"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = [\"10.0.0.9\"]",
        &[
            "test.toml:23: feed[0].channel[0].recovery.servers[0] = \"10.0.0.9\": must be a server's IPv4 address and UDP port",
        ],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = [\"239.0.0.9:1\"]",
        &["recovery.servers[0] = \"239.0.0.9:1\": must be a server"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = [\"10.0.0.9:1\", \"10.0.0.9:1\"]",
        &["recovery.servers[1] = \"10.0.0.9:1\": is named already"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = [\"10.0.0.9:1\"]\nrequest_timeout_ms = 50",
        &[
            "recovery.request_timeout_ms = 50: the first request would still be waited for",
            "gap_timeout_us = 500",
            "give_up_ms = 50",
        ],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = [\"10.0.0.9:1\"]\nrequests_per_second = 0",
        &["recovery.requests_per_second = 0: must be 1 to 1000000 requests"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = [\"10.0.0.9:1\"]\noutstanding_requests = 257",
        &["recovery.outstanding_requests = 257: must be 1 to 256 requests"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.recovery]\nservers = [\"10.0.0.9:1\"]\nsource = \"239.1.1.1\"",
        &["recovery.source = \"239.1.1.1\": must be a unicast IPv4 address"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\n[feed.channel.soupbintcp]\nservers = [\"10.0.0.9:1\"]\nusername = \"u\"\npassword = \"p\"",
        &["test.toml:22: feed[0].channel[0].soupbintcp: a channel has either lines or servers over TCP"],
    ),
    (
        "mode = \"socket\"",
        "mode = \"copy\"",
        &["interface[1].mode = \"copy\": must be one of `auto`, `zero-copy`, `native`, `skb`, `socket`"],
    ),
    ("mode = \"socket\"", "busy_poll_us = -1", &["interface[1].busy_poll_us = -1: must be 0 to 10000 microseconds"]),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nbusy_poll_us = 10_001",
        &["test.toml:11: interface[2].busy_poll_us = 10001: must be 0 to 10000 microseconds"],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nbusy_poll_us = 50\nbusy_poll_budget = 0",
        &["test.toml:12: interface[2].busy_poll_budget = 0: must be 1 to 65535 packets"],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nbusy_poll_budget = 64",
        &["interface[2].busy_poll_budget = 64: has no effect without busy polling", "busy_poll_us above 0"],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nbusy_poll_us = 0\nprefer_busy_poll = true",
        &["interface[2].prefer_busy_poll = true: has no effect without busy polling"],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nmode = \"native\"\nreuse_port = true",
        &["interface[2].reuse_port = true: kernel sockets only, and mode `native` never has any", "mode = \"socket\""],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nmode = \"skb\"\nreceive_buffer_bytes = 65536",
        &["interface[2].receive_buffer_bytes = 65536: kernel sockets only, and mode `skb` never has any"],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nreceive_buffer_bytes = 4095",
        &["interface[2].receive_buffer_bytes = 4095: must be 4096 to 1073741824 bytes"],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nunsubscribed = \"block\"",
        &["test.toml:11: interface[2].unsubscribed = \"block\": must be one of `pass`, `drop`"],
    ),
    (
        "name = \"fh-out\"",
        "name = \"fh-out\"\nunsubscribed = \"drop\"",
        &["test.toml:11: interface[2].unsubscribed = \"drop\": must be \"pass\": no line comes in on this interface"],
    ),
    (
        "mode = \"socket\"",
        "mode = \"socket\"\nunsubscribed = \"drop\"",
        &["test.toml:9: interface[1].unsubscribed = \"drop\": must be \"pass\" with mode `socket`", "no XDP program"],
    ),
    (
        "mode = \"socket\"",
        "mode = \"socket\"\nvlan_stripped = true",
        &["test.toml:9: interface[1].vlan_stripped = true: must be false with mode `socket`"],
    ),
    ("name = \"fh-b\"", "name = \"a-name-that-is-too-long\"", &["interface[1].name", "1 to 15"]),
    ("name = \"fh-b\"", "name = \"fh-a\"", &["interface[1].name = \"fh-a\": another interface has this name"]),
    ("name = \"w0\"", "name = \"w0\"\nframe_count = 5000", &["worker[0].frame_count = 5000: must be a power of two"]),
    (
        "name = \"w0\"",
        "name = \"w0\"\nframe_count = 2048",
        &["worker[0].frame_count = 2048: must be at least 4096: a port has a ring of 2048"],
    ),
    ("name = \"w0\"", "name = \"w0\"\nframe_bytes = 1024", &["worker[0].frame_bytes = 1024: must be 2048 or 4096"]),
    ("name = \"w0\"", "name = \"w0\"\nring_entries = 1000", &["worker[0].ring_entries = 1000: must be a power of two"]),
    ("core = 1", "core = 7", &["worker[0].core = 7", "there are: 0, 1, 2"]),
    ("core = 1", "core = 1\n[[worker]]\nname = \"w1\"\ncore = 1", &["worker[1].core = 1: worker `w0` is pinned"]),
    (
        "core = 1",
        "core = 1\n[[worker]]\nname = \"w1\"",
        &["feed[0].channel[0].worker: there are several workers", "w0, w1"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nworker = \"w9\"",
        &["test.toml:22: feed[0].channel[0].worker = \"w9\": no such worker; must be `w0`"],
    ),
    ("transport = \"moldudp64\"", "transport = \"mold\"", &["feed[0].transport = \"mold\": must be `moldudp64`"]),
    ("decoder = \"itch50\"", "decoder = \"itch\"", &["feed[0].decoder = \"itch\": must be `itch50`"]),
    ("publisher_id = 2", "publisher_id = 0", &["feed[0].publisher_id = 0: must be 1 to 65535"]),
    ("America/New_York", "EST5NYC", &["feed[0].time_zone = \"EST5NYC\"", "America/Chicago"]),
    (
        "name = \"equities\"",
        "name = \"equities\"\ngap_timeout_us = 0",
        &["feed[0].channel[0].gap_timeout_us = 0: must be 1 to 10000000 microseconds"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\ngap_timeout_us = 60_000",
        &["feed[0].channel[0].give_up_ms = 50: must not be shorter than gap_timeout_us = 60000"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nmax_orders = 10",
        &["max_orders = 10: must be 1000 to 200000000 orders"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nhold_packets = 99_999_999_999",
        &["hold_packets", "1 to 65536 packets"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\nstart = \"latest\"",
        &["start = \"latest\": must be one of `now`, `first`"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\non_gap = \"drop\"",
        &["feed[0].channel[0].on_gap = \"drop\": must be one of `hold`, `pass`"],
    ),
    (
        "name = \"equities\"",
        "name = \"equities\"\non_gap = \"pass\"\nrecovery = { servers = [\"10.0.9.1:18000\"] }",
        &["feed[0].channel[0].on_gap = \"pass\": must be `hold` with [feed.channel.recovery]"],
    ),
    ("name = \"B\"", "name = \"C\"", &["line[1].name = \"C\": must be `A` or `B`"]),
    ("name = \"B\"", "name = \"A\"", &["line[1].name = \"A\": another line of this channel has this name"]),
    (
        "group = \"239.10.0.2:26400\"",
        "group = \"10.10.0.2:26400\"",
        &[
            "test.toml:29: feed[0].channel[0].line[1].group = \"10.10.0.2:26400\": 10.10.0.2 is not multicast",
            "239.255.255.255",
        ],
    ),
    (
        "group = \"239.10.0.2:26400\"",
        "group = \"239.10.0.2\"",
        &["line[1].group", "must be an IPv4 multicast group and UDP port"],
    ),
    ("group = \"239.10.0.2:26400\"", "group = \"239.10.0.2:0\"", &["line[1].group", "port 0"]),
    ("group = \"239.10.0.2:26400\"", "group = \"224.0.0.5:26400\"", &["line[1].group", "routing protocols"]),
    (
        "interface = \"fh-b\"\ngroup = \"239.10.0.2:26400\"",
        "interface = \"fh-a\"\ngroup = \"239.10.0.1:26400\"",
        &[
            "line[1].group = \"239.10.0.1:26400\": duplicate group: line A of `itch/equities`",
            "interface `fh-a`, vlan 0",
        ],
    ),
    (
        "group = \"239.10.0.2:26400\"",
        "group = \"239.10.0.2:26400\"\nvlan = 4095",
        &["line[1].vlan = 4095: must be 0 to 4094"],
    ),
    (
        "group = \"239.10.0.2:26400\"",
        "group = \"239.10.0.2:26400\"\nsource = \"239.1.1.1\"",
        &["line[1].source = \"239.1.1.1\": must be a unicast IPv4 address"],
    ),
    (
        "group = \"239.10.0.2:26400\"",
        "group = \"239.10.0.2:26400\"\nqueue = 128",
        &["line[1].queue = 128: must be 0 to 127"],
    ),
    (
        "group = \"239.10.0.2:26400\"",
        "group = \"239.10.0.2:26400\"\nqueue = 1",
        &["line[1].queue = 1: must be 0: interface `fh-b` has mode `socket`"],
    ),
    (
        "group = \"239.10.0.2:26400\"",
        "group = \"239.10.0.2:26400\"\nvlan = 7",
        &[
            "line[1].vlan = 7: must be 0: interface `fh-b` has mode `socket`",
            "`ip link add link fh-b name fh-b.7 type vlan id 7`",
        ],
    ),
    (
        "interface = \"fh-b\"",
        "interface = \"fh-c\"",
        &["line[1].interface = \"fh-c\": no such interface; must be one of `fh-a`, `fh-b`, `fh-out`"],
    ),
    (
        "interface = \"fh-b\"",
        "interface = \"fh-a\"",
        &["interface[1].name = \"fh-b\": no line and no destination uses it"],
    ),
    (
        "channel = \"itch/equities\"",
        "channel = \"equities\"",
        &["destination[0].channel = \"equities\": no such channel; must be `itch/equities`"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"192.168.0.4:30001\"",
        &["destination[0].group", "unicast is not supported yet"],
    ),
    (
        "interface = \"fh-out\"",
        "interface = \"fh-b\"\nvlan = 7",
        &["destination[0].vlan = 7: must be 0: interface `fh-b` has mode `socket`", "vlan id 7"],
    ),
    (
        "interface = \"fh-out\"",
        "interface = \"fh-b\"\nqueue = 2",
        &["destination[0].queue = 2: must be 0: interface `fh-b` has mode `socket`"],
    ),
    ("group = \"239.20.0.1:30001\"", "group = \"239.10.0.2:26400\"", &["destination[0].group", "would come back in"]),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\npayload_bytes = 600",
        &["destination[0].payload_bytes = 600: must be 774 to 1472 bytes"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\nvlan = 4095",
        &["destination[0].vlan = 4095: must be 0 to 4094"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\nttl = 0",
        &["destination[0].ttl = 0: must be 1 to 255"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\nformat = \"csv\"",
        &["must be one of `dbn`, `raw`"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[[destination]]\nname = \"out2\"\nchannel = \"itch/equities\"\ninterface = \"fh-out\"\ngroup = \"239.20.0.1:30001\"",
        &["destination[1].group", "destination `out` sends to this group and port already"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\nretain_bytes = 1_048_576",
        &["missing field `address`"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"0.0.0.0:18000\"",
        &[
            "destination[0].retransmission.address = \"0.0.0.0:18000\": must be an IPv4 address of this host and a UDP port",
        ],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:0\"",
        &["destination[0].retransmission.address = \"10.1.0.5:0\": must be an IPv4 address"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nretain_mb = 5",
        &["unknown field `retain_mb`", "`retain_bytes`"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nretain_bytes = 1_048_575",
        &["destination[0].retransmission.retain_bytes = 1048575: must be 1048576 to 4000000000 bytes"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nrequests_per_second = 0",
        &["destination[0].retransmission.requests_per_second = 0: must be 1 to 1000000 requests"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nbytes_per_second = 9_999",
        &["destination[0].retransmission.bytes_per_second = 9999: must be 10000 to 10000000000 bytes"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nrequests_per_second = 100\nclient_requests_per_second = 101",
        &[
            "destination[0].retransmission.client_requests_per_second = 101: must be 1 to 100 (requests_per_second, for all clients)",
        ],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nclient_bytes_per_second = 25_000_001",
        &[
            "destination[0].retransmission.client_bytes_per_second = 25000001: must be 10000 to 25000000 (bytes_per_second",
        ],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nallow = []",
        &["destination[0].retransmission.allow = 0 of them: must name 1 to 64 networks"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\nallow = [\"10.1.2.3/16\"]",
        &["destination[0].retransmission.allow[0] = \"10.1.2.3/16\": must be an IPv4 network", "10.1.0.0/16"],
    ),
    (
        "group = \"239.20.0.1:30001\"",
        "group = \"239.20.0.1:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"\n[[destination]]\nname = \"out2\"\nchannel = \"itch/equities\"\ninterface = \"fh-out\"\ngroup = \"239.20.0.2:30001\"\n[destination.retransmission]\naddress = \"10.1.0.5:18000\"",
        &[
            "destination[1].retransmission.address = \"10.1.0.5:18000\": destination `out` listens here already",
            "names a session only",
        ],
    ),
];

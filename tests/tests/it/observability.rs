//! The board and the alert rules in config/, judged by Prometheus' own programs against a handler that runs.
#![forbid(unsafe_code)]

mod expressions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use feedhandler_testkit::mold::{self, Packet};

use crate::site::{Running, Site};
use crate::tools::{tool, workspace};
use crate::turn::turn;
use expressions::{board_expressions, metrics_of, rule_expressions};

const MESSAGE: &[u8; 12] = b"S\0\0\0\0\0\0\0\0\0\x01O";
const TIMEOUT: Duration = Duration::from_secs(60);

/// A handler with everything on that has metrics.
fn start(site: &Site, name: &str) -> Running {
    let config = site.config(name, |text| {
        let recovery = "max_orders = 1000\n[feed.channel.recovery]\nservers = [\"10.9.1.2:18000\"]\n";
        text.replace("[handler]", "[handler]\nmetrics = \"127.0.0.1:9184\"").replace("max_orders = 1000\n", recovery)
    });
    site.launch(name, site.command(&config))
}

/// What the handler serves to a client that accepts `accept`: head and body.
fn scrape(site: &Site, accept: &str) -> (String, String) {
    let get = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:9184")?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = site.namespace.enter(get).expect("inside").expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    // In chunks: the lines with their lengths are not the text's.
    let is_chunk = |line: &&str| line.is_empty() || u32::from_str_radix(line.trim(), 16).is_ok();
    let body = body.lines().filter(|line| !is_chunk(line)).map(|line| format!("{line}\n")).collect();
    (head.to_owned(), body)
}

fn send_messages(site: &Site, first: u64, count: u64) {
    let socket = site.sender();
    for sequence in first..first + count {
        let mut packet = Packet::new(b"SESSION001", sequence);
        packet.push(MESSAGE);
        socket.send(&packet.into_payload()).expect("sent");
    }
    socket.send(&mold::heartbeat(b"SESSION001", first + count)).expect("sent");
}

/// Keeps the channel alive until what is returned is dropped.
fn heartbeats(site: &Site, next: u64) -> mpsc::Sender<()> {
    let (alive, ended) = mpsc::channel();
    let socket = site.sender();
    std::thread::spawn(move || {
        while ended.recv_timeout(Duration::from_millis(200)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = socket.send(&mold::heartbeat(b"SESSION001", next));
        }
    });
    alive
}

fn succeeded(what: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{text}", output.status);
    text
}

#[test]
fn promtool_accepts_the_rules_and_they_pass_their_own_tests() {
    let promtool = |arguments: &[&str]| Command::new(tool("promtool")).args(arguments).output().expect("starts");
    let rules = workspace("config/alerts.yml");
    let text = succeeded("check", &promtool(&["check", "rules", rules.to_str().expect("UTF-8")]));
    assert!(text.contains("SUCCESS"), "{text}");
    let tests = workspace("tests/tests/it/observability/alerts_test.yml");
    succeeded("test", &promtool(&["test", "rules", tests.to_str().expect("UTF-8")]));
}

#[test]
fn board_and_rules_use_only_what_is_exported_and_promtool_accepts_that() {
    let _turn = turn();
    let site = Site::new();
    let _running = start(&site, "names");
    let (head, text) = scrape(&site, "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
    assert!(head.contains("application/openmetrics-text") && text.ends_with("# EOF\n"), "{head}");

    let (classic_head, classic) = scrape(&site, "text/plain;version=0.0.4");
    assert!(classic_head.contains("text/plain; version=0.0.4"), "{classic_head}");
    let mut promtool = Command::new(tool("promtool"));
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(classic.as_bytes()).expect("read");
    let complaints = succeeded("check metrics", &child.wait_with_output().expect("ends"));
    assert_eq!(complaints.trim(), "", "promtool has nothing to say");

    // Families may be empty now; their names are declared all the same, and the labels of those that are not are known.
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).flat_map(names).collect();
    let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, rest) in text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('{')) {
        labels.entry(name).or_insert(rest);
    }
    let (board, rules) = (board_expressions(), rule_expressions());
    assert!(board.len() > 30 && rules.len() > 15, "{} {}", board.len(), rules.len());
    for expression in board.iter().chain(&rules) {
        let used = metrics_of(expression);
        assert!(!used.is_empty(), "no metric in: {expression}");
        for (name, matched) in used {
            assert!(exported.contains(&name), "{name} is not exported: {expression}");
            for label in matched.iter().filter(|label| *label != "instance") {
                let known = labels.get(name.as_str()).is_none_or(|known| known.contains(&format!("{label}=\"")));
                assert!(known, "{name} has no label {label}: {expression}");
            }
        }
    }
    assert!(!exported.contains("feedhandler_no_such_metric_total"));
}

/// Names of the series of a family, from its `name type`.
fn names(family: &str) -> Vec<String> {
    match family.split_once(' ').expect("name and type") {
        (name, "counter") => vec![format!("{name}_total")],
        (name, "histogram") => ["_bucket", "_count", "_sum"].map(|end| format!("{name}{end}")).to_vec(),
        (name, _) => vec![name.to_owned()],
    }
}

/// A Prometheus in the handler's namespace; ended when dropped.
struct Prometheus<'a> {
    site: &'a Site,
    child: Child,
}

impl<'a> Prometheus<'a> {
    fn start(site: &'a Site) -> Self {
        let files = site.files.path();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\n\
             scrape_configs: [{{job_name: feedhandler, static_configs: [{{targets: [\"127.0.0.1:9184\"]}}]}}]\n",
            workspace("config/alerts.yml")
        );
        fs::write(files.join("prometheus.yml"), config).expect("a file");
        let mut command = site.namespace.command(&tool("prometheus"));
        command.arg("--config.file").arg(files.join("prometheus.yml"));
        command.arg("--storage.tsdb.path").arg(files.join("tsdb"));
        command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"]);
        let log = File::create(files.join("prometheus.log")).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("starts");
        Self { site, child }
    }

    /// The answer to a query as promtool prints it, one series a line; the expression must be a good one.
    fn query(&self, expression: &str) -> Result<String, String> {
        let mut promtool = self.site.namespace.command(&tool("promtool"));
        let output = promtool.args(["query", "instant", "http://127.0.0.1:9090", expression]).output().expect("starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into_owned()) } else { Err(error) }
    }

    fn wait_for(&self, expression: &str) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let answer = self.query(expression);
            if answer.as_ref().is_ok_and(|answer| answer.contains("=>")) {
                return;
            }
            let log = fs::read_to_string(self.site.files.path().join("prometheus.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "nothing for {expression}: {answer:?}\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_prometheus_scrapes_the_handler_fills_the_board_and_raises_an_alert() {
    let _turn = turn();
    let site = Site::new();
    let _running = start(&site, "scraped");
    let mut prometheus = Prometheus::start(&site);
    prometheus.wait_for("up{job=\"feedhandler\"} == 1");
    send_messages(&site, 1, 200);
    let heartbeats = heartbeats(&site, 201);
    prometheus.wait_for("feedhandler_channel_messages_total{channel=\"itch/one\"} == 200");
    // Rates need a second sample after that.
    prometheus.wait_for("increase(feedhandler_line_packets_total{line=\"A\"}[30s]) > 100");
    for written in board_expressions() {
        let expression = [("$instance", ".*"), ("$channel", ".*"), ("$__rate_interval", "30s"), ("$__range", "1m")]
            .iter()
            .fold(written.clone(), |text, (name, value)| text.replace(name, value));
        let answer = prometheus.query(&expression).unwrap_or_else(|error| panic!("{written}: {error}"));
        // What asks for trouble finds none.
        let is_filter = expression.contains(" > 0") || expression.contains(" == 1");
        assert!(is_filter || answer.contains("=>"), "the board shows nothing for {written}");
    }
    // All is well, as soon as it has looked after the first packet.
    prometheus.wait_for("absent(ALERTS{severity=\"page\"})");
    drop(heartbeats);

    site.far.ip(&["link", "set", "far-in", "down"]).expect("ip link");
    let out = "alertname=\"FeedhandlerInterfaceOut\",alertstate=\"firing\",interface=\"fh-in\",fault=\"no_carrier\"";
    prometheus.wait_for(&format!("ALERTS{{{out}}}"));
    prometheus.wait_for("ALERTS{alertname=\"FeedhandlerNotReady\"}");
    assert!(prometheus.child.try_wait().is_ok_and(|status| status.is_none()), "Prometheus has not ended");
}

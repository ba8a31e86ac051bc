//! The log of latencies of a handler that runs, read by HdrHistogram's own reader, and the page made of it, in a browser.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use feedhandler::latency::{Stage, hdr};
use feedhandler_testkit::mold::Packet;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::program;
use crate::site::{Running, Site};
use crate::turn::turn;

const MESSAGE: &[u8; 12] = b"S\0\0\0\0\0\0\0\0\0\x01O";
const PATIENCE: Duration = Duration::from_secs(20);

fn send(site: &Site, first: u64, count: u64) {
    let socket = site.sender();
    for sequence in first..first + count {
        let mut packet = Packet::new(b"SESSION001", sequence);
        packet.push(MESSAGE);
        socket.send(&packet.into_payload()).expect("sent");
    }
}

/// Values by stage since the start, as control has them.
fn counted(running: &Running) -> BTreeMap<String, u64> {
    let output = running.feedctl(&["--output", "json", "latency"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let stages = answer["stages"].as_array().expect("stages").iter();
    let count = |stage: &serde_json::Value| {
        let summary = &stage["summary"];
        (summary["stage"].as_str().expect("a name").to_owned(), summary["count"].as_u64().expect("a number"))
    };
    stages.map(count).collect()
}

/// Values by stage in a log; its intervals must follow each other without a hole.
fn logged(log: &Path) -> BTreeMap<String, u64> {
    let text = fs::read(log).unwrap_or_default();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let mut ends: BTreeMap<String, Duration> = BTreeMap::new();
    for entry in IntervalLogIterator::new(&text) {
        let LogEntry::Interval(interval) = entry.expect("a good log") else { continue };
        let tag = interval.tag().expect("a tag").as_str().to_owned();
        let histogram = hdr::decode(interval.encoded_histogram()).expect("a histogram");
        let begin = interval.start_timestamp();
        if let Some(end) = ends.get(&tag) {
            assert!(begin.abs_diff(*end) <= Duration::from_millis(2), "{tag}: {end:?} to {begin:?}");
        }
        ends.insert(tag.clone(), begin + interval.duration());
        *sums.entry(tag).or_default() += histogram.len();
    }
    sums
}

/// Ends a handler as a service manager does.
fn terminate(running: &mut Running) {
    let pid = Pid::from_child(&running.child);
    kill_process(pid, Signal::TERM).expect("a child");
    let deadline = Instant::now() + PATIENCE;
    while running.child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < deadline, "does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_handler_logs_is_what_it_counts_and_becomes_a_page_that_a_browser_draws() {
    let _turn = turn();
    let site = Site::new();
    let log = site.files.path().join("logs/latency.hlog");
    let config = site.config("logs", |text| {
        let keys = format!("[handler]\nlatency_log = \"{}\"\nlatency_log_interval_s = 1", log.display());
        text.replace("[handler]", &keys)
    });
    let mut running = site.launch("logs", site.command(&config));
    send(&site, 1, 200);
    let deadline = Instant::now() + PATIENCE;
    while logged(&log).values().sum::<u64>() == 0 {
        assert!(Instant::now() < deadline, "{}", fs::read_to_string(&running.log).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(50));
    }
    send(&site, 201, 300);
    while counted(&running)["entry_to_sent"] < 500 {
        assert!(Instant::now() < deadline, "{:?}", counted(&running));
        std::thread::sleep(Duration::from_millis(50));
    }
    let counted = counted(&running);
    terminate(&mut running);
    assert_eq!(logged(&log), counted);
    assert!(counted.keys().eq(["decoded_to_sent", "entry_to_sent", "entry_to_worker", "worker_to_decoded"]));

    let page = site.files.path().join("report.html");
    let mut report = Command::new(program("feedhandler"));
    let output =
        report.arg("latency-report").arg("--log").arg(&log).arg("--output").arg(&page).output().expect("starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    // Bound to nothing: the table, of a time of which there is nothing.
    let mut report = Command::new(program("feedhandler"));
    let output =
        report.args(["latency-report", "--from", "2200-01-01T00:00:00Z", "--log"]).arg(&log).output().expect("starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), error.trim()),
        (Some(1), "feedhandler: there is no interval in the logs of that time")
    );
    drawn(&site, &page);
}

/// Has a browser draw the page, and looks at what came of it.
fn drawn(site: &Site, page: &Path) {
    let text = fs::read_to_string(page).expect("a page");
    let dom = browse(site, page);
    for shown in ["<h1>Latency of logs</h1>", "Entry to sent", "fh-in (native)", "<svg viewBox="] {
        assert!(dom.contains(shown), "{shown} is not in\n{dom}");
    }
    let row = "<tr id=\"entry_to_sent\"><th scope=\"row\"><i class=\"s3\"></i>entry_to_sent</th><td>500</td>";
    assert!(dom.contains(row), "{row} is not in\n{dom}");
    // The page runs nothing; a copy of it measures what the browser has drawn.
    let measured = page.with_file_name("measured.html");
    let measure = "<script>document.title = [...document.querySelectorAll('path.curve')].map(p => Math.round(p.getTotalLength()) \
                   + '/' + Math.round(p.getBoundingClientRect().width)).join(' ');</script></body>";
    let lines = text.lines().filter(|line| !line.contains("Content-Security-Policy"));
    let copy = lines.map(|line| line.replace("</body>", measure) + "\n").collect::<String>();
    fs::write(&measured, copy).expect("a file");
    let dom = browse(site, &measured);
    let title = dom.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).expect("a title").0;
    let curves: Vec<(u32, u32)> = title
        .split(' ')
        .map(|curve| {
            let (length, width) = curve.split_once('/').unwrap_or_else(|| panic!("nothing was measured: {title}"));
            (length.parse().expect("a number"), width.parse().expect("a number"))
        })
        .collect();
    // All stages together, then of each its curve and four courses.
    assert_eq!(curves.len(), Stage::ALL.len() * 6, "{title}");
    let by_percentile = |at: usize| at < 4 || (at - 4).is_multiple_of(5);
    for (at, (length, width)) in curves.iter().enumerate().filter(|(at, _)| by_percentile(*at)) {
        assert!(*length > 100 && *width > 100, "curve {at}: {title}");
    }
}

/// The document as a browser has it after drawing; it must have nothing to complain about.
fn browse(site: &Site, page: &Path) -> String {
    let mut browser = Command::new("chromium-headless-shell");
    browser.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr", "--dump-dom"]);
    browser.arg(format!("--user-data-dir={}", site.files.path().join("browser").display()));
    let output = browser.arg(format!("file://{}", page.display())).stdin(Stdio::null()).output();
    let output = output.expect("chromium-headless-shell: `cargo xtask setup` installs it");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !error.contains("CONSOLE"), "{}\n{error}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

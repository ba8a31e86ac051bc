//! Logs, good and bad, and what becomes of them.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::*;
use crate::latency::{Stage, StageHistograms, hdr};

const NOON_S: u64 = 1_795_521_600;

fn interval(tag: &str, start: &str, values: &[(u64, u64)]) -> String {
    let mut stages = StageHistograms::default();
    values.iter().for_each(|(ns, count)| stages.record_n(Stage::EntryToSent, *ns, *count));
    format!("Tag={tag},{start},1.000,0.000,{}\n", hdr::encode(stages.stage(Stage::EntryToSent)))
}

fn read(text: &[u8]) -> Result<Report, ReportError> {
    between(text, None, None)
}

fn between(text: &[u8], from: Option<u64>, to: Option<u64>) -> Result<Report, ReportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.hlog");
    std::fs::write(&path, text).unwrap();
    Report::read(&[path], from, to)
}

/// Ten seconds of one stage.
fn good() -> String {
    let mut text = "#[Fact instance: nasdaq-1 <script>]\n#[BaseTime: 0.000 (seconds since epoch)]\n".to_owned();
    for second in 0..10 {
        let values = [(2_000 + second, 900), (50_000, 99), (1_000_000 * (10 - second), 1)];
        let _ = write!(text, "{}", interval("entry_to_sent", &format!("{}.000", NOON_S + second), &values));
    }
    text
}

#[test]
fn a_good_log_gives_its_figures_without_complaints() {
    let report = read(good().as_bytes()).unwrap();
    assert_eq!(report.complaints(), [""; 0]);
    let way = &report.stages[3];
    assert_eq!((way.intervals, way.total.len(), way.course.len()), (10, 10_000, 10));
    assert_eq!(report.span_ns, (NOON_S * 1_000_000_000, (NOON_S + 10) * 1_000_000_000));
    let longest: Vec<u64> = way.course.iter().map(|column| column.values_ns[3] / 1_000_000).collect();
    assert_eq!(longest, (1..=10).rev().collect::<Vec<_>>(), "each its own");
    let text = report.to_string();
    let row = text.lines().find(|line| line.contains("entry_to_sent")).unwrap();
    assert!(
        row.contains("10,000") && row.contains("2.0") && row.contains("50.0 µs") && row.contains("10.0 ms"),
        "{text}"
    );
    let page = report.html();
    assert!(
        page.contains("nasdaq-1 &lt;script&gt;") && !page.contains("<script"),
        "nothing of a log is a part of the page"
    );
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("src=") && !page.contains("url(")
    );
    assert_eq!(page.matches("<svg").count(), 3, "all stages, and the two of the one that has values");
}

#[test]
fn a_time_can_be_cut_out() {
    let at = |second: u64| Some((NOON_S + second) * 1_000_000_000);
    let report = between(good().as_bytes(), at(2), at(5)).unwrap();
    assert_eq!(report.stages[3].total.len(), 3_000);
    assert_eq!(time("2026-11-24T12:00:02Z").ok(), at(2));
    assert_eq!(time("2026-11-24T07:00:02-05:00").ok(), at(2));
    assert_eq!(time("2026-11-24T12:00:02").ok(), at(2));
    assert!(time("noon").unwrap_err().contains("2026-11-24T14:30:00Z"));
    let error = between(good().as_bytes(), at(20), None).unwrap_err().to_string();
    assert_eq!(error, "there is no interval in the logs of that time");
}

#[test]
fn what_is_wrong_is_left_out_and_named_with_its_line() {
    let line = |tag: &str, start: &str| interval(tag, start, &[(1_000, 1)]);
    let start = format!("{NOON_S}.000");
    let cut = line("entry_to_sent", &start);
    let damaged = cut.replacen("HIST", "HISU", 1);
    let no_base64 = cut.replacen("HIST", "!!!!", 1);
    let cases: [(Vec<u8>, &str); 9] = [
        (b"garbage\n".into(), "neither a comment nor an interval"),
        (b"\xff\xfe\x00\n".into(), "neither a comment nor an interval"),
        (cut.as_bytes()[..cut.len() - 9].into(), "it has no end"),
        (b"Tag=entry_to_sent,1.0,1.0\n".into(), "neither a comment nor an interval"),
        (damaged.into(), "its histogram cannot be read"),
        (no_base64.into(), "its histogram cannot be read (no base64"),
        (line("gc_pause", &start).into(), "its tag `gc_pause` is no stage"),
        (line("x", &start)["Tag=x,".len()..].into(), "it has no tag"),
        (line("entry_to_sent", "99999999999.000").into(), "beyond the year 2200"),
    ];
    for (bad, says) in cases {
        let only = read(&bad).unwrap_err().to_string();
        assert!(only.contains("latency.hlog:1: ") && only.contains(says), "{only}");
        let among = [good().as_bytes(), &bad].concat();
        let report = read(&among).unwrap();
        assert_eq!(report.stages[3].total.len(), 10_000, "{says}");
        let complaints = report.complaints();
        assert!(complaints.len() == 1 && complaints[0].contains("latency.hlog:13: "), "{complaints:?}");
        assert!(complaints[0].contains(says) && report.html().contains("Left out"), "{complaints:?}");
    }
    let error = read(b"#[StartTime: 1.0 (seconds since epoch)]\n\n").unwrap_err().to_string();
    assert_eq!(error, "there is no interval in the logs");
    let error = Report::read(&[PathBuf::from("/nonexistent/log")], None, None).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nonexistent/log: No such file"), "{error}");
    let many = [good().as_bytes(), &b"x\n".repeat(100)].concat();
    assert_eq!(read(&many).unwrap().complaints().last().unwrap(), "and 80 lines more");
}

#[test]
fn times_that_count_from_the_start_are_understood() {
    let head = format!("#[StartTime: {NOON_S}.500 (seconds since epoch), noon]\n");
    let relative = read((head.clone() + &interval("entry_to_sent", "2.000", &[(1, 1)])).as_bytes()).unwrap();
    assert_eq!(relative.span_ns.0, NOON_S * 1_000_000_000 + 2_500_000_000);
    let absolute = format!("{}.000", NOON_S + 2);
    let absolute = read((head + &interval("entry_to_sent", &absolute, &[(1, 1)])).as_bytes()).unwrap();
    assert_eq!(absolute.span_ns.0, (NOON_S + 2) * 1_000_000_000);
}

#[test]
fn neighbours_are_put_together_when_there_are_too_many() {
    let text: String = (0..1_000)
        .map(|second| interval("entry_to_sent", &format!("{}.000", NOON_S + second), &[(1_000 + second, 1)]))
        .collect();
    let report = read(text.as_bytes()).unwrap();
    let course = &report.stages[3].course;
    assert!((300..=361).contains(&course.len()), "{}", course.len());
    assert_eq!(course.iter().map(|column| column.count).sum::<u64>(), 1_000);
}

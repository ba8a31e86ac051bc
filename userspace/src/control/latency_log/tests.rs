//! The log as HdrHistogram's own reader sees it, and what becomes of it when the disk does not play along.
#![forbid(unsafe_code)]

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::*;

const SECOND_NS: u64 = 1_000_000_000;
/// 2026-11-24 12:00 UTC.
const NOON_NS: u64 = 1_795_521_600 * SECOND_NS;

struct Rig {
    folder: tempfile::TempDir,
    total: StageHistograms,
    now_ns: u64,
}

impl Rig {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), total: StageHistograms::default(), now_ns: NOON_NS }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("logs/latency.hlog")
    }

    fn log(&self, bytes: u64) -> LatencyLog {
        let plan = LatencyLogPlan { path: self.path(), interval_s: 1, bytes };
        LatencyLog::new(plan, &[("host", "h\n1".to_owned())], self.round())
    }

    fn round(&self) -> Round {
        Round { until_ns: self.now_ns, until_utc_ns: self.now_ns, total: Arc::new(self.total.clone()) }
    }

    /// A second later, with `count` values more.
    fn later(&mut self, ns: u64, count: u64) -> Round {
        self.now_ns += SECOND_NS;
        self.total.record_n(Stage::EntryToSent, ns, count);
        self.round()
    }
}

/// Start, length, and count of the whole way, of each interval.
fn read(path: &Path) -> Vec<(u64, u64, u64)> {
    let text = fs::read(path).unwrap();
    let mut found = Vec::new();
    for entry in IntervalLogIterator::new(&text) {
        match entry.expect("a good log") {
            LogEntry::BaseTime(time) => assert!(time.is_zero()),
            LogEntry::StartTime(_) => {}
            LogEntry::Interval(line) if line.tag().unwrap().as_str() == "entry_to_sent" => {
                let histogram = hdr::decode(line.encoded_histogram()).unwrap();
                assert!((line.max() - histogram.max() as f64 / 1e6).abs() < 0.001);
                found.push((line.start_timestamp().as_secs(), line.duration().as_secs(), histogram.len()));
            }
            LogEntry::Interval(_) => {}
        }
    }
    found
}

#[test]
fn every_interval_is_read_back_over_a_restart_and_a_torn_line() {
    let mut rig = Rig::new();
    let mut log = rig.log(1 << 20);
    let noon = NOON_NS / SECOND_NS;
    log.write(&rig.later(2_500, 10)).unwrap();
    log.write(&rig.later(9_000, 5)).unwrap();
    drop(log);
    // A crash in the middle of a line.
    let mut file = OpenOptions::new().append(true).open(rig.path()).unwrap();
    file.write_all(b"Tag=entry_to_sent,179552").unwrap();
    rig.now_ns += 60 * SECOND_NS;
    let mut log = rig.log(1 << 20);
    log.write(&rig.later(1_000, 0)).unwrap();
    log.write(&rig.later(1_000, 7)).unwrap();
    let expected = [(noon, 1, 10), (noon + 1, 1, 5), (noon + 62, 1, 0), (noon + 63, 1, 7)];
    assert_eq!(read(&rig.path()), expected);
    let text = fs::read_to_string(rig.path()).unwrap();
    assert!(
        text.starts_with("#[Histogram log format version 1.3]\n#[Fact host: h 1]\n#[StartTime: 1795521600.000 "),
        "{text}"
    );
    assert_eq!(text.matches("#[StartTime:").count(), 2);
    assert_eq!(fs::metadata(rig.path()).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn two_files_of_the_limit_are_all_that_is_kept() {
    const LIMIT: u64 = 4096;
    let mut rig = Rig::new();
    let mut log = rig.log(LIMIT);
    for second in 0..100 {
        log.write(&rig.later(1_000 + second, second)).unwrap();
        let kept: Vec<u64> =
            [rig.path(), older(&rig.path())].iter().filter_map(|p| Some(fs::metadata(p).ok()?.len())).collect();
        assert!(kept.iter().all(|len| *len <= LIMIT), "{kept:?}");
    }
    assert_eq!(fs::read_dir(rig.folder.path().join("logs")).unwrap().count(), 2);
    let both: Vec<_> = read(&older(&rig.path())).into_iter().chain(read(&rig.path())).collect();
    assert!(both.len() > 5 && both.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "{both:?}");
    assert_eq!(both.last().unwrap().2, 99);
}

#[test]
fn what_was_moved_away_is_begun_anew() {
    let mut rig = Rig::new();
    let mut log = rig.log(1 << 20);
    log.write(&rig.later(1_000, 1)).unwrap();
    let moved = rig.folder.path().join("moved");
    fs::rename(rig.path(), &moved).unwrap();
    log.write(&rig.later(1_000, 2)).unwrap();
    fs::remove_file(rig.path()).unwrap();
    log.write(&rig.later(1_000, 3)).unwrap();
    assert_eq!((read(&moved)[0].2, read(&rig.path())[0].2), (1, 3));
}

#[test]
fn what_cannot_be_written_comes_with_the_next_interval_that_can() {
    let mut rig = Rig::new();
    let mut log = rig.log(1 << 20);
    log.write(&rig.later(1_000, 1)).unwrap();
    let folder = rig.folder.path().join("logs");
    let away = rig.folder.path().join("away");
    fs::rename(&folder, &away).unwrap();
    // A file is where the folder was: nothing can be made there, by root neither.
    fs::write(&folder, "").unwrap();
    log.write(&rig.later(1_000, 2)).unwrap_err();
    log.write(&rig.later(1_000, 3)).unwrap_err();
    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    log.write(&rig.later(1_000, 4)).unwrap();
    let noon = NOON_NS / SECOND_NS;
    assert_eq!(read(&rig.path()), [(noon, 1, 1), (noon + 1, 3, 9)]);
}

#[test]
fn a_full_disk_leaves_whole_lines_only() {
    // Where nothing fits: every write to it fails with ENOSPC.
    let mut open = Open { file: OpenOptions::new().write(true).open("/dev/full").unwrap(), len: 0, identity: (0, 0) };
    assert_eq!(open.add("x\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(open.len, 0);
}

#[test]
fn nothing_is_added_to_a_file_of_another_kind() {
    let mut rig = Rig::new();
    fs::create_dir(rig.folder.path().join("logs")).unwrap();
    fs::write(rig.path(), "precious").unwrap();
    let error = rig.log(1 << 20).write(&rig.later(1_000, 1)).unwrap_err();
    assert!(error.to_string().contains("something else"), "{error}");
    assert_eq!(fs::read_to_string(rig.path()).unwrap(), "precious");
}

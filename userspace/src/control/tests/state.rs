//! Subscriptions over a restart.
#![forbid(unsafe_code)]

use super::*;

impl Bench {
    fn file(&self) -> PathBuf {
        self.directory.path().join("kept/subscriptions.json")
    }

    /// What is desired of lines A and B at the next start, with what the configuration says of A.
    fn next_start(&self, configured: bool) -> Vec<bool> {
        let mut plan = (*self.desk.plan()).clone();
        plan.lines[0].subscribed = configured;
        let (commands, _) = rtrb::RingBuffer::new(COMMAND_QUEUE);
        let (_, events) = rtrb::RingBuffer::<Event>::new(1);
        let shared = Arc::clone(&self.shared);
        let link =
            WorkerLink { index: 0, commands: commands.into(), events: events.into(), shared, payload_bytes: vec![] };
        let interface = InterfaceLink { mode_in_force: Mode::Socket, jumbo: false, steering: None, refused: vec![] };
        let desk = Desk::new(Arc::new(plan), vec![interface], vec![link], Threads::new(Vec::new()));
        desk.line_states().iter().take(2).map(|state| state.desired).collect()
    }
}

#[test]
fn what_was_switched_is_so_after_a_restart_unless_the_configuration_has_changed() {
    let bench = Bench::new();
    assert_eq!(bench.next_start(true), [true, true], "without a file");
    bench.desk.start_lines().unwrap();
    bench.desk.unsubscribe(&[0], "a test").unwrap();
    assert_eq!(bench.next_start(true), [false, true]);
    assert_eq!(bench.next_start(false), [false, true], "says the configuration itself");
    bench.desk.subscribe(&[0], "a test").unwrap();
    assert_eq!(bench.next_start(true), [true, true]);
    assert_eq!(bench.next_start(false), [false, true], "nothing is kept that does not differ");
    // What was switched off while the configuration said "off" is not known to be meant against an "on".
    bench.desk.unsubscribe(&[1], "a test").unwrap();
    let text = std::fs::read_to_string(bench.file()).unwrap();
    assert!(text.contains("\"line\": \"B\"") && !text.contains("\"line\": \"A\""), "{text}");
    assert_eq!(bench.desk.unsaved_changes(), 0);
}

#[test]
fn a_damaged_file_is_set_aside() {
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    bench.desk.unsubscribe(&[0], "a test").unwrap();
    let text = std::fs::read_to_string(bench.file()).unwrap();
    let edited = text.replacen("\"line\": \"A\"", "\"line\": \"B\"", 1);
    let newer = text.replacen("\"version\": 2", "\"version\": 3", 1);
    for damaged in [&text[..text.len() / 2], "", "\0\0\0\0", &edited, &newer, "{\"version\":1}"] {
        std::fs::write(bench.file(), damaged).unwrap();
        assert_eq!(bench.next_start(true), [true, true], "{damaged}");
        assert_eq!(std::fs::read_to_string(bench.file().with_extension("bad")).unwrap(), damaged);
        assert!(!bench.file().exists());
    }
}

#[test]
fn a_change_that_cannot_be_kept_is_made_and_counted() {
    let bench = Bench::new();
    bench.desk.start_lines().unwrap();
    // /dev/full is what a full disk is: every write fails with ENOSPC.
    std::fs::create_dir_all(bench.file().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", bench.file().with_extension("tmp")).unwrap();
    bench.desk.unsubscribe(&[0], "a test").unwrap();
    assert_eq!((bench.joined(), bench.desk.unsaved_changes()), ([false, true], 1));
    std::fs::remove_file(bench.file().with_extension("tmp")).unwrap();
    bench.desk.unsubscribe(&[0], "a test").unwrap();
    assert_eq!((bench.next_start(true), bench.desk.unsaved_changes()), (vec![false, true], 1), "the next one is");
}

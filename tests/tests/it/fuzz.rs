//! Every file of the fuzzing corpus as an ordinary test, on the ordinary compiler; `cargo xtask fuzz` finds new ones.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use feedhandler_testkit::fuzz::{TARGETS, Target, seeds, target};

/// Set to write the seeds anew, after their code has changed.
const WRITE: &str = "FEEDHANDLER_WRITE_SEEDS";

fn folder(target: &Target) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus")).join(target.name)
}

fn replay(name: &str) {
    let target = target(name).expect("a target");
    let mut count = 0;
    for entry in fs::read_dir(folder(target)).expect("a corpus") {
        let path = entry.expect("a file").path();
        // libtest shows it if the target panics.
        println!("{}", path.display());
        (target.run)(&fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count >= 2, "{name}: {count} files");
}

macro_rules! replays {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })+

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.map(|target| target.name).as_slice(), [$(stringify!($name)),+]);
        }
    };
}

replays!(moldudp64 itch50 headers config capture planner output soup worker);

#[test]
fn the_committed_seeds_are_those_that_the_code_makes() {
    for target in &TARGETS {
        let made = seeds(target.name);
        assert!(made.len() >= 2 && made.iter().all(|(_, bytes)| bytes.len() <= target.most_bytes), "{}", target.name);
        for (name, bytes) in made {
            let path = folder(target).join(name);
            if std::env::var_os(WRITE).is_some() {
                fs::create_dir_all(folder(target)).expect("a folder");
                fs::write(&path, &bytes).expect("a file");
            }
            let committed = fs::read(&path).unwrap_or_default();
            assert!(committed == bytes, "{} is out of date; {WRITE}=1 writes it anew", path.display());
        }
    }
}

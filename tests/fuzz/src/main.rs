//! libFuzzer around the targets of the test kit. FEEDHANDLER_FUZZ_TARGET names the target; the arguments are libFuzzer's.
//! `cargo xtask fuzz` builds and starts it.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use feedhandler_testkit::fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("FEEDHANDLER_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("FEEDHANDLER_FUZZ_TARGET={name}: one of {names}");
        std::process::exit(2)
    })
}

fuzz_target!(|data: &[u8]| (TARGET.get_or_init(chosen).run)(data));

//! The layout rules, checked on the source text. Each failure says which file breaks which rule.
//!
//! 1. Unsafe wall: `unsafe` is allowed in [`UNSAFE_WALL`] only. Every other source file says `#![forbid(unsafe_code)]`
//!    before its first item; a module that holds a file of the wall says `deny`, because `forbid` reaches into children.
//! 2. Dependency direction: a module uses only what stands before it on the data path, see [`RULES`]. Imports are looked at
//!    one path at a time, however they are nested and wherever lines break.
//! 3. File length: at most [`MAX_LINES`] lines before the unit tests. The aim is 300.
//!
//! Build scripts have to be short and without `unsafe`, too.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// The only files with `unsafe`, and what it is for.
const UNSAFE_WALL: [(&str, &str); 5] = [
    ("userspace/src/net/umem.rs", "UMEM memory"),
    ("userspace/src/net/xsk.rs", "AF_XDP rings"),
    ("userspace/src/net/socket.rs", "recvmmsg, sendmmsg, socket options"),
    ("userspace/src/feed/prefetch.rs", "prefetch instructions"),
    ("xdp-ebpf/src/main.rs", "the XDP program"),
];

/// Modules that hold files of the wall.
const WALL_PARENTS: [&str; 3] = ["userspace/src/lib.rs", "userspace/src/net.rs", "userspace/src/feed.rs"];

/// Build scripts: each a crate of its own.
const BUILD_SCRIPTS: [&str; 2] = ["proto/build.rs", "userspace/build.rs"];

const MAX_LINES: usize = 400;

/// What a part of the tree must not mention, outside its unit tests.
struct Rule {
    /// Files whose path starts so.
    part: &'static str,
    /// Except those whose path starts so.
    except: &'static [&'static str],
    /// Paths that must not be used.
    forbidden: &'static [&'static str],
    why: &'static str,
}

/// Crates that belong to control, configuration and steering.
const CONTROL_CRATES: [&str; 7] = ["tokio", "tonic", "serde", "serde_json", "toml", "aya", "libbpf_rs"];

const RULES: [Rule; 6] = [
    Rule {
        part: "userspace/src/",
        except: &[
            "userspace/src/app",
            "userspace/src/bin/",
            "userspace/src/config",
            "userspace/src/control",
            "userspace/src/doctor",
            "userspace/src/metrics",
            "userspace/src/recovery",
            "userspace/src/steering",
            "userspace/src/replay",
        ],
        forbidden: &CONTROL_CRATES,
        why: "only control, configuration and steering know these crates",
    },
    Rule {
        part: "userspace/src/steering",
        except: &[],
        forbidden: &[
            "crate::feed",
            "crate::publish",
            "crate::worker",
            "crate::control",
            "crate::app",
            "tokio",
            "tonic",
        ],
        why: "steering knows the kernel, not the stages",
    },
    Rule {
        part: "userspace/src/net",
        except: &[],
        forbidden: &[
            "crate::feed",
            "crate::publish",
            "crate::worker",
            "crate::control",
            "crate::recovery",
            "crate::snapshot",
            "crate::retransmission",
            "crate::app",
            "dbn",
        ],
        why: "net knows no protocol above UDP and nobody behind it",
    },
    Rule {
        part: "userspace/src/feed",
        except: &[],
        forbidden: &[
            "crate::net",
            "crate::publish",
            "crate::worker",
            "crate::control",
            "crate::recovery",
            "crate::snapshot",
            "crate::retransmission",
            "crate::app",
            "crate::steering",
            "crate::clock",
            "std::net::Udp",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "tracing",
            "socket2",
            "rustix",
            "xsk_rs",
        ],
        why: "feed knows no socket, no clock, no thread, no log",
    },
    Rule {
        part: "userspace/src/publish",
        except: &[],
        forbidden: &[
            "crate::worker",
            "crate::control",
            "crate::recovery",
            "crate::snapshot",
            "crate::retransmission",
            "crate::app",
            "crate::steering",
            "crate::clock",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "tracing",
            "socket2",
            "rustix",
            "xsk_rs",
        ],
        why: "publish knows no socket, no clock, no thread, no log",
    },
    Rule {
        part: "userspace/src/worker",
        except: &[],
        forbidden: &[
            "crate::control",
            "crate::recovery",
            "crate::snapshot",
            "crate::retransmission",
            "crate::app",
            "crate::steering",
        ],
        why: "the worker is told by control, it does not know it",
    },
];

struct Source {
    /// From the workspace's top folder, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The text before the unit tests; nothing of a file that holds only tests.
    fn production(&self) -> &str {
        if self.path.ends_with("/tests.rs") || (self.path.contains("/src/") && self.path.contains("/tests/")) {
            return "";
        }
        self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    /// Production lines of code with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.production().lines().zip(1..).map(|(line, number)| (number, line.split("//").next().unwrap_or_default()))
    }
}

/// What a part of the code imports or names: line number, and one path, or a line of code.
fn uses_of(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut import: Option<(usize, String)> = None;
    for (number, line) in source.code() {
        let (start, mut text) = match import.take() {
            Some(begun) => begun,
            None if is_import(line) => (number, String::new()),
            None => {
                found.push((number, line.to_owned()));
                continue;
            }
        };
        text.push_str(line.trim());
        match text.split_once(';') {
            None => import = Some((start, text)),
            Some((tree, behind)) => {
                let tree = tree.split_once("use ").map_or("", |(_, tree)| tree);
                found.extend(paths("", tree).into_iter().map(|path| (start, path + ";")));
                found.push((number, behind.to_owned()));
            }
        }
    }
    // A statement without an end is no Rust; but a rule must not be lost on it.
    found.extend(import);
    found
}

/// Whether an import begins on this line: `use`, with a visibility or without.
fn is_import(line: &str) -> bool {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')').map_or("", |(_, rest)| rest),
        Some(rest) => rest,
        None => line,
    };
    line.trim_start().starts_with("use ")
}

/// Every path of a `use` tree: `a::{b, c::{self, d as e}}` is `a::b`, `a::c`, `a::c::d`.
fn paths(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((stem, list)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim().trim_start_matches("::");
        let path = if name == "self" { prefix.trim_end_matches("::").to_owned() } else { format!("{prefix}{name}") };
        return vec![path];
    };
    let list = list.trim_end().strip_suffix('}').unwrap_or(list);
    let prefix = format!("{prefix}{}", stem.trim().trim_start_matches("::"));
    let mut found = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = &list[start..at];
                if !part.trim().is_empty() {
                    found.extend(paths(&prefix, part));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for folder in
        ["xdp-ebpf/src", "proto/src", "userspace/src", "xtask/src", "tests/src", "tests/tests", "tests/fuzz/src"]
    {
        collect(&top.join(folder), &mut found);
    }
    found.extend(BUILD_SCRIPTS.map(|path| top.join(path)));
    let mut sources: Vec<Source> = found
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(top).unwrap().to_str().unwrap().to_owned(),
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 20, "the source tree was not found");
    sources
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a line of code uses a path: the name stands alone and something of it is named.
fn uses(line: &str, path: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let behind = &line[at + path.len()..];
        // `std::net::Udp` is a prefix of names; a crate or module is followed by `::`, or ends a `use`.
        let is_prefix = path.rsplit("::").next().is_some_and(|last| last.starts_with(char::is_uppercase));
        let ends = behind.starts_with("::") || behind.starts_with(';') || (is_prefix && !behind.is_empty());
        before.is_none_or(|c| !is_name(c) && c != ':') && ends
    })
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn unsafe_stays_behind_its_wall() {
    let mut broken = Vec::new();
    for source in sources() {
        if BUILD_SCRIPTS.contains(&source.path.as_str()) {
            let word =
                source.code().find(|(_, line)| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == "unsafe"));
            broken.extend(word.map(|(number, _)| format!("{}:{number}: `unsafe` in a build script", source.path)));
            continue;
        }
        let before_items = source.text.split("\nuse ").next().unwrap_or_default();
        let is_wall = UNSAFE_WALL.iter().any(|(path, _)| *path == source.path);
        let is_parent = WALL_PARENTS.contains(&source.path.as_str());
        let forbids = before_items.lines().any(|line| line == "#![forbid(unsafe_code)]");
        let denies = before_items.lines().any(|line| line == "#![deny(unsafe_code)]");
        if !(is_wall || forbids || (is_parent && denies)) {
            broken.push(format!("{}: no #![forbid(unsafe_code)] after its doc comment", source.path));
        }
        // Concatenated, so that this file does not contain it.
        let lifted = ["allow(", "unsafe_code)"].concat();
        if !is_wall && source.text.contains(&lifted) {
            broken.push(format!("{}: lifts the lint; unsafe belongs into {UNSAFE_WALL:?}", source.path));
        }
    }
    assert_none(&broken);
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let mut broken = Vec::new();
    for source in sources() {
        for rule in &RULES {
            if !source.path.starts_with(rule.part) || rule.except.iter().any(|part| source.path.starts_with(part)) {
                continue;
            }
            for (number, line) in uses_of(&source) {
                for path in rule.forbidden.iter().filter(|path| uses(&line, path)) {
                    broken.push(format!("{}:{number}: uses `{path}`: {}", source.path, rule.why));
                }
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.production().lines().count();
        if lines > MAX_LINES {
            broken.push(format!("{}: {lines} lines before its tests, more than {MAX_LINES}", source.path));
        }
    }
    assert_none(&broken);
}

#[test]
fn the_rules_can_be_broken() {
    assert!(uses("use tokio::net::UdpSocket;", "tokio"));
    assert!(uses("use tokio;", "tokio"));
    assert!(uses("    let x = crate::net::BATCH;", "crate::net"));
    assert!(uses("use std::net::UdpSocket;", "std::net::Udp"));
    assert!(uses("let now = std::time::Instant::now();", "std::time::Instant"));
    assert!(uses("use std::thread;", "std::thread"));
    assert!(!uses("use crate::network::X;", "crate::net"));
    assert!(!uses("use tokio_stream::X;", "tokio"));
    assert!(!uses("my_tokio::x()", "tokio"));
    assert!(!uses("use std::net::Ipv4Addr;", "std::net::Udp"));
}

#[test]
fn nested_imports_are_looked_into() {
    let text = "#![forbid(unsafe_code)]\npub(crate) use crate::{\n    clock, // why\n    net::{self, umem::Frames as F},\n};\n\
                use std::{thread, net::UdpSocket};\nuse ::tokio as t; fn f() { crate::app::run() }\nlet reuse = 1;\n";
    let source = Source { path: "x.rs".to_owned(), text: text.to_owned() };
    let found = uses_of(&source);
    for (number, path) in [
        (2, "crate::clock"),
        (2, "crate::net"),
        (6, "std::thread"),
        (6, "std::net::Udp"),
        (7, "tokio"),
        (7, "crate::app"),
    ] {
        assert!(found.iter().any(|(at, line)| *at == number && uses(line, path)), "{path}: {found:?}");
    }
    let listed: Vec<&str> = found.iter().filter(|(at, _)| *at == 2).map(|(_, path)| path.as_str()).collect();
    assert_eq!(listed, ["crate::clock;", "crate::net;", "crate::net::umem::Frames;"]);
    assert!(found.contains(&(8, "let reuse = 1;".to_owned())));
}

//! Project tasks. `cargo xtask` lists them.
//!
//! Builds with Rust alone: it must run before the C compiler's libraries and the eBPF toolchain exist, because it
//! installs them. What needs more is a program of its own, which the tasks build and start.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod ci;
mod demo;
mod deploy;
mod fuzz;
mod lab;
mod package;
mod process;
mod setup;
mod test;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Set up, build, test and demonstrate the feed handler")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need: Debian packages, the eBPF toolchain, bpf-linker. Quick when all is there.
    Setup,
    /// Set up, then build the handler and its test programs (release).
    Build,
    /// Set up, then run every test. Needs root: XDP, AF_XDP and network namespaces are the real ones.
    Test {
        /// Passed to `cargo test`, such as a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build, ship and start the handler on a host; roll back if it does not become ready. Also `deploy status | rollback`.
    Deploy(deploy::Arguments),
    /// Build the Debian package: programs, unit, configuration, board and alert rules.
    Package(package::Arguments),
    /// Everything that must pass before a merge: fmt, clippy, docs, tests, a short demo.
    Ci,
    /// Set up, build, and run exchange, handler and consumer in network namespaces; `demo --help` lists its options.
    #[command(disable_help_flag = true)]
    Demo {
        /// Passed to the demo program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build, and measure against a baseline in the same run; `bench WHICH --help` lists its options.
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure.
        which: bench::Which,
        /// Passed to the bench program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build with coverage counters, and feed every parser and the worker what nobody would send.
    Fuzz(fuzz::Options),
    /// Set up, build, and run a part of the lab by hand; `lab PART --help` lists its options.
    #[command(disable_help_flag = true)]
    Lab {
        /// Which part.
        part: lab::Part,
        /// Passed to its program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build, and run the handler under rates, faults and restarts at random; `soak --help` lists its options.
    #[command(disable_help_flag = true)]
    Soak {
        /// Passed to the soak.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Task::Build => build::run().map(|()| ExitCode::SUCCESS),
        Task::Test { .. } => test::run(&test::own_arguments(std::env::args_os())).map(|counts| counts.exit_code()),
        Task::Deploy(arguments) => deploy::run(&arguments),
        Task::Package(arguments) => package::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Ci => ci::run(),
        Task::Demo { arguments } => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Bench { which, arguments } => bench::run(which, &arguments).map(|()| ExitCode::SUCCESS),
        Task::Lab { part, arguments } => lab::run(part, &arguments).map(|()| ExitCode::SUCCESS),
        Task::Soak { arguments } => lab::soak(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

//! From the file as written to a plan that can be run: every value in its range, every name resolved to an index, and
//! what must hold together does.
//!
//! Values are checked first and all of what is wrong is reported; what belongs together is looked at once every value
//! by itself is right, so that one mistake is not reported several times.
#![forbid(unsafe_code)]

mod access;
mod feeds;
mod latency_log;
mod nic;
mod outputs;
mod queues;
mod recovery;
mod retransmission;
mod route;
mod snapshot;
mod sockets;
mod soup;
mod values;

use std::net::SocketAddr;

use xdp_ebpf::MAX_LINES;

use super::file::{Config, Interface, Worker};
use super::plan::{Idle, InterfacePlan, Mode, Plan, Privileges, Slots, Unsubscribed, WorkerPlan};
use super::{Host, Problem};
use values::{Checker, quoted};

const DEFAULT_GRPC: &str = "unix:/run/feedhandler/control.sock";
const DEFAULT_STATE_DIR: &str = "/run/feedhandler";
const DEFAULT_FRAME_COUNT: i64 = 8192;
const DEFAULT_FRAME_BYTES: i64 = 2048;
const DEFAULT_RING_ENTRIES: i64 = 2048;
/// A thread's name has 15 bytes (prctl(2), PR_SET_NAME); so has an interface's (IFNAMSIZ).
const KERNEL_NAME_BYTES: usize = 15;
const NAME_BYTES: usize = 32;
/// What can be added while the handler runs, beside what the configuration has.
const SPARE_CHANNELS: usize = 32;
const SPARE_LINES: usize = 64;
const SPARE_DESTINATIONS: usize = 64;

const MODES: [(&str, Mode); 5] = [
    (Mode::Auto.label(), Mode::Auto),
    (Mode::ZeroCopy.label(), Mode::ZeroCopy),
    (Mode::Native.label(), Mode::Native),
    (Mode::Skb.label(), Mode::Skb),
    (Mode::Socket.label(), Mode::Socket),
];

const UNSUBSCRIBED: [(&str, Unsubscribed); 2] =
    [(Unsubscribed::Pass.label(), Unsubscribed::Pass), (Unsubscribed::Drop.label(), Unsubscribed::Drop)];

const IDLES: [(&str, Idle); 2] = [("spin", Idle::Spin), ("yield", Idle::Yield)];

const PRIVILEGES: [(&str, Privileges); 3] = [
    (Privileges::Keeper.label(), Privileges::Keeper),
    (Privileges::None.label(), Privileges::None),
    (Privileges::Keep.label(), Privileges::Keep),
];

/// What is asked of a configuration beyond that every value is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// A start: what nothing uses is most likely a mistake.
    Start,
    /// What runs already: the last channel of a worker, or of all, may go and come again.
    Running,
}

/// Checks a configuration.
pub(super) fn plan(config: &Config, host: &Host, purpose: For) -> Result<Plan, Vec<Problem>> {
    let mut check = Checker::default();
    let handler = &config.handler;
    check.name("handler.name", &handler.name, NAME_BYTES);
    let mut plan = Plan {
        name: handler.name.clone(),
        grpc: access::grpc(&mut check, handler.grpc.as_deref().unwrap_or(DEFAULT_GRPC)),
        access: access::check(&mut check, handler),
        metrics: handler.metrics.as_deref().and_then(|address| metrics(&mut check, address)),
        privileges: check.choice("handler.privileges", handler.privileges.as_deref(), &PRIVILEGES, Privileges::Keeper),
        state_dir: nic::state_dir(&mut check, handler.state_dir.as_deref().unwrap_or(DEFAULT_STATE_DIR)),
        subscriptions_file: nic::subscriptions_file(&mut check, handler.subscriptions_file.as_deref()),
        latency_log: latency_log::check(&mut check, handler),
        interfaces: interfaces(&mut check, &config.interface),
        workers: workers(&mut check, &config.worker, host),
        channels: Slots::default(),
        lines: Slots::default(),
        destinations: Slots::default(),
    };
    let line_queues = feeds::check(&mut check, &config.feed, &mut plan, purpose);
    outputs::check(&mut check, &config.destination, &mut plan);
    if check.problems.is_empty() {
        queues::assign(&mut check, &mut plan, &line_queues, purpose);
        nic::together(&mut check, &config.interface, &mut plan, &line_queues);
    }
    make_room(&mut plan);
    if check.problems.is_empty() { Ok(plan) } else { Err(check.problems) }
}

/// Vacant slots, for what is added while the handler runs. The filter tells no more lines apart.
fn make_room(plan: &mut Plan) {
    plan.channels.grow(plan.channels.room() + SPARE_CHANNELS);
    plan.lines.grow((plan.lines.room() + SPARE_LINES).min(MAX_LINES as usize));
    plan.destinations.grow(plan.destinations.room() + SPARE_DESTINATIONS);
}

fn metrics(check: &mut Checker, value: &str) -> Option<SocketAddr> {
    let address = value.parse().ok();
    if address.is_none() {
        check.problem(
            "handler.metrics",
            quoted(value),
            "must be \"ip:port\", such as \"127.0.0.1:9184\" or \"0.0.0.0:9184\"",
        );
    }
    address
}

fn interfaces(check: &mut Checker, written: &[Interface]) -> Vec<InterfacePlan> {
    let mut plans: Vec<InterfacePlan> = Vec::new();
    for (i, interface) in written.iter().enumerate() {
        let at = format!("interface[{i}]");
        let name = &interface.name;
        let legal = !name.is_empty()
            && name.len() <= KERNEL_NAME_BYTES
            && name != "."
            && name != ".."
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        if !legal {
            check.problem(
                format!("{at}.name"),
                quoted(name),
                "must be a kernel interface name: 1 to 15 printable characters without `/` and `:`; `ip link` lists them",
            );
        }
        check.unique(format!("{at}.name"), name, plans.iter().map(|plan| plan.name.as_str()), "interface");
        let mode = check.choice(format!("{at}.mode"), interface.mode.as_deref(), &MODES, Mode::Auto);
        let sockets = sockets::check(check, &at, interface, mode);
        let (unsubscribed, vlan_stripped) = filter_keys(check, &at, interface, mode);
        let nic = nic::settings(check, &format!("{at}.nic"), interface.nic.as_ref());
        plans.push(InterfacePlan { name: name.clone(), mode, sockets, unsubscribed, vlan_stripped, nic });
    }
    if written.is_empty() {
        check.problem("interface", "", "there is none: add an [[interface]] with the name that `ip link` shows");
    }
    plans
}

/// What only the XDP program does, or sees.
fn filter_keys(check: &mut Checker, at: &str, interface: &Interface, mode: Mode) -> (Unsubscribed, bool) {
    let key = format!("{at}.unsubscribed");
    let unsubscribed = check.choice(&*key, interface.unsubscribed.as_deref(), &UNSUBSCRIBED, Unsubscribed::Pass);
    if unsubscribed == Unsubscribed::Drop && mode == Mode::Socket {
        let reason = "must be \"pass\" with mode `socket`: there is no XDP program to drop anything";
        check.problem(key, quoted(unsubscribed.label()), reason);
    }
    let vlan_stripped = interface.vlan_stripped.unwrap_or(false);
    if vlan_stripped && mode == Mode::Socket {
        let reason = "must be false with mode `socket`: the kernel keeps the tags to itself there, stripped or not";
        check.problem(format!("{at}.vlan_stripped"), vlan_stripped, reason);
    }
    (unsubscribed, vlan_stripped)
}

fn workers(check: &mut Checker, written: &[Worker], host: &Host) -> Vec<WorkerPlan> {
    let mut plans: Vec<WorkerPlan> = Vec::new();
    for (i, worker) in written.iter().enumerate() {
        let at = format!("worker[{i}]");
        check.name(format!("{at}.name"), &worker.name, KERNEL_NAME_BYTES);
        check.unique(format!("{at}.name"), &worker.name, plans.iter().map(|plan| plan.name.as_str()), "worker");
        let core = worker.core.and_then(|number| core(check, &format!("{at}.core"), number, host, &plans));
        let frame_count = check.power_of_two(
            format!("{at}.frame_count"),
            worker.frame_count.unwrap_or(DEFAULT_FRAME_COUNT),
            256..=1 << 20,
            "frames",
        );
        let frame_bytes = worker.frame_bytes.unwrap_or(DEFAULT_FRAME_BYTES);
        if ![2048, 4096].contains(&frame_bytes) {
            check.problem(
                format!("{at}.frame_bytes"),
                frame_bytes,
                "must be 2048 or 4096 bytes (an AF_XDP chunk size)",
            );
        }
        let ring_entries = check.power_of_two(
            format!("{at}.ring_entries"),
            worker.ring_entries.unwrap_or(DEFAULT_RING_ENTRIES),
            64..=32_768,
            "entries",
        );
        let idle = check.choice(format!("{at}.idle"), worker.idle.as_deref(), &IDLES, Idle::Spin);
        plans.push(WorkerPlan {
            name: worker.name.clone(),
            core,
            frame_count,
            frame_bytes: u32::try_from(frame_bytes).unwrap_or_default(),
            ring_entries,
            idle,
            huge_pages: worker.huge_pages.unwrap_or(false),
            rx: Vec::new(),
            tx: Vec::new(),
            ports: Vec::new(),
        });
    }
    if written.is_empty() {
        check.problem("worker", "", "there is none: add a [[worker]]; it is the thread that the channels run on");
    }
    plans
}

fn core(check: &mut Checker, key: &str, number: i64, host: &Host, others: &[WorkerPlan]) -> Option<usize> {
    let core = usize::try_from(number).ok();
    if core.is_none() || (!host.cores.is_empty() && !host.cores.iter().any(|have| Some(*have) == core)) {
        let have = host.cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        check.problem(key, number, format!("no core of that number may be used here; there are: {have}"));
    }
    if let Some(other) = others.iter().find(|other| other.core.is_some() && other.core == core) {
        check.problem(
            key,
            number,
            format!(
                "worker `{}` is pinned to this core already and never yields it: give each worker its own",
                other.name
            ),
        );
    }
    core
}

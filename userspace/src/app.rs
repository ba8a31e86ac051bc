//! Start-up and shutdown order, nothing else.
#![forbid(unsafe_code)]

pub mod build;
mod supervised;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tracing::{error, info, warn};

use crate::beside::threads::{Ends, PreparedChannel, PreparedDestination, Threads};
use crate::clock;
use crate::config::Loaded;
use crate::config::plan::{InterfacePlan, Plan, Privileges, WorkerPlan};
use crate::control::{self, Desk, InterfaceLink, Listeners};
use crate::edge::{self, Edge, OpenedPort, Refusal};
use crate::keeper;
use crate::limits;
use crate::log;
use crate::net::umem::JUMBO_BYTES;
use crate::privilege;
use crate::steering::nic;
use crate::worker::Worker;
use crate::worker::shared::WorkerLink;

/// Time between two looks at a worker that is to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(1);

/// How long work of the control service may hold up the end, once everything else is down.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// More than calls, watchers and collections together can take, so that the desk is polled whatever they do.
const BLOCKING_THREADS: usize = 1024;

/// Runs what was loaded, or what it was changed to before the last stop, until SIGINT or SIGTERM.
///
/// Up: privileges → addresses bound → NIC settings → filters attached, sockets in the XSKMAPs → keepers → privileges dropped →
/// recovery, snapshots, retransmission, workers pinned and polling → subscriptions (join, rule, line), TCP logins → control plane.
/// Down: keepers stop looking; programs,
/// so that nothing more is redirected into a socket that nobody reads; then the workers and their sockets; the NIC's old
/// settings last, for drivers refuse to change queues that a socket or a program uses.
///
/// # Errors
/// The first step that failed, naming what and the remedy. Everything done before it is undone.
pub fn run(loaded: Loaded) -> anyhow::Result<()> {
    // Declared first: dropped last, with what still is to be written.
    let _log;
    let written = loaded.config.clone();
    let loaded = control::resume(loaded);
    let plan = Arc::new(loaded.plan.clone());
    // First of all: without privileges the control socket's directory would be refused, too, and hide the cause.
    privilege::check(&plan)?;
    limits::raise_open_files(&plan);
    // Before anything is attached: a taken address must not cost a link reset.
    let listeners = Listeners::bind(&plan)?;
    let servers = plan.destinations.indices();
    let servers = servers.map(|index| PreparedDestination::new(&plan, index).map(|server| (index, server)));
    let mut servers = servers.collect::<Result<Vec<_>, _>>()?;
    // What a crashed handler left is put back before anything is changed, whether this plan names its interfaces or not.
    nic::restore_leftovers(&plan.state_dir);
    // Before the filters: a change of rings or channels resets the link. Whatever fails from here on puts it back.
    let nics = plan.interfaces.iter().map(|interface| nic::apply(interface, &plan.state_dir));
    let nics = nics.collect::<Result<Vec<_>, _>>()?;
    let DataPath { edges, mut workers, links, ends } = data_path(&plan)?;
    retain(&plan, &mut servers, &mut workers);
    let channels = plan.channels.indices().map(|channel| PreparedChannel::new(&plan, channel));
    let channels = channels.collect::<Result<Vec<_>, _>>()?;
    let threads = Threads::new(ends);
    let (mut interfaces, mut facts) = (Vec::new(), Vec::new());
    for Edge { interface, steering, mode, jumbo, refused } in edges {
        interfaces.push(InterfaceLink { mode_in_force: mode, jumbo, steering, refused });
        facts.push(interface);
    }
    let desk = Desk::new(Arc::clone(&plan), interfaces, links, Arc::clone(&threads));
    desk.set_config(loaded, written);
    // Threads inherit: none that is made from here on has what this one has not. But keepers mend, and need it all.
    let keepers = keeper::start(&plan, &desk, facts, nics)?;
    let mut up =
        Up { keepers, desk: Arc::clone(&desk), beside: Arc::clone(&threads), idle: workers, threads: Vec::new() };
    privilege::drop_main(plan.privileges, || desk.can_read_maps())?;
    _log = log::begin(plan.privileges);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    threads.begin();
    let (streams, channels): (Vec<_>, Vec<_>) = channels.into_iter().partition(PreparedChannel::is_over_tcp);
    channels.into_iter().try_for_each(|channel| threads.start(channel))?;
    servers.into_iter().try_for_each(|(_, server)| threads.start_destination(server))?;
    for (wanted, worker) in plan.workers.iter().zip(std::mem::take(&mut up.idle)) {
        up.threads.push(spawn(wanted, worker, plan.privileges)?);
    }
    desk.start_lines()?;
    streams.into_iter().try_for_each(|stream| threads.start(stream))?;
    privilege::report(plan.privileges);
    // With port 0 configured, this is where an operator learns the kernel's choice.
    info!(name = %plan.name, metrics = ?listeners.metrics_address(), grpc = ?plan.grpc, grpc_tls = ?listeners.grpc_tls_address(), "running");
    runtime.spawn(supervised::report(Arc::clone(&desk)));
    let outcome = runtime.block_on(control::serve(Arc::clone(&desk), listeners, shutdown_signal()));
    drop(up);
    // What still waits for something is not waited for.
    runtime.shutdown_timeout(END_PATIENCE);
    info!("stopped");
    Ok(outcome?)
}

/// What has to come down in order, whatever ends the run.
struct Up {
    /// Dropped last: that is when NIC settings go back.
    keepers: keeper::Running,
    desk: Arc<Desk>,
    beside: Arc<Threads>,
    /// Workers whose threads were not started.
    idle: Vec<Worker>,
    threads: Vec<JoinHandle<Worker>>,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.keepers.pause();
        self.desk.detach();
        self.beside.end_feeding();
        self.idle.clear();
        stop(&self.desk, std::mem::take(&mut self.threads));
        self.beside.end_serving();
    }
}

/// What [`data_path`] has made.
struct DataPath {
    edges: Vec<Edge>,
    workers: Vec<Worker>,
    links: Vec<WorkerLink>,
    /// What connects the threads beside the workers with each.
    ends: Vec<Ends>,
}

/// Brings every interface up and builds the workers of the opened ports.
fn data_path(plan: &Plan) -> anyhow::Result<DataPath> {
    let cookie = cookie();
    let mut edges = Vec::new();
    let mut ports: Vec<Vec<OpenedPort>> = plan.workers.iter().map(|_| Vec::new()).collect();
    for index in 0..plan.interfaces.len() {
        let (edge, opened) = edge::bring_up(plan, index, cookie)?;
        log_mode(&plan.interfaces[index], &edge);
        edges.push(edge);
        opened.into_iter().for_each(|port| ports[port.worker].push(port));
    }
    let (mut workers, mut links, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let utc_ns = clock::utc_ns();
    for (index, mut ports) in ports.into_iter().enumerate() {
        ports.sort_by_key(|port| port.index);
        let ports = ports.into_iter().map(|opened| opened.port).collect();
        let (worker, link, ends_of_it) = build::worker(plan, index, ports, utc_ns)?;
        workers.push(worker);
        links.push(link);
        ends.push(ends_of_it);
    }
    Ok(DataPath { edges, workers, links, ends })
}

/// Connects the streams that have a server with it, before their workers run.
fn retain(plan: &Plan, servers: &mut [(usize, PreparedDestination)], workers: &mut [Worker]) {
    for (destination, server) in servers {
        if let Some(retainer) = server.take_retainer() {
            let channel = plan.destinations[*destination].channel;
            workers[plan.channels[channel].worker].retain(*destination, retainer);
        }
    }
}

/// Once, at start: what is in force, and what better modes there would have been.
fn log_mode(wanted: &InterfacePlan, edge: &Edge) {
    for Refusal { mode, why } in &edge.refused {
        info!(interface = %wanted.name, mode = mode.label(), why, "mode cannot be had");
    }
    info!(interface = %wanted.name, wanted = wanted.mode.label(), in_force = edge.mode.label(), jumbo = edge.jumbo, "mode");
    if edge.jumbo && edge.interface.exceeds_frame(JUMBO_BYTES) {
        warn!(interface = %wanted.name, "datagrams of more than 9878 bytes, which its MTU admits, will be dropped (too_long)");
    }
}

/// Stops and joins the workers. Their sockets close here, after the programs were detached.
fn stop(desk: &Desk, threads: Vec<JoinHandle<Worker>>) {
    if threads.is_empty() {
        return;
    }
    if let Err(stuck) = desk.stop_workers() {
        // The process ends anyway, and with it the threads; but an operator should know.
        error!(workers = stuck.join(", "), "take no commands and are abandoned");
        return;
    }
    for thread in threads {
        // A worker takes no command while it has a port to hand back and no room for it.
        while !thread.is_finished() {
            desk.poll();
            std::thread::sleep(STOP_INTERVAL);
        }
        if thread.join().is_err() {
            error!("a worker panicked");
        }
    }
}

fn spawn(wanted: &WorkerPlan, worker: Worker, privileges: Privileges) -> anyhow::Result<JoinHandle<Worker>> {
    let core = wanted.core.map(|id| core_affinity::CoreId { id });
    let name = wanted.name.clone();
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            privilege::drop_worker(privileges);
            if let Some(core) = core
                && !core_affinity::set_for_current(core)
            {
                warn!(worker = %name, core = core.id, "cannot pin to the core: not among the process's CPUs");
            }
            worker.run()
        })
        .map_err(|error| anyhow!("cannot start worker {}: {error}", wanted.name))
}

/// Distinguishes our metadata from whatever else may stand in front of a frame; never zero.
fn cookie() -> u16 {
    u16::try_from(clock::utc_ns() & 0xFFFF).unwrap_or_default() | 1
}

async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("cannot listen for signals: stop with SIGKILL only");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM"),
        _ = interrupt.recv() => info!("SIGINT"),
    }
    supervised::stopping();
}

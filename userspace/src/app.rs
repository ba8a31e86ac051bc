//! Start-up and shutdown order, nothing else.
#![forbid(unsafe_code)]

pub mod build;

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use tracing::{info, warn};

use crate::clock;
use crate::config::plan::{Plan, WorkerPlan};
use crate::control::Desk;
use crate::worker::Worker;
use crate::worker::shared::Command;

/// Runs the plan until SIGINT or SIGTERM.
///
/// Up: filters attached → sockets in the XSKMAPs → workers pinned and polling → subscriptions (join, rule, line) →
/// control plane. Down: rules and programs first, so that nothing more is redirected; then the workers; sockets last.
///
/// # Errors
/// The first step that failed, naming what and the remedy. Everything done before it is undone.
pub fn run(plan: Plan) -> anyhow::Result<()> {
    let plan = Arc::new(plan);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control threads")?;
    // Bound before anything is attached: a taken address must not cost a link reset.
    let listeners = runtime.block_on(crate::control::bind(&plan))?;
    let cookie = cookie();
    let mut edges = build::edges(&plan, cookie)?;
    let (mut threads, mut links) = (Vec::new(), Vec::new());
    let utc_ns = clock::utc_ns();
    for (index, wanted) in plan.workers.iter().enumerate() {
        let (worker, link) = build::worker(&plan, index, &mut edges, cookie, utc_ns)?;
        threads.push(spawn(wanted, worker)?);
        links.push(link);
    }
    for (edge, wanted) in edges.iter().zip(&plan.interfaces) {
        info!(interface = %wanted.name, wanted = wanted.mode.label(), in_force = edge.mode.label(), "mode");
    }
    let desk = Arc::new(Desk::new(Arc::clone(&plan), edges, links));
    let started = start_lines(&desk).and_then(|()| {
        info!(name = %plan.name, "running");
        runtime.block_on(crate::control::serve(Arc::clone(&desk), listeners, shutdown_signal()))
    });
    desk.shut_down();
    for thread in threads {
        if thread.join().is_err() {
            warn!("a worker panicked");
        }
    }
    info!("stopped");
    started
}

/// Subscribes the lines that the configuration wants subscribed from the start.
fn start_lines(desk: &Desk) -> anyhow::Result<()> {
    for (index, line) in desk.plan().lines.iter().enumerate().filter(|(_, line)| line.subscribed) {
        desk.subscribe(index).with_context(|| format!("cannot subscribe line {} ({})", line.name, line.group))?;
    }
    Ok(())
}

fn spawn(wanted: &WorkerPlan, worker: Worker) -> anyhow::Result<JoinHandle<Worker>> {
    let core = wanted.core.map(|core| core_affinity::CoreId { id: core });
    let name = wanted.name.clone();
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
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
}

/// Tells every worker to stop; a full command queue is retried until the worker has taken one.
pub(crate) fn stop_workers(links: &[crate::worker::shared::WorkerLink]) {
    for link in links {
        while link.send(Command::Stop).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

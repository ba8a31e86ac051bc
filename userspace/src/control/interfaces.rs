//! The desk's side of an interface that fails and comes back: what is known of it, and what is done to lines and workers.
//!
//! Who looks, and who decides, is [`crate::keeper`].
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Acquire;
use std::thread;
use std::time::{Duration, Instant};

use super::{Desk, locked};
use crate::edge::{EdgeError, Fault, Health, OpenedPort};
use crate::metrics::PortCounts;
use crate::steering::Steering;
use crate::worker::shared::Command;

/// How long a worker may take to exchange a port: it delivers what the old one has received first.
const WORKER_PATIENCE: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_micros(50);

/// Why ports that were opened are not in use.
#[derive(Debug, thiserror::Error)]
pub enum HealError {
    /// They could not be opened.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// A worker takes no commands.
    #[error("worker `{worker}` takes no commands (its queue is full); restart the handler")]
    Worker {
        /// Its name.
        worker: String,
    },
}

impl Desk {
    /// How an interface of the plan has fared.
    #[must_use]
    pub fn interface_health(&self, interface: usize) -> Health {
        locked(&self.interfaces[interface].health).clone()
    }

    /// Says what is wrong with an interface now; logs and counts what begins and what ends.
    pub fn set_fault(&self, interface: usize, now: Option<(Fault, String)>) {
        let name = &self.plan.interfaces[interface].name;
        let mut health = locked(&self.interfaces[interface].health);
        let (before, after) = (health.now.as_ref().map(|(fault, _)| *fault), now.as_ref().map(|(fault, _)| *fault));
        if before != after {
            if let Some(fault) = before {
                tracing::info!(interface = name, fault = fault.label(), "fault is over");
            }
            if let Some((fault, particulars)) = &now {
                health.begun[*fault as usize] += 1;
                tracing::warn!(interface = name, fault = fault.label(), particulars, "interface fault");
            }
        }
        health.now = now;
    }

    /// Counts a fault that had begun and was over again before anybody looked.
    pub fn count_passing_fault(&self, interface: usize, fault: Fault) {
        locked(&self.interfaces[interface].health).begun[fault as usize] += 1;
        let name = &self.plan.interfaces[interface].name;
        tracing::warn!(interface = name, fault = fault.label(), "interface fault, over already");
    }

    /// Whether nothing comes or goes on an interface now.
    #[must_use]
    pub fn is_out(&self, interface: usize) -> bool {
        locked(&self.interfaces[interface].health).now.as_ref().is_some_and(|(fault, _)| fault.is_outage())
    }

    /// Whether the filter of an interface is attached; true where there is none.
    #[must_use]
    pub fn is_attached(&self, interface: usize) -> bool {
        locked(&self.interfaces[interface].steering).as_ref().is_none_or(Steering::is_attached)
    }

    /// Attaches the filter of an interface again, whose link is still the same.
    ///
    /// # Errors
    /// Why not; this can be tried again.
    pub fn reattach(&self, interface: usize) -> Result<(), HealError> {
        self.settle_canaries(interface);
        if let Some(steering) = locked(&self.interfaces[interface].steering).as_mut() {
            steering.reattach().map_err(EdgeError::from)?;
        }
        self.count_healed(interface, "program attached again");
        Ok(())
    }

    /// Takes a new link into use: opens the filter's and the workers' ends of it by `reopen`, exchanges the workers' ports,
    /// and joins the groups of the lines that are wanted.
    ///
    /// # Errors
    /// What failed first; this can be tried again.
    pub fn take_into_use(
        &self,
        interface: usize,
        reopen: impl FnOnce(Option<&mut Steering>) -> Result<Vec<OpenedPort>, EdgeError>,
    ) -> Result<(), HealError> {
        self.settle_canaries(interface);
        let ports = reopen(locked(&self.interfaces[interface].steering).as_mut())?;
        for port in ports {
            self.replace_port(port)?;
        }
        self.settle_canaries(interface);
        self.check_groups();
        self.count_healed(interface, "link in use again");
        Ok(())
    }

    fn count_healed(&self, interface: usize, what: &str) {
        locked(&self.interfaces[interface].health).healed += 1;
        tracing::info!(interface = self.plan.interfaces[interface].name, "{what}");
    }

    /// Frames for an interface's ports that the kernel has dropped for lack of room since the start.
    #[must_use]
    pub fn starved_frames(&self, interface: usize) -> u64 {
        let ports =
            self.plan.workers.iter().zip(&self.links).flat_map(|(plan, link)| plan.ports.iter().zip(&link.shared.rx));
        let on_it = ports.filter(|(queue, _)| queue.interface == interface);
        on_it
            .map(|(_, counts)| PortCounts::from_values(counts.load()))
            .map(|c| c.kernel_rx_dropped + c.kernel_rx_ring_full)
            .sum()
    }

    /// Gives a worker another port and waits until it has it, for a while.
    fn replace_port(&self, opened: OpenedPort) -> Result<(), HealError> {
        let OpenedPort { worker, index, port } = opened;
        let link = &self.links[worker];
        let deadline = Instant::now() + WORKER_PATIENCE;
        let mut command = Command::ReplacePort { port: index, with: Box::new(port) };
        let number = loop {
            match link.send(command) {
                Ok(number) => break number,
                Err(refused) if Instant::now() < deadline => command = refused,
                Err(_) => return Err(HealError::Worker { worker: self.plan.workers[worker].name.clone() }),
            }
            thread::sleep(RETRY_INTERVAL);
        };
        while link.shared.commands_applied.load(Acquire) < number && Instant::now() < deadline {
            thread::sleep(RETRY_INTERVAL);
        }
        // A worker that is late still finds the port in its queue. Opening another one would find the queue taken.
        if link.shared.commands_applied.load(Acquire) < number {
            tracing::error!(worker = self.plan.workers[worker].name, "has not taken its new port yet; is it alive?");
        }
        Ok(())
    }
}

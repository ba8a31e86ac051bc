//! The desk's side of an interface that fails and comes back: what is known of it, and what is done to lines and workers.
//!
//! Who looks, and who decides, is [`crate::keeper`].
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use feedhandler_proto::v1::InterfaceFault;
use feedhandler_proto::v1::event::What;

use super::{Desk, locked, tell};
use crate::edge::{EdgeError, Fault, Health, OpenedPort, enter, reopen};
use crate::metrics::PortCounts;
use crate::net::Port;
use crate::net::interface::Interface as NetInterface;
use crate::steering::Steering;
use crate::worker::shared::Command;

/// How long a worker may take to exchange a port: it delivers what the old one has received first.
const WORKER_PATIENCE: Duration = Duration::from_secs(2);

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
    /// A kernel socket of the new port could not join or leave a group.
    #[error("worker `{worker}`: a kernel socket was refused a group: {reason}")]
    Refused {
        /// Name of the worker.
        worker: String,
        /// The kernel's reason.
        reason: std::io::Error,
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
        let name = &self.fixed.interfaces[interface].name;
        let mut health = locked(&self.interfaces[interface].health);
        let (before, after) = (health.now.as_ref().map(|(fault, _)| *fault), now.as_ref().map(|(fault, _)| *fault));
        if before != after {
            if let Some(fault) = before {
                tracing::info!(interface = name, fault = fault.label(), "fault is over");
                self.tell_fault(interface, fault, true, "");
            }
            if let Some((fault, particulars)) = &now {
                health.begun[*fault as usize] += 1;
                tracing::warn!(interface = name, fault = fault.label(), particulars, "interface fault");
                self.tell_fault(interface, *fault, false, particulars);
            }
        }
        health.now = now;
    }

    /// Counts a fault that had begun and was over again before anybody looked.
    pub fn count_passing_fault(&self, interface: usize, fault: Fault) {
        locked(&self.interfaces[interface].health).begun[fault as usize] += 1;
        let name = &self.fixed.interfaces[interface].name;
        tracing::warn!(interface = name, fault = fault.label(), "interface fault, over already");
        self.tell_fault(interface, fault, false, "over already");
        self.tell_fault(interface, fault, true, "");
    }

    fn tell_fault(&self, interface: usize, fault: Fault, over: bool, particulars: &str) {
        let interface = self.fixed.interfaces[interface].name.clone();
        let (fault, particulars) = (fault.label().to_owned(), particulars.to_owned());
        self.watch.tell(What::InterfaceFault(InterfaceFault { interface, fault, over, particulars }));
    }

    /// Whether nothing comes or goes on an interface now.
    #[must_use]
    pub fn is_out(&self, interface: usize) -> bool {
        locked(&self.interfaces[interface].health).now.as_ref().is_some_and(|(fault, _)| fault.is_outage())
    }

    /// Whether somebody has detached the filter of an interface; false where there is none.
    #[must_use]
    pub fn is_detached(&self, interface: usize) -> bool {
        locked(&self.interfaces[interface].steering).as_ref().is_some_and(Steering::is_detached)
    }

    /// Attaches the filter of an interface again, whose link is still the same.
    ///
    /// # Errors
    /// Why not; this can be tried again.
    pub fn reattach(&self, interface: usize) -> Result<(), HealError> {
        self.attach(interface)?;
        self.settle_canaries(interface);
        self.count_healed(interface, "program attached again");
        Ok(())
    }

    /// Attaches the filter of an interface, if it has one, to the link that has the name now; its cookie.
    fn attach(&self, interface: usize) -> Result<Option<u16>, HealError> {
        let mut steering = locked(&self.interfaces[interface].steering);
        let Some(steering) = steering.as_mut() else { return Ok(None) };
        steering.reattach().map_err(EdgeError::from)?;
        Ok(Some(steering.cookie()))
    }

    /// Takes the ports of an interface whose link is gone from the workers, and closes them: what is sent there is
    /// dropped and counted from now on, and their memory is free for their successors.
    ///
    /// # Errors
    /// A worker that takes no commands; this can be tried again.
    pub fn vacate(&self, interface: usize) -> Result<(), HealError> {
        for (worker, plan) in self.fixed.workers.iter().enumerate() {
            for index in (0..plan.ports.len()).filter(|index| plan.ports[*index].interface == interface) {
                self.replace_port(worker, index, Port::vacant())?;
            }
        }
        // The old ports lie in the workers' event queues.
        self.poll();
        Ok(())
    }

    /// Takes a new link into use: attaches the filter, opens new ports, exchanges the workers', and sees to the groups.
    ///
    /// # Errors
    /// What failed first; this can be tried again after another [`Self::vacate`].
    pub fn take_into_use(&self, interface: usize) -> Result<NetInterface, HealError> {
        let _wiring = locked(&self.wiring);
        let cookie = self.attach(interface)?;
        let (mode, jumbo) = (self.mode_in_force(interface), self.interfaces[interface].jumbo);
        let (link, ports) = reopen(&self.plan(), interface, mode, jumbo, cookie, &self.enabled_lines())?;
        if let Some(steering) = locked(&self.interfaces[interface].steering).as_mut() {
            enter(steering, &ports)?;
        }
        for OpenedPort { worker, index, port, .. } in ports {
            self.replace_port(worker, index, port)?;
        }
        self.settle_canaries(interface);
        self.check_groups();
        self.count_healed(interface, "link in use again");
        Ok(link)
    }

    fn count_healed(&self, interface: usize, what: &str) {
        locked(&self.interfaces[interface].health).healed += 1;
        tracing::info!(interface = self.fixed.interfaces[interface].name, "{what}");
    }

    /// Frames for an interface's ports that the kernel has dropped for lack of room since the start.
    #[must_use]
    pub fn starved_frames(&self, interface: usize) -> u64 {
        let ports =
            self.fixed.workers.iter().zip(&self.links).flat_map(|(plan, link)| plan.ports.iter().zip(&link.shared.rx));
        let on_it = ports.filter(|(queue, _)| queue.interface == interface);
        on_it
            .map(|(_, counts)| PortCounts::from_values(counts.load()))
            .map(|c| c.kernel_rx_dropped + c.kernel_rx_ring_full)
            .sum()
    }

    /// Gives a worker another port and waits until it has it, for a while.
    fn replace_port(&self, worker: usize, index: usize, port: Port) -> Result<(), HealError> {
        let link = &self.links[worker];
        let deadline = Instant::now() + WORKER_PATIENCE;
        let command = Command::ReplacePort { port: index, with: Box::new(port) };
        let number = tell::send(link, command, deadline)
            .ok_or_else(|| HealError::Worker { worker: self.fixed.workers[worker].name.clone() })?;
        // A worker that is late still finds the port in its queue. Opening another one would find the queue taken.
        if !tell::is_applied(link, number, deadline) {
            tracing::error!(worker = self.fixed.workers[worker].name, "has not taken its new port yet; is it alive?");
        }
        match link.shared.refusal(number) {
            None => Ok(()),
            Some(reason) => Err(HealError::Refused { worker: self.fixed.workers[worker].name.clone(), reason }),
        }
    }
}

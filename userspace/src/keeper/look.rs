//! One look at one interface, and what comes of it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::config::plan::Plan;
use crate::control::Desk;
use crate::edge::Fault;
use crate::net::interface::Interface;
use crate::steering::nic::{self, Applied};

/// A burst of drops is over when there was none for so long, nanoseconds.
const STARVED_NS: u64 = 1_000_000_000;

/// The keeper of one interface.
#[derive(Debug)]
pub(super) struct Keeper {
    plan: Arc<Plan>,
    desk: Arc<Desk>,
    /// Index into `Plan::interfaces`.
    interface: usize,
    /// Kernel index of the link that is in use.
    index: u32,
    /// Whether workers may hold ports on a link that is gone, or of an attempt that failed halfway.
    holds_ports: bool,
    /// NIC settings that are in force on our account.
    nic: Option<Applied>,
    /// Kernel index of the link that they were last applied to, or were to be.
    nic_index: u32,
    /// Why they are not in force.
    nic_error: Option<String>,
    /// Ups and downs of the carrier at the last look.
    carrier_changes: Option<u64>,
    /// Frames that the kernel has dropped for lack of room, over all ports.
    starved_frames: u64,
    /// When that last grew, CLOCK_MONOTONIC nanoseconds.
    starved_ns: Option<u64>,
}

impl Keeper {
    /// A keeper of an interface as it was when it was brought up.
    pub(super) fn new(plan: Arc<Plan>, desk: Arc<Desk>, interface: usize, link: &Interface, nic: Applied) -> Self {
        Self {
            plan,
            desk,
            interface,
            index: link.index,
            holds_ports: true,
            nic: Some(nic),
            nic_index: link.index,
            nic_error: None,
            carrier_changes: link.carrier_changes,
            starved_frames: 0,
            starved_ns: None,
        }
    }

    /// One look: mends what can be mended, and tells the desk what is wrong then.
    pub(super) fn look(&mut self, now_ns: u64) {
        let fault = self.mend().or_else(|| self.lasting(now_ns));
        self.desk.set_fault(self.interface, fault);
    }

    /// Puts the NIC settings back, for good.
    pub(super) fn put_back(self) {
        if let Some(nic) = self.nic {
            drop(nic.restore());
        }
    }

    /// What keeps frames from coming and going, after what can be done about it was done.
    fn mend(&mut self) -> Option<(Fault, String)> {
        let name = &self.plan.interfaces[self.interface].name;
        let link = match Interface::read(name) {
            Ok(link) => link,
            Err(error) => {
                // An error may also be that the kernel does not answer: only a link that is gone for certain is given up.
                if error.is_absence() {
                    self.give_up_ports();
                }
                return Some((Fault::Gone, error.to_string()));
            }
        };
        if link.index != self.index {
            return self.take_into_use(&link).err().map(|error| (Fault::Gone, error));
        }
        if !link.is_up {
            return Some((Fault::Down, format!("bring it up with `ip link set dev {name} up`")));
        }
        if !link.has_carrier {
            return Some((Fault::NoCarrier, "check the cable, or the other end of a veth pair".to_owned()));
        }
        if self.desk.is_detached(self.interface) {
            // Seen in any case, also when it is mended within this look.
            let seen = (Fault::Detached, "somebody detached the program".to_owned());
            self.desk.set_fault(self.interface, Some(seen));
            if let Err(error) = self.desk.reattach(self.interface) {
                return Some((Fault::Detached, error.to_string()));
            }
        }
        self.note_flap(&link);
        None
    }

    /// The workers let go of what is bound to a link that is gone, once.
    fn give_up_ports(&mut self) {
        if self.holds_ports {
            match self.desk.vacate(self.interface) {
                Ok(()) => self.holds_ports = false,
                Err(error) => tracing::error!("ports of a lost link: {error}"),
            }
        }
    }

    /// Takes the link that has the name now, once it can carry anything.
    fn take_into_use(&mut self, link: &Interface) -> Result<(), String> {
        self.give_up_ports();
        if !(link.is_up && link.has_carrier) {
            return Err("the link was made again, and has no carrier yet".to_owned());
        }
        self.tune(link.index);
        // From here on workers may have new ones.
        self.holds_ports = true;
        let link = self.desk.take_into_use(self.interface).map_err(|error| error.to_string())?;
        (self.index, self.carrier_changes) = (link.index, link.carrier_changes);
        Ok(())
    }

    /// Gives a new link the NIC settings, once: a change may reset it, and then it has no carrier for a while.
    fn tune(&mut self, index: u32) {
        if self.nic_index == index {
            return;
        }
        self.nic_index = index;
        if let Some(nic) = self.nic.take() {
            drop(nic.restore());
        }
        match nic::apply(&self.plan.interfaces[self.interface], &self.plan.state_dir) {
            Ok(nic) => (self.nic, self.nic_error) = (Some(nic), None),
            Err(error) => self.nic_error = Some(format!("{error}; restart the handler once the cause is gone")),
        }
    }

    /// A carrier that has changed since the last look was away in between; a fault that was seen is counted already.
    fn note_flap(&mut self, link: &Interface) {
        let changed = self.carrier_changes != link.carrier_changes;
        self.carrier_changes = link.carrier_changes;
        if changed && link.carrier_changes.is_some() && !self.desk.is_out(self.interface) {
            self.desk.count_passing_fault(self.interface, Fault::NoCarrier);
        }
    }

    /// What is wrong with an interface on which frames come and go.
    fn lasting(&mut self, now_ns: u64) -> Option<(Fault, String)> {
        let lost = self.desk.starved_frames(self.interface);
        if lost > self.starved_frames {
            self.starved_ns = Some(now_ns);
        }
        self.starved_frames = lost;
        if self.starved_ns.is_some_and(|since| now_ns.saturating_sub(since) < STARVED_NS) {
            let remedy = "a worker was too slow or preempted: raise ring_entries, or give it a core of its own";
            let text = format!("{lost} frames since the start were dropped by the kernel for lack of room; {remedy}");
            return Some((Fault::Starved, text));
        }
        self.nic_error.clone().map(|error| (Fault::Untuned, error))
    }
}

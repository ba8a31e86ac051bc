//! One interface: link, driver, XDP, sizes.
#![forbid(unsafe_code)]

use super::multicast::multicast;
use super::nic::{offloads, queues, settings};
use super::silence;
use crate::config::plan::{DestinationPlan, InterfacePlan, LinePlan, Mode, Plan};
use crate::doctor::host::Host;
use crate::doctor::link::{Link, XdpAbilities};
use crate::doctor::{Finding, Findings};
use crate::net::interface::{InterfaceError, most_mtu};
use crate::net::umem::JUMBO_BYTES;
use crate::steering::PROGRAM_NAME;

/// IPv4 and UDP headers.
const IP_BYTES: usize = 20 + 8;

/// What a plan wants of an interface.
pub(super) struct Use<'a> {
    pub interface: &'a InterfacePlan,
    /// Receive and transmit queues.
    pub rx: Vec<u32>,
    pub tx: Vec<u32>,
    /// The smallest frames that its packets come into.
    pub frame_bytes: u32,
    pub lines: Vec<&'a LinePlan>,
    pub destinations: Vec<&'a DestinationPlan>,
}

impl<'a> Use<'a> {
    fn of(plan: &'a Plan, name: &str) -> Option<Self> {
        let index = plan.interfaces.iter().position(|interface| interface.name == name)?;
        let on_it = |queue: &&crate::config::plan::QueuePlan| queue.interface == index;
        let workers = || plan.workers.iter();
        let receiving = workers().filter(|worker| worker.rx.iter().any(|queue| queue.interface == index));
        Some(Self {
            interface: &plan.interfaces[index],
            rx: workers().flat_map(|worker| &worker.rx).filter(on_it).map(|queue| queue.queue).collect(),
            tx: workers().flat_map(|worker| &worker.tx).filter(on_it).map(|queue| queue.queue).collect(),
            frame_bytes: receiving.map(|worker| worker.frame_bytes).min().unwrap_or(2048),
            lines: plan.lines.values().filter(|line| line.interface == index).collect(),
            destinations: plan.destinations.values().filter(|to| to.queue.interface == index).collect(),
        })
    }

    pub(super) fn uses_xdp(&self) -> bool {
        self.interface.mode != Mode::Socket
    }
}

pub(in crate::doctor) fn link(
    name: &str,
    link: &Result<Link, InterfaceError>,
    plan: Option<&Plan>,
    host: &Host,
) -> Vec<Finding> {
    let mut findings = Findings::about(format!("interface {name}"));
    let link = match link {
        Ok(link) => link,
        Err(error) => {
            let text = error.to_string();
            let found = text.strip_prefix(&format!("interface `{name}`: ")).unwrap_or(&text);
            findings.problem(
                "interface",
                found,
                "`ip link` lists the interfaces; is this the right network namespace?",
            );
            return findings.list;
        }
    };
    let wanted = plan.and_then(|plan| Use::of(plan, name));
    let wanted = wanted.as_ref();
    if !link.is_in_sysfs {
        let remedy = "run the doctor by `ip netns exec NAMESPACE`, which mounts the namespace's own sysfs";
        findings.warning("sysfs", "shows another network namespace: queues, MTU and driver are unknown", remedy);
    }
    carrier(&mut findings, name, link);
    driver(&mut findings, name, link);
    if wanted.is_none_or(Use::uses_xdp) {
        abilities(&mut findings, link, wanted, host);
        attached(&mut findings, name, link);
        offloads(&mut findings, name, link, wanted);
    }
    mtu(&mut findings, name, link, wanted, host);
    queues(&mut findings, name, link, wanted);
    if let Some(wanted) = wanted {
        settings(&mut findings, link, wanted, host);
    }
    multicast(&mut findings, name, link, wanted);
    findings.list
}

fn carrier(findings: &mut Findings, name: &str, link: &Link) {
    let speed = link.speed_mbps.map_or_else(String::new, |mbps| match mbps {
        mbps if mbps >= 1000 && mbps % 1000 == 0 => format!(", {} Gbit/s", mbps / 1000),
        mbps => format!(", {mbps} Mbit/s"),
    });
    if !link.interface.is_up {
        findings.problem("link", "down", format!("`ip link set dev {name} up`"));
    } else if link.interface.has_carrier {
        findings.ok("link", format!("up{speed}"));
    } else {
        let remedy = "check the cable, the switch's port, or the other end of a veth pair (`ip link set dev … up`)";
        findings.problem("link", "up, but has no carrier", remedy);
    }
}

fn driver(findings: &mut Findings, name: &str, link: &Link) {
    match &link.driver {
        Some(driver) => {
            let version =
                driver.version.as_ref().map_or_else(|| " (the kernel's own)".into(), |text| format!(" {text}"));
            let bus = driver.bus.as_ref().map_or_else(String::new, |bus| format!(", on {bus}"));
            let node = link.node.map_or_else(String::new, |node| format!(", NUMA node {node}"));
            findings.ok("driver", format!("{}{version}{bus}{node}", driver.name));
        }
        None if !link.is_in_sysfs => {}
        None => findings.ok("driver", format!("none: {name} is virtual")),
    }
}

fn abilities(findings: &mut Findings, link: &Link, wanted: Option<&Use<'_>>, host: &Host) {
    const CHECK: &str = "XDP of the driver";
    let Some(can) = link.abilities else {
        let remedy =
            if host.is_since(6, 3) { "see the driver's documentation" } else { "upgrade to Linux 6.3 or newer" };
        return findings.warning(CHECK, "cannot tell: the kernel does not say", remedy);
    };
    let found = describe(can);
    let has_native = can.native && can.redirect;
    match wanted.map(|wanted| wanted.interface.mode) {
        Some(Mode::ZeroCopy) if !can.zero_copy => {
            let remedy = if has_native { "mode = \"native\" or \"auto\"" } else { "mode = \"skb\" or \"socket\"" };
            findings.problem(CHECK, format!("{found}; mode \"zero-copy\" is asked for"), remedy);
        }
        Some(Mode::Native | Mode::ZeroCopy) if !has_native => {
            let remedy = "mode = \"skb\" or \"socket\", or a NIC whose driver has XDP_REDIRECT";
            findings.problem(CHECK, format!("{found}; native XDP is asked for"), remedy);
        }
        Some(Mode::Skb) if has_native => {
            findings.warning(
                CHECK,
                format!("{found}; mode \"skb\" leaves them unused"),
                "mode = \"native\" or \"auto\"",
            );
        }
        Some(Mode::Auto) | None if !has_native => {
            let remedy = "expect about the speed of kernel sockets, or take a NIC whose driver has native XDP";
            findings.warning(CHECK, format!("{found}; \"auto\" will take mode \"skb\""), remedy);
        }
        _ => findings.ok(CHECK, found),
    }
}

fn describe(can: XdpAbilities) -> String {
    let all = [
        (can.native, "native"),
        (can.redirect, "redirect"),
        (can.zero_copy, "zero-copy"),
        (can.multi_buffer, "multi-buffer"),
        (can.receive_time, "receive timestamps"),
    ];
    let list = |wanted: bool| {
        let names: Vec<&str> = all.iter().filter(|(has, _)| *has == wanted).map(|(_, name)| *name).collect();
        names.join(", ")
    };
    match (list(true), list(false)) {
        (has, no) if has.is_empty() => format!("no {no}"),
        (has, no) if no.is_empty() => has,
        (has, no) => format!("{has}; no {no}"),
    }
}

fn attached(findings: &mut Findings, name: &str, link: &Link) {
    const CHECK: &str = "XDP program";
    let Some(program) = &link.attached else { return findings.ok(CHECK, "none is attached") };
    let (id, mode) = (program.id, program.mode);
    match program.name.as_deref() {
        Some(ours) if ours.starts_with(PROGRAM_NAME) => findings.warning(
            CHECK,
            format!("`{ours}` (id {id}, {mode}): a feed handler runs on it"),
            "stop that one before another is started here",
        ),
        Some(other) => findings.problem(
            CHECK,
            format!("`{other}` (id {id}, {mode}) is attached already"),
            format!("stop the process that attached it, or `ip link set dev {name} xdp off`"),
        ),
        None => findings.problem(
            CHECK,
            format!("id {id} ({mode}) is attached already; only root is told its name"),
            format!("`bpftool prog show id {id}` as root names it; `ip link set dev {name} xdp off` detaches it"),
        ),
    }
}

fn mtu(findings: &mut Findings, name: &str, link: &Link, wanted: Option<&Use<'_>>, host: &Host) {
    const CHECK: &str = "MTU";
    let mtu = match link.mtu {
        Ok(mtu) => mtu,
        // Said once, above.
        Err(_) if !link.is_in_sysfs => return,
        Err(why) => return findings.warning(CHECK, silence(why, "its mtu in /sys/class/net"), "look at `ip link`"),
    };
    if let Some(longest) =
        wanted.and_then(|wanted| wanted.destinations.iter().map(|to| to.payload_bytes + IP_BYTES).max())
        && longest > mtu as usize
    {
        let found = format!("{mtu}, and a destination sends packets of up to {longest} bytes");
        let remedy = format!(
            "`ip link set dev {name} mtu {longest}`, or payload_bytes = {}",
            mtu as usize - IP_BYTES.min(mtu as usize)
        );
        return findings.problem(CHECK, found, remedy);
    }
    let frame_bytes = wanted.map_or(2048, |wanted| wanted.frame_bytes);
    let receives = wanted.is_none_or(|wanted| wanted.uses_xdp() && !wanted.rx.is_empty());
    if !receives || mtu <= most_mtu(frame_bytes) {
        return findings.ok(CHECK, mtu.to_string());
    }
    let found = format!("{mtu}, and a frame of {frame_bytes} bytes has room for {}", most_mtu(frame_bytes));
    let smaller = format!("`ip link set dev {name} mtu {}`", most_mtu(frame_bytes).min(1500));
    let remedy = if mtu <= most_mtu(4096) { format!("frame_bytes = 4096, or {smaller}") } else { smaller };
    let mode = wanted.map_or(Mode::Auto, |wanted| wanted.interface.mode);
    let cannot = link.abilities.is_some_and(|can| !can.multi_buffer);
    if mtu > most_mtu(JUMBO_BYTES) {
        let found = format!("{mtu}, and AF_XDP receives up to {}, over several frames", most_mtu(JUMBO_BYTES));
        let remedy = format!("`ip link set dev {name} mtu {}`", most_mtu(JUMBO_BYTES));
        // Without a plan it is only a matter of what it will say.
        match wanted {
            Some(_) => findings.problem(CHECK, found, remedy),
            None => findings.warning(CHECK, found, remedy),
        }
    } else if !host.is_since(6, 6) {
        let found = format!("{found}; several frames for one packet need Linux 6.6");
        match wanted {
            Some(_) => findings.problem(CHECK, found, remedy),
            None => findings.warning(CHECK, found, remedy),
        }
    } else if cannot && matches!(mode, Mode::ZeroCopy | Mode::Native) {
        findings.problem(CHECK, format!("{found}; its driver cannot spread a packet over several"), remedy);
    } else if cannot && mode == Mode::Auto {
        let found = format!("{found}; its driver cannot spread a packet over several, mode skb can");
        findings.warning(CHECK, found, remedy);
    } else {
        findings.ok(CHECK, format!("{found}: longer packets take several, and are copied into one piece"));
    }
}

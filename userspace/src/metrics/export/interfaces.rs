//! Metrics of interfaces: modes, verdicts of the XDP program, faults.
#![forbid(unsafe_code)]

use std::fmt;

use xdp_ebpf::Verdict;

use super::Out;
use crate::config::plan::InterfacePlan;
use crate::control::Desk;
use crate::edge::{Fault, Health};

pub(super) fn interfaces(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let interfaces = &desk.plan().interfaces;
    let modes = interfaces.iter().enumerate().map(|(i, plan)| {
        let labels = vec![
            ("interface", plan.name.clone()),
            ("wanted", plan.mode.label().to_owned()),
            ("in_force", desk.mode_in_force(i).label().to_owned()),
        ];
        (labels, 1)
    });
    out.gauge("interface_mode", "Always 1; how frames are exchanged, as configured and as read back", modes)?;
    // An interface whose map cannot be read has no sample: a false zero would hide it.
    let verdicts = interfaces.iter().enumerate().flat_map(|(i, plan)| {
        let counts = desk.verdicts(i).ok().flatten().into_iter().flatten();
        Verdict::ALL.into_iter().zip(counts).map(|(verdict, count)| {
            (vec![("interface", plan.name.clone()), ("verdict", verdict.label().to_owned())], count)
        })
    });
    out.counter("xdp_verdicts", "Frames by what the XDP program decided", verdicts)?;
    health(desk, out)
}

/// What the keeper has found.
fn health(desk: &Desk, out: &mut Out<'_>) -> fmt::Result {
    let interfaces = &desk.plan().interfaces;
    let label = |plan: &InterfacePlan| ("interface", plan.name.clone());
    let all: Vec<Health> = (0..interfaces.len()).map(|i| desk.interface_health(i)).collect();
    let each_fault = |value: fn(&Health, Fault) -> u64| {
        let pairs = interfaces.iter().zip(&all).flat_map(|pair| Fault::ALL.map(|fault| (pair, fault)));
        pairs.map(move |((plan, health), fault)| {
            (vec![label(plan), ("fault", fault.label().to_owned())], value(health, fault))
        })
    };
    let now = each_fault(|health, fault| health.now.as_ref().is_some_and(|now| now.0 == fault).into());
    out.gauge("interface_fault", "1 while the interface has the fault", now)?;
    let begun = each_fault(|health, fault| health.begun[fault as usize]);
    out.counter("interface_faults", "How often the fault has begun", begun)?;
    let healed = interfaces.iter().zip(&all).map(|(plan, health)| (vec![label(plan)], health.healed));
    out.counter("interface_healed", "How often a lost link or program was brought back", healed)
}

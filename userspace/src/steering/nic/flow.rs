//! Flow rules (ntuple): one per group, `udp4 dst-ip dst-port [vlan]` to a receive queue.
//!
//! A rule is known by what it matches, not by its number: the driver chooses that, and a crash between a rule and the note
//! of its number would leave the rule for good.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

use super::error::NicError;
use super::ethtool::Ethtool;

/// Value of a group without a rule.
pub(super) const NONE: &str = "none";
/// VLAN tag bits that a rule does not look at, as ethtool writes it: priority and drop eligibility (IEEE 802.1Q).
const NOT_VLAN_ID: u16 = 0xF000;

/// One rule as the driver lists it.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    number: u32,
    /// Group, port and VLAN (0 = any), if the rule is of our form.
    key: Option<(SocketAddrV4, u16)>,
    /// Queue number, or what else happens with the packets.
    action: String,
}

/// Where a group goes: a queue number, another action, or [`NONE`].
pub(super) fn read(ethtool: &Ethtool<'_>, group: SocketAddrV4, vlan: u16) -> Result<String, NicError> {
    Ok(find(ethtool, group, vlan)?.map_or_else(|| NONE.to_owned(), |rule| rule.action))
}

/// Adds the group's rule, or removes it if `queue` is [`NONE`].
pub(super) fn write(ethtool: &Ethtool<'_>, group: SocketAddrV4, vlan: u16, queue: &str) -> Result<(), NicError> {
    if queue == NONE {
        if let Some(rule) = find(ethtool, group, vlan)? {
            delete(ethtool, rule.number)?;
        }
        return Ok(());
    }
    let (ip, port, id) = (group.ip().to_string(), group.port().to_string(), vlan.to_string());
    let ignored = format!("{NOT_VLAN_ID:#x}");
    let mut arguments = vec!["flow-type", "udp4", "dst-ip", &ip, "dst-port", &port];
    if vlan != 0 {
        arguments.extend(["vlan", &id, "m", &ignored]);
    }
    arguments.extend(["action", queue]);
    let said = ethtool.tell("-N", &arguments, queue)?;
    // Some versions end with status 0 after the driver refused.
    let number = said.lines().find_map(|line| line.strip_prefix("Added rule with ID ")?.trim().parse().ok());
    let number: u32 = number.ok_or_else(|| ethtool.refused(queue, "the rule was not added".to_owned()))?;
    if find(ethtool, group, vlan)?.is_none() {
        // What cannot be found cannot be removed when we stop, either.
        delete(ethtool, number)?;
        return Err(ethtool.refused(queue, format!("the driver lists rule {number} in another form than it was given")));
    }
    Ok(())
}

fn delete(ethtool: &Ethtool<'_>, number: u32) -> Result<(), NicError> {
    ethtool.tell("-N", &["delete", &number.to_string()], NONE).map(drop)
}

fn find(ethtool: &Ethtool<'_>, group: SocketAddrV4, vlan: u16) -> Result<Option<Rule>, NicError> {
    let text = ethtool.ask(&["-n"])?;
    let rules = rules(&text).map_err(|reason| ethtool.unreadable("-n", reason))?;
    Ok(rules.into_iter().find(|rule| rule.key == Some((group, vlan))))
}

/// All rules of a list by `ethtool -n`.
fn rules(text: &str) -> Result<Vec<Rule>, String> {
    let total = text.lines().find_map(|line| line.strip_prefix("Total ")?.strip_suffix(" rules"));
    let total: usize =
        total.and_then(|count| count.parse().ok()).ok_or_else(|| "there is no line `Total N rules`".to_owned())?;
    let found: Vec<Rule> = text.split("Filter: ").skip(1).map(rule).collect::<Result<_, _>>()?;
    if found.len() != total {
        return Err(format!("it announces {total} rules and lists {}", found.len()));
    }
    Ok(found)
}

/// One rule; the text begins with its number.
fn rule(text: &str) -> Result<Rule, String> {
    let mut lines = text.lines().map(str::trim);
    let number = lines.next().unwrap_or_default();
    let number = number.parse().map_err(|_| format!("`Filter: {number}` is no number"))?;
    let mut action = None;
    let mut is_udp4 = false;
    let (mut ip, mut port) = (None, None);
    // Anything beyond what ours have makes a rule another one; it is left alone.
    let mut vlan = Some(0);
    let mut is_ours = true;
    for line in lines {
        let Some((label, value)) = line.split_once(": ") else { continue };
        // Of a mask, set bits are not looked at.
        let (value, mask) = value.split_once(" mask: ").unwrap_or((value, ""));
        match label {
            "Rule Type" => is_udp4 = value == "UDP over IPv4",
            "Dest IP addr" => ip = value.parse::<Ipv4Addr>().ok().filter(|_| mask == "0.0.0.0"),
            "Dest port" => port = value.parse::<u16>().ok().filter(|_| hex(mask) == Some(0)),
            "VLAN" => vlan = vlan_of(value, mask),
            "Src IP addr" => is_ours &= mask == "255.255.255.255",
            "Src port" => is_ours &= hex(mask) == Some(0xFFFF),
            "TOS" => is_ours &= hex(mask) == Some(0xFF),
            "User-defined" => is_ours &= hex(mask) == Some(u64::MAX),
            "Dest MAC addr" => is_ours &= mask.split(':').all(|byte| byte == "FF"),
            "Action" => action = Some(value.strip_prefix("Direct to queue ").unwrap_or(value).to_owned()),
            _ => {}
        }
    }
    let key = match (ip, port, vlan) {
        (Some(ip), Some(port), Some(vlan)) if is_udp4 && is_ours => Some((SocketAddrV4::new(ip, port), vlan)),
        _ => None,
    };
    Ok(Rule { number, key, action: action.ok_or_else(|| format!("rule {number} has no line `Action:`"))? })
}

/// VLAN id that a rule looks at, 0 for none; `None` if it looks at a part of it.
fn vlan_of(value: &str, mask: &str) -> Option<u16> {
    let (value, mask) = (u16::try_from(hex(value)?).ok()?, u16::try_from(hex(mask)?).ok()?);
    match mask & !NOT_VLAN_ID {
        0 => Some(value & !NOT_VLAN_ID),
        0x0FFF => Some(0),
        _ => None,
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED: &str = "Filter: 1022\n\tRule Type: UDP over IPv4\n\tSrc IP addr: 0.0.0.0 mask: 255.255.255.255\n\
        \tDest IP addr: 239.10.0.2 mask: 0.0.0.0\n\tTOS: 0x0 mask: 0xff\n\tSrc port: 0 mask: 0xffff\n\
        \tDest port: 26401 mask: 0x0\n\tVLAN EtherType: 0x0 mask: 0xffff\n\tVLAN: 0x7 mask: 0xf000\n\
        \tUser-defined: 0x0 mask: 0xffffffffffffffff\n\tAction: Direct to queue 3\n\n";

    fn list(rules: &[&str]) -> String {
        format!("4 RX rings available\nTotal {} rules\n\n{}", rules.len(), rules.concat())
    }

    #[test]
    fn rules_of_our_form_are_known_by_what_they_match() {
        let found = rules(&list(&[TAGGED])).unwrap();
        let key = Some(("239.10.0.2:26401".parse().unwrap(), 7));
        assert_eq!(found, [Rule { number: 1022, key, action: "3".to_owned() }]);
        assert_eq!(rules(&list(&[])).unwrap(), []);
    }

    #[test]
    fn narrower_wider_and_other_rules_are_not_ours() {
        for (from, to) in [
            ("UDP over", "TCP over"),
            ("0.0.0.0 mask: 255.255.255.255", "10.0.0.1 mask: 0.0.0.0"),
            ("239.10.0.2 mask: 0.0.0.0", "239.10.0.0 mask: 0.0.0.255"),
            ("26401 mask: 0x0", "26401 mask: 0xff"),
            ("Src port: 0 mask: 0xffff", "Src port: 9 mask: 0x0"),
            ("0x7 mask: 0xf000", "0x7 mask: 0xf00f"),
        ] {
            assert!(TAGGED.contains(from));
            assert_eq!(rules(&list(&[&TAGGED.replacen(from, to, 1)])).unwrap()[0].key, None, "{to}");
        }
        let dropped = TAGGED.replace("Direct to queue 3", "Drop");
        assert_eq!(rules(&list(&[&dropped])).unwrap()[0].action, "Drop");
    }

    #[test]
    fn a_list_that_does_not_add_up_is_refused() {
        assert!(rules("1 RX rings available\n").unwrap_err().contains("Total"));
        assert!(rules(&list(&[TAGGED]).replace("Total 1", "Total 2")).unwrap_err().contains("announces 2"));
        assert!(rules(&list(&[&TAGGED.replace("Action", "Doing")])).unwrap_err().contains("Action"));
    }
}

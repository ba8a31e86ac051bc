//! What a driver can do and does, asked over generic netlink: family `netdev` for XDP (Linux 6.3), `ethtool` for offloads
//! (Linux 5.9). Only requests that read; none needs a privilege.
#![forbid(unsafe_code)]

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use super::link::{Offloads, XdpAbilities};
use crate::steering::DriverFeatures;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// `struct nlmsghdr` (16) and `struct genlmsghdr` (4).
const HEADER_BYTES: usize = 20;
const NLA_TYPE_MASK: u16 = 0x3FFF;
const NLA_F_NESTED: u16 = 0x8000;
/// The kernel's answers are smaller (NLMSG_GOODSIZE); the list of an interface's features is about 4 KiB.
const ANSWER_BYTES: usize = 64 * 1024;

// linux/genetlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// linux/netdev.h
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
const NETDEV_XDP_RX_METADATA_TIMESTAMP: u64 = 1;

// linux/ethtool_netlink.h
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const ETHTOOL_A_CHANNELS_HEADER: u16 = 1;
const ETHTOOL_A_CHANNELS_RX_MAX: u16 = 2;
const ETHTOOL_A_CHANNELS_TX_MAX: u16 = 3;
const ETHTOOL_A_CHANNELS_COMBINED_MAX: u16 = 5;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_FEATURES_HW: u16 = 2;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_BITSET_NOMASK: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// XDP abilities of an interface's driver; `None` if the kernel does not tell.
pub(super) fn xdp_abilities(index: u32) -> Option<XdpAbilities> {
    let answer = ask("netdev", NETDEV_CMD_DEV_GET, &attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes()))?;
    let bits = |kind| find(&answer, kind).and_then(number);
    let features = bits(NETDEV_A_DEV_XDP_FEATURES)?;
    let DriverFeatures { native, redirect, zero_copy, multi_buffer } = DriverFeatures::from_flags(features);
    Some(XdpAbilities {
        native,
        redirect,
        zero_copy,
        multi_buffer,
        receive_time: bits(NETDEV_A_DEV_XDP_RX_METADATA_FEATURES)
            .is_some_and(|bits| bits & NETDEV_XDP_RX_METADATA_TIMESTAMP != 0),
    })
}

/// Offloads of an interface; `None` if the kernel does not tell.
pub(super) fn offloads(index: u32) -> Option<Offloads> {
    let header = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
    let request = attribute(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, &header);
    let answer = ask("ethtool", ETHTOOL_MSG_FEATURES_GET, &request)?;
    let name = |bit| {
        let name = find(bit, ETHTOOL_A_BITSET_BIT_NAME)?;
        Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
    };
    let set = |kind| {
        let bitset = find(&answer, kind)?;
        // A list is of what is set; a bitset with a mask says of each bit whether it is.
        let is_list = find(bitset, ETHTOOL_A_BITSET_NOMASK).is_some();
        let is_set = |bit: &[u8]| is_list || find(bit, ETHTOOL_A_BITSET_BIT_VALUE).is_some();
        let bits = attributes(find(bitset, ETHTOOL_A_BITSET_BITS)?).filter(|(_, bit)| is_set(bit));
        Some(bits.filter_map(|(_, bit)| name(bit)).collect())
    };
    let changeable = set(ETHTOOL_A_FEATURES_HW).unwrap_or_default();
    Some(Offloads { on: set(ETHTOOL_A_FEATURES_ACTIVE)?, changeable })
}

/// Receive and transmit queues that an interface can have of each at most; `None` if the driver does not tell.
pub(super) fn most_queues(index: u32) -> Option<u32> {
    let header = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
    let answer =
        ask("ethtool", ETHTOOL_MSG_CHANNELS_GET, &attribute(ETHTOOL_A_CHANNELS_HEADER | NLA_F_NESTED, &header))?;
    let most = |kind| find(&answer, kind).and_then(number).and_then(|most| u32::try_from(most).ok()).filter(|n| *n > 0);
    most(ETHTOOL_A_CHANNELS_COMBINED_MAX)
        .or_else(|| Some(most(ETHTOOL_A_CHANNELS_RX_MAX)?.min(most(ETHTOOL_A_CHANNELS_TX_MAX)?)))
}

/// Sends one request to a family of generic netlink; the attributes of the answer.
fn ask(family: &str, command: u8, request: &[u8]) -> Option<Vec<u8>> {
    let name = [family.as_bytes(), &[0]].concat();
    let known = exchange(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &attribute(CTRL_ATTR_FAMILY_NAME, &name))?;
    let id = u16::try_from(number(find(&known, CTRL_ATTR_FAMILY_ID)?)?).ok()?;
    exchange(id, command, request)
}

fn exchange(family: u16, command: u8, attributes: &[u8]) -> Option<Vec<u8>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::GENERIC)).ok()?;
    let mut message = Vec::new();
    let len = u32::try_from(HEADER_BYTES + attributes.len()).ok()?;
    message.extend(len.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port are of no use here: one request, one answer, one socket.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    // Without an address it goes to the kernel, which answers before `send` returns.
    send(&socket, &message, SendFlags::empty()).ok()?;
    let mut answer = vec![0; ANSWER_BYTES];
    let (len, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    payload(answer.get(..len)?).map(<[u8]>::to_vec)
}

/// The attributes of the first message; `None` if it is an error, or no message.
fn payload(answer: &[u8]) -> Option<&[u8]> {
    let len = u32::from_ne_bytes(*answer.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    if kind == NLMSG_ERROR { None } else { answer.get(HEADER_BYTES..len) }
}

/// One attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes in `bytes`, until one is not whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, value))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(here, _)| *here == kind).map(|(_, value)| value)
}

/// An unsigned number of 2, 4 or 8 bytes.
fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        2 => Some(u16::from_ne_bytes(*value.first_chunk()?).into()),
        4 => Some(u32::from_ne_bytes(*value.first_chunk()?).into()),
        8 => Some(u64::from_ne_bytes(*value.first_chunk()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_ones_end_the_list() {
        let mut bytes =
            [attribute(7, b"abc"), attribute(3 | NLA_F_NESTED, &attribute(1, &5_u32.to_ne_bytes()))].concat();
        assert_eq!(find(&bytes, 7), Some(&b"abc"[..]));
        assert_eq!(find(&bytes, 3).and_then(|inner| find(inner, 1)).and_then(number), Some(5));
        assert_eq!(find(&bytes, 9), None);
        for cut in 0..bytes.len() {
            let _ = attributes(&bytes[..cut]).count();
        }
        // Lengths that lie: none, less than the header, more than there is.
        for len in [0_u16, 3, 200] {
            bytes[..2].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(attributes(&bytes).count(), 0, "{len}");
        }
        assert_eq!(payload(&[1, 2, 3]), None);
        assert_eq!(payload(&[255; 20]), None);
        assert_eq!(number(&[1]), None);
    }

    #[test]
    fn the_loopback_interface_has_offloads_and_no_native_xdp() {
        // Index 1 is the loopback interface in every network namespace.
        let offloads = offloads(1).expect("Linux 5.9");
        assert!(offloads.is_on("loopback") && !offloads.is_on("rx-lro"), "{offloads:?}");
        assert!(offloads.can_be("loopback", true) && !offloads.can_be("loopback", false), "fixed: {offloads:?}");
        assert!(offloads.can_be("rx-gro", false), "{offloads:?}");
        let abilities = xdp_abilities(1).expect("Linux 6.3");
        assert!(!abilities.native && !abilities.zero_copy, "{abilities:?}");
        assert_eq!(xdp_abilities(u32::MAX >> 1), None);
        assert_eq!(ask("no-such-family", 1, &[]), None);
    }
}

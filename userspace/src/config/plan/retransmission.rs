//! What consumers can be sent again, and how much of it.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

/// The retransmission server of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetransmissionPlan {
    /// Where requests are listened for. A request names a session and no stream, so each destination has its own.
    pub address: SocketAddrV4,
    /// Message blocks that are retained, bytes; the oldest go first.
    pub retain_bytes: usize,
    /// What all clients together are sent at most.
    pub rates: Rates,
    /// What one client is sent at most.
    pub client_rates: Rates,
    /// Networks whose clients are answered.
    pub allow: Vec<Network>,
}

/// How much is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests per second.
    pub requests_per_second: u32,
    /// UDP payload bytes of the answers per second.
    pub bytes_per_second: u64,
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u32,
    mask: u32,
}

impl Network {
    /// The network of `prefix_bits` (0 to 32) leading bits; `None` if the address has bits behind them.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix_bits: u32) -> Option<Self> {
        let host_bits = 32_u32.checked_sub(prefix_bits)?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        let address = address.to_bits();
        (address & !mask == 0).then_some(Self { address, mask })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_of_its_prefix() {
        let is_in = |network: [u8; 4], bits, address: [u8; 4]| {
            Network::new(network.into(), bits).map(|network| network.contains(address.into()))
        };
        assert_eq!(is_in([172, 16, 0, 0], 12, [172, 31, 255, 255]), Some(true));
        assert_eq!(is_in([172, 16, 0, 0], 12, [172, 32, 0, 0]), Some(false));
        assert_eq!(is_in([0; 4], 0, [255; 4]), Some(true));
        assert_eq!(is_in([10, 0, 0, 7], 32, [10, 0, 0, 7]), Some(true));
        assert_eq!(is_in([10, 0, 0, 7], 32, [10, 0, 0, 6]), Some(false));
        assert_eq!(is_in([10, 0, 0, 7], 31, [10, 0, 0, 7]), None, "bits behind the prefix");
        assert_eq!(is_in([10, 0, 0, 0], 33, [10, 0, 0, 0]), None);
    }
}

//! How many may come at a time. This host's own address has places of its own, so that nobody from outside can take them.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use crate::control::locked;

/// Connections at a time, of each address that we listen on.
pub(in crate::control) const MOST_CONNECTIONS: usize = 256;
/// Connections beyond those, which are only told that there are too many. More are closed without a word.
pub(in crate::control) const MOST_TOLD: usize = 1024;
/// Connections at a time from one remote address.
pub(in crate::control) const MOST_OF_ONE: usize = 64;
/// Connections at a time from one remote address that are told so.
const MOST_TOLD_OF_ONE: usize = 64;
/// Streams that go on (events, status) of one remote address.
pub(in crate::control) const MOST_STREAMS_OF_ONE: usize = 16;
/// Calls at a time, of each address that we listen on.
pub(in crate::control) const MOST_CALLS: usize = 256;
/// Calls at a time on one connection; HTTP/2 tells the client.
pub(in crate::control) const MOST_CALLS_OF_CONNECTION: u32 = 16;

/// Who is here now.
#[derive(Debug, Default)]
pub(in crate::control) struct Places(Mutex<[Taken; 2]>);

#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    told: usize,
    calls: usize,
    of_one: HashMap<IpAddr, OfOne>,
}

#[derive(Debug, Default)]
struct OfOne {
    connections: usize,
    told: usize,
    streams: usize,
}

/// Which address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Door {
    /// `grpc`: this host.
    Local,
    /// `grpc_tls`: from this address; made by [`Door::remote`].
    Remote(IpAddr),
}

impl Door {
    /// `grpc_tls`, for who comes from `address`. IPv6 counts by /64: whoever has one address there mostly has all of them.
    pub(in crate::control) fn remote(address: IpAddr) -> Self {
        Self::Remote(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
            address @ IpAddr::V4(_) => address,
        })
    }

    /// This host's first.
    pub(in crate::control) const fn index(self) -> usize {
        match self {
            Self::Local => 0,
            Self::Remote(_) => 1,
        }
    }
}

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Connection,
    Told,
    Call,
    Stream,
}

/// Free again when dropped.
#[derive(Debug)]
pub(in crate::control) struct Place {
    places: Arc<Places>,
    door: Door,
    what: What,
}

impl Places {
    /// Open connections, by door.
    pub(super) fn connections(&self) -> [usize; 2] {
        locked(&self.0).each_ref().map(|taken| taken.connections)
    }

    /// A place for a connection; `Err`: one where it is told that there are too many; `Err(None)`: not even that.
    pub(in crate::control) fn connection(self: &Arc<Self>, door: Door) -> Result<Place, Option<Place>> {
        let place = |what| Place { places: Arc::clone(self), door, what };
        let mut all = locked(&self.0);
        let taken = &mut all[door.index()];
        let (of_one, told_of_one) = match door {
            Door::Remote(address) => taken.of_one.get(&address).map_or((0, 0), |one| (one.connections, one.told)),
            Door::Local => (0, 0),
        };
        if taken.connections < MOST_CONNECTIONS && of_one < MOST_OF_ONE {
            taken.connections += 1;
            if let Door::Remote(address) = door {
                taken.of_one.entry(address).or_default().connections += 1;
            }
            Ok(place(What::Connection))
        } else if taken.told < MOST_TOLD && told_of_one < MOST_TOLD_OF_ONE {
            taken.told += 1;
            if let Door::Remote(address) = door {
                taken.of_one.entry(address).or_default().told += 1;
            }
            Err(Some(place(What::Told)))
        } else {
            Err(None)
        }
    }

    /// A place for a call; for one that goes on, if `is_stream`.
    pub(super) fn call(self: &Arc<Self>, door: Door, is_stream: bool) -> Option<Place> {
        let mut all = locked(&self.0);
        let taken = &mut all[door.index()];
        if taken.calls >= MOST_CALLS {
            return None;
        }
        let mut what = What::Call;
        if let (Door::Remote(address), true) = (door, is_stream) {
            let one = taken.of_one.entry(address).or_default();
            if one.streams >= MOST_STREAMS_OF_ONE {
                return None;
            }
            one.streams += 1;
            what = What::Stream;
        }
        taken.calls += 1;
        Some(Place { places: Arc::clone(self), door, what })
    }
}

impl Place {
    /// Which address of ours it is of.
    pub(super) const fn door(&self) -> Door {
        self.door
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = locked(&self.places.0);
        let taken = &mut all[self.door.index()];
        match self.what {
            What::Connection => taken.connections -= 1,
            What::Told => taken.told -= 1,
            What::Call | What::Stream => taken.calls -= 1,
        }
        let Door::Remote(address) = self.door else { return };
        let Some(one) = taken.of_one.get_mut(&address) else { return };
        match self.what {
            What::Connection => one.connections -= 1,
            What::Stream => one.streams -= 1,
            What::Told => one.told -= 1,
            What::Call => {}
        }
        if one.connections == 0 && one.told == 0 && one.streams == 0 {
            taken.of_one.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_and_a_dropped_place_is_free() {
        let places = Arc::<Places>::default();
        let door = |last: u8| Door::Remote(IpAddr::from([10, 0, 0, last]));
        let mut held: Vec<Place> = (0..MOST_OF_ONE).map(|_| places.connection(door(1)).unwrap()).collect();
        let told = places.connection(door(1)).unwrap_err().expect("is told");
        let others = (2..5).flat_map(|last| (0..MOST_OF_ONE).map(move |_| last));
        held.extend(others.map(|last| places.connection(door(last)).unwrap()));
        assert_eq!(places.connections(), [0, MOST_CONNECTIONS]);
        assert!(places.connection(door(9)).is_err(), "full");
        assert!(places.connection(Door::Local).is_ok(), "the host's own places are others");
        let surplus = |last| places.connection(door(last)).unwrap_err();
        let mut crowd: Vec<_> = (0..MOST_TOLD_OF_ONE).map(|_| surplus(9).expect("is told")).collect();
        assert!(surplus(9).is_none(), "one address cannot take these, either");
        let more = (0..MOST_TOLD - 1 - MOST_TOLD_OF_ONE).zip((10..=255).cycle());
        crowd.extend(more.map(|(_, last)| surplus(last).expect("is told")));
        assert!(surplus(8).is_none());
        drop((held, told, crowd));
        assert_eq!(places.connections(), [0, 0]);
        assert!(locked(&places.0)[1].of_one.is_empty() && locked(&places.0)[1].told == 0);
    }

    #[test]
    fn addresses_of_a_network_of_ipv6_count_as_one() {
        let of = |text: &str| Door::remote(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), Door::Remote(IpAddr::from([10, 0, 0, 1])));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn calls_and_streams_have_an_end() {
        let places = Arc::<Places>::default();
        let remote = Door::Remote(IpAddr::from([10, 0, 0, 1]));
        let mut held: Vec<Place> = (0..MOST_STREAMS_OF_ONE).map(|_| places.call(remote, true).unwrap()).collect();
        assert!(places.call(remote, true).is_none());
        held.extend((MOST_STREAMS_OF_ONE..MOST_CALLS).map(|_| places.call(remote, false).unwrap()));
        assert!(places.call(remote, false).is_none() && places.call(Door::Local, true).is_some());
        drop(held);
        assert!(places.call(remote, true).is_some());
    }
}

//! By which both ways of a flow are one worker's, without a table of flows.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How many lanes packets are shared out to, by nothing but their addresses and ports.
///
/// Whoever hands packets to several workers sees a flow from one side only, and remembers nothing of the other: it can tell the lane
/// of a packet [from a host](Self::of_outbound) and of one [to an address](Self::of_inbound), and no more. The tables choose addresses
/// ([`PoolConfig::lanes`](crate::PoolConfig::lanes)) and ports ([`NatConfig::lanes`](crate::nat64::NatConfig::lanes)) by which both are
/// the same, as long as there are such: it is a wish and no promise. The lowest bit of a port does not count, since a port keeps its
/// parity (RFC 4787 REQ-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes(u16);

impl Lanes {
    /// No choice depends on lanes.
    pub const ONE: Self = Self(1);

    /// The most lanes. Of a block of 128 ports each has two of either parity then.
    pub const MOST: u16 = 32;

    /// A power of two of lanes, as many as [`Self::MOST`]; `None`: it is none.
    pub const fn new(count: u16) -> Option<Self> {
        if count.is_power_of_two() && count <= Self::MOST { Some(Self(count)) } else { None }
    }

    /// How many there are.
    pub const fn count(self) -> u16 {
        self.0
    }

    /// The lane of a host's packet from `port` to `remote_port`: the upper five bits of the sum of its address's four words times
    /// `0x9e37_79b1`, and half of each port. Ports that a packet has none of are 0.
    pub fn of_outbound(self, host: Ipv6Addr, port: u16, remote_port: u16) -> u16 {
        of_host(host).wrapping_add(port / 2).wrapping_add(remote_port / 2) & (self.0 - 1)
    }

    /// The lane of a packet to `address` and `port` from `remote_port`: the address as a number, and half of each port.
    pub fn of_inbound(self, address: Ipv4Addr, port: u16, remote_port: u16) -> u16 {
        (address.to_bits() as u16).wrapping_add(port / 2).wrapping_add(remote_port / 2) & (self.0 - 1)
    }

    /// What a port for this one of the host should be like.
    pub(crate) fn like(self, host: Ipv6Addr, port: u16) -> Like {
        Like { lanes: self, lane: self.of_outbound(host, port, 0), parity: port & 1 }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self::ONE
    }
}

fn of_host(host: Ipv6Addr) -> u16 {
    let words = host.to_bits().to_be_bytes();
    let (words, _) = words.as_chunks::<4>();
    let sum = words.iter().fold(0_u32, |sum, word| sum.wrapping_add(u32::from_be_bytes(*word)));
    (sum.wrapping_mul(0x9e37_79b1) >> 27) as u16
}

/// What a port is wanted to be like: of a lane, and of a parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Like {
    lanes: Lanes,
    lane: u16,
    parity: u16,
}

impl Like {
    /// Which places of a block are like this, if it begins with this port of this address.
    pub(crate) fn places(self, address: u32, first_port: u16) -> Places {
        let lane = self.lane.wrapping_sub(address as u16) & (self.lanes.0 - 1);
        let apart = 2 * self.lanes.0;
        Places { first: (2 * lane + self.parity).wrapping_sub(first_port) & (apart - 1), apart }
    }
}

/// Places that are equally far apart, from the first one of a block on. All of them are of one parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    first: u16,
    /// A power of two from 2 to 64.
    apart: u16,
}

impl Places {
    #[cfg(test)]
    pub(crate) const fn of_parity(parity: u16) -> Self {
        Self { first: parity & 1, apart: 2 }
    }

    pub(crate) fn contain(self, place: u16) -> bool {
        place & (self.apart - 1) == self.first
    }

    /// Their bits in a word of 64.
    pub(crate) fn mask(self) -> u64 {
        every(self.apart) << self.first
    }

    /// The same for all places of their parity.
    pub(crate) fn mask_of_parity(self) -> u64 {
        every(2) << (self.first & 1)
    }

    /// A number below four that is the same for the same places.
    pub(crate) fn slot(self) -> usize {
        usize::from(self.first & 3)
    }
}

/// The lowest bit of each so many.
fn every(apart: u16) -> u64 {
    u64::MAX / (u64::MAX >> (64 - u32::from(apart)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_of_lanes_is_a_power_of_two_up_to_the_most() {
        let right: Vec<_> = (0..=100).filter(|count| Lanes::new(*count).is_some()).collect();
        assert_eq!(right, [1, 2, 4, 8, 16, 32]);
        assert_eq!(Lanes::new(8).unwrap().count(), 8);
    }

    #[test]
    fn every_bit_of_a_mask_is_a_place() {
        for apart in [2, 4, 8, 16, 32, 64] {
            for first in 0..apart {
                let places = Places { first, apart };
                let by_mask: Vec<_> = (0..64).filter(|bit| places.mask() >> bit & 1 == 1).collect();
                let by_place: Vec<_> = (0..64).filter(|place| places.contain(*place)).collect();
                assert_eq!(by_mask, by_place);
                assert_eq!(by_mask.len(), 64 / usize::from(apart));
                assert_eq!(places.mask() & places.mask_of_parity(), places.mask());
                assert_eq!(places.mask_of_parity().count_ones(), 32);
            }
        }
    }

    #[test]
    fn neighbours_are_of_different_lanes() {
        let lanes = Lanes::new(32).unwrap();
        let host = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, n >> 8, 0, 0, 0, 0, n & 0xff);
        let mut hosts = [0; 32];
        for n in 0..3200 {
            hosts[usize::from(lanes.of_outbound(host(n), 4500, 4500))] += 1;
        }
        assert!(hosts.iter().all(|hosts| (70..=130).contains(hosts)), "{hosts:?}");
        // Programs take every other port.
        let mut ports = [0; 32];
        for n in 0..3200 {
            ports[usize::from(lanes.of_outbound(host(1), 32_768 + 2 * n, 443))] += 1;
        }
        assert_eq!(ports, [100; 32]);
    }

    proptest! {
        #[test]
        fn a_port_that_is_like_a_hosts_brings_both_ways_to_one_lane(
            count in 0_u32..6, host: u128, port: u16, remote: u16, address: u32, block in 0_u16..4096,
        ) {
            let (lanes, host, address) = (Lanes::new(1 << count).unwrap(), Ipv6Addr::from(host), Ipv4Addr::from(address));
            let first_port = block * 16;
            let places = lanes.like(host, port).places(address.to_bits(), first_port);
            let there: Vec<_> = (0..64).filter(|place| places.contain(*place)).collect();
            prop_assert_eq!(there.len(), 32 / usize::from(lanes.count()));
            for place in there {
                let external = first_port.wrapping_add(place);
                prop_assert_eq!(external & 1, port & 1);
                prop_assert_eq!(
                    lanes.of_inbound(address, external, remote),
                    lanes.of_outbound(host, port, remote)
                );
            }
        }
    }
}

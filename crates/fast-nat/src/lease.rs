use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Timestamp;

/// How a lease came about, and whether it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseKind {
    /// Given out by a pool; ends when its host has been silent for long enough.
    Dynamic,
    /// Configured; never ends by itself.
    Static,
}

/// One host of the IPv6 side holds one IPv4 address, for any protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The holder.
    pub host: Ipv6Addr,
    /// What it holds.
    pub address: Ipv4Addr,
    /// How it came about.
    pub kind: LeaseKind,
    /// Tells this lease from an earlier or later one of the same host or address.
    pub generation: u32,
    /// When it was granted.
    pub granted: Timestamp,
    /// When its host last sent a packet.
    pub last_seen: Timestamp,
}

/// Whether a host with this address may take a lease: unspecified, loopback, multicast, link-local and IPv4-mapped
/// sources never do (they are no senders that a reply could reach, RFC 4291 §2.5 to §2.7).
#[inline]
pub fn is_eligible_host(host: Ipv6Addr) -> bool {
    !(host.is_unspecified()
        || host.is_loopback()
        || host.is_multicast()
        || host.is_unicast_link_local()
        || host.to_ipv4_mapped().is_some())
}

/// The /64 that a host belongs to: one subscriber, however many addresses it makes up.
#[inline]
pub fn subnet(host: Ipv6Addr) -> u64 {
    (u128::from(host) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unicast_addresses_that_can_be_answered_are_eligible() {
        for bad in ["::", "::1", "fe80::1", "ff02::1", "::ffff:192.0.2.1"] {
            assert!(!is_eligible_host(bad.parse().unwrap()), "{bad}");
        }
        for good in ["2001:db8::1", "fd00::1", "2a00::"] {
            assert!(is_eligible_host(good.parse().unwrap()), "{good}");
        }
    }
}

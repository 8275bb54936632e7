//! The parameters of translation.

/// The parameters of translation. The default is what RFC 7915 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// An IPv4 packet without DF whose translation is longer than this, in bytes, is fragmented (RFC 7915 §4: the lowest
    /// MTU of the IPv6 network). Below 1280 it counts as 1280, the least that every IPv6 link carries.
    pub lowest_ipv6_mtu: u16,
    /// The MTU of the next link on the IPv6 side, in bytes. An IPv4 packet with DF whose translation is longer is refused
    /// ([`DropReason::TooBig`](crate::DropReason::TooBig)), and no translated error promises more (RFC 7915 §4.1, §4.2).
    /// Below 1280 it counts as 1280. By default there is no bound: somebody else forwards, who knows the link.
    pub ipv6_mtu: u32,
    /// The MTU of the next link on the IPv4 side, in bytes. An IPv6 packet whose translation has DF and is longer is
    /// refused, and no translated error promises more (RFC 7915 §5.1, §5.2). Below 68 it counts as 68. By default there is
    /// no bound.
    ///
    /// These MTUs are the operator's: one that was learnt from a Packet Too Big is never to be put here, or a forged one
    /// would slow down everybody.
    pub ipv4_mtu: u16,
    /// What becomes of the type of service and the traffic class (RFC 7915 §4.1, §5.1).
    pub traffic_class: TrafficClass,
    /// What becomes of an IPv4 UDP datagram without a checksum (RFC 7915 §4.5).
    pub udp_zero_checksum: ZeroChecksum,
}

/// The least MTU of an IPv6 link, in bytes (RFC 8200 §5).
pub(crate) const LEAST_IPV6_MTU: u16 = 1280;

/// The least MTU of an IPv4 link, in bytes (RFC 791 §3.2).
pub(crate) const LEAST_IPV4_MTU: u16 = 68;

impl Params {
    /// The longest IPv6 packet without a jumbo payload, in bytes (RFC 8200 §3).
    pub const LONGEST_IPV6_PACKET: u32 = 40 + 65_535;

    /// The default: RFC 7915 to the letter, links without a bound.
    pub const DEFAULT: Self = Self {
        lowest_ipv6_mtu: LEAST_IPV6_MTU,
        ipv6_mtu: Self::LONGEST_IPV6_PACKET,
        ipv4_mtu: u16::MAX,
        traffic_class: TrafficClass::Copy,
        udp_zero_checksum: ZeroChecksum::Compute,
    };

    pub(crate) fn ipv6_mtu(&self) -> u32 {
        self.ipv6_mtu.max(u32::from(LEAST_IPV6_MTU))
    }

    pub(crate) fn ipv4_mtu(&self) -> u32 {
        u32::from(self.ipv4_mtu.max(LEAST_IPV4_MTU))
    }

    /// The longest fragments that a packet without DF is cut into.
    pub(crate) fn fragment_mtu(&self) -> u16 {
        self.ipv6_mtu().min(u32::from(self.lowest_ipv6_mtu.max(LEAST_IPV6_MTU))) as u16
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What becomes of the type of service and the traffic class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficClass {
    /// All eight bits are copied, the ECN bits among them.
    Copy,
    /// The DSCP (the upper six bits, 0 to 63) is replaced by this; the ECN bits are copied.
    Dscp(u8),
    /// All eight bits are zero: for a network that uses the old meaning of the type of service (RFC 7915 §4.1). This takes
    /// ECN (RFC 3168) away from every flow.
    Zero,
}

impl TrafficClass {
    pub(crate) const fn apply(self, octet: u8) -> u8 {
        match self {
            Self::Copy => octet,
            Self::Dscp(dscp) => dscp << 2 | octet & 0b11,
            Self::Zero => 0,
        }
    }
}

/// What becomes of an IPv4 UDP datagram without a checksum. IPv6 has no such thing (RFC 8200 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroChecksum {
    /// The checksum is computed over the whole datagram. A first fragment alone cannot be helped.
    Compute,
    /// The datagram is dropped.
    Drop,
}

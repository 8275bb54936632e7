//! The parameters of translation.

/// The parameters of translation. The default is what RFC 7915 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// An IPv4 packet without DF whose translation is longer than this, in bytes, is fragmented (RFC 7915 §4: the lowest
    /// MTU of the IPv6 network). Below 1280 it counts as 1280, the least that every IPv6 link carries.
    pub lowest_ipv6_mtu: u16,
    /// What becomes of the type of service and the traffic class (RFC 7915 §4.1, §5.1).
    pub traffic_class: TrafficClass,
    /// What becomes of an IPv4 UDP datagram without a checksum (RFC 7915 §4.5).
    pub udp_zero_checksum: ZeroChecksum,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            lowest_ipv6_mtu: 1280,
            traffic_class: TrafficClass::Copy,
            udp_zero_checksum: ZeroChecksum::Compute,
        }
    }
}

/// What becomes of the type of service and the traffic class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficClass {
    /// All eight bits are copied, the ECN bits among them.
    Copy,
    /// The DSCP (the upper six bits, 0 to 63) is replaced by this; the ECN bits are copied.
    Dscp(u8),
}

impl TrafficClass {
    pub(crate) const fn apply(self, octet: u8) -> u8 {
        match self {
            Self::Copy => octet,
            Self::Dscp(dscp) => dscp << 2 | octet & 0b11,
        }
    }
}

/// What becomes of an IPv4 UDP datagram without a checksum. IPv6 has no such thing (RFC 8200 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroChecksum {
    /// The checksum is computed over the whole datagram. A first fragment cannot be helped and is dropped.
    Compute,
    /// The datagram is dropped.
    Drop,
}

//! What tells one flow from another.

/// The 5-tuple of a packet, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple<A> {
    /// Where it comes from.
    pub source: A,
    /// Where it goes.
    pub destination: A,
    /// What it carries.
    pub protocol: Protocol,
    /// The ports or the identifier.
    pub ports: Ports,
}

/// What a packet carries, alike in both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// `ICMPv4` in an IPv4 packet, `ICMPv6` in an IPv6 packet.
    Icmp,
    /// Anything else, by its protocol number (IPv4) or next header (IPv6).
    Other(u8),
}

/// What tells the flows between two hosts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Nothing that could be read: an ICMP error, a fragment behind the first, an unknown protocol.
    None,
    /// Ports (TCP, UDP, UDP-Lite, DCCP).
    Pair {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// The identifier of an echo request or reply.
    Identifier(u16),
}

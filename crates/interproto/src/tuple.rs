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

/// Which part of a datagram a fragment is (RFC 791 §3.2, RFC 8200 §4.5): what a caller needs that puts datagrams together.
/// Fragments belong together that agree in source, destination and identification, and in IPv4 in the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentPart {
    /// The number that the fragments of one datagram share; 16 bits in IPv4.
    pub identification: u32,
    /// Where this part begins in the datagram's payload, in bytes.
    pub offset: u16,
    /// Whether others follow behind it.
    pub more: bool,
    /// The length of the headers in front of the part, in bytes, the IPv6 fragment header among them. `check_reassembled` wants
    /// those of the first fragment.
    pub headers: usize,
    /// The part itself, in the caller's storage.
    pub payload: core::ops::Range<usize>,
}

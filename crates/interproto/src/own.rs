//! ICMP errors of the translator's own.

/// The hop limit of what the translator itself sends (IANA's default TTL).
pub(crate) const OWN_HOP_LIMIT: u8 = 64;

/// An `ICMPv6` error that the translator sends about a packet (RFC 4443 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmpv6Error {
    /// Destination Unreachable.
    DestinationUnreachable {
        /// RFC 4443 §3.1: 1 prohibited, 3 address unreachable, and so on.
        code: u8,
    },
    /// Packet Too Big. Its MTU is what fits the link on the IPv4 side: [`Params::ipv4_mtu`](field@crate::Params::ipv4_mtu) and 20 bytes more.
    PacketTooBig,
    /// Time Exceeded: the hop limit ran out.
    TimeExceeded,
    /// Parameter Problem, pointing at the Segments Left field of the packet's own routing header (RFC 8200 §4.4).
    RoutingHeader,
    /// Parameter Problem, code 3: the first fragment lacks a part of its headers (RFC 7112 §5).
    IncompleteHeaderChain,
}

/// An `ICMPv4` error that the translator sends about a packet (RFC 792).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmpv4Error {
    /// Destination Unreachable.
    DestinationUnreachable {
        /// RFC 792, RFC 1812 §5.2.7.1: 1 host unreachable, 5 source route failed, 13 prohibited, and so on.
        code: u8,
    },
    /// Destination Unreachable, fragmentation needed (RFC 1191 §4). Its MTU is what fits the link on the IPv6 side:
    /// [`Params::ipv6_mtu`](field@crate::Params::ipv6_mtu) less 20 bytes.
    FragmentationNeeded,
    /// Time Exceeded: the time to live ran out.
    TimeExceeded,
}

//! Why a packet cannot be translated, and what its sender is told.

use crate::{Icmpv4Error, Icmpv6Error};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $word:literal, $v6:expr, $v4:expr;)+) => {
        /// Why a packet cannot be translated.
        ///
        /// This is the one table: the reason, its word for metrics and logs, and the ICMP error that a sender on the IPv6
        /// side and one on the IPv4 side is told, or none.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name,)+ }

        impl DropReason {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in metrics and logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The `ICMPv6` error that a sender on the IPv6 side is told, or `None`: silent.
            pub const fn answer_v6(self) -> Option<Icmpv6Error> {
                match self { $(Self::$name => $v6,)+ }
            }

            /// The `ICMPv4` error that a sender on the IPv4 side is told, or `None`: silent.
            pub const fn answer_v4(self) -> Option<Icmpv4Error> {
                match self { $(Self::$name => $v4,)+ }
            }
        }
    };
}

reasons! {
    /// The caller left less than [`crate::HEADROOM`] before the packet, or named bytes that are not there.
    NoHeadroom => "no_headroom", None, None;
    /// Shorter than its header says.
    Truncated => "truncated", None, None;
    /// A version, header length, total length or extension header that cannot be (RFC 791 §3.1, RFC 8200 §3, §4), or a
    /// fragment that cannot be part of any datagram (§4.5).
    MalformedHeader => "malformed_header", None, None;
    /// The IPv4 header's checksum is wrong (RFC 1812 §5.2.2).
    BadIpv4Checksum => "bad_ipv4_checksum", None, None;
    /// IPv4 options that cannot be: a length of 0 or 1, or past the header (RFC 1812 §5.2.4).
    MalformedOptions => "malformed_options", None, None;
    /// An IPv4 source route with hops left (RFC 7915 §4.1): Destination Unreachable, source route failed.
    SourceRoute => "source_route", None, Some(Icmpv4Error::DestinationUnreachable { code: 5 });
    /// An IPv6 routing header with segments left (RFC 7915 §5.1): Parameter Problem at that field.
    SegmentsLeft => "segments_left", Some(Icmpv6Error::RoutingHeader), None;
    /// More IPv6 extension headers than anything sensible has.
    TooManyExtensionHeaders => "too_many_extension_headers", None, None;
    /// An extension header behind a fragment header (RFC 7915 §5.1.1): it cannot be taken out of the fragments.
    ExtensionAfterFragment => "extension_after_fragment", None, None;
    /// A first fragment without its whole transport header (RFC 7112 §5).
    FirstFragmentTooShort => "first_fragment_too_short", None, None;
    /// A fragment of an ICMP message (RFC 7915 §1.2): its checksum covers all of them.
    FragmentedIcmp => "fragmented_icmp", None, None;
    /// IPv4 protocols 0, 43, 44, 58, 60 and IPv6 next header 1: on the other side they would be extension headers or ICMP of
    /// an outsider's making. (A departure from RFC 7915 §4.1 and §5.1, which copy the number.)
    ForbiddenProtocol => "forbidden_protocol", None, None;
    /// A transport header that cannot be: too short, or a length that is not there.
    MalformedTransport => "malformed_transport", None, None;
    /// IPv6 UDP without a checksum (RFC 8200 §8.1).
    UdpZeroChecksumV6 => "udp_zero_checksum_v6", None, None;
    /// IPv4 UDP without a checksum, and the parameters say that it is dropped (RFC 7915 §4.5).
    UdpZeroChecksum => "udp_zero_checksum", None, None;
    /// A first fragment of IPv4 UDP without a checksum (RFC 7915 §4.5): it cannot be computed.
    UdpZeroChecksumFragment => "udp_zero_checksum_fragment", None, None;
    /// An ICMP error whose checksum is wrong (RFC 5508 REQ-3).
    BadIcmpChecksum => "bad_icmp_checksum", None, None;
    /// An ICMP type or code without a counterpart (RFC 7915 §4.2, §5.2).
    IcmpNotTranslatable => "icmp_not_translatable", None, None;
    /// A Parameter Problem that points at something without a counterpart (RFC 7915 §4.2, §5.2).
    PointerNotTranslatable => "pointer_not_translatable", None, None;
    /// The packet inside an ICMP error is cut off before its ports, or is no packet.
    EmbeddedMalformed => "embedded_malformed", None, None;
    /// The packet inside an ICMP error is one that would never have been translated: an error inside an error (RFC 7915
    /// §4.3, §5.3), another ICMP message, a forbidden protocol.
    EmbeddedNotTranslatable => "embedded_not_translatable", None, None;
    /// The hop limit or time to live ran out (RFC 7915 §4.1, §5.1: the translator is a router).
    HopLimitExceeded => "hop_limit_exceeded", Some(Icmpv6Error::TimeExceeded), Some(Icmpv4Error::TimeExceeded);
    /// Longer than an IPv4 packet can be, or a fragment of an IPv6 datagram that is.
    TooLong => "too_long", Some(Icmpv6Error::PacketTooBig { mtu: 65_555 }), None;
}

impl core::error::Error for DropReason {}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

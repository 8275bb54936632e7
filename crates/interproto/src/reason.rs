//! Why a packet cannot be translated, and what its sender is told.

use crate::{Icmpv4Error, Icmpv6Error};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $word:literal, $clause:literal, $v6:expr, $v4:expr;)+) => {
        /// Why a packet cannot be translated.
        ///
        /// This is the one table: the reason, its word for metrics and logs, the clause that asks for it, and the ICMP error
        /// that a sender on the IPv6 side and one on the IPv4 side is told, or none. What is well-formed and not translated
        /// is answered as RFC 7915 §4.4 and §5.4 say unless another clause says otherwise; what is malformed, and whatever
        /// concerns an ICMP error, is dropped in silence.
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

            /// The RFC and section that ask for it.
            pub const fn clause(self) -> &'static str {
                match self { $(Self::$name => $clause,)+ }
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

/// RFC 7915 §5.4: communication with the destination is administratively prohibited.
const PROHIBITED_V6: Option<Icmpv6Error> = Some(Icmpv6Error::DestinationUnreachable { code: 1 });
/// RFC 7915 §4.4: communication is administratively prohibited.
const PROHIBITED_V4: Option<Icmpv4Error> = Some(Icmpv4Error::DestinationUnreachable { code: 13 });

reasons! {
    /// The caller left less than [`crate::HEADROOM`] before the packet, or named bytes that are not there. No RFC: a mistake
    /// of the caller.
    NoHeadroom => "no_headroom", "none", None, None;
    /// Shorter than its header says (RFC 1812 §5.2.2, RFC 8200 §3).
    Truncated => "truncated", "RFC 1812 §5.2.2, RFC 8200 §3", None, None;
    /// A version, header length, total length or extension header that cannot be (RFC 791 §3.1, RFC 8200 §3, §4), or a
    /// fragment that cannot be part of any datagram (RFC 8200 §4.5).
    MalformedHeader => "malformed_header", "RFC 1812 §5.2.2, RFC 8200 §4.5", None, None;
    /// The IPv4 header's checksum is wrong (RFC 1812 §5.2.2).
    BadIpv4Checksum => "bad_ipv4_checksum", "RFC 1812 §5.2.2", None, None;
    /// IPv4 options that cannot be: a length of 0 or 1, or past the header (RFC 1812 §5.2.4).
    MalformedOptions => "malformed_options", "RFC 1812 §5.2.4", None, None;
    /// An offload description that does not fit its packet (virtio 1.2 §5.1.6.2): a checksum start or offset elsewhere, a
    /// segmentation of another protocol, a segment size of zero, or a fragment.
    BadOffload => "bad_offload", "virtio 1.2 §5.1.6.2", None, None;
    /// An IPv4 source route with hops left (RFC 7915 §4.1): Destination Unreachable, source route failed.
    SourceRoute => "source_route", "RFC 7915 §4.1",
        None, Some(Icmpv4Error::DestinationUnreachable { code: 5 });
    /// An IPv6 routing header with segments left (RFC 7915 §5.1): Parameter Problem at that field.
    SegmentsLeft => "segments_left", "RFC 7915 §5.1", Some(Icmpv6Error::RoutingHeader), None;
    /// More IPv6 extension headers than anything sensible has (RFC 8504 §5.3 lets a node limit them). Silent, since what
    /// they carry may be an ICMP error.
    TooManyExtensionHeaders => "too_many_extension_headers", "RFC 8504 §5.3", None, None;
    /// An extension header behind a fragment header (RFC 7915 §5.1.1): it cannot be taken out of the fragments. Silent,
    /// since what it carries may be an ICMP error.
    ExtensionAfterFragment => "extension_after_fragment", "RFC 7915 §5.1.1", None, None;
    /// A first fragment without its whole transport header (RFC 7112 §5).
    FirstFragmentTooShort => "first_fragment_too_short", "RFC 7112 §5, RFC 7915 §4.4",
        Some(Icmpv6Error::IncompleteHeaderChain), PROHIBITED_V4;
    /// A fragment of an ICMP message (RFC 7915 §1.2): its checksum covers all of them. [`crate::Verdict::Hold`]: the whole
    /// message can be translated.
    FragmentedIcmp => "fragmented_icmp", "RFC 7915 §1.2, §4.4, §5.4", PROHIBITED_V6, PROHIBITED_V4;
    /// IPv4 protocols 0, 43, 44, 58, 60 and IPv6 next header 1: on the other side they would be extension headers or ICMP of
    /// an outsider's making. (A departure from RFC 7915 §4.1 and §5.1, which copy the number.)
    ForbiddenProtocol => "forbidden_protocol", "RFC 7915 §4.1, §4.4, §5.1, §5.4", PROHIBITED_V6, PROHIBITED_V4;
    /// A transport header that cannot be: too short, or a length that is not there (RFC 768, RFC 3828 §3.1, RFC 4340 §5.1,
    /// RFC 9293 §3.1).
    MalformedTransport => "malformed_transport", "RFC 768, RFC 9293 §3.1", None, None;
    /// IPv6 UDP without a checksum (RFC 8200 §8.1).
    UdpZeroChecksumV6 => "udp_zero_checksum_v6", "RFC 8200 §8.1", None, None;
    /// IPv4 UDP without a checksum, and the parameters say that it is dropped (RFC 7915 §4.5).
    UdpZeroChecksum => "udp_zero_checksum", "RFC 7915 §4.5, §4.4", None, PROHIBITED_V4;
    /// A first fragment of IPv4 UDP without a checksum (RFC 7915 §4.5): it cannot be computed. [`crate::Verdict::Hold`]: that of
    /// the whole datagram can.
    UdpZeroChecksumFragment => "udp_zero_checksum_fragment", "RFC 7915 §4.5, §4.4", None, PROHIBITED_V4;
    /// An ICMP error whose checksum is wrong (RFC 5508 REQ-3).
    BadIcmpChecksum => "bad_icmp_checksum", "RFC 5508 REQ-3", None, None;
    /// An ICMP type or code without a counterpart, or IGMP: to be dropped in silence (RFC 7915 §4.2, §5.2).
    IcmpNotTranslatable => "icmp_not_translatable", "RFC 7915 §4.2, §5.2", None, None;
    /// A Parameter Problem that points at something without a counterpart (RFC 7915 §4.2, §5.2).
    PointerNotTranslatable => "pointer_not_translatable", "RFC 7915 §4.2, §5.2", None, None;
    /// The packet inside an ICMP error is cut off before its ports, or is no packet (RFC 792, RFC 7915 §4.3, §5.3).
    EmbeddedMalformed => "embedded_malformed", "RFC 7915 §4.3, §5.3", None, None;
    /// The packet inside an ICMP error is one that would never have been translated: an error inside an error (RFC 7915
    /// §4.3, §5.3), another ICMP message, a forbidden protocol.
    EmbeddedNotTranslatable => "embedded_not_translatable", "RFC 7915 §4.3, §5.3", None, None;
    /// The hop limit or time to live ran out (RFC 7915 §4.1, §5.1: the translator is a router).
    HopLimitExceeded => "hop_limit_exceeded", "RFC 7915 §4.1, §5.1",
        Some(Icmpv6Error::TimeExceeded), Some(Icmpv4Error::TimeExceeded);
    /// Its translation is longer than the next link carries, and must not be fragmented (RFC 7915 §4.1, §5.1).
    TooBig => "too_big", "RFC 7915 §4.1, §5.1",
        Some(Icmpv6Error::PacketTooBig), Some(Icmpv4Error::FragmentationNeeded);
    /// A super-packet of IPv6 that is longer than one of IPv4 can be (RFC 791 §3.1), whose segments are not too long. Silent: no size
    /// that its sender could be told has to do with it. What is sent again comes in shorter ones.
    SuperPacketTooLong => "super_packet_too_long", "RFC 791 §3.1", None, None;
    /// A fragment of an IPv6 datagram that is longer than an IPv4 datagram can be (RFC 791 §3.1).
    DatagramTooLong => "datagram_too_long", "RFC 791 §3.1, RFC 7915 §5.4", PROHIBITED_V6, None;
}

impl DropReason {
    /// Whether the whole datagram could be translated where this fragment cannot.
    pub(crate) const fn wants_the_datagram(self) -> bool {
        matches!(self, Self::FragmentedIcmp | Self::UdpZeroChecksumFragment)
    }

    /// Whether the packet is well-formed, so that its sender may be told: the door lets it in, and translation refuses it.
    pub(crate) const fn is_refusal(self) -> bool {
        matches!(self, Self::ForbiddenProtocol | Self::FirstFragmentTooShort | Self::FragmentedIcmp)
    }
}

impl core::error::Error for DropReason {}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

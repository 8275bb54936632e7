//! IPv6 packets, and their translation to IPv4 (RFC 7915 §5).

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use crate::bytes::{put, put_u16, u16_at};
use crate::checksum::{Sum, addresses, pseudo_v6};
use crate::headers::{FRAGMENT, ICMP, IPV4, IPV6, Ipv4Header, Ipv6Header};
use crate::icmp::quote::{Room, embedded_reason, extensions, quote_end, read_head};
use crate::icmp::{Head, LONGEST_ICMPV4_ERROR, LONGEST_ICMPV6_ERROR, Quoted, v4, v6};
use crate::mss;
use crate::offload::{Family, Offload};
use crate::own::OWN_HOP_LIMIT;
use crate::packets::{Packets, Verdict, frame};
use crate::params::LEAST_IPV6_MTU;
use crate::parse::{
    ICMPV4, ICMPV6, Parsed, UDP, Upper, What, fragment_header_at, in_place, parse_v6, plain, segments_left_at,
};
use crate::upper::{Pseudo, Way, rewrite, rewrite_ported};
use crate::{DropReason, FragmentPart, HEADROOM, Icmpv6Error, Params, Rewrite, Tuple, VirtioNetHdr};

/// An IPv4 packet up to this length leaves with DF clear: the IPv6 packet was at most 1280 bytes long, which its sender need
/// not expect to be too long for anybody (RFC 7915 §5.1).
const LONGEST_WITHOUT_DF: usize = 1260;

/// An IPv6 packet that was checked and can be translated to IPv4.
#[derive(Debug)]
pub struct Ipv6Packet<'a> {
    storage: &'a mut [u8],
    packet: Parsed<Ipv6Addr>,
    embedded: Option<Parsed<Ipv6Addr>>,
    offload: Offload,
    /// It was read by the short way, and can be translated by it.
    is_plain: bool,
}

impl<'a> Ipv6Packet<'a> {
    /// Checks the packet at `packet` of `storage`, in front of which [`HEADROOM`] bytes are free.
    #[inline(always)]
    pub fn check(storage: &'a mut [u8], packet: Range<usize>) -> Result<Self, DropReason> {
        in_place(storage, &packet)?;
        if let Some(packet) = plain::parse_v6(storage, &packet) {
            return Ok(Self { storage, packet, embedded: None, offload: Offload::NONE, is_plain: true });
        }
        // Field by field: what is written to memory as a whole stays there for the short way too.
        let Self { storage, packet, embedded, offload, .. } = Self::check_any(storage, packet)?;
        Ok(Self { storage, packet, embedded, offload, is_plain: false })
    }

    /// The general way.
    #[inline(never)]
    fn check_any(storage: &'a mut [u8], packet: Range<usize>) -> Result<Self, DropReason> {
        let parsed = Self::parse(storage, packet)?;
        Self::finish(storage, parsed, Offload::NONE)
    }

    /// The same for a packet that the kernel hands over unfinished: with a partial checksum, or as a super-packet that it
    /// will cut into segments. What is said of the packet must fit it. An ordinary packet costs no more than by [`Self::check`].
    #[inline(always)]
    pub fn check_offloaded(
        storage: &'a mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
    ) -> Result<Self, DropReason> {
        in_place(storage, &packet)?;
        if let Some(packet) = plain::parse_v6(storage, &packet)
            && let Upper::Ported { checksum_at, .. } = packet.upper
            && let Some(offload) = Offload::plain(offload, IPV6, checksum_at)
        {
            return Ok(Self { storage, packet, embedded: None, offload, is_plain: true });
        }
        let Self { storage, packet, embedded, offload, .. } =
            Self::check_any_offloaded(storage, packet, offload)?;
        Ok(Self { storage, packet, embedded, offload, is_plain: false })
    }

    /// The general way.
    #[inline(never)]
    fn check_any_offloaded(
        storage: &'a mut [u8],
        packet: Range<usize>,
        offload: &VirtioNetHdr,
    ) -> Result<Self, DropReason> {
        let parsed = Self::parse(storage, packet)?;
        let upper = storage.get(parsed.upper_at..parsed.end).unwrap_or_default();
        let offload = Offload::check(offload, &parsed, upper, Family::V6)?;
        Self::finish(storage, parsed, offload)
    }

    /// The same for a datagram that was put together from fragments: the headers of the first one, its fragment header
    /// among them, and behind them the whole payload. Payload length, offset and M bit are still the first fragment's, and
    /// are set right here, which changes the packet. The identification stays, for the IPv4 packet that comes out.
    pub fn check_reassembled(storage: &'a mut [u8], packet: Range<usize>) -> Result<Self, DropReason> {
        in_place(storage, &packet)?;
        let length = packet.len().checked_sub(IPV6).and_then(|length| u16::try_from(length).ok());
        let length = length.ok_or(DropReason::MalformedHeader)?;
        put_u16(storage, packet.start + 4, length);
        if let Some(at) = storage.get(packet.clone()).and_then(fragment_header_at)
            && at + FRAGMENT <= packet.len()
        {
            put_u16(storage, packet.start + at + 2, 0);
        }
        Self::check(storage, packet)
    }

    fn parse(storage: &[u8], packet: Range<usize>) -> Result<Parsed<Ipv6Addr>, DropReason> {
        in_place(storage, &packet)?;
        parse_v6(storage, packet, What::Packet)
    }

    fn finish(storage: &'a mut [u8], packet: Parsed<Ipv6Addr>, offload: Offload) -> Result<Self, DropReason> {
        let embedded = match packet.upper {
            Upper::Error => Some(check_error(storage, &{ packet }, offload)?),
            _ => None,
        };
        let udp = packet.protocol == UDP && matches!(packet.upper, Upper::Ported { .. });
        if udp && !offload.partial && u16_at(storage, packet.upper_at + 6) == Some(0) {
            return Err(DropReason::UdpZeroChecksumV6);
        }
        Ok(Self { storage, packet, embedded, offload, is_plain: false })
    }

    /// Who talks to whom.
    #[inline]
    pub fn tuple(&self) -> Tuple<Ipv6Addr> {
        self.packet.tuple(ICMPV6)
    }

    /// The same of the packet inside an ICMP error. It went the other way.
    #[inline]
    pub fn embedded(&self) -> Option<Tuple<Ipv6Addr>> {
        self.embedded.map(|embedded| embedded.tuple(ICMPV6))
    }

    /// Which part of which datagram this is, if it is a fragment.
    #[inline]
    pub fn fragment(&self) -> Option<FragmentPart> {
        self.packet.fragment_part()
    }

    /// The packet itself, as it came.
    pub fn bytes(&self) -> &[u8] {
        self.storage.get(self.packet.start..self.packet.end).unwrap_or_default()
    }

    /// The flags of a TCP header, its 14th byte (RFC 9293 §3.1); 0 if there is none.
    #[inline]
    pub fn tcp_flags(&self) -> u8 {
        self.packet.tcp_flags(self.storage)
    }

    /// Whether this is a whole echo request.
    pub fn is_echo_request(&self) -> bool {
        self.packet.is_echo_request()
    }

    /// How many packets this is on the wire: more than one if it is a super-packet.
    #[inline]
    pub fn segments(&self) -> usize {
        self.offload.count(self.packet.upper_length)
    }

    /// The lengths of these packets together, in bytes: the packet's own length where it is one.
    #[inline]
    pub fn wire_length(&self) -> usize {
        let Parsed { start, upper_at, upper_length, .. } = self.packet;
        self.offload.wire_length(upper_at - start, upper_length)
    }

    /// Lowers the maximum segment size that a TCP SYN announces to at most `most` bytes of payload (RFC 9293 §3.7.1), for links on the
    /// way whose ICMP errors get lost. Whether that changed the packet.
    ///
    /// It is never raised, and a SYN without this option stays one: it stands for 536 bytes over IPv4 and 1220 over IPv6. What
    /// is a fragment or an error, and a SYN whose options are malformed, stays as it is. The checksum is updated (RFC 1624), but for
    /// a partial one, which covers no options. Meant for packets that are translated next: an error would quote the change.
    #[inline]
    pub fn clamp_mss(&mut self, most: u16) -> bool {
        mss::clamp(self.storage, &self.packet, self.offload.partial, most)
    }

    /// Why translation will refuse this packet, as far as its form alone decides it: to be asked before it costs a binding.
    #[inline]
    pub fn refusal(&self) -> Option<DropReason> {
        self.packet.refusal.or((self.packet.hop_limit <= 1).then_some(DropReason::HopLimitExceeded))
    }

    /// Translates to IPv4, in place. Where this does not answer [`Verdict::Forward`], nothing was changed.
    ///
    /// `identifications` is asked, once, for a packet that leaves without DF and brought no identification of its own, and for no
    /// other: for so many numbers that follow each other, one for each segment of a super-packet ([`Self::segments`]), which
    /// the caller does not use again soon between the same two hosts (RFC 6864 §4). It answers with the first of them.
    ///
    /// DF of a super-packet is decided by the length of its first segment (RFC 7915 §5.1), for the last and shorter one too. One with more
    /// than 65,515 bytes behind the IPv6 headers, which no Linux device hands over unless it was told to
    /// (`gso_max_size`), is dropped: nothing is cut this way.
    #[inline(always)]
    pub fn translate(
        &mut self,
        rewrite_to: &Rewrite<Ipv4Addr>,
        identifications: impl FnOnce(usize) -> u16,
        params: &Params,
    ) -> Verdict<'_> {
        let packet = &self.packet;
        let length = IPV4 + packet.upper_length;
        let dont_fragment = length > LONGEST_WITHOUT_DF;
        if !self.is_plain || (dont_fragment && length > params.ipv4_mtu() as usize) {
            // By value: what is in registers need not be in memory for the short way's sake.
            let Self { packet, embedded, offload, .. } = *self;
            let general = Ipv6Packet { storage: self.storage, packet, embedded, offload, is_plain: false };
            return general.translate_any(rewrite_to, identifications, params);
        }
        let (upper_at, end) = (packet.upper_at, packet.end);
        let mut offload = VirtioNetHdr::default();
        if let (Upper::Ported { checksum_at, never_zero }, Some(bytes)) =
            (packet.upper, self.storage.get_mut(upper_at..end))
        {
            let new = addresses(rewrite_to.source, rewrite_to.destination);
            let change = new.minus(addresses(packet.source, packet.destination));
            let ports = rewrite_to.ports;
            rewrite_ported(bytes, checksum_at, never_zero, ports, change, self.offload.partial);
            offload = self.offload.describe_plain(IPV4, checksum_at);
        }
        let header = Ipv4Header {
            tos: params.traffic_class.apply(packet.traffic_class),
            // No longer than an IPv4 packet can be: DF would be set, and the MTU at most that.
            total_length: length as u16,
            // A plain packet is one on the wire.
            identification: if dont_fragment { 0 } else { identifications(1) },
            dont_fragment,
            more_fragments: false,
            fragment_offset: 0,
            ttl: packet.hop_limit - 1,
            protocol: packet.protocol,
            source: rewrite_to.source,
            destination: rewrite_to.destination,
        };
        let start = upper_at - IPV4;
        header.write(self.storage, start);
        Verdict::Forward(Packets::one(self.storage, start, end, offload))
    }

    /// The general way.
    #[inline(never)]
    fn translate_any(
        mut self,
        rewrite_to: &Rewrite<Ipv4Addr>,
        identifications: impl FnOnce(usize) -> u16,
        params: &Params,
    ) -> Verdict<'a> {
        match self.try_translate(rewrite_to, identifications, params) {
            Ok((start, end)) => {
                let Parsed { upper, protocol, .. } = self.packet;
                let offload = match self.embedded {
                    // An error has a new checksum.
                    Some(_) => VirtioNetHdr::default(),
                    None => self.offload.describe(IPV4, upper, protocol, Family::V4),
                };
                Verdict::Forward(Packets::one(self.storage, start, end, offload))
            }
            Err(reason) => Verdict::of(reason, reason.answer_v6().is_some() && self.may_be_answered()),
        }
    }

    fn try_translate(
        &mut self,
        rewrite_to: &Rewrite<Ipv4Addr>,
        identifications: impl FnOnce(usize) -> u16,
        params: &Params,
    ) -> Result<(usize, usize), DropReason> {
        let packet = self.packet;
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let (upper_at, end) = match self.embedded {
            Some(embedded) => {
                translate_error(self.storage, packet.upper_at, packet.end, &embedded, rewrite_to, params)?
            }
            None => (packet.upper_at, packet.end),
        };
        let length = end - upper_at;
        let first = IPV4 + self.offload.first(length);
        let header = ipv4_header(&packet, length, first)?;
        if header.dont_fragment && first > params.ipv4_mtu() as usize {
            return Err(DropReason::TooBig);
        }
        u16::try_from(IPV4 + length).map_err(|_| DropReason::SuperPacketTooLong)?;
        let identification = match packet.fragment {
            None if !header.dont_fragment => identifications(self.segments()),
            _ => header.identification,
        };
        if self.embedded.is_none() {
            let pseudo = pseudo(&packet, rewrite_to.source, rewrite_to.destination, self.offload.partial);
            let bytes = self.storage.get_mut(upper_at..end).unwrap_or_default();
            rewrite(bytes, packet.upper, rewrite_to.ports, pseudo, Way::SixToFour);
        }
        let header = Ipv4Header {
            tos: params.traffic_class.apply(packet.traffic_class),
            identification,
            ttl: packet.hop_limit - 1,
            source: rewrite_to.source,
            destination: rewrite_to.destination,
            ..header
        };
        let start = upper_at - IPV4;
        header.write(self.storage, start);
        Ok((start, end))
    }

    /// Whether an RFC lets the sender be told about this packet (RFC 4443 §2.4 (e)): it is no error, not to a multicast
    /// group, and from an address that is a single host's.
    #[inline]
    pub fn may_be_answered(&self) -> bool {
        let Parsed { source: sender, destination, .. } = self.packet;
        let nobody = sender.is_unspecified() || sender.is_multicast() || sender.is_loopback();
        !self.packet.quiet && !nobody && !destination.is_multicast()
    }

    /// The `ICMPv6` error with which the sender is told of this reason, by the one table. See [`Self::error`].
    #[inline]
    pub fn answer(self, reason: DropReason, source: Ipv6Addr, params: &Params) -> Option<&'a [u8]> {
        self.error(reason.answer_v6()?, source, params)
    }

    /// The same as a frame. See [`Self::error_framed`].
    #[inline]
    pub fn answer_framed(self, reason: DropReason, source: Ipv6Addr, params: &Params) -> Option<&'a [u8]> {
        self.error_framed(reason.answer_v6()?, source, params)
    }

    /// An `ICMPv6` error about this packet, for its sender, or `None` where none may be sent (RFC 4443 §2.4 (e)): about
    /// an error, to a multicast group, from an address that is no single host's.
    ///
    /// The packet itself stays as it is, and is quoted as far as 1280 bytes allow; of a super-packet the first segment is
    /// quoted. Not to be called after [`Self::translate`] has answered [`Verdict::Forward`].
    #[cold]
    pub fn error(mut self, error: Icmpv6Error, source: Ipv6Addr, params: &Params) -> Option<&'a [u8]> {
        let range = self.make_error(error, source, params)?;
        self.storage.get(range)
    }

    /// The same as a TUN device with `IFF_VNET_HDR` takes it: behind [`VirtioNetHdr::LENGTH`] bytes that say nothing, since the
    /// error is whole. See [`Packets::next_framed`].
    #[cold]
    pub fn error_framed(mut self, error: Icmpv6Error, source: Ipv6Addr, params: &Params) -> Option<&'a [u8]> {
        let range = self.make_error(error, source, params)?;
        frame(self.storage, range, VirtioNetHdr::default())
    }

    /// Writes the error into the packet's storage, and says where it lies.
    fn make_error(&mut self, error: Icmpv6Error, source: Ipv6Addr, params: &Params) -> Option<Range<usize>> {
        if !self.may_be_answered() {
            return None;
        }
        let sender = self.packet.source;
        let quote = self.packet.start;
        let end = self.first_segment_end().min(quote + LONGEST_ICMPV6_ERROR - IPV6 - ICMP);
        let head = match error {
            Icmpv6Error::DestinationUnreachable { code } => Head::new(v6::UNREACHABLE, code),
            Icmpv6Error::PacketTooBig => {
                let headers = if self.packet.fragment.is_some() { IPV6 + FRAGMENT } else { IPV6 };
                let mtu = (params.ipv4_mtu() + (headers - IPV4) as u32).max(u32::from(LEAST_IPV6_MTU));
                Head { rest: mtu, ..Head::new(v6::PACKET_TOO_BIG, 0) }
            }
            Icmpv6Error::TimeExceeded => Head::new(v6::TIME_EXCEEDED, 0),
            Icmpv6Error::IncompleteHeaderChain => Head::new(v6::PARAMETER_PROBLEM, 3),
            Icmpv6Error::RoutingHeader => {
                let pointer = segments_left_at(self.storage.get(quote..self.packet.end)?)?;
                Head { rest: u32::try_from(pointer).ok()?, ..Head::new(v6::PARAMETER_PROBLEM, 0) }
            }
        };
        let start = write_error(self.storage, quote, end, head, source, sender)?;
        Some(start..end)
    }

    /// The reply to an echo request that was sent to the router itself (RFC 4443 §4.2), in the packet's place: without its
    /// extension headers. `None`: it is none, its checksum is wrong, or no reply may be sent to its source.
    #[cold]
    pub fn echo_reply(mut self) -> Option<&'a [u8]> {
        let range = self.make_echo_reply()?;
        self.storage.get(range)
    }

    /// The same as a frame. See [`Self::error_framed`].
    #[cold]
    pub fn echo_reply_framed(mut self) -> Option<&'a [u8]> {
        let range = self.make_echo_reply()?;
        frame(self.storage, range, VirtioNetHdr::default())
    }

    /// Writes the reply into the packet's storage, and says where it lies.
    fn make_echo_reply(&mut self) -> Option<Range<usize>> {
        if !self.is_echo_request() || !self.may_be_answered() || self.offload.partial {
            return None;
        }
        let Parsed { upper_at, end, source, destination, traffic_class, .. } = self.packet;
        let length = end - upper_at;
        let pseudo = pseudo_v6(destination, source, length, ICMPV6);
        if pseudo.plus(Sum::of(self.storage.get(upper_at..end)?)).checksum() != 0 {
            return None;
        }
        put(self.storage, upper_at, [v6::ECHO_REPLY, 0, 0, 0]);
        let checksum = pseudo.plus(Sum::of(self.storage.get(upper_at..end)?)).checksum();
        put_u16(self.storage, upper_at + 2, checksum);
        let start = upper_at - IPV6;
        let header = Ipv6Header {
            traffic_class,
            payload_length: length,
            next_header: ICMPV6,
            hop_limit: OWN_HOP_LIMIT,
            source: &destination,
            destination: &source,
            fragment: None,
        };
        header.write(self.storage, start);
        Some(start..end)
    }

    /// Where the first segment ends. Its headers get the lengths that they have on the wire.
    fn first_segment_end(&mut self) -> usize {
        let Parsed { start, upper_at, end, upper_length, protocol, .. } = self.packet;
        if self.offload.segments.is_none() {
            return end;
        }
        let first = self.offload.first(upper_length);
        put_u16(self.storage, start + 4, (upper_at - start - IPV6 + first) as u16);
        if protocol == UDP {
            put_u16(self.storage, upper_at + 4, first as u16);
        }
        upper_at + first
    }
}

/// Translates the packet inside an error, and puts an `ICMPv4` header in front of it. `icmp` is where its old one
/// lies. Returns where the new one begins and where the packet ends.
#[cold]
fn translate_error(
    storage: &mut [u8],
    icmp: usize,
    packet_end: usize,
    embedded: &Parsed<Ipv6Addr>,
    rewrite_to: &Rewrite<Ipv4Addr>,
    params: &Params,
) -> Result<(usize, usize), DropReason> {
    let inner = rewrite_to.embedded.ok_or(DropReason::EmbeddedNotTranslatable)?;
    let old_head = read_head(storage, icmp)?;
    let quoted =
        Quoted { total_length: IPV6 + embedded.upper_length, fragment_header: embedded.fragment.is_some() };
    let head = v6::to_v4(old_head, quoted, params)?;
    let length = embedded.upper_length;
    let header = ipv4_header(embedded, length, IPV4 + length).map_err(embedded_reason)?;

    let quote = icmp + ICMP;
    let extensions = extensions(quote, packet_end, v6::quote_length(old_head));
    let room = Room { most: LONGEST_ICMPV4_ERROR - IPV4 - ICMP, header: IPV4, unit: v4::LENGTH_UNIT };
    let kept = room.lay_out(storage, embedded.upper_at..embedded.end, extensions);
    let pseudo = pseudo(embedded, inner.source, inner.destination, false);
    let bytes = storage.get_mut(kept.upper_at..kept.quote_end).unwrap_or_default();
    rewrite(bytes, embedded.upper, inner.ports, pseudo, Way::SixToFour);
    let header = Ipv4Header {
        tos: embedded.traffic_class,
        ttl: embedded.hop_limit,
        source: inner.source,
        destination: inner.destination,
        ..header
    };
    header.write(storage, kept.upper_at - IPV4);
    let icmp_at = kept.upper_at - IPV4 - ICMP;
    put(storage, icmp_at, v4::with_quote_length(head, kept.length).bytes());
    let checksum = Sum::of(storage.get(icmp_at..kept.end).unwrap_or_default()).checksum();
    put_u16(storage, icmp_at + 2, checksum);
    Ok((icmp_at, kept.end))
}

/// An ICMP error is translated only if its checksum is right: the translation gets a new one (RFC 5508 REQ-3). A partial one
/// is still to be made by the kernel, whose own error it is.
#[inline(never)]
fn check_error(
    storage: &[u8],
    packet: &Parsed<Ipv6Addr>,
    offload: Offload,
) -> Result<Parsed<Ipv6Addr>, DropReason> {
    let bytes = storage.get(packet.upper_at..packet.end).ok_or(DropReason::Truncated)?;
    let Parsed { source, destination, .. } = *packet;
    let sum = pseudo_v6(source, destination, bytes.len(), ICMPV6).plus(Sum::of(bytes));
    if !offload.partial && sum.checksum() != 0 {
        return Err(DropReason::BadIcmpChecksum);
    }
    let quote = packet.upper_at + ICMP;
    let end = quote_end(quote, packet.end, v6::quote_length(read_head(storage, packet.upper_at)?));
    parse_v6(storage, quote..end, What::Quote).map_err(embedded_reason)
}

/// The IPv4 header of a packet with this many bytes behind it (RFC 7915 §5.1, §5.1.1); TOS, TTL and addresses are for the
/// caller, and the identification of a packet that leaves without DF and brought none. `on_the_wire` is its length, or that of a
/// super-packet's first segment: whether the whole of it is too long is for the caller too.
#[inline(always)]
fn ipv4_header(
    packet: &Parsed<Ipv6Addr>,
    upper_length: usize,
    on_the_wire: usize,
) -> Result<Ipv4Header, DropReason> {
    u16::try_from(on_the_wire).map_err(|_| DropReason::TooBig)?;
    // An IPv6 datagram in fragments can be 20 bytes longer than the IPv4 one that its fragments must make up again.
    let datagram = IPV4 + packet.fragment.map_or(0, |fragment| fragment.reach(upper_length));
    u16::try_from(datagram).map_err(|_| DropReason::DatagramTooLong)?;
    let header = Ipv4Header {
        tos: 0,
        total_length: (IPV4 + upper_length) as u16,
        identification: 0,
        dont_fragment: false,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 0,
        protocol: if packet.protocol == ICMPV6 { ICMPV4 } else { packet.protocol },
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::UNSPECIFIED,
    };
    Ok(match packet.fragment {
        Some(fragment) => Ipv4Header {
            identification: fragment.identification as u16,
            more_fragments: fragment.more,
            fragment_offset: fragment.offset,
            ..header
        },
        None => Ipv4Header { dont_fragment: on_the_wire > LONGEST_WITHOUT_DF, ..header },
    })
}

/// Writes an IPv6 header and an `ICMPv6` header in front of the bytes from `quote` to `end`. Returns where it begins.
fn write_error(
    storage: &mut [u8],
    quote: usize,
    end: usize,
    head: Head,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Option<usize> {
    let icmp_at = quote.checked_sub(ICMP)?;
    let start = icmp_at.checked_sub(IPV6)?;
    v6::write(storage, icmp_at, end, head, source, destination);
    let header = Ipv6Header {
        traffic_class: 0,
        payload_length: end - icmp_at,
        next_header: ICMPV6,
        hop_limit: OWN_HOP_LIMIT,
        source: &source,
        destination: &destination,
        fragment: None,
    };
    header.write(storage, start);
    Some(start)
}

#[inline(always)]
fn pseudo(packet: &Parsed<Ipv6Addr>, source: Ipv4Addr, destination: Ipv4Addr, partial: bool) -> Pseudo {
    let Parsed { source: old_source, destination: old_destination, .. } = *packet;
    let echo = match packet.upper {
        Upper::Echo { .. } => pseudo_v6(old_source, old_destination, packet.upper_length, ICMPV6),
        _ => Sum::default(),
    };
    Pseudo {
        ported: [addresses(old_source, old_destination), addresses(source, destination)],
        echo: [echo, Sum::default()],
        partial,
    }
}

// The worst case of growth to the front is the other way; this way every header shrinks.
const _: () = assert!(IPV4 < IPV6 && FRAGMENT > 0 && HEADROOM >= IPV6 + ICMP + VirtioNetHdr::LENGTH);

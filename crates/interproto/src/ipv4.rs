//! IPv4 packets, and their translation to IPv6 (RFC 7915 §4).

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use crate::bytes::{put, put_u16, u16_at};
use crate::checksum::{Sum, addresses, as_sent, pseudo_v6};
use crate::headers::{FRAGMENT, Fragment, ICMP, IPV4, IPV6, Ipv4Header, Ipv6Header};
use crate::icmp::quote::{Room, embedded_reason, extensions, quote_end, read_head};
use crate::icmp::{Head, LONGEST_ICMPV4_ERROR, LONGEST_ICMPV6_ERROR, Quoted, v4, v6};
use crate::mss;
use crate::offload::{Family, Offload};
use crate::own::OWN_HOP_LIMIT;
use crate::packets::{FLAGS_AT, Packets, Segments, Verdict, frame};
use crate::params::ZeroChecksum;
use crate::parse::{ICMPV4, ICMPV6, Parsed, UDP, Upper, What, in_place, parse_v4, plain};
use crate::upper::{Pseudo, Way, rewrite, rewrite_ported};
use crate::{DropReason, FragmentPart, HEADROOM, Icmpv4Error, Params, Rewrite, Tuple, VirtioNetHdr};

/// The longest datagram, in bytes (RFC 791 §3.1).
const LONGEST_DATAGRAM: usize = 65_535;

/// An IPv4 packet that was checked and can be translated to IPv6.
#[derive(Debug)]
pub struct Ipv4Packet<'a> {
    storage: &'a mut [u8],
    packet: Parsed<Ipv4Addr>,
    embedded: Option<Parsed<Ipv4Addr>>,
    offload: Offload,
    /// It was read by the short way, and can be translated by it.
    is_plain: bool,
}

/// The translated packet: its header, and what lies behind it.
struct Translated<'h> {
    header: Ipv6Header<'h>,
    upper_at: usize,
    end: usize,
}

impl<'a> Ipv4Packet<'a> {
    /// Checks the packet at `packet` of `storage`, in front of which [`HEADROOM`] bytes are free.
    #[inline(always)]
    pub fn check(storage: &'a mut [u8], packet: Range<usize>) -> Result<Self, DropReason> {
        in_place(storage, &packet)?;
        if let Some(packet) = plain::parse_v4(storage, &packet) {
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
        if let Some(packet) = plain::parse_v4(storage, &packet)
            && let Upper::Ported { checksum_at, .. } = packet.upper
            && let Some(offload) = Offload::plain(offload, IPV4, checksum_at)
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
        let offload = Offload::check(offload, &parsed, upper, Family::V4)?;
        Self::finish(storage, parsed, offload)
    }

    /// The same for a datagram that was put together from fragments: the header of the first one, and behind it the whole
    /// payload. Total length, flags, offset and header checksum are still the first fragment's, and are set right here,
    /// which changes the packet. The identification stays, for the fragments that come out again.
    pub fn check_reassembled(storage: &'a mut [u8], packet: Range<usize>) -> Result<Self, DropReason> {
        in_place(storage, &packet)?;
        let start = packet.start;
        let header_length = usize::from(storage.get(start).copied().unwrap_or(0) & 0xf) * 4;
        if packet.len() > LONGEST_DATAGRAM || packet.len() < IPV4.max(header_length) {
            return Err(DropReason::MalformedHeader);
        }
        put_u16(storage, start + 2, packet.len() as u16);
        put_u16(storage, start + 6, 0);
        put_header_checksum(storage, start, start + header_length);
        Self::check(storage, packet)
    }

    fn parse(storage: &[u8], packet: Range<usize>) -> Result<Parsed<Ipv4Addr>, DropReason> {
        in_place(storage, &packet)?;
        parse_v4(storage, packet, What::Packet)
    }

    fn finish(
        storage: &'a mut [u8],
        mut packet: Parsed<Ipv4Addr>,
        offload: Offload,
    ) -> Result<Self, DropReason> {
        let embedded = match packet.upper {
            Upper::Error => Some(check_error(storage, &{ packet }, offload)?),
            _ => None,
        };
        let this = Self { storage, packet, embedded, offload, is_plain: false };
        if this.is_without_checksum() && packet.is_fragmented() {
            packet.refusal.get_or_insert(DropReason::UdpZeroChecksumFragment);
        }
        Ok(Self { packet, ..this })
    }

    /// A UDP datagram without a checksum (RFC 768), or the first fragment of one.
    fn is_without_checksum(&self) -> bool {
        self.packet.protocol == UDP
            && matches!(self.packet.upper, Upper::Ported { .. })
            && !self.offload.partial
            && u16_at(self.storage, self.packet.upper_at + 6) == Some(0)
    }

    /// Who talks to whom.
    #[inline]
    pub fn tuple(&self) -> Tuple<Ipv4Addr> {
        self.packet.tuple(ICMPV4)
    }

    /// The same of the packet inside an ICMP error. It went the other way.
    #[inline]
    pub fn embedded(&self) -> Option<Tuple<Ipv4Addr>> {
        self.embedded.map(|embedded| embedded.tuple(ICMPV4))
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

    /// Translates to IPv6, in place. Where this does not answer [`Verdict::Forward`], nothing was changed.
    ///
    /// A packet without DF that would be longer than [`Params::lowest_ipv6_mtu`] becomes several fragments.
    #[inline(always)]
    pub fn translate(&mut self, rewrite_to: &Rewrite<Ipv6Addr>, params: &Params) -> Verdict<'_> {
        let packet = &self.packet;
        let length = IPV6 + packet.upper_length;
        let most =
            if packet.dont_fragment { params.ipv6_mtu() } else { u32::from(params.fragment_mtu()) } as usize;
        if !self.is_plain || length > most {
            // By value: what is in registers need not be in memory for the short way's sake.
            let Self { packet, embedded, offload, .. } = *self;
            let general = Ipv4Packet { storage: self.storage, packet, embedded, offload, is_plain: false };
            return general.translate_any(rewrite_to, params);
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
            offload = self.offload.describe_plain(IPV6, checksum_at);
        }
        let header = Ipv6Header {
            traffic_class: params.traffic_class.apply(packet.traffic_class),
            payload_length: packet.upper_length,
            next_header: packet.protocol,
            hop_limit: packet.hop_limit - 1,
            source: &rewrite_to.source,
            destination: &rewrite_to.destination,
            fragment: None,
        };
        let start = upper_at - IPV6;
        header.write(self.storage, start);
        Verdict::Forward(Packets::one(self.storage, start, end, offload))
    }

    /// The general way.
    #[inline(never)]
    fn translate_any(mut self, rewrite_to: &Rewrite<Ipv6Addr>, params: &Params) -> Verdict<'a> {
        let Translated { header, upper_at, end } = match self.try_translate(rewrite_to, params) {
            Ok(translated) => translated,
            Err(reason) => {
                return Verdict::of(reason, reason.answer_v4().is_some() && self.may_be_answered());
            }
        };
        let most = params.fragment_mtu();
        if !self.packet.dont_fragment && self.segment_length(&header) > usize::from(most) {
            let translated = Translated { header, upper_at, end };
            return Verdict::Forward(fragments(
                self.storage,
                &{ self.packet },
                self.offload,
                translated,
                most,
            ));
        }
        let start = upper_at - header.length();
        header.write(self.storage, start);
        let Parsed { upper, protocol, .. } = self.packet;
        let offload = match self.embedded {
            // An error has a new checksum.
            Some(_) => VirtioNetHdr::default(),
            None => self.offload.describe(header.length(), upper, protocol, Family::V6),
        };
        Verdict::Forward(Packets::one(self.storage, start, end, offload))
    }

    /// The length of the packet, or of the first segment of a super-packet.
    #[inline]
    fn segment_length(&self, header: &Ipv6Header<'_>) -> usize {
        header.length() + self.offload.first(header.payload_length)
    }

    fn try_translate<'r>(
        &mut self,
        rewrite_to: &'r Rewrite<Ipv6Addr>,
        params: &Params,
    ) -> Result<Translated<'r>, DropReason> {
        let packet = self.packet;
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let (upper_at, end) = if let Some(embedded) = self.embedded {
            translate_error(self.storage, packet.upper_at, packet.end, &embedded, rewrite_to, params)?
        } else {
            let fragment = if packet.is_fragmented() { FRAGMENT } else { 0 };
            let length = IPV6 + fragment + self.offload.first(packet.upper_length);
            if packet.dont_fragment && length > params.ipv6_mtu() as usize {
                return Err(DropReason::TooBig);
            }
            self.translate_upper(rewrite_to, params)?;
            (packet.upper_at, packet.end)
        };
        let header = Ipv6Header {
            traffic_class: params.traffic_class.apply(packet.traffic_class),
            payload_length: end - upper_at,
            next_header: next_header(packet.protocol),
            hop_limit: packet.hop_limit - 1,
            source: &rewrite_to.source,
            destination: &rewrite_to.destination,
            fragment: packet.fragment.filter(|_| packet.is_fragmented()),
        };
        Ok(Translated { header, upper_at, end })
    }

    fn translate_upper(&mut self, rewrite_to: &Rewrite<Ipv6Addr>, params: &Params) -> Result<(), DropReason> {
        let packet = self.packet;
        let without_checksum = self.is_without_checksum();
        if without_checksum && params.udp_zero_checksum == ZeroChecksum::Drop {
            return Err(DropReason::UdpZeroChecksum);
        }
        let bytes = self.storage.get_mut(packet.upper_at..packet.end).unwrap_or_default();
        let pseudo = pseudo(&packet, rewrite_to.source, rewrite_to.destination, self.offload.partial);
        rewrite(bytes, packet.upper, rewrite_to.ports, pseudo, Way::FourToSix);
        if without_checksum {
            // The datagram may be shorter than the packet: the check has seen that it is not longer.
            let length = usize::from(u16_at(bytes, 4).unwrap_or(0));
            let datagram = bytes.get(..length).unwrap_or_default();
            let sum =
                pseudo_v6(rewrite_to.source, rewrite_to.destination, length, UDP).plus(Sum::of(datagram));
            put_u16(bytes, 6, as_sent(sum.checksum(), true));
        }
        Ok(())
    }

    /// Whether an RFC lets the sender be told about this packet (RFC 1812 §4.3.2.7): it is no error, no fragment behind the
    /// first, not to a multicast or broadcast address, and from an address that is a single host's.
    #[inline]
    pub fn may_be_answered(&self) -> bool {
        let Parsed { source: sender, destination, .. } = self.packet;
        // 0.0.0.0/8, 127.0.0.0/8, and multicast, reserved and broadcast from 224.0.0.0 on.
        let nobody = matches!(sender.octets()[0], 0 | 127 | 224..);
        let everybody = matches!(destination.octets()[0], 224..);
        !self.packet.quiet && !nobody && !everybody
    }

    /// The `ICMPv4` error with which the sender is told of this reason, by the one table. See [`Self::error`].
    #[inline]
    pub fn answer(self, reason: DropReason, source: Ipv4Addr, params: &Params) -> Option<&'a [u8]> {
        self.error(reason.answer_v4()?, source, params)
    }

    /// The same as a frame. See [`Self::error_framed`].
    #[inline]
    pub fn answer_framed(self, reason: DropReason, source: Ipv4Addr, params: &Params) -> Option<&'a [u8]> {
        self.error_framed(reason.answer_v4()?, source, params)
    }

    /// An `ICMPv4` error about this packet, for its sender, or `None` where none may be sent (RFC 1812 §4.3.2.7): about an
    /// error, about a fragment behind the first, to a multicast or broadcast address, from an address that is no single
    /// host's.
    ///
    /// The packet itself stays as it is, and is quoted as far as 576 bytes allow; of a super-packet the first segment is
    /// quoted. Not to be called after [`Self::translate`] has answered [`Verdict::Forward`].
    #[cold]
    pub fn error(mut self, error: Icmpv4Error, source: Ipv4Addr, params: &Params) -> Option<&'a [u8]> {
        let range = self.make_error(error, source, params)?;
        self.storage.get(range)
    }

    /// The same as a TUN device with `IFF_VNET_HDR` takes it: behind [`VirtioNetHdr::LENGTH`] bytes that say nothing, since the
    /// error is whole. See [`Packets::next_framed`].
    #[cold]
    pub fn error_framed(mut self, error: Icmpv4Error, source: Ipv4Addr, params: &Params) -> Option<&'a [u8]> {
        let range = self.make_error(error, source, params)?;
        frame(self.storage, range, VirtioNetHdr::default())
    }

    /// Writes the error into the packet's storage, and says where it lies.
    fn make_error(&mut self, error: Icmpv4Error, source: Ipv4Addr, params: &Params) -> Option<Range<usize>> {
        if !self.may_be_answered() {
            return None;
        }
        let sender = self.packet.source;
        let quote = self.packet.start;
        let end = self.first_segment_end().min(quote + LONGEST_ICMPV4_ERROR - IPV4 - ICMP);
        let head = match error {
            Icmpv4Error::DestinationUnreachable { code } => Head::new(v4::UNREACHABLE, code),
            Icmpv4Error::FragmentationNeeded => {
                let longer = if self.packet.is_fragmented() { IPV6 + FRAGMENT - IPV4 } else { IPV6 - IPV4 };
                let mtu = (params.ipv6_mtu() - longer as u32).min(0xffff);
                Head { rest: mtu, ..Head::new(v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) }
            }
            Icmpv4Error::TimeExceeded => Head::new(v4::TIME_EXCEEDED, 0),
        };
        let icmp_at = quote - ICMP;
        put(self.storage, icmp_at, head.bytes());
        let checksum = Sum::of(self.storage.get(icmp_at..end)?).checksum();
        put_u16(self.storage, icmp_at + 2, checksum);
        let start = icmp_at - IPV4;
        let header = Ipv4Header {
            // RFC 1812 §4.3.2.5: precedence 6, internetwork control.
            tos: 0xc0,
            total_length: (end - start) as u16,
            // RFC 6864 §4.1: a datagram that is never cut needs no identification.
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: OWN_HOP_LIMIT,
            protocol: ICMPV4,
            source,
            destination: sender,
        };
        header.write(self.storage, start);
        Some(start..end)
    }

    /// The reply to an echo request that was sent to the router itself (RFC 1122 §3.2.2.6), in the packet's place: without
    /// its options. `None`: it is none, its checksum is wrong, or no reply may be sent to its source.
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
        if Sum::of(self.storage.get(upper_at..end)?).checksum() != 0 {
            return None;
        }
        put(self.storage, upper_at, [v4::ECHO_REPLY, 0, 0, 0]);
        let checksum = Sum::of(self.storage.get(upper_at..end)?).checksum();
        put_u16(self.storage, upper_at + 2, checksum);
        let start = upper_at - IPV4;
        let header = Ipv4Header {
            tos: traffic_class,
            total_length: (end - start) as u16,
            identification: u16_at(self.storage, self.packet.start + 4)?,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: OWN_HOP_LIMIT,
            protocol: ICMPV4,
            source: destination,
            destination: source,
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
        put_u16(self.storage, start + 2, (upper_at - start + first) as u16);
        put_header_checksum(self.storage, start, upper_at);
        if protocol == UDP {
            put_u16(self.storage, upper_at + 4, first as u16);
        }
        upper_at + first
    }
}

/// Computes the checksum of the IPv4 header between `start` and `end` anew.
fn put_header_checksum(storage: &mut [u8], start: usize, end: usize) {
    put_u16(storage, start + 10, 0);
    let checksum = Sum::of(storage.get(start..end).unwrap_or_default()).checksum();
    put_u16(storage, start + 10, checksum);
}

/// Several packets, none of them longer than `most`.
#[cold]
fn fragments<'p>(
    storage: &'p mut [u8],
    packet: &Parsed<Ipv4Addr>,
    offload: Offload,
    Translated { header, upper_at, end }: Translated<'_>,
    most: u16,
) -> Packets<'p> {
    let identification = packet.fragment.map_or(0, |fragment| fragment.identification);
    if let Some(segments) = &offload.segments {
        let segments = Segments {
            identification: identification as u16,
            transport_at: upper_at,
            transport_header: segments.transport_header,
            at: upper_at + usize::from(segments.transport_header),
            end,
            each: segments.size.get(),
            most,
            protocol: header.next_header,
            flags: storage.get(upper_at + FLAGS_AT).copied().unwrap_or(0),
        };
        return Packets::segments(storage, &header, segments);
    }
    if offload.partial {
        finish_checksum(storage, packet.upper, &header, upper_at, end);
    }
    let fragment = header.fragment.unwrap_or(Fragment { identification, offset: 0, more: false });
    Packets::fragments(storage, header, fragment, (upper_at, end), most)
}

/// Adds to a partial checksum what the kernel would have added: fragments leave with a whole one.
fn finish_checksum(storage: &mut [u8], upper: Upper, header: &Ipv6Header<'_>, upper_at: usize, end: usize) {
    let Some(checksum_at) = upper.checksum_at() else { return };
    put_u16(storage, upper_at + checksum_at, 0);
    let bytes = storage.get(upper_at..end).unwrap_or_default();
    let pseudo = pseudo_v6(*header.source, *header.destination, bytes.len(), header.next_header);
    let checksum = pseudo.plus(Sum::of(bytes)).checksum();
    let never_zero = matches!(upper, Upper::Ported { never_zero: true, .. });
    put_u16(storage, upper_at + checksum_at, as_sent(checksum, never_zero));
}

/// Translates the packet inside an error, and puts an `ICMPv6` header in front of it. `icmp` is where its old one
/// lies. Returns where the new one begins and where the packet ends.
#[cold]
fn translate_error(
    storage: &mut [u8],
    icmp: usize,
    packet_end: usize,
    embedded: &Parsed<Ipv4Addr>,
    rewrite_to: &Rewrite<Ipv6Addr>,
    params: &Params,
) -> Result<(usize, usize), DropReason> {
    let inner = rewrite_to.embedded.ok_or(DropReason::EmbeddedNotTranslatable)?;
    let old_head = read_head(storage, icmp)?;
    let total_length = embedded.upper_at - embedded.start + embedded.upper_length;
    let head = v4::to_v6(old_head, Quoted { total_length, fragment_header: false }, params)?;
    let header = Ipv6Header {
        traffic_class: embedded.traffic_class,
        payload_length: embedded.upper_length,
        next_header: next_header(embedded.protocol),
        hop_limit: embedded.hop_limit,
        source: &inner.source,
        destination: &inner.destination,
        fragment: embedded.fragment.filter(|_| embedded.is_fragmented()),
    };

    let extensions = extensions(embedded.start, packet_end, v4::quote_length(old_head))
        .filter(|_| v6::has_quote_length(head.kind));
    let room =
        Room { most: LONGEST_ICMPV6_ERROR - IPV6 - ICMP, header: header.length(), unit: v6::LENGTH_UNIT };
    let kept = room.lay_out(storage, embedded.upper_at..embedded.end, extensions);
    let pseudo = pseudo(embedded, inner.source, inner.destination, false);
    let bytes = storage.get_mut(kept.upper_at..kept.quote_end).unwrap_or_default();
    rewrite(bytes, embedded.upper, inner.ports, pseudo, Way::FourToSix);
    header.write(storage, kept.upper_at - header.length());
    let icmp_at = kept.upper_at - header.length() - ICMP;
    let head = v6::with_quote_length(head, kept.length);
    v6::write(storage, icmp_at, kept.end, head, rewrite_to.source, rewrite_to.destination);
    Ok((icmp_at, kept.end))
}

/// An ICMP error is translated only if its checksum is right: the translation gets a new one (RFC 5508 REQ-3). A partial one
/// is still to be made by the kernel, whose own error it is.
#[inline(never)]
fn check_error(
    storage: &[u8],
    packet: &Parsed<Ipv4Addr>,
    offload: Offload,
) -> Result<Parsed<Ipv4Addr>, DropReason> {
    let bytes = storage.get(packet.upper_at..packet.end).ok_or(DropReason::Truncated)?;
    if !offload.partial && Sum::of(bytes).checksum() != 0 {
        return Err(DropReason::BadIcmpChecksum);
    }
    let quote = packet.upper_at + ICMP;
    let end = quote_end(quote, packet.end, v4::quote_length(read_head(storage, packet.upper_at)?));
    parse_v4(storage, quote..end, What::Quote).map_err(embedded_reason)
}

#[inline(always)]
fn next_header(protocol: u8) -> u8 {
    if protocol == ICMPV4 { ICMPV6 } else { protocol }
}

#[inline(always)]
fn pseudo(packet: &Parsed<Ipv4Addr>, source: Ipv6Addr, destination: Ipv6Addr, partial: bool) -> Pseudo {
    let Parsed { source: old_source, destination: old_destination, .. } = *packet;
    let echo = match packet.upper {
        Upper::Echo { .. } => pseudo_v6(source, destination, packet.upper_length, ICMPV6),
        _ => Sum::default(),
    };
    Pseudo {
        ported: [addresses(old_source, old_destination), addresses(source, destination)],
        echo: [Sum::default(), echo],
        partial,
    }
}

// In front of an error's inner transport header grow two IPv6 headers, one of them with a fragment header, around the ICMP
// header, where two IPv4 headers were; with extensions behind it, it may make room for padding too. In front of all that lies the
// description of a frame.
const _: () = assert!(
    HEADROOM
        >= (IPV6 + ICMP + IPV6 + FRAGMENT) - (IPV4 + ICMP + IPV4) + v6::LENGTH_UNIT - v4::LENGTH_UNIT
            + VirtioNetHdr::LENGTH
);

//! What a translation yields: one packet, or several.

use core::net::Ipv6Addr;
use core::ops::Range;

use crate::DropReason;
use crate::bytes::{array_at, put, put_u16, u8_at, u16_at, u32_at};
use crate::checksum::{Sum, as_sent, pseudo_v6};
use crate::headers::{FRAGMENT, Fragment, IPV6, Ipv6Header};
use crate::offload::VirtioNetHdr;
use crate::parse::{FRAGMENT_HEADER, TCP};

/// The outcome of a translation.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one packet, and there is nothing to box it in"
)]
pub enum Verdict<'a> {
    /// Translated, into one packet or several.
    Forward(Packets<'a>),
    /// Not translated, and unchanged; an RFC lets the sender be told. `answer` of the checked packet makes that ICMP
    /// error, whose rate is for the caller to limit (RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8).
    Reply(DropReason),
    /// Not translated, and unchanged: a fragment that can be translated only together with the others of its datagram
    /// (`check_reassembled`). A caller that does not put datagrams together drops it for this reason.
    Hold(DropReason),
    /// Not translated, and unchanged, in silence.
    Drop(DropReason),
}

/// The packets that a translation yields, one after the other, each in the caller's storage: the next one overwrites parts
/// of the one before. Packets that are not asked for are not made.
#[derive(Debug)]
pub struct Packets<'a> {
    storage: &'a mut [u8],
    /// Where the packet that was made last begins and ends.
    start: usize,
    end: usize,
    /// Whether it is still to be handed out.
    is_new: bool,
    rest: Rest,
    offload: VirtioNetHdr,
}

/// What is still to be made. Each packet gets its headers from the one before it, which lie whole in front of it.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Nothing,
    Fragments(Fragments),
    Segments(Segments),
}

/// The payload that is left of one that is sent in IPv6 fragments.
#[derive(Debug, Clone, Copy)]
struct Fragments {
    /// Where it begins.
    at: usize,
    /// Where it ends.
    end: usize,
    /// Payload bytes of each fragment but the last, a multiple of eight.
    each: u16,
    /// The M bit of the last.
    more: bool,
}

/// A super-packet without DF whose segments are too long to stay whole: each becomes a packet of its own, and that several
/// fragments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segments {
    /// Where the transport header of the last segment is, or of the super-packet.
    pub(crate) transport_at: usize,
    /// The length of a transport header, in bytes.
    pub(crate) transport_header: u8,
    /// Where the payload that is left begins.
    pub(crate) at: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// Payload bytes of each segment but the last.
    pub(crate) each: u16,
    /// The longest packet that is not cut into fragments, in bytes.
    pub(crate) most: u16,
    /// The identification of the next segment's fragments.
    pub(crate) identification: u16,
    /// TCP or UDP.
    pub(crate) protocol: u8,
    /// The flags of the super-packet, if it is TCP.
    pub(crate) flags: u8,
}

/// TCP flags (RFC 9293 §3.1, RFC 3168 §6.1): of a super-packet, FIN and PSH are the last segment's, and CWR the first one's.
pub(crate) const FLAGS_AT: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

impl Verdict<'_> {
    /// What becomes of a packet that is not forwarded.
    pub(crate) fn of(reason: DropReason, may_be_answered: bool) -> Self {
        if reason.wants_the_datagram() {
            Self::Hold(reason)
        } else if may_be_answered {
            Self::Reply(reason)
        } else {
            Self::Drop(reason)
        }
    }
}

impl<'a> Packets<'a> {
    #[inline]
    pub(crate) fn one(storage: &'a mut [u8], start: usize, end: usize, offload: VirtioNetHdr) -> Self {
        Self { storage, start, end, is_new: true, rest: Rest::Nothing, offload }
    }

    /// The payload between `at` and `end`, in fragments of at most `most` bytes.
    pub(crate) fn fragments(
        storage: &'a mut [u8],
        header: Ipv6Header<'_>,
        fragment: Fragment,
        (at, end): (usize, usize),
        most: u16,
    ) -> Self {
        let each = fragment_payload(most);
        let first = end.min(at + usize::from(each));
        let piece = Fragment { more: fragment.more || first < end, ..fragment };
        let header = Ipv6Header { payload_length: first - at, fragment: Some(piece), ..header };
        let start = at - (IPV6 + FRAGMENT);
        header.write(storage, start);
        let rest = Rest::Fragments(Fragments { at: first, end, each, more: fragment.more });
        Self { rest, ..Self::one(storage, start, first, VirtioNetHdr::default()) }
    }

    /// The segments of a super-packet.
    pub(crate) fn segments(storage: &'a mut [u8], header: &Ipv6Header<'_>, segments: Segments) -> Self {
        // In front of the first segment's transport header, from where all others get theirs.
        let start = segments.transport_at - IPV6;
        header.write(storage, start);
        let rest = Rest::Segments(segments);
        Self { is_new: false, rest, ..Self::one(storage, start, start, VirtioNetHdr::default()) }
    }

    /// What a device that takes super-packets and partial checksums is to be told about each of these packets. The
    /// default, where the translation of a packet without offloads is whole, as are the fragments of one with them.
    #[inline]
    pub fn offload(&self) -> VirtioNetHdr {
        self.offload
    }

    /// The next packet.
    #[allow(
        clippy::should_implement_trait,
        reason = "each packet borrows the storage, which an iterator cannot say"
    )]
    #[inline]
    pub fn next(&mut self) -> Option<&[u8]> {
        self.make()?;
        self.storage.get(self.start..self.end)
    }

    /// The next packet as a TUN device with `IFF_VNET_HDR` takes it: behind [`VirtioNetHdr::LENGTH`] bytes that hold
    /// [`Self::offload`]. They lie in the headroom, or over payload that was handed out already.
    #[inline]
    pub fn next_framed(&mut self) -> Option<&[u8]> {
        self.make()?;
        frame(self.storage, self.start..self.end, self.offload)
    }

    /// Makes the next packet, if there is one.
    #[inline(always)]
    fn make(&mut self) -> Option<()> {
        if !self.is_new {
            let rest = core::mem::replace(&mut self.rest, Rest::Nothing);
            (self.start, self.end, self.rest) = make_next(self.storage, self.start, self.end, rest)?;
        }
        self.is_new = false;
        Some(())
    }
}

/// Puts its description in front of a packet, and gives both.
#[inline(always)]
pub(crate) fn frame(storage: &mut [u8], packet: Range<usize>, offload: VirtioNetHdr) -> Option<&[u8]> {
    let start = packet.start.checked_sub(VirtioNetHdr::LENGTH)?;
    put(storage, start, offload.to_bytes());
    storage.get(start..packet.end)
}

/// Makes the next packet out of the rest, if there is one, and says where it is and what is left then. By value, so that the
/// state of an ordinary packet stays in registers.
#[cold]
fn make_next(storage: &mut [u8], before: usize, until: usize, rest: Rest) -> Option<(usize, usize, Rest)> {
    match rest {
        Rest::Nothing => None,
        Rest::Fragments(mut fragments) => {
            let (start, end) = fragments.write_next(storage, before)?;
            Some((start, end, Rest::Fragments(fragments)))
        }
        Rest::Segments(mut segments) => {
            let (start, end) = segments.write_next(storage, before, until)?;
            Some((start, end, Rest::Segments(segments)))
        }
    }
}

/// What fits into a fragment of a packet of this length: a multiple of eight bytes.
const fn fragment_payload(most: u16) -> u16 {
    (most - (IPV6 + FRAGMENT) as u16) / 8 * 8
}

impl Fragments {
    /// Writes the next fragment's headers in front of its payload, over payload that has been sent already.
    fn write_next(&mut self, storage: &mut [u8], before: usize) -> Option<(usize, usize)> {
        if self.at >= self.end {
            return None;
        }
        let end = self.end.min(self.at + usize::from(self.each));
        let more = self.more || end < self.end;
        let start = self.at - (IPV6 + FRAGMENT);
        let mut headers: [u8; IPV6 + FRAGMENT] = array_at(storage, before)?;
        let sent = u16_at(&headers, 4)? - FRAGMENT as u16;
        let offset = u16_at(&headers, IPV6 + 2)? & !7;
        put_u16(&mut headers, 4, (end - self.at + FRAGMENT) as u16);
        // The offset counts units of eight bytes above three bits of flags, and so bytes.
        put_u16(&mut headers, IPV6 + 2, offset.wrapping_add(sent) | u16::from(more));
        put(storage, start, headers);
        self.at = end;
        Some((start, end))
    }
}

impl Segments {
    /// Writes the next fragment of the packet from `before` to `until`, or else the next segment, in front of its payload.
    fn write_next(&mut self, storage: &mut [u8], before: usize, until: usize) -> Option<(usize, usize)> {
        let is_fragment = u8_at(storage, before + 6) == Some(FRAGMENT_HEADER);
        // The end of the segment that `before` is a fragment of: payload up to `at` was sent, or is being sent.
        if is_fragment && until < self.at {
            let each = fragment_payload(self.most);
            return Fragments { at: until, end: self.at, each, more: false }.write_next(storage, before);
        }
        if self.at >= self.end {
            return None;
        }
        let mut header: [u8; IPV6] = array_at(storage, before)?;
        let (transport_at, end) = self.write_segment(storage, &header)?;
        let length = end - transport_at;
        let identification = u32::from(self.identification);
        self.identification = self.identification.wrapping_add(1);
        header[6] = self.protocol;
        if IPV6 + length <= usize::from(self.most) {
            put_u16(&mut header, 4, length as u16);
            put(storage, transport_at - IPV6, header);
            return Some((transport_at - IPV6, end));
        }
        header[6] = FRAGMENT_HEADER;
        let first = usize::from(fragment_payload(self.most));
        put_u16(&mut header, 4, (first + FRAGMENT) as u16);
        let mut fragment = [self.protocol, 0, 0, 1, 0, 0, 0, 0];
        put(&mut fragment, 4, identification.to_be_bytes());
        let start = transport_at - (IPV6 + FRAGMENT);
        put(storage, start, header);
        put(storage, start + IPV6, fragment);
        Some((start, transport_at + first))
    }

    /// Writes the next segment's transport header, with `ip_header` for the addresses. The one before lies whole in front of it:
    /// fragments write their headers far behind a transport header. Returns where it begins and where its payload ends.
    fn write_segment(&mut self, storage: &mut [u8], ip_header: &[u8; IPV6]) -> Option<(usize, usize)> {
        let header = usize::from(self.transport_header);
        let end = self.end.min(self.at + usize::from(self.each));
        let transport_at = self.at - header;
        let is_first = transport_at == self.transport_at;
        storage.copy_within(self.transport_at..self.transport_at + header, transport_at);
        let segment = storage.get_mut(transport_at..end)?;
        let length = segment.len();
        let checksum_at = if self.protocol == TCP {
            if !is_first {
                let sequence = u32_at(segment, 4)?.wrapping_add(u32::from(self.each));
                put(segment, 4, sequence.to_be_bytes());
            }
            let not_last = if end < self.end { FIN | PSH } else { 0 };
            let not_first = if is_first { 0 } else { CWR };
            put(segment, FLAGS_AT, [self.flags & !not_last & !not_first]);
            16
        } else {
            put_u16(segment, 4, length as u16);
            6
        };
        put_u16(segment, checksum_at, 0);
        let source = Ipv6Addr::from(array_at::<16>(ip_header, 8)?);
        let destination = Ipv6Addr::from(array_at::<16>(ip_header, 24)?);
        let checksum =
            pseudo_v6(source, destination, length, self.protocol).plus(Sum::of(segment)).checksum();
        put_u16(segment, checksum_at, as_sent(checksum, self.protocol != TCP));
        (self.transport_at, self.at) = (transport_at, end);
        Some((transport_at, end))
    }
}

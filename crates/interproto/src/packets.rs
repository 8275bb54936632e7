//! What a translation yields: one packet, or several.

use crate::DropReason;
use crate::bytes::{put, put_u16, u32_at};
use crate::checksum::{Sum, pseudo_v6};
use crate::headers::{FRAGMENT, Fragment, IPV6, Ipv6Header};
use crate::offload::VirtioNetHdr;
use crate::parse::TCP;

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
    left: Left,
    offload: VirtioNetHdr,
}

#[derive(Debug)]
enum Left {
    Nothing,
    One { start: usize, end: usize },
    Fragments(Fragments),
    Segments(Segments),
}

/// The rest of an IPv4 payload that is still to be sent in IPv6 fragments.
#[derive(Debug)]
pub(crate) struct Fragments {
    /// The header of the first fragment; length, offset and the M bit are set for each.
    pub(crate) header: Ipv6Header,
    /// The header's fragment part: identification, offset of the whole, and whether more follows behind it.
    pub(crate) fragment: Fragment,
    /// Where the payload that is left begins.
    pub(crate) at: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// Payload bytes of each fragment but the last, a multiple of eight.
    pub(crate) each: usize,
}

/// The rest of a super-packet without DF, whose segments are too long to stay whole: each becomes a packet of its own, and
/// that several fragments.
#[derive(Debug)]
pub(crate) struct Segments {
    /// The header of each segment but for its length.
    pub(crate) header: Ipv6Header,
    /// The identification of the next segment's fragments.
    pub(crate) identification: u16,
    /// Where the transport header of the last segment is, or of the super-packet.
    pub(crate) transport_at: usize,
    /// The length of a transport header, in bytes.
    pub(crate) transport_header: usize,
    /// Where the payload that is left begins.
    pub(crate) at: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// Payload bytes of each segment but the last.
    pub(crate) each: usize,
    /// The longest packet that is not cut into fragments, in bytes.
    pub(crate) most: usize,
    /// The flags of the super-packet, if it is TCP.
    pub(crate) flags: u8,
    /// Only the first segment keeps CWR.
    pub(crate) first: bool,
    /// What is left of the segment before.
    pub(crate) fragments: Option<Fragments>,
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
    pub(crate) fn one(storage: &'a mut [u8], start: usize, end: usize, offload: VirtioNetHdr) -> Self {
        Self { storage, left: Left::One { start, end }, offload }
    }

    pub(crate) fn fragments(storage: &'a mut [u8], fragments: Fragments) -> Self {
        Self { storage, left: Left::Fragments(fragments), offload: VirtioNetHdr::default() }
    }

    pub(crate) fn segments(storage: &'a mut [u8], segments: Segments) -> Self {
        Self { storage, left: Left::Segments(segments), offload: VirtioNetHdr::default() }
    }

    /// What a device that takes super-packets and partial checksums is to be told about each of these packets. The
    /// default, where the translation of a packet without offloads is whole, as are the fragments of one with them.
    pub fn offload(&self) -> VirtioNetHdr {
        self.offload
    }

    /// The next packet.
    #[allow(
        clippy::should_implement_trait,
        reason = "each packet borrows the storage, which an iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<&[u8]> {
        let (start, end) = match &mut self.left {
            Left::Nothing => return None,
            Left::One { start, end } => {
                let range = (*start, *end);
                self.left = Left::Nothing;
                range
            }
            Left::Fragments(fragments) => {
                let range = fragments.write_next(self.storage);
                if fragments.is_empty() {
                    self.left = Left::Nothing;
                }
                range
            }
            Left::Segments(segments) => {
                let range = segments.write_next(self.storage);
                if segments.is_empty() {
                    self.left = Left::Nothing;
                }
                range
            }
        };
        self.storage.get(start..end)
    }
}

impl Fragments {
    /// Of a packet's payload from `at` to `end`, none of them longer than `most` bytes.
    pub(crate) fn new(header: Ipv6Header, fragment: Fragment, at: usize, end: usize, most: usize) -> Self {
        Self { header, fragment, at, end, each: (most - IPV6 - FRAGMENT) / 8 * 8 }
    }

    fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// Writes the next fragment's header in front of its payload, over payload that has been sent already.
    fn write_next(&mut self, storage: &mut [u8]) -> (usize, usize) {
        let end = self.end.min(self.at + self.each);
        let length = end - self.at;
        let last = end == self.end;
        let fragment = Fragment { more: self.fragment.more || !last, ..self.fragment };
        let header = Ipv6Header { payload_length: length, fragment: Some(fragment), ..self.header };
        let start = self.at - (IPV6 + FRAGMENT);
        header.write(storage, start);
        self.at = end;
        self.fragment.offset += (length / 8) as u16;
        (start, end)
    }
}

impl Segments {
    fn is_empty(&self) -> bool {
        self.at >= self.end && self.fragments.is_none()
    }

    /// Writes the next segment, or the next fragment of one, in front of its payload.
    fn write_next(&mut self, storage: &mut [u8]) -> (usize, usize) {
        if let Some(fragments) = &mut self.fragments {
            let range = fragments.write_next(storage);
            if fragments.is_empty() {
                self.fragments = None;
            }
            return range;
        }
        let (transport_at, end) = self.write_segment(storage);
        let header = Ipv6Header { payload_length: end - transport_at, ..self.header };
        let identification = u32::from(self.identification);
        self.identification = self.identification.wrapping_add(1);
        if IPV6 + header.payload_length <= self.most {
            header.write(storage, transport_at - IPV6);
            return (transport_at - IPV6, end);
        }
        let fragment = Fragment { identification, offset: 0, more: false };
        let mut fragments = Fragments::new(header, fragment, transport_at, end, self.most);
        let range = fragments.write_next(storage);
        self.fragments = Some(fragments).filter(|fragments| !fragments.is_empty());
        range
    }

    /// Writes the next segment's transport header. The one before lies whole in front of it: fragments write their headers
    /// far behind a transport header. Returns where it begins and where its payload ends.
    fn write_segment(&mut self, storage: &mut [u8]) -> (usize, usize) {
        let (at, end) = (self.at, self.end.min(self.at + self.each));
        let transport_at = at - self.transport_header;
        storage.copy_within(self.transport_at..self.transport_at + self.transport_header, transport_at);
        let last = end == self.end;
        let Ipv6Header { source, destination, next_header, .. } = self.header;
        let segment = storage.get_mut(transport_at..end).unwrap_or_default();
        let length = segment.len();
        let checksum_at = if next_header == TCP {
            if !self.first {
                let sequence = u32_at(segment, 4).unwrap_or(0).wrapping_add(self.each as u32);
                put(segment, 4, sequence.to_be_bytes());
            }
            let cut = if last { 0 } else { FIN | PSH } | if self.first { 0 } else { CWR };
            put(segment, FLAGS_AT, [self.flags & !cut]);
            16
        } else {
            put_u16(segment, 4, length as u16);
            6
        };
        put_u16(segment, checksum_at, 0);
        let checksum = pseudo_v6(source, destination, length, next_header).plus(Sum::of(segment)).checksum();
        put_u16(segment, checksum_at, if next_header != TCP && checksum == 0 { 0xffff } else { checksum });
        (self.transport_at, self.at, self.first) = (transport_at, end, false);
        (transport_at, end)
    }
}

//! What a kernel says about a packet that it hands over unfinished, and wants to be told about one that it takes.

use core::num::NonZeroU16;

use crate::DropReason;
use crate::bytes::u8_at;
use crate::parse::{Parsed, TCP, UDP, Upper};

/// `struct virtio_net_hdr` (virtio 1.2 §5.1.6, `linux/virtio_net.h`): what lies in front of each packet of a TUN device
/// with `IFF_VNET_HDR`. The default says nothing: an ordinary packet with a whole checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VirtioNetHdr {
    /// [`Self::NEEDS_CSUM`], [`Self::DATA_VALID`].
    pub flags: u8,
    /// What the packet is to be cut into: [`Self::GSO_NONE`], [`Self::GSO_TCPV4`] and so on, perhaps with
    /// [`Self::GSO_ECN`].
    pub gso_type: u8,
    /// The length of all headers of a packet that is to be cut, in bytes.
    pub hdr_len: u16,
    /// The transport payload of each segment but the last, in bytes.
    pub gso_size: u16,
    /// Where the checksummed part begins, in bytes from the beginning of the packet.
    pub csum_start: u16,
    /// Where the checksum lies, in bytes from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioNetHdr {
    /// The length in front of a packet, in bytes.
    pub const LENGTH: usize = 10;

    /// The checksum holds only the sum of the pseudo-header; the rest is still to be added.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was verified.
    pub const DATA_VALID: u8 = 2;

    /// Nothing is to be cut.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP: each segment becomes a datagram of its own.
    pub const GSO_UDP_L4: u8 = 5;
    /// A bit beside the TCP types: only the first segment carries CWR (RFC 3168 §6.1.2).
    pub const GSO_ECN: u8 = 0x80;

    /// Reads one, in the byte order of this machine, as a TUN device has it unless it was told otherwise.
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes it in the same byte order.
    pub const fn to_bytes(self) -> [u8; Self::LENGTH] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// How many packets one of this length, in bytes, is on the wire, where this describes it: more than one if it is a
    /// super-packet. Meant for descriptions that this crate wrote, since what a kernel says in `hdr_len` is only a hint.
    #[inline]
    pub const fn segments(&self, packet_length: usize) -> usize {
        if self.gso_type & !Self::GSO_ECN == Self::GSO_NONE || self.gso_size == 0 {
            return 1;
        }
        let segments = packet_length.saturating_sub(self.hdr_len as usize).div_ceil(self.gso_size as usize);
        // A super-packet without a payload is one segment all the same.
        if segments == 0 { 1 } else { segments }
    }

    /// The lengths of these packets together, in bytes: each segment repeats all headers. See [`Self::segments`].
    #[inline]
    pub const fn wire_length(&self, packet_length: usize) -> usize {
        let repeated = (self.segments(packet_length) - 1).saturating_mul(self.hdr_len as usize);
        packet_length.saturating_add(repeated)
    }
}

/// The same, checked against its packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offload {
    /// The checksum holds the sum of the pseudo-header alone.
    pub(crate) partial: bool,
    /// The checksum was verified by somebody else.
    pub(crate) verified: bool,
    pub(crate) segments: Option<Segments>,
}

/// A super-packet: what it is cut into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segments {
    /// Transport payload of each but the last, in bytes.
    pub(crate) size: NonZeroU16,
    /// The transport header, in bytes.
    pub(crate) transport_header: u8,
    ecn: bool,
}

impl Segments {
    fn size(&self) -> usize {
        usize::from(self.size.get())
    }

    /// The first segment's part behind the IP headers, where that of all of them has this length.
    pub(crate) fn upper_length(&self, all: usize) -> usize {
        all.min(usize::from(self.transport_header) + self.size())
    }

    /// How many there are.
    fn count(&self, all: usize) -> usize {
        all.saturating_sub(usize::from(self.transport_header)).div_ceil(self.size()).max(1)
    }
}

/// An IP version, as the segmentation types tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    const fn gso_tcp(self) -> u8 {
        match self {
            Self::V4 => VirtioNetHdr::GSO_TCPV4,
            Self::V6 => VirtioNetHdr::GSO_TCPV6,
        }
    }
}

impl Offload {
    /// Nothing was said.
    pub(crate) const NONE: Self = Self { partial: false, verified: false, segments: None };

    /// Checks what was said about a packet of which `upper` are the bytes behind the IP headers.
    pub(crate) fn check<A: Copy>(
        said: &VirtioNetHdr,
        packet: &Parsed<A>,
        upper: &[u8],
        family: Family,
    ) -> Result<Self, DropReason> {
        let partial = said.flags & VirtioNetHdr::NEEDS_CSUM != 0;
        let verified = said.flags & VirtioNetHdr::DATA_VALID != 0;
        if (partial || said.gso_type != VirtioNetHdr::GSO_NONE) && packet.is_fragmented() {
            return Err(DropReason::BadOffload);
        }
        if partial {
            let start = packet.upper_at - packet.start;
            let right = packet.upper.checksum_at().is_some_and(|offset| {
                usize::from(said.csum_start) == start && usize::from(said.csum_offset) == offset
            });
            if !right {
                return Err(DropReason::BadOffload);
            }
        }
        let ecn = said.gso_type & VirtioNetHdr::GSO_ECN != 0;
        let kind = said.gso_type & !VirtioNetHdr::GSO_ECN;
        let transport_header = match kind {
            VirtioNetHdr::GSO_NONE if !ecn => return Ok(Self { partial, verified, segments: None }),
            kind if kind == family.gso_tcp() && packet.protocol == TCP => {
                (u8_at(upper, 12).unwrap_or(0) >> 4) * 4
            }
            VirtioNetHdr::GSO_UDP_L4 if packet.protocol == UDP && !ecn => 8,
            _ => return Err(DropReason::BadOffload),
        };
        match NonZeroU16::new(said.gso_size) {
            // Each segment gets a checksum of its own, which only the kernel's partial one allows.
            Some(size) if partial && matches!(packet.upper, Upper::Ported { .. }) => {
                let segments = Some(Segments { size, transport_header, ecn });
                Ok(Self { partial, verified, segments })
            }
            _ => Err(DropReason::BadOffload),
        }
    }

    /// The same for a plain packet, behind whose IP header of this length the checksum lies `checksum_at` bytes: `None` where
    /// more is said than that it is whole or partial.
    #[inline(always)]
    pub(crate) fn plain(said: &VirtioNetHdr, ip_header: usize, checksum_at: usize) -> Option<Self> {
        let partial = said.flags & VirtioNetHdr::NEEDS_CSUM != 0;
        let verified = said.flags & VirtioNetHdr::DATA_VALID != 0;
        let is_plain = said.gso_type == VirtioNetHdr::GSO_NONE
            && (!partial
                || (usize::from(said.csum_start) == ip_header
                    && usize::from(said.csum_offset) == checksum_at));
        is_plain.then_some(Self { partial, verified, segments: None })
    }

    /// What the kernel is told about the translation of a plain packet.
    #[inline(always)]
    pub(crate) fn describe_plain(&self, ip_header: usize, checksum_at: usize) -> VirtioNetHdr {
        if self.partial {
            return VirtioNetHdr {
                flags: VirtioNetHdr::NEEDS_CSUM,
                csum_start: ip_header as u16,
                csum_offset: checksum_at as u16,
                ..VirtioNetHdr::default()
            };
        }
        let flags = if self.verified { VirtioNetHdr::DATA_VALID } else { 0 };
        VirtioNetHdr { flags, ..VirtioNetHdr::default() }
    }

    /// What the kernel is told about the translation, whose IP header has this length.
    pub(crate) fn describe(
        &self,
        ip_header: usize,
        packet: Upper,
        protocol: u8,
        family: Family,
    ) -> VirtioNetHdr {
        let mut header = VirtioNetHdr::default();
        if self.verified {
            header.flags |= VirtioNetHdr::DATA_VALID;
        }
        if let (true, Some(offset)) = (self.partial, packet.checksum_at()) {
            header.flags = VirtioNetHdr::NEEDS_CSUM;
            header.csum_start = ip_header as u16;
            header.csum_offset = offset as u16;
        }
        if let Some(segments) = self.segments {
            let tcp = family.gso_tcp() | if segments.ecn { VirtioNetHdr::GSO_ECN } else { 0 };
            header.gso_type = if protocol == TCP { tcp } else { VirtioNetHdr::GSO_UDP_L4 };
            header.gso_size = segments.size.get();
            header.hdr_len = (ip_header + usize::from(segments.transport_header)) as u16;
        }
        header
    }

    /// How many packets the kernel makes of one with this many bytes behind the IP headers.
    pub(crate) fn count(&self, upper_length: usize) -> usize {
        self.segments.map_or(1, |segments| segments.count(upper_length))
    }

    /// The lengths of all of them together, in bytes, of a packet with these IP headers.
    pub(crate) fn wire_length(&self, ip_headers: usize, upper_length: usize) -> usize {
        let repeated = self.segments.map_or(0, |segments| {
            (segments.count(upper_length) - 1) * (ip_headers + usize::from(segments.transport_header))
        });
        ip_headers + upper_length + repeated
    }

    /// The length of the first of them.
    pub(crate) fn first(&self, upper_length: usize) -> usize {
        self.segments.map_or(upper_length, |segments| segments.upper_length(upper_length))
    }
}

//! Reading a frame as far as the joiner must know it.

use interproto::VirtioNetHdr;

use super::{Joins, MAX_FRAME, check};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// An IPv4 header without options, in bytes.
const IPV4: usize = 20;
/// An IPv6 header, in bytes.
const IPV6: usize = 40;

// The flags of TCP (RFC 9293 §3.1, RFC 3168 §6.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// The flags that only the last segment of a super-packet has.
pub(super) const ON_THE_LAST: u8 = FIN | PSH;

/// Where the flags lie in a TCP header.
pub(super) const FLAGS_AT: usize = 13;

/// Whose packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flow {
    /// The ports, the protocol and the IP version. That is where most flows differ.
    id: u64,
    /// The source and the destination. Of IPv4 only the first word is used.
    addresses: [u64; 4],
}

impl Flow {
    fn new(ports: [u8; 4], form: Form, source_and_destination: &[u8]) -> Self {
        let id = u64::from(u32::from_be_bytes(ports)) << 32 | u64::from(form.tcp) << 1 | u64::from(form.four);
        let mut addresses = [0; 4];
        for (word, bytes) in addresses.iter_mut().zip(source_and_destination.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Self { id, addresses }
    }
}

/// The headers of a plain packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// IPv4, and not IPv6.
    pub(super) four: bool,
    /// TCP, and not UDP.
    pub(super) tcp: bool,
}

impl Form {
    /// The length of the IP header, in bytes.
    pub(super) const fn ip_header(self) -> usize {
        if self.four { IPV4 } else { IPV6 }
    }

    pub(super) const fn protocol(self) -> u8 {
        if self.tcp { TCP } else { UDP }
    }

    /// Where the addresses lie in the IP header.
    pub(super) const fn addresses(self) -> core::ops::Range<usize> {
        if self.four { 12..20 } else { 8..40 }
    }

    /// Where the checksum lies in the transport header.
    pub(super) const fn checksum_at(self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    pub(super) const fn gso_type(self) -> u8 {
        match self {
            Self { tcp: false, .. } => VirtioNetHdr::GSO_UDP_L4,
            Self { four: true, .. } => VirtioNetHdr::GSO_TCPV4,
            Self { four: false, .. } => VirtioNetHdr::GSO_TCPV6,
        }
    }
}

/// A packet that can be joined with others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) flow: Flow,
    pub(super) form: Form,
    /// What all packets of a super-packet have in common beside their flow and the options of TCP.
    pub(super) common: [u64; 2],
    /// All headers, in bytes.
    pub(super) headers: usize,
    /// Behind the headers, in bytes. At least one.
    pub(super) payload: usize,
    /// The sequence number; 0 if it is not TCP.
    pub(super) sequence: u32,
    /// The flags of [`ON_THE_LAST`].
    pub(super) last: u8,
}

impl Packet {
    /// The sequence number of what may follow.
    pub(super) fn next_sequence(&self) -> u32 {
        if self.form.tcp { self.sequence.wrapping_add(self.payload as u32) } else { 0 }
    }

    /// Whether nothing can be joined to it.
    pub(super) fn is_last(&self) -> bool {
        self.last != 0 || VirtioNetHdr::LENGTH + self.headers + 2 * self.payload > MAX_FRAME
    }

    /// Whether each checksum of this packet, which is in `frame`, is what the kernel would make of it.
    pub(super) fn is_good(&self, frame: &[u8]) -> bool {
        check::is_good(frame, self.form)
    }
}

/// What a frame is to the joiner.
#[derive(Debug)]
pub(super) enum Class {
    /// It can be joined.
    Joinable(Packet),
    /// It cannot, and stays in the order of its flow.
    Alone(Flow),
    /// It is of no flow that is joined.
    Apart,
    /// It may be of any flow: a fragment, or no packet that can be read.
    Unreadable,
}

impl Class {
    #[inline]
    pub(super) fn of(frame: &[u8], joins: Joins) -> Self {
        if joins == Joins::default() {
            return Self::Apart;
        }
        let Some((said, packet)) = frame.split_first_chunk() else { return Self::Unreadable };
        let said = VirtioNetHdr::from_bytes(*said);
        let class = match packet.first().map(|first| first >> 4) {
            Some(4) => v4(&said, packet, joins),
            Some(6) => v6(&said, packet, joins),
            _ => None,
        };
        class.unwrap_or(Self::Unreadable)
    }
}

fn v4(said: &VirtioNetHdr, packet: &[u8], joins: Joins) -> Option<Class> {
    let header: &[u8; IPV4] = packet.first_chunk()?;
    let &[first, tos, l0, l1, _, _, f0, f1, ttl, protocol, ..] = header;
    let flags_and_offset = u16::from_be_bytes([f0, f1]);
    // More fragments, and the offset: a fragment has no ports, or had better have none.
    if flags_and_offset & 0x3fff != 0 {
        return None;
    }
    let length = usize::from(first & 0xf) * 4;
    if length < IPV4 {
        return None;
    }
    let Some(tcp) = joined(protocol, joins) else { return Some(Class::Apart) };
    let form = Form { four: true, tcp };
    let upper = packet.get(length..)?;
    let flow = Flow::new(*upper.first_chunk()?, form, &header[form.addresses()]);
    let reserved = flags_and_offset & 0x8000 != 0;
    let plain = length == IPV4 && usize::from(u16::from_be_bytes([l0, l1])) == packet.len() && !reserved;
    let common = u64::from_be_bytes([0, 0, 0, tos, f0, f1, ttl, 0]) << 16;
    Some(class(plain, said, upper, flow, form, common))
}

fn v6(said: &VirtioNetHdr, packet: &[u8], joins: Joins) -> Option<Class> {
    let (header, upper): (&[u8; IPV6], _) = packet.split_first_chunk()?;
    let &[c0, c1, c2, c3, l0, l1, next_header, hop_limit, ..] = header;
    let Some(tcp) = joined(next_header, joins) else {
        // Behind extension headers there may be anything.
        return if is_extension(next_header) { None } else { Some(Class::Apart) };
    };
    let form = Form { four: false, tcp };
    let flow = Flow::new(*upper.first_chunk()?, form, &header[form.addresses()]);
    let plain = usize::from(u16::from_be_bytes([l0, l1])) == upper.len();
    let common = u64::from_be_bytes([0, c0, c1, c2, c3, hop_limit, 0, 0]);
    Some(class(plain, said, upper, flow, form, common))
}

/// Whether it is TCP, and not UDP, if packets of this protocol are joined.
#[inline]
fn joined(protocol: u8, joins: Joins) -> Option<bool> {
    match protocol {
        TCP if joins.tcp => Some(true),
        UDP if joins.udp => Some(false),
        _ => None,
    }
}

/// Headers of IPv6 that another one follows (RFC 8200 §4, and the registry of extension header types).
const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254)
}

/// `common` is what the IP headers have in common; its lowest 16 bits are free.
#[inline]
fn class(plain: bool, said: &VirtioNetHdr, upper: &[u8], flow: Flow, form: Form, common: u64) -> Class {
    let known = VirtioNetHdr::NEEDS_CSUM | VirtioNetHdr::DATA_VALID;
    let plain = plain && said.gso_type == VirtioNetHdr::GSO_NONE && said.flags & !known == 0;
    let packet = match form.tcp {
        true if plain => tcp(upper, flow, form, common),
        false if plain => udp(said, upper, flow, form, common),
        _ => None,
    };
    packet.map_or(Class::Alone(flow), Class::Joinable)
}

#[inline]
fn tcp(upper: &[u8], flow: Flow, form: Form, common: u64) -> Option<Packet> {
    let header: &[u8; 20] = upper.first_chunk()?;
    let &[.., s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, u0, u1] = header;
    let length = usize::from(offset >> 4) * 4;
    let payload = upper.len().checked_sub(length).filter(|payload| *payload > 0)?;
    let ordinary = length >= header.len() && flags & (CWR | URG | ACK | RST | SYN) == ACK;
    ordinary.then_some(Packet {
        flow,
        form,
        // The urgent pointer says nothing without URG, and is copied into each segment all the same.
        common: [
            common | u64::from(u16::from_be_bytes([u0, u1])),
            u64::from_be_bytes([a0, a1, a2, a3, offset, flags & !ON_THE_LAST, w0, w1]),
        ],
        headers: form.ip_header() + length,
        payload,
        sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        last: flags & ON_THE_LAST,
    })
}

#[inline]
fn udp(said: &VirtioNetHdr, upper: &[u8], flow: Flow, form: Form, common: u64) -> Option<Packet> {
    let &[_, _, _, _, l0, l1, c0, c1] = upper.first_chunk()?;
    let payload = upper.len().checked_sub(8).filter(|payload| *payload > 0)?;
    let whole = usize::from(u16::from_be_bytes([l0, l1])) == upper.len();
    // A partial sum of zero does not say that there is no checksum.
    let has_checksum = said.flags & VirtioNetHdr::NEEDS_CSUM != 0 || (c0, c1) != (0, 0);
    (whole && has_checksum).then_some(Packet {
        flow,
        form,
        common: [common, 0],
        headers: form.ip_header() + 8,
        payload,
        sequence: 0,
        last: 0,
    })
}

/// How many packets a frame becomes that is written as it came, and the bytes of all these IP packets.
pub(super) fn on_the_wire(frame: &[u8]) -> (usize, usize) {
    let Some((said, packet)) = frame.split_first_chunk() else { return (1, 0) };
    let said = VirtioNetHdr::from_bytes(*said);
    let headers = usize::from(said.hdr_len);
    let payload = packet.len().saturating_sub(headers);
    if said.gso_type == VirtioNetHdr::GSO_NONE || said.gso_size == 0 || payload == 0 {
        return (1, packet.len());
    }
    let segments = payload.div_ceil(usize::from(said.gso_size));
    (segments, payload + segments * headers)
}

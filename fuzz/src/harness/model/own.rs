//! ICMP errors of the translator's own.

use super::super::{
    DropReason, ICMPV4, ICMPV6, Icmpv4Error, Icmpv6Error, Params, TCP, UDP, VirtioNetHdr, sums,
};
use super::read::Ip;
use super::{Read, segments};

/// Whether an error may be sent about this packet (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
pub(in super::super) fn may_be_answered(ip: &Ip) -> bool {
    let (from, to) = (&ip.source, &ip.destination);
    if ip.is_icmp() && !ip.is_echo() {
        return false;
    }
    if ip.six {
        let start_is_zero = from[..15].iter().all(|byte| *byte == 0);
        return from[0] != 0xff && to[0] != 0xff && !(start_is_zero && from[15] <= 1);
    }
    !ip.is_later() && from[0] != 0 && from[0] != 127 && from[0] < 224 && to[0] < 224
}

/// What the reason's own documentation promises.
pub(in super::super) fn is_answered(reason: DropReason, six: bool) -> bool {
    use DropReason as R;
    match reason {
        R::ForbiddenProtocol
        | R::FragmentedIcmp
        | R::FirstFragmentTooShort
        | R::HopLimitExceeded
        | R::TooBig => true,
        R::SegmentsLeft | R::DatagramTooLong => six,
        R::SourceRoute | R::UdpZeroChecksum | R::UdpZeroChecksumFragment => !six,
        _ => false,
    }
}

/// The packet as it is on the wire; of a super-packet the first segment, with the super-packet's checksum.
fn quote(packet: &[u8], ip: &Ip, said: &VirtioNetHdr) -> Vec<u8> {
    let mut packet = packet[..ip.headers + ip.body.len()].to_vec();
    if said.gso_type != 0 {
        let size = segments::first(ip, said);
        packet.truncate(ip.headers + size);
        if ip.six {
            let length = (packet.len() - 40) as u16;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
        } else {
            let length = packet.len() as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[10..12].fill(0);
            let sum = sums::folded(sums::of(&packet[..ip.headers]));
            packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
        }
        if ip.protocol == UDP {
            packet[ip.headers + 4..ip.headers + 6].copy_from_slice(&(size as u16).to_be_bytes());
        }
        debug_assert!(matches!(ip.protocol, TCP | UDP));
    }
    packet
}

/// An error from `own` about this packet, with its checksum.
pub(in super::super) fn four(
    error: Icmpv4Error,
    packet: &[u8],
    ip: &Ip,
    said: &VirtioNetHdr,
    own: &[u8],
    params: &Params,
) -> Vec<u8> {
    let (kind, code, rest) = match error {
        Icmpv4Error::DestinationUnreachable { code } => (3, code, 0),
        Icmpv4Error::FragmentationNeeded => {
            (3, 4, (params.six() - if ip.place.is_some() { 28 } else { 20 }).min(0xffff) as u32)
        }
        Icmpv4Error::TimeExceeded => (11, 0, 0),
    };
    let mut quote = quote(packet, ip, said);
    quote.truncate(576 - 28);
    let total = (28 + quote.len()) as u16;
    let mut answer = vec![0x45, 0xc0];
    answer.extend(total.to_be_bytes());
    answer.extend([0, 0, 0x40, 0, 64, ICMPV4, 0, 0]);
    answer.extend(own);
    answer.extend(&ip.source);
    let sum = sums::folded(sums::of(&answer));
    answer[10..12].copy_from_slice(&(!sum).to_be_bytes());
    message(&mut answer, (kind, code, rest), &quote, 0);
    answer
}

/// The same in IPv6; `None` where there is nothing to point at.
pub(in super::super) fn six(
    error: Icmpv6Error,
    packet: &[u8],
    ip: &Ip,
    said: &VirtioNetHdr,
    own: &[u8],
    params: &Params,
) -> Option<Vec<u8>> {
    let (kind, code, rest) = match error {
        Icmpv6Error::DestinationUnreachable { code } => (1, code, 0),
        Icmpv6Error::PacketTooBig => {
            let longer = if ip.place.is_some() { 28 } else { 20 };
            (2, 0, (u32::from(params.ipv4_mtu.max(68)) + longer).max(1280))
        }
        Icmpv6Error::TimeExceeded => (3, 0, 0),
        Icmpv6Error::RoutingHeader => (4, 0, ip.segments_left_at? as u32),
        Icmpv6Error::IncompleteHeaderChain => (4, 3, 0),
    };
    let mut quote = quote(packet, ip, said);
    quote.truncate(1280 - 48);
    let length = 8 + quote.len();
    let mut answer = vec![0x60, 0, 0, 0];
    answer.extend((length as u16).to_be_bytes());
    answer.extend([ICMPV6, 64]);
    answer.extend(own);
    answer.extend(&ip.source);
    message(&mut answer, (kind, code, rest), &quote, sums::pseudo_of(own, &ip.source, ICMPV6, length));
    Some(answer)
}

fn message(answer: &mut Vec<u8>, (kind, code, rest): (u8, u8, u32), quote: &[u8], pseudo: u64) {
    let at = answer.len();
    answer.extend([kind, code, 0, 0]);
    answer.extend(rest.to_be_bytes());
    answer.extend(quote);
    let sum = sums::folded(pseudo + sums::of(&answer[at..]));
    answer[at + 2..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

//! What a kernel and a device do with packets that are unfinished: partial checksums, and super-packets that are cut into
//! segments. The checksums are etherparse's, and nothing is the crate's but the description itself.

use interproto::VirtioNetHdr;

use super::packets::*;
use super::referee;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const CWR: u8 = 0x80;

pub(crate) fn checksum_offset(protocol: u8) -> usize {
    match protocol {
        TCP => 16,
        ICMPV4 | ICMPV6 => 2,
        _ => 6,
    }
}

/// The IP headers of a packet that is no fragment, in bytes.
pub(crate) fn headers(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        return usize::from(packet[0] & 0xf) * 4;
    }
    let (mut next, mut at) = (packet[6], 40);
    while matches!(next, 0 | ROUTING | DESTINATION_OPTIONS) {
        (next, at) = (packet[at], at + 8 + usize::from(packet[at + 1]) * 8);
    }
    at
}

/// Puts into the packet what a kernel leaves there for a device that computes checksums: the pseudo-header's sum.
pub(crate) fn make_partial(packet: &mut [u8], protocol: u8) -> VirtioNetHdr {
    let header = headers(packet);
    let offset = checksum_offset(protocol);
    let length = packet.len() - header;
    // The sum over a transport part of zeros, with its length, is that of the pseudo-header.
    let sum = !checksum(referee::flow(packet), protocol, &vec![0; length]);
    packet[header + offset..header + offset + 2].copy_from_slice(&sum.to_be_bytes());
    VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        csum_start: header as u16,
        csum_offset: offset as u16,
        ..VirtioNetHdr::default()
    }
}

/// Does what a device does: adds up what lies behind `csum_start`, the partial sum among it.
pub(crate) fn complete(packet: &[u8], offload: &VirtioNetHdr) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if offload.flags & VirtioNetHdr::NEEDS_CSUM != 0 {
        let (start, offset) = (usize::from(offload.csum_start), usize::from(offload.csum_offset));
        let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[start..]).ones_complement();
        let sum = if sum == 0 && offset == 6 { 0xffff } else { sum.to_be() };
        packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Cuts a super-packet as Linux does: identifications count up, FIN and PSH are the last one's, CWR is the first one's, and
/// checksums go on from the partial one.
pub(crate) fn cut(packet: &[u8], offload: &VirtioNetHdr) -> Vec<Vec<u8>> {
    if offload.gso_type == VirtioNetHdr::GSO_NONE {
        return vec![complete(packet, offload)];
    }
    let (six, at) = (packet[0] >> 4 == 6, usize::from(offload.csum_start));
    let tcp = offload.gso_type & !VirtioNetHdr::GSO_ECN != VirtioNetHdr::GSO_UDP_L4;
    let expected = match (tcp, six) {
        (true, true) => VirtioNetHdr::GSO_TCPV6,
        (true, false) => VirtioNetHdr::GSO_TCPV4,
        (false, _) => VirtioNetHdr::GSO_UDP_L4,
    };
    assert_eq!(offload.gso_type & !VirtioNetHdr::GSO_ECN, expected, "the segmentation of this family");
    assert_eq!(at, headers(packet), "the checksum begins at the transport header");
    let protocol = if tcp { TCP } else { UDP };
    let transport = if tcp { usize::from(packet[at + 12] >> 4) * 4 } else { 8 };
    assert_eq!(usize::from(offload.hdr_len), at + transport, "all headers");
    let payload = &packet[at + transport..];
    let pieces: Vec<_> = payload.chunks(usize::from(offload.gso_size)).collect();
    let one = |(index, piece): (usize, &&[u8])| {
        let mut segment = [&packet[..at + transport], piece].concat();
        let length = segment.len();
        if six {
            segment[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        } else {
            let identification = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
            segment[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            segment[4..6].copy_from_slice(&identification.to_be_bytes());
            segment[10..12].fill(0);
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&segment[..at]).ones_complement();
            segment[10..12].copy_from_slice(&sum.to_be().to_be_bytes());
        }
        if tcp {
            let sequence = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((index * usize::from(offload.gso_size)) as u32);
            segment[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            if index + 1 < pieces.len() {
                segment[at + 13] &= !(FIN | PSH);
            }
            if index > 0 {
                segment[at + 13] &= !CWR;
            }
        } else {
            segment[at + 4..at + 6].copy_from_slice(&((length - at) as u16).to_be_bytes());
        }
        let checksum_at = at + checksum_offset(protocol);
        // The kernel's sum is that of the whole packet's pseudo-header: it is believed, but for the length in it.
        let shorter = !((packet.len() - length) as u16);
        let sum = etherparse::checksum::Sum16BitWords::new()
            .add_slice(&segment[at..])
            .add_2bytes(shorter.to_be_bytes())
            .ones_complement();
        let sum = if sum == 0 && !tcp { 0xffff } else { sum.to_be() };
        segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    };
    pieces.iter().enumerate().map(one).collect()
}

/// A TCP super-packet without the SYN of [`tcp_packet`], and what the kernel says about it.
pub(crate) fn super_tcp(packet: &Ip, flags: u8, gso_size: u16, ecn: bool) -> (Vec<u8>, VirtioNetHdr) {
    let mut bytes = packet.bytes();
    let at = headers(&bytes);
    bytes[at + 13] = flags;
    let offload = make_partial(&mut bytes, TCP);
    let tcp = if bytes[0] >> 4 == 4 { VirtioNetHdr::GSO_TCPV4 } else { VirtioNetHdr::GSO_TCPV6 };
    let gso_type = if ecn { tcp | VirtioNetHdr::GSO_ECN } else { tcp };
    let hdr_len = at as u16 + u16::from(bytes[at + 12] >> 4) * 4;
    (bytes, VirtioNetHdr { gso_type, gso_size, hdr_len, ..offload })
}

pub(crate) fn super_udp(packet: &Ip, gso_size: u16) -> (Vec<u8>, VirtioNetHdr) {
    let mut bytes = packet.bytes();
    let offload = make_partial(&mut bytes, UDP);
    let hdr_len = offload.csum_start + 8;
    (bytes, VirtioNetHdr { gso_type: VirtioNetHdr::GSO_UDP_L4, gso_size, hdr_len, ..offload })
}

//! What is handed over unfinished, and what leaves in several packets.

use super::super::{DropReason, Params, TCP, UDP, VirtioNetHdr, packets::checksum_at};
use super::read::{Ip, Place};
use super::{Head, Read};

/// Whether what was said of a packet fits it; whether its checksum is partial.
pub(super) fn check(ip: &Ip, said: &VirtioNetHdr, wrong: &mut Vec<DropReason>) -> bool {
    let (partial, super_packet) = (said.flags & 1 != 0, said.gso_type != 0);
    let mut fits = !(ip.is_fragment() && (partial || super_packet));
    if partial {
        let checksum = checksum_at(ip.protocol).filter(|_| ip.has_ports() || ip.is_icmp());
        fits &= usize::from(said.csum_start) == ip.headers && checksum == Some(usize::from(said.csum_offset));
    }
    let tcp = if ip.six { 4 } else { 1 };
    fits &= match (said.gso_type, ip.protocol) {
        (0, _) => true,
        (5, UDP) => partial && said.gso_size > 0,
        (kind, TCP) if kind & 0x7f == tcp => partial && said.gso_size > 0,
        _ => false,
    };
    if !fits {
        wrong.push(DropReason::BadOffload);
    }
    partial
}

/// The transport header of a super-packet.
pub(in super::super) fn header(ip: &Ip) -> usize {
    if ip.protocol == TCP { usize::from(ip.body.get(12).map_or(5, |byte| byte >> 4)) * 4 } else { 8 }
}

/// The bytes behind the IP headers of the packet, or of the first segment.
pub(in super::super) fn first(ip: &Ip, said: &VirtioNetHdr) -> usize {
    let all = ip.body.len();
    if said.gso_type == 0 { all } else { all.min(header(ip) + usize::from(said.gso_size)) }
}

/// The segments of a super-packet, without checksums.
pub(in super::super) fn split(ip: &Ip, said: &VirtioNetHdr) -> Vec<Vec<u8>> {
    let (transport, payload) = ip.body.split_at(header(ip).min(ip.body.len()));
    let mut parts: Vec<_> = payload.chunks(usize::from(said.gso_size)).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let last = parts.len() - 1;
    let segment = |(number, part): (usize, &&[u8])| {
        let mut segment = [transport, part].concat();
        if ip.protocol == UDP {
            let length = segment.len() as u16;
            segment[4..6].copy_from_slice(&length.to_be_bytes());
            return segment;
        }
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        let sequence = sequence.wrapping_add((number * usize::from(said.gso_size)) as u32);
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        if number < last {
            segment[13] &= !0x09;
        }
        if number > 0 {
            segment[13] &= !0x80;
        }
        segment
    };
    parts.iter().enumerate().map(segment).collect()
}

impl Head<'_> {
    /// All IPv6 packets that an IPv4 packet becomes.
    pub(super) fn six(
        &self,
        params: &Params,
        size: usize,
        said: &VirtioNetHdr,
        wrong: &mut Vec<DropReason>,
    ) -> Vec<Vec<u8>> {
        let ip = self.ip;
        let longest = 40 + if ip.place.is_some() { 8 } else { 0 } + size;
        if ip.dont_fragment || longest <= params.cut() || !wrong.is_empty() {
            if ip.dont_fragment && longest > params.six() && !self.is_error {
                wrong.push(DropReason::TooBig);
            }
            return vec![self.one(&ip.body, ip.body.len(), ip.place)];
        }
        let number = u32::from(ip.identification);
        if said.gso_type == 0 {
            return self.cut(&ip.body, ip.place.unwrap_or((number, 0, false)), params.cut());
        }
        let mut packets = Vec::new();
        for (at, segment) in split(ip, said).iter().enumerate() {
            let number = u32::from(ip.identification.wrapping_add(at as u16));
            if 40 + segment.len() <= params.cut() {
                packets.push(self.one(segment, segment.len(), None));
            } else {
                packets.extend(self.cut(segment, (number, 0, false), params.cut()));
            }
        }
        packets
    }

    fn cut(&self, body: &[u8], (number, offset, more): Place, most: usize) -> Vec<Vec<u8>> {
        let each = (most - 48) / 8 * 8;
        let mut packets = Vec::new();
        for (at, part) in body.chunks(each).enumerate() {
            let more = more || (at + 1) * each < body.len();
            let place = (number, offset + (at * each) as u16, more);
            packets.push(self.one(part, part.len(), Some(place)));
        }
        packets
    }
}

//! Reading a packet, and all that is wrong with it.

use super::super::{
    DCCP, DropReason, FRAGMENT, ICMPV4, ICMPV6, IGMP, OPTIONS, ROUTING, TCP, UDP, UDP_LITE, sums,
};
use super::read6::{icmp, ports, read6};
use super::word;

/// A fragment's place: identification, offset in bytes, M bit.
pub(crate) type Place = (u32, u16, bool);

/// A packet as far as it could be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ip {
    pub(crate) six: bool,
    pub(crate) class: u8,
    pub(crate) hops: u8,
    pub(crate) protocol: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) identification: u16,
    /// Of an IPv6 packet its fragment header. Of an IPv4 packet there is one only if it is a fragment.
    pub(crate) place: Option<Place>,
    /// Where the first routing header with segments left has its Segments Left field.
    pub(crate) segments_left_at: Option<usize>,
    pub(crate) source: Vec<u8>,
    pub(crate) destination: Vec<u8>,
    /// The length of all headers in front of the transport header.
    pub(crate) headers: usize,
    /// What lies behind them.
    pub(crate) body: Vec<u8>,
    /// How long that is by what the headers say. A quote may have less.
    pub(crate) promised: usize,
}

impl Ip {
    pub(crate) fn is_later(&self) -> bool {
        self.place.is_some_and(|(_, offset, _)| offset > 0)
    }

    pub(crate) fn is_first(&self) -> bool {
        self.place.is_some_and(|(_, offset, more)| offset == 0 && more)
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.is_later() || self.is_first()
    }

    pub(crate) fn is_icmp(&self) -> bool {
        self.protocol == if self.six { ICMPV6 } else { ICMPV4 }
    }

    pub(crate) fn is_echo(&self) -> bool {
        let [request, reply] = if self.six { [128, 129] } else { [8, 0] };
        self.is_icmp()
            && !self.is_later()
            && self.body.first().is_some_and(|kind| [request, reply].contains(kind))
    }

    pub(crate) fn is_error(&self) -> bool {
        self.is_icmp() && !self.is_fragment() && !self.is_echo()
    }

    /// Ports, where they can be seen.
    pub(crate) fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP | UDP_LITE | DCCP) && !self.is_later()
    }
}

/// Reads a packet, or one inside an error, of which the end may be missing. `wrong` gets all reasons to refuse it.
pub(crate) fn read(packet: &[u8], six: bool, quote: bool, wrong: &mut Vec<DropReason>) -> Option<Ip> {
    let ip = if six { read6(packet, quote, wrong) } else { read4(packet, quote, wrong) }?;
    let forbidden: &[u8] = if six { &[ICMPV4] } else { &[0, ROUTING, FRAGMENT, ICMPV6, OPTIONS] };
    if forbidden.contains(&ip.protocol) {
        wrong.push(DropReason::ForbiddenProtocol);
    } else if !six && ip.protocol == IGMP {
        wrong.push(DropReason::IcmpNotTranslatable);
    } else if ip.is_icmp() {
        icmp(&ip, quote, wrong);
    } else if ip.has_ports() {
        ports(&ip, quote, wrong);
    }
    Some(ip)
}

fn read4(packet: &[u8], quote: bool, wrong: &mut Vec<DropReason>) -> Option<Ip> {
    if packet.len() < 20 {
        wrong.push(DropReason::Truncated);
        return None;
    }
    let (headers, total) = (usize::from(packet[0] & 0xf) * 4, usize::from(word(packet, 2)));
    if packet[0] >> 4 != 4 || headers < 20 || total < headers {
        wrong.push(DropReason::MalformedHeader);
        return None;
    }
    let present = total.min(packet.len());
    if present < headers || (!quote && present < total) {
        wrong.push(DropReason::Truncated);
        return None;
    }
    let (flags, offset) = (word(packet, 6), (word(packet, 6) & 0x1fff) * 8);
    let more = flags & 0x2000 != 0;
    let length = total - headers;
    if !quote {
        if !sums::of(&packet[..headers]).is_multiple_of(0xffff) {
            wrong.push(DropReason::BadIpv4Checksum);
        }
        options(&packet[20..headers], wrong);
        if (more && length % 8 != 0) || headers + usize::from(offset) + length > 65_535 {
            wrong.push(DropReason::MalformedHeader);
        }
    }
    let identification = word(packet, 4);
    Some(Ip {
        six: false,
        class: packet[1],
        hops: packet[8],
        protocol: packet[9],
        dont_fragment: flags & 0x4000 != 0,
        identification,
        place: (more || offset > 0).then_some((u32::from(identification), offset, more)),
        segments_left_at: None,
        source: packet[12..16].to_vec(),
        destination: packet[16..20].to_vec(),
        headers,
        body: packet[headers..present].to_vec(),
        promised: length,
    })
}

fn options(mut options: &[u8], wrong: &mut Vec<DropReason>) {
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (0, _) => return,
            (1, _) => rest,
            (_, [length, ..]) if *length >= 2 && usize::from(*length) <= options.len() => {
                let (option, behind) = options.split_at(usize::from(*length));
                if matches!(kind, 131 | 137) {
                    match option.get(2) {
                        Some(pointer @ 4..) if pointer <= length => wrong.push(DropReason::SourceRoute),
                        Some(4..) => {}
                        _ => wrong.push(DropReason::MalformedOptions),
                    }
                }
                behind
            }
            _ => return wrong.push(DropReason::MalformedOptions),
        }
    }
}

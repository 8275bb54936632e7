//! Makes packets up: sound ones, and then perhaps damage.

use super::{
    DCCP, FRAGMENT, HOST4, HOST6, ICMPV4, ICMPV6, IGMP, OPTIONS, PEER4, PEER6, ROUTING, Result, TCP, UDP,
    UDP_LITE, Unstructured, VirtioNetHdr, once, sums,
};

/// Makes packets out of the fuzzer's bytes.
pub(super) struct Maker<'m, 'u> {
    pub(super) u: &'m mut Unstructured<'u>,
    /// Only such as can be translated.
    pub(super) sound: bool,
    /// The packet will be shown as one that was put together from fragments.
    pub(super) is_put_together: bool,
}

/// A packet that was made.
pub(super) struct Made {
    pub(super) packet: Vec<u8>,
    pub(super) headers: usize,
    pub(super) protocol: u8,
    pub(super) fragmented: bool,
    pub(super) dont_fragment: bool,
}

impl Maker<'_, '_> {
    /// True about once in `of`, and never in a sound packet.
    fn wild(&mut self, of: u8) -> Result<bool> {
        Ok(once(self.u, of)? && !self.sound)
    }

    /// A packet of either family. Inside an error, `depth` grows.
    pub(super) fn packet(&mut self, six: bool, depth: u8) -> Result<Made> {
        let mut packet = if six { self.header6()? } else { self.header4()? };
        let mut fragment = once(self.u, 6)?;
        let (offset, mut more, identification): (u16, bool, u32) =
            if fragment { self.u.arbitrary()? } else { (0, false, 0) };
        // Half of all fragments are first ones, and the end of a sound one lies in the longest datagram.
        let most = if self.sound { 0x0fff } else { 0x1fff };
        let offset = if self.u.arbitrary()? { 0 } else { offset & most };
        if six {
            self.extensions(&mut packet)?;
        } else if once(self.u, 6)? {
            self.options(&mut packet)?;
        }
        let protocol = self.protocol(six, fragment)?;
        let is_icmp = matches!(protocol, ICMPV4 | ICMPV6);
        if self.sound && is_icmp && (depth > 0 || !self.is_put_together) {
            // An IPv6 fragment header may be there all the same (RFC 6946).
            more = false;
            fragment &= six;
        }
        let offset = if self.sound && is_icmp && (depth > 0 || !self.is_put_together) { 0 } else { offset };
        let mut headers = packet.len();
        if six && fragment {
            let place = (offset << 3 | u16::from(more)).to_be_bytes();
            let number = identification.to_be_bytes();
            packet.extend([protocol, 0, place[0], place[1], number[0], number[1], number[2], number[3]]);
            headers += 8;
        } else if fragment {
            let flags = u16::from(more) << 13 | offset | u16::from(packet[6] & 0x40) << 8;
            packet[6..8].copy_from_slice(&flags.to_be_bytes());
            packet[4..6].copy_from_slice(&(identification as u16).to_be_bytes());
        }
        self.upper(&mut packet, headers, protocol, depth)?;
        if fragment && more {
            // All fragments but the last hold a multiple of eight bytes.
            let length = (packet.len() - headers) / 8 * 8;
            packet.resize(headers + if self.sound { length + 8 } else { length }, 0x77);
        }
        finish(&mut packet, six, headers, protocol, fragment);
        let fragmented = fragment && (more || offset > 0);
        // A datagram without a checksum; one that is a fragment can be helped only once it was put together.
        let is_helped = !fragmented || (self.is_put_together && depth == 0);
        if !six && protocol == UDP && once(self.u, 8)? && (is_helped || !self.sound) {
            packet[headers + 6..headers + 8].fill(0);
        }
        let dont_fragment = !six && packet[6] & 0x40 != 0;
        Ok(Made { packet, headers, protocol, fragmented, dont_fragment })
    }

    fn header6(&mut self) -> Result<Vec<u8>> {
        let mut packet = Vec::with_capacity(2048);
        packet.extend((6 << 28 | self.u.arbitrary::<u32>()? & 0x0fff_ffff).to_be_bytes());
        // The end of the chain, which `chain` looks for.
        packet.extend([0, 0, 59, self.hops()?]);
        let (mut source, mut destination) = (HOST6.octets(), PEER6.octets());
        if once(self.u, 16)? {
            source = self.u.arbitrary()?;
        }
        if once(self.u, 32)? {
            destination = self.u.arbitrary()?;
        }
        packet.extend(source);
        packet.extend(destination);
        Ok(packet)
    }

    fn header4(&mut self) -> Result<Vec<u8>> {
        let mut packet = Vec::with_capacity(2048);
        packet.extend([0x45, self.u.arbitrary()?, 0, 0, 0, 0, 0, 0]);
        packet[4..6].copy_from_slice(&self.u.arbitrary::<u16>()?.to_be_bytes());
        packet[6] = u8::from(self.u.arbitrary::<bool>()?) << 6;
        packet.extend([self.hops()?, 0, 0, 0]);
        let (mut source, mut destination) = (PEER4.octets(), HOST4.octets());
        if once(self.u, 16)? {
            source = self.u.arbitrary()?;
        }
        if once(self.u, 32)? {
            destination = self.u.arbitrary()?;
        }
        packet.extend(source);
        packet.extend(destination);
        Ok(packet)
    }

    /// Mostly enough, sometimes none.
    fn hops(&mut self) -> Result<u8> {
        if self.wild(32)? { self.u.int_in_range(0..=2) } else { Ok(self.u.arbitrary::<u8>()? | 2) }
    }

    fn extensions(&mut self, packet: &mut Vec<u8>) -> Result<()> {
        if !once(self.u, 6)? {
            return Ok(());
        }
        let number = if self.wild(32)? { 9 } else { self.u.int_in_range(1..=6)? };
        let mut place = 6;
        for _ in 0..number {
            let kind = *self.u.choose(&[OPTIONS, ROUTING, 0])?;
            let length = self.u.int_in_range(0..=2_u8)?;
            let left = if self.wild(16)? { self.u.arbitrary()? } else { 0 };
            packet[place] = kind;
            place = packet.len();
            packet.extend([59, length, 4, left, 0, 0, 0, 0]);
            packet.resize(packet.len() + usize::from(length) * 8, 0);
        }
        Ok(())
    }

    fn options(&mut self, packet: &mut Vec<u8>) -> Result<()> {
        while packet.len() < 56 && self.u.arbitrary()? {
            match self.u.int_in_range(0..=4)? {
                // A source route, mostly one that has run out.
                1 if packet.len() <= 53 => {
                    let pointer = if self.wild(8)? { 4 } else { 8 };
                    packet.extend([*self.u.choose(&[131, 137])?, 7, pointer, 192, 0, 2, 9]);
                }
                2 => packet.extend([148, 4, 0, 0]),
                3 => packet.extend([7, 3, 4]),
                4 if self.wild(8)? => packet.extend(self.u.arbitrary::<[u8; 2]>()?),
                _ => packet.push(1),
            }
        }
        packet.resize(packet.len().next_multiple_of(4).min(60), 0);
        Ok(())
    }

    fn protocol(&mut self, six: bool, fragment: bool) -> Result<u8> {
        let icmp = if six { ICMPV6 } else { ICMPV4 };
        let protocol = match self.u.int_in_range(0..=31_u8)? {
            0..=7 => TCP,
            8..=15 => UDP,
            16 => UDP_LITE,
            17 => DCCP,
            18..=29 => icmp,
            30 => *self.u.choose(&[50, 51, 47, 132, 41])?,
            _ => self.u.arbitrary()?,
        };
        let is_igmp = !six && protocol == IGMP;
        let is_refused =
            matches!(protocol, 0 | ICMPV4 | ROUTING | FRAGMENT | ICMPV6 | OPTIONS) && protocol != icmp;
        let is_extension = six && fragment && matches!(protocol, 51 | 135 | 139 | 140);
        Ok(if self.sound && (is_refused || is_igmp || is_extension) { 47 } else { protocol })
    }

    fn payload(&mut self, packet: &mut Vec<u8>) -> Result<()> {
        let length = if once(self.u, 10)? {
            // Packets whose length decides something, on either side of the limit (and MTUs of RFC 1191).
            let limits = [296, 508, 576, 1006, 1240, 1260, 1280, 1300, 1492, 1500, 2002];
            let limit: usize = *self.u.choose(&limits)? + self.u.int_in_range(0..=16)? - 8;
            limit.saturating_sub(packet.len())
        } else if once(self.u, 16)? {
            self.u.int_in_range(0..=1700_usize)?
        } else if once(self.u, 64)? {
            self.u.int_in_range(0..=9000_usize)?
        } else {
            usize::from(self.u.arbitrary::<u8>()?)
        };
        let (first, step): (u8, u8) = self.u.arbitrary()?;
        packet.extend((0..length).map(|at| first.wrapping_add(step.wrapping_mul(at as u8))));
        Ok(())
    }

    fn upper(&mut self, packet: &mut Vec<u8>, at: usize, protocol: u8, depth: u8) -> Result<()> {
        match protocol {
            TCP => {
                let options = self.u.int_in_range(0..=10_u8)?;
                let ports: [u8; 12] = self.u.arbitrary()?;
                packet.extend(ports);
                packet.extend([(5 + options) << 4, self.u.arbitrary()?, 16, 0, 0, 0, 0, 0]);
                packet.extend(tcp_options(usize::from(options) * 4, &ports));
                self.payload(packet)
            }
            UDP => {
                let ports: [u8; 4] = self.u.arbitrary()?;
                packet.extend(ports);
                packet.extend([0; 4]);
                self.payload(packet)?;
                let length = (packet.len() - at) as u16;
                packet[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            UDP_LITE | DCCP => {
                let header: [u8; 16] = self.u.arbitrary()?;
                packet.extend(header);
                self.payload(packet)
            }
            ICMPV4 | ICMPV6 => self.icmp(packet, protocol == ICMPV6, depth),
            _ => self.payload(packet),
        }
    }

    fn icmp(&mut self, packet: &mut Vec<u8>, six: bool, depth: u8) -> Result<()> {
        let [request, reply] = if six { [128, 129] } else { [8, 0] };
        let is_echo: bool = self.u.arbitrary()?;
        if depth > 1 || is_echo || (depth > 0 && self.sound) {
            packet.extend([if self.u.arbitrary()? { request } else { reply }, 0, 0, 0]);
            packet.extend(self.u.arbitrary::<[u8; 4]>()?);
            return self.payload(packet);
        }
        let kinds: &[u8] = if six { &[1, 2, 3, 4] } else { &[3, 3, 11, 12] };
        let kind = *self.u.choose(kinds)?;
        let kind = if self.wild(32)? { self.u.arbitrary()? } else { kind };
        let codes: &[u8] = match (six, kind) {
            (true, 1) => &[0, 1, 2, 3, 4],
            (true, 4) => &[0, 0, 1],
            (false, 3) => &[0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15],
            (false, 12) => &[0, 2],
            _ => &[0, 1],
        };
        let code = *self.u.choose(codes)?;
        let code = if self.wild(16)? { self.u.int_in_range(0..=20)? } else { code };
        packet.extend([kind, code, 0, 0]);
        let at = packet.len();
        packet.extend(self.rest(six, kind)?.to_be_bytes());
        let mut inside = self.packet(six, depth + 1)?;
        turn(&mut inside.packet, six);
        if self.u.arbitrary()? {
            // RFC 792 wants eight bytes behind the headers inside.
            let least = if self.sound { inside.headers + 8 } else { 28 };
            inside.packet.truncate(self.u.int_in_range(28..=600_usize)?.max(least));
        }
        let mut inside = inside.packet;
        // Types 2 and 4 of ICMPv6 have no length attribute.
        let has_attribute = !six || matches!(kind, 1 | 3);
        if once(self.u, 3)? && (has_attribute || !self.sound) {
            let unit = if six { 8 } else { 4 };
            // The field has eight bits: what does not fit is cut.
            let length = inside.len().max(128).next_multiple_of(unit).min(255 * unit);
            inside.resize(length, 0);
            let length = if self.wild(16)? { self.u.arbitrary()? } else { (length / unit) as u8 };
            packet[at + usize::from(!six)] = length;
            let extensions: u16 = match self.u.int_in_range(0..=7)? {
                0 => self.u.int_in_range(0..=2000)?,
                // What fits into 576 bytes, and into 1280, behind the least packet inside.
                1 => self.u.int_in_range(400..=430)?,
                2 => self.u.int_in_range(1085..=1115)?,
                _ => self.u.int_in_range(0..=64)?,
            };
            inside.extend([0x20, 0, 0, 0]);
            inside.extend((0..extensions).map(|at| at as u8 | 0x80));
        }
        packet.extend(inside);
        Ok(())
    }

    /// The four bytes behind an error's checksum. Pointers are small, and MTUs lie around those of real links.
    fn rest(&mut self, six: bool, kind: u8) -> Result<u32> {
        let wild = self.wild(2)?;
        let rest: u32 = match self.u.int_in_range(0..=3)? {
            0 => self.u.int_in_range(0..=44_u32)? << if six { 0 } else { 24 },
            1 => self.u.int_in_range(0..=1600)?,
            2 => 0,
            _ => self.u.arbitrary()?,
        };
        let pointers: &[u32] =
            if six { &[0, 1, 4, 5, 6, 7, 8, 23, 24, 39] } else { &[0, 1, 2, 3, 8, 9, 12, 15, 16, 19] };
        let pointer = *self.u.choose(pointers)?;
        // Otherwise no length attribute, and a pointer to what is there on the other side too.
        Ok(match (six, kind) {
            _ if wild => rest,
            (true, 1 | 3) => rest & 0x00ff_ffff,
            (true, 4) => pointer,
            (true, _) => rest,
            (false, 12) => pointer << 24,
            (false, _) => rest & 0xff00_ffff,
        })
    }

    /// What a kernel says about a packet that it hands over unfinished, and makes it so; sometimes anything.
    pub(super) fn offload(
        &mut self,
        packet: &mut [u8],
        headers: usize,
        protocol: u8,
        fragmented: bool,
    ) -> Result<VirtioNetHdr> {
        if self.wild(8)? {
            return Ok(VirtioNetHdr::from_bytes(self.u.arbitrary()?));
        }
        let whole = !fragmented || self.wild(4)?;
        let Some(at) = checksum_at(protocol).filter(|at| whole && headers + at + 2 <= packet.len()) else {
            let flags = if self.u.arbitrary()? { VirtioNetHdr::DATA_VALID } else { 0 };
            return Ok(VirtioNetHdr { flags, ..VirtioNetHdr::default() });
        };
        let six = packet[0] >> 4 == 6;
        let pseudo =
            if protocol == ICMPV4 { 0 } else { sums::pseudo(packet, protocol, packet.len() - headers) };
        let sum = !sums::checksum(pseudo);
        packet[headers + at..headers + at + 2].copy_from_slice(&sum.to_be_bytes());
        let tcp = if six { VirtioNetHdr::GSO_TCPV6 } else { VirtioNetHdr::GSO_TCPV4 };
        let gso_type = match protocol {
            TCP if self.u.arbitrary()? => tcp | if self.u.arbitrary()? { VirtioNetHdr::GSO_ECN } else { 0 },
            UDP if self.u.arbitrary()? => VirtioNetHdr::GSO_UDP_L4,
            _ => VirtioNetHdr::GSO_NONE,
        };
        let least = u16::from(self.sound);
        let gso_size = match self.u.int_in_range(0..=2)? {
            0 => self.u.int_in_range(least..=64)?,
            1 => self.u.int_in_range(least..=1500)?,
            _ => self.u.int_in_range(1200..=2500)?,
        };
        let said = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            gso_type,
            hdr_len: 0,
            gso_size: if gso_type == 0 { 0 } else { gso_size },
            csum_start: headers as u16,
            csum_offset: at as u16,
        };
        if !self.wild(6)? {
            return Ok(said);
        }
        // What fits but for one bit.
        let mut bytes = said.to_bytes();
        bytes[self.u.int_in_range(0..=VirtioNetHdr::LENGTH - 1)?] ^= 1 << self.u.int_in_range(0..=7_u8)?;
        Ok(VirtioNetHdr::from_bytes(bytes))
    }
}

/// So many bytes of TCP options: mostly the maximum segment size somewhere among others that are one byte long, sometimes anything.
fn tcp_options(length: usize, seed: &[u8; 12]) -> Vec<u8> {
    if seed[8] >= 0xe0 {
        return seed.iter().copied().cycle().take(length).collect();
    }
    let mut options = vec![1; length];
    let at = usize::from(seed[8]) % 8;
    if let Some(place) = options.get_mut(at..at + 4) {
        place.copy_from_slice(&[2, 4, seed[9], seed[10]]);
    }
    options
}

/// Lengths, next headers and checksums as they should be.
fn finish(packet: &mut [u8], six: bool, headers: usize, protocol: u8, fragment: bool) {
    let length = packet.len();
    if six {
        packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        chain(packet, if fragment { FRAGMENT } else { protocol });
    } else {
        packet[0] = 0x40 | (headers / 4) as u8;
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet[9] = protocol;
        header_checksum(packet);
    }
    if let Some(at) = checksum_at(protocol).filter(|at| headers + at + 2 <= length) {
        packet[headers + at..headers + at + 2].fill(0);
        let pseudo = if protocol == ICMPV4 { 0 } else { sums::pseudo(packet, protocol, length - headers) };
        let sum = sums::checksum(pseudo + sums::of(&packet[headers..]));
        let sum = if sum == 0 && matches!(protocol, UDP | UDP_LITE) { 0xffff } else { sum };
        packet[headers + at..headers + at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

pub(super) fn header_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 0xf) * 4;
    let sum = sums::checksum(sums::of(&packet[..header.min(packet.len())]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Where a checksum over a pseudo-header lies.
pub(super) fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP | UDP_LITE | DCCP => Some(6),
        ICMPV4 | ICMPV6 => Some(2),
        _ => None,
    }
}

/// The last extension header, or the IPv6 header, points at what follows.
fn chain(packet: &mut [u8], last: u8) {
    let (mut place, mut at) = (6, 40);
    while packet[place] == OPTIONS || packet[place] == ROUTING || packet[place] == 0 {
        let length = 8 + usize::from(packet[at + 1]) * 8;
        (place, at) = (at, at + length);
    }
    packet[place] = last;
}

/// The packet inside an error went the other way.
fn turn(packet: &mut [u8], six: bool) {
    let (from, length) = if six { (8, 16) } else { (12, 4) };
    let (before, after) = packet.split_at_mut(from + length);
    before[from..].swap_with_slice(&mut after[..length]);
}

/// Breaks a packet.
pub(super) fn damage(u: &mut Unstructured<'_>, packet: &mut Vec<u8>) -> Result<()> {
    for _ in 0..u.int_in_range(1..=3)? {
        let place = u.int_in_range(0..=packet.len().saturating_sub(1).min(255))?;
        match u.int_in_range(0..=4)? {
            0 => packet.truncate(u.int_in_range(0..=packet.len())?),
            // Something behind the packet, as behind a short frame.
            1 => packet.resize(packet.len() + usize::from(u.arbitrary::<u8>()?), 0x5a),
            2 => {
                if let Some(byte) = packet.get_mut(place) {
                    *byte = u.arbitrary()?;
                }
            }
            3 => {
                // A field of 16 bits, and the IPv4 header's checksum right again.
                if let Some(field) = packet.get_mut(place & !1..(place & !1) + 2) {
                    field.copy_from_slice(&u.arbitrary::<[u8; 2]>()?);
                }
                if packet.len() >= 20 && packet[0] >> 4 == 4 {
                    header_checksum(packet);
                }
            }
            _ => {
                // No transport checksum.
                let at = if packet.first().is_some_and(|first| first >> 4 == 4) { 26 } else { 46 };
                if let Some(field) = packet.get_mut(at..at + 2) {
                    field.fill(0);
                }
            }
        }
    }
    Ok(())
}

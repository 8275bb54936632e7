//! Makes packets up: sound ones, and then perhaps damage.

use super::{
    DCCP, FRAGMENT, HOST4, HOST6, ICMPV4, ICMPV6, OPTIONS, PEER4, PEER6, ROUTING, Result, TCP, UDP, UDP_LITE,
    Unstructured, VirtioNetHdr, once, sums,
};

/// A packet of either family and its protocol. Inside an error, `depth` grows.
pub(super) fn packet(u: &mut Unstructured<'_>, six: bool, depth: u8) -> Result<(Vec<u8>, u8)> {
    let mut packet = if six { header6(u)? } else { header4(u)? };
    let fragment = once(u, 6)?;
    let (offset, more, identification): (u16, bool, u32) =
        if fragment { u.arbitrary()? } else { (0, false, 0) };
    // Half of all fragments are first ones.
    let offset = if u.arbitrary()? { 0 } else { offset & 0x1fff };
    if six {
        extensions(u, &mut packet)?;
    } else if once(u, 6)? {
        options(u, &mut packet)?;
    }
    let protocol = protocol(u, six)?;
    let mut headers = packet.len();
    if six && fragment {
        let place = (offset << 3 | u16::from(more)).to_be_bytes();
        let number = identification.to_be_bytes();
        packet.extend([protocol, 0, place[0], place[1], number[0], number[1], number[2], number[3]]);
        headers += 8;
    } else if fragment {
        let flags = u16::from(more) << 13 | offset;
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet[4..6].copy_from_slice(&(identification as u16).to_be_bytes());
    }
    upper(u, &mut packet, headers, protocol, depth)?;
    if fragment && more {
        // All fragments but the last hold a multiple of eight bytes.
        packet.truncate(headers + (packet.len() - headers) / 8 * 8);
    }
    finish(&mut packet, six, headers, protocol, fragment);
    Ok((packet, protocol))
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

fn header6(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut packet = Vec::with_capacity(2048);
    packet.extend((6 << 28 | u.arbitrary::<u32>()? & 0x0fff_ffff).to_be_bytes());
    // The end of the chain, which `chain` looks for.
    packet.extend([0, 0, 59, hops(u)?]);
    let (mut source, mut destination) = (HOST6.octets(), PEER6.octets());
    if once(u, 16)? {
        source = u.arbitrary()?;
    }
    if once(u, 32)? {
        destination = u.arbitrary()?;
    }
    packet.extend(source);
    packet.extend(destination);
    Ok(packet)
}

fn header4(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut packet = Vec::with_capacity(2048);
    packet.extend([0x45, u.arbitrary()?, 0, 0, 0, 0, 0, 0]);
    packet[4..6].copy_from_slice(&u.arbitrary::<u16>()?.to_be_bytes());
    packet[6] = u8::from(u.arbitrary::<bool>()?) << 6;
    packet.extend([hops(u)?, 0, 0, 0]);
    let (mut source, mut destination) = (PEER4.octets(), HOST4.octets());
    if once(u, 16)? {
        source = u.arbitrary()?;
    }
    if once(u, 32)? {
        destination = u.arbitrary()?;
    }
    packet.extend(source);
    packet.extend(destination);
    Ok(packet)
}

/// Mostly enough, sometimes none.
fn hops(u: &mut Unstructured<'_>) -> Result<u8> {
    if once(u, 32)? { u.int_in_range(0..=2) } else { Ok(u.arbitrary::<u8>()? | 2) }
}

fn extensions(u: &mut Unstructured<'_>, packet: &mut Vec<u8>) -> Result<()> {
    if !once(u, 6)? {
        return Ok(());
    }
    let number = if once(u, 32)? { 9 } else { u.int_in_range(1..=4)? };
    let mut place = 6;
    for _ in 0..number {
        let kind = *u.choose(&[OPTIONS, ROUTING, 0])?;
        let length = u.int_in_range(0..=2_u8)?;
        let left = if once(u, 16)? { u.arbitrary()? } else { 0 };
        packet[place] = kind;
        place = packet.len();
        packet.extend([59, length, 4, left, 0, 0, 0, 0]);
        packet.resize(packet.len() + usize::from(length) * 8, 0);
    }
    Ok(())
}

fn options(u: &mut Unstructured<'_>, packet: &mut Vec<u8>) -> Result<()> {
    while packet.len() < 56 && u.arbitrary()? {
        match u.int_in_range(0..=4)? {
            0 => packet.push(1),
            // A source route, mostly one that has run out.
            1 => {
                let pointer = if once(u, 8)? { 4 } else { 8 };
                packet.extend([*u.choose(&[131, 137])?, 7, pointer, 192, 0, 2, 9]);
            }
            2 => packet.extend([148, 4, 0, 0]),
            3 => packet.extend([7, 3, 4]),
            _ if once(u, 8)? => packet.extend(u.arbitrary::<[u8; 2]>()?),
            _ => packet.push(1),
        }
    }
    packet.resize(packet.len().next_multiple_of(4).min(60), 0);
    Ok(())
}

fn protocol(u: &mut Unstructured<'_>, six: bool) -> Result<u8> {
    let icmp = if six { ICMPV6 } else { ICMPV4 };
    Ok(match u.int_in_range(0..=31_u8)? {
        0..=7 => TCP,
        8..=15 => UDP,
        16 => UDP_LITE,
        17 => DCCP,
        18..=29 => icmp,
        30 => *u.choose(&[50, 51, 47, 132, 41])?,
        _ => u.arbitrary()?,
    })
}

fn payload(u: &mut Unstructured<'_>, packet: &mut Vec<u8>) -> Result<()> {
    let length =
        if once(u, 16)? { u.int_in_range(0..=1700_usize)? } else { usize::from(u.arbitrary::<u8>()?) };
    let (first, step): (u8, u8) = u.arbitrary()?;
    packet.extend((0..length).map(|at| first.wrapping_add(step.wrapping_mul(at as u8))));
    Ok(())
}

fn upper(u: &mut Unstructured<'_>, packet: &mut Vec<u8>, at: usize, protocol: u8, depth: u8) -> Result<()> {
    match protocol {
        TCP => {
            let options = u.int_in_range(0..=10_u8)?;
            let ports: [u8; 12] = u.arbitrary()?;
            packet.extend(ports);
            packet.extend([(5 + options) << 4, u.arbitrary()?, 16, 0, 0, 0, 0, 0]);
            packet.resize(packet.len() + usize::from(options) * 4, 1);
            payload(u, packet)
        }
        UDP => {
            let ports: [u8; 4] = u.arbitrary()?;
            packet.extend(ports);
            packet.extend([0; 4]);
            payload(u, packet)?;
            let length = (packet.len() - at) as u16;
            packet[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        UDP_LITE | DCCP => {
            let header: [u8; 16] = u.arbitrary()?;
            packet.extend(header);
            payload(u, packet)
        }
        ICMPV4 | ICMPV6 => icmp(u, packet, protocol == ICMPV6, depth),
        _ => payload(u, packet),
    }
}

fn icmp(u: &mut Unstructured<'_>, packet: &mut Vec<u8>, six: bool, depth: u8) -> Result<()> {
    let [request, reply] = if six { [128, 129] } else { [8, 0] };
    if depth > 1 || u.arbitrary()? {
        packet.extend([if u.arbitrary()? { request } else { reply }, 0, 0, 0]);
        packet.extend(u.arbitrary::<[u8; 4]>()?);
        return payload(u, packet);
    }
    let kinds: &[u8] = if six { &[1, 2, 3, 4] } else { &[3, 3, 11, 12] };
    let kind = if once(u, 32)? { u.arbitrary()? } else { *u.choose(kinds)? };
    let code = if once(u, 32)? { u.arbitrary()? } else { u.int_in_range(0..=4)? };
    packet.extend([kind, code, 0, 0]);
    let at = packet.len();
    // Pointers are small, and MTUs lie around those of real links.
    let rest = match u.int_in_range(0..=3)? {
        0 => u.int_in_range(0..=48_u32)? << if six { 0 } else { 24 },
        1 => u.int_in_range(0..=1600)?,
        2 => 0,
        _ => u.arbitrary()?,
    };
    packet.extend(rest.to_be_bytes());
    let (mut inside, _) = self::packet(u, six, depth + 1)?;
    turn(&mut inside, six);
    if u.arbitrary()? {
        inside.truncate(u.int_in_range(28..=600_usize)?.max(if six { 48 } else { 28 }));
    }
    if once(u, 3)? {
        let unit = if six { 8 } else { 4 };
        let length = inside.len().max(128).next_multiple_of(unit);
        inside.resize(length, 0);
        let length = if once(u, 16)? { u.arbitrary()? } else { (length / unit) as u8 };
        packet[at + usize::from(!six)] = length;
        let extensions = u.int_in_range(0..=64_u8)?;
        inside.extend([0x20, 0, 0, 0]);
        inside.extend((0..extensions).map(|at| at | 0x80));
    }
    packet.extend(inside);
    Ok(())
}

/// The packet inside an error went the other way.
fn turn(packet: &mut [u8], six: bool) {
    let (from, length) = if six { (8, 16) } else { (12, 4) };
    let (before, after) = packet.split_at_mut(from + length);
    before[from..].swap_with_slice(&mut after[..length]);
}

/// What a kernel says about a packet that it hands over unfinished, and makes it so; sometimes anything.
pub(super) fn offload(u: &mut Unstructured<'_>, packet: &mut [u8], protocol: u8) -> Result<VirtioNetHdr> {
    if once(u, 8)? {
        return Ok(VirtioNetHdr::from_bytes(u.arbitrary()?));
    }
    let six = packet[0] >> 4 == 6;
    let headers = if six { 40 } else { usize::from(packet[0] & 0xf) * 4 };
    let next = if six { packet[6] } else { packet[9] };
    let Some(at) = checksum_at(protocol).filter(|at| next == protocol && headers + at + 2 <= packet.len())
    else {
        return Ok(VirtioNetHdr { flags: VirtioNetHdr::DATA_VALID, ..VirtioNetHdr::default() });
    };
    let pseudo = if protocol == ICMPV4 { 0 } else { sums::pseudo(packet, protocol, packet.len() - headers) };
    let sum = !sums::checksum(pseudo);
    packet[headers + at..headers + at + 2].copy_from_slice(&sum.to_be_bytes());
    let tcp = if six { VirtioNetHdr::GSO_TCPV6 } else { VirtioNetHdr::GSO_TCPV4 };
    let gso_type = match protocol {
        TCP if u.arbitrary()? => tcp | if u.arbitrary()? { VirtioNetHdr::GSO_ECN } else { 0 },
        UDP if u.arbitrary()? => VirtioNetHdr::GSO_UDP_L4,
        _ => VirtioNetHdr::GSO_NONE,
    };
    Ok(VirtioNetHdr {
        flags: VirtioNetHdr::NEEDS_CSUM,
        gso_type,
        hdr_len: 0,
        gso_size: if gso_type == 0 { 0 } else { u.int_in_range(0..=1500)? },
        csum_start: headers as u16,
        csum_offset: at as u16,
    })
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

//! What a kernel makes of a frame: `skb_checksum_help`, `inet_gso_segment`, `tcp_gso_segment` and `__udp_gso_segment`, told again.
//!
//! The checksum of a segment is not computed from nothing: the kernel takes what the super-packet's field holds, exchanges
//! the length in it, and adds the rest. So a wrong partial sum gives wrong segments here too.

use interproto::VirtioNetHdr;

use super::packets::{CWR, FIN, PSH, as_sent, fold, sum};

/// The packets that a frame becomes on a wire, or why the kernel refuses it.
pub fn cut(frame: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let (said, packet) = frame.split_first_chunk().ok_or("no header")?;
    let said = VirtioNetHdr::from_bytes(*said);
    if said.gso_type == VirtioNetHdr::GSO_NONE {
        return Ok(vec![complete(&said, packet)]);
    }
    let start = usize::from(said.csum_start);
    let four = packet.first().ok_or("no packet")? >> 4 == 4;
    let tcp = match (said.gso_type & !VirtioNetHdr::GSO_ECN, four) {
        (VirtioNetHdr::GSO_TCPV4, true) | (VirtioNetHdr::GSO_TCPV6, false) => true,
        (VirtioNetHdr::GSO_UDP_L4, _) => false,
        other => return Err(format!("{other:?} is no type of this family")),
    };
    let offset = if tcp { 16 } else { 6 };
    if said.flags != VirtioNetHdr::NEEDS_CSUM || usize::from(said.csum_offset) != offset {
        return Err(format!("a wrong checksum: {said:?}"));
    }
    let ip_header = if four { usize::from(packet[0] & 0xf) * 4 } else { 40 };
    if start != ip_header || packet.len() < start + if tcp { 20 } else { 8 } {
        return Err(format!("not behind the IP header: {said:?}"));
    }
    let headers = start + if tcp { usize::from(packet[start + 12] >> 4) * 4 } else { 8 };
    if usize::from(said.hdr_len) != headers || said.gso_size == 0 {
        return Err(format!("not {headers} bytes of headers: {said:?}"));
    }
    let said_length = if four { word(packet, 2) } else { word(packet, 4) + 40 };
    if said_length != packet.len() || (!tcp && word(packet, start + 4) != packet.len() - start) {
        return Err(format!("the lengths are not {}", packet.len()));
    }
    if four && fold(sum(&packet[..start])) != 0xffff {
        return Err("a wrong header checksum".into());
    }
    let size = usize::from(said.gso_size);
    let payload = packet.get(headers..).ok_or("no payload")?;
    if payload.len() <= size {
        return Err(format!("{} bytes are not to be cut by {size}", payload.len()));
    }
    let last = payload.len().div_ceil(size) - 1;
    let segment = |(number, piece): (usize, &[u8])| {
        let mut segment = [&packet[..headers], piece].concat();
        let length = segment.len();
        if four {
            put(&mut segment, 2, length as u16);
            put(&mut segment, 4, (word(packet, 4) as u16).wrapping_add(number as u16));
            put(&mut segment, 10, 0);
            let checksum = !fold(sum(&segment[..start]));
            put(&mut segment, 10, checksum);
        } else {
            put(&mut segment, 4, (length - 40) as u16);
        }
        if tcp {
            let sequence = (word(packet, start + 4) << 16 | word(packet, start + 6)) as u32;
            let sequence = sequence.wrapping_add((number * size) as u32);
            segment[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            if number < last {
                segment[start + 13] &= !(FIN | PSH);
            }
            if number > 0 {
                segment[start + 13] &= !CWR;
            }
        } else {
            put(&mut segment, start + 4, (length - start) as u16);
        }
        // The field, without the length of the whole and with that of the segment.
        let partial = word(packet, start + offset) as u64;
        let partial = partial + u64::from(!((packet.len() - start) as u16)) + (length - start) as u64;
        put(&mut segment, start + offset, 0);
        let checksum = as_sent(!fold(partial + sum(&segment[start..])), tcp);
        put(&mut segment, start + offset, checksum);
        segment
    };
    Ok(payload.chunks(size).enumerate().map(segment).collect())
}

/// Adds what the checksum of a packet lacks.
fn complete(said: &VirtioNetHdr, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let start = usize::from(said.csum_start);
    let at = start + usize::from(said.csum_offset);
    if said.flags & VirtioNetHdr::NEEDS_CSUM != 0 && at + 2 <= packet.len() {
        let checksum = as_sent(!fold(sum(&packet[start..])), said.csum_offset == 16);
        put(&mut packet, at, checksum);
    }
    packet
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

fn put(bytes: &mut [u8], at: usize, field: u16) {
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

//! What came out, against the model, and the checksums in it.

use super::model::{Expected, Read, read::Ip, segments::split};
use super::packets::checksum_at;
use super::{
    Case, DropReason, FRAGMENT, HEADROOM, ICMPV4, ICMPV6, Ipv4Packet, Ipv6Packet, Packets, UDP, UDP_LITE,
    VirtioNetHdr, sums,
};

/// More than the smallest fragments make of the longest datagram.
const MOST_PACKETS: usize = 256;

/// All packets are as expected.
pub(super) fn forwarded(
    case: &Case,
    mut packets: Packets<'_>,
    old: &Ip,
    expected: &Expected,
    said: &VirtioNetHdr,
) {
    let offload = packets.offload();
    let mut all = Vec::new();
    loop {
        // In turns, with and without its description.
        let packet = if all.len() % 2 == 0 {
            let Some(frame) = packets.next_framed() else { break };
            let (description, packet) = frame.split_at(VirtioNetHdr::LENGTH);
            assert_eq!(description, offload.to_bytes(), "what is in front of packet {}", all.len());
            packet
        } else {
            let Some(packet) = packets.next() else { break };
            packet
        };
        all.push(packet.to_vec());
        assert!(all.len() <= MOST_PACKETS.max(expected.packets.len()), "no end");
    }
    assert_eq!(all.len(), expected.packets.len(), "the number of packets");
    assert!(packets.next().is_none(), "one more behind the last");
    described(case, &offload, said, old, &all);
    let is_error = old.is_error();
    let is_split = said.gso_type != 0 && offload.gso_type == 0;
    let mut masked = expected.packets.clone();
    if is_error {
        error(&all[0], &mut masked[0], old, expected);
    } else {
        transport((&all, &mut masked), old, said, (is_split, offload.flags & 1 != 0));
    }
    for (at, (new, wanted)) in all.iter().zip(&masked).enumerate() {
        assert!(new == wanted, "packet {at}:\n{new:02x?} instead of\n{wanted:02x?}");
        back(new, old.six, said);
    }
}

/// Where the transport header of a translated packet lies.
fn headers(packet: &[u8]) -> usize {
    match packet[0] >> 4 {
        4 => 20,
        _ if packet[6] == FRAGMENT => 48,
        _ => 40,
    }
}

/// Whether it is a fragment that others precede.
fn is_later(packet: &[u8]) -> bool {
    let place = if packet[0] >> 4 == 4 { 6 } else { 42 };
    let mask: [u8; 2] = if packet[0] >> 4 == 4 { [0x1f, 0xff] } else { [0xff, 0xf8] };
    (packet[0] >> 4 == 4 || packet[6] == FRAGMENT)
        && (packet[place] & mask[0] | packet[place + 1] & mask[1]) != 0
}

fn field(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The pseudo-header's sum; that of `ICMPv4` is nothing.
fn pseudo(packet: &[u8], protocol: u8, length: usize) -> u64 {
    if protocol == ICMPV4 { 0 } else { sums::pseudo(packet, protocol, length) }
}

fn old_pseudo(ip: &Ip, length: usize) -> u64 {
    if ip.protocol == ICMPV4 { 0 } else { sums::pseudo_of(&ip.source, &ip.destination, ip.protocol, length) }
}

/// The checksums of what is no error. Where they are right, the model gets them too.
fn transport(
    (all, wanted): (&[Vec<u8>], &mut [Vec<u8>]),
    old: &Ip,
    said: &VirtioNetHdr,
    (is_split, is_partial): (bool, bool),
) {
    let Some(at) = checksum_at(old.protocol).filter(|_| !old.is_later()) else { return };
    let protocol = if old.is_icmp() { if old.six { ICMPV4 } else { ICMPV6 } } else { old.protocol };
    let starts: Vec<_> = (0..all.len()).filter(|number| !is_later(&all[*number])).collect();
    let segments = if is_split { split(old, said).len() } else { 1 };
    assert_eq!(starts.len(), segments, "beginnings of datagrams");
    for (number, start) in starts.iter().copied().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(all.len());
        let body: Vec<u8> =
            all[start..end].iter().flat_map(|packet| &packet[headers(packet)..]).copied().collect();
        let place = headers(&all[start]) + at;
        let new_field = field(&body, at);
        let total = pseudo(&all[start], protocol, body.len()) % 0xffff + sums::of(&body);
        let never_zero = matches!(protocol, UDP | UDP_LITE);
        let old_field = field(&old.body, at);
        if said.flags & 1 != 0 && is_partial {
            // The field holds the pseudo-header's sum: what it lacks of that stays the same.
            let (new, old) = (pseudo(&all[start], protocol, body.len()), old_pseudo(old, old.body.len()));
            let lacks = |pseudo: u64, field: u64| (pseudo % 0xffff + 0xffff - field % 0xffff) % 0xffff;
            assert_eq!(lacks(new, new_field), lacks(old, old_field), "a partial checksum");
        } else if said.flags & 1 != 0 {
            assert_eq!(total % 0xffff, 0, "a checksum that was finished");
            assert!(new_field != 0 || !never_zero);
        } else if protocol == UDP && old_field == 0 {
            let length = usize::from(u16::from_be_bytes([body[4], body[5]]));
            let total = pseudo(&all[start], UDP, length) + sums::of(&body[..length]);
            assert_eq!(total % 0xffff, 0, "a checksum that was computed");
            assert_ne!(new_field, 0);
        } else if never_zero && old_field == 0 {
            assert_eq!(new_field, 0, "forbidden in UDP-Lite (RFC 3828), and left");
        } else {
            let before = old_pseudo(old, old.body.len()) % 0xffff + sums::of(&old.body);
            assert_eq!(total % 0xffff, before % 0xffff, "the checksum's difference");
            assert!(new_field != 0 || !never_zero);
        }
        wanted[start][place..place + 2].copy_from_slice(&all[start][place..place + 2]);
    }
}

/// The checksums of an error, and that of the packet inside.
fn error(new: &[u8], wanted: &mut [u8], old: &Ip, expected: &Expected) {
    let (six, at) = (!old.six, headers(new));
    assert!(new.len() <= if six { 1280 } else { 576 }, "an error of {} bytes", new.len());
    let (protocol, inner_protocol) = if six { (ICMPV6, ICMPV4) } else { (ICMPV4, ICMPV6) };
    assert_eq!(
        (pseudo(new, protocol, new.len() - at) + sums::of(&new[at..])) % 0xffff,
        0,
        "an error's checksum"
    );
    wanted[at + 2..at + 4].copy_from_slice(&new[at + 2..at + 4]);

    let inner = expected.inner.as_ref().unwrap_or_else(|| panic!("no packet inside"));
    let attribute = if six { usize::from(new[at + 4]) * 8 } else { usize::from(new[at + 5]) * 4 };
    // Types 2 and 4 of ICMPv6 have no length attribute: an MTU or a pointer is there.
    let attribute = if six && !matches!(new[at], 1 | 3) { 0 } else { attribute };
    let quote = if attribute > 0 { &new[at + 8..at + 8 + attribute] } else { &new[at + 8..] };
    let upper = headers(quote);
    let kept = inner.body.len().min(quote.len() - upper);
    let Some(place) = checksum_at(inner.protocol).filter(|place| !inner.is_later() && place + 2 <= kept)
    else {
        return;
    };
    let (new_field, old_field) = (field(quote, upper + place), field(&inner.body, place));
    let never_zero = matches!(inner.protocol, UDP | UDP_LITE);
    let inner_icmp = inner.protocol == inner_protocol;
    let new_protocol = if inner_icmp { protocol } else { inner.protocol };
    if never_zero && old_field == 0 {
        assert_eq!(new_field, 0, "none inside, and none was made");
    } else {
        let before = old_pseudo(inner, inner.promised) % 0xffff + sums::of(&inner.body[..kept]);
        let after =
            pseudo(quote, new_protocol, inner.promised) % 0xffff + sums::of(&quote[upper..upper + kept]);
        assert_eq!(before % 0xffff, after % 0xffff, "the difference of the checksum inside");
        assert!(new_field != 0 || !never_zero);
    }
    let place = at + 8 + upper + place;
    wanted[place..place + 2].copy_from_slice(&new[place..place + 2]);
}

/// What the device is told.
fn described(case: &Case, offload: &VirtioNetHdr, said: &VirtioNetHdr, old: &Ip, all: &[Vec<u8>]) {
    // An error gets a whole checksum, and so do fragments.
    let size = super::model::segments::first(old, said);
    let longest = size + 40 + if old.place.is_some() { 8 } else { 0 };
    let is_cut = !old.six && !old.dont_fragment && longest > case.params.cut();
    if old.is_error() || is_cut {
        assert_eq!(*offload, VirtioNetHdr::default(), "nothing to say");
        return;
    }
    let at = headers(&all[0]);
    let partial = said.flags & VirtioNetHdr::NEEDS_CSUM != 0;
    let gso_type = match said.gso_type & 0x7f {
        1 => said.gso_type + 3,
        4 => said.gso_type - 3,
        _ => said.gso_type,
    };
    let expected = VirtioNetHdr {
        flags: if partial { VirtioNetHdr::NEEDS_CSUM } else { said.flags & VirtioNetHdr::DATA_VALID },
        gso_type,
        hdr_len: if gso_type == 0 { 0 } else { (at + super::model::segments::header(old)) as u16 },
        gso_size: if gso_type == 0 { 0 } else { said.gso_size },
        csum_start: if partial { at as u16 } else { 0 },
        csum_offset: if partial { said.csum_offset } else { 0 },
    };
    assert_eq!(*offload, expected, "what the device is told");
    let segments = if gso_type == 0 { vec![old.body.clone()] } else { split(old, said) };
    let length: usize = segments.iter().map(|segment| at + segment.len()).sum();
    let counted = (offload.segments(all[0].len()), offload.wire_length(all[0].len()));
    assert_eq!(counted, (segments.len(), length), "what is counted of it");
}

/// What comes out is let in by the other direction.
fn back(packet: &[u8], six_before: bool, said: &VirtioNetHdr) {
    let mut storage = vec![0; HEADROOM];
    storage.extend_from_slice(packet);
    let range = HEADROOM..storage.len();
    let back = if six_before {
        Ipv4Packet::check(&mut storage, range).map(|checked| checked.refusal())
    } else {
        Ipv6Packet::check(&mut storage, range).map(|checked| checked.refusal())
    };
    match back {
        Ok(None | Some(DropReason::HopLimitExceeded)) => {}
        // An echo that was whole has left in fragments. AH, and what is unknown in IPv4 and an extension header in
        // IPv6, cannot be told apart behind a fragment header.
        Ok(Some(DropReason::FragmentedIcmp))
        | Err(DropReason::ExtensionAfterFragment | DropReason::EmbeddedNotTranslatable)
            if !six_before => {}
        // A partial sum may be zero.
        Err(DropReason::UdpZeroChecksumV6) if said.flags & 1 != 0 => {}
        // IGMP, which an IPv6 host may send under its number.
        Err(DropReason::IcmpNotTranslatable | DropReason::EmbeddedNotTranslatable) if six_before => {}
        other => panic!("it cannot go back: {other:?}"),
    }
}

//! What must hold of whatever a translation does.

use super::packets::checksum_at;
use super::{
    Case, Door, DropReason, EmbeddedRewrite, FRAGMENT, HEADROOM, HOST4, HOST6, ICMPV4, ICMPV6, Icmpv4Error,
    Icmpv6Error, Ipv4Packet, Ipv6Packet, OWN4, OWN6, Outcome, PEER4, PEER6, Packets, Params, PortRewrite,
    Rewrite, TCP, UDP, Verdict, VirtioNetHdr, Way, ZeroChecksum, sums,
};

/// Bytes behind a packet that nobody may touch.
const BEHIND: usize = 16;

pub(super) fn check(case: &Case, way: Way) -> Outcome {
    let length = case.packet.len();
    let mut storage = vec![0xa5; HEADROOM + length + BEHIND];
    storage[HEADROOM..HEADROOM + length].copy_from_slice(&case.packet);
    let outcome = match way {
        Way::SixToFour => six(case, &mut storage),
        Way::FourToSix => four(case, &mut storage),
    };
    assert!(
        storage[HEADROOM + length..].iter().all(|byte| *byte == 0xa5),
        "what lies behind the packet was touched"
    );
    let is_repaired = matches!(case.door, Door::Reassembled);
    let is_super = matches!(case.door, Door::Offloaded(offload) if offload.gso_type != 0);
    if outcome != Outcome::Forward && !is_repaired && !is_super {
        assert!(storage[HEADROOM..HEADROOM + length] == case.packet, "{outcome:?} changed the packet");
    }
    outcome
}

fn embedded<A>(case: &Case, source: A, destination: A) -> Option<EmbeddedRewrite<A>> {
    let ports = case.inner_ports.unwrap_or(PortRewrite::Keep);
    (!case.unrelated).then_some(EmbeddedRewrite { source, destination, ports })
}

fn six(case: &Case, storage: &mut [u8]) -> Outcome {
    let range = HEADROOM..HEADROOM + case.packet.len();
    let ports = case.ports.unwrap_or(PortRewrite::Keep);
    let rewrite =
        Rewrite { source: HOST4, destination: PEER4, ports, embedded: embedded(case, PEER4, HOST4) };
    let checked = match case.door {
        Door::Plain => Ipv6Packet::check(storage, range),
        Door::Reassembled => Ipv6Packet::check_reassembled(storage, range),
        Door::Offloaded(offload) => Ipv6Packet::check_offloaded(storage, range, &offload),
    };
    let mut checked = match checked {
        Ok(checked) => checked,
        Err(reason) => return Outcome::Door(reason),
    };
    let refusal = checked.refusal();
    let outcome = match checked.translate(&rewrite, case.identification, &case.params) {
        Verdict::Forward(packets) => {
            assert_eq!(refusal, None, "a refusal that was none");
            forwarded(case, packets, Way::SixToFour);
            return Outcome::Forward;
        }
        other => refused(&other),
    };
    assert!(refusal.is_none() || outcome.reason() == refusal, "{outcome:?}, and {refusal:?} before");
    let reason = outcome.reason().unwrap_or(DropReason::NoHeadroom);
    let is_reply = matches!(outcome, Outcome::Reply(_));
    match checked.answer(reason, OWN6, &case.params) {
        Some(answer) => {
            assert!(is_reply || matches!(outcome, Outcome::Hold(_)), "an answer to {outcome:?}");
            own_error(answer, 1280);
        }
        // A packet without a routing header that has segments left cannot be pointed at.
        None => assert!(
            !is_reply || reason.answer_v6() == Some(Icmpv6Error::RoutingHeader),
            "no answer to {outcome:?}"
        ),
    }
    outcome
}

fn four(case: &Case, storage: &mut [u8]) -> Outcome {
    let range = HEADROOM..HEADROOM + case.packet.len();
    let ports = case.ports.unwrap_or(PortRewrite::Keep);
    let rewrite =
        Rewrite { source: PEER6, destination: HOST6, ports, embedded: embedded(case, HOST6, PEER6) };
    let checked = match case.door {
        Door::Plain => Ipv4Packet::check(storage, range),
        Door::Reassembled => Ipv4Packet::check_reassembled(storage, range),
        Door::Offloaded(offload) => Ipv4Packet::check_offloaded(storage, range, &offload),
    };
    let mut checked = match checked {
        Ok(checked) => checked,
        Err(reason) => return Outcome::Door(reason),
    };
    let refusal = checked.refusal();
    let outcome = match checked.translate(&rewrite, &case.params) {
        Verdict::Forward(packets) => {
            assert_eq!(refusal, None, "a refusal that was none");
            forwarded(case, packets, Way::FourToSix);
            return Outcome::Forward;
        }
        other => refused(&other),
    };
    assert!(refusal.is_none() || outcome.reason() == refusal, "{outcome:?}, and {refusal:?} before");
    let reason = outcome.reason().unwrap_or(DropReason::NoHeadroom);
    let is_reply = matches!(outcome, Outcome::Reply(_));
    let answer = checked.answer(reason, OWN4, &case.params);
    assert!(answer.is_some() || !is_reply, "no answer to {outcome:?}");
    if let Some(answer) = answer {
        assert!(is_reply || matches!(outcome, Outcome::Hold(_)), "an answer to {outcome:?}");
        assert_ne!(reason.answer_v4(), Some(Icmpv4Error::DestinationUnreachable { code: 4 }));
        own_error(answer, 576);
    }
    outcome
}

fn refused(verdict: &Verdict<'_>) -> Outcome {
    match verdict {
        Verdict::Forward(_) => Outcome::Forward,
        Verdict::Reply(reason) => Outcome::Reply(*reason),
        Verdict::Hold(reason) => Outcome::Hold(*reason),
        Verdict::Drop(reason) => Outcome::Drop(*reason),
    }
}

/// An error of the translator's own: short enough, and right.
fn own_error(packet: &[u8], most: usize) {
    assert!(packet.len() <= most, "{} bytes", packet.len());
    let headers = ip_header(packet);
    let protocol = protocol(packet).0;
    assert!(protocol == ICMPV4 || protocol == ICMPV6);
    assert_eq!(total(packet, headers, protocol) % 0xffff, 0, "the checksum of an error");
}

/// The IP header is right. Its length.
fn ip_header(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        assert_eq!(packet[0], 0x45, "without options");
        assert_eq!(usize::from(u16_at(packet, 2)), packet.len(), "total length");
        assert_eq!(sums::of(&packet[..20]) % 0xffff, 0, "the header's checksum");
        assert_eq!(packet[6] & 0x80, 0, "the reserved flag");
        20
    } else {
        assert_eq!(packet[0] >> 4, 6);
        assert_eq!(packet[1] & 0xf, 0, "the flow label");
        assert_eq!(usize::from(u16_at(packet, 4)) + 40, packet.len(), "payload length");
        40
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Protocol, length of the IP headers, and the fragment's offset in bytes, M bit, and whether there is a fragment header.
fn protocol(packet: &[u8]) -> (u8, usize, u16, bool) {
    if packet[0] >> 4 == 4 {
        let place = u16_at(packet, 6);
        return (packet[9], usize::from(packet[0] & 0xf) * 4, (place & 0x1fff) << 3, place & 0x2000 != 0);
    }
    let (mut next, mut at) = (packet[6], 40);
    loop {
        match next {
            0 | 43 | 60 => {
                next = packet[at];
                at += 8 + usize::from(packet[at + 1]) * 8;
            }
            FRAGMENT => {
                let place = u16_at(packet, at + 2);
                return (packet[at], at + 8, place & !7, place & 1 == 1);
            }
            _ => return (next, at, 0, false),
        }
    }
}

/// The sum over all that the transport checksum covers, the checksum among it.
fn total(packet: &[u8], headers: usize, protocol: u8) -> u64 {
    let pseudo = if protocol == ICMPV4 { 0 } else { sums::pseudo(packet, protocol, packet.len() - headers) };
    pseudo + sums::of(&packet[headers..])
}

/// The packet that came in, as far as its own lengths say.
fn arrived(case: &Case) -> Vec<u8> {
    let mut packet = case.packet.clone();
    let six = packet[0] >> 4 == 6;
    if matches!(case.door, Door::Reassembled) {
        let length = packet.len();
        if six {
            packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
            let (_, headers, ..) = protocol(&packet);
            // Only a fragment header can end eight bytes before and hold an offset.
            if has_fragment_header(&packet) {
                packet[headers - 6..headers - 4].fill(0);
            }
        } else {
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            packet[6..8].fill(0);
        }
    }
    let length = usize::from(if six { u16_at(&packet, 4) + 40 } else { u16_at(&packet, 2) });
    packet.truncate(length);
    packet
}

fn has_fragment_header(packet: &[u8]) -> bool {
    let (mut next, mut at) = (packet[6], 40);
    while matches!(next, 0 | 43 | 60) {
        next = packet[at];
        at += 8 + usize::from(packet[at + 1]) * 8;
    }
    next == FRAGMENT
}

fn forwarded(case: &Case, mut packets: Packets<'_>, way: Way) {
    let arrived = arrived(case);
    let said = match case.door {
        Door::Offloaded(offload) => offload,
        _ => VirtioNetHdr::default(),
    };
    let offload = packets.offload();
    let mut all = Vec::new();
    let most = case
        .params
        .lowest_ipv6_mtu
        .max(1280)
        .min(u16::try_from(case.params.ipv6_mtu.max(1280)).unwrap_or(u16::MAX));
    while let Some(packet) = packets.next() {
        one(packet, &arrived, way, case);
        all.push(packet.to_vec());
        assert!(all.len() <= 20_000, "no end");
    }
    assert!(!all.is_empty(), "nothing comes out");
    assert!(
        all.len() == 1 || all.iter().all(|packet| packet.len() <= usize::from(most)),
        "a fragment that is too long"
    );
    let (number, headers, offset, more) = protocol(&arrived);
    let fragmented = offset != 0 || more;
    if all.len() == 1 {
        described(&offload, &said, &all[0]);
    } else {
        assert_eq!(offload, VirtioNetHdr::default());
    }
    let is_icmp = matches!(number, ICMPV4 | ICMPV6);
    let is_error = is_icmp && !matches!(arrived[headers], 0 | 8 | 128 | 129);
    if is_error {
        assert_eq!(all.len(), 1);
        error(&all[0], &arrived, way);
    } else if said.gso_type == 0 {
        let (_, out_headers, ..) = protocol(&all[0]);
        let mut whole = all[0].clone();
        for packet in &all[1..] {
            let (_, headers, ..) = protocol(packet);
            whole.extend_from_slice(&packet[headers..]);
        }
        let payload = &whole[out_headers..];
        same_payload(payload, &arrived[headers..], number, offset != 0, is_icmp);
        if !fragmented {
            let partial = said.flags & VirtioNetHdr::NEEDS_CSUM != 0;
            let still_partial = offload.flags & VirtioNetHdr::NEEDS_CSUM != 0;
            same_checksum(&whole, out_headers, &arrived, headers, (partial, still_partial), &case.params);
        }
    }
}

/// One packet that came out.
#[allow(clippy::match_same_arms, reason = "each has its own reason")]
fn one(packet: &[u8], arrived: &[u8], way: Way, case: &Case) {
    let six_in = way == Way::SixToFour;
    ip_header(packet);
    assert_eq!(packet[0] >> 4 == 4, six_in, "the other family");
    let (old, new) = if six_in { (arrived[7], packet[8]) } else { (arrived[8], packet[7]) };
    assert_eq!(new, old - 1, "one hop less");
    assert!(new > 0);
    // What comes out could go back.
    let mut storage = vec![0; HEADROOM];
    storage.extend_from_slice(packet);
    let range = HEADROOM..storage.len();
    let partial = matches!(case.door, Door::Offloaded(offload) if offload.flags & 1 != 0);
    let back = if six_in {
        Ipv4Packet::check(&mut storage, range)
            .map(|checked| (checked.refusal(), checked.embedded().is_some()))
    } else {
        Ipv6Packet::check(&mut storage, range)
            .map(|checked| (checked.refusal(), checked.embedded().is_some()))
    };
    match back {
        Ok((None | Some(DropReason::HopLimitExceeded), _)) => {}
        // An echo that was whole has left in fragments.
        Ok((Some(DropReason::FragmentedIcmp), _)) if !six_in => {}
        // AH, and what is unknown in IPv4 and an extension header in IPv6, cannot be told apart behind a fragment header.
        Err(DropReason::ExtensionAfterFragment | DropReason::EmbeddedNotTranslatable) if !six_in => {}
        // A super-packet's or a partial sum may be zero.
        Err(DropReason::UdpZeroChecksumV6) if partial => {}
        other => panic!("it cannot go back: {other:?}"),
    }
}

/// The description fits the packet.
fn described(offload: &VirtioNetHdr, said: &VirtioNetHdr, packet: &[u8]) {
    if offload.flags & VirtioNetHdr::NEEDS_CSUM != 0 {
        let (_, headers, ..) = protocol(packet);
        assert_eq!(usize::from(offload.csum_start), headers);
        assert_eq!(offload.csum_offset, said.csum_offset);
        assert!(headers + usize::from(offload.csum_offset) + 2 <= packet.len());
    }
    if offload.gso_type != 0 {
        assert_eq!(offload.gso_size, said.gso_size);
        assert!(usize::from(offload.hdr_len) <= packet.len());
        assert_eq!(offload.gso_type & VirtioNetHdr::GSO_ECN, said.gso_type & VirtioNetHdr::GSO_ECN);
    }
}

/// All but ports, identifiers, types and checksums is as it was.
fn same_payload(new: &[u8], old: &[u8], protocol: u8, later: bool, icmp: bool) {
    assert_eq!(new.len(), old.len());
    let mut masked = (new.to_vec(), old.to_vec());
    let fields: &[(usize, usize)] = match protocol {
        _ if later => &[],
        TCP => &[(0, 4), (16, 18)],
        UDP | 33 | 136 => &[(0, 4), (6, 8)],
        _ if icmp => &[(0, 1), (2, 6)],
        _ => &[],
    };
    for (from, to) in fields {
        for bytes in [&mut masked.0, &mut masked.1] {
            if let Some(field) = bytes.get_mut(*from..*to) {
                field.fill(0);
            }
        }
    }
    assert!(masked.0 == masked.1, "the payload has changed");
}

/// A checksum that was right is right, and one that was wrong is wrong by the same difference.
fn same_checksum(
    new: &[u8],
    new_headers: usize,
    old: &[u8],
    old_headers: usize,
    (partial, still_partial): (bool, bool),
    params: &Params,
) {
    let (old_protocol, new_protocol) = (protocol(old).0, protocol(new).0);
    let Some(at) = checksum_at(old_protocol) else { return };
    let sum = |packet: &[u8], headers: usize, protocol: u8| {
        let pseudo =
            if protocol == ICMPV4 { 0 } else { sums::pseudo(packet, protocol, packet.len() - headers) };
        (pseudo % 0xffff, sums::of(&packet[headers..]), u64::from(u16_at(packet, headers + at)))
    };
    let (old_pseudo, old_sum, old_field) = sum(old, old_headers, old_protocol);
    let (new_pseudo, new_sum, new_field) = sum(new, new_headers, new_protocol);
    if partial && still_partial {
        // The field holds the pseudo-header's sum: what it lacks of that stays the same.
        assert_eq!((new_field + 0xffff - new_pseudo) % 0xffff, (old_field + 0xffff - old_pseudo) % 0xffff);
        return;
    }
    if partial {
        assert_eq!((new_pseudo + new_sum) % 0xffff, 0, "a checksum that was finished");
        return;
    }
    if old_protocol == UDP && old_field == 0 {
        assert_eq!(params.udp_zero_checksum, ZeroChecksum::Compute);
        let length = usize::from(u16_at(new, new_headers + 4));
        let datagram = &new[new_headers..new_headers + length];
        let pseudo = sums::pseudo(new, UDP, length);
        assert_eq!((pseudo + sums::of(datagram)) % 0xffff, 0, "a computed checksum");
        assert_ne!(new_field, 0);
        return;
    }
    if old_protocol == 136 && old_field == 0 {
        assert_eq!(new_field, 0, "forbidden in UDP-Lite (RFC 3828), and left");
        return;
    }
    assert_eq!((new_pseudo + new_sum) % 0xffff, (old_pseudo + old_sum) % 0xffff, "the checksum's difference");
    assert!(new_field != 0 || !matches!(old_protocol, UDP | 136));
}

/// A translated error: short, right, and with a packet of the other family inside.
fn error(packet: &[u8], arrived: &[u8], way: Way) {
    let six = packet[0] >> 4 == 6;
    assert!(packet.len() <= if six { 1280 } else { 576 }, "{} bytes", packet.len());
    let headers = if six { 40 } else { 20 };
    let number = if six { ICMPV6 } else { ICMPV4 };
    assert_eq!(protocol(packet).0, number);
    assert_eq!(total(packet, headers, number) % 0xffff, 0, "the checksum of an error");
    let inside = &packet[headers + 8..];
    assert_eq!(inside[0] >> 4, if six { 6 } else { 4 });
    if !six {
        assert_eq!(sums::of(&inside[..20]) % 0xffff, 0, "the header's checksum inside");
    }
    // The length attribute (RFC 4884) leads to extensions, as the error had them.
    let has_length = if six { matches!(packet[40], 1 | 3) } else { true };
    let length = if six { usize::from(packet[44]) * 8 } else { usize::from(packet[25]) * 4 };
    if has_length && length > 0 {
        assert!(length >= 128 && length < inside.len());
        let extensions = &inside[length..];
        assert!(arrived.ends_with(extensions), "the extensions have changed");
    }
    let _ = way;
}

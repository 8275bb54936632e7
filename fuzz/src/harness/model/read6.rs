//! Reading IPv6 headers, and what lies behind the headers of either family.

use super::super::{DropReason, FRAGMENT, ICMPV6, OPTIONS, ROUTING, TCP, UDP};
use super::read::Ip;
use super::word;

/// As `read4`.
pub(super) fn read6(packet: &[u8], quote: bool, wrong: &mut Vec<DropReason>) -> Option<Ip> {
    if packet.len() < 40 {
        wrong.push(DropReason::Truncated);
        return None;
    }
    if packet[0] >> 4 != 6 {
        wrong.push(DropReason::MalformedHeader);
        return None;
    }
    let total = 40 + usize::from(word(packet, 4));
    if !quote && total > packet.len() {
        wrong.push(DropReason::Truncated);
        return None;
    }
    let packet = &packet[..total.min(packet.len())];
    let (mut next, mut at) = (packet[6], 40);
    let (mut place, mut segments_left_at) = (None, None);
    let mut headers = 0;
    while matches!(next, 0 | ROUTING | FRAGMENT | OPTIONS) && place.is_none() && headers < 8 {
        headers += 1;
        if packet.len()
            < at + if next == FRAGMENT {
                8
            } else if next == ROUTING {
                4
            } else {
                2
            }
        {
            wrong.push(DropReason::Truncated);
            return None;
        }
        if next == FRAGMENT {
            let field = word(packet, at + 2);
            let identification = u32::from(word(packet, at + 4)) << 16 | u32::from(word(packet, at + 6));
            place = Some((identification, field & !7, field & 1 == 1));
            (next, at) = (packet[at], at + 8);
            continue;
        }
        if next == ROUTING && packet[at + 3] > 0 && !quote {
            segments_left_at = segments_left_at.or(Some(at + 3));
        }
        (next, at) = (packet[at], at + 8 + usize::from(packet[at + 1]) * 8);
    }
    if headers == 8 && place.is_none() {
        // Whether another one follows is not looked at any more.
        wrong.push(DropReason::TooManyExtensionHeaders);
        return None;
    }
    if segments_left_at.is_some() {
        wrong.push(DropReason::SegmentsLeft);
    }
    if place.is_some() && matches!(next, 0 | ROUTING | FRAGMENT | 51 | OPTIONS | 135 | 139 | 140) {
        wrong.push(DropReason::ExtensionAfterFragment);
        return None;
    }
    let Some(body) = packet.get(at..) else {
        wrong.push(DropReason::Truncated);
        return None;
    };
    if let Some((_, offset, more)) = place.filter(|_| !quote)
        && ((more && body.len() % 8 != 0) || usize::from(offset) + body.len() > 65_535)
    {
        wrong.push(DropReason::MalformedHeader);
    }
    Some(Ip {
        six: true,
        class: (word(packet, 0) >> 4) as u8,
        hops: packet[7],
        protocol: next,
        dont_fragment: false,
        identification: 0,
        place,
        segments_left_at,
        source: packet[8..24].to_vec(),
        destination: packet[24..40].to_vec(),
        headers: at,
        body: body.to_vec(),
        promised: total.saturating_sub(at),
    })
}

pub(super) fn icmp(ip: &Ip, quote: bool, wrong: &mut Vec<DropReason>) {
    let errors: &[u8] = if ip.protocol == ICMPV6 { &[1, 2, 3, 4] } else { &[3, 11, 12] };
    if ip.is_fragment() {
        wrong.push(DropReason::FragmentedIcmp);
    } else if ip.body.len() < 8 {
        wrong.push(if quote { DropReason::EmbeddedMalformed } else { DropReason::MalformedTransport });
    } else if !ip.is_echo() && quote {
        wrong.push(DropReason::EmbeddedNotTranslatable);
    } else if !ip.is_echo() && !errors.contains(&ip.body[0]) {
        wrong.push(DropReason::IcmpNotTranslatable);
    }
}

/// A transport header with ports, of a packet that is whole or a first fragment.
pub(super) fn ports(ip: &Ip, quote: bool, wrong: &mut Vec<DropReason>) {
    if quote {
        if ip.body.len() < 8 {
            wrong.push(DropReason::EmbeddedMalformed);
        }
        return;
    }
    let short =
        if ip.is_first() { DropReason::FirstFragmentTooShort } else { DropReason::MalformedTransport };
    let least = match ip.protocol {
        TCP => 20,
        33 => 12,
        _ => 8,
    };
    if ip.body.len() < least {
        return wrong.push(short);
    }
    if ip.protocol == TCP {
        let header = usize::from(ip.body[12] >> 4) * 4;
        if header < 20 {
            wrong.push(DropReason::MalformedTransport);
        } else if header > ip.body.len() {
            wrong.push(short);
        }
    }
    if ip.protocol == UDP {
        let length = usize::from(word(&ip.body, 4));
        if length < 8 || (!ip.is_fragment() && length > ip.body.len()) {
            wrong.push(DropReason::MalformedTransport);
        }
    }
}

//! What must hold of whatever a translation does.

use std::ops::Range;

use super::model::{self, Expected, Flow, read::Ip};
use super::sides::{Side, Talk};
use super::{
    Case, Door, DropReason, FRAGMENT, HEADROOM, HOST4, HOST6, Ipv4Packet, Ipv6Packet, Outcome, PEER4, PEER6,
    Ports, Protocol, TCP, UDP, Verdict, VirtioNetHdr, Way, checksums,
};

/// Bytes behind a packet that nobody may touch.
pub(super) const BEHIND: usize = 16;

/// What fills the storage around a packet.
const FILL: u8 = 0xa5;

pub(super) fn check(case: &Case, way: Way) -> Outcome {
    let outcome = match way {
        Way::SixToFour => {
            let (source, destination) = (HOST4.octets(), PEER4.octets());
            run::<Ipv6Packet<'_>>(case, true, Flow { source: &source, destination: &destination })
        }
        Way::FourToSix => {
            let (source, destination) = (PEER6.octets(), HOST6.octets());
            run::<Ipv4Packet<'_>>(case, false, Flow { source: &source, destination: &destination })
        }
    };
    assert!(!case.sound || outcome == Outcome::Forward, "a sound packet ends in {outcome:?}");
    outcome
}

fn run<P: for<'s> SideOf<'s>>(case: &Case, six: bool, flow: Flow<'_>) -> Outcome {
    let length = case.packet.len();
    let fresh = || {
        let mut storage = vec![FILL; HEADROOM + length + BEHIND];
        storage[HEADROOM..HEADROOM + length].copy_from_slice(&case.packet);
        storage
    };
    let said = match case.door {
        Door::Offloaded(said) => said,
        _ => VirtioNetHdr::default(),
    };
    if let Some(range) = case.misplaced.clone() {
        let mut storage = fresh();
        let refused = <P as SideOf<'_>>::Side::check(&mut storage, range, case.door).err();
        assert_eq!(refused, Some(DropReason::NoHeadroom));
        assert!(storage == fresh(), "a packet that is not there was changed");
        return Outcome::Door(DropReason::NoHeadroom);
    }
    let range = HEADROOM..HEADROOM + length;
    let Some(arrived) = repaired(case, six) else {
        let refused = <P as SideOf<'_>>::Side::check(&mut fresh(), range, case.door).err();
        assert_eq!(refused, Some(DropReason::MalformedHeader), "too short or too long to be put together");
        return Outcome::Door(DropReason::MalformedHeader);
    };
    let expected = model::expect(case, &arrived, six, flow, &said);
    if let Some(ip) = expected.ip.as_ref() {
        let mut storage = fresh();
        let changed = <P as SideOf<'_>>::Side::check(&mut storage, range.clone(), case.door)
            .map(|mut checked| checked.clamp_mss(case.identification));
        if let Ok(changed) = changed {
            clamped(changed, &storage[HEADROOM..HEADROOM + length], (&arrived, ip), (case, &said));
        }
    }

    let mut storage = fresh();
    let outcome = pass::<<P as SideOf<'_>>::Side>(&mut storage, range.clone(), (case, &expected, &said));
    assert!(
        storage[HEADROOM + length..].iter().all(|byte| *byte == FILL),
        "{outcome:?} has written behind the packet"
    );
    if outcome == Outcome::Forward {
        return outcome;
    }
    assert!(storage[HEADROOM..HEADROOM + length] == arrived, "{outcome:?} has changed the packet");
    assert!(
        storage[..HEADROOM].iter().all(|byte| *byte == FILL),
        "{outcome:?} has written in front of the packet"
    );
    let (Some(reason), Some(ip)) = (outcome.reason(), expected.ip.as_ref()) else { return outcome };
    if let Ok(checked) = <P as SideOf<'_>>::Side::check(&mut storage, range.clone(), case.door) {
        let answer = checked.answer(reason, case).map(<[u8]>::to_vec);
        let wanted = <P as SideOf<'_>>::Side::expected_answer(reason, &arrived, ip, &said, case);
        assert!(answer == wanted, "the answer\n{answer:02x?} instead of\n{wanted:02x?}");
        if let Ok(checked) = <P as SideOf<'_>>::Side::check(&mut fresh(), range.clone(), case.door) {
            let frame = checked.answer_framed(reason, case).map(<[u8]>::to_vec);
            let nothing = VirtioNetHdr::default().to_bytes();
            assert!(frame == answer.as_ref().map(|answer| [&nothing, &answer[..]].concat()), "its frame");
        }
        assert!(answer.is_some() || !matches!(outcome, Outcome::Reply(_)), "no answer to {outcome:?}");
    }
    if let Ok(checked) = <P as SideOf<'_>>::Side::check(&mut fresh(), range, case.door) {
        let error = checked.error(case.error, case).map(<[u8]>::to_vec);
        let wanted = <P as SideOf<'_>>::Side::expected_error(case.error, &arrived, ip, &said, case);
        assert!(error == wanted, "the error\n{error:02x?} instead of\n{wanted:02x?}");
    }
    outcome
}

/// Once through the door and the translation.
fn pass<'s, S: Side<'s>>(
    storage: &'s mut [u8],
    range: Range<usize>,
    (case, expected, said): (&Case, &Expected, &VirtioNetHdr),
) -> Outcome {
    let mut checked = match S::check(storage, range, case.door) {
        Ok(checked) => checked,
        Err(reason) => {
            assert!(expected.wrong.contains(&reason), "{reason}, but {:?}", expected.wrong);
            assert!(!is_refusal(reason), "{reason} at the door, where nobody can be told");
            return Outcome::Door(reason);
        }
    };
    let ip = expected.ip.as_ref().unwrap_or_else(|| panic!("let in, but {:?}", expected.wrong));
    let (talks, inner) = checked.talk();
    assert_eq!(talks, talk(ip, false), "the tuple");
    // A packet inside that cannot be translated may still have a tuple.
    assert!(
        expected.inner.is_none() || inner == expected.inner.as_ref().map(|ip| talk(ip, true)),
        "the tuple inside"
    );
    part(&checked.part(), ip, said);
    assert_eq!(checked.wire_length(), wire_length(ip, said), "the length on the wire");
    let refusal = checked.refusal();
    let outcome = match checked.translate(case) {
        Verdict::Forward(packets) => {
            assert!(expected.wrong.is_empty(), "forwarded, but {:?}", expected.wrong);
            assert_eq!(refusal, None, "a refusal that was none");
            checksums::forwarded(case, packets, ip, expected, said);
            return Outcome::Forward;
        }
        Verdict::Reply(reason) => Outcome::Reply(reason),
        Verdict::Hold(reason) => Outcome::Hold(reason),
        Verdict::Drop(reason) => Outcome::Drop(reason),
    };
    let reason = outcome.reason().unwrap_or(DropReason::NoHeadroom);
    assert!(expected.wrong.contains(&reason), "{outcome:?}, but {:?}", expected.wrong);
    assert_eq!(outcome, verdict(reason, ip), "the verdict");
    assert_eq!(refusal, Some(reason).filter(|reason| is_refusal(*reason)), "what refuses it beforehand");
    outcome
}

/// The packet type of each lifetime.
trait SideOf<'s> {
    type Side: Side<'s>;
}

impl<'s> SideOf<'s> for Ipv6Packet<'_> {
    type Side = Ipv6Packet<'s>;
}

impl<'s> SideOf<'s> for Ipv4Packet<'_> {
    type Side = Ipv4Packet<'s>;
}

/// What the packet's own form decides, and what lets it in all the same.
fn is_refusal(reason: DropReason) -> bool {
    use DropReason as R;
    matches!(
        reason,
        R::SourceRoute
            | R::SegmentsLeft
            | R::FirstFragmentTooShort
            | R::FragmentedIcmp
            | R::ForbiddenProtocol
            | R::UdpZeroChecksumFragment
            | R::HopLimitExceeded
    )
}

fn verdict(reason: DropReason, ip: &Ip) -> Outcome {
    match reason {
        DropReason::FragmentedIcmp | DropReason::UdpZeroChecksumFragment => Outcome::Hold(reason),
        _ if model::own::is_answered(reason, ip.six) && model::own::may_be_answered(ip) => {
            Outcome::Reply(reason)
        }
        _ => Outcome::Drop(reason),
    }
}

fn talk(ip: &Ip, quote: bool) -> Talk {
    let protocol = match ip.protocol {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ if ip.is_icmp() => Protocol::Icmp,
        other => Protocol::Other(other),
    };
    let word = |at: usize| u16::from_be_bytes([ip.body[at], ip.body[at + 1]]);
    let ports = if ip.has_ports() && ip.body.len() >= 4 && (quote || !is_too_short(ip)) {
        Ports::Pair { source: word(0), destination: word(2) }
    } else if ip.is_echo() && !ip.is_fragment() && ip.body.len() >= 8 {
        Ports::Identifier(word(4))
    } else {
        Ports::None
    };
    (ip.source.clone(), ip.destination.clone(), protocol, ports)
}

/// A first fragment without its whole transport header.
fn is_too_short(ip: &Ip) -> bool {
    let least = match ip.protocol {
        TCP => usize::from(ip.body.get(12).map_or(5, |byte| byte >> 4)).max(5) * 4,
        33 => 12,
        _ => 8,
    };
    ip.is_first() && ip.body.len() < least
}

/// Which part of a datagram it is, and how many packets it is on the wire.
fn part((part, segments): &(Option<super::FragmentPart>, usize), ip: &Ip, said: &VirtioNetHdr) {
    let place = ip.place.filter(|_| ip.is_fragment());
    assert_eq!(
        part.as_ref().map(|part| (part.identification, part.offset, part.more)),
        place,
        "the fragment"
    );
    if let Some(part) = part {
        let at = HEADROOM + ip.headers;
        assert_eq!((part.headers, part.payload.clone()), (ip.headers, at..at + ip.body.len()), "its payload");
    }
    let expected = if said.gso_type == 0 { 1 } else { model::segments::split(ip, said).len() };
    assert_eq!(*segments, expected, "the number of segments");
}

/// The lengths of all segments.
fn wire_length(ip: &Ip, said: &VirtioNetHdr) -> usize {
    if said.gso_type == 0 {
        return ip.headers + ip.body.len();
    }
    model::segments::split(ip, said).iter().map(|segment| ip.headers + segment.len()).sum()
}

/// Nothing but the segment size that a SYN announces has changed, and the checksum by that.
fn clamped(changed: bool, packet: &[u8], (before, ip): (&[u8], &Ip), (case, said): (&Case, &VirtioNetHdr)) {
    let mut expected = before.to_vec();
    let body = model::mss::clamped(ip, case.identification);
    let range = ip.headers..ip.headers + body.len();
    assert_eq!(changed, body != ip.body, "whether it was changed");
    expected[range.clone()].copy_from_slice(&body);
    if changed && said.flags & VirtioNetHdr::NEEDS_CSUM == 0 {
        let (now, then) = (super::sums::of(&packet[range]), super::sums::of(&ip.body));
        assert_eq!(now % 0xffff, then % 0xffff, "the difference of the checksum");
        let field = ip.headers + 16..ip.headers + 18;
        expected[field.clone()].copy_from_slice(&packet[field]);
    }
    assert!(packet == expected, "clamped to\n{packet:02x?} instead of\n{expected:02x?}");
}

/// The packet that came in; one that was put together with its lengths repaired.
fn repaired(case: &Case, six: bool) -> Option<Vec<u8>> {
    let mut packet = case.packet.clone();
    if !matches!(case.door, Door::Reassembled) {
        return Some(packet);
    }
    if six {
        let length = u16::try_from(packet.len().checked_sub(40)?).ok()?;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        let (mut next, mut at) = (packet[6], 40);
        for _ in 0..8 {
            match next {
                FRAGMENT if at + 8 <= packet.len() => {
                    packet[at + 2..at + 4].fill(0);
                    break;
                }
                0 | 43 | 60 if at + 2 <= packet.len() => {
                    (next, at) = (packet[at], at + 8 + usize::from(packet[at + 1]) * 8);
                }
                _ => break,
            }
        }
    } else {
        let length = u16::try_from(packet.len()).ok()?;
        let header = usize::from(packet.first()? & 0xf) * 4;
        if packet.len() < header.max(20) {
            return None;
        }
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[6..8].fill(0);
        packet[10..12].fill(0);
        let sum = super::sums::folded(super::sums::of(&packet[..header]));
        packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    }
    Some(packet)
}

//! The law of super-packets: translating one and cutting it then gives what cutting it first and translating each segment gives.
//! The cutting is done by [`segmenter`](super::segmenter), which shares no code with the crate.

use std::net::{Ipv4Addr, Ipv6Addr};

use interproto::{DropReason, HEADROOM, Ipv4Packet, Ipv6Packet, Params, Rewrite, Verdict, VirtioNetHdr};

use super::packets::FRAGMENT;
use super::segmenter::*;
use super::{referee, storage};

pub(crate) type Outcome = Result<Vec<(Vec<u8>, VirtioNetHdr)>, DropReason>;

fn out(verdict: Verdict<'_>) -> Outcome {
    match verdict {
        Verdict::Forward(mut packets) => {
            let mut all = Vec::new();
            let offload = packets.offload();
            while let Some(packet) = packets.next() {
                referee::lengths(packet);
                all.push((packet.to_vec(), offload));
                assert!(all.len() < 10_000, "the packets come to an end");
            }
            Ok(all)
        }
        Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => Err(reason),
    }
}

pub(crate) fn six(
    packet: &[u8],
    offload: &VirtioNetHdr,
    rewrite: &Rewrite<Ipv4Addr>,
    id: u16,
    params: &Params,
) -> Outcome {
    let mut storage = storage(packet);
    let mut checked = Ipv6Packet::check_offloaded(&mut storage, HEADROOM..HEADROOM + packet.len(), offload)?;
    let (segments, mut asked) = (checked.segments(), Vec::new());
    let give = |count| {
        asked.push(count);
        id
    };
    let outcome = out(checked.translate(rewrite, give, params));
    // Identifications are taken for those who need some, and for nobody else.
    let needs = |packet: &[u8]| packet[6] & 0x40 == 0;
    let brought = packet[6] == FRAGMENT;
    match &outcome {
        Ok(translated) if needs(&translated[0].0) && !brought => assert_eq!(asked, [segments]),
        _ => assert!(asked.is_empty(), "{asked:?} for {outcome:02x?}"),
    }
    outcome
}

pub(crate) fn four(
    packet: &[u8],
    offload: &VirtioNetHdr,
    rewrite: &Rewrite<Ipv6Addr>,
    params: &Params,
) -> Outcome {
    let mut storage = storage(packet);
    out(Ipv4Packet::check_offloaded(&mut storage, HEADROOM..HEADROOM + packet.len(), offload)?
        .translate(rewrite, params))
}

/// The law, one way.
#[track_caller]
pub(crate) fn law_six(
    packet: &[u8],
    offload: &VirtioNetHdr,
    rewrite: &Rewrite<Ipv4Addr>,
    id: u16,
    params: &Params,
) -> usize {
    let mut expected = Vec::new();
    for (index, segment) in cut(packet, offload).iter().enumerate() {
        let id = id.wrapping_add(index as u16);
        expected.extend(six(segment, &VirtioNetHdr::default(), rewrite, id, params).unwrap());
    }
    let translated = six(packet, offload, rewrite, id, params).unwrap();
    assert_eq!(translated.len(), 1, "a super-packet stays one");
    same_segments(offload, &translated[0].1);
    let found = cut(&translated[0].0, &translated[0].1);
    let count = found.len();
    assert_eq!(count, expected.len());
    let longest = found[0].len();
    for (index, (mut found, (mut expected, _))) in found.into_iter().zip(expected).enumerate() {
        referee::checksums(&found);
        // With DF the identification means nothing (RFC 6864 §4.1), though a kernel counts it up all the same. And one header says
        // DF for all segments, also for a last one that is shorter.
        if found[6] & 0x40 != 0 {
            if index + 1 == count && found.len() < longest {
                expected[6] |= 0x40;
            }
            for packet in [&mut found, &mut expected] {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
        }
        assert_eq!(found, expected);
    }
    count
}

/// The other way, where a segment may become several fragments.
#[track_caller]
pub(crate) fn law_four(
    packet: &[u8],
    offload: &VirtioNetHdr,
    rewrite: &Rewrite<Ipv6Addr>,
    params: &Params,
) -> usize {
    let mut expected = Vec::new();
    for segment in cut(packet, offload) {
        expected.extend(four(&segment, &VirtioNetHdr::default(), rewrite, params).unwrap());
    }
    let expected: Vec<_> = expected.into_iter().map(|(packet, _)| packet).collect();
    let mut found = Vec::new();
    for (packet, described) in four(packet, offload, rewrite, params).unwrap() {
        if described.gso_type != VirtioNetHdr::GSO_NONE {
            same_segments(offload, &described);
        }
        found.extend(cut(&packet, &described));
    }
    assert!(found == expected, "{found:02x?}\n{expected:02x?}");
    for packet in &found {
        referee::checksums(packet);
    }
    found.len()
}

/// What a sender has chosen is not changed: the size of its segments, and what ECN says of them.
#[track_caller]
fn same_segments(before: &VirtioNetHdr, after: &VirtioNetHdr) {
    let ecn = VirtioNetHdr::GSO_ECN;
    assert_eq!((before.gso_size, before.gso_type & ecn), (after.gso_size, after.gso_type & ecn));
}

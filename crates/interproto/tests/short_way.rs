//! A plain packet takes a short way: what it says is what the general way says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::random::*;
use common::*;
use interproto::{DropReason, HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Verdict, VirtioNetHdr};
use proptest::prelude::*;
use proptest::sample::Index;

/// A TCP or UDP packet without anything else in it, but for what a few flipped bits do to it.
fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
    let flips = prop::collection::vec((any::<Index>(), 0_u8..8), 0..2);
    (content(), any::<bool>(), any::<bool>(), any::<u16>(), flips).prop_map(
        |(content, six, dont_fragment, identification, flips)| {
            let packet = Content { kind: content.kind % 2, ..content }.packet(if six { OUT6 } else { IN4 });
            let packet = if dont_fragment { packet } else { packet.may_fragment(identification) };
            let mut bytes = packet.bytes();
            for (at, bit) in flips {
                let at = at.index(bytes.len().min(64));
                bytes[at] ^= 1 << bit;
            }
            mend_checksums(&mut bytes);
            bytes
        },
    )
}

/// What a kernel may say of a packet.
#[derive(Debug, Clone, Copy)]
enum Description {
    /// These flags, and what belongs to them, but for these differences.
    Fitting {
        flags: u8,
        start: u16,
        offset: u16,
    },
    Segments {
        size: u16,
        udp: bool,
    },
    Any([u8; VirtioNetHdr::LENGTH]),
}

impl Description {
    fn of(self, packet: &[u8]) -> VirtioNetHdr {
        let six = packet[0] >> 4 == 6;
        let csum_start = if six { 40 } else { 20 };
        let csum_offset = if packet[if six { 6 } else { 9 }] == TCP { 16 } else { 6 };
        let partial = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..VirtioNetHdr::default()
        };
        match self {
            Self::Fitting { flags, start, offset } => VirtioNetHdr {
                flags,
                csum_start: csum_start.wrapping_add(start),
                csum_offset: csum_offset.wrapping_add(offset),
                ..partial
            },
            Self::Segments { size, udp } => {
                let gso_type = match (udp, six) {
                    (true, _) => VirtioNetHdr::GSO_UDP_L4,
                    (false, true) => VirtioNetHdr::GSO_TCPV6,
                    (false, false) => VirtioNetHdr::GSO_TCPV4,
                };
                VirtioNetHdr { gso_type, gso_size: size, ..partial }
            }
            Self::Any(bytes) => VirtioNetHdr::from_bytes(bytes),
        }
    }
}

fn description() -> impl Strategy<Value = Description> {
    let slightly = || prop_oneof![8 => Just(0_u16), 1 => any::<u16>()];
    prop_oneof![
        6 => (0_u8..4, slightly(), slightly())
            .prop_map(|(flags, start, offset)| Description::Fitting { flags, start, offset }),
        2 => (slightly().prop_map(|size| size % 2000), any::<bool>())
            .prop_map(|(size, udp)| Description::Segments { size: size + 100, udp }),
        1 => any::<[u8; VirtioNetHdr::LENGTH]>().prop_map(Description::Any),
    ]
}

/// The same TCP or UDP packet with an IPv4 option or an IPv6 extension header that says nothing, and how many bytes that is. A wrong
/// header checksum stays wrong by the same difference. What has some already is no packet for the short way.
fn with_more_headers(packet: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut packet = packet.to_vec();
    let is_ported = |protocol| matches!(protocol, TCP | UDP);
    match packet.first()? {
        first if first >> 4 == 6 && packet.len() >= 40 && is_ported(packet[6]) => {
            let length = word(&packet, 4).checked_add(8)?;
            let protocol = std::mem::replace(&mut packet[6], DESTINATION_OPTIONS);
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            packet.splice(40..40, [protocol, 0, 1, 4, 0, 0, 0, 0]);
            Some((packet, 8))
        }
        0x45 if packet.len() >= 20 && is_ported(packet[9]) && word(&packet, 2) >= 20 => {
            let length = word(&packet, 2).checked_add(4)?;
            // The header grows by a word of its own, by four bytes in its length, and by four options of value 1.
            let sum = u32::from(word(&packet, 10)) + 2 * 0xffff - 0x0100 - 4 - 2 * 0x0101;
            packet[0] = 0x46;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[10..12].copy_from_slice(&((sum % 0xffff) as u16).to_be_bytes());
            packet.splice(20..20, [1; 4]);
            Some((packet, 4))
        }
        _ => None,
    }
}

/// All that is said of a packet and becomes of it, but for `more` bytes of headers, which each of its segments has.
fn outcome(
    bytes: &[u8],
    said: Option<VirtioNetHdr>,
    more: usize,
    ports: PortRewrite,
    params: &Params,
) -> Result<(String, String), DropReason> {
    let mut storage = storage(bytes);
    let range = HEADROOM..HEADROOM + bytes.len();
    let collect = |verdict: Verdict<'_>| match verdict {
        Verdict::Forward(mut packets) => {
            let mut all = Vec::new();
            while let Some(packet) = packets.next_framed() {
                all.push(packet.to_vec());
            }
            format!("{:?} {all:02x?}", packets.offload())
        }
        other => format!("{other:?}"),
    };
    // A macro, since the two types have nothing in common but names.
    macro_rules! outcome {
        ($packet:ident, |$checked:ident| $translate:expr) => {{
            let mut $checked = match said {
                None => $packet::check(&mut storage, range.clone()),
                Some(said) => $packet::check_offloaded(&mut storage, range.clone(), &said),
            }?;
            let length = $checked.wire_length() - more * $checked.segments();
            let about = ($checked.tuple(), $checked.refusal(), $checked.tcp_flags(), $checked.segments());
            let about = format!("{about:?} {length} {}", $checked.may_be_answered());
            (about, collect($translate))
        }};
    }
    let (about, verdict) = if bytes.first().is_some_and(|first| first >> 4 == 6) {
        outcome!(Ipv6Packet, |checked| checked.translate(
            &rewrite_to4(OUT4, ports),
            |_| IDENTIFICATION,
            params
        ))
    } else {
        outcome!(Ipv4Packet, |checked| checked.translate(&rewrite_to6(IN6, ports), params))
    };
    assert!(verdict.contains('[') || storage[range] == *bytes, "a dropped packet stays as it was");
    Ok((about, verdict))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// A plain packet takes a short way, whether or not it has a description, and whether its checksum is whole or partial. The same
    /// packet with an option or an extension header that says nothing never does: they say the same.
    #[test]
    fn the_short_way_of_a_plain_packet_says_what_the_general_way_says(
        bytes in prop_oneof![almost_a_packet(), nearly_plain()], said in description(), ports in ports(),
        ipv6_mtu in 0_u32..3000, ipv4_mtu in 0_u16..3000, lowest_ipv6_mtu in 0_u16..3000,
    ) {
        let params = Params { lowest_ipv6_mtu, ipv6_mtu, ipv4_mtu, ..Params::DEFAULT };
        let nothing = VirtioNetHdr::default();
        let without = outcome(&bytes, None, 0, ports, &params);
        prop_assert_eq!(&without, &outcome(&bytes, Some(nothing), 0, ports, &params));
        let Some((general, more)) = with_more_headers(&bytes) else { return Ok(()) };
        prop_assert_eq!(&without, &outcome(&general, None, more, ports, &params));
        let said = said.of(&bytes);
        let moved = VirtioNetHdr { csum_start: said.csum_start.wrapping_add(more as u16), ..said };
        prop_assert_eq!(
            outcome(&bytes, Some(said), 0, ports, &params),
            outcome(&general, Some(moved), more, ports, &params)
        );
    }
}

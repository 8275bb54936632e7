use super::*;
use crate::Params;

const QUOTED: Quoted = Quoted { total_length: 1500, fragment_header: false };

fn head(kind: u8, code: u8, rest: u32) -> Head {
    Head { kind, code, rest }
}

/// RFC 7915 §4.2, written out a second time: the code's matches against a table.
#[test]
fn all_types_and_codes_from_ipv4_are_as_section_4_2_says() {
    for kind in 0..=255 {
        for code in 0..=255 {
            let expected = match (kind, code) {
                (3, 2) => Some((4, 1)),
                (3, 3) => Some((1, 4)),
                (3, 4) => Some((2, 0)),
                (3, 9 | 10 | 13 | 15) => Some((1, 1)),
                (3, 0..=12) => Some((1, 0)),
                (11, code) => Some((3, code)),
                (12, 0 | 2) => Some((4, 0)),
                _ => None,
            };
            let found = v4::to_v6(head(kind, code, 0), QUOTED, &Params::DEFAULT)
                .ok()
                .map(|head| (head.kind, head.code));
            assert_eq!(found, expected, "{kind}/{code}");
            assert!(expected.is_none() || v4::is_error(kind), "the door lets it in");
        }
    }
}

#[test]
fn all_types_and_codes_from_ipv6_are_as_section_5_2_says() {
    for kind in 0..=255 {
        for code in 0..=255 {
            let expected = match (kind, code) {
                (1, 0 | 2 | 3) => Some((3, 1)),
                (1, 1) => Some((3, 10)),
                (1, 4) => Some((3, 3)),
                (2, _) => Some((3, 4)),
                (3, code) => Some((11, code)),
                (4, 0) => Some((12, 0)),
                (4, 1) => Some((3, 2)),
                _ => None,
            };
            let found = v6::to_v4(head(kind, code, 0), QUOTED, &Params::DEFAULT)
                .ok()
                .map(|head| (head.kind, head.code));
            assert_eq!(found, expected, "{kind}/{code}");
            assert!(expected.is_none() || v6::is_error(kind), "the door lets it in");
        }
    }
}

#[test]
fn all_ipv4_pointers_are_as_figure_3_says() {
    for pointer in 0..=255_u32 {
        let expected = match pointer {
            0 => Ok(0),
            1 => Ok(1),
            2 | 3 => Ok(4),
            8 => Ok(7),
            9 => Ok(6),
            12..=15 => Ok(8),
            16..=19 => Ok(24),
            _ => Err(DropReason::PointerNotTranslatable),
        };
        let found = v4::to_v6(head(12, 0, pointer << 24), QUOTED, &Params::DEFAULT).map(|head| head.rest);
        assert_eq!(found, expected, "{pointer}");
    }
}

#[test]
fn ipv6_pointers_have_32_bits_and_are_as_figure_6_says() {
    let expect = |pointer: u32, expected: Option<u32>| {
        let found = v6::to_v4(head(4, 0, pointer), QUOTED, &Params::DEFAULT).ok().map(|head| head.rest >> 24);
        assert_eq!(found, expected, "{pointer}");
    };
    for (range, expected) in
        [(0..=0, 0), (1..=1, 1), (4..=5, 2), (6..=6, 9), (7..=7, 8), (8..=23, 12), (24..=39, 16)]
    {
        range.for_each(|pointer: u32| expect(pointer, Some(expected)));
    }
    for pointer in [2, 3, 40, 255, 256, 257, 262, 1 << 16, u32::MAX] {
        expect(pointer, None);
    }
}

#[test]
fn the_mtu_of_fragmentation_needed_grows_by_20_and_is_at_least_1280() {
    let mtu = |mtu: u32| v4::to_v6(head(3, 4, mtu), QUOTED, &Params::DEFAULT).unwrap().rest;
    assert_eq!(mtu(1500), 1520);
    assert_eq!(mtu(1300), 1320);
    assert_eq!(mtu(576), 1280);
    assert_eq!(mtu(65_535), 65_555);
    assert_eq!(mtu(0xffff_0578), 1420, "the upper half is unused");
}

#[test]
fn an_mtu_of_zero_is_the_plateau_below_the_packets_length() {
    let mtu = |total_length: usize| {
        v4::to_v6(head(3, 4, 0), Quoted { total_length, fragment_header: false }, &Params::DEFAULT)
            .unwrap()
            .rest
    };
    assert_eq!(mtu(1500), 1512, "RFC 1191 section 7.1: 1492");
    assert_eq!(mtu(65_535), 32_020);
    assert_eq!(mtu(9000), 8186);
    assert_eq!(mtu(68), 1280);
    assert_eq!(mtu(0), 1280);
}

#[test]
fn the_mtu_of_packet_too_big_shrinks_by_20_or_28_and_never_wraps() {
    let mtu = |mtu: u32, fragment_header: bool| {
        v6::to_v4(head(2, 0, mtu), Quoted { total_length: 1500, fragment_header }, &Params::DEFAULT)
            .unwrap()
            .rest
    };
    assert_eq!(mtu(1500, false), 1480);
    assert_eq!(mtu(1500, true), 1472);
    assert_eq!(mtu(1280, false), 1260);
    assert_eq!(mtu(0, false), 68);
    assert_eq!(mtu(27, true), 68);
    assert_eq!(mtu(u32::MAX, false), 65_535);
}

/// RFC 7915 §4.2 and §5.2: no error promises more than the next links carry.
#[test]
fn the_mtu_of_a_translated_error_is_no_more_than_the_next_links_carry() {
    let links = |ipv6_mtu, ipv4_mtu| Params { ipv6_mtu, ipv4_mtu, ..Params::DEFAULT };
    let to_v6 = |mtu, params| v4::to_v6(head(3, 4, mtu), QUOTED, &params).unwrap().rest;
    assert_eq!(to_v6(1480, links(1400, 1500)), 1400);
    assert_eq!(to_v6(1480, links(9000, 1380)), 1400);
    assert_eq!(to_v6(1480, links(9000, 9000)), 1500);
    assert_eq!(to_v6(1480, links(500, 500)), 1280);
    let to_v4 = |mtu, params| v6::to_v4(head(2, 0, mtu), QUOTED, &params).unwrap().rest;
    assert_eq!(to_v4(1500, links(1400, 1500)), 1380);
    assert_eq!(to_v4(1500, links(9000, 1400)), 1400);
    assert_eq!(to_v4(1500, links(9000, 9000)), 1480);
    assert_eq!(to_v4(1500, links(0, 0)), 68);
}

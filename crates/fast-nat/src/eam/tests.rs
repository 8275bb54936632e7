use proptest::prelude::*;

use super::*;

fn eam(ipv4: &str, ipv6: &str) -> Eam {
    Eam::new(ipv4.parse().unwrap(), ipv6.parse().unwrap()).unwrap()
}

fn table(eams: &[(&str, &str)]) -> EamTable {
    EamTable::new(eams.iter().map(|(ipv4, ipv6)| eam(ipv4, ipv6)).collect()).unwrap()
}

fn to_v6(table: &EamTable, address: &str) -> Option<String> {
    table.to_v6(address.parse().unwrap()).map(|address| address.to_string())
}

fn to_v4(table: &EamTable, address: &str) -> Option<String> {
    table.to_v4(address.parse().unwrap()).map(|address| address.to_string())
}

/// RFC 7757 appendix B, with the table of figure 1.
#[test]
fn the_examples_of_the_rfc_hold_in_both_directions() {
    let table = table(&[
        ("192.0.2.1/32", "2001:db8:aaaa::/128"),
        ("192.0.2.2/32", "2001:db8:bbbb::b/128"),
        ("192.0.2.16/28", "2001:db8:cccc::/124"),
        ("192.0.2.128/26", "2001:db8:dddd::/64"),
        ("192.0.2.192/29", "2001:db8:eeee:8::/62"),
        ("192.0.2.224/31", "64:ff9b::/127"),
    ]);
    for (ipv4, ipv6) in [
        ("192.0.2.1", "2001:db8:aaaa::"),
        ("192.0.2.2", "2001:db8:bbbb::b"),
        ("192.0.2.16", "2001:db8:cccc::"),
        ("192.0.2.24", "2001:db8:cccc::8"),
        ("192.0.2.31", "2001:db8:cccc::f"),
        ("192.0.2.128", "2001:db8:dddd::"),
        ("192.0.2.152", "2001:db8:dddd:0:6000::"),
        ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
        ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
        ("192.0.2.193", "2001:db8:eeee:8:8000::"),
        ("192.0.2.195", "2001:db8:eeee:9:8000::"),
        ("192.0.2.225", "64:ff9b::1"),
    ] {
        assert_eq!(to_v6(&table, ipv4).as_deref(), Some(ipv6));
        assert_eq!(to_v4(&table, ipv6).as_deref(), Some(ipv4));
    }
    for unmapped in
        ["192.0.2.0", "192.0.2.3", "192.0.2.15", "192.0.2.32", "192.0.2.200", "0.0.0.0", "255.255.255.255"]
    {
        assert_eq!(to_v6(&table, unmapped), None, "{unmapped}");
    }
    for unmapped in
        ["2001:db8:aaaa::1", "2001:db8:cccc::10", "2001:db8:eeee:c::", "64:ff9b::2", "::", "ffff::"]
    {
        assert_eq!(to_v4(&table, unmapped), None, "{unmapped}");
    }
}

/// RFC 7757 §5: a host with an address of its own out of a larger mapping.
#[test]
fn of_overlapping_mappings_the_longest_prefix_decides_in_each_direction() {
    let table = table(&[("0.0.0.0/0", "2001:db8:ff00::/40"), ("198.51.100.64/32", "2001:db8::abcd/128")]);
    assert_eq!(to_v6(&table, "198.51.100.64").as_deref(), Some("2001:db8::abcd"));
    assert_eq!(to_v4(&table, "2001:db8::abcd").as_deref(), Some("198.51.100.64"));
    assert_eq!(to_v6(&table, "198.51.100.65").as_deref(), Some("2001:db8:ffc6:3364:4100::"));
    // The address that would come back as 2001:db8::abcd: the directions are apart.
    assert_eq!(to_v4(&table, "2001:db8:ffc6:3364:4000::").as_deref(), Some("198.51.100.64"));
    assert_eq!(to_v6(&table, "255.255.255.255").as_deref(), Some("2001:db8:ffff:ffff:ff00::"));
    assert_eq!(to_v4(&table, "2001:db9::"), None);
}

#[test]
fn bits_behind_the_suffix_are_ignored() {
    let table = table(&[("192.0.2.0/28", "2001:db8:1::/64")]);
    assert_eq!(to_v4(&table, "2001:db8:1:0:5fff:1234::1").as_deref(), Some("192.0.2.5"));
}

#[test]
fn a_static_pair_is_a_mapping_of_two_addresses() {
    let pair = Eam::pair("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    assert_eq!(pair, eam("192.0.2.1/32", "2001:db8::1/128"));
    let table = EamTable::new(vec![pair]).unwrap();
    assert_eq!(table.eams(), [pair]);
    assert_eq!(to_v6(&table, "192.0.2.1").as_deref(), Some("2001:db8::1"));
    assert_eq!(to_v4(&table, "2001:db8::1").as_deref(), Some("192.0.2.1"));
    assert_eq!((to_v6(&table, "192.0.2.2"), to_v4(&table, "2001:db8::2")), (None, None));
}

#[test]
fn an_empty_table_maps_nothing() {
    let table = EamTable::default();
    assert!(table.is_empty());
    assert_eq!((to_v6(&table, "0.0.0.0"), to_v4(&table, "::")), (None, None));
}

#[test]
fn what_is_no_mapping_is_refused_with_a_sentence_that_helps() {
    let refused = |ipv4: &str, ipv6: &str| {
        Eam::new(ipv4.parse().unwrap(), ipv6.parse().unwrap()).unwrap_err().to_string()
    };
    let message = refused("192.0.2.1/24", "2001:db8::/120");
    assert!(message.contains("192.0.2.1/24") && message.contains("the prefix is 192.0.2.0/24"), "{message}");
    let message = refused("192.0.2.0/24", "2001:db8::1/120");
    assert!(
        message.contains("2001:db8::1/120") && message.contains("the prefix is 2001:db8::/120"),
        "{message}"
    );
    let message = refused("192.0.2.0/24", "2001:db8::/121");
    assert!(message.contains("make the IPv6 prefix /120 or shorter"), "{message}");

    let twice = |second: Eam| EamTable::new(vec![eam("192.0.2.0/24", "2001:db8::/120"), second]).unwrap_err();
    assert_eq!(
        twice(eam("192.0.2.0/24", "2001:db8:1::/120")),
        InvalidEam::Twice4("192.0.2.0/24".parse().unwrap())
    );
    assert_eq!(
        twice(eam("198.51.100.0/24", "2001:db8::/120")),
        InvalidEam::Twice6("2001:db8::/120".parse().unwrap())
    );
}

/// Mappings of any lengths, two thirds of them crowded at the beginning or the end of a few networks, where they are nested.
fn eams() -> impl Strategy<Value = Eam> {
    (any::<u32>(), 0_u8..=32, any::<u128>(), 0_u8..=128, 0_u8..3).prop_map(
        |(v4, length4, v6, room, crowd)| {
            let (free4, free6) = (0xc000_0003, 0xc000_0000 << 96 | 3);
            let (v4, v6) = match crowd {
                0 => (v4, v6),
                1 => (v4 & free4, v6 & free6),
                _ => (v4 | !free4, v6 | !free6),
            };
            let length6 = room.min(96 + length4);
            let ipv4 = Ipv4Net::new(Ipv4Addr::from_bits(v4), length4).unwrap().trunc();
            let ipv6 = Ipv6Net::new(Ipv6Addr::from_bits(v6), length6).unwrap().trunc();
            Eam::new(ipv4, ipv6).unwrap()
        },
    )
}

fn without_twins(eams: Vec<Eam>) -> Vec<Eam> {
    let mut kept: Vec<Eam> = Vec::new();
    for eam in eams {
        if kept.iter().all(|other| other.ipv4() != eam.ipv4() && other.ipv6() != eam.ipv6()) {
            kept.push(eam);
        }
    }
    kept
}

/// The first and last addresses of all prefixes, and their neighbours: where a table would go wrong.
fn edges(first: u128, last: u128) -> [u128; 4] {
    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
}

proptest! {
    /// Against the plain reading of RFC 7757 §3.3: of the prefixes that hold the address, the longest.
    #[test]
    fn a_look_up_finds_what_a_walk_through_all_mappings_finds(given in prop::collection::vec(eams(), 0..24), noise: u128) {
        let eams = without_twins(given);
        let table = EamTable::new(eams.clone()).unwrap();
        let bits4 = |address: Ipv4Addr| u128::from(address.to_bits());
        let at4 = eams.iter().flat_map(|eam| edges(bits4(eam.ipv4().network()), bits4(eam.ipv4().broadcast())));
        for bits in at4.chain([noise]) {
            let address = Ipv4Addr::from_bits(bits as u32);
            let holds = eams.iter().filter(|eam| eam.ipv4().contains(&address));
            let expected = holds.max_by_key(|eam| eam.ipv4().prefix_len()).map(|eam| {
                // Bit by bit: the suffix follows the prefix.
                let mut made = eam.ipv6().network().to_bits();
                for bit in u32::from(eam.ipv4().prefix_len())..32 {
                    let to = u32::from(eam.ipv6().prefix_len()) + bit - u32::from(eam.ipv4().prefix_len());
                    made |= u128::from(address.to_bits() >> (31 - bit) & 1) << (127 - to);
                }
                Ipv6Addr::from_bits(made)
            });
            prop_assert_eq!(table.to_v6(address), expected, "{}", address);
        }
        let at6 = eams.iter().flat_map(|eam| edges(eam.ipv6().network().to_bits(), eam.ipv6().broadcast().to_bits()));
        for bits in at6.chain([noise]) {
            let address = Ipv6Addr::from_bits(bits);
            let holds = eams.iter().filter(|eam| eam.ipv6().contains(&address));
            let expected = holds.max_by_key(|eam| eam.ipv6().prefix_len()).map(|eam| {
                let mut made = eam.ipv4().network().to_bits();
                for bit in u32::from(eam.ipv4().prefix_len())..32 {
                    let from = u32::from(eam.ipv6().prefix_len()) + bit - u32::from(eam.ipv4().prefix_len());
                    made |= (address.to_bits() >> (127 - from) & 1) as u32 * (1 << (31 - bit));
                }
                Ipv4Addr::from_bits(made)
            });
            prop_assert_eq!(table.to_v4(address), expected, "{}", address);
        }
    }

    /// One mapping is one to one: what goes there comes back.
    #[test]
    fn there_and_back_is_the_same_address(eam in eams(), suffix: u32) {
        let table = EamTable::new(vec![eam]).unwrap();
        let address =
            Ipv4Addr::from_bits(eam.ipv4().network().to_bits() | (suffix & eam.ipv4().hostmask().to_bits()));
        let there = table.to_v6(address).unwrap();
        prop_assert!(eam.ipv6().contains(&there));
        prop_assert_eq!(table.to_v4(there), Some(address));
    }
}

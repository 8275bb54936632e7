use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn plan(hosts: &[&str], nets: &[&str], ports_per_subscriber: u32) -> DeterministicConfig {
    DeterministicConfig {
        hosts: hosts.iter().map(|net| net.parse().unwrap()).collect(),
        subscriber_prefix_len: 64,
        nets: nets.iter().map(|net| pool(net, 1024, 65535)).collect(),
        reserved_addresses: Vec::new(),
        ports_per_subscriber,
        block_size: 128,
    }
}

fn pool(net: &str, first_port: u16, last_port: u16) -> DeterministicNet {
    DeterministicNet { net: net.parse().unwrap(), first_port, last_port, reserved_ports: Vec::new() }
}

fn block(plan: &Deterministic, host: &str) -> Option<(String, RangeInclusive<u16>)> {
    let (address, ports) = plan.block_of(host.parse().unwrap())?;
    Some((address.to_string(), ports))
}

fn subscriber(plan: &Deterministic, address: &str, port: u16) -> Option<String> {
    plan.subscriber_of(address.parse().unwrap(), port).map(|net| net.to_string())
}

/// The plan made the long way: one list of all slots, one of all subscribers.
fn by_hand(config: &DeterministicConfig) -> (Vec<(Ipv4Addr, u16)>, Vec<Ipv6Net>) {
    let mut slots = Vec::new();
    for pool in &config.nets {
        for address in u32::from(pool.net.network())..=u32::from(pool.net.broadcast()) {
            let address = Ipv4Addr::from(address);
            if config.reserved_addresses.contains(&address) {
                continue;
            }
            // The blocks in a row that make no whole slot yet.
            let mut row: Vec<u16> = Vec::new();
            for first in (0..=u16::MAX).step_by(usize::from(config.block_size)) {
                let last = first + (config.block_size - 1);
                let within = first >= pool.first_port && last <= pool.last_port;
                if !within || (first..=last).all(|port| pool.reserved_ports.contains(&port)) {
                    row.clear();
                    continue;
                }
                row.push(first);
                if row.len() as u32 * u32::from(config.block_size) == config.ports_per_subscriber {
                    slots.push((address, row[0]));
                    row.clear();
                }
            }
        }
    }
    let subscribers =
        config.hosts.iter().flat_map(|net| net.subnets(config.subscriber_prefix_len).unwrap()).collect();
    (slots, subscribers)
}

#[test]
fn subscribers_follow_each_other_through_ports_then_addresses_then_pools() {
    // 1024 + 3 * 16384 <= 65536: three on each address.
    let config =
        plan(&["2001:db8:1::/61", "2001:db8::/60"], &["203.0.113.8/30", "198.51.100.0/29"], 16 * 1024);
    let plan = Deterministic::new(config).unwrap();
    assert_eq!(plan.subscribers(), 8 + 16);
    assert_eq!(plan.room(), 12 * 3);
    assert_eq!(block(&plan, "2001:db8:1::"), Some(("203.0.113.8".into(), 1024..=17407)));
    assert_eq!(block(&plan, "2001:db8:1:0:ffff::1"), Some(("203.0.113.8".into(), 1024..=17407)));
    assert_eq!(block(&plan, "2001:db8:1:1::"), Some(("203.0.113.8".into(), 17408..=33791)));
    assert_eq!(block(&plan, "2001:db8:1:3::"), Some(("203.0.113.9".into(), 1024..=17407)));
    assert_eq!(block(&plan, "2001:db8::"), Some(("203.0.113.10".into(), 33792..=50175)), "number 8");
    assert_eq!(block(&plan, "2001:db8:0:4::"), Some(("198.51.100.0".into(), 1024..=17407)), "number 12");
    assert_eq!(block(&plan, "2001:db8:0:f::"), Some(("198.51.100.3".into(), 33792..=50175)), "number 23");
    assert_eq!(block(&plan, "2001:db8:0:10::"), None, "in no network of hosts");
    assert_eq!(block(&plan, "2001:db8:1:8::"), None, "behind the first network");
    assert_eq!(block(&plan, "::1"), None, "below all networks");
    assert_eq!(subscriber(&plan, "203.0.113.8", 17408), Some("2001:db8:1:1::/64".into()));
    assert_eq!(subscriber(&plan, "198.51.100.3", 50175), Some("2001:db8:0:f::/64".into()));
    assert_eq!(subscriber(&plan, "198.51.100.3", 50176), None, "behind the last slot of an address");
    assert_eq!(subscriber(&plan, "198.51.100.4", 1024), None, "a slot that no subscriber has");
    assert_eq!(subscriber(&plan, "203.0.113.8", 1023), None);
    assert_eq!(subscriber(&plan, "203.0.113.7", 1024), None);
    assert_eq!(subscriber(&plan, "203.0.113.12", 1024), None);
    assert_eq!(subscriber(&plan, "0.0.0.0", 1024), None);
}

#[test]
fn reserved_ports_and_addresses_are_nobodys() {
    let mut config = plan(&["2001:db8::/60"], &["192.0.2.0/28"], 256);
    config.reserved_addresses = ["192.0.2.0", "192.0.2.2", "203.0.113.1"].map(|a| a.parse().unwrap()).into();
    // A whole block, and one port of the next.
    config.nets[0] = pool("192.0.2.0/28", 1000, 2047);
    config.nets[0].reserved_ports = (1280..1408).chain([1500]).collect();
    let plan = Deterministic::new(config).unwrap();
    // 1024-1279 | 1280-1407 reserved | 1408-1663 | 1664-1919 | 1920-2047 too little
    assert_eq!(plan.room(), 14 * 3);
    assert_eq!(block(&plan, "2001:db8::"), Some(("192.0.2.1".into(), 1024..=1279)));
    assert_eq!(block(&plan, "2001:db8:0:1::"), Some(("192.0.2.1".into(), 1408..=1663)));
    assert_eq!(block(&plan, "2001:db8:0:3::"), Some(("192.0.2.3".into(), 1024..=1279)));
    assert_eq!(subscriber(&plan, "192.0.2.1", 1499), Some("2001:db8:0:1::/64".into()));
    assert_eq!(subscriber(&plan, "192.0.2.1", 1500), None, "a reserved port");
    assert_eq!(subscriber(&plan, "192.0.2.1", 1300), None, "a reserved block");
    assert_eq!(subscriber(&plan, "192.0.2.0", 1024), None, "a reserved address");
    assert_eq!(subscriber(&plan, "192.0.2.2", 1024), None, "a reserved address");
}

#[test]
fn a_pool_that_is_too_small_says_what_is_missing() {
    // 63 slots of 1024 ports on each of 16 addresses.
    let error = Deterministic::new(plan(&["2001:db8::/54"], &["192.0.2.0/28"], 1024)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pools have room for 1008 subscribers with 1024 ports each, and there are 1024: room for 16 is missing; \
         that is 1 more addresses, or fewer ports for each"
    );
    let error = Deterministic::new(plan(&["2001:db8::/64"], &["192.0.2.0/28"], 65536)).unwrap_err();
    assert!(error.to_string().ends_with("no address of them has that many ports in a row"), "{error}");
    let error = Deterministic::new(plan(&["2001:db8::/64"], &[], 1024)).unwrap_err();
    assert!(error.to_string().contains("there are 1: room for 1 is missing"), "{error}");
    let mut all = plan(&["::/0"], &["0.0.0.0/0"], 1024);
    all.subscriber_prefix_len = 128;
    let error = Deterministic::new(all.clone()).unwrap_err();
    assert!(matches!(error, InvalidDeterministic::PoolsTooSmall { subscribers: u128::MAX, .. }), "{error:?}");
    // Networks of which each alone is countable.
    all.hosts = vec!["::/1".parse().unwrap(), "8000::/1".parse().unwrap()];
    let error = Deterministic::new(all).unwrap_err();
    assert!(matches!(error, InvalidDeterministic::PoolsTooSmall { subscribers: u128::MAX, .. }), "{error:?}");
    // Exactly enough is enough.
    Deterministic::new(plan(&["2001:db8::/57"], &["192.0.2.0/31", "198.51.100.1/32"], 1024)).unwrap();
}

#[test]
fn the_largest_plan_is_made_and_asked_without_walking_through_it() {
    let mut config = plan(&["2001:db8::/88"], &["0.0.0.0/0"], 16);
    config.subscriber_prefix_len = 128;
    config.block_size = 16;
    config.nets[0].first_port = 1;
    let plan = Deterministic::new(config).unwrap();
    assert_eq!((plan.subscribers(), plan.room()), (1 << 40, (1 << 32) * 4095));
    let last = "2001:db8::ff:ffff:ffff";
    let (address, ports) = plan.block_of(last.parse().unwrap()).unwrap();
    let number = u64::from(u32::from(address)) * 4095 + u64::from(*ports.start()) / 16 - 1;
    assert_eq!(number, (1 << 40) - 1);
    assert_eq!(plan.subscriber_of(address, *ports.end()).unwrap().to_string(), format!("{last}/128"));
    assert_eq!(plan.subscriber_of(address, ports.end() + 1), None);
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let good = plan(&["2001:db8::/60"], &["192.0.2.0/28"], 1024);
    Deterministic::new(good.clone()).unwrap();
    let refused = |change: &dyn Fn(&mut DeterministicConfig), sentence: &str| {
        let mut config = good.clone();
        change(&mut config);
        let error = Deterministic::new(config).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    };
    refused(&|c| c.block_size = 100, "a block of 100 ports cannot be");
    refused(&|c| c.block_size = 8, "a block of 8 ports cannot be");
    refused(&|c| c.block_size = 8192, "a block of 8192 ports cannot be");
    refused(
        &|c| c.ports_per_subscriber = 0,
        "0 ports for each subscriber are no whole number of blocks of 128",
    );
    refused(&|c| c.ports_per_subscriber = 1000, "no whole number of blocks of 128");
    refused(&|c| c.subscriber_prefix_len = 31, "a subscriber cannot be a /31");
    refused(&|c| c.subscriber_prefix_len = 129, "a subscriber cannot be a /129");
    refused(&|c| c.subscriber_prefix_len = 59, "2001:db8::/60 is less than one subscriber, which is a /59");
    refused(&|c| c.hosts.clear(), "no network of hosts");
    refused(
        &|c| c.hosts.push("2001:db8:0:f::/64".parse().unwrap()),
        "2001:db8::/60 and 2001:db8:0:f::/64 overlap",
    );
    refused(&|c| c.hosts.push("2001:db8::/48".parse().unwrap()), "overlap");
    refused(&|c| c.nets.push(pool("192.0.2.15/32", 1, 2)), "192.0.2.0/28 and 192.0.2.15/32 overlap");
    refused(&|c| c.nets.push(pool("192.0.0.0/16", 1, 2)), "overlap");
    refused(&|c| c.nets[0].first_port = 0, "the ports 0-65535 of 192.0.2.0/28 are no range");
    refused(&|c| c.nets[0].last_port = 1023, "the ports 1024-1023 of 192.0.2.0/28 are no range");
}

#[test]
fn a_plan_says_all_it_is_made_of() {
    let mut config = plan(&["2001:db8::/60", "2001:db8:1::/60"], &["192.0.2.0/28", "198.51.100.0/28"], 1024);
    config.nets[0].reserved_ports = vec![8001, 5060, 8000, 8002, 5060];
    config.reserved_addresses =
        ["192.0.2.1", "192.0.2.9", "192.0.2.8", "192.0.2.7"].map(|a| a.parse().unwrap()).into();
    assert_eq!(
        Deterministic::new(config).unwrap().to_string(),
        "hosts 2001:db8::/60 2001:db8:1::/60; a subscriber is a /64 and has 1024 ports in blocks of 128; pools \
         192.0.2.0/28:1024-65535 without 5060,8000-8002 198.51.100.0/28:1024-65535; without the addresses \
         192.0.2.1,192.0.2.7-192.0.2.9"
    );
}

fn any_pool(third: u8) -> impl Strategy<Value = DeterministicNet> {
    let ports = (1_u16..=65535, 1_u16..=65535);
    let reserved = prop::collection::vec((any::<u16>(), 0_u16..300), 0..6);
    (28_u8..=32, ports, reserved).prop_map(move |(len, (a, b), reserved)| DeterministicNet {
        net: Ipv4Net::new(Ipv4Addr::new(192, 0, third, 0), len).unwrap(),
        first_port: a.min(b),
        last_port: a.max(b),
        reserved_ports: reserved.iter().flat_map(|(from, n)| *from..=from.saturating_add(*n)).collect(),
    })
}

fn any_config() -> impl Strategy<Value = DeterministicConfig> {
    let hosts = prop::collection::vec(0_u8..=5, 1..4);
    let reserved = prop::collection::vec((1_u8..=3, 0_u8..16), 0..8);
    let pools = (any_pool(1), any_pool(2), any_pool(3));
    (hosts, prop::sample::select(vec![32_u8, 48, 64, 100, 128]), pools, reserved, 4_u32..=12, 1_u32..=6)
        .prop_map(|(hosts, subscriber_prefix_len, (a, b, c), reserved, size, blocks)| {
            let nets = hosts.iter().enumerate().map(|(n, bits)| {
                // Not in the order of their addresses.
                let network = (0x2001_u128 << 112) | (u128::from(7_u8.wrapping_sub(n as u8)) << 102);
                Ipv6Net::new(Ipv6Addr::from(network), subscriber_prefix_len - bits).unwrap().trunc()
            });
            DeterministicConfig {
                hosts: nets.collect(),
                subscriber_prefix_len,
                nets: vec![b, a, c],
                reserved_addresses: reserved.iter().map(|(x, y)| Ipv4Addr::new(192, 0, *x, *y)).collect(),
                ports_per_subscriber: (1 << size) * blocks,
                block_size: 1 << size,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_plan_is_the_one_made_by_hand_and_both_directions_are_inverse(
        config in any_config(),
        somewhere in prop::collection::vec((1_u8..=3, 0_u8..=16, any::<u16>(), any::<u32>()), 50),
    ) {
        let (slots, subscribers) = by_hand(&config);
        let plan = match Deterministic::new(config.clone()) {
            Ok(plan) => plan,
            Err(InvalidDeterministic::PoolsTooSmall { subscribers: needed, room, .. }) => {
                prop_assert_eq!(needed, subscribers.len() as u128);
                prop_assert_eq!(room, slots.len() as u64);
                prop_assert!(slots.len() < subscribers.len());
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(plan.room(), slots.len() as u64);
        prop_assert_eq!(plan.subscribers(), subscribers.len() as u64);
        let mut seen = HashSet::new();
        for (subscriber, (address, first)) in subscribers.iter().zip(&slots) {
            let (found, ports) = plan.block_of(subscriber.network()).unwrap();
            prop_assert_eq!((found, *ports.start()), (*address, *first));
            prop_assert_eq!(plan.block_of(subscriber.broadcast()), Some((found, ports.clone())));
            prop_assert_eq!(ports.len() as u32, config.ports_per_subscriber);
            prop_assert!(seen.insert((found, *ports.start())));
            let blocks: Vec<u16> = plan.blocks_of(subscriber.network()).unwrap().1.collect();
            prop_assert!(blocks.iter().all(|first| first % config.block_size == 0));
            prop_assert_eq!(blocks.len() as u32 * u32::from(config.block_size), config.ports_per_subscriber);
            let reserved = &config.nets.iter().find(|pool| pool.net.contains(address)).unwrap().reserved_ports;
            for port in [*ports.start(), ports.start() + (ports.end() - ports.start()) / 2, *ports.end()] {
                let expected = (!reserved.contains(&port)).then_some(*subscriber);
                prop_assert_eq!(plan.subscriber_of(found, port), expected);
            }
        }
        for (third, last, port, host) in somewhere {
            let address = Ipv4Addr::new(192, 0, third, last);
            if let Some(subscriber) = plan.subscriber_of(address, port) {
                let host = u128::from(subscriber.network()) | (u128::from(host) & u128::from(subscriber.hostmask()));
                let (found, ports) = plan.block_of(Ipv6Addr::from(host)).unwrap();
                prop_assert!(found == address && ports.contains(&port));
            }
        }
    }
}

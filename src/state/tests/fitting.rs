//! What is found is put back as far as it fits.

use std::time::Duration;

use fast_nat::LeaseTable;
use fast_nat::nat64::Nat64;

use super::*;
use crate::config::{Partial, PartialPool, Placed, Pools, Settings, Sharing};
use crate::plan::{NumberedPrefix, Plan};
use crate::state::{Entry, Outcome, Restoring};

fn pool(net: &str, sharing: Sharing) -> PartialPool {
    PartialPool {
        sharing: Some(Placed::by_flag("--sharing", sharing)),
        ..PartialPool::new(Placed::by_flag("--pool-prefix", net.parse().unwrap()))
    }
}

/// The settings that the files were written under, with changes.
fn settings(change: impl FnOnce(&mut Partial)) -> Settings {
    let mut partial = Partial {
        translation_prefixes: Some(vec![Placed::by_flag(
            "--translation-prefix",
            "64:ff9b:1::/96".parse().unwrap(),
        )]),
        pools: Some(vec![pool("203.0.113.0/30", Sharing::Ports)]),
        ..Partial::default()
    };
    change(&mut partial);
    partial.settle(Vec::new()).unwrap()
}

/// Tables with what was found in the folder, read so long after it was written.
fn restore(
    settings: &Settings,
    image: Image,
    later: Duration,
    boot: [u8; 16],
) -> (Nat64, LeaseTable, Outcome) {
    let Pools::Explicit(pools) = settings.pools.clone() else { panic!("pools are given") };
    let numbered = |prefix: &rfc6052::Prefix| NumberedPrefix { prefix: *prefix, is_used: true };
    let plan = Plan {
        pools,
        draining: Vec::new(),
        prefixes: settings.translation_prefixes.iter().map(numbered).collect(),
        automatic: false,
        router_address: Ipv4Addr::new(192, 0, 0, 8),
    };
    let nat = Nat64::new(plan.nat(settings)).unwrap();
    let leases = LeaseTable::new(plan.capacity(settings), settings.address_rest);
    let rules = plan.rules(settings, &rtnl::Snapshot::default());
    let into =
        Restoring { settings, plan: &plan, rules: &rules, deterministic: None, nat: &nat, leases: &leases };
    let millis = later.as_millis() as u64;
    // A machine that was started anew has run for three seconds.
    let now = Moment {
        boot: if boot == BOOT { image.last.boot + millis } else { 3000 },
        wall: image.last.wall + millis,
    };
    let outcome = into.restore(image, now, boot).unwrap();
    (nat, leases, outcome)
}

fn image() -> Image {
    let base = Base::new();
    let folder = base.take();
    lay(&folder, FRAMES);
    let Found::State { image, .. } = read::read(&folder) else { panic!("there is a state") };
    *image
}

fn dropped(outcome: &Outcome) -> Vec<(&'static str, &'static str, u64)> {
    outcome.dropped.iter().map(|((entry, reason), count)| (entry.as_str(), *reason, *count)).collect()
}

const SOON: Duration = Duration::from_secs(2);

/// Where the files have leases, they no longer fit: the pool is one of ports.
const NO_LEASES: (&str, &str, u64) = ("lease", "not_in_pool", 1);

#[test]
fn sessions_have_the_very_address_and_port_that_they_had() {
    let (nat, _, outcome) = restore(&settings(|_| {}), image(), SOON, BOOT);
    assert_eq!(
        (outcome.restored(Entry::Session), outcome.restored(Entry::Block), outcome.resting),
        (2, 2, 1)
    );
    assert_eq!(dropped(&outcome), [NO_LEASES]);
    for (saved, port) in [(session(2, 1000), 1000), (session(2, 1001), 1001)] {
        let mapped = nat.find_outbound(&saved.outbound).unwrap();
        assert_eq!((mapped.address, mapped.port, saved.outbound.port), (saved.address, saved.port, port));
    }
    let given: Vec<_> = nat.blocks().map(|block| block.given.as_millis()).collect();
    assert_eq!(given, [4_000_000; 2], "blocks are as old as they are");
}

#[test]
fn leases_and_resting_addresses_are_back_where_the_pool_is_one_of_addresses() {
    let settings = settings(|partial| partial.pools = Some(vec![pool("192.0.2.0/24", Sharing::Exclusive)]));
    let (_, leases, outcome) = restore(&settings, image(), SOON, BOOT);
    assert_eq!(outcome.restored(Entry::Lease), 1);
    assert_eq!(leases.by_address(lease(1).address).unwrap().host, lease(1).host);
    assert_eq!(leases.by_address(lease(1).address).unwrap().granted, lease(1).granted);
    assert_eq!(leases.ended().len(), 1, "an address rests on");
    assert_eq!(dropped(&outcome), [("session", "no_block", 2), ("block", "not_in_pool", 2)]);
    let (_, leases, outcome) = restore(&settings, image(), Duration::from_hours(3), BOOT);
    assert_eq!((leases.len(), leases.ended().len()), (0, 0), "all is over");
    assert!(dropped(&outcome).contains(&("lease", "over", 1)));
}

#[test]
fn what_no_longer_fits_the_configuration_is_dropped_and_counted() {
    let prefix = |partial: &mut Partial| {
        partial.translation_prefixes =
            Some(vec![Placed::by_flag("--translation-prefix", "64:ff9b::/96".parse().unwrap())]);
    };
    let (_, _, outcome) = restore(&settings(prefix), image(), SOON, BOOT);
    assert_eq!(dropped(&outcome), [("session", "no_prefix", 2), NO_LEASES]);

    let denied = |partial: &mut Partial| {
        partial.deny_to = Some(vec![Placed::by_flag("--deny-to", "198.51.100.0/24".parse().unwrap())]);
    };
    let (_, _, outcome) = restore(&settings(denied), image(), SOON, BOOT);
    assert_eq!(dropped(&outcome), [("session", "not_allowed", 2), NO_LEASES]);

    let others = |partial: &mut Partial| {
        partial.allow_from =
            Some(vec![Placed::by_flag("--allow-from", "2001:db8:0:1::/64".parse().unwrap())]);
    };
    let (_, _, outcome) = restore(&settings(others), image(), SOON, BOOT);
    assert_eq!(dropped(&outcome), [("session", "not_allowed", 2), ("lease", "not_allowed", 1)]);

    let elsewhere =
        |partial: &mut Partial| partial.pools = Some(vec![pool("203.0.113.128/28", Sharing::Ports)]);
    let (_, _, outcome) = restore(&settings(elsewhere), image(), SOON, BOOT);
    let all = [("session", "no_block", 2), ("block", "not_in_pool", 2), NO_LEASES];
    assert_eq!(dropped(&outcome), all);
    assert_eq!(outcome.describe_dropped(), "session no_block: 2, block not_in_pool: 2, lease not_in_pool: 1");
}

#[test]
fn a_prefix_is_known_by_what_it_is_and_not_by_its_number() {
    let two = |partial: &mut Partial| {
        let prefixes = ["64:ff9b::/96", "64:ff9b:1::/96"].map(|text| text.parse().unwrap());
        partial.translation_prefixes = Some(
            prefixes.into_iter().map(|prefix| Placed::by_flag("--translation-prefix", prefix)).collect(),
        );
    };
    let (nat, _, outcome) = restore(&settings(two), image(), SOON, BOOT);
    assert_eq!(outcome.restored(Entry::Session), 2);
    let saved = session(2, 1000).outbound;
    assert!(nat.find_outbound(&Outbound { prefix: 1, ..saved }).is_some());
    assert!(nat.find_outbound(&saved).is_none());
}

#[test]
fn time_that_has_passed_since_counts_also_where_the_machine_was_started_anew() {
    let lives = settings(|_| {}).timers.tcp_established;
    for boot in [BOOT, [4; 16]] {
        let (_, _, outcome) = restore(&settings(|_| {}), image(), lives, boot);
        assert_eq!(outcome.restored(Entry::Session), 2, "to the last moment");
        let (nat, _, outcome) = restore(&settings(|_| {}), image(), lives + Duration::from_secs(1), boot);
        assert_eq!(outcome.restored(Entry::Session), 0);
        assert_eq!(dropped(&outcome), [("session", "over", 2), ("lease", "over", 1)]);
        assert_eq!(nat.usage().blocks, 2, "its host may use its ports again");
    }
}

#[test]
fn what_packets_may_have_kept_alive_counts_as_seen_when_the_router_last_wrote() {
    let opening = |state| {
        let mut image = image();
        let saved = SavedSession {
            outbound: Outbound { port: 1003, ..session(1, 1000).outbound },
            state,
            last_seen: Timestamp::from_millis(image.last.boot - 230_000),
            ..session(1, 1000)
        };
        let record = SessionRecord::new(9, &saved);
        image.apply(Kind::Sessions, image.last, zerocopy::IntoBytes::as_bytes(&record)).unwrap();
        let (nat, _, _) = restore(&settings(|_| {}), image, Duration::from_secs(30), BOOT);
        nat.find_outbound(&saved.outbound).is_some()
    };
    assert!(
        !opening(SessionState::V6Init),
        "no packet but those that are written keeps it: it has had its 4 minutes"
    );
    assert!(opening(SessionState::Established));
}

/// Puts back as many sessions as `PROTOMASK_SESSIONS` says, of hosts with 1000 each, and prints how long that takes: with a million and
/// a release build it is to be less than two seconds, reading included.
#[test]
fn a_crowd_is_put_back_as_it_was() {
    let wanted: u32 = std::env::var("PROTOMASK_SESSIONS").map_or(20_000, |number| number.parse().unwrap());
    let hosts = wanted.div_ceil(1000);
    let settings = settings(|partial| {
        partial.pools = Some(vec![pool("10.0.0.0/16", Sharing::Ports)]);
        partial.sessions.max = Some(Placed::by_flag("max", wanted.max(1000)));
    });
    let address = |host: u32| Ipv4Addr::from_bits(0x0a00_0001 + host);
    let of = |n: u32| {
        let (owner, port) = (n / 1000, (n % 1000) as u16);
        let mut saved = session(1, 0);
        saved.outbound.host = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(owner) << 64 | 1);
        (saved.outbound.port, saved.address, saved.port) = (10_000 + port, address(owner), 2048 + port);
        saved
    };
    let base = Base::new();
    let folder = base.take();
    write(&folder.snapshot(), FileKind::Snapshot, &identity(4), |sink, faults| {
        let prefixes = [PrefixRecord::from("64:ff9b:1::/96".parse::<rfc6052::Prefix>().unwrap())];
        sink.add(Kind::Prefixes, at(5_000_000), &prefixes, faults).unwrap();
        for owner in 0..hosts {
            let host = of(owner * 1000).outbound.host;
            let blocks = (0..8).map(|n| SavedBlock {
                host,
                address: address(owner),
                first_port: 2048 + 128 * n,
                size: 128,
                ..block(1)
            });
            let records: Vec<_> =
                (1..).zip(blocks).map(|(n, block)| BlockRecord::new(owner * 8 + n, &block)).collect();
            sink.add(Kind::Blocks, at(5_000_000), &records, faults).unwrap();
        }
        // In an order that is none, as in a table that has been used for long.
        let records: Vec<_> = (0..wanted)
            .map(|n| (u64::from(n) * 7_654_321 % u64::from(wanted)) as u32)
            .map(|n| SessionRecord::new(n + 1, &of(n)))
            .collect();
        sink.add(Kind::Sessions, at(5_000_000), &records, faults).unwrap();
        sink.add_mark(Kind::End, at(5_000_000), faults).unwrap();
    });
    write(&folder.journal(4), FileKind::Journal, &identity(4), |_, _| {});
    let start = std::time::Instant::now();
    let Found::State { image, .. } = read::read(&folder) else { panic!("there is a state") };
    let read = start.elapsed();
    let (nat, _, outcome) = restore(&settings, *image, SOON, BOOT);
    println!("{wanted} sessions: read in {read:?}, and put back by {:?}", start.elapsed());
    assert_eq!((outcome.restored(Entry::Session), outcome.all_dropped()), (wanted.into(), 0), "{outcome:?}");
    for n in (0..wanted).step_by(997) {
        let mapped = nat.find_outbound(&of(n).outbound).unwrap();
        assert_eq!((mapped.address, mapped.port), (of(n).address, of(n).port));
    }
}

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fast_nat::LeaseTable;
use fast_nat::nat64::{Nat64, NatConfig};

use super::*;
use crate::datapath::fragments::{Fragments, Limits};

const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

fn tables() -> Tables {
    Tables {
        leases: LeaseTable::new(8, Duration::from_secs(1)),
        nat: Nat64::new(NatConfig { max_sessions: 16, max_bindings: 16, ..NatConfig::default() }).unwrap(),
        fragments: Fragments::new(Limits::DEFAULT),
        secret: std::hash::RandomState::new(),
    }
}

/// A generation with this text for a file, which is one of exclusive addresses where it names no pool.
fn generation(text: &str) -> Generation {
    let text = if text.contains("[[pool]]") {
        text.to_owned()
    } else {
        format!("{text}\n[[pool]]\nprefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\n")
    };
    let (partial, problems) = crate::config::parse(std::path::Path::new("t.toml"), &text);
    let configuration = partial.configure(problems).unwrap();
    let plan = Plan::settle(&configuration.settings, &rtnl::Snapshot::default()).unwrap();
    Generation::first(configuration, plan)
}

const PAIR: &str = "[[static]]\naddress = \"203.0.113.10\"\nhost = \"2001:db8::1\"\n";
const FORWARD: &str = "[[pool]]\nprefix = \"203.0.113.0/24\"\n[[forward]]\nprotocol = \"tcp\"\n\
                       address = \"203.0.113.10\"\nport = 80\nhost = \"2001:db8::1\"\n";
const SHARED: &str = "[[pool]]\nprefix = \"203.0.113.0/24\"\n";

#[test]
fn a_static_pair_ends_both_leases_that_stand_in_its_way_and_may_be_placed_again() {
    let tables = tables();
    let mut placed = Placed::default();
    tables.leases.insert(HOST, ELSEWHERE, LeaseKind::Dynamic, clock::now()).unwrap();
    tables.leases.insert(OTHER, ADDRESS, LeaseKind::Dynamic, clock::now()).unwrap();
    let ended = place(&tables, &mut placed, &generation(PAIR)).unwrap();
    let mut ended: Vec<_> = ended.iter().map(|lease| lease.address).collect();
    ended.sort();
    assert_eq!(ended, [ADDRESS, ELSEWHERE], "their ends are to be recorded");
    assert_eq!(place(&tables, &mut placed, &generation(PAIR)).unwrap(), []);
    let lease = tables.leases.peek_host(HOST).unwrap();
    assert_eq!((lease.address, lease.kind), (ADDRESS, LeaseKind::Static));
    assert_eq!((tables.leases.by_address(ELSEWHERE), tables.leases.peek_host(OTHER)), (None, None));
}

#[test]
fn a_lease_of_the_very_pair_becomes_one_for_good() {
    let tables = tables();
    tables.leases.insert(HOST, ADDRESS, LeaseKind::Dynamic, clock::now()).unwrap();
    place(&tables, &mut Placed::default(), &generation(PAIR)).unwrap();
    assert_eq!(tables.leases.peek_host(HOST).unwrap().kind, LeaseKind::Static);
}

#[test]
fn two_static_pairs_of_one_address_are_refused_by_name() {
    let tables = tables();
    tables.leases.insert(OTHER, ADDRESS, LeaseKind::Static, clock::now()).unwrap();
    let error = place(&tables, &mut Placed::default(), &generation(PAIR)).unwrap_err();
    assert!(error.contains("203.0.113.10") && error.contains("2001:db8::2"), "{error}");
}

#[test]
fn what_is_gone_from_the_settings_is_taken_away_and_nothing_else() {
    let tables = tables();
    let mut placed = Placed::default();
    tables.leases.insert(OTHER, ELSEWHERE, LeaseKind::Dynamic, clock::now()).unwrap();
    place(&tables, &mut placed, &generation(PAIR)).unwrap();
    place(&tables, &mut placed, &generation("")).unwrap();
    assert_eq!(tables.leases.peek_host(HOST), None);
    assert!(tables.leases.peek_host(OTHER).is_some());
    place(&tables, &mut placed, &generation(FORWARD)).unwrap();
    assert_eq!(tables.nat.usage().bindings, 1);
    place(&tables, &mut placed, &generation(SHARED)).unwrap();
    assert_eq!(tables.nat.usage().bindings, 0);
}

#[test]
fn a_forward_may_change_its_host() {
    let tables = tables();
    let mut placed = Placed::default();
    place(&tables, &mut placed, &generation(FORWARD)).unwrap();
    place(&tables, &mut placed, &generation(&FORWARD.replace("::1", "::2"))).unwrap();
    assert_eq!(tables.nat.usage().bindings, 1);
}

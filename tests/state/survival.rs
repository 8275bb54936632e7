//! What goes on after the router was killed, and after it ended.

use std::net::Ipv6Addr;

use netlab::{Topology, TopologyOptions};

use crate::common::{Lab, Router};
use crate::lab::{Download, Mapping, WAYS, grow_old};

fn hosts(addresses_per_client: u16) -> Lab {
    Lab::with(&TopologyOptions { addresses_per_client, ..TopologyOptions::default() })
}

/// The first client's `n`th address.
fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(Topology::CLIENT_V6.to_bits() + u128::from(n))
}

fn restored(router: &Router, entry: &str) -> u64 {
    router.metrics().sum("protomask_state_restored", &[&format!("entry=\"{entry}\"")])
}

#[test]
fn a_running_download_and_every_mapping_survive_kill_9() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for way in WAYS {
        println!("--- {way:?}");
        let lab = hosts(4);
        let router = Router::start(&lab, way);
        // The order in which hosts came is not that in which they will come again.
        let mappings: Vec<_> = (0..4).map(|n| Mapping::open(&lab, host(n), 5000 + n)).collect();
        let download = Download::start(&lab);
        grow_old();
        router.kill();
        let mut router = Router::start(&lab, way);
        router.wait_for_log("state restored", |_| true);
        let is_masqueraded = way.contains(&"--masquerade");
        for mapping in mappings.iter().rev() {
            // Behind masquerade nobody outside can begin; the host's own flow is seen as it was.
            assert!(is_masqueraded || mapping.is_reached(), "{:?}", mapping.seen);
            assert_eq!(mapping.send(), mapping.seen, "no mapping moves");
        }
        download.end();
        if way.contains(&"exclusive") {
            assert_eq!(restored(&router, "lease"), 4);
        } else {
            assert!(restored(&router, "session") >= 5 && restored(&router, "block") >= 4);
        }
        assert_eq!(router.metrics().sum("protomask_state_dropped", &[]), 0);
        router.end();
    }
}

#[test]
fn a_clean_end_loses_nothing_at_all_and_a_third_start_finds_what_the_second_one_found() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = hosts(2);
    let router = Router::start(&lab, WAYS[0]);
    let first = Mapping::open(&lab, host(0), 5000);
    router.end();
    let router = Router::start(&lab, WAYS[0]);
    assert!(first.is_reached());
    let second = Mapping::open(&lab, host(1), 5001);
    router.end();
    let router = Router::start(&lab, WAYS[0]);
    for mapping in [&first, &second] {
        assert!(mapping.is_reached());
        assert_eq!(mapping.send(), mapping.seen);
    }
    assert_eq!(restored(&router, "session"), 2 + 1, "the two that the hosts opened, and the stranger's");
    router.end();
}

#[test]
fn without_state_nothing_is_kept_and_nothing_is_said_about_it_but_in_metrics() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = hosts(1);
    let flags = [WAYS[0], &["--no-state"]].concat();
    let router = Router::start(&lab, &flags);
    let mapping = Mapping::open(&lab, host(0), 5000);
    grow_old();
    router.kill();
    let router = Router::start(&lab, &flags);
    mapping.is_impatient();
    assert!(!mapping.is_reached(), "nobody knows of it any more");
    assert_eq!(router.metrics().sum("protomask_state_kept", &[]), 0);
    assert_eq!(router.get("/readyz").unwrap().text(), "ready\n");
    assert!(std::fs::read_dir(lab.lib_directory()).unwrap().next().is_none(), "no file was made");
    router.end();
}

#[test]
fn what_no_longer_fits_the_configuration_is_dropped_and_counted_and_the_rest_goes_on() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = hosts(2);
    let router = Router::start(&lab, WAYS[0]);
    let (kept, denied) = (Mapping::open(&lab, host(0), 5000), Mapping::open(&lab, host(1), 5001));
    router.end();
    let only_first = format!("{}/128", host(0));
    let mut router = Router::start(&lab, &[WAYS[0], &["--allow-from", &only_first]].concat());
    router.wait_for_log("some of the state no longer fits and was dropped", |record| {
        record.field("what") == "session not_allowed: 1"
    });
    assert!(kept.is_reached());
    denied.is_impatient();
    assert!(!denied.is_reached());
    let dropped =
        router.metrics().sum("protomask_state_dropped", &["entry=\"session\"", "reason=\"not_allowed\""]);
    assert_eq!(dropped, 1);
    router.end();
}

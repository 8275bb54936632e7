//! REQ-4c and REQ-5: the quotas of a subscriber.

use std::collections::BTreeMap;

use fast_nat::nat64::{Inbound, NatConfig, Outbound, PortClass, Protocol, Refused, Signal};

use crate::common::{BLOCK, Lab, TICK, answer, flow, host, host_of, mins, opener, remote, secs};
use crate::limits::untouched;
use crate::udp;

#[test]
fn req_4c_a_subscriber_opens_no_more_than_its_burst_at_once_and_then_its_rate() {
    let mut lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 5;
        config.quota.burst = 10;
    });
    lab.give(host(1), 2048);
    lab.give(host(2), 4096);
    let mut opened = 0;
    let mut open = |lab: &Lab| {
        let flow = udp(host(1), 5000 + opened);
        let result = lab.out(&flow, Signal::None);
        opened += u16::from(result.is_ok());
        result.map(|_| ())
    };
    for _ in 0..10 {
        open(&lab).unwrap();
    }
    for _ in 0..5 {
        assert_eq!(open(&lab), Err(Refused::RateQuota), "what is refused costs nothing");
    }
    lab.pass(TICK);
    assert_eq!(open(&lab), Err(Refused::RateQuota), "half a session");
    lab.pass(TICK);
    open(&lab).unwrap();
    assert_eq!(open(&lab), Err(Refused::RateQuota));
    lab.pass(secs(1));
    for _ in 0..5 {
        open(&lab).unwrap();
    }
    assert_eq!(open(&lab), Err(Refused::RateQuota));
    // Somebody else is not concerned.
    lab.open(&udp(host(2), 5000));
    // It saves no more than its burst.
    lab.pass(mins(4));
    for _ in 0..10 {
        open(&lab).unwrap();
    }
    assert_eq!(open(&lab), Err(Refused::RateQuota));
}

#[test]
fn req_4c_the_rate_is_the_subscribers_whichever_of_its_hosts_asks() {
    let lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 6;
    });
    for n in 1..=4 {
        lab.give(host_of(1, n), 2048 + n * BLOCK);
    }
    for n in 1..=3 {
        lab.open(&udp(host_of(1, n), 5000));
        lab.open(&udp(host_of(1, n), 5001));
    }
    assert_eq!(lab.out(&udp(host_of(1, 4), 5000), Signal::None), Err(Refused::RateQuota));
}

#[test]
fn req_4c_packets_of_sessions_that_are_there_cost_nothing() {
    let lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 2;
    });
    lab.give(host(1), 2048);
    lab.open(&udp(host(1), 5000));
    for _ in 0..100 {
        lab.out(&udp(host(1), 5000), Signal::None).unwrap();
    }
    lab.open(&udp(host(1), 5001));
    // Nor does a packet that fails for want of a port.
    let lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 1;
    });
    for _ in 0..3 {
        assert_eq!(lab.out(&udp(host(1), 5000), Signal::None), Err(Refused::NeedsBlock(PortClass::High)));
    }
    lab.give(host(1), 2048);
    lab.open(&udp(host(1), 5000));
    assert_eq!(lab.out(&udp(host(1), 5001), Signal::None), Err(Refused::RateQuota));
}

#[test]
fn req_5_a_subscriber_has_no_more_sessions_than_its_quota_and_all_its_hosts_share_it() {
    let mut lab = Lab::with(|config| config.quota.sessions = 12);
    for n in 1..=3 {
        lab.give(host_of(1, n), 2048 + n * BLOCK);
        for port in 0..4 {
            lab.open(&udp(host_of(1, n), 5000 + port));
        }
    }
    lab.give(host(2), 8192);
    let before = lab.snapshot();
    for n in 1..=3 {
        // With a binding and without one.
        let another = Outbound { remote: remote(2), ..udp(host_of(1, n), 5000) };
        assert_eq!(lab.out(&another, Signal::None), Err(Refused::SessionQuota));
        assert_eq!(lab.out(&udp(host_of(1, n), 6000), Signal::None), Err(Refused::SessionQuota));
    }
    untouched(&lab, &before);
    lab.open(&udp(host(2), 5000));
    // It heals by as much as has ended.
    lab.wait(mins(3));
    for port in 0..3 {
        lab.out(&udp(host_of(1, 1), 5000 + port), Signal::None).unwrap();
    }
    lab.wait(mins(2) + TICK);
    for n in 0..9 {
        lab.open(&Outbound { remote: remote(3 + n), ..udp(host_of(1, 1), 5000) });
    }
    let one_more = Outbound { remote: remote(99), ..udp(host_of(1, 1), 5000) };
    assert_eq!(lab.out(&one_more, Signal::None), Err(Refused::SessionQuota));
}

#[test]
fn req_4_and_5_what_strangers_open_is_counted_apart_and_takes_nothing_from_the_subscriber() {
    for (name, limit, expected) in [
        ("sessions", (|config| config.quota.sessions = 10) as fn(&mut NatConfig), Refused::SessionQuota),
        (
            "rate",
            |config| {
                config.quota.new_sessions_per_second = 1;
                config.quota.burst = 10;
            },
            Refused::RateQuota,
        ),
    ] {
        for protocol in Protocol::ALL {
            let mut lab = Lab::with(limit);
            lab.give(host(1), 2048);
            lab.give(host(2), 4096);
            let first = flow(protocol, host(1), 5000, remote(1), 53);
            let mapped = lab.open(&first);
            let stranger = |n| Inbound { remote: remote(n), ..answer(&first, &mapped) };
            for n in 100..110 {
                assert!(lab.back(&stranger(n), opener(protocol)).unwrap().created, "{name}, {protocol}");
            }
            for n in 110..150 {
                assert_eq!(lab.back(&stranger(n), opener(protocol)), Err(expected), "{name}, {protocol}");
            }
            // The host has all it may have, less its own.
            for n in 2..=10 {
                lab.open(&Outbound { remote: remote(n), ..first });
            }
            let next = Outbound { remote: remote(11), ..first };
            assert_eq!(lab.out(&next, opener(protocol)), Err(expected), "{name}, {protocol}");
            // Another subscriber is not concerned on either side.
            let other = Outbound { host: host(2), ..first };
            let mapped = lab.open(&other);
            lab.back(&Inbound { remote: remote(9), ..answer(&other, &mapped) }, opener(protocol)).unwrap();
            // It heals on both sides.
            lab.wait(mins(5) + TICK);
            assert_eq!(lab.count(), 0);
            let mapped = lab.open(&first);
            lab.back(&Inbound { remote: remote(99), ..answer(&first, &mapped) }, opener(protocol)).unwrap();
        }
    }
}

#[test]
fn req_5_a_session_stays_counted_where_it_began() {
    let mut lab = Lab::with(|config| config.quota.sessions = 2);
    lab.give(host(1), 2048);
    let mapped = lab.open(&udp(host(1), 5000));
    let theirs = Outbound { remote: remote(2), ..udp(host(1), 5000) };
    lab.back(&answer(&theirs, &mapped), Signal::None).unwrap();
    lab.out(&theirs, Signal::None).unwrap();
    lab.open(&udp(host(1), 5001));
    assert_eq!(lab.out(&udp(host(1), 5002), Signal::None), Err(Refused::SessionQuota));
    // Their end gives back what each had taken.
    for _ in 0..3 {
        lab.wait(mins(5) + TICK);
        assert_eq!(lab.count(), 0);
        let mapped = lab.open(&udp(host(1), 5000));
        lab.open(&udp(host(1), 5001));
        assert_eq!(lab.out(&udp(host(1), 5002), Signal::None), Err(Refused::SessionQuota));
        for n in 2..4 {
            let from = Inbound { remote: remote(n), ..answer(&udp(host(1), 5000), &mapped) };
            lab.back(&from, Signal::None).unwrap();
        }
        let from = Inbound { remote: remote(4), ..answer(&udp(host(1), 5000), &mapped) };
        assert_eq!(lab.back(&from, Signal::None), Err(Refused::SessionQuota));
    }
}

#[test]
fn req_4c_a_flow_that_finds_the_table_full_costs_nothing() {
    let mut lab = Lab::with(|config| {
        config.max_sessions = 2;
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 3;
    });
    lab.give(host(1), 2048);
    for n in 0..2 {
        lab.open(&udp(host(1), 5000 + n));
    }
    for n in 0..5 {
        assert_eq!(lab.out(&udp(host(1), 6000 + n), Signal::None), Err(Refused::TableFull));
        let another = Outbound { remote: remote(2), ..udp(host(1), 5000) };
        assert_eq!(lab.out(&another, Signal::None), Err(Refused::TableFull));
    }
    let sessions: Vec<_> = lab.nat.sessions().map(|view| view.reference).collect();
    for session in sessions {
        assert!(lab.nat.end_session(session, lab.now));
        assert!(!lab.nat.end_session(session, lab.now), "once");
    }
    lab.open(&udp(host(1), 7000));
    assert_eq!(lab.out(&udp(host(1), 7001), Signal::None), Err(Refused::RateQuota));
    lab.pass(secs(1));
    lab.open(&udp(host(1), 7001));
}

#[test]
fn req_5_a_flood_of_one_subscriber_takes_nothing_from_another_one() {
    let mut lab = Lab::with(|config| {
        config.quota.sessions = 100;
        config.quota.new_sessions_per_second = 200;
        config.quota.burst = 50;
    });
    lab.give_ports(host(1), 2048, 1024);
    lab.give(host(2), 8192);
    let (_, answers) = lab.establish(&udp(host(2), 5000));
    let mut refused: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..2000 {
        let spray = flow(Protocol::Tcp, host(1), 1024 + n, remote(u8::try_from(n % 250).unwrap()), 80);
        if let Err(why) = lab.out(&spray, Signal::Syn) {
            *refused.entry(format!("{why:?}")).or_default() += 1;
        }
        if n % 10 == 0 {
            lab.wait(TICK);
            lab.out(&udp(host(2), 5000), Signal::None).unwrap();
            lab.back(&answers, Signal::None).unwrap();
        }
        if n % 100 == 0 {
            lab.open(&udp(host(2), 6000 + n / 100));
        }
    }
    assert_eq!(refused.keys().map(String::as_str).collect::<Vec<_>>(), ["SessionQuota"]);
    assert_eq!(lab.nat.usage().sessions[0], 100);
    lab.wait(mins(4) + TICK);
    assert_eq!(lab.nat.usage().sessions[0], 0, "its own sessions heal");
    lab.open(&flow(Protocol::Tcp, host(1), 1024, remote(1), 80));
}

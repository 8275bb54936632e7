//! REQ-11: at a limit the new flow pays, and no old one.

use fast_nat::nat64::{
    Block, GiveError, Inbound, NatConfig, PortClass, Protocol, Refused, SessionView, Signal,
};

use crate::common::{BLOCK, Lab, POOL, TICK, answer, flow, host, mins, opener, remote, secs};
use crate::udp;

/// Every flow of `before` is still what it was, and passes both ways with its mapping.
pub(crate) fn untouched(lab: &Lab, before: &[SessionView]) {
    assert_eq!(lab.snapshot(), before);
    for view in before {
        let mapped = lab.out(&view.outbound, Signal::None).unwrap();
        assert_eq!((mapped.address, mapped.port), (view.inbound.address, view.inbound.port));
        assert_eq!(mapped.session, Some(view.reference));
        let reached = lab.back(&view.inbound, Signal::None).unwrap();
        assert_eq!((reached.host, reached.port), (view.outbound.host, view.outbound.port));
    }
}

#[test]
fn req_11_at_every_limit_the_new_flow_is_dropped_and_no_old_one_is_touched_and_then_it_heals() {
    type Limit = (&'static str, fn(&mut NatConfig), Refused);
    let limits: [Limit; 5] = [
        ("sessions", |config| config.max_sessions = 40, Refused::TableFull),
        ("bindings", |config| config.max_bindings = 40, Refused::TableFull),
        ("quota", |config| config.quota.sessions = 40, Refused::SessionQuota),
        (
            "rate",
            |config| {
                config.quota.new_sessions_per_second = 1;
                config.quota.burst = 40;
            },
            Refused::RateQuota,
        ),
        ("ports", |_| {}, Refused::NeedsBlock(PortClass::High)),
    ];
    for (name, limit, expected) in limits {
        for protocol in Protocol::ALL {
            let mut lab = Lab::with(limit);
            lab.give_ports(host(1), 2048, if name == "ports" { 40 } else { 128 });
            for n in 0..40 {
                lab.establish(&flow(protocol, host(1), 5000 + n, remote(1), 53));
            }
            let before = lab.snapshot();
            assert_eq!(before.len(), 40);
            for n in 0..40 {
                let next = flow(protocol, host(1), 7000 + n, remote(2), 53);
                assert_eq!(lab.out(&next, opener(protocol)), Err(expected), "{name}, {protocol}");
            }
            untouched(&lab, &before);
            // All that ends makes room again.
            lab.wait(mins(124) + TICK);
            lab.wait(mins(4) + TICK);
            assert_eq!((lab.count(), lab.nat.usage().bindings), (0, 0), "{name}, {protocol}");
            lab.wait(secs(120) + TICK);
            for n in 0..40 {
                lab.open(&flow(protocol, host(1), 7000 + n, remote(2), 53));
            }
            let next = flow(protocol, host(1), 8000, remote(2), 53);
            assert_eq!(
                lab.out(&next, opener(protocol)),
                Err(expected),
                "{name}, {protocol}: no more than before"
            );
        }
    }
}

#[test]
fn req_11_a_full_table_refuses_flows_from_outside_too_and_touches_none() {
    for protocol in Protocol::ALL {
        let lab = Lab::with(|config| config.max_sessions = 8);
        lab.give(host(1), 2048);
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        let (mapped, _) = lab.establish(&first);
        for n in 0..7 {
            lab.establish(&flow(protocol, host(1), 5001 + n, remote(1), 53));
        }
        let before = lab.snapshot();
        let stranger = Inbound { remote: remote(2), ..answer(&first, &mapped) };
        let refused = lab.back(&stranger, opener(protocol));
        assert!(refused.is_err() || refused.is_ok_and(|reached| reached.session.is_none()), "{refused:?}");
        untouched(&lab, &before);
    }
}

#[test]
fn req_11_full_tables_of_hosts_and_blocks_refuse_new_hosts_alone() {
    let changes: [fn(&mut NatConfig); 2] = [|config| config.max_hosts = 4, |config| config.max_blocks = 4];
    for change in changes {
        let mut lab = Lab::with(change);
        let mut blocks = Vec::new();
        for n in 1..=4 {
            blocks.push(lab.give(host(n), 2048 + n * BLOCK));
            lab.establish(&udp(host(n), 5000));
        }
        let before = lab.snapshot();
        let block = Block { address: POOL, first_port: 8192, size: BLOCK, reserved: Vec::new() };
        assert_eq!(lab.nat.give_block(host(5), &block, lab.now), Err(GiveError::Full));
        untouched(&lab, &before);
        lab.wait(mins(5) + TICK);
        lab.wait(mins(2) + TICK);
        assert!(lab.nat.take_back(blocks[2], lab.now).is_some());
        lab.nat.give_block(host(5), &block, lab.now).unwrap();
        lab.open(&udp(host(5), 5000));
    }
}

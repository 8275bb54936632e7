use super::*;
use crate::nat64::{NatConfig, Outbound, Passing, Protocol, Refused};

/// All ports that one host gets of one address, in an engine of its own.
fn ports_of(net: PortNet) -> Vec<u16> {
    let nat =
        Nat64::new(NatConfig { max_sessions: 4096, max_bindings: 4096, ..NatConfig::default() }).unwrap();
    let mut pool = BlockPool::new(&BlockPoolConfig {
        nets: vec![net],
        block_size: 16,
        max_ports_per_subscriber: u32::MAX,
        reserved_addresses: vec![],
        reserved_endpoints: vec![(Ipv4Addr::new(203, 0, 113, 1), 1045)],
        seed: Some(1),
    })
    .unwrap();
    let now = Timestamp::from_millis(1);
    let mut ports = Vec::new();
    for port in 2000..4000 {
        let flow = Outbound {
            prefix: 0,
            protocol: Protocol::Udp,
            host: "2001:db8::1".parse().unwrap(),
            port,
            remote: Ipv4Addr::new(192, 0, 2, 1),
            remote_port: 53,
        };
        let mut mapped = nat.outbound(&flow, &Passing::plain(60), now);
        if let Err(Refused::NeedsBlock(class)) = mapped {
            if pool.grant(&nat, flow.host, class, now).is_err() {
                break;
            }
            mapped = nat.outbound(&flow, &Passing::plain(60), now);
        }
        ports.push(mapped.unwrap().port);
    }
    ports.sort_unstable();
    ports
}

#[test]
fn reserved_ports_are_never_given_in_whatever_order_they_were_named_and_all_others_are() {
    // All but 1040 to 1055, then single ones, the last first.
    let reserved_ports: Vec<u16> = (1056..=u16::MAX).chain([1050, 1041]).chain(1024..1040).collect();
    let net = "203.0.113.1/32".parse().unwrap();
    let ports = ports_of(PortNet { net, first_port: 1024, last_port: u16::MAX, reserved_ports });
    let expected: Vec<u16> = (1040..1056).filter(|port| ![1041, 1045, 1050].contains(port)).collect();
    assert_eq!(ports, expected);
}

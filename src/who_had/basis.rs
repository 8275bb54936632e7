//! What a configuration alone says about who has which port.

use std::net::{Ipv4Addr, Ipv6Addr};

use fast_nat::{Deterministic, DeterministicConfig, DeterministicNet, EamTable, InvalidDeterministic};

use crate::config::{Forward, ForwardProtocol, Pools, Settings, Sharing};
use crate::records::Protocol;

/// The plan of deterministic mode; `None` where the settings ask for none. Whoever gives out ports must use this very
/// plan. What it leaves out: reserved ports, and addresses that belong to a static pair or an explicit mapping.
pub fn plan(settings: &Settings) -> Option<Result<Deterministic, InvalidDeterministic>> {
    let deterministic = settings.deterministic.as_ref()?;
    let pools = match &settings.pools {
        Pools::Automatic => &[][..],
        Pools::Explicit(pools) => pools,
    };
    let shared = pools.iter().filter(|pool| pool.sharing == Sharing::Ports);
    let nets: Vec<_> = shared
        .map(|pool| DeterministicNet {
            net: pool.net,
            first_port: pool.ports.first(),
            last_port: pool.ports.last(),
            reserved_ports: pool.reserved(),
        })
        .collect();
    let reserved_addresses = settings.mapped_within(nets.iter().map(|net| net.net));
    Some(Deterministic::new(DeterministicConfig {
        hosts: deterministic.hosts.clone(),
        subscriber_prefix_len: settings.quota.subscriber_prefix_len,
        nets,
        reserved_addresses,
        ports_per_subscriber: deterministic.ports_per_subscriber,
        block_size: settings.sessions.block_size,
    }))
}

/// The host that has this port by configuration, whatever the time: by a forward, a static pair or an explicit mapping.
/// Without a protocol, a forward of any protocol counts.
pub fn fixed(settings: &Settings, address: Ipv4Addr, port: u16, protocol: Option<Protocol>) -> Vec<Ipv6Addr> {
    let leads_there = |forward: &&Forward| {
        let same_protocol = match protocol {
            None => true,
            Some(Protocol::Tcp) => forward.protocol == ForwardProtocol::Tcp,
            Some(Protocol::Udp) => forward.protocol == ForwardProtocol::Udp,
            Some(Protocol::Icmp) => false,
        };
        forward.address == address && forward.port == port && same_protocol
    };
    let mut hosts: Vec<_> =
        settings.forwards.iter().filter(leads_there).map(|forward| forward.host).collect();
    let mapped = EamTable::new(settings.mappings()).ok().and_then(|table| table.to_v6(address));
    hosts.extend(mapped);
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

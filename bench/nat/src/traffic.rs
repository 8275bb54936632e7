//! Who talks to whom. Everything about a session follows from its number, so that no list of sessions has to be kept.

use std::net::{Ipv4Addr, Ipv6Addr};

use fast_nat::nat64::{Inbound, Outbound, Passing, Protocol, Signal};

/// Hosts that hold the many sessions, each in a /64 of its own.
pub(crate) const HOSTS: u32 = 10_000;

/// The first source port of the hosts; ports below are another class.
const FIRST_PORT: u16 = 1024;

/// Packets per call of `warm_*`: what the router reads from its device in one turn.
pub(crate) const BATCH: usize = 64;

/// A packet of 100 bytes. Nothing is stored of it: nobody sends a SYN to a port that has no session.
pub(crate) const fn passing(signal: Signal) -> Passing<'static> {
    Passing { signal, segments: 1, bytes: 100, packet: &[] }
}

/// How sessions are spread over hosts and ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) sessions: u32,
    pub(crate) hosts: u32,
    /// Sessions that share a source port, and so a binding.
    pub(crate) per_port: u32,
    pub(crate) protocol: Protocol,
}

impl Shape {
    /// The session of this number, the other end of which is somewhere at random.
    pub(crate) fn flow(&self, number: u32) -> Outbound {
        let host = number % self.hosts;
        let port = number / self.hosts / self.per_port;
        outbound(self.protocol, host, port, u64::from(number))
    }
}

/// The `port`th source port of a host, towards a remote that is chosen at random by `seed`.
pub(crate) fn outbound(protocol: Protocol, host: u32, port: u32, seed: u64) -> Outbound {
    let ports = u64::from(u16::MAX - FIRST_PORT) + 1;
    // Each host begins elsewhere.
    let port = (mix(u64::from(host)) + u64::from(port)) % ports + u64::from(FIRST_PORT);
    let remote = mix(seed);
    let address = Ipv4Addr::from(((remote >> 32) as u32 & 0x7fff_ffff) | 0x0100_0000);
    Outbound {
        prefix: 0,
        protocol,
        host: self::host(host),
        port: port as u16,
        remote: address,
        remote_port: (remote as u16).max(1),
    }
}

/// What the first packet of a connection, in either direction, says.
pub(crate) fn opening(protocol: Protocol) -> Signal {
    if protocol == Protocol::Tcp { Signal::Syn } else { Signal::None }
}

/// The packet that comes back.
pub(crate) fn answer(flow: &Outbound, address: Ipv4Addr, port: u16) -> Inbound {
    Inbound { protocol: flow.protocol, address, port, remote: flow.remote, remote_port: flow.remote_port }
}

/// Each host is a subscriber with a privacy address.
pub(crate) fn host(number: u32) -> Ipv6Addr {
    Ipv6Addr::from(
        (0x2001_0db8_u128 << 96) | (u128::from(number) << 64) | u128::from(mix(!u64::from(number)) | 1),
    )
}

/// Splitmix64: each number gets another one that looks like chance.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_session_differs_from_every_other() {
        for per_port in [1, 8] {
            let shape = Shape { sessions: 40_000, hosts: 100, per_port, protocol: Protocol::Udp };
            let flows: Vec<_> = (0..shape.sessions).map(|number| shape.flow(number)).collect();
            let tuples: HashSet<_> =
                flows.iter().map(|flow| (flow.host, flow.port, flow.remote, flow.remote_port)).collect();
            assert_eq!(tuples.len(), flows.len());
            let ports: HashSet<_> = flows.iter().map(|flow| (flow.host, flow.port)).collect();
            assert_eq!(ports.len(), flows.len() / per_port as usize);
        }
    }

    #[test]
    fn hosts_are_subscribers_of_their_own() {
        let subscribers: HashSet<_> = (0..HOSTS).map(|number| fast_nat::subnet(host(number))).collect();
        assert_eq!(subscribers.len(), HOSTS as usize);
    }
}

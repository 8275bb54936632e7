//! The operations, and how one is decided on: mostly on what exists, so that packets meet sessions and timers run out
//! while something hangs on them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::api::{Inbound, Outbound, PortClass, Protocol, Signal};
use super::source::Source;
use super::{Inside, Model, Outside, Remote, inbound_of, outbound_of, ticks};

/// What is done to the engine and to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `late`: by so many milliseconds the worker's clock is behind.
    Outbound {
        flow: Outbound,
        signal: Signal,
        segments: u32,
        bytes: u32,
        late: u64,
    },
    Inbound {
        flow: Inbound,
        signal: Signal,
        segments: u32,
        bytes: u32,
        late: u64,
    },
    FindOutbound(Outbound),
    FindInbound(Inbound),
    /// Milliseconds pass.
    Wait(u64),
    /// `None`: until nothing is due.
    Expire(Option<usize>),
    /// Asks the pool for a block, as the router does after `NeedsBlock`.
    Grant {
        host: Ipv6Addr,
        class: PortClass,
    },
    /// Gives a block past the pool.
    Give {
        host: Ipv6Addr,
        address: Ipv4Addr,
        first_port: u16,
        size: u16,
    },
    /// Takes back the block with this index among the model's.
    TakeBack(usize),
    /// Takes back what is idle, through the pool.
    TakeIdle(usize),
    /// Makes the pool anew from the engine.
    Rebuild,
    AddStatic {
        flow: Outbound,
        outside: Outside,
    },
    /// Ends the session with this index.
    End(usize),
    RemoveStatic {
        flow: Outbound,
        outside: Outside,
    },
    /// A faster path has seen packets of the session with this index so many ticks ago.
    Report {
        session: usize,
        ago: u64,
        packets: u32,
        bytes: u32,
    },
    DrainEvents,
}

/// The hosts: three share a /64, two share another.
pub const HOSTS: [Ipv6Addr; 7] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0x8000, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 3, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
];
/// Even and odd, low and high.
const PORTS: [u16; 14] =
    [53, 68, 123, 1023, 1024, 1025, 5001, 5002, 5003, 5004, 40_000, 40_001, 65_534, 65_535];
const REMOTES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];
const REMOTE_PORTS: [u16; 3] = [53, 80, 443];

/// Sizes of blocks that are given past the pool.
const SIZES: [u16; 12] = [1, 2, 3, 4, 5, 8, 16, 16, 24, 40, 0, 8192];

/// Where static bindings may be: within blocks, where the ports are reserved, and outside of all.
pub const STATICS: [Outside; 5] = [
    Outside { address: Ipv4Addr::new(198, 51, 100, 1), port: 1023 },
    Outside { address: Ipv4Addr::new(198, 51, 100, 1), port: 1030 },
    Outside { address: Ipv4Addr::new(198, 51, 100, 1), port: 1031 },
    Outside { address: Ipv4Addr::new(198, 51, 100, 2), port: 1030 },
    Outside { address: Ipv4Addr::new(203, 0, 113, 9), port: 80 },
];

fn host(source: &mut impl Source) -> Ipv6Addr {
    // The first ones more often: quotas are to be reached.
    let bound = if source.one_in(2) { 2 } else { HOSTS.len() as u32 };
    HOSTS[source.below(bound) as usize]
}

fn remote(source: &mut impl Source, protocol: Protocol) -> Remote {
    let address = REMOTES[source.below(3) as usize];
    Remote {
        address,
        port: if protocol == Protocol::Icmp { 0 } else { REMOTE_PORTS[source.below(3) as usize] },
    }
}

fn protocol(source: &mut impl Source) -> Protocol {
    match source.below(6) {
        0..=2 => Protocol::Tcp,
        3 | 4 => Protocol::Udp,
        _ => Protocol::Icmp,
    }
}

fn signal(source: &mut impl Source, protocol: Protocol, is_new: bool) -> Signal {
    if protocol != Protocol::Tcp {
        return Signal::None;
    }
    match source.below(16) {
        0..=4 => Signal::Syn,
        _ if is_new => Signal::Syn,
        5..=10 => Signal::None,
        11..=13 => Signal::Fin,
        _ => Signal::Rst,
    }
}

/// A host with a port whose rest is about to end or has just ended, and that port's protocol.
fn expectant(model: &Model, source: &mut impl Source) -> Option<(Ipv6Addr, Protocol)> {
    let ripe = model.rests.iter().find(|port| {
        let rest = model.rest(port.protocol);
        (rest..=rest + 1).contains(&model.latest.saturating_sub(port.freed))
    })?;
    let owner = model.blocks.iter().find(|block| block.holds(ripe.outside))?.owner;
    let hosts: Vec<_> = HOSTS.into_iter().filter(|host| model.host_key(*host) == owner).collect();
    Some((*source.pick(&hosts)?, ripe.protocol))
}

fn flow(model: &Model, source: &mut impl Source) -> (Outbound, bool) {
    if let Some((host, protocol)) = expectant(model, source)
        && !source.one_in(3)
    {
        let port = PORTS[source.below(PORTS.len() as u32) as usize];
        let inside = Inside { prefix: u8::from(source.one_in(2)), protocol, host, port };
        return (outbound_of(inside, remote(source, protocol)), true);
    }
    if !source.one_in(3)
        && let Some(session) = source.pick(&model.sessions)
    {
        return (outbound_of(session.inside, session.remote), false);
    }
    let protocol = protocol(source);
    let inside =
        if source.one_in(3) { source.pick(&model.bindings).map(|binding| binding.inside) } else { None };
    let inside = inside.unwrap_or_else(|| Inside {
        prefix: u8::from(source.one_in(3)),
        protocol,
        host: host(source),
        port: PORTS[source.below(PORTS.len() as u32) as usize],
    });
    // Where a remote has sent a SYN already, a host may be about to send one.
    let awaited = if source.one_in(4) { source.pick(&model.stored).map(|syn| syn.remote) } else { None };
    let remote = match awaited {
        Some(remote) if inside.protocol == Protocol::Tcp => remote,
        _ => remote(source, inside.protocol),
    };
    (outbound_of(inside, remote), true)
}

fn reverse(model: &Model, source: &mut impl Source) -> (Inbound, bool) {
    match source.below(8) {
        0..=3 => {
            if let Some(session) = source.pick(&model.sessions) {
                let outside = model.outside_of(session.inside);
                return (inbound_of(session.inside.protocol, outside, session.remote), false);
            }
        }
        4 | 5 => {
            if let Some(binding) = source.pick(&model.bindings) {
                let protocol = binding.inside.protocol;
                return (inbound_of(protocol, binding.outside, remote(source, protocol)), true);
            }
        }
        6 => {
            if let Some(syn) = source.pick(&model.stored) {
                return (inbound_of(Protocol::Tcp, syn.outside, syn.remote), true);
            }
        }
        _ => {}
    }
    let protocol = protocol(source);
    let outside = any_outside(model, source);
    (inbound_of(protocol, outside, remote(source, protocol)), true)
}

/// A port of a block, or one that nobody has.
fn any_outside(model: &Model, source: &mut impl Source) -> Outside {
    if !source.one_in(4)
        && let Some(block) = source.pick(&model.blocks)
    {
        let port = block.first_port + source.below(u32::from(block.size)) as u16;
        return Outside { address: block.address, port };
    }
    Outside {
        address: Ipv4Addr::new(198, 51, 100, source.below(3) as u8),
        port: 1024 + source.below(64) as u16,
    }
}

/// How long to wait: often to just before, at, or just after the moment in which something is over.
fn wait(model: &Model, source: &mut impl Source, now: u64) -> u64 {
    let tick = now / 100;
    let due = match source.below(16) {
        0 | 1 => source.pick(&model.sessions).map(|session| session.seen + model.lifetime(session)),
        2 => source.pick(&model.stored).map(|syn| syn.since + ticks(model.config.timers.tcp_incoming_syn)),
        3 | 8 => source.pick(&model.rests).map(|rest| rest.freed + model.rest(rest.protocol)),
        4 => {
            source.pick(&model.blocks).map(|block| block.quiet_since + ticks(model.config.timers.block_idle))
        }
        5..=7 => return u64::from(source.below(100)),
        9..=11 => return 100 * u64::from(source.below(10) + 1),
        12 | 13 => return 1000 * u64::from(source.below(10) + 1),
        14 => return 1000 * u64::from(source.below(120) + 1),
        _ if source.one_in(8) => return 60_000 * u64::from(source.below(200) + 1),
        _ => return 0,
    };
    let Some(due) = due else { return 100 };
    // Waiting for hours ends everything: rarely.
    let until = due + u64::from(source.below(3));
    if until < tick + 1 || until > tick + 36_000 && !source.one_in(8) {
        return 100;
    }
    // Anywhere within the tick.
    until.saturating_sub(1).max(tick + 1) * 100 - now + u64::from(source.below(100))
}

/// Decides what comes next.
pub fn decide(model: &Model, source: &mut impl Source, now: u64) -> Operation {
    let size = |source: &mut _| Source::below(source, 1500) + 40;
    let segments = |source: &mut _| if Source::one_in(source, 8) { Source::below(source, 44) + 1 } else { 1 };
    let late =
        |source: &mut _| if Source::one_in(source, 32) { u64::from(Source::below(source, 350)) } else { 0 };
    if let Some((host, class)) = model.asked {
        // What the router does next.
        if !source.one_in(4) {
            return Operation::Grant { host, class };
        }
    }
    match source.below(128) {
        0..=45 => {
            let (flow, is_new) = flow(model, source);
            let opens = is_new && !source.one_in(4);
            let signal = signal(source, flow.protocol, opens);
            Operation::Outbound {
                flow,
                signal,
                segments: segments(source),
                bytes: size(source),
                late: late(source),
            }
        }
        46..=80 => {
            let (flow, is_new) = reverse(model, source);
            let opens = is_new && !source.one_in(4);
            let signal = signal(source, flow.protocol, opens);
            Operation::Inbound {
                flow,
                signal,
                segments: segments(source),
                bytes: size(source),
                late: late(source),
            }
        }
        81..=96 => Operation::Wait(wait(model, source, now)),
        97..=103 => Operation::Expire(match source.below(4) {
            0 => Some(source.below(4) as usize),
            1 => Some(source.below(64) as usize),
            _ => None,
        }),
        104..=109 => {
            let class = if source.one_in(3) { PortClass::Low } else { PortClass::High };
            // Some are no source of a lease.
            let host = if source.one_in(16) { Ipv6Addr::LOCALHOST } else { host(source) };
            Operation::Grant { host, class }
        }
        110 | 111 => Operation::TakeIdle(source.below(4) as usize + 1),
        112 => Operation::TakeBack(source.below(16) as usize),
        114 => Operation::Give {
            host: host(source),
            address: Ipv4Addr::new(198, 51, 100, source.below(6) as u8 + 1),
            first_port: match source.below(32) {
                0 => 65_528,
                // Where the pool's blocks are, and across two of them.
                1..=15 => 1008 + 8 * source.below(14) as u16,
                _ => source.below(160) as u16 * 8,
            },
            size: SIZES[source.below(SIZES.len() as u32) as usize],
        },
        115 if source.one_in(4) => Operation::Rebuild,
        116 => {
            let statics: Vec<_> = model.bindings.iter().filter(|binding| binding.is_static).collect();
            let again = if source.one_in(4) { source.pick(&statics) } else { None };
            let flow = if let Some(binding) = again {
                outbound_of(binding.inside, Remote { address: REMOTES[0], port: 0 })
            } else {
                // Mostly a port that nobody's dynamic bindings have.
                let (mut flow, _) = flow(model, source);
                flow.port = if source.one_in(4) { flow.port } else { 2000 + source.below(2) as u16 };
                flow
            };
            let outside = STATICS[source.below(STATICS.len() as u32) as usize];
            Operation::AddStatic { flow, outside }
        }
        117 => {
            let statics: Vec<_> = model.bindings.iter().filter(|binding| binding.is_static).collect();
            match source.pick(&statics) {
                Some(binding) => Operation::RemoveStatic {
                    flow: outbound_of(binding.inside, Remote { address: REMOTES[0], port: 0 }),
                    outside: binding.outside,
                },
                None => Operation::DrainEvents,
            }
        }
        118..=120 => Operation::Report {
            session: source.below(64) as usize,
            ago: u64::from(source.below(20)),
            packets: source.below(1000),
            bytes: source.below(60_000),
        },
        125 if source.one_in(4) => Operation::End(source.below(40) as usize),
        121 | 122 => Operation::FindOutbound(flow(model, source).0),
        123 | 124 => Operation::FindInbound(reverse(model, source).0),
        _ => Operation::DrainEvents,
    }
}

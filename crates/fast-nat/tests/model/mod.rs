//! A reference model of the NAT64 engine: plain lists, no index, no timer wheel, no lock. It is written from the rules
//! (RFC 6146, 7857, 4787, 5382, 5508, 6888) and shares no code with the engine.
//!
//! Where the engine has a choice (which free port; which of several entries that are over go first) the model checks
//! that the choice was allowed and follows it.

mod api;
pub mod bucket;
pub mod compare;
pub mod events;
pub mod inbound;
pub mod leases;
pub mod operation;
pub mod outbound;
pub mod outcomes;
pub mod pool;
pub mod ports;
pub mod replay;
pub mod restart;
pub mod run;
pub mod run_blocks;
pub mod run_time;
pub mod setups;
pub mod source;
pub mod tcp;
pub mod upkeep;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use api::{
    BlockRef, Inbound, NatConfig, Outbound, PortClass, Protocol, SessionRef, SessionState, SessionView,
    Timestamp,
};

use bucket::Bucket;
use events::{Happened, Kind, Queue};
use tcp::Side;

/// How the model and the engine differ.
pub type Wrong = String;

/// Time as the rules count it: tenths of a second.
pub const fn tick(now: Timestamp) -> u64 {
    now.as_millis() / 100
}

/// A timer of this length in ticks: never shorter than asked for.
pub fn ticks(length: Duration) -> u64 {
    u64::try_from(length.as_millis().div_ceil(100)).unwrap()
}

/// What a binding belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inside {
    pub prefix: u8,
    pub protocol: Protocol,
    pub host: Ipv6Addr,
    pub port: u16,
}

/// What a binding gives its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outside {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// The other end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// An entry of the binding information base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    pub inside: Inside,
    pub outside: Outside,
    pub is_static: bool,
}

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    pub inside: Inside,
    pub remote: Remote,
    pub state: SessionState,
    /// The tick of the last packet that started the lifetime anew.
    pub seen: u64,
    pub opener: Side,
    /// Whether the host has sent on it, and whether the remote has.
    pub sent: bool,
    pub received: bool,
    /// Whether it has been established: that is told once.
    pub was_established: bool,
    /// From the IPv6 and from the IPv4 side.
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub reference: SessionRef,
}

/// A SYN of a remote that waits for the host to open the same connection.
#[derive(Debug, Clone)]
pub struct StoredSyn {
    pub outside: Outside,
    pub remote: Remote,
    pub packet: Vec<u8>,
    pub since: u64,
    /// The latest of those that were stored up to then: workers' clocks may be apart, and the engine may go by the order.
    pub behind: u64,
    /// When it was stored and when it came last, as numbers that grow.
    pub first: u64,
    pub last: u64,
}

/// A block of ports leased to a host.
#[derive(Debug, Clone)]
pub struct OwnedBlock {
    pub owner: Ipv6Addr,
    pub address: Ipv4Addr,
    pub first_port: u16,
    pub size: u16,
    pub reserved: Vec<u16>,
    pub given: Timestamp,
    /// The tick since which no binding uses it: its last binding went, or it was given.
    pub quiet_since: u64,
    /// The tick of the last packet of its owner that was refused after a port had been chosen: the engine may count from
    /// that one.
    pub tried: u64,
    pub reference: BlockRef,
}

impl OwnedBlock {
    pub const fn last_port(&self) -> u16 {
        self.first_port + (self.size - 1)
    }

    /// Whether the port is one of those that its owner may be given.
    pub fn holds(&self, outside: Outside) -> bool {
        self.is_around(outside) && !self.reserved.contains(&outside.port)
    }

    /// Whether the port lies in it, if only as one that is reserved.
    pub fn is_around(&self, outside: Outside) -> bool {
        self.address == outside.address && (self.first_port..=self.last_port()).contains(&outside.port)
    }
}

/// A port that somebody had.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    pub protocol: Protocol,
    pub outside: Outside,
    pub freed: u64,
}

/// What shares blocks: a host, or a subscriber when its hosts lease together.
#[derive(Debug, Clone)]
pub struct Host {
    pub key: Ipv6Addr,
    /// Whether it gets high ports in place of low ones, and whether that is certain.
    pub no_low: bool,
    pub is_certain: bool,
}

/// What shares a quota.
#[derive(Debug, Clone)]
pub struct Subscriber {
    pub key: Ipv6Addr,
    /// Of sessions that its hosts open, and of those that remotes open.
    pub buckets: [Bucket; 2],
}

/// How often the engine, where all choices are equally good, has taken the lowest and the highest port.
#[derive(Debug, Default, Clone)]
pub struct Fairness {
    pub choices: f64,
    pub expected: f64,
    pub lowest: f64,
    pub highest: f64,
}

/// The model.
pub struct Model {
    pub config: NatConfig,
    pub hosts: Vec<Host>,
    pub subscribers: Vec<Subscriber>,
    pub blocks: Vec<OwnedBlock>,
    pub bindings: Vec<Binding>,
    pub sessions: Vec<Session>,
    pub stored: Vec<StoredSyn>,
    pub rests: Vec<Rest>,
    /// The latest tick that anybody's clock has shown.
    pub latest: u64,
    /// SYNs stored so far, and which came last of each remote.
    pub syns: u64,
    pub latest_syn: u64,
    /// When those came that were taken up and could still be waiting.
    pub stale_syns: Vec<u64>,
    pub newest: Vec<(Remote, u64)>,
    /// What the present operation has done so far.
    pub happened: Vec<Happened>,
    pub queue: Queue,
    /// The last references that are valid no more.
    pub dead: Vec<SessionRef>,
    pub fairness: Fairness,
    /// TCP packets of sessions by state, side and signal.
    pub steps: [[[u64; 4]; 2]; 8],
    /// What a host was refused last, or wants.
    pub asked: Option<(Ipv6Addr, PortClass)>,
}

/// The first `length` bits of an address.
pub fn masked(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    if length == 0 {
        return Ipv6Addr::UNSPECIFIED;
    }
    Ipv6Addr::from_bits(address.to_bits() >> (128 - length) << (128 - length))
}

impl Model {
    pub fn new(config: NatConfig) -> Self {
        Self {
            config,
            hosts: Vec::new(),
            subscribers: Vec::new(),
            blocks: Vec::new(),
            bindings: Vec::new(),
            sessions: Vec::new(),
            stored: Vec::new(),
            rests: Vec::new(),
            latest: 0,
            syns: 0,
            latest_syn: 0,
            stale_syns: Vec::new(),
            newest: Vec::new(),
            happened: Vec::new(),
            queue: Queue::default(),
            dead: Vec::new(),
            fairness: Fairness::default(),
            steps: [[[0; 4]; 2]; 8],
            asked: None,
        }
    }

    pub fn host_key(&self, host: Ipv6Addr) -> Ipv6Addr {
        masked(host, self.config.lease_prefix_len)
    }

    pub fn subscriber_key(&self, host: Ipv6Addr) -> Ipv6Addr {
        masked(host, self.config.subscriber_prefix_len)
    }

    pub fn binding(&self, inside: Inside) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.inside == inside)
    }

    /// The binding of a session; there is one as long as it lives.
    pub fn outside_of(&self, inside: Inside) -> Outside {
        self.binding(inside).unwrap().outside
    }

    pub fn binding_of(&self, protocol: Protocol, outside: Outside) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.outside == outside && binding.inside.protocol == protocol)
    }

    pub fn session(&self, inside: Inside, remote: Remote) -> Option<usize> {
        self.sessions.iter().position(|session| session.inside == inside && session.remote == remote)
    }

    /// The lifetime of a session in its present state, in ticks.
    pub fn lifetime(&self, session: &Session) -> u64 {
        use SessionState::{Established, V4FinRcv, V6FinRcv};
        let timers = &self.config.timers;
        ticks(match (session.inside.protocol, session.state) {
            (Protocol::Tcp, Established | V4FinRcv | V6FinRcv) => timers.tcp_established,
            (Protocol::Tcp, _) => timers.tcp_transitory,
            (Protocol::Udp, _) => timers.udp,
            (Protocol::Icmp, _) => timers.icmp,
        })
    }

    /// Whether a session is over in this tick.
    pub fn is_over(&self, session: &Session, tick: u64) -> bool {
        tick.saturating_sub(session.seen) > self.lifetime(session)
    }

    pub fn is_syn_over(&self, since: u64, tick: u64) -> bool {
        tick.saturating_sub(since) > ticks(self.config.timers.tcp_incoming_syn)
    }

    /// A session as the engine is to show it.
    pub fn view(&self, index: usize) -> SessionView {
        let session = &self.sessions[index];
        let (inside, remote) = (session.inside, session.remote);
        let outside = self.outside_of(inside);
        SessionView {
            reference: session.reference,
            outbound: outbound_of(inside, remote),
            inbound: inbound_of(inside.protocol, outside, remote),
            state: session.state,
            taken_part: session.sent,
            last_seen: Timestamp::from_millis(session.seen * 100),
            packets: session.packets,
            bytes: session.bytes,
        }
    }

    pub fn happens(&mut self, kind: Kind, index: usize) {
        if self.config.events > 0 {
            let view = self.view(index);
            self.happened.push(Happened { kind, view });
        }
    }
}

pub const fn outbound_of(inside: Inside, remote: Remote) -> Outbound {
    Outbound {
        prefix: inside.prefix,
        protocol: inside.protocol,
        host: inside.host,
        port: inside.port,
        remote: remote.address,
        remote_port: remote.port,
    }
}

pub const fn inbound_of(protocol: Protocol, outside: Outside, remote: Remote) -> Inbound {
    Inbound {
        protocol,
        address: outside.address,
        port: outside.port,
        remote: remote.address,
        remote_port: remote.port,
    }
}

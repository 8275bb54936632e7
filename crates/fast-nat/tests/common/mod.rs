//! An engine in virtual time, and few words for many packets.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fast_nat::Timestamp;
use fast_nat::nat64::{
    Block, BlockRef, Event, Filtering, Inbound, Mapped, Nat64, NatConfig, Outbound, Output, Passing,
    Protocol, Reached, Refused, SessionState, SessionView, Signal, StaticBinding,
};

/// The engine's unit of time.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The address that the blocks of [`Lab::give`] are of.
pub(crate) const POOL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The first moment lies in the midst of a tick.
const START: Timestamp = Timestamp::from_millis(1_000_040);

/// The length of the blocks of [`Lab::give`].
pub(crate) const BLOCK: u16 = 64;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn mins(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

/// Hosts, each in a /64 of its own.
pub(crate) const fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 1)
}

/// The `n`th host of a subscriber's /64.
pub(crate) const fn host_of(subscriber: u16, n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, subscriber, 0, 0, 0, n)
}

/// Hosts of the IPv4 side.
pub(crate) const fn remote(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

/// A flow of TCP or UDP; of ICMP, whose remote port is 0.
pub(crate) const fn flow(
    protocol: Protocol,
    host: Ipv6Addr,
    port: u16,
    remote: Ipv4Addr,
    remote_port: u16,
) -> Outbound {
    let remote_port = if matches!(protocol, Protocol::Icmp) { 0 } else { remote_port };
    Outbound { prefix: 0, protocol, host, port, remote, remote_port }
}

/// The answers to a flow that left with this mapping.
pub(crate) const fn answer(to: &Outbound, mapped: &Mapped) -> Inbound {
    Inbound {
        protocol: to.protocol,
        address: mapped.address,
        port: mapped.port,
        remote: to.remote,
        remote_port: to.remote_port,
    }
}

/// A packet of 100 bytes.
pub(crate) const fn packet(signal: Signal) -> Passing<'static> {
    Passing { signal, segments: 1, bytes: 100, packet: b"the packet" }
}

/// What opens a flow of this protocol.
pub(crate) const fn opener(protocol: Protocol) -> Signal {
    match protocol {
        Protocol::Tcp => Signal::Syn,
        Protocol::Udp | Protocol::Icmp => Signal::None,
    }
}

pub(crate) struct Lab {
    pub(crate) nat: Nat64,
    pub(crate) now: Timestamp,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Small tables, no limit that a test does not set itself.
    pub(crate) fn with(change: impl FnOnce(&mut NatConfig)) -> Self {
        let mut config = NatConfig {
            max_sessions: 4096,
            max_bindings: 4096,
            max_hosts: 1024,
            max_blocks: 1024,
            max_stored_syns: 16,
            events: 4096,
            ..NatConfig::default()
        };
        config.quota.new_sessions_per_second = 0;
        change(&mut config);
        Self { nat: Nat64::new(config).unwrap(), now: START }
    }

    pub(crate) fn address_dependent() -> Self {
        Self::with(|config| config.filtering = Filtering::AddressDependent)
    }

    /// Leases [`BLOCK`] ports from this one on to a host.
    pub(crate) fn give(&self, host: Ipv6Addr, first_port: u16) -> BlockRef {
        self.give_ports(host, first_port, BLOCK)
    }

    pub(crate) fn give_ports(&self, host: Ipv6Addr, first_port: u16, size: u16) -> BlockRef {
        let block = Block { address: POOL, first_port, size, reserved: Vec::new() };
        self.nat.give_block(host, &block, self.now).unwrap()
    }

    /// Time goes by, and nobody looks.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// What is over ends.
    pub(crate) fn expire(&self) {
        for _ in 0..10_000 {
            if !self.nat.expire(self.now, 1000) {
                return;
            }
        }
        panic!("`expire` finds no end");
    }

    /// Time goes by, and what is over ends.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.pass(time);
        self.expire();
    }

    pub(crate) fn out(&self, flow: &Outbound, signal: Signal) -> Result<Mapped, Refused> {
        self.nat.outbound(flow, &packet(signal), self.now)
    }

    pub(crate) fn back(&self, flow: &Inbound, signal: Signal) -> Result<Reached, Refused> {
        self.nat.inbound(flow, &packet(signal), self.now)
    }

    /// The host opens a flow.
    pub(crate) fn open(&self, flow: &Outbound) -> Mapped {
        let mapped = self.out(flow, opener(flow.protocol)).unwrap();
        assert!(mapped.created, "{flow:?} is there already");
        mapped
    }

    /// The host opens a flow, and the remote answers: established.
    pub(crate) fn establish(&self, flow: &Outbound) -> (Mapped, Inbound) {
        let mapped = self.open(flow);
        let answers = answer(flow, &mapped);
        self.back(&answers, opener(flow.protocol)).unwrap();
        assert_eq!(self.state(flow), Some(SessionState::Established));
        (mapped, answers)
    }

    pub(crate) fn view(&self, flow: &Outbound) -> Option<SessionView> {
        let found = self.nat.sessions().find(|view| view.outbound == *flow);
        let looked_up = self.nat.find_outbound(flow).and_then(|mapped| mapped.session);
        assert_eq!(found.map(|view| view.reference), looked_up, "the list and the index agree");
        found
    }

    pub(crate) fn state(&self, flow: &Outbound) -> Option<SessionState> {
        self.view(flow).map(|view| view.state)
    }

    /// How many sessions there are.
    pub(crate) fn count(&self) -> usize {
        let listed = self.nat.sessions().count();
        assert_eq!(self.nat.usage().sessions.iter().sum::<u32>() as usize, listed);
        listed
    }

    /// All sessions, in an order of their own.
    pub(crate) fn snapshot(&self) -> Vec<SessionView> {
        let mut sessions: Vec<_> = self.nat.sessions().collect();
        sessions.sort_by_key(|view| {
            let Outbound { prefix, protocol, host, port, remote, remote_port } = view.outbound;
            (prefix, protocol, host, port, remote, remote_port)
        });
        sessions
    }

    pub(crate) fn outputs(&self) -> Vec<Output> {
        std::iter::from_fn(|| self.nat.poll_output(self.now)).take(10_000).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.nat.poll_event()).take(10_000).collect()
    }

    pub(crate) fn add_static(
        &self,
        protocol: Protocol,
        port: u16,
        host: Ipv6Addr,
        host_port: u16,
    ) -> StaticBinding {
        let forward = StaticBinding { prefix: 0, protocol, address: POOL, port, host, host_port };
        self.nat.add_static(&forward, self.now).unwrap();
        forward
    }

    /// From now on nothing happens but time: `is_there` holds for `timer`, and no longer than a tick beyond.
    ///
    /// What is over is looked for on the way too, and in each of the last ticks.
    pub(crate) fn ends_after(&mut self, timer: Duration, what: &str, is_there: impl Fn(&Self) -> bool) {
        let from = self.now;
        assert!(is_there(self), "{what}: there at first");
        let before = |ticks: u32| timer.saturating_sub(ticks * TICK);
        for looked in [timer / 3, timer / 2, before(3), before(2), before(1), timer] {
            self.now = from + looked;
            self.expire();
            assert!(is_there(self), "{what}: {looked:?} have passed of {timer:?}");
        }
        self.wait(TICK);
        assert!(!is_there(self), "{what}: a tick more than {timer:?} has passed");
    }
}

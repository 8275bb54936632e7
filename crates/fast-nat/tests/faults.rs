//! A panic in the midst of a change, a lock held: what it leaves belongs together, nothing that was there before is lost, and nothing is
//! kept for ever.
//!
//! Each point strikes in the course of random operations, several times with other ones before it. `PROTOMASK_SEED` sets which; the seed
//! is printed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{POOL, host_of, packet, remote};
use fast_nat::faults::{self, Point};
use fast_nat::nat64::{
    Course, Event, Filtering, Nat64, NatConfig, Outbound, PortClass, Protocol, Quota, Refused, SavedSession,
    SessionRef, SessionView, Signal, StaticBinding,
};
use fast_nat::{
    BlockPool, BlockPoolConfig, Granted, LeaseKind, LeasePool, LeaseTable, PoolConfig, PortNet, Timestamp,
};

/// How often each point strikes.
const TIMES: u64 = 4;
/// Operations within which a point has to be met.
const OPERATIONS: u32 = 60_000;
/// Operations after a fault.
const AFTERWARDS: u32 = 300;
/// Of an exclusive lease.
const LIFETIME: Duration = Duration::from_mins(1);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % u64::from(bound)) as u32
    }
}

#[derive(Default)]
struct Told {
    blocks: BTreeSet<(Ipv4Addr, u16)>,
    sessions: HashSet<SessionRef>,
    leases: BTreeSet<Ipv4Addr>,
}

struct World {
    random: Random,
    nat: Nat64,
    blocks: BlockPool,
    leases: LeaseTable,
    addresses: LeasePool,
    now: Timestamp,
    statics: BTreeSet<u16>,
    reserved: BTreeSet<u16>,
    saved: Vec<SavedSession>,
    /// Blocks and sessions, as one knows them who was told of each that begins or ends.
    told: Told,
    /// Sessions may end by what is done at present.
    may_end: bool,
}

fn block_pool(reserved: &BTreeSet<u16>) -> BlockPoolConfig {
    let net = PortNet {
        net: "192.0.2.0/29".parse().unwrap(),
        first_port: 0,
        last_port: 1024 + 511,
        reserved_ports: vec![1030],
    };
    BlockPoolConfig {
        nets: vec![net],
        block_size: 16,
        max_ports_per_subscriber: 512,
        reserved_addresses: vec![],
        reserved_endpoints: reserved.iter().map(|port| (POOL, *port)).collect(),
        seed: Some(1),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let config = NatConfig {
            // So small that all of them are full at times.
            max_sessions: 160,
            max_bindings: 100,
            max_hosts: 24,
            max_blocks: 64,
            max_stored_syns: 8,
            events: 4096,
            filtering: Filtering::AddressDependent,
            low_ports: true,
            max_resting_ports: 6,
            track_changes: true,
            quota: Quota { sessions: 60, new_sessions_per_second: 0, burst: 1 },
            ..NatConfig::default()
        };
        let pool = PoolConfig {
            pools: vec!["203.0.113.0/27".parse().unwrap()],
            reserved: vec![],
            max_leases_per_subnet: 8,
            rest: Duration::from_secs(20),
            lanes: fast_nat::Lanes::new(4).unwrap(),
        };
        Self {
            random: Random(seed),
            nat: Nat64::new(config).unwrap(),
            blocks: BlockPool::new(&block_pool(&BTreeSet::new())).unwrap(),
            leases: LeaseTable::new(24, Duration::from_secs(20)).tracking_changes(),
            addresses: LeasePool::new(&pool).unwrap(),
            now: Timestamp::from_millis(1_000_000),
            statics: BTreeSet::new(),
            reserved: BTreeSet::new(),
            saved: Vec::new(),
            told: Told::default(),
            may_end: false,
        }
    }

    fn host(&mut self) -> Ipv6Addr {
        host_of(1 + self.random.below(12) as u16, 1 + self.random.below(3) as u16)
    }

    fn flow(&mut self) -> Outbound {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp][self.random.below(3) as usize];
        let port = [500, 5000][self.random.below(2) as usize] + self.random.below(12) as u16;
        let to = remote(1 + self.random.below(3) as u8);
        common::flow(protocol, self.host(), port, to, 80 + self.random.below(3) as u16)
    }

    fn signal(&mut self, protocol: Protocol) -> Signal {
        let signals = [Signal::None, Signal::Syn, Signal::Syn, Signal::Fin, Signal::Rst];
        if protocol == Protocol::Tcp { signals[self.random.below(5) as usize] } else { Signal::None }
    }

    fn any_session(&mut self) -> Option<SessionView> {
        let sessions: Vec<_> = self.nat.sessions().collect();
        let count = sessions.len() as u32;
        (count > 0).then(|| sessions[self.random.below(count) as usize])
    }

    fn forward(&mut self) -> StaticBinding {
        let port = 1024 + self.random.below(64) as u16;
        let host = self.host();
        StaticBinding { prefix: 0, protocol: Protocol::Udp, address: POOL, port, host, host_port: port }
    }

    /// What a router does with a packet.
    fn send(&mut self, flow: &Outbound, signal: Signal) {
        if let Err(Refused::NeedsBlock(class)) = self.nat.outbound(flow, &packet(signal), self.now) {
            self.grant(flow.host, class);
            let _ = self.nat.outbound(flow, &packet(signal), self.now);
        }
    }

    fn grant(&mut self, host: Ipv6Addr, class: PortClass) {
        if let Ok(Granted::New { address, first_port, .. }) =
            self.blocks.grant(&self.nat, host, class, self.now)
        {
            assert!(self.told.blocks.insert((address, first_port)), "given twice");
        }
    }

    /// What has been told is what there is.
    fn check_told(&mut self, when: &str) {
        while let Some(event) = self.nat.poll_event() {
            match event {
                Event::Started(view) => assert!(self.told.sessions.insert(view.reference), "{when}: twice"),
                Event::Ended(view) => assert!(self.told.sessions.remove(&view.reference), "{when}: twice"),
                Event::Established(_) | Event::Changed(_) => {}
            }
        }
        assert_eq!(self.nat.events_lost(), 0, "{when}");
        let sessions: HashSet<_> = self.nat.sessions().map(|view| view.reference).collect();
        assert_eq!(sessions, self.told.sessions, "{when}: sessions, and what was told of them");
        let blocks: BTreeSet<_> = self.nat.blocks().map(|block| (block.address, block.first_port)).collect();
        let leases: BTreeSet<_> = self.leases.leases().map(|lease| lease.address).collect();
        assert_eq!(leases, self.told.leases, "{when}: leases, and what was told of them");
        assert_eq!(blocks, self.told.blocks, "{when}: blocks, and what was told of them");
    }

    /// One operation.
    fn step(&mut self) {
        self.may_end = false;
        match self.random.below(24) {
            0..8 => {
                let flow = self.flow();
                let signal = if self.random.below(3) == 0 {
                    self.signal(flow.protocol)
                } else {
                    common::opener(flow.protocol)
                };
                self.send(&flow, signal);
            }
            8..11 => {
                let Some(view) = self.any_session() else { return };
                let signal = self.signal(view.outbound.protocol);
                let _ = self.nat.inbound(&view.inbound, &packet(signal), self.now);
            }
            11 => {
                let Some(view) = self.any_session() else { return };
                let signal = self.signal(view.outbound.protocol);
                self.send(&view.outbound, signal);
            }
            // A stranger, or somebody whose address is let in.
            12 | 13 => {
                let Some(view) = self.any_session() else { return };
                let mut flow = view.inbound;
                flow.remote = remote(1 + self.random.below(5) as u8);
                flow.remote_port = 80 + self.random.below(20) as u16;
                let opened = self.nat.inbound(&flow, &packet(common::opener(flow.protocol)), self.now);
                // Its host takes part.
                if opened.is_ok() || self.random.below(2) == 0 {
                    let Outbound { prefix, protocol, host, port, .. } = view.outbound;
                    let (remote, remote_port) = (flow.remote, flow.remote_port);
                    let back = Outbound { prefix, protocol, host, port, remote, remote_port };
                    self.send(&back, common::opener(flow.protocol));
                }
            }
            14 | 15 => {
                self.now =
                    self.now + Duration::from_millis([100, 3000, 30_000][self.random.below(3) as usize]);
                self.may_end = true;
                self.expire();
            }
            16 => {
                let Some(view) = self.any_session() else { return };
                self.saved.push(SavedSession {
                    outbound: view.outbound,
                    address: view.inbound.address,
                    port: view.inbound.port,
                    state: view.state,
                    course: Course::from_bits(u8::from(view.taken_part)).unwrap(),
                    last_seen: self.now,
                });
                self.may_end = true;
                self.nat.end_session(view.reference, self.now);
            }
            17 => {
                let forward = self.forward();
                // New settings: the pool's next owner knows of the port.
                self.reserved.insert(forward.port);
                self.blocks = BlockPool::new(&block_pool(&self.reserved)).unwrap();
                self.blocks.rebuild(&self.nat);
                self.nat.reserve(&[forward]);
                if self.nat.add_static(&forward, self.now).is_ok() {
                    self.statics.insert(forward.port);
                }
            }
            18 => self.remove_statics(),
            19 => {
                let given: Vec<_> = self.nat.blocks().collect();
                if let Some(block) = given.get(self.random.below(64) as usize) {
                    self.nat.retire(block.reference);
                }
            }
            20 => {
                self.take_back();
            }
            21 => self.restore(),
            _ => self.lease(),
        }
    }

    fn expire(&mut self) {
        while self.nat.expire(self.now, 32) {}
        while self.nat.poll_output(self.now).is_some() {}
        let mut ended = Vec::new();
        self.leases.expire_each(self.now, LIFETIME, 16, |lease| {
            assert!(self.told.leases.remove(&lease.address));
            ended.push(lease.address);
        });
        for address in ended {
            self.addresses.free(&self.leases, address, self.now);
        }
    }

    fn take_back(&mut self) {
        for block in self.nat.idle_blocks(self.now, 8) {
            if let Some(lease) = self.blocks.take_back(&self.nat, block, self.now) {
                assert!(self.told.blocks.remove(&(lease.address, lease.first_port)), "taken back twice");
            }
        }
    }

    fn remove_statics(&mut self) {
        for port in std::mem::take(&mut self.statics) {
            for host in (1..13).flat_map(|subscriber| (1..4).map(move |n| host_of(subscriber, n))) {
                let forward = StaticBinding {
                    prefix: 0,
                    protocol: Protocol::Udp,
                    address: POOL,
                    port,
                    host,
                    host_port: port,
                };
                self.statics.insert(port);
                self.nat.remove_static(&forward, self.now);
            }
            self.statics.remove(&port);
        }
    }

    /// A session that has ended comes back as after a restart, or its port rests.
    fn restore(&mut self) {
        let Some(saved) = self.saved.pop() else { return };
        if self.random.below(2) == 0 {
            let before: HashSet<_> = self.nat.sessions().map(|view| view.reference).collect();
            let saved = SavedSession { last_seen: self.now, ..saved };
            if self.nat.restore_session(&saved, self.now).is_ok() {
                let new = self.nat.sessions().map(|view| view.reference).find(|one| !before.contains(one));
                self.told.sessions.extend(new);
            }
            return;
        }
        // A block that the host has just been given: all of its ports are free.
        let host = saved.outbound.host;
        self.grant(host, PortClass::High);
        let Some(block) = self.nat.blocks().find(|block| block.host == host) else { return };
        for port in block.first_port..block.first_port + block.size {
            let resting = fast_nat::nat64::RestingPort {
                protocol: saved.outbound.protocol,
                address: block.address,
                port,
                since: self.now,
            };
            self.nat.restore_resting(host, &resting, self.now);
        }
    }

    fn lease(&mut self) {
        let host = self.host();
        if self.random.below(6) == 0 {
            let leases: Vec<_> = self.leases.leases().collect();
            if let Some(lease) = leases.get(self.random.below(24) as usize)
                && lease.kind == LeaseKind::Dynamic
            {
                // Whoever ends a lease by name knows it.
                self.told.leases.remove(&lease.address);
                let Some(ended) = self.leases.remove(lease.address, self.now) else { return };
                self.addresses.free(&self.leases, ended.address, self.now);
            }
            return;
        }
        if let Ok(lease) = self.addresses.grant(&self.leases, host, self.now) {
            self.told.leases.insert(lease.address);
        }
    }

    /// What a restart of the pools' owner does, and what one of `sessions` does.
    fn restart(&mut self) {
        self.blocks.rebuild(&self.nat);
        self.addresses.rebuild(&self.leases, self.now);
    }

    fn audit(&self, when: &str) {
        let wrong: Vec<String> = self
            .nat
            .audit(|_, address, port| address == POOL && self.reserved.contains(&port))
            .into_iter()
            .chain(self.leases.audit())
            .collect();
        assert!(wrong.is_empty(), "{when}: {wrong:#?}");
    }

    /// All that can end ends, and nothing is left.
    fn close(&mut self, when: &str) {
        self.remove_all_statics();
        // Established connections are asked once more before they end, and blocks come back some at a time.
        for _ in 0..40 {
            self.now = self.now + Duration::from_mins(130);
            self.expire();
            self.take_back();
        }
        self.audit(when);
        let usage = self.nat.usage();
        let left =
            (usage.sessions, usage.bindings, usage.hosts, usage.subscribers, usage.blocks, usage.stored_syns);
        assert_eq!(left, ([0; 3], 0, 0, 0, 0, 0), "{when}: what is left");
        assert_eq!((self.leases.len(), self.leases.ended().len() <= 24), (0, true), "{when}: leases");
        // Whoever comes now gets all there is: no port, block or address is lost.
        self.blocks.rebuild(&self.nat);
        let free: u64 = self.blocks.usage().iter().map(|net| net.free).sum();
        assert_eq!(
            free,
            BlockPool::new(&block_pool(&BTreeSet::new())).unwrap().usage()[0].free,
            "{when}: free blocks"
        );
        self.addresses.rebuild(&self.leases, self.now);
        let free: u64 = self.addresses.usage(self.now).iter().map(|net| net.free).sum();
        assert_eq!(free, 30, "{when}: free addresses");
    }

    fn remove_all_statics(&mut self) {
        self.statics.extend(1024..1024 + 64);
        self.remove_statics();
        self.statics.clear();
    }

    fn sessions(&self) -> BTreeSet<String> {
        // By what a host sees of it: its number is the engine's affair.
        self.nat.sessions().map(|view| format!("{:?} {:?}", view.outbound, view.inbound)).collect()
    }
}

/// Lets `point` strike in the course of random operations.
fn drill(point: Point, seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..world.random.below(400) {
        world.step();
        world.check_told("before any fault");
    }
    let struck = faults::struck(point);
    faults::arm(point, 1);
    let mut steps = 0;
    while faults::struck(point) == struck {
        assert!(steps < OPERATIONS, "{point:?} is not met");
        steps += 1;
        let before = world.sessions();
        let outcome = catch_unwind(AssertUnwindSafe(|| world.step()));
        assert_eq!(outcome.is_err(), faults::struck(point) > struck, "{point:?}: a panic of its own");
        world.check_told(&format!("{point:?}, seed {seed}, step {steps}"));
        let after = world.sessions();
        let lost: Vec<_> = before.difference(&after).collect();
        assert!(world.may_end || lost.is_empty(), "{point:?}, seed {seed}: sessions lost: {lost:#?}");
    }
    let when = format!("{point:?}, seed {seed}, step {steps}");
    world.audit(&format!("{when}: at once"));
    world.restart();
    for _ in 0..AFTERWARDS {
        world.step();
        world.check_told(&when);
    }
    world.audit(&format!("{when}: after more operations"));
    world.close(&when);
}

#[test]
fn a_panic_in_the_midst_of_a_change_leaves_nothing_half_done_and_keeps_nothing_for_ever() {
    let seed = std::env::var("PROTOMASK_SEED").map_or_else(
        |_| std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64),
        |seed| seed.parse().unwrap(),
    );
    println!("PROTOMASK_SEED={seed}");
    // Without any fault everything belongs together as well.
    let mut world = World::new(seed);
    for _ in 0..3000 {
        world.step();
        world.check_told("without a fault");
    }
    world.audit("without a fault");
    world.close("without a fault");
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_none_or(|text| !text.starts_with("injected fault")) {
            quiet(panic);
        }
    }));
    for point in Point::ALL {
        for n in 0..TIMES {
            drill(*point, seed.wrapping_add(n << 32));
        }
        println!("{:>3} times {point:?}", faults::struck(*point));
    }
}

//! Who has which ports, computed instead of remembered (RFC 7422).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{Ipv4Net, Ipv6Net};

/// Ports are 16 bits wide.
const PORTS: usize = 1 << 16;

/// Where no slot begins or lies, in the tables of slots.
const NO_SLOT: u16 = u16::MAX;

/// What the plan is computed from. The same values give the same plan, on any machine and in any year: whoever must
/// answer for a past day keeps the values of that day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeterministicConfig {
    /// The networks whose prefixes of [`subscriber_prefix_len`](Self::subscriber_prefix_len) are the subscribers. They
    /// are numbered in this order, and within a network from its lowest prefix up.
    pub hosts: Vec<Ipv6Net>,
    /// The length of a subscriber's prefix: 32 to 128.
    pub subscriber_prefix_len: u8,
    /// The addresses and ports that are handed out, in this order.
    pub nets: Vec<DeterministicNet>,
    /// Addresses in those networks that nobody gets.
    pub reserved_addresses: Vec<Ipv4Addr>,
    /// The ports of one subscriber: a multiple of `block_size`.
    pub ports_per_subscriber: u32,
    /// The ports of one block: a power of two, 16 to 4096.
    pub block_size: u16,
}

/// Addresses of a pool, and which of their ports are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeterministicNet {
    /// The addresses. All of them are used, the first and the last one included: they are no hosts on a link.
    pub net: Ipv4Net,
    /// The lowest port, at least 1. The first block begins at the next multiple of the block size.
    pub first_port: u16,
    /// The highest port.
    pub last_port: u16,
    /// Ports between them that nobody gets. A block that has no other port is left out; any other block is handed out
    /// without them.
    pub reserved_ports: Vec<u16>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeterministic {
    /// The block size.
    #[error("a block of {0} ports cannot be: a power of two from 16 to 4096 can")]
    BlockSize(u16),
    /// The ports of a subscriber.
    #[error("{ports} ports for each subscriber are no whole number of blocks of {block_size}")]
    PortsPerSubscriber {
        /// What was asked for.
        ports: u32,
        /// The ports of a block.
        block_size: u16,
    },
    /// The length of a subscriber's prefix.
    #[error("a subscriber cannot be a /{0}: /32 to /128 can")]
    SubscriberPrefixLen(u8),
    /// A network of hosts that is smaller than one subscriber.
    #[error("{net} is less than one subscriber, which is a /{subscriber_prefix_len}")]
    LessThanASubscriber {
        /// The network.
        net: Ipv6Net,
        /// The length of a subscriber's prefix.
        subscriber_prefix_len: u8,
    },
    /// No subscriber at all.
    #[error("no network of hosts is given, so there is no subscriber to give ports to")]
    NoHosts,
    /// Two networks of hosts with the same subscribers.
    #[error("the networks of hosts {0} and {1} overlap")]
    HostsOverlap(Ipv6Net, Ipv6Net),
    /// Two pools with the same addresses.
    #[error("the pools {0} and {1} overlap")]
    PoolsOverlap(Ipv4Net, Ipv4Net),
    /// A range of ports that is none.
    #[error("the ports {first_port}-{last_port} of {net} are no range; port 0 cannot be in it")]
    Ports {
        /// The pool.
        net: Ipv4Net,
        /// Its first port.
        first_port: u16,
        /// Its last port.
        last_port: u16,
    },
    /// More subscribers than there are ports for.
    #[error("{}", too_small(self))]
    PoolsTooSmall {
        /// How many subscribers there are; `u128::MAX` where they cannot be counted.
        subscribers: u128,
        /// How many of them the pools have ports for.
        room: u64,
        /// The ports of one subscriber.
        ports_per_subscriber: u32,
        /// How many subscribers one address has ports for, in the last pool that has any for one; 0: no pool has.
        per_address: u32,
    },
}

/// The sentence of [`InvalidDeterministic::PoolsTooSmall`].
fn too_small(error: &InvalidDeterministic) -> String {
    let InvalidDeterministic::PoolsTooSmall { subscribers, room, ports_per_subscriber, per_address } = error
    else {
        return String::new();
    };
    let missing = subscribers.saturating_sub(u128::from(*room));
    let remedy = match per_address {
        0 => "no address of them has that many ports in a row".to_owned(),
        n => format!("that is {} more addresses, or fewer ports for each", missing.div_ceil(u128::from(*n))),
    };
    format!(
        "the pools have room for {room} subscribers with {ports_per_subscriber} ports each, and there are \
         {subscribers}: room for {missing} is missing; {remedy}"
    )
}

/// Which ports of which address each subscriber has, for good: no state, no record, the same answer every time.
///
/// A **slot** is the ports of one subscriber: `ports_per_subscriber` ports in a row, made of whole blocks, each aligned
/// to a multiple of its size. All addresses of a pool are divided into the same slots, from the lowest port up; a block
/// that is wholly reserved is passed over, and the next slot begins behind it. Subscriber number `n` has slot number
/// `n`: first all slots of the first address, then those of the second. This is the sequential algorithm of RFC 7422
/// §2 without a pool of dynamic ports.
///
/// Both directions cost the same whatever the number of subscribers, addresses and ports; they grow with the logarithm
/// of the number of configured networks and reserved addresses. Memory: about 24 KiB for each pool with the smallest
/// blocks, and 8 KiB of reserved ports.
#[derive(Debug, Clone)]
pub struct Deterministic {
    config: DeterministicConfig,
    /// By the number of the first subscriber, which is the configured order.
    hosts: Vec<Subscribers>,
    /// Indices into `hosts`, by address.
    hosts_by_address: Vec<usize>,
    /// By the number of the first slot, which is the configured order.
    pools: Vec<Slots>,
    /// Indices into `pools`, by address.
    pools_by_address: Vec<usize>,
    subscribers: u64,
    room: u64,
}

/// The subscribers of one network.
#[derive(Debug, Clone)]
struct Subscribers {
    net: Ipv6Net,
    /// The number of the lowest one.
    first: u64,
}

/// The slots of one pool.
#[derive(Debug, Clone)]
struct Slots {
    net: Ipv4Net,
    /// The number of the first one.
    first: u64,
    /// How many there are.
    count: u64,
    /// The first port of each slot of an address.
    begin: Vec<u16>,
    /// Which slot a block belongs to, by port number divided by the block size.
    of_block: Vec<u16>,
    /// The offsets of reserved addresses, sorted.
    reserved: Vec<u32>,
    /// One bit for each port.
    reserved_ports: Box<[u64]>,
}

impl Deterministic {
    /// Makes the plan. What is wrong with the configuration is told in a sentence for the operator.
    pub fn new(config: DeterministicConfig) -> Result<Self, InvalidDeterministic> {
        check(&config)?;
        let mut subscribers = 0_u128;
        let mut hosts = Vec::with_capacity(config.hosts.len());
        for net in &config.hosts {
            // A number that is cut here is too large for any pool, and refused below.
            hosts.push(Subscribers { net: net.trunc(), first: subscribers as u64 });
            let bits = u32::from(config.subscriber_prefix_len - net.prefix_len());
            subscribers = subscribers.saturating_add(1_u128.checked_shl(bits).unwrap_or(u128::MAX));
        }
        let mut room = 0;
        let mut pools = Vec::with_capacity(config.nets.len());
        for net in &config.nets {
            let slots = Slots::new(net, &config, room);
            room += slots.count;
            pools.push(slots);
        }
        if subscribers > u128::from(room) {
            let per_address = pools.iter().rev().map(Slots::per_address).find(|n| *n > 0).unwrap_or(0);
            return Err(InvalidDeterministic::PoolsTooSmall {
                subscribers,
                room,
                ports_per_subscriber: config.ports_per_subscriber,
                per_address,
            });
        }
        let mut hosts_by_address: Vec<usize> = (0..hosts.len()).collect();
        hosts_by_address.sort_unstable_by_key(|n| hosts[*n].net.network());
        let mut pools_by_address: Vec<usize> = (0..pools.len()).collect();
        pools_by_address.sort_unstable_by_key(|n| pools[*n].net.network());
        let subscribers = subscribers as u64; // not more than `room`
        Ok(Self { config, hosts, hosts_by_address, pools, pools_by_address, subscribers, room })
    }

    /// What the plan was computed from.
    pub fn config(&self) -> &DeterministicConfig {
        &self.config
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> u64 {
        self.subscribers
    }

    /// How many subscribers there are ports for.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// The address and the ports of the subscriber that `host` belongs to; `None` if it belongs to none. The range has
    /// `ports_per_subscriber` ports, and reserved ones may be among them.
    pub fn block_of(&self, host: Ipv6Addr) -> Option<(Ipv4Addr, RangeInclusive<u16>)> {
        let at = self.hosts_by_address.partition_point(|n| self.hosts[*n].net.network() <= host);
        let hosts = &self.hosts[*self.hosts_by_address.get(at.checked_sub(1)?)?];
        if !hosts.net.contains(&host) {
            return None;
        }
        let offset = u128::from(host) - u128::from(hosts.net.network());
        let number = hosts.first + (offset >> self.host_bits()) as u64;
        let at = self.pools.partition_point(|pool| pool.first <= number);
        let pool = &self.pools[at.checked_sub(1)?];
        let (address, first_port) = pool.slot(number - pool.first)?;
        Some((address, first_port..=self.last_port(first_port)))
    }

    /// The first ports of the blocks that [`block_of`](Self::block_of) consists of, and their address. Each block has
    /// `block_size` ports, and is aligned to a multiple of that.
    pub fn blocks_of(&self, host: Ipv6Addr) -> Option<(Ipv4Addr, impl Iterator<Item = u16> + use<>)> {
        let (address, ports) = self.block_of(host)?;
        Some((address, ports.step_by(usize::from(self.config.block_size))))
    }

    /// The subscriber whose port this is; `None` where it is nobody's, which a reserved port is.
    pub fn subscriber_of(&self, address: Ipv4Addr, port: u16) -> Option<Ipv6Net> {
        let at = self.pools_by_address.partition_point(|n| self.pools[*n].net.network() <= address);
        let pool = &self.pools[*self.pools_by_address.get(at.checked_sub(1)?)?];
        if !pool.net.contains(&address) || pool.is_reserved(port) {
            return None;
        }
        let number = pool.number(address, port / self.config.block_size)?;
        if number >= self.subscribers {
            return None;
        }
        let at = self.hosts.partition_point(|hosts| hosts.first <= number);
        let hosts = &self.hosts[at.checked_sub(1)?];
        let offset = u128::from(number - hosts.first) << self.host_bits();
        let prefix = Ipv6Addr::from(u128::from(hosts.net.network()) + offset);
        Ipv6Net::new(prefix, self.config.subscriber_prefix_len).ok()
    }

    /// How many bits of an address tell the hosts of one subscriber apart: 0 to 96.
    fn host_bits(&self) -> u32 {
        u32::from(128 - self.config.subscriber_prefix_len)
    }

    fn last_port(&self, first_port: u16) -> u16 {
        // A slot ends at or below port 65535: `Slots::new` makes no others.
        first_port.saturating_add((self.config.ports_per_subscriber - 1) as u16)
    }
}

/// All that the plan was computed from, on one line: what an operator keeps to answer for a past day (RFC 7422).
impl fmt::Display for Deterministic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        f.write_str("hosts")?;
        for net in &config.hosts {
            write!(f, " {net}")?;
        }
        write!(
            f,
            "; a subscriber is a /{} and has {} ports",
            config.subscriber_prefix_len, config.ports_per_subscriber
        )?;
        write!(f, " in blocks of {}; pools", config.block_size)?;
        for pool in &config.nets {
            write!(f, " {}:{}-{}", pool.net, pool.first_port, pool.last_port)?;
            let ports = runs(pool.reserved_ports.iter().map(|port| u32::from(*port)));
            for (n, (first, last)) in ports.into_iter().enumerate() {
                f.write_str(if n == 0 { " without " } else { "," })?;
                if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
            }
        }
        let addresses = runs(config.reserved_addresses.iter().map(|address| u32::from(*address)));
        for (n, (first, last)) in addresses.into_iter().enumerate() {
            f.write_str(if n == 0 { "; without the addresses " } else { "," })?;
            let (first, last) = (Ipv4Addr::from(first), Ipv4Addr::from(last));
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

/// First and last of each run of numbers that follow each other.
fn runs(numbers: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut sorted: Vec<u32> = numbers.collect();
    sorted.sort_unstable();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in sorted {
        match runs.last_mut() {
            Some((_, last)) if number - *last <= 1 => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

fn check(config: &DeterministicConfig) -> Result<(), InvalidDeterministic> {
    let DeterministicConfig {
        hosts,
        subscriber_prefix_len,
        nets,
        ports_per_subscriber: ports,
        block_size,
        ..
    } = config;
    if !block_size.is_power_of_two() || !(16..=4096).contains(block_size) {
        return Err(InvalidDeterministic::BlockSize(*block_size));
    }
    if *ports == 0 || !ports.is_multiple_of(u32::from(*block_size)) {
        let block_size = *block_size;
        return Err(InvalidDeterministic::PortsPerSubscriber { ports: *ports, block_size });
    }
    if !(32..=128).contains(subscriber_prefix_len) {
        return Err(InvalidDeterministic::SubscriberPrefixLen(*subscriber_prefix_len));
    }
    if hosts.is_empty() {
        return Err(InvalidDeterministic::NoHosts);
    }
    for (n, net) in hosts.iter().enumerate() {
        if net.prefix_len() > *subscriber_prefix_len {
            let subscriber_prefix_len = *subscriber_prefix_len;
            return Err(InvalidDeterministic::LessThanASubscriber { net: *net, subscriber_prefix_len });
        }
        if let Some(other) = hosts[..n].iter().find(|other| other.contains(net) || net.contains(*other)) {
            return Err(InvalidDeterministic::HostsOverlap(*other, *net));
        }
    }
    for (n, DeterministicNet { net, first_port, last_port, .. }) in nets.iter().enumerate() {
        if *first_port == 0 || first_port > last_port {
            return Err(InvalidDeterministic::Ports {
                net: *net,
                first_port: *first_port,
                last_port: *last_port,
            });
        }
        let mut before = nets[..n].iter().map(|other| &other.net);
        if let Some(other) = before.find(|other| other.contains(net) || net.contains(*other)) {
            return Err(InvalidDeterministic::PoolsOverlap(*other, *net));
        }
    }
    Ok(())
}

impl Slots {
    fn new(pool: &DeterministicNet, config: &DeterministicConfig, first: u64) -> Self {
        let net = pool.net.trunc();
        let mut reserved_ports = vec![0_u64; PORTS / 64].into_boxed_slice();
        for port in &pool.reserved_ports {
            reserved_ports[usize::from(*port) / 64] |= 1 << (port % 64);
        }
        let mut reserved: Vec<u32> = config
            .reserved_addresses
            .iter()
            .filter(|address| net.contains(*address))
            .map(|address| u32::from(*address) - u32::from(net.network()))
            .collect();
        reserved.sort_unstable();
        reserved.dedup();
        let mut slots =
            Self { net, first, count: 0, begin: Vec::new(), of_block: Vec::new(), reserved, reserved_ports };
        slots.divide(pool, config);
        let addresses = (1_u64 << (32 - net.prefix_len())) - slots.reserved.len() as u64;
        slots.count = addresses * slots.begin.len() as u64;
        slots
    }

    /// Divides the ports of an address into slots.
    fn divide(&mut self, pool: &DeterministicNet, config: &DeterministicConfig) {
        let size = usize::from(config.block_size);
        let blocks_per_slot = config.ports_per_subscriber as usize / size;
        let blocks = usize::from(pool.first_port).div_ceil(size)..(usize::from(pool.last_port) + 1) / size;
        self.of_block = vec![NO_SLOT; PORTS / size];
        let mut begin = blocks.start;
        for block in blocks {
            if (block * size..(block + 1) * size).all(|port| self.is_reserved(port as u16)) {
                begin = block + 1;
            } else if block + 1 - begin == blocks_per_slot {
                // At most 4095 slots: a block has 16 ports or more.
                self.of_block[begin..=block].fill(self.begin.len() as u16);
                self.begin.push((begin * size) as u16);
                begin = block + 1;
            }
        }
    }

    fn per_address(&self) -> u32 {
        self.begin.len() as u32
    }

    fn is_reserved(&self, port: u16) -> bool {
        self.reserved_ports[usize::from(port) / 64] & (1 << (port % 64)) != 0
    }

    /// Address and first port of the slot with this number, counted from the first one of this pool.
    fn slot(&self, number: u64) -> Option<(Ipv4Addr, u16)> {
        if number >= self.count {
            return None;
        }
        let per_address = self.begin.len() as u64;
        let (usable, slot) = (number / per_address, number % per_address);
        // The reserved addresses below the wanted one: those that have no more than `usable` others below them.
        let mut passed = 0..self.reserved.len();
        while !passed.is_empty() {
            let middle = passed.start + passed.len() / 2;
            if u64::from(self.reserved[middle]) - middle as u64 <= usable {
                passed.start = middle + 1;
            } else {
                passed.end = middle;
            }
        }
        let address = u32::from(self.net.network()) + (usable as u32 + passed.start as u32);
        Some((Ipv4Addr::from(address), self.begin[slot as usize]))
    }

    /// The number, counted over all pools, of the slot that a block of an address of this pool belongs to.
    fn number(&self, address: Ipv4Addr, block: u16) -> Option<u64> {
        let slot = self.of_block[usize::from(block)];
        let offset = u32::from(address) - u32::from(self.net.network());
        match (slot, self.reserved.binary_search(&offset)) {
            (NO_SLOT, _) | (_, Ok(_)) => None,
            (slot, Err(passed)) => {
                let usable = u64::from(offset) - passed as u64;
                Some(self.first + usable * self.begin.len() as u64 + u64::from(slot))
            }
        }
    }
}

#[cfg(test)]
mod tests;

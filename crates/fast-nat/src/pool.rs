//! Which addresses are free.

mod restore;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::faults::{self, Point};
use crate::{Ended, InsertError, Lanes, Lease, LeaseKind, LeaseTable, Timestamp, is_eligible_host, subnet};

/// What a pool is made of.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The networks that addresses are leased from, in this order.
    pub pools: Vec<Ipv4Net>,
    /// Addresses that are never leased: the router's own, and those of static pairs.
    pub reserved: Vec<Ipv4Addr>,
    /// The most leases that the hosts of one /64 may hold together.
    pub max_leases_per_subnet: u32,
    /// How long an address rests before another host may have it (RFC 6888 REQ-8). Its last host may have it at once.
    pub rest: Duration,
    /// By how many lanes addresses are chosen: as many as whoever shares packets out goes by.
    pub lanes: Lanes,
}

/// Why a pool cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPool {
    /// Two networks share addresses: configure them without overlap.
    #[error("the pools {0} and {1} overlap")]
    Overlap(Ipv4Net, Ipv4Net),
    /// A block size that is none.
    #[error("a port block has a power of two of ports, from 16 to 4096, not {0}")]
    BlockSize(u16),
    /// The last port comes before the first.
    #[error("ports {0} to {1} are no range")]
    Ports(u16, u16),
    /// Between the first and the last port no block has a port to give.
    #[error("the ports of {0} hold no block of {1}: give it a wider range")]
    NoBlock(Ipv4Net, u16),
}

/// Why a host gets no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No address is free. `resting` addresses are on their way.
    #[error("no address is free ({used} leased, {resting} resting)")]
    PoolExhausted {
        /// Addresses under lease.
        used: u64,
        /// Addresses that rest.
        resting: u64,
    },
    /// The /64 of the host holds as many leases as it may.
    #[error("its /64 already holds {limit} leases, the most that one may")]
    SubnetLimit {
        /// The bound.
        limit: u32,
    },
    /// The source is not one that could hold a lease: see [`is_eligible_host`].
    #[error("{host} cannot hold a lease")]
    NotEligible {
        /// The source.
        host: Ipv6Addr,
    },
    /// The lease table is at its bound.
    #[error("the lease table is full ({capacity} leases)")]
    TableFull {
        /// The bound.
        capacity: usize,
    },
}

/// How one of the networks is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The network.
    pub net: Ipv4Net,
    /// Addresses under lease.
    pub used: u64,
    /// Addresses that could be leased now.
    pub free: u64,
    /// Addresses that rest.
    pub resting: u64,
    /// The most that were under lease at a time, as far as this pool has seen.
    pub high_water: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Used {
        host: Ipv6Addr,
    },
    /// Freed, and not yet leased again. `ticket` tells its place in the queues from an outdated one.
    Freed {
        host: Ipv6Addr,
        ticket: u64,
        rested: bool,
    },
}

#[derive(Debug)]
struct Range {
    net: Ipv4Net,
    end: u64,
    lanes: Vec<Lane>,
    /// Reserved addresses, and such as were found in use, that are still fresh.
    fresh_but_taken: u64,
    resting: VecDeque<(Timestamp, Ipv4Addr, u64)>,
    used: u64,
    resting_count: u64,
    rested_count: u64,
    high_water: u64,
}

/// The addresses of one lane.
#[derive(Debug)]
struct Lane {
    /// Offsets of this lane below this one have been handed out or skipped.
    next_fresh: u64,
    rested: VecDeque<(Ipv4Addr, u64)>,
}

/// Which addresses are free: belongs to one owner. Taking and freeing cost the same at any size of the pool; memory
/// grows with the addresses that were ever leased (about 120 bytes each).
///
/// Addresses never used go first, then those that have rested longest, so that a host that comes back finds its old
/// address for as long as possible. Of either kind those of the host's lane go before others.
#[derive(Debug)]
pub struct LeasePool {
    config: PoolConfig,
    reserved: HashSet<Ipv4Addr>,
    ranges: Vec<Range>,
    state: HashMap<Ipv4Addr, State>,
    /// The address that a host holds or held last.
    of_host: HashMap<Ipv6Addr, Ipv4Addr>,
    /// Leases per /64.
    subnets: HashMap<u64, u32>,
    next_ticket: u64,
    visited: u64,
}

/// How often a grant tries another address when one turns out to be held by somebody the pool does not know of.
const ATTEMPTS: usize = 8;

impl LeasePool {
    /// A pool in which everything is free.
    pub fn new(config: &PoolConfig) -> Result<Self, InvalidPool> {
        for (n, a) in config.pools.iter().enumerate() {
            if let Some(b) = config.pools[..n].iter().find(|b| b.contains(a) || a.contains(*b)) {
                return Err(InvalidPool::Overlap(*b, *a));
            }
        }
        let reserved: HashSet<_> = config.reserved.iter().copied().collect();
        let ranges = config.pools.iter().map(|net| Range::new(*net, config.lanes, &reserved)).collect();
        Ok(Self {
            config: config.clone(),
            reserved,
            ranges,
            state: HashMap::new(),
            of_host: HashMap::new(),
            subnets: HashMap::new(),
            next_ticket: 0,
            visited: 0,
        })
    }

    /// Forgets everything and learns from the table who holds what and which addresses rest: after a restart of the
    /// owner.
    pub fn rebuild(&mut self, table: &LeaseTable, now: Timestamp) {
        self.state.clear();
        self.of_host.clear();
        self.subnets.clear();
        self.ranges =
            self.config.pools.iter().map(|net| Range::new(*net, self.config.lanes, &self.reserved)).collect();
        for lease in table.leases().filter(|lease| lease.kind == LeaseKind::Dynamic) {
            self.mark_used(lease.address, lease.host);
        }
        // An address may have ended more than once lately: it rests since the last time.
        let ended = table.ended();
        let last: HashMap<_, _> = ended.iter().map(|ended| (ended.lease.address, ended.at)).collect();
        for Ended { lease, at } in ended {
            let is_last = last.get(&lease.address) == Some(&at);
            if lease.kind == LeaseKind::Dynamic && is_last && !self.state.contains_key(&lease.address) {
                self.mark_used(lease.address, lease.host);
                self.mark_freed(lease.address, at);
            }
        }
        self.advance(now);
    }

    /// Gives the host a lease in `table`. A host that has one gets the same one.
    pub fn grant(&mut self, table: &LeaseTable, host: Ipv6Addr, now: Timestamp) -> Result<Lease, Refusal> {
        self.grant_from(table, host, now, |_| true)
    }

    /// The same for a host that may have addresses of some of the networks only.
    pub fn grant_from(
        &mut self,
        table: &LeaseTable,
        host: Ipv6Addr,
        now: Timestamp,
        may_use: impl Fn(Ipv4Net) -> bool,
    ) -> Result<Lease, Refusal> {
        if let Some(lease) = table.peek_host(host) {
            return Ok(lease);
        }
        if !is_eligible_host(host) {
            return Err(Refusal::NotEligible { host });
        }
        self.advance(now);
        // Its lease has ended, and word of that is still on the way.
        if let Some(address) = self.of_host.get(&host).copied()
            && matches!(self.state.get(&address), Some(State::Used { .. }))
        {
            self.mark_freed(address, now);
        }
        let limit = self.config.max_leases_per_subnet;
        if self.subnets.get(&subnet(host)).is_some_and(|held| *held >= limit) {
            return Err(Refusal::SubnetLimit { limit });
        }
        for _ in 0..ATTEMPTS {
            let address = self.take(host, &may_use)?;
            match table.insert(host, address, LeaseKind::Dynamic, now) {
                Ok(lease) => return Ok(lease),
                // Somebody holds it of whom this pool did not know: that lease's end will free the address.
                Err(InsertError::AddressTaken(lease)) => self.transfer(address, lease.host),
                Err(InsertError::HostHasLease(lease)) => {
                    self.mark_freed(address, now);
                    return Ok(lease);
                }
                Err(InsertError::Full(capacity)) => {
                    self.mark_freed(address, now);
                    return Err(Refusal::TableFull { capacity });
                }
            }
        }
        Err(self.exhausted())
    }

    /// The lease of `address` has ended at `now`: it rests and is then free. Does nothing if the table has it held
    /// (again), or if it is free already: word of an end may come late, twice, or never.
    pub fn free(&mut self, table: &LeaseTable, address: Ipv4Addr, now: Timestamp) {
        if table.by_address(address).is_none() {
            self.mark_freed(address, now);
            self.advance(now);
        }
    }

    /// How each network is used at `now`.
    pub fn usage(&mut self, now: Timestamp) -> Vec<Usage> {
        self.advance(now);
        self.ranges
            .iter()
            .map(|range| Usage {
                net: range.net,
                used: range.used,
                free: range.fresh_left() + range.rested_count,
                resting: range.resting_count,
                high_water: range.high_water,
            })
            .collect()
    }

    /// When the next resting address becomes free, if any rests: how soon an exhausted pool may heal.
    pub fn next_available(&self) -> Option<Timestamp> {
        self.ranges
            .iter()
            .filter_map(|range| range.resting.front())
            .map(|(since, ..)| *since + self.config.rest)
            .min()
    }

    /// Places in queues and maps looked at so far: the cost of the pool, in a unit that does not depend on the machine.
    pub fn visited(&self) -> u64 {
        self.visited
    }

    fn exhausted(&self) -> Refusal {
        Refusal::PoolExhausted {
            used: self.ranges.iter().map(|range| range.used).sum(),
            resting: self.ranges.iter().map(|range| range.resting_count).sum(),
        }
    }

    /// An address for `host`, marked as used by it.
    fn take(&mut self, host: Ipv6Addr, may_use: &impl Fn(Ipv4Net) -> bool) -> Result<Ipv4Addr, Refusal> {
        self.visited += 1;
        // Its old address, even if that still rests: REQ-8 lets the same subscriber have it.
        if let Some(address) = self.of_host.get(&host).copied()
            && matches!(self.state.get(&address), Some(State::Freed { host: last, .. }) if *last == host)
        {
            self.mark_used(address, host);
            return Ok(address);
        }
        for index in 0..self.ranges.len() {
            if !may_use(self.ranges[index].net) {
                continue;
            }
            let lane = usize::from(self.config.lanes.of_outbound(host, 0, 0));
            while let Some(address) = self.ranges[index].fresh(lane) {
                self.visited += 1;
                if self.reserved.contains(&address) || self.state.contains_key(&address) {
                    self.ranges[index].fresh_but_taken -= 1;
                    continue;
                }
                self.mark_used(address, host);
                return Ok(address);
            }
            while let Some((address, ticket)) = self.ranges[index].rested(lane) {
                self.visited += 1;
                if matches!(self.state.get(&address), Some(State::Freed { ticket: current, .. }) if *current == ticket)
                {
                    self.mark_used(address, host);
                    return Ok(address);
                }
            }
        }
        Err(self.exhausted())
    }

    fn mark_used(&mut self, address: Ipv4Addr, host: Ipv6Addr) {
        let Some(range) = self.ranges.iter_mut().find(|range| range.net.contains(&address)) else { return };
        match self.state.insert(address, State::Used { host }) {
            Some(State::Used { host: before }) => {
                Self::forget(&mut self.subnets, before);
                range.used -= 1;
            }
            Some(State::Freed { host: before, rested, .. }) => {
                *(if rested { &mut range.rested_count } else { &mut range.resting_count }) -= 1;
                if before != host && self.of_host.get(&before) == Some(&address) {
                    self.of_host.remove(&before);
                }
            }
            // A reserved one is counted already.
            None => {
                let is_new = range.is_fresh(address) && !self.reserved.contains(&address);
                range.fresh_but_taken += u64::from(is_new);
            }
        }
        faults::at(Point::PoolUse);
        range.used += 1;
        range.high_water = range.high_water.max(range.used);
        self.of_host.insert(host, address);
        *self.subnets.entry(subnet(host)).or_insert(0) += 1;
    }

    /// The address turned out to be held by somebody else.
    fn transfer(&mut self, address: Ipv4Addr, holder: Ipv6Addr) {
        if let Some(State::Used { host }) = self.state.get(&address).copied()
            && self.of_host.get(&host) == Some(&address)
        {
            self.of_host.remove(&host);
        }
        self.mark_used(address, holder);
    }

    fn mark_freed(&mut self, address: Ipv4Addr, at: Timestamp) {
        let Some(State::Used { host }) = self.state.get(&address).copied() else { return };
        let Some(range) = self.ranges.iter_mut().find(|range| range.net.contains(&address)) else { return };
        Self::forget(&mut self.subnets, host);
        range.used -= 1;
        // It was leased before it was reserved, and belongs to somebody else now.
        if self.reserved.contains(&address) {
            self.state.remove(&address);
            self.of_host.remove(&host);
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.state.insert(address, State::Freed { host, ticket, rested: false });
        range.resting_count += 1;
        faults::at(Point::PoolFree);
        range.resting.push_back((at, address, ticket));
    }

    fn forget(subnets: &mut HashMap<u64, u32>, host: Ipv6Addr) {
        if let Some(held) = subnets.get_mut(&subnet(host)) {
            *held -= 1;
            if *held == 0 {
                subnets.remove(&subnet(host));
            }
        }
    }

    /// Moves what has rested enough. Each freed address is moved once.
    fn advance(&mut self, now: Timestamp) {
        for range in &mut self.ranges {
            while let Some((since, address, ticket)) = range.resting.front().copied()
                && since + self.config.rest <= now
            {
                self.visited += 1;
                range.resting.pop_front();
                if let Some(State::Freed { ticket: current, rested, .. }) = self.state.get_mut(&address)
                    && *current == ticket
                {
                    *rested = true;
                    range.resting_count -= 1;
                    range.rested_count += 1;
                    let lane = range.lane_of(address);
                    range.lanes[lane].rested.push_back((address, ticket));
                }
            }
            range.tidy(&self.state);
        }
    }
}

impl Range {
    fn new(net: Ipv4Net, lanes: Lanes, reserved: &HashSet<Ipv4Addr>) -> Self {
        let size = 1_u64 << (32 - net.prefix_len());
        // The network and the broadcast address, where a net has them.
        let edge = u64::from(net.prefix_len() < 31);
        let mut range = Self {
            net,
            end: size - edge,
            lanes: Vec::new(),
            fresh_but_taken: 0,
            resting: VecDeque::new(),
            used: 0,
            resting_count: 0,
            rested_count: 0,
            high_water: 0,
        };
        range.lanes.resize_with(lanes.count().into(), || Lane { next_fresh: 0, rested: VecDeque::new() });
        for offset in edge..edge + u64::from(lanes.count()) {
            let lane = range.lane_at(offset);
            range.lanes[lane].next_fresh = offset;
        }
        range.fresh_but_taken = reserved.iter().filter(|address| range.is_fresh(**address)).count() as u64;
        range
    }

    fn offset(&self, address: Ipv4Addr) -> u64 {
        u64::from(u32::from(address) - u32::from(self.net.network()))
    }

    /// Of as many lanes as a power of two, so that a number's lowest bits are enough.
    fn lane_at(&self, offset: u64) -> usize {
        self.net.network().to_bits().wrapping_add(offset as u32) as usize & (self.lanes.len() - 1)
    }

    fn lane_of(&self, address: Ipv4Addr) -> usize {
        self.lane_at(self.offset(address))
    }

    fn is_fresh(&self, address: Ipv4Addr) -> bool {
        self.net.contains(&address) && {
            let offset = self.offset(address);
            (self.lanes[self.lane_at(offset)].next_fresh..self.end).contains(&offset)
        }
    }

    /// The next address that was never looked at, of this lane if there is one.
    fn fresh(&mut self, lane: usize) -> Option<Ipv4Addr> {
        let mut lanes = (0..self.lanes.len()).map(|next| (lane + next) % self.lanes.len());
        let lane = lanes.find(|lane| self.lanes[*lane].next_fresh < self.end)?;
        let (count, lane) = (self.lanes.len() as u64, &mut self.lanes[lane]);
        let offset = lane.next_fresh;
        lane.next_fresh += count;
        Some(Ipv4Addr::from(u32::from(self.net.network()) + offset as u32))
    }

    /// The address that has rested longest, of this lane if there is one, and its ticket. Tickets grow with time.
    fn rested(&mut self, lane: usize) -> Option<(Ipv4Addr, u64)> {
        let own = self.lanes[lane].rested.pop_front();
        own.or_else(|| {
            let first = |lane: &&mut Lane| lane.rested.front().map_or(u64::MAX, |(_, ticket)| *ticket);
            self.lanes.iter_mut().min_by_key(first)?.rested.pop_front()
        })
    }

    fn fresh_left(&self) -> u64 {
        let (count, end) = (self.lanes.len() as u64, self.end);
        let left = self.lanes.iter().map(|lane| end.saturating_sub(lane.next_fresh).div_ceil(count));
        left.sum::<u64>() - self.fresh_but_taken
    }

    /// Hosts that take their old address again leave outdated places behind: clear them when they are the majority.
    fn tidy(&mut self, state: &HashMap<Ipv4Addr, State>) {
        let live = |address: &Ipv4Addr, ticket: u64| matches!(state.get(address), Some(State::Freed { ticket: current, .. }) if *current == ticket);
        if self.resting.len() as u64 > 2 * self.resting_count + 64 {
            self.resting.retain(|(_, address, ticket)| live(address, *ticket));
        }
        let places: usize = self.lanes.iter().map(|lane| lane.rested.len()).sum();
        if places as u64 > 2 * self.rested_count + 64 {
            for lane in &mut self.lanes {
                lane.rested.retain(|(address, ticket)| live(address, *ticket));
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! What is free, and who gets it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fast_nat::nat64::{BlockLease, BlockRef, PortClass};
use fast_nat::{BlockPool, BlockRefusal, Deterministic, Granted, LeasePool, Timestamp, Usage};
use ipnet::Ipv4Net;
use slog::{Logger, debug, info, warn};

use crate::config::{Sharing, pools_of};
use crate::datapath::{Ask, Refusal};
use crate::error::chain;
use crate::faults::{self, Point};
use crate::generation::Generation;
use crate::records::{Record, What};
use crate::shared::Shared;

/// The pools of a generation, in which everything is free. Also says whether they can be made.
pub(crate) fn pools(generation: &Generation) -> Result<(LeasePool, BlockPool), String> {
    let (plan, settings) = (&generation.plan, &generation.settings);
    let addresses =
        LeasePool::new(&plan.lease_pool(settings, generation.tables.lanes)).map_err(|error| chain(&error))?;
    let blocks = BlockPool::new(&plan.block_pool(settings)).map_err(|error| chain(&error))?;
    Ok((addresses, blocks))
}

/// The pools of both kinds.
#[derive(Debug)]
pub(super) struct Supply {
    /// The generation that it was made of.
    generation: Arc<Generation>,
    addresses: LeasePool,
    blocks: BlockPool,
    log: Logger,
}

impl Supply {
    /// Reads from the tables what is under lease.
    pub(super) fn new(shared: &Shared, log: Logger) -> Result<Self, String> {
        let generation = shared.generation();
        let (mut addresses, mut blocks) = pools(&generation)?;
        addresses.rebuild(&shared.tables.leases, crate::clock::now());
        blocks.rebuild(&shared.tables.nat);
        Ok(Self { generation, addresses, blocks, log })
    }

    /// What it was made of.
    pub(super) fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The number of that.
    pub(super) fn number(&self) -> u64 {
        self.generation.number
    }

    /// Leases a host what it is served with. `None`: not now.
    pub(super) fn acquire(
        &mut self,
        shared: &Shared,
        ask: Ask,
        now: Timestamp,
    ) -> Option<Result<(), Refusal>> {
        // Nothing is given that cannot be recorded: the host waits, and is refused in the end if that lasts.
        if !shared.records.have_room() {
            shared.lease_counters.waited_for_records.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let pools = &self.generation.plan.pools;
        let served: Vec<Ipv4Net> = pools_of(pools, ask.host).map(|pool| pool.net).collect();
        let sharing = pools_of(pools, ask.host).next().map(|pool| pool.sharing);
        let result = match sharing {
            None => Err(Refusal::PoolExhausted),
            Some(Sharing::Exclusive) => self.acquire_address(shared, ask, &served, now),
            Some(Sharing::Ports) => match &shared.deterministic {
                Some(plan) => self.acquire_computed(shared, plan, ask, now),
                None => self.acquire_block(shared, ask, &served, now),
            },
        };
        if result.is_err() {
            shared.lease_counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        Some(result)
    }

    fn acquire_address(
        &mut self,
        shared: &Shared,
        ask: Ask,
        served: &[Ipv4Net],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let host = ask.host;
        let leases = &shared.tables.leases;
        let known = leases.peek_host(host).is_some();
        match self.addresses.grant_from(leases, host, now, |net| served.contains(&net)) {
            Ok(lease) => {
                if !known {
                    let address = lease.address;
                    let record = Record { at: now, host, address, what: What::LeaseGiven, reason: "" };
                    let _told = shared.records.tell_in_any_case(record);
                    faults::at(Point::Given);
                    shared.lease_counters.granted.fetch_add(1, Ordering::Relaxed);
                    info!(self.log, "lease granted"; "host" => %host, "address" => %address);
                }
                Ok(())
            }
            Err(refused) => {
                let refusal = match refused {
                    fast_nat::Refusal::PoolExhausted { .. } => Refusal::PoolExhausted,
                    fast_nat::Refusal::SubnetLimit { .. } => Refusal::SubnetLimit,
                    fast_nat::Refusal::NotEligible { .. } => Refusal::SourceNotEligible,
                    fast_nat::Refusal::TableFull { .. } => Refusal::TableFull,
                };
                warn!(self.log, "lease refused"; "host" => %host, "reason" => refusal.as_str(), "because" => %refused);
                Err(refusal)
            }
        }
    }

    fn acquire_block(
        &mut self,
        shared: &Shared,
        ask: Ask,
        served: &[Ipv4Net],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Ask { host, class } = ask;
        let may_use = |net: Ipv4Net| served.contains(&net);
        match self.blocks.grant_from(&shared.tables.nat, host, class, now, may_use) {
            Ok(Granted::Already) => Ok(()),
            Ok(Granted::New { address, first_port, size, .. }) => {
                let last_port = first_port + (size - 1);
                let what = What::BlockGiven { first_port, last_port };
                let record = Record { at: now, host, address, what, reason: "" };
                let _told = shared.records.tell_in_any_case(record);
                faults::at(Point::Given);
                shared.lease_counters.granted.fetch_add(1, Ordering::Relaxed);
                info!(self.log, "port block given"; "host" => %host, "address" => %address,
                    "ports" => format!("{first_port}-{last_port}"));
                Ok(())
            }
            Err(refused) => {
                let refusal = match refused {
                    BlockRefusal::PoolExhausted | BlockRefusal::AddressExhausted(_) => Refusal::PoolExhausted,
                    BlockRefusal::PortQuota { .. } | BlockRefusal::TooManyBlocks => Refusal::PortQuota,
                    BlockRefusal::NotEligible(_) => Refusal::SourceNotEligible,
                    BlockRefusal::TableFull => Refusal::TableFull,
                };
                warn!(self.log, "port block refused"; "host" => %host, "reason" => refusal.as_str(), "because" => %refused);
                Err(refusal)
            }
        }
    }

    /// Gives a host all ports of its subscriber: they are its own already, by computation. No record is needed (RFC 7422).
    fn acquire_computed(
        &mut self,
        shared: &Shared,
        plan: &Deterministic,
        ask: Ask,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Ask { host, class } = ask;
        let nat = &shared.tables.nat;
        let Some((address, blocks)) = plan.blocks_of(host) else {
            warn!(self.log, "no ports for a host outside the networks of [deterministic]"; "host" => %host);
            return Err(Refusal::SourceNotAllowed);
        };
        if !nat.standing(host, class).needs_block {
            return Ok(());
        }
        // Those that were idle have been taken back one by one.
        let has = nat.first_ports_of(host);
        let mut given = false;
        for first_port in blocks.filter(|first_port| !has.contains(first_port)) {
            if let Err(error) = self.blocks.give_fixed(nat, host, address, first_port, now) {
                warn!(self.log, "a computed port block cannot be given"; "host" => %host, "address" => %address,
                    "first_port" => first_port, "because" => %error);
                return Err(Refusal::TableFull);
            }
            given = true;
            shared.lease_counters.granted.fetch_add(1, Ordering::Relaxed);
        }
        nat.deny_low(host);
        // A low port that it wanted is mapped to a high one from now on. If that is in use like all others, it has to wait.
        if !given && class == PortClass::High {
            return Err(Refusal::PortQuota);
        }
        debug!(self.log, "computed port blocks given"; "host" => %host, "address" => %address);
        Ok(())
    }

    /// A lease has ended: its address rests and is then free.
    pub(super) fn free_address(&mut self, shared: &Shared, address: Ipv4Addr, now: Timestamp) {
        self.addresses.free(&shared.tables.leases, address, now);
    }

    /// Takes a block back, if it is still idle.
    pub(super) fn take_back(&mut self, shared: &Shared, block: BlockRef, now: Timestamp) {
        if let Some(lease) = self.blocks.take_back(&shared.tables.nat, block, now) {
            shared.lease_counters.returned.fetch_add(1, Ordering::Relaxed);
            let BlockLease { host, address, first_port, given, .. } = lease;
            let last_port = first_port + (lease.size - 1);
            info!(self.log, "port block returned"; "host" => %host, "address" => %address,
                "ports" => format!("{first_port}-{last_port}"));
            if shared.deterministic.is_none() {
                let what = What::BlockReturned { first_port, last_port, given };
                shared.records.tell(Record { at: now, host, address, what, reason: "idle" });
            }
        }
    }

    /// How each pool is used.
    pub(super) fn usage(&mut self, now: Timestamp) -> Vec<(Ipv4Net, Usage)> {
        let blocks = self.blocks.usage().into_iter().map(|usage| {
            let fast_nat::BlockUsage { net, used, free, high_water, .. } = usage;
            (net, Usage { net, used, free, resting: 0, high_water })
        });
        self.addresses.usage(now).into_iter().map(|usage| (usage.net, usage)).chain(blocks).collect()
    }
}

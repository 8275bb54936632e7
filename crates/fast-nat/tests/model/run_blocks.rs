//! Does what concerns blocks and static bindings.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::api::{Block, BlockRef, BlockRefusal, GiveError, Granted, PortClass, StaticBinding, StaticError};
use super::operation::STATICS;
use super::pool::all_blocks;
use super::run::Run;
use super::{Model, OwnedBlock, Wrong};

impl Run {
    pub(super) fn give(&mut self, host: Ipv6Addr, block: &Block) -> Result<(), Wrong> {
        let end = u32::from(block.first_port) + u32::from(block.size);
        let overlaps = self.model.blocks.iter().any(|other| {
            other.address == block.address
                && u32::from(other.first_port) < end
                && block.first_port <= other.last_port()
        });
        if overlaps || self.plan.is_some() {
            // The engine takes the caller's word that nobody has the block, and that it is nobody's by computation.
            return Ok(());
        }
        let answer = self.engine.give_block(host, block, self.at());
        let now = self.at();
        self.model.give(host, block, now, &answer)?;
        self.count(match answer {
            Ok(_) => "give: given",
            Err(GiveError::Full) => "give: full",
            Err(GiveError::TooMany) => "give: too many",
            Err(GiveError::OtherAddress(_)) => "give: other address",
            Err(GiveError::NotABlock) => "give: not a block",
        });
        if answer.is_ok() {
            self.rebuild();
        }
        Ok(())
    }

    /// Gives the host what its subscriber has by computation and does not hold.
    fn give_computed(&mut self, host: Ipv6Addr) -> Result<(), Wrong> {
        let Some((address, first_ports)) = self.plan.as_ref().and_then(|plan| plan.blocks_of(host)) else {
            self.count("computed: no ports");
            return Ok(());
        };
        for first_port in first_ports {
            let held = |other: &&OwnedBlock| other.address == address && other.first_port == first_port;
            if let Some(held) = self.model.blocks.iter().find(held) {
                if held.owner != self.model.host_key(host) {
                    return Err(format!("{address} from {first_port} on is computed for {host}: {held:?}"));
                }
                self.count("computed: held already");
                continue;
            }
            let now = self.at();
            let answer = self.pool.give_fixed(&self.engine, host, address, first_port, now);
            let block = all_blocks(&self.pool_config)
                .into_iter()
                .find(|block| block.address == address && block.first_port == first_port)
                .ok_or_else(|| format!("{address} from {first_port} on is no block of the pool"))?;
            self.model.give(host, &block, now, &answer)?;
            for port in first_port..first_port + block.size {
                let whose = self.plan.as_ref().and_then(|plan| plan.subscriber_of(address, port));
                let is_right = match whose {
                    Some(net) => net.contains(&host) && !block.reserved.contains(&port),
                    None => block.reserved.contains(&port),
                };
                if !is_right {
                    return Err(format!("{address} port {port} is said to be of {whose:?}, not of {host}"));
                }
            }
            self.count(if answer.is_ok() { "computed: given" } else { "computed: full" });
        }
        Ok(())
    }

    pub(super) fn rebuild(&mut self) {
        self.pool.rebuild(&self.engine);
        self.count("rebuild");
    }

    pub(super) fn grant(&mut self, host: Ipv6Addr, class: PortClass) -> Result<(), Wrong> {
        self.model.asked = None;
        if self.plan.is_some() {
            return self.give_computed(host);
        }
        let answer = self.pool.grant(&self.engine, host, class, self.at());
        let now = self.at();
        self.model.grant(&self.pool_config, host, class, now, &answer)?;
        self.count(match answer {
            Ok(Granted::New { first_port, .. }) if PortClass::of(first_port) == class => "grant: a block",
            Ok(Granted::New { .. }) => "grant: a high block for a low one",
            Ok(Granted::Already) => "grant: already",
            Err(BlockRefusal::PoolExhausted) => "grant: pool exhausted",
            Err(BlockRefusal::AddressExhausted(_)) => "grant: address exhausted",
            Err(BlockRefusal::PortQuota { .. }) => "grant: port quota",
            Err(BlockRefusal::NotEligible(_)) => "grant: not eligible",
            Err(BlockRefusal::TableFull) => "grant: table full",
            Err(BlockRefusal::TooManyBlocks) => "grant: too many blocks",
        });
        Ok(())
    }

    pub(super) fn take_back(&mut self, at: usize) -> Result<(), Wrong> {
        let Some(block) = self.model.blocks.get(at) else { return Ok(()) };
        let (may, must) =
            (self.model.may_leave(block, self.tick()), self.model.must_leave(block, self.tick()));
        let reference = block.reference;
        let lease = self.pool.take_back(&self.engine, reference, self.at());
        match lease {
            None if !must => {
                self.count("take back: in use");
                return Ok(());
            }
            Some(lease) if may && lease.reference == reference => {}
            _ => return Err(format!("{lease:?} of {block:?}, which may leave: {may}, must: {must}")),
        }
        self.count("take back: taken");
        self.model.leave(at);
        // It may be repeated.
        match self.pool.take_back(&self.engine, reference, self.at()) {
            None => Ok(()),
            again => Err(format!("{again:?} was taken back before")),
        }
    }

    pub(super) fn take_idle(&mut self, limit: usize) -> Result<(), Wrong> {
        let (now, tick) = (self.at(), self.tick());
        let idle = self.engine.idle_blocks(now, limit);
        let blocks = &self.model.blocks;
        // They are listed in the order in which they became idle, by clocks that may be apart.
        let slack = if blocks.iter().any(|block| block.tried > 0) { 4 } else { 0 };
        let is_due = |block: &&OwnedBlock| self.model.must_leave(block, tick - slack);
        let least = blocks.iter().filter(is_due).count().min(limit);
        if idle.len() < least || idle.len() > limit {
            return Err(format!("{} idle blocks instead of {least} to {limit}", idle.len()));
        }
        for reference in idle {
            let at = blocks_at(&self.model, reference);
            let Some(at) = at.filter(|at| self.model.may_leave(&self.model.blocks[*at], tick)) else {
                return Err(format!("{reference:?} is not idle"));
            };
            let lease = self.pool.take_back(&self.engine, reference, now);
            if lease.map(|lease| lease.reference) != Some(reference) {
                return Err(format!("{lease:?} instead of {:?}", self.model.blocks[at]));
            }
            self.model.leave(at);
            self.count("take idle: taken");
        }
        Ok(())
    }

    pub(super) fn add_static(&mut self, forward: &StaticBinding) -> Result<(), Wrong> {
        let goes_on =
            self.model.binding(super::leases::inside_of(forward)).is_some_and(|known| !known.is_static);
        let answer = self.engine.add_static(forward, self.at());
        let tick = self.tick();
        self.model.add_static(forward, tick, &answer)?;
        self.count(match answer {
            Ok(()) if goes_on => "static: added again while its sessions go on",
            Ok(()) => "static: added",
            Err(StaticError::Taken { .. }) => "static: taken",
            Err(StaticError::Bound { .. }) => "static: bound",
            Err(StaticError::Full) => "static: full",
        });
        Ok(())
    }

    pub(super) fn remove_static(&mut self, forward: &StaticBinding) -> Result<(), Wrong> {
        let answer = self.engine.remove_static(forward, self.at());
        let tick = self.tick();
        self.model.remove_static(forward, tick, answer)?;
        self.count(if answer { "static: removed" } else { "static: not there" });
        Ok(())
    }
}

/// A block given past the pool. Where a static binding may be, its port is reserved, as the engine asks for.
pub(super) fn block(address: Ipv4Addr, first_port: u16, size: u16) -> Block {
    let ports = u32::from(first_port)..u32::from(first_port) + u32::from(size);
    let mut reserved = if size > 8 { vec![first_port + 3] } else { Vec::new() };
    let statics = STATICS.iter().filter(|outside| outside.address == address).map(|outside| outside.port);
    reserved.extend(statics.filter(|port| ports.contains(&u32::from(*port))));
    Block { address, first_port, size, reserved }
}

fn blocks_at(model: &Model, reference: BlockRef) -> Option<usize> {
    model.blocks.iter().position(|block| block.reference == reference)
}

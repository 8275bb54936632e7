//! Blocks and static bindings come and go.

use std::net::Ipv6Addr;

use super::api::{Block, BlockRef, GiveError, PortClass, StaticBinding, StaticError, Timestamp};

use super::{Binding, Inside, Model, Outside, OwnedBlock, Wrong, tick, ticks};

/// Blocks that one host may have.
pub const MOST_BLOCKS: usize = 128;

/// The inner side of a static binding.
pub const fn inside_of(forward: &StaticBinding) -> Inside {
    Inside { prefix: forward.prefix, protocol: forward.protocol, host: forward.host, port: forward.host_port }
}

/// The outer side of a static binding.
pub const fn outside_of(forward: &StaticBinding) -> Outside {
    Outside { address: forward.address, port: forward.port }
}

/// One of these errors, or success if there is none.
fn expect_one_of<T: std::fmt::Debug, E: std::fmt::Debug + PartialEq>(
    answer: &Result<T, E>,
    errors: &[E],
) -> Result<(), Wrong> {
    let is_right = match answer {
        Ok(_) => errors.is_empty(),
        Err(error) => errors.contains(error),
    };
    if is_right { Ok(()) } else { Err(format!("{answer:?} instead of one of the errors {errors:?}")) }
}

impl Model {
    /// A block is given to a host.
    pub fn give(
        &mut self,
        host: Ipv6Addr,
        block: &Block,
        now: Timestamp,
        answer: &Result<BlockRef, GiveError>,
    ) -> Result<(), Wrong> {
        let mut errors = Vec::new();
        let end = u32::from(block.first_port) + u32::from(block.size);
        let has_both = block.first_port < 1024 && end > 1024;
        if block.size == 0 || block.size > 4096 || end > 65_536 || has_both {
            errors.push(GiveError::NotABlock);
        }
        if let Some(other) = self.blocks_of(host).find(|other| other.address != block.address) {
            errors.push(GiveError::OtherAddress(other.address));
        }
        if self.blocks_of(host).count() >= MOST_BLOCKS {
            errors.push(GiveError::TooMany);
        }
        if self.blocks.len() >= self.config.max_blocks as usize || self.is_no_room_for(host) {
            errors.push(GiveError::Full);
        }
        expect_one_of(answer, &errors)?;
        if let Ok(reference) = answer {
            let overlaps = |other: &&OwnedBlock| {
                other.address == block.address
                    && u32::from(other.first_port) < end
                    && block.first_port <= other.last_port()
            };
            if let Some(other) = self.blocks.iter().find(overlaps) {
                return Err(format!("{block:?} is given, but {other:?} is held"));
            }
            self.know(host, tick(now));
            self.blocks.push(OwnedBlock {
                owner: self.host_key(host),
                address: block.address,
                first_port: block.first_port,
                size: block.size,
                reserved: block.reserved.clone(),
                given: now,
                quiet_since: tick(now),
                tried: 0,
                reference: *reference,
            });
        }
        Ok(())
    }

    /// The host is not known, and no more can be.
    pub fn is_no_room_for(&self, host: Ipv6Addr) -> bool {
        let key = self.host_key(host);
        self.hosts.len() >= self.config.max_hosts as usize && !self.hosts.iter().any(|known| known.key == key)
    }

    pub fn is_in_use(&self, block: &OwnedBlock) -> bool {
        self.bindings.iter().any(|binding| block.holds(binding.outside))
    }

    /// Whether a block may be taken back: nobody has used it for long enough, and its ports have rested.
    pub fn may_leave(&self, block: &OwnedBlock, tick: u64) -> bool {
        !self.is_in_use(block) && tick.saturating_sub(block.quiet_since) > self.idle()
    }

    /// Whether it must be possible to take it back.
    pub fn must_leave(&self, block: &OwnedBlock, tick: u64) -> bool {
        self.may_leave(block, tick) && tick.saturating_sub(block.tried) > self.idle()
    }

    /// How long a block is kept that nobody uses, in ticks.
    pub fn idle(&self) -> u64 {
        let timers = &self.config.timers;
        ticks(timers.block_idle).max(ticks(timers.port_rest)).max(ticks(timers.tcp_port_rest))
    }

    /// A block leaves its host.
    pub fn leave(&mut self, at: usize) {
        let block = self.blocks.remove(at);
        self.forget(block.owner);
    }

    /// The class of ports that a block is of.
    pub fn class(&self, at: usize) -> PortClass {
        PortClass::of(self.blocks[at].first_port)
    }

    /// A port forward is configured.
    pub fn add_static(
        &mut self,
        forward: &StaticBinding,
        tick: u64,
        answer: &Result<(), StaticError>,
    ) -> Result<(), Wrong> {
        let (inside, outside) = (inside_of(forward), outside_of(forward));
        let mut errors = Vec::new();
        let known = self.binding(inside).copied();
        if let Some(other) = self.binding_of(forward.protocol, outside)
            && other.inside != inside
        {
            errors.push(StaticError::Taken { host: other.inside.host, port: other.inside.port });
        }
        if let Some(other) = known
            && other.outside != outside
        {
            errors.push(StaticError::Bound { address: other.outside.address, port: other.outside.port });
        }
        let is_full = self.bindings.len() >= self.config.max_bindings as usize;
        if known.is_none() && (is_full || self.is_no_room_for(forward.host)) {
            errors.push(StaticError::Full);
        }
        expect_one_of(answer, &errors)?;
        if answer.is_ok() {
            if let Some(binding) = self.bindings.iter_mut().find(|binding| binding.inside == inside) {
                // Also where it was about to end, since it was configured no more.
                binding.is_static = true;
            } else {
                self.know(forward.host, tick);
                self.bindings.push(Binding { inside, outside, is_static: true });
            }
        }
        Ok(())
    }

    /// A port forward is taken out of the configuration: its sessions go on, and it ends with the last of them.
    pub fn remove_static(&mut self, forward: &StaticBinding, tick: u64, answer: bool) -> Result<(), Wrong> {
        let (inside, outside) = (inside_of(forward), outside_of(forward));
        let at = self
            .bindings
            .iter()
            .position(|known| known.is_static && known.inside == inside && known.outside == outside);
        if answer != at.is_some() {
            return Err(format!("{answer} instead of {}", at.is_some()));
        }
        let Some(at) = at else { return Ok(()) };
        self.bindings[at].is_static = false;
        if !self.sessions.iter().any(|session| session.inside == inside) {
            self.bindings.remove(at);
            self.free_port(inside.protocol, outside, tick);
            self.forget(inside.host);
        }
        Ok(())
    }
}

//! Compares all of the state.

use super::api::{Block, NatUsage, Protocol};

use super::pool::all_blocks;
use super::run::Run;
use super::{Inside, Outside, Remote, Wrong};

impl Run {
    /// Every session, every block, and the numbers.
    pub fn compare(&mut self) -> Result<(), Wrong> {
        self.compare_sessions()?;
        self.compare_blocks()?;
        self.compare_usage()?;
        self.compare_pool()?;
        self.compare_copy()
    }

    /// The pool knows which blocks are free.
    fn compare_pool(&self) -> Result<(), Wrong> {
        let (all, free) = (all_blocks(&self.pool_config), self.model.leasable(&self.pool_config));
        for usage in self.pool.usage() {
            let is_inside = |block: &&Block| usage.net.contains(&block.address);
            let used = all.iter().filter(is_inside).filter(|block| !free.contains(block));
            let mut addresses: Vec<_> = used.clone().map(|block| block.address).collect();
            addresses.dedup();
            let expected = (used.count(), free.iter().filter(is_inside).count(), addresses.len());
            let seen = [usage.used, usage.free, usage.addresses].map(|number| number as usize);
            if <[usize; 3]>::from(expected) != seen || usage.high_water < usage.used {
                return Err(format!("{usage:?} instead of {expected:?}"));
            }
        }
        Ok(())
    }

    fn compare_sessions(&self) -> Result<(), Wrong> {
        let mut seen = 0;
        for view in self.engine.sessions() {
            seen += 1;
            let index = self.model.session(Inside::from(&view.outbound), Remote::from(&view.outbound));
            let expected = index.map(|index| self.model.view(index));
            if expected != Some(view) {
                return Err(format!("{view:?} instead of {expected:?}"));
            }
            if self.engine.session(view.reference) != Some(view) {
                return Err(format!("{:?} leads elsewhere", view.reference));
            }
        }
        for dead in &self.model.dead {
            if let Some(view) = self.engine.session(*dead) {
                return Err(format!("{view:?} is alive again"));
            }
        }
        // No two views are of the same session, since each was the whole of it, reference and all.
        if seen == self.model.sessions.len() {
            Ok(())
        } else {
            Err(format!("{seen} sessions instead of {}", self.model.sessions.len()))
        }
    }

    fn compare_blocks(&self) -> Result<(), Wrong> {
        let mut seen = 0;
        for lease in self.engine.blocks() {
            seen += 1;
            let block = self.model.blocks.iter().find(|block| block.reference == lease.reference);
            let Some(block) = block else { return Err(format!("{lease:?} is nobody's")) };
            let used = Protocol::ALL.map(|protocol| {
                let bindings = self.model.bindings.iter();
                bindings
                    .filter(|known| known.inside.protocol == protocol && block.holds(known.outside))
                    .count() as u16
            });
            let is_same = lease.host == block.owner
                && lease.address == block.address
                && lease.first_port == block.first_port
                && lease.size == block.size
                && lease.given == block.given
                && lease.used == used;
            if !is_same {
                return Err(format!("{lease:?} instead of {block:?} with {used:?} bindings"));
            }
        }
        if seen == self.model.blocks.len() {
            Ok(())
        } else {
            Err(format!("{seen} blocks instead of {}", self.model.blocks.len()))
        }
    }

    fn compare_usage(&self) -> Result<(), Wrong> {
        let model = &self.model;
        let of = |protocol| {
            model.sessions.iter().filter(|session| session.inside.protocol == protocol).count() as u32
        };
        let expected = NatUsage {
            sessions: Protocol::ALL.map(of),
            bindings: model.bindings.len() as u32,
            hosts: model.hosts.len() as u32,
            subscribers: model.subscribers.len() as u32,
            blocks: model.blocks.len() as u32,
            stored_syns: model.stored.len() as u32,
        };
        let usage = self.engine.usage();
        if usage != expected {
            return Err(format!("{usage:?} instead of {expected:?}"));
        }
        // What the rules say of themselves.
        for (index, binding) in model.bindings.iter().enumerate() {
            let is_alone = model.bindings[index + 1..].iter().all(|other| {
                other.inside != binding.inside
                    && (other.outside != binding.outside || other.inside.protocol != binding.inside.protocol)
            });
            let is_kept = binding.is_static || model.sessions.iter().any(|s| s.inside == binding.inside);
            if !is_alone || !is_kept {
                return Err(format!("{binding:?}: alone {is_alone}, kept {is_kept}"));
            }
        }
        Ok(())
    }

    /// What the engine holds of this address and port, for a message.
    pub fn holder(&self, outside: Outside) -> String {
        format!(
            "{:?}",
            self.model.bindings.iter().filter(|known| known.outside == outside).collect::<Vec<_>>()
        )
    }
}

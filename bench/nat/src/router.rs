//! The engine and its pool, used as the router uses them.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use fast_nat::nat64::{Mapped, Nat64, NatConfig, Outbound, Passing, Quota, Refused, Timers};
use fast_nat::{BlockPool, BlockPoolConfig, Granted, PortNet, Timestamp};

use crate::weight;

/// Ports that a host leases at once.
pub(crate) const BLOCK_SIZE: u16 = 128;

/// The pool of the sessions: 256 addresses.
pub(crate) const POOL: &str = "203.0.113.0/24";

/// Sessions that one subscriber may hold, and may make per second and at once: so many that no host is refused, and each
/// is counted.
const QUOTA: Quota = Quota { sessions: 10_000, new_sessions_per_second: 1_000, burst: 10_000 };

/// Bounds of the engine for so many sessions; resting ports and filtering as they come.
pub(crate) fn config(sessions: u32, timers: Timers) -> NatConfig {
    NatConfig {
        max_sessions: sessions,
        max_bindings: sessions,
        max_hosts: 16_384,
        max_blocks: 131_072,
        timers,
        quota: QUOTA,
        ..NatConfig::default()
    }
}

pub(crate) fn pool(net: &str) -> Result<BlockPool> {
    let net = PortNet { net: net.parse()?, first_port: 1024, last_port: u16::MAX, reserved_ports: vec![] };
    let config = BlockPoolConfig {
        nets: vec![net],
        block_size: BLOCK_SIZE,
        max_ports_per_subscriber: 16_384,
        reserved_addresses: vec![],
        reserved_endpoints: vec![],
        seed: None,
    };
    Ok(BlockPool::new(&config)?)
}

/// Both, and how often a block was asked for.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) nat: Arc<Nat64>,
    pub(crate) pool: BlockPool,
    pub(crate) granted: u64,
    /// Blocks that were asked for ahead and refused.
    pub(crate) refused: u64,
    /// Bytes that were allocated before it.
    before: usize,
}

impl Router {
    pub(crate) fn new(sessions: u32, timers: Timers) -> Result<Self> {
        let before = weight::live();
        let nat = Nat64::new(config(sessions, timers))?;
        Ok(Self { nat: Arc::new(nat), pool: pool(POOL)?, granted: 0, refused: 0, before })
    }

    /// The first packet of a session: a block is leased when the host needs one, and ahead of that when it will soon.
    pub(crate) fn begin(&mut self, flow: &Outbound, packet: &Passing<'_>, now: Timestamp) -> Result<Mapped> {
        let mapped = match self.nat.outbound(flow, packet, now) {
            Err(Refused::NeedsBlock(class)) => {
                self.grant(flow, class, now)?;
                self.nat.outbound(flow, packet, now)
            }
            other => other,
        };
        let mapped = mapped.context("a session was refused")?;
        // Asking ahead may be in vain: the host has ports, and asks again when it has none.
        if let Some(class) = mapped.wants_block
            && self.grant(flow, class, now).is_err()
        {
            self.refused += 1;
        }
        Ok(mapped)
    }

    /// Bytes that the engine and its pool hold, if nobody else has allocated any since they were made: allocated ones, and those of the
    /// tables' own memory.
    pub(crate) fn bytes(&self) -> usize {
        weight::live().saturating_sub(self.before) + self.nat.mapped_bytes()
    }

    /// Sessions that are held.
    pub(crate) fn sessions(&self) -> u64 {
        self.nat.usage().sessions.into_iter().map(u64::from).sum()
    }

    fn grant(&mut self, flow: &Outbound, class: fast_nat::nat64::PortClass, now: Timestamp) -> Result<()> {
        let granted = self.pool.grant(&self.nat, flow.host, class, now)?;
        self.granted += u64::from(matches!(granted, Granted::New { .. }));
        Ok(())
    }

    /// Ends what is over, in steps as small as those of the router, at most `steps` of them. Gives idle blocks back.
    pub(crate) fn expire(&mut self, now: Timestamp, steps: usize) -> Result<()> {
        for _ in 0..steps {
            let more = self.nat.expire(now, BUDGET);
            while let Some(output) = self.nat.poll_output(now) {
                std::hint::black_box(output);
            }
            if !more {
                return Ok(());
            }
        }
        bail!("the engine ends sessions slower than {steps} steps of {BUDGET} at a time")
    }

    /// Takes back the blocks that nobody uses.
    pub(crate) fn reclaim(&mut self, now: Timestamp) -> Result<usize> {
        let mut taken = 0;
        for block in self.nat.idle_blocks(now, BUDGET) {
            self.pool.take_back(&self.nat, block, now).context("an idle block could not be taken back")?;
            taken += 1;
        }
        Ok(taken)
    }
}

/// What the router visits under one lock.
const BUDGET: usize = 256;

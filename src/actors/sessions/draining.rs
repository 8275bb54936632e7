//! Pools that are being drained: when nobody has anything of one any more, it goes.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fast_nat::LeaseKind;
use slog::info;

use super::SessionsActor;
use crate::actors::routes::Reconcile;
use crate::config::{PoolSettings, Sharing};
use crate::datapath::Rules;

/// How often drained pools are looked at: that takes a look at all leases and port blocks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Entries that are looked at between two signs of life.
const STEP: usize = 4096;

impl SessionsActor {
    pub(super) fn look_at_drained_pools(&self) {
        let generation = self.shared.generation();
        if generation.plan.draining.is_empty() || !self.birth.is_current() {
            return;
        }
        let mut plan = generation.plan.clone();
        plan.draining.retain(|pool| {
            let left = self.left_of(pool, &generation.plan.pools);
            if let Some(gauges) = generation.gauges.iter().find(|gauges| gauges.net == pool.net) {
                gauges.used.store(left, Ordering::Relaxed);
                gauges.free.store(0, Ordering::Relaxed);
                gauges.resting.store(0, Ordering::Relaxed);
            }
            left > 0
        });
        if plan.draining.len() == generation.plan.draining.len() {
            return;
        }
        let is_gone = |pool: &&PoolSettings| !plan.draining.iter().any(|left| left.net == pool.net);
        let gone: Vec<_> = generation.plan.draining.iter().filter(is_gone).map(|pool| pool.net).collect();
        let mut rules = Rules::clone(&self.shared.rules.load());
        rules.pools.retain(|pool| !pool.draining || !gone.contains(&pool.net));
        let next = generation.next(generation.settings.clone(), plan);
        // Where the settings have changed meanwhile, the next look knows them.
        if self.shared.change(next, rules).is_ok() {
            for net in gone {
                info!(self.log, "pool drained: nobody has anything of it any more"; "prefix" => %net);
            }
            let _ = self.shared.directory.routes.try_send(Reconcile);
        }
    }

    /// How many addresses or blocks of a drained pool somebody has.
    fn left_of(&self, pool: &PoolSettings, kept: &[PoolSettings]) -> u64 {
        let is_left = |address: &Ipv4Addr| {
            pool.net.contains(address) && !kept.iter().any(|kept| kept.net.contains(address))
        };
        let tables = &self.shared.tables;
        let beat = |number: usize| {
            if number.is_multiple_of(STEP) {
                self.birth.beat();
            }
        };
        match pool.sharing {
            Sharing::Exclusive => tables
                .leases
                .leases()
                .enumerate()
                .inspect(|(number, _)| beat(*number))
                .filter(|(_, lease)| lease.kind == LeaseKind::Dynamic && is_left(&lease.address))
                .count() as u64,
            Sharing::Ports => tables
                .nat
                .blocks()
                .enumerate()
                .inspect(|(number, _)| beat(*number))
                .filter(|(_, block)| is_left(&block.address))
                .count() as u64,
        }
    }
}

//! `pool`: leases addresses to hosts.
//!
//! Owns which addresses are free. That is derived: the lease table is the truth, and a new incarnation reads it. When
//! this actor is down, hosts with a lease go on, and a new host's first packets wait.

mod messages;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler};
use fast_nat::{Lease, LeasePool, PoolConfig};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use slog::{Logger, debug, info, o, warn};

pub use messages::{AcquireLeases, ReleaseLeases};

use crate::clock;
use crate::datapath::Refusal;
use crate::error::chain;
use crate::shared::{LeaseAnswer, Shared};
use crate::supervision::faults::Point;
use crate::supervision::{Birth, Blueprint};

/// How often the gauges of the pools are brought up to date without a reason.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// The actor.
#[derive(Debug)]
pub struct PoolActor {
    shared: Arc<Shared>,
    birth: Birth,
    log: Logger,
    pool: LeasePool,
}

/// Makes [`PoolActor`]s.
#[derive(Debug)]
pub struct PoolBlueprint(pub Arc<Shared>);

impl Blueprint for PoolBlueprint {
    type Actor = PoolActor;

    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<PoolActor, String>> {
        let shared = Arc::clone(&self.0);
        async move {
            let log = shared.log.new(o!("concern" => "pool", "generation" => birth.generation()));
            let plan = &shared.plan;
            let mut reserved: Vec<_> = shared.settings.static_pairs.iter().map(|pair| pair.address).collect();
            reserved.push(plan.router_address);
            let config = PoolConfig {
                pools: plan.nets(),
                reserved,
                max_leases_per_subnet: plan.max_leases_per_subnet(&shared.settings),
                rest: shared.settings.address_rest,
            };
            let mut pool = LeasePool::new(&config).map_err(|error| chain(&error))?;
            pool.rebuild(&shared.leases, clock::now());
            Ok(PoolActor { shared, birth, log, pool })
        }
        .boxed_local()
    }
}

impl Actor for PoolActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.faults().at(Point::Started);
        self.publish();
        // Addresses also become free by resting long enough, without a message.
        ctx.run_interval(PUBLISH_EVERY, |actor, _| actor.publish());
        info!(self.log, "started"; "leases" => self.shared.leases.len());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.birth.faults().at(Point::Stopped);
    }
}

impl Handler<AcquireLeases> for PoolActor {
    type Result = ();

    fn handle(&mut self, message: AcquireLeases, _: &mut Self::Context) {
        let now = clock::now();
        let Some(desk) = self.shared.desks.get(message.worker) else { return };
        for host in message.hosts {
            if !self.birth.is_current() {
                return;
            }
            self.birth.beat();
            let known = self.shared.leases.peek_host(host).is_some();
            let result = match self.pool.grant(&self.shared.leases, host, now) {
                Ok(lease) => {
                    if !known {
                        self.shared.lease_counters.granted.fetch_add(1, Ordering::Relaxed);
                        info!(self.log, "lease granted"; "host" => %host, "address" => %lease.address);
                    }
                    Ok(lease.address)
                }
                Err(refused) => {
                    let refusal = refusal(&refused);
                    self.shared.lease_counters.refused.fetch_add(1, Ordering::Relaxed);
                    warn!(self.log, "lease refused"; "host" => %host, "reason" => refusal.as_str(), "because" => %refused);
                    Err(refusal)
                }
            };
            desk.answer(LeaseAnswer { host, result });
        }
        desk.wake.notify_one();
        self.publish();
    }
}

impl Handler<ReleaseLeases> for PoolActor {
    type Result = ();

    fn handle(&mut self, message: ReleaseLeases, _: &mut Self::Context) {
        if !self.birth.is_current() {
            return;
        }
        let now = clock::now();
        for Lease { address, .. } in message.leases {
            self.pool.free(&self.shared.leases, address, now);
            debug!(self.log, "address rests"; "address" => %address);
        }
        self.publish();
    }
}

crate::accepts_faults!(PoolActor);

impl PoolActor {
    fn publish(&mut self) {
        for (gauges, usage) in self.shared.pool_gauges.iter().zip(self.pool.usage(clock::now())) {
            gauges.used.store(usage.used, Ordering::Relaxed);
            gauges.free.store(usage.free, Ordering::Relaxed);
            gauges.resting.store(usage.resting, Ordering::Relaxed);
            gauges.high_water.fetch_max(usage.high_water, Ordering::Relaxed);
        }
    }
}

/// The drop reason that stands for a refusal of the pool.
fn refusal(refused: &fast_nat::Refusal) -> Refusal {
    match refused {
        fast_nat::Refusal::PoolExhausted { .. } => Refusal::PoolExhausted,
        fast_nat::Refusal::SubnetLimit { .. } => Refusal::SubnetLimit,
        fast_nat::Refusal::NotEligible { .. } => Refusal::SourceNotEligible,
        fast_nat::Refusal::TableFull { .. } => Refusal::TableFull,
    }
}

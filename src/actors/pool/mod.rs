//! `pool`: leases addresses and port blocks to hosts.
//!
//! Owns what is free. That is derived: the tables are the truth, and a new incarnation reads them. When this actor is down,
//! hosts with a lease go on, as long as their ports last, and a new host's first packets wait.

mod messages;
mod supply;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext as _, AsyncContext as _, Context, Handler};
use fast_nat::Lease;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use slog::{Logger, debug, info, o};

pub use messages::{AcquireLeases, ReleaseBlocks, ReleaseLeases};

use crate::clock;
use crate::shared::{LeaseAnswer, Shared};
use crate::supervision::faults::Point;
use crate::supervision::{Birth, Blueprint};
use supply::Supply;
pub(crate) use supply::pools;

/// How often the gauges of the pools are brought up to date without a reason.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// So many messages wait at most. Each worker sends one a turn, and there are many turns before a thread of an actor runs once on a machine with
/// too much to do. A message has 64 hosts or blocks at most, of 40 bytes at most: together less than 1 MB.
const MAILBOX: usize = 256;

/// The actor.
#[derive(Debug)]
pub struct PoolActor {
    shared: Arc<Shared>,
    birth: Birth,
    log: Logger,
    supply: Supply,
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
            let supply = Supply::new(&shared, log.clone())?;
            Ok(PoolActor { shared, birth, log, supply })
        }
        .boxed_local()
    }
}

impl Actor for PoolActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.faults().at(Point::Started);
        ctx.set_mailbox_capacity(MAILBOX);
        self.publish();
        // Addresses also become free by resting long enough, without a message.
        ctx.run_interval(PUBLISH_EVERY, |actor, ctx| {
            if actor.follow(ctx) {
                actor.publish();
            }
        });
        let tables = &self.shared.tables;
        info!(self.log, "started"; "leases" => tables.leases.len(), "blocks" => tables.nat.usage().blocks);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.birth.faults().at(Point::Stopped);
    }
}

impl Handler<AcquireLeases> for PoolActor {
    type Result = ();

    fn handle(&mut self, message: AcquireLeases, ctx: &mut Self::Context) {
        let now = clock::now();
        let shared = Arc::clone(&self.shared);
        let Some(desk) = shared.desks.get(message.worker) else { return };
        for ask in message.asks {
            if !self.birth.is_current() {
                return;
            }
            self.birth.beat();
            // While this is held, nothing of the generation changes that the lease is given by.
            let unchanged = loop {
                if !self.follow(ctx) {
                    return;
                }
                let unchanged = shared.placed.lock();
                if self.supply.number() == shared.generation().number {
                    break unchanged;
                }
            };
            let result = self.supply.acquire(&shared, ask, now);
            drop(unchanged);
            // Without an answer the worker asks again.
            if let Some(result) = result {
                desk.answer(LeaseAnswer { ask, result });
            }
        }
        shared.ring(message.worker);
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
            self.supply.free_address(&self.shared, address, now);
            debug!(self.log, "address rests"; "address" => %address);
        }
        self.publish();
    }
}

impl Handler<ReleaseBlocks> for PoolActor {
    type Result = ();

    fn handle(&mut self, message: ReleaseBlocks, _: &mut Self::Context) {
        let now = clock::now();
        for block in message.blocks {
            if !self.birth.is_current() {
                return;
            }
            self.birth.beat();
            self.supply.take_back(&self.shared, block, now);
        }
        self.publish();
    }
}

crate::accepts_faults!(PoolActor);

impl PoolActor {
    /// Goes over to the generation of the moment, if that is another one. `false`: it cannot, and the actor stops.
    fn follow(&mut self, ctx: &mut Context<Self>) -> bool {
        if self.supply.number() == self.shared.number.load(Ordering::Acquire) {
            return true;
        }
        match Supply::new(&self.shared, self.log.clone()) {
            Ok(supply) => {
                self.supply = supply;
                debug!(self.log, "the pools follow the settings"; "generation_of_settings" => self.supply.number());
                true
            }
            Err(why) => {
                self.birth.give_up(why);
                ctx.stop();
                false
            }
        }
    }

    fn publish(&mut self) {
        let usage = self.supply.usage(clock::now());
        for (net, usage) in usage {
            let gauges = &self.supply.generation().gauges;
            let Some(gauges) = gauges.iter().find(|gauges| gauges.net == net) else { continue };
            gauges.used.store(usage.used, Ordering::Relaxed);
            gauges.free.store(usage.free, Ordering::Relaxed);
            gauges.resting.store(usage.resting, Ordering::Relaxed);
            gauges.high_water.fetch_max(usage.high_water, Ordering::Relaxed);
        }
    }
}

//! `tun`: the packet workers, one thread per queue of the device.
//!
//! The device, its queues and all leases outlive this actor: a new incarnation's workers read the same queues on at
//! once. When it is down, packets wait in the device's queue; when one worker fails, all are replaced, and at most the
//! packets in hand are lost.

mod asks;
mod contention;
mod hands;
mod messages;
mod notices;
mod pace;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, ActorContext as _, AsyncContext as _, Context, Handler};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use slog::{Logger, error, info, o};

pub use messages::WorkerEnded;
pub use worker::{MOST_FAILED_READS, Seat};

use crate::shared::Shared;
use crate::supervision::faults::Point;
use crate::supervision::{Birth, Blueprint};

/// How often the actor looks for workers that ended without a word.
const ROLL_CALL: Duration = Duration::from_millis(500);

/// The actor.
#[derive(Debug)]
pub struct TunActor {
    shared: Arc<Shared>,
    birth: Birth,
    log: Logger,
    workers: Vec<(Arc<Seat>, JoinHandle<()>)>,
}

/// Makes [`TunActor`]s.
#[derive(Debug)]
pub struct TunBlueprint(pub Arc<Shared>);

impl Blueprint for TunBlueprint {
    type Actor = TunActor;

    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<TunActor, String>> {
        let shared = Arc::clone(&self.0);
        async move {
            let log = shared.log.new(o!("concern" => "tun", "generation" => birth.generation()));
            Ok(TunActor { shared, birth, log, workers: Vec::new() })
        }
        .boxed_local()
    }

    /// A worker that sleeps must not take a packet of its successor. Once woken it finds that it has been replaced.
    fn retired(&self) {
        for worker in 0..self.0.desks.len() {
            self.0.ring(worker);
        }
    }
}

impl Actor for TunActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.faults().at(Point::Started);
        for index in 0..self.shared.queues.len() {
            let seat = Arc::new(Seat::new(index, Arc::clone(&self.shared), self.birth.clone()));
            self.birth.watch(format!("worker {index}"), Arc::clone(&seat.pulse));
            match worker::spawn(Arc::clone(&seat)) {
                Ok(thread) => self.workers.push((seat, thread)),
                Err(error) => {
                    self.birth.give_up(format!("worker {index} cannot be started: {error}"));
                    ctx.stop();
                    return;
                }
            }
        }
        ctx.run_interval(ROLL_CALL, |actor, ctx| {
            if let Some((seat, _)) = actor.workers.iter().find(|(_, thread)| thread.is_finished()) {
                actor.birth.give_up(format!("worker {} ended", seat.index));
                ctx.stop();
            }
        });
        info!(self.log, "started"; "workers" => self.workers.len());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.dismiss();
        self.birth.faults().at(Point::Stopped);
    }
}

impl TunActor {
    fn dismiss(&self) {
        for (seat, _) in &self.workers {
            seat.dismiss();
        }
    }
}

/// Also when `stopped()` was never reached: two generations of workers must not read one queue for long.
impl Drop for TunActor {
    fn drop(&mut self) {
        self.dismiss();
        self.birth.faults().at(Point::Dropped);
    }
}

impl Handler<WorkerEnded> for TunActor {
    type Result = ();

    fn handle(&mut self, message: WorkerEnded, ctx: &mut Self::Context) {
        if message.generation == self.birth.generation() {
            error!(self.log, "a worker ended"; "worker" => message.worker, "reason" => &message.why);
            if message.device_is_gone {
                let interface = &self.shared.interface;
                self.birth.give_up_for_good(format!("the device {interface} was deleted by somebody else"));
            } else {
                self.birth.give_up(format!("worker {}: {}", message.worker, message.why));
            }
            ctx.stop();
        }
    }
}

crate::accepts_faults!(TunActor, dropped by itself);

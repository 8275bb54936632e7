//! `metrics`: says how the router does, over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Owns nothing but the endpoint: every figure is read from [`Shared`] or the kernel at the scrape. When this actor is
//! down nobody is told anything, connections wait in the listener's backlog, and packets flow on.
//!
//! ```text
//!  listener (outlives the actor) ─▶ http: 32 connections, 10 s each ─▶ Scrape, ListProblems ─▶ actor ─▶ Shared
//! ```
//!
//! The HTTP side asks the actor by message, so that a figure that cannot be had (a lock that is never given back) shows
//! as a hang of this actor and ends in its restart.

mod classic;
mod connection;
mod http;
mod messages;
mod registry;
mod sample;

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, ResponseActFuture,
    WrapFuture as _,
};
use futures::FutureExt as _;
use futures::future::{AbortHandle, LocalBoxFuture, abortable};
use slog::{Logger, debug, info, o, warn};
use tokio::net::TcpListener;

pub use messages::{ListProblems, Readiness, Scrape};

use crate::shared::Shared;
use crate::supervision::faults::Point;
use crate::supervision::{Birth, Blueprint};
use sample::{Sample, Uptime};

/// How long a scrape waits for the kernel's counters of the device before it goes without.
const DEVICE_PATIENCE: Duration = Duration::from_secs(1);

/// How often the actor looks whether it is to listen elsewhere.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// The actor.
#[derive(Debug)]
pub struct MetricsActor {
    shared: Arc<Shared>,
    birth: Birth,
    log: Logger,
    /// What is listened at, and what ends that.
    serving: Option<(Arc<std::net::TcpListener>, AbortHandle)>,
    /// For the kernel's counters of the device; opened anew when it failed.
    kernel: Option<rtnl::Handle>,
    /// Scrapes of this incarnation that had to go without them.
    scrape_errors: u64,
    uptime: Uptime,
}

/// Makes [`MetricsActor`]s.
#[derive(Debug)]
pub struct MetricsBlueprint(pub Arc<Shared>);

impl Blueprint for MetricsBlueprint {
    type Actor = MetricsActor;

    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<MetricsActor, String>> {
        let shared = Arc::clone(&self.0);
        async move {
            let log = shared.log.new(o!("concern" => "metrics", "generation" => birth.generation()));
            let uptime = Uptime::of_this_process();
            Ok(MetricsActor { shared, birth, log, serving: None, kernel: None, scrape_errors: 0, uptime })
        }
        .boxed_local()
    }
}

/// A handle of one's own on a listener that outlives this actor.
fn adopt(listener: &std::net::TcpListener) -> std::io::Result<TcpListener> {
    let own = listener.try_clone()?;
    own.set_nonblocking(true)?;
    TcpListener::from_std(own)
}

impl Actor for MetricsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.faults().at(Point::Started);
        self.listen(ctx);
        ctx.run_interval(FOLLOW_EVERY, |actor, ctx| {
            let now = actor.shared.metrics_listener.load();
            let is_another = match (&*now, &actor.serving) {
                (Some(now), Some((served, _))) => !Arc::ptr_eq(now, served),
                (now, served) => now.is_some() != served.is_some(),
            };
            if is_another {
                actor.listen(ctx);
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.birth.faults().at(Point::Stopped);
    }
}

impl MetricsActor {
    /// Serves at the listener of the moment, and no longer at the one before. What is being answered is answered.
    fn listen(&mut self, ctx: &mut Context<Self>) {
        if let Some((_, serving)) = self.serving.take() {
            serving.abort();
        }
        let Some(listener) = self.shared.metrics_listener.load_full() else {
            info!(self.log, "started"; "address" => "none");
            return;
        };
        let own = match adopt(&listener) {
            Ok(own) => own,
            Err(error) => {
                self.birth.give_up(format!("the listener cannot be used: {error}"));
                ctx.stop();
                return;
            }
        };
        let address = own.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
        let answers =
            http::Answers { scrape: ctx.address().recipient(), list_problems: ctx.address().recipient() };
        let (birth, log) = (self.birth.clone(), self.log.clone());
        let serve = http::serve(own, answers, http::Bounds::default(), log, move || birth.is_current());
        let (serve, handle) = abortable(serve);
        self.serving = Some((listener, handle));
        // It ends only when it is told to.
        self.birth.spawn(serve.map(drop));
        info!(self.log, "started"; "address" => address);
    }
}

impl Handler<Scrape> for MetricsActor {
    type Result = ResponseActFuture<Self, String>;

    fn handle(&mut self, _: Scrape, _: &mut Self::Context) -> Self::Result {
        if self.kernel.is_none() {
            self.kernel = rtnl::Handle::open()
                .inspect_err(|error| warn!(self.log, "the kernel cannot be asked"; "because" => %error))
                .ok();
        }
        let (kernel, index) = (self.kernel.clone(), self.shared.device_index);
        let device = async move {
            let Some(kernel) = kernel else { return Err("no netlink socket".to_owned()) };
            match actix_rt::time::timeout(DEVICE_PATIENCE, kernel.link_stats(index)).await {
                Ok(Ok(stats)) => Ok(stats),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            }
        };
        Box::pin(device.into_actor(self).map(|device, actor, _| {
            if let Err(why) = &device {
                debug!(actor.log, "a scrape goes without the device's counters"; "because" => why);
                actor.scrape_errors += 1;
                actor.kernel = None;
            }
            let sample = Sample::take(&actor.shared, actor.uptime, device.ok(), actor.scrape_errors);
            registry::encode(sample)
        }))
    }
}

impl Handler<ListProblems> for MetricsActor {
    type Result = Readiness;

    fn handle(&mut self, _: ListProblems, _: &mut Self::Context) -> Readiness {
        Readiness { problems: self.shared.problems(), notes: self.shared.notes() }
    }
}

crate::accepts_faults!(MetricsActor);

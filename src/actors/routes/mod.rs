//! `routes`: keeps link, routes and masquerade as they should be, and tells the packet path about the host's addresses.
//!
//! Owns what is desired; the truth is in the kernel. When this actor is down, nothing changes in the kernel and packets
//! flow on; its successor compares and repairs.

mod messages;
mod quarrel;
mod reconcile;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, SpawnHandle,
    WrapFuture as _,
};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use parking_lot::Mutex;
use slog::{Logger, debug, error, info, o};

pub use messages::{EventsEnded, Reconcile};
use quarrel::Quarrels;
pub(crate) use reconcile::describe_allowed;

use crate::error::chain;
use crate::shared::Shared;
use crate::supervision::faults::Point;
use crate::supervision::{Birth, Blueprint};

/// How often the kernel's state is compared without a reason: it does not announce every loss (IPv4 routes that go with
/// a link, for one).
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// How often the masquerade table is looked for: nothing announces its loss here, and packets leave un-NATed without it.
const LOOK_FOR_MASQUERADE: Duration = Duration::from_secs(1);

/// A comparison that takes long (a large routing table) is followed by a pause of so many times its length, up to
/// [`COMPARE_EVERY`].
const PAUSE_FACTOR: u32 = 10;

/// Changes come in bunches: this long after the first one, all are looked at together.
const SETTLE: Duration = Duration::from_millis(100);

/// The actor.
#[derive(Debug)]
pub struct RoutesActor {
    shared: Arc<Shared>,
    birth: Birth,
    log: Logger,
    handle: rtnl::Handle,
    watcher: Option<rtnl::Watcher>,
    /// A comparison is under way, or is about to begin.
    busy: bool,
    /// Something changed during it.
    again: bool,
    /// What others undo.
    quarrels: Arc<Mutex<Quarrels>>,
    /// The comparison that waits for a repair to be due.
    put_off: Option<SpawnHandle>,
}

/// Makes [`RoutesActor`]s.
#[derive(Debug)]
pub struct RoutesBlueprint(pub Arc<Shared>);

impl Blueprint for RoutesBlueprint {
    type Actor = RoutesActor;

    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<RoutesActor, String>> {
        let shared = Arc::clone(&self.0);
        async move {
            let log = shared.log.new(o!("concern" => "routes", "generation" => birth.generation()));
            let handle = rtnl::Handle::open().map_err(|error| chain(&error))?;
            // Watched before the first comparison, so that nothing is missed between the two.
            let watcher = Some(rtnl::Watcher::open().map_err(|error| chain(&error))?);
            Ok(RoutesActor {
                shared,
                birth,
                log,
                handle,
                watcher,
                busy: false,
                again: false,
                quarrels: Arc::default(),
                put_off: None,
            })
        }
        .boxed_local()
    }
}

impl Actor for RoutesActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.faults().at(Point::Started);
        if let Some(mut watcher) = self.watcher.take() {
            let own = ctx.address();
            let log = self.log.clone();
            self.birth.spawn(async move {
                while let Some(event) = watcher.next().await {
                    debug!(log, "the kernel's state changed"; "event" => ?event);
                    // A full mailbox holds a request already.
                    let _ = own.try_send(Reconcile);
                }
                error!(log, "the kernel's events have ended");
                let _ = own.send(EventsEnded).await;
            });
        }
        // Not by a comparison, which takes its time where the routing table is large and may be pausing.
        ctx.run_interval(LOOK_FOR_MASQUERADE, |actor, _| {
            // What keeps it from being put back is told by the next comparison.
            if let Err(why) = reconcile::keep_masquerade(&actor.shared, &actor.quarrels, &actor.log) {
                debug!(actor.log, "the masquerade table is not put back"; "because" => why);
            }
        });
        ctx.run_interval(COMPARE_EVERY, |actor, ctx| actor.reconcile(ctx, Duration::ZERO));
        self.reconcile(ctx, Duration::ZERO);
        info!(self.log, "started");
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.birth.faults().at(Point::Stopped);
    }
}

impl RoutesActor {
    fn reconcile(&mut self, ctx: &mut Context<Self>, after: Duration) {
        if std::mem::replace(&mut self.busy, true) {
            self.again = true;
            return;
        }
        let (handle, shared, log) = (self.handle.clone(), Arc::clone(&self.shared), self.log.clone());
        let (birth, quarrels) = (self.birth.clone(), Arc::clone(&self.quarrels));
        let work = async move {
            actix_rt::time::sleep(after).await;
            let start = Instant::now();
            let could_read =
                !birth.is_current() || reconcile::reconcile(&handle, &shared, &birth, &quarrels, &log).await;
            (could_read, start.elapsed())
        };
        ctx.spawn(work.into_actor(self).map(|(could_read, took), actor, ctx| {
            actor.busy = false;
            let put_off = actor.quarrels.lock().take_wait(Instant::now());
            if let Some(wait) = put_off {
                let later = ctx.run_later(wait, |actor, ctx| actor.reconcile(ctx, Duration::ZERO));
                if let Some(before) = actor.put_off.replace(later) {
                    ctx.cancel_future(before);
                }
            }
            if !could_read {
                actor.reopen();
            }
            if std::mem::take(&mut actor.again) {
                actor.reconcile(ctx, (took * PAUSE_FACTOR).clamp(SETTLE, COMPARE_EVERY));
            }
        }));
    }

    /// The socket for requests may be what is broken.
    fn reopen(&mut self) {
        match rtnl::Handle::open() {
            Ok(handle) => self.handle = handle,
            Err(error) => error!(self.log, "no netlink socket can be opened"; "because" => %error),
        }
    }
}

impl Handler<EventsEnded> for RoutesActor {
    type Result = ();

    fn handle(&mut self, _: EventsEnded, ctx: &mut Self::Context) {
        self.birth.give_up("the kernel's events have ended".to_owned());
        ctx.stop();
    }
}

impl Handler<Reconcile> for RoutesActor {
    type Result = ();

    fn handle(&mut self, _: Reconcile, ctx: &mut Self::Context) {
        self.reconcile(ctx, SETTLE);
    }
}

crate::accepts_faults!(RoutesActor);

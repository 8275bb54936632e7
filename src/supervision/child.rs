//! One concern under supervision: how an incarnation is born, lives and ends.
//!
//! There is one restart path. A stop, a panic, a hang and a failed start all end in an [`Exit`], and the answer is
//! always a fresh Arbiter, a fresh actor and the next generation.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use actix::{Actor, AsyncContext as _, Context};
use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, select};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::directory::Slot;
use super::faults::{Faults, Point};
use super::pulse::{Pulse, Pulsed};
use super::status::{Board, Concern, Exit};

/// The generation of no incarnation.
pub(super) const NOBODY: u64 = 0;

/// Everything that the incarnations of one concern have in common.
#[derive(Debug)]
pub(super) struct Lineage {
    pub(super) concern: Concern,
    /// The generation that may act, or [`NOBODY`] between two.
    pub(super) current: AtomicU64,
    pub(super) faults: Faults,
    pub(super) board: Arc<Board>,
}

/// What an incarnation is given at birth.
#[derive(Debug, Clone)]
pub struct Birth(Arc<Incarnation>);

#[derive(Debug)]
pub(super) struct Incarnation {
    lineage: Arc<Lineage>,
    generation: u64,
    pub(super) pulse: Pulse,
    /// Pulses of threads that the actor runs (packet workers): at most one per queue.
    pub(super) further_pulses: Mutex<Vec<(String, Arc<Pulse>)>>,
    last_words: Mutex<Option<String>>,
    /// No successor could do better.
    for_good: AtomicBool,
    /// The words of a panic in a task beside the actor.
    panic_beside: Mutex<Option<String>>,
    pub(super) stop: Notify,
}

impl Incarnation {
    /// Whether any thread of it is busy at this moment.
    pub(super) fn is_busy(&self) -> bool {
        self.pulse.busy_for().is_some()
            || self.further_pulses.lock().iter().any(|(_, pulse)| pulse.busy_for().is_some())
    }
}

impl Birth {
    pub(super) fn new(lineage: Arc<Lineage>, generation: u64) -> Self {
        Self(Arc::new(Incarnation {
            lineage,
            generation,
            pulse: Pulse::default(),
            further_pulses: Mutex::default(),
            last_words: Mutex::default(),
            for_good: AtomicBool::new(false),
            panic_beside: Mutex::default(),
            stop: Notify::new(),
        }))
    }

    pub(super) fn incarnation(&self) -> &Incarnation {
        &self.0
    }

    /// The number of this incarnation, from 1.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Whether this incarnation has not been replaced. One that wakes up late from a hang finds out here, and must
    /// touch nothing.
    pub fn is_current(&self) -> bool {
        self.0.lineage.current.load(Ordering::Acquire) == self.0.generation
    }

    /// Puts the pulse of a thread that this actor runs under the watchdog's eyes.
    pub fn watch(&self, name: String, pulse: Arc<Pulse>) {
        self.0.further_pulses.lock().push((name, pulse));
    }

    /// Says why the actor is about to stop itself; the exit then counts as failed, for this reason.
    pub fn give_up(&self, why: String) {
        self.0.last_words.lock().get_or_insert(why);
    }

    /// Like [`Self::give_up`], where no successor could do better: the process ends with this reason.
    pub fn give_up_for_good(&self, why: String) {
        self.0.for_good.store(true, Ordering::Release);
        self.give_up(why);
    }

    /// Shows that a long piece of work goes on: for loops whose steps are short. actix hands over everything that is in
    /// a mailbox in one go, which would else look like one message.
    pub fn beat(&self) {
        self.0.pulse.enter();
    }

    /// The fault points of this concern.
    pub fn faults(&self) -> &Faults {
        &self.0.lineage.faults
    }

    /// Runs a task on the current Arbiter under this incarnation's pulse, so that a hang in it is seen. It ends with
    /// the Arbiter, and a panic in it ends the incarnation, which relies on it.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let birth = self.clone();
        actix_rt::spawn(async move {
            let task = AssertUnwindSafe(task).catch_unwind();
            if let Err(panic) = Pulsed::new(&birth.0.pulse, Box::pin(task)).await {
                birth.0.panic_beside.lock().get_or_insert_with(|| panic_text(panic.as_ref()));
                birth.0.stop.notify_one();
            }
        });
    }
}

/// How a concern makes its actor.
pub trait Blueprint: Send + Sync + 'static {
    /// The actor.
    type Actor: Actor<Context = Context<Self::Actor>>;

    /// Builds an incarnation, on the Arbiter that it will live on. It reconciles from the data that outlives it; an
    /// error is the reason why it cannot start.
    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<Self::Actor, String>>;

    /// The last incarnation is not current any more. It may be unable to tell the threads that it runs, so those that are
    /// asleep are to be woken here. Must not wait.
    fn retired(&self) {}
}

type Start = dyn Fn(Birth) -> LocalBoxFuture<'static, Exit> + Send + Sync;

/// A concern with its actor's type forgotten.
pub struct Child {
    pub(super) lineage: Arc<Lineage>,
    pub(super) start: Arc<Start>,
    /// Takes the incarnation of this generation, which is not current any more, out of the directory, and tells its blueprint.
    pub(super) withdraw: Box<dyn Fn(u64) + Send + Sync>,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Child({})", self.lineage.concern)
    }
}

impl Child {
    /// A concern whose actor comes from `blueprint` and is listed in the directory by `slot`.
    pub fn new<B: Blueprint>(
        concern: Concern,
        board: &Arc<Board>,
        blueprint: B,
        slot: &Arc<Slot<B::Actor>>,
    ) -> Self {
        let blueprint = Arc::new(blueprint);
        let (slot, listed, maker) = (Arc::clone(slot), Arc::clone(slot), Arc::clone(&blueprint));
        let start = move |birth: Birth| -> LocalBoxFuture<'static, Exit> {
            let blueprint = Arc::clone(&blueprint);
            let slot = Arc::clone(&slot);
            async move { live(blueprint.as_ref(), &slot, birth).await }.boxed_local()
        };
        Self {
            lineage: Arc::new(Lineage {
                concern,
                current: AtomicU64::new(NOBODY),
                faults: Faults::default(),
                board: Arc::clone(board),
            }),
            start: Arc::new(start),
            withdraw: Box::new(move |generation| {
                listed.withdraw(generation);
                maker.retired();
            }),
        }
    }

    /// A handle on the fault points of this concern.
    #[cfg(feature = "fault-injection")]
    pub fn faults(&self) -> impl std::ops::Deref<Target = Faults> + Clone + Send + Sync + use<> {
        FaultsOf(Arc::clone(&self.lineage))
    }
}

#[cfg(feature = "fault-injection")]
#[derive(Clone)]
struct FaultsOf(Arc<Lineage>);

#[cfg(feature = "fault-injection")]
impl std::ops::Deref for FaultsOf {
    type Target = Faults;
    fn deref(&self) -> &Faults {
        &self.0.faults
    }
}

/// One incarnation, from its birth to its end.
async fn live<B: Blueprint>(blueprint: &B, slot: &Slot<B::Actor>, birth: Birth) -> Exit {
    let inner = birth.incarnation();
    let lineage = &inner.lineage;
    let exit = Pulsed::new(
        &inner.pulse,
        Box::pin(async {
            if lineage.faults.strikes(Point::Build) {
                return Exit::CannotStart("injected fault".to_owned());
            }
            let built = AssertUnwindSafe(async { blueprint.build(birth.clone()).await }).catch_unwind().await;
            let actor = match built {
                Ok(Ok(actor)) => actor,
                Ok(Err(why)) => return Exit::CannotStart(why),
                Err(panic) => return Exit::Panicked(panic_text(panic.as_ref())),
            };
            if !birth.is_current() {
                return Exit::Stopped;
            }
            run(actor, slot, &birth).await
        }),
    )
    .await;
    slot.withdraw(inner.generation);
    exit
}

async fn run<A: Actor<Context = Context<A>>>(actor: A, slot: &Slot<A>, birth: &Birth) -> Exit {
    let inner = birth.incarnation();
    let context = Context::new();
    slot.publish(inner.generation, context.address());
    // The unwind is caught directly on the context's future. Were it caught further out, actix would poll the broken
    // actor again while unwinding, and a second panic there would abort the process.
    let mut alive = Box::pin(AssertUnwindSafe(context.into_future(actor)).catch_unwind());
    let outcome = {
        let stop = std::pin::pin!(inner.stop.notified());
        let started = futures::poll!(alive.as_mut());
        match started {
            std::task::Poll::Ready(outcome) => Some(outcome),
            std::task::Poll::Pending => {
                inner.lineage.board.running(inner.lineage.concern, inner.generation);
                match select(alive.as_mut(), stop).await {
                    futures::future::Either::Left((outcome, _)) => Some(outcome),
                    futures::future::Either::Right(_) => None,
                }
            }
        }
    };
    // Taken out before the drop: dropping runs `stopping()` and `stopped()`, and nobody must reach the actor then.
    slot.withdraw(inner.generation);
    let dropped = std::panic::catch_unwind(AssertUnwindSafe(move || drop(alive)));
    if let Some(Err(panic)) = outcome {
        return Exit::Panicked(panic_text(panic.as_ref()));
    }
    if let Err(panic) = dropped {
        return Exit::Panicked(panic_text(panic.as_ref()));
    }
    if let Some(panic) = inner.panic_beside.lock().take() {
        return Exit::Panicked(panic);
    }
    match inner.last_words.lock().take() {
        Some(why) if inner.for_good.load(Ordering::Acquire) => Exit::FailedForGood(why),
        Some(why) => Exit::Failed(why),
        None => Exit::Stopped,
    }
}

/// The words of a panic, where it has any.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}

//! The overseer with actors made for it, which fail in ways that the real ones cannot be told to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use protomask::service::Watchdog;
use protomask::supervision::{
    Birth, Blueprint, Board, Child, Concern, Limits, Outcome, Overseer, Slot, State, Status, Unavailable,
};
use tokio::sync::oneshot;

use crate::lab::{LENIENT, PATIENCE, SHORT, eventually, log, pause};

/// What all incarnations of a toy share.
#[derive(Default)]
struct Shelf {
    slot: Arc<Slot<Toy>>,
    /// What incarnations did that were current, and what others did.
    by_current: AtomicU64,
    by_zombies: AtomicU64,
    /// Faults at the next build.
    next_builds: Mutex<Vec<Build>>,
}

#[derive(Clone, Copy)]
enum Build {
    Panics,
    NeverEnds,
}

struct Toy {
    shelf: Arc<Shelf>,
    birth: Birth,
}

struct ToyBlueprint(Arc<Shelf>);

impl Blueprint for ToyBlueprint {
    type Actor = Toy;

    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<Toy, String>> {
        let shelf = Arc::clone(&self.0);
        let fault = shelf.next_builds.lock().unwrap().pop();
        async move {
            match fault {
                None => Ok(Toy { shelf, birth }),
                Some(Build::Panics) => panic!("injected: no such toy"),
                Some(Build::NeverEnds) => std::future::pending().await,
            }
        }
        .boxed_local()
    }
}

impl Actor for Toy {
    type Context = Context<Self>;
}

/// Do something that only the current incarnation may do.
#[derive(Message)]
#[rtype(result = "()")]
struct Act;

impl Handler<Act> for Toy {
    type Result = ();

    fn handle(&mut self, _: Act, _: &mut Self::Context) {
        let deeds = if self.birth.is_current() { &self.shelf.by_current } else { &self.shelf.by_zombies };
        deeds.fetch_add(1, Ordering::SeqCst);
    }
}

/// Hang until the other end is dropped, and then act.
#[derive(Message)]
#[rtype(result = "()")]
struct HangUntil(Receiver<()>);

impl Handler<HangUntil> for Toy {
    type Result = ();

    fn handle(&mut self, until: HangUntil, ctx: &mut Self::Context) {
        let _ = until.0.recv();
        self.handle(Act, ctx);
    }
}

/// Panic in a task beside the actor.
#[derive(Message)]
#[rtype(result = "()")]
struct PanicInATask;

impl Handler<PanicInATask> for Toy {
    type Result = ();

    fn handle(&mut self, _: PanicInATask, _: &mut Self::Context) {
        self.birth.spawn(async {
            actix_rt::task::yield_now().await;
            panic!("injected: panic in a task");
        });
    }
}

/// Hang in a task beside the actor.
#[derive(Message)]
#[rtype(result = "()")]
struct HangInATask(Receiver<()>);

impl Handler<HangInATask> for Toy {
    type Result = ();

    fn handle(&mut self, until: HangInATask, _: &mut Self::Context) {
        self.birth.spawn(async move {
            let _ = until.0.recv();
        });
    }
}

/// An overseer of toys.
struct Nursery {
    board: Arc<Board>,
    shelves: Vec<(Concern, Arc<Shelf>)>,
    stop: Option<oneshot::Sender<()>>,
    overseer: JoinHandle<Outcome>,
}

impl Nursery {
    fn start(concerns: &[Concern], limits: Limits) -> Self {
        Self::start_with(concerns, limits, Arc::default())
    }

    /// With a lock that may be stuck.
    fn start_with(concerns: &[Concern], limits: Limits, stuck_lock: Arc<AtomicBool>) -> Self {
        let board = Arc::new(Board::default());
        let shelves: Vec<_> = concerns.iter().map(|concern| (*concern, Arc::<Shelf>::default())).collect();
        let (stop, stopped) = oneshot::channel();
        let overseer = std::thread::spawn({
            let (board, shelves) = (Arc::clone(&board), shelves.clone());
            move || {
                actix_rt::System::new().block_on(async move {
                    let children = shelves.into_iter().map(|(concern, shelf)| {
                        let slot = Arc::clone(&shelf.slot);
                        Child::new(concern, &board, ToyBlueprint(shelf), &slot)
                    });
                    let overseer = Overseer::new(children.collect(), Arc::clone(&board), limits, &log())
                        .with_locks(Box::new(move || stuck_lock.load(Ordering::SeqCst).then_some("a lock")));
                    let shutdown = async {
                        let _ = stopped.await;
                    };
                    overseer.run(shutdown).await
                })
            }
        });
        let nursery = Self { board, shelves, stop: Some(stop), overseer };
        for concern in concerns {
            nursery.wait_for_generation(*concern, 1);
        }
        nursery
    }

    fn shelf(&self, concern: Concern) -> &Shelf {
        &self.shelves.iter().find(|(other, _)| *other == concern).unwrap().1
    }

    fn status(&self, concern: Concern) -> Status {
        self.board.of(concern)
    }

    fn wait_for_generation(&self, concern: Concern, generation: u64) {
        eventually(&format!("generation {generation} of {concern} runs"), || {
            let status = self.status(concern);
            assert!(status.generation <= generation, "{concern}: {status:?}");
            (status.generation == generation && status.state == State::Running).then_some(())
        });
        assert_eq!(self.shelf(concern).slot.generation(), Some(generation));
    }

    fn ask<M>(&self, concern: Concern, message: M, patience: Duration) -> Result<(), Unavailable>
    where
        M: Message<Result = ()> + Send + 'static,
        Toy: Handler<M>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.shelf(concern).slot.ask(message, patience))
    }

    /// Makes a concern hang until the answer is dropped.
    fn hang(&self, concern: Concern) -> SyncSender<()> {
        let (hold, until) = sync_channel(0);
        let slot = &self.shelf(concern).slot;
        slot.try_send(HangUntil(until)).unwrap();
        // Those lie in its mailbox when it comes back.
        slot.try_send(Act).unwrap();
        hold
    }

    fn end(mut self) {
        self.stop.take();
        assert_eq!(self.overseer.join().unwrap(), Outcome::Shutdown);
    }
}

#[test]
fn a_thread_that_comes_back_may_touch_nothing_and_is_forgiven() {
    let nursery = Nursery::start(&[Concern::Pool, Concern::Sessions], LENIENT);
    for round in 1..=3 {
        let hold = nursery.hang(Concern::Pool);
        nursery.wait_for_generation(Concern::Pool, round + 1);
        assert_eq!(nursery.ask(Concern::Pool, Act, PATIENCE), Ok(()), "the successor");
        assert_eq!(nursery.ask(Concern::Sessions, Act, PATIENCE), Ok(()), "another concern");
        drop(hold);
        let zombies = &nursery.shelf(Concern::Pool).by_zombies;
        eventually("the old thread comes back", || (zombies.load(Ordering::SeqCst) >= round).then_some(()));
        // Long enough for the watchdog to see it, who then tolerates the next one.
        pause(SHORT);
        assert_eq!(
            nursery.shelf(Concern::Pool).slot.generation(),
            Some(round + 1),
            "its successor is listed"
        );
        assert_eq!(nursery.ask(Concern::Pool, Act, PATIENCE), Ok(()), "the successor, afterwards");
        assert_eq!(nursery.shelf(Concern::Pool).by_current.load(Ordering::SeqCst), round * 2);
    }
    let status = nursery.status(Concern::Pool);
    assert_eq!(
        status.exits.iter().sum::<u64>(),
        3,
        "a thread that comes back is no further exit: {status:?}"
    );
    nursery.end();
}

#[test]
fn nobody_finds_a_hung_actor_once_it_is_given_up() {
    // Time to look between the end and the successor.
    let limits =
        Limits { first_delay: Duration::from_secs(1), longest_delay: Duration::from_secs(1), ..LENIENT };
    let nursery = Nursery::start(&[Concern::Pool], limits);
    let hold = nursery.hang(Concern::Pool);
    eventually("the hang is noticed", || {
        (nursery.status(Concern::Pool).state == State::Waiting).then_some(())
    });
    // What is sent to a zombie is lost, and its sender would believe that it was taken.
    assert_eq!(nursery.ask(Concern::Pool, Act, PATIENCE), Err(Unavailable::Absent));
    nursery.wait_for_generation(Concern::Pool, 2);
    drop(hold);
    nursery.end();
}

#[test]
fn a_watchdog_hears_nothing_while_a_thread_hangs_that_nothing_was_done_about() {
    // Also where the overseer itself is late, which then forgives everyone: it has not looked.
    let limits = Limits { hang_after: Duration::from_millis(300), ..LENIENT };
    let board = Arc::new(Board::default());
    let shelf = Arc::<Shelf>::default();
    let (told, wrong) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let hangs_since: Arc<Mutex<Option<Instant>>> = Arc::default();
    let system = actix_rt::System::new();
    let watchdog = Watchdog::telling(Some(Duration::ZERO), {
        let (board, told, wrong) = (Arc::clone(&board), Arc::clone(&told), Arc::clone(&wrong));
        let hangs_since = Arc::clone(&hangs_since);
        move || {
            told.fetch_add(1, Ordering::SeqCst);
            let hangs =
                hangs_since.lock().unwrap().is_some_and(|since| since.elapsed() > limits.hang_after * 2);
            if hangs
                && board.of(Concern::Pool).generation == 1
                && board.of(Concern::Pool).state == State::Running
            {
                wrong.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let outcome = system.block_on(async {
        let slot = Arc::clone(&shelf.slot);
        let child = Child::new(Concern::Pool, &board, ToyBlueprint(Arc::clone(&shelf)), &slot);
        let overseer = Overseer::new(vec![child], Arc::clone(&board), limits, &log()).with_watchdog(watchdog);
        let told_of = |times: u64| {
            let told = Arc::clone(&told);
            async move {
                let start = Instant::now();
                while told.load(Ordering::SeqCst) < times && start.elapsed() < PATIENCE {
                    actix_rt::time::sleep(Duration::from_millis(10)).await;
                }
                assert!(told.load(Ordering::SeqCst) >= times, "the watchdog is not told");
            }
        };
        let story = async {
            told_of(2).await;
            let (_hold, until) = sync_channel::<()>(0);
            shelf.slot.try_send(HangUntil(until)).unwrap();
            *hangs_since.lock().unwrap() = Some(Instant::now());
            // The overseer's own thread stands still, longer than it may.
            pause(Duration::from_secs(2));
            let before = told.load(Ordering::SeqCst);
            told_of(before + 2).await;
            assert_eq!(board.of(Concern::Pool).exits.iter().sum::<u64>(), 1, "it was abandoned in the end");
        };
        overseer.run(story).await
    });
    assert_eq!((outcome, wrong.load(Ordering::SeqCst)), (Outcome::Shutdown, 0));
}

#[test]
fn two_threads_that_hang_at_a_time_are_too_many() {
    let nursery = Nursery::start(&[Concern::Pool, Concern::Sessions], LENIENT);
    let _holds = [nursery.hang(Concern::Pool), nursery.hang(Concern::Sessions)];
    let outcome = nursery.overseer.join().unwrap();
    assert!(
        matches!(&outcome, Outcome::Escalated(reason) if reason.contains("while another thread")),
        "{outcome:?}"
    );
}

#[test]
fn one_thread_that_hangs_with_a_lock_is_too_many() {
    let stuck_lock = Arc::new(AtomicBool::new(true));
    let nursery = Nursery::start_with(&[Concern::Pool], LENIENT, Arc::clone(&stuck_lock));
    // A lock that nobody who hangs holds is none of the overseer's business.
    pause(SHORT);
    nursery.wait_for_generation(Concern::Pool, 1);
    let _hold = nursery.hang(Concern::Pool);
    let outcome = nursery.overseer.join().unwrap();
    assert!(
        matches!(&outcome, Outcome::Escalated(reason) if reason.contains("holds a lock, which others need")),
        "{outcome:?}"
    );
}

#[test]
fn metrics_that_hangs_twice_stays_down_until_a_thread_comes_back() {
    let nursery = Nursery::start(&[Concern::Metrics, Concern::Pool], LENIENT);
    let first = nursery.hang(Concern::Metrics);
    nursery.wait_for_generation(Concern::Metrics, 2);
    let second = nursery.hang(Concern::Metrics);
    eventually("the second hang is noticed", || {
        (nursery.status(Concern::Metrics).state == State::Waiting).then_some(())
    });
    pause(SHORT);
    assert_eq!(nursery.status(Concern::Metrics).generation, 2, "a third thread was risked");
    drop(first);
    nursery.wait_for_generation(Concern::Metrics, 3);
    assert_eq!(nursery.ask(Concern::Metrics, Act, PATIENCE), Ok(()));
    drop(second);
    assert_eq!(nursery.status(Concern::Pool).generation, 1);
    nursery.end();
}

#[test]
fn a_panic_in_a_task_ends_the_actor_that_needs_it() {
    let nursery = Nursery::start(&[Concern::Routes], LENIENT);
    assert_eq!(nursery.ask(Concern::Routes, PanicInATask, PATIENCE), Ok(()));
    nursery.wait_for_generation(Concern::Routes, 2);
    let says = nursery.status(Concern::Routes).last_failure.unwrap();
    assert_eq!(says, "panicked: injected: panic in a task");
    nursery.end();
}

#[test]
fn a_hang_in_a_task_is_a_hang() {
    let nursery = Nursery::start(&[Concern::Routes], LENIENT);
    let (hold, until) = sync_channel(0);
    assert_eq!(nursery.ask(Concern::Routes, HangInATask(until), PATIENCE), Ok(()));
    nursery.wait_for_generation(Concern::Routes, 2);
    let says = nursery.status(Concern::Routes).last_failure.unwrap();
    assert!(says.starts_with("hung: "), "{says}");
    drop(hold);
    nursery.end();
}

#[test]
fn a_build_that_panics_or_never_ends_is_tried_again_and_costs_no_thread() {
    let limits = Limits { start_within: Duration::from_secs(1), ..LENIENT };
    let nursery = Nursery::start(&[Concern::Routes], limits);
    // Taken from the end.
    *nursery.shelf(Concern::Routes).next_builds.lock().unwrap() =
        vec![Build::NeverEnds, Build::NeverEnds, Build::NeverEnds, Build::Panics];
    assert_eq!(nursery.ask(Concern::Routes, PanicInATask, PATIENCE), Ok(()));
    eventually("it runs again", || {
        let status = nursery.status(Concern::Routes);
        (status.generation == 6 && status.state == State::Running).then_some(())
    });
    let status = nursery.status(Concern::Routes);
    assert_eq!(status.last_failure.unwrap(), "hung: not started after 1s");
    assert_eq!(status.exits, [0, 0, 2, 3, 0, 0]);
    nursery.end();
}

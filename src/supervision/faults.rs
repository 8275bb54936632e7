//! Points at which a test can make a concern fail.
//!
//! Without the feature `fault-injection` (release builds) all of this is nothing: [`Faults`] holds no data and
//! [`Faults::at`] is empty.

/// Where a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// While the actor is built: it refuses to start.
    Build,
    /// In `started()`: a panic.
    Started,
    /// In `stopped()`: a panic.
    Stopped,
    /// While the actor is dropped: a panic.
    Dropped,
    /// In a packet worker, with a batch in hand: a panic.
    Worker,
    /// In a packet worker, with a batch in hand: it never comes back.
    WorkerHang,
    /// Where the state's files are handed to the kernel: an error, as of a full disk.
    StateWrite,
    /// Where they are brought to the disk: an error.
    StateSync,
    /// Where a new snapshot takes the place of the old one: an error.
    StateRename,
    /// Where the state's journal is looked at: it is taken for too long, and a new snapshot is written.
    StateSnapshot,
    /// Where the state's journal has been written, and that is not noted yet: a panic.
    StateWritten,
}

impl Point {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Build,
        Self::Started,
        Self::Stopped,
        Self::Dropped,
        Self::Worker,
        Self::WorkerHang,
        Self::StateWrite,
        Self::StateSync,
        Self::StateRename,
        Self::StateSnapshot,
        Self::StateWritten,
    ];

    /// Whether it can strike in an actor of any concern. The others are the packet workers' and the state thread's.
    pub const fn is_of_actors(self) -> bool {
        matches!(self, Self::Build | Self::Started | Self::Stopped | Self::Dropped)
    }
}

#[cfg(feature = "fault-injection")]
mod armed {
    use super::Point;
    use fault_points::Armed;
    use std::time::Duration;

    /// The faults that are armed for one concern: how many times each point will still strike.
    #[derive(Debug, Default)]
    pub struct Faults(Armed<{ Point::ALL.len() }>);

    impl Faults {
        /// Makes `point` strike `times` times.
        pub fn arm(&self, point: Point, times: u32) {
            self.0.arm(point as usize, times);
        }

        /// How often `point` has struck: a test that never hit its point proves nothing.
        pub fn struck(&self, point: Point) -> u32 {
            self.0.struck(point as usize)
        }

        /// Whether `point` strikes now.
        pub fn strikes(&self, point: Point) -> bool {
            self.0.strikes(point as usize)
        }

        /// Panics here if `point` is armed.
        #[allow(clippy::panic, clippy::manual_assert, clippy::missing_panics_doc)] // the purpose of the feature
        pub fn at(&self, point: Point) {
            if self.strikes(point) {
                panic!("injected fault: {point:?}");
            }
        }
    }

    /// A message that every actor takes under this feature: fail while handling it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, actix::Message)]
    #[rtype(result = "()")]
    pub enum Inject {
        /// Panic in the handler.
        Panic,
        /// Never come back from the handler (for as long as a test may last).
        Hang,
        /// Come back from the handler as late as this.
        Late(Duration),
        /// Stop as if by own decision.
        Stop,
        /// Do nothing: shows that the actor answers.
        Nothing,
    }

    impl Inject {
        /// What a handler does with it.
        #[allow(clippy::panic, clippy::disallowed_methods, clippy::missing_panics_doc)] // the purpose of the feature
        pub fn strike<A: actix::Actor>(self, ctx: &mut A::Context)
        where
            A::Context: actix::ActorContext,
        {
            match self {
                Self::Panic => panic!("injected fault: panic in a handler"),
                Self::Hang => std::thread::sleep(Duration::from_mins(10)),
                Self::Late(time) => std::thread::sleep(time),
                Self::Stop => actix::ActorContext::stop(ctx),
                Self::Nothing => {}
            }
        }
    }
}

#[cfg(feature = "fault-injection")]
pub use armed::{Faults, Inject};

/// Nothing, in builds without fault injection.
#[cfg(not(feature = "fault-injection"))]
#[derive(Debug, Default)]
pub struct Faults;

#[cfg(not(feature = "fault-injection"))]
impl Faults {
    /// Never.
    #[allow(clippy::unused_self)]
    #[inline]
    pub const fn strikes(&self, _point: Point) -> bool {
        false
    }

    /// Nothing.
    #[inline]
    pub const fn at(&self, _point: Point) {}
}

/// Gives an actor its handler for injected faults; expands to nothing in builds without the feature.
#[macro_export]
macro_rules! accepts_faults {
    ($actor:ty) => {
        #[cfg(feature = "fault-injection")]
        impl Drop for $actor {
            fn drop(&mut self) {
                self.birth.faults().at($crate::supervision::faults::Point::Dropped);
            }
        }

        $crate::accepts_faults!($actor, dropped by itself);
    };
    // The actor has a `Drop` of its own, with the point in it.
    ($actor:ty, dropped by itself) => {
        #[cfg(feature = "fault-injection")]
        impl actix::Handler<$crate::supervision::faults::Inject> for $actor {
            type Result = ();
            fn handle(&mut self, fault: $crate::supervision::faults::Inject, ctx: &mut Self::Context) {
                fault.strike::<Self>(ctx);
            }
        }
    };
}

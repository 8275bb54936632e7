//! Millions of sessions, and what they weigh.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use fast_nat::Timestamp;
use fast_nat::nat64::{Inbound, Outbound, Timers};

use crate::router::Router;
use crate::traffic::{Shape, answer, opening, passing};

/// Sessions that begin in the same millisecond.
const PER_MILLISECOND: u32 = 100;

/// Sessions that begin between two calls of `expire`, and the most steps of one: nothing ends here, but timers turn.
const PER_TICK: u32 = 100 * PER_MILLISECOND;
const STEPS: usize = 100_000;

/// An engine that holds all sessions of a shape.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) router: Router,
    pub(crate) shape: Shape,
    /// The moment at which the last session began.
    pub(crate) now: Timestamp,
    /// Bytes that the engine and its pool hold.
    pub(crate) bytes: usize,
    /// Bytes of what is there before the first session.
    pub(crate) empty: usize,
    /// The most bytes per session while they grew, looked at whenever another sixteenth of them was there.
    pub(crate) worst_growing: f64,
    /// By number of the session.
    mapped: Vec<(Ipv4Addr, u16)>,
}

impl Held {
    pub(crate) fn new(shape: Shape) -> Result<Self> {
        Self::with_room(shape, shape.sessions)
    }

    /// In an engine that has room for others.
    pub(crate) fn with_room(shape: Shape, room: u32) -> Result<Self> {
        // What belongs to the benchmark is there before the engine.
        let mut mapped = vec![(Ipv4Addr::UNSPECIFIED, 0); shape.sessions as usize];
        let mut router = Router::new(room, Timers::DEFAULT)?;
        let empty = router.bytes();
        let mut now = Timestamp::from_millis(0);
        let step = (shape.sessions / 16).max(1);
        let mut worst_growing = 0.0_f64;
        for (number, mapped) in (0..shape.sessions).zip(&mut mapped) {
            now = Timestamp::from_millis(u64::from(number / PER_MILLISECOND));
            if number % PER_TICK == 0 {
                router.expire(now, STEPS)?;
            }
            let (flow, packet) = (shape.flow(number), passing(opening(shape.protocol)));
            let begun = router.begin(&flow, &packet, now)?;
            *mapped = (begun.address, begun.port);
            let answered = router.nat.inbound(&answer(&flow, begun.address, begun.port), &packet, now);
            ensure!(answered.is_ok_and(|reached| reached.session == begun.session), "an answer was refused");
            if (number + 1) % step == 0 && number >= shape.sessions / 4 {
                let bytes = router.bytes();
                worst_growing = worst_growing.max(bytes as f64 / f64::from(number + 1));
            }
        }
        let bytes = router.bytes();
        let held = router.sessions();
        ensure!(held == u64::from(shape.sessions), "{held} sessions are held instead of {}", shape.sessions);
        Ok(Self { router, shape, now, bytes, empty, worst_growing, mapped })
    }

    pub(crate) fn bytes_per_session(&self) -> f64 {
        self.bytes as f64 / f64::from(self.shape.sessions)
    }

    /// Packets of sessions that are chosen at random, each as likely as any other.
    pub(crate) fn outbound_keys(&self, count: usize, random: &mut fastrand::Rng) -> Vec<Outbound> {
        (0..count).map(|_| self.shape.flow(random.u32(..self.shape.sessions))).collect()
    }

    /// See [`Self::outbound_keys`].
    pub(crate) fn inbound_keys(&self, count: usize, random: &mut fastrand::Rng) -> Vec<Inbound> {
        let mut key = || {
            let number = random.u32(..self.shape.sessions);
            let (address, port) = self.mapped[number as usize];
            answer(&self.shape.flow(number), address, port)
        };
        (0..count).map(|_| key()).collect()
    }
}

//! Look-ups of sessions that are held, chosen at random.

use std::hint::black_box;

use anyhow::{Result, ensure};
use fast_nat::Timestamp;
use fast_nat::nat64::{Inbound, Nat64, Outbound, Signal};
use serde::Serialize;

use crate::clock::{Cost, Stopwatch};
use crate::held::Held;
use crate::traffic::{BATCH, passing};

/// Look-ups of one measurement: enough that the small engine's sessions are in the cache for nearly all of them.
pub(crate) const LOOKUPS: usize = 1 << 18;

/// How sessions are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Way {
    pub(crate) outbound: bool,
    /// The memory of all packets of a batch is asked for before the first is looked up, as the router does.
    pub(crate) batched: bool,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [
        Self { outbound: true, batched: true },
        Self { outbound: false, batched: true },
        Self { outbound: true, batched: false },
        Self { outbound: false, batched: false },
    ];

    pub(crate) fn name(self) -> &'static str {
        match (self.outbound, self.batched) {
            (true, true) => "outbound, in batches of 64",
            (false, true) => "inbound, in batches of 64",
            (true, false) => "outbound, one at a time",
            (false, false) => "inbound, one at a time",
        }
    }
}

/// The cost of one look-up, by round: in a small engine and in a large one.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) way: Way,
    pub(crate) small: Vec<Cost>,
    pub(crate) large: Vec<Cost>,
}

/// Both engines take turns, A B A B. Every measurement has sessions of its own choice.
pub(crate) fn measure(
    small: &Held,
    large: &Held,
    rounds: u32,
    random: &mut fastrand::Rng,
) -> Result<Vec<Figures>> {
    let mut figures = Way::ALL.map(|way| Figures { way, small: Vec::new(), large: Vec::new() });
    for _ in 0..rounds {
        for Figures { way, small: of_small, large: of_large } in &mut figures {
            of_small.push(run(*way, small, random)?);
            of_large.push(run(*way, large, random)?);
        }
    }
    Ok(figures.into())
}

fn run(way: Way, held: &Held, random: &mut fastrand::Rng) -> Result<Cost> {
    let nat = &held.router.nat;
    let (cost, found) = if way.outbound {
        let keys = held.outbound_keys(LOOKUPS, random);
        let mut clock = Stopwatch::start()?;
        let found = outbound(nat, &keys, way.batched, || held.now);
        (clock.lap()?, found)
    } else {
        let keys = held.inbound_keys(LOOKUPS, random);
        let mut clock = Stopwatch::start()?;
        let found = inbound(nat, &keys, way.batched, held.now);
        (clock.lap()?, found)
    };
    ensure!(found == LOOKUPS, "{found} of {LOOKUPS} sessions were found: {}", way.name());
    Ok(cost.each(LOOKUPS))
}

/// Says how many of the sessions were there. The clock is read once in a batch.
pub(crate) fn outbound(nat: &Nat64, keys: &[Outbound], batched: bool, now: impl Fn() -> Timestamp) -> usize {
    let packet = passing(Signal::None);
    let mut found = 0;
    for batch in keys.chunks(BATCH) {
        let now = now();
        if batched {
            nat.warm_outbound(batch, now);
        }
        for flow in batch {
            let mapped = nat.outbound(black_box(flow), &packet, now);
            found += usize::from(mapped.is_ok_and(|mapped| mapped.session.is_some() && !mapped.created));
        }
    }
    found
}

fn inbound(nat: &Nat64, keys: &[Inbound], batched: bool, now: Timestamp) -> usize {
    let packet = passing(Signal::None);
    let mut found = 0;
    for batch in keys.chunks(BATCH) {
        if batched {
            nat.warm_inbound(batch);
        }
        for flow in batch {
            let reached = nat.inbound(black_box(flow), &packet, now);
            found += usize::from(reached.is_ok_and(|reached| reached.session.is_some() && !reached.created));
        }
    }
    found
}

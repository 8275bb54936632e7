//! What this router promises of itself beside others, and whether this run has seen it kept.

use std::fmt;

use serde::Serialize;

use super::rows::ratio;
use crate::contenders::{Locks, Role};
use crate::course::Record;
use crate::loads::{Load, Way};
use crate::measure::Figure;
use crate::stats::Summary;

/// By so much two figures of equal contenders may differ in one run: "not worse" means "not worse by more".
pub(crate) const TOLERANCE: f64 = 0.05;

/// On which side of the bound the figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtLeast,
    AtMost,
    Below,
}

impl Limit {
    fn holds(self, figure: f64, bound: f64) -> bool {
        match self {
            Self::AtLeast => figure >= bound,
            Self::AtMost => figure <= bound,
            Self::Below => figure < bound,
        }
    }

    /// The figure that is harder to keep the promise with.
    fn worse(self, one: f64, other: f64) -> f64 {
        if self == Self::AtLeast { one.min(other) } else { one.max(other) }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
            Self::Below => "below",
        })
    }
}

/// A promise and what was measured. Only what this run was asked to measure is judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Promise {
    pub(crate) about: String,
    /// `None`: it was to be measured, and could not be.
    pub(crate) figure: Option<f64>,
    pub(crate) limit: Limit,
    pub(crate) bound: f64,
    pub(crate) is_kept: bool,
}

impl Promise {
    fn new(about: String, figure: Option<f64>, limit: Limit, bound: f64) -> Self {
        let is_kept = figure.is_some_and(|figure| limit.holds(figure, bound));
        Self { about, figure, limit, bound, is_kept }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.is_kept { "kept" } else { "MISSED" };
        let figure = self.figure.map_or_else(|| "no figure".to_owned(), |figure| format!("{figure:.3}"));
        write!(f, "{kept}: {} = {figure}, {} {:.3}", self.about, self.limit, self.bound)
    }
}

/// Whom this router is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Against {
    Bare,
    Forwarding,
    /// The best of the other translators.
    Best,
}

impl Against {
    fn role(self) -> Role {
        match self {
            Self::Bare => Role::Bare,
            Self::Forwarding => Role::Forwarding,
            Self::Best => Role::Other,
        }
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "the bare loop",
            Self::Forwarding => "kernel forwarding",
            Self::Best => "the best other translator",
        })
    }
}

/// The promises about these loads, of and against whoever was measured.
pub(crate) fn promises(records: &[Record], loads: &[Load]) -> Vec<Promise> {
    let judge = Judge { records, loads };
    let mut found = Vec::new();
    for way in [Way::Up, Way::Down] {
        let load = Load::Tcp { flows: 1, way };
        for role in [Role::Sessions, Role::Exclusive] {
            for (against, bound) in [(Against::Bare, 0.95), (Against::Forwarding, 0.60), (Against::Best, 3.0)]
            {
                found.extend(judge.compare(
                    role,
                    load,
                    Figure::GbitPerSecond,
                    against,
                    (Limit::AtLeast, bound),
                ));
            }
        }
    }
    let small = Load::Paced { payload: Load::SMALL };
    for (load, figure, against, limit, bound) in [
        (small, Figure::MachineMicros, Against::Bare, Limit::AtMost, 1.10),
        (small, Figure::MachineMicros, Against::Best, Limit::Below, 1.0),
        // The load alone is more than half of what a burst costs the machine, and no translator can change that.
        (Load::Bursts, Figure::MachineMicrosLessDirect, Against::Best, Limit::AtMost, 0.6),
        (Load::CardBursts, Figure::MachineMicrosLessDirect, Against::Best, Limit::AtMost, 0.6),
        (Load::Connections, Figure::ConnectionsPerSecond, Against::Best, Limit::AtLeast, 1.0 - TOLERANCE),
        (Load::RoundTrip, Figure::RoundTrip99, Against::Best, Limit::AtMost, 1.0 + TOLERANCE),
        (Load::RoundTripLoaded, Figure::RoundTrip99, Against::Best, Limit::AtMost, 1.0 + TOLERANCE),
    ] {
        found.extend(judge.compare(Role::Sessions, load, figure, against, (limit, bound)));
    }
    for role in [Role::Sessions, Role::Exclusive] {
        found.extend(judge.locks(role));
    }
    for role in [Role::Sessions, Role::Exclusive] {
        found.extend(judge.alone(role, Figure::IdlePercent, "% of one processor while it waits", 0.2));
        found.extend(judge.alone(role, Figure::MemoryAtStart, "MB resident after the start", 20.0));
    }
    found
}

struct Judge<'r> {
    records: &'r [Record],
    loads: &'r [Load],
}

impl Judge<'_> {
    fn of(&self, role: Role) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.role == role)
    }

    /// The median of the ratios of the rounds; against the best of several it is the one that is hardest to keep.
    fn compare(
        &self,
        role: Role,
        load: Load,
        figure: Figure,
        against: Against,
        (limit, bound): (Limit, f64),
    ) -> Option<Promise> {
        if !self.loads.contains(&load) {
            return None;
        }
        let own = self.of(role).next()?;
        self.of(against.role()).next()?;
        let ratios =
            self.of(against.role()).filter_map(|other| Some(ratio(own, other, load, figure)?.median));
        let figure = ratios.reduce(|one, other| limit.worse(one, other));
        let how = match load {
            Load::Bursts => " (sent one by one)",
            Load::CardBursts => " (as a card delivers them)",
            _ => "",
        };
        Some(Promise::new(format!("{load}{how}: {} / {against}", own.name), figure, limit, bound))
    }

    /// Judged by what was counted while new sessions arrived; of the whole run, most packets never meet a lock.
    fn locks(&self, role: Role) -> Option<Promise> {
        if !self.loads.contains(&Load::Connections) {
            return None;
        }
        let own = self.of(role).next()?;
        let about =
            format!("{}: {}, locks that were not free, of 10,000 packets", Load::Connections, own.name);
        let figure = own.locks_at_connections.and_then(Locks::of_ten_thousand);
        Some(Promise::new(about, figure, Limit::Below, 1.0))
    }

    /// Judged by the mean, as the table has it for this load.
    fn alone(&self, role: Role, figure: Figure, unit: &str, bound: f64) -> Option<Promise> {
        if !self.loads.contains(&Load::Idle) {
            return None;
        }
        let own = self.of(role).next()?;
        let figure = own.summary(Load::Idle, figure).map(|Summary { mean, .. }| mean);
        Some(Promise::new(format!("{}: {}, {unit}", Load::Idle, own.name), figure, Limit::Below, bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::course::tests::record;

    const UP: Load = Load::Tcp { flows: 1, way: Way::Up };

    fn tcp(name: &'static str, role: Role, rate: f64) -> Record {
        record(name, role, &[(UP, Figure::GbitPerSecond, &[rate])])
    }

    fn judged(records: &[Record], loads: &[Load]) -> Vec<(Option<f64>, bool)> {
        promises(records, loads).into_iter().map(|promise| (promise.figure, promise.is_kept)).collect()
    }

    #[test]
    fn the_fastest_of_the_others_is_what_counts() {
        let records = [
            tcp("this router", Role::Sessions, 12.0),
            tcp("tayga", Role::Other, 3.0),
            tcp("original", Role::Other, 6.0),
        ];
        assert_eq!(judged(&records, &[UP]), [(Some(2.0), false)]);
        assert_eq!(judged(&records[..2], &[UP]), [(Some(4.0), true)]);
    }

    #[test]
    fn a_cost_is_judged_by_the_cheapest_of_the_others() {
        let of = |name, role, figure: f64| {
            record(name, role, &[(Load::Bursts, Figure::MachineMicrosLessDirect, &[figure])])
        };
        let records = [
            of("this router", Role::Sessions, 2.0),
            of("tayga", Role::Other, 4.0),
            of("original", Role::Other, 2.5),
        ];
        assert_eq!(judged(&records, &[Load::Bursts]), [(Some(0.8), false)]);
        assert_eq!(
            judged(&records, &[Load::CardBursts]),
            [(None, false)],
            "these are bursts of another kind"
        );
    }

    #[test]
    fn only_what_was_asked_for_is_judged() {
        let ours = || tcp("this router", Role::Sessions, 12.0);
        assert!(judged(&[ours()], &[UP]).is_empty(), "nobody to compare with");
        assert!(judged(&[ours(), tcp("bare loop", Role::Bare, 12.0)], &[Load::Bursts]).is_empty());
        assert_eq!(judged(&[ours(), tcp("bare loop", Role::Bare, 12.0)], &[UP]), [(Some(1.0), true)]);
    }

    #[test]
    fn what_could_not_be_measured_is_missed() {
        let bare = record("bare loop", Role::Bare, &[]);
        assert_eq!(judged(&[tcp("this router", Role::Sessions, 12.0), bare], &[UP]), [(None, false)]);
    }

    #[test]
    fn a_bound_that_is_met_exactly_is_kept_unless_it_says_below() {
        assert!(Limit::AtLeast.holds(0.95, 0.95) && !Limit::AtLeast.holds(0.949, 0.95));
        assert!(Limit::AtMost.holds(1.1, 1.1) && !Limit::AtMost.holds(1.101, 1.1));
        assert!(!Limit::Below.holds(1.0, 1.0) && Limit::Below.holds(0.999, 1.0));
    }

    #[test]
    fn locks_are_judged_by_what_new_connections_met_and_not_by_the_whole_run() {
        let of = |connections, whole| {
            let mut record = record("this router", Role::Sessions, &[]);
            record.locks_at_connections = connections;
            record.locks = Some(whole);
            record
        };
        let (many, few) =
            (Locks { contended: 2, packets: 10_000 }, Locks { contended: 2, packets: 10_000_000 });
        let loads = [Load::Connections];
        assert_eq!(judged(&[of(Some(many), few)], &loads), [(Some(2.0), false)]);
        assert_eq!(judged(&[of(Some(few), many)], &loads), [(Some(0.002), true)]);
        assert_eq!(judged(&[of(None, few)], &loads), [(None, false)], "it was to be counted, and was not");
        assert!(judged(&[of(None, few)], &[UP]).is_empty(), "nothing was to be counted");
    }

    #[test]
    fn waiting_is_judged_of_both_ways_to_share() {
        let of = |role, busy: f64, memory: f64| {
            record(
                "one",
                role,
                &[(Load::Idle, Figure::IdlePercent, &[busy]), (Load::Idle, Figure::MemoryAtStart, &[memory])],
            )
        };
        let records = [of(Role::Sessions, 0.1, 19.0), of(Role::Exclusive, 0.2, 21.0)];
        let kept: Vec<_> = judged(&records, &[Load::Idle]).into_iter().map(|(_, kept)| kept).collect();
        assert_eq!(kept, [true, true, false, false]);
    }

    #[test]
    fn work_that_comes_every_few_seconds_counts_while_waiting() {
        let busy: &[f64] = &[0.1, 0.1, 0.1, 0.1, 0.7];
        let records = [record("one", Role::Sessions, &[(Load::Idle, Figure::IdlePercent, busy)])];
        let [(Some(figure), false), _] = judged(&records, &[Load::Idle])[..] else {
            panic!("it was {:?}", judged(&records, &[Load::Idle]))
        };
        assert!((figure - 0.22).abs() < 1e-9, "{figure}");
    }
}

//! What is measured: the loads, their names, and how long each takes.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::load::search;

/// Which way the bytes of a TCP connection go, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Up,
    Down,
}

/// One thing that is measured. Sizes are bytes of UDP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// So many TCP connections at a time, by iperf3.
    Tcp { flows: u8, way: Way },
    /// Datagrams at [`Load::RATE`], each on its own: what one costs.
    Paced { payload: u16 },
    /// The same rate of datagrams of [`Load::SMALL`] bytes in bursts of [`Load::BURST`], sent one by one.
    Bursts,
    /// The same bursts as a network card delivers them: each is there at once.
    CardBursts,
    /// The highest rate of datagrams without loss.
    Throughput { payload: u16 },
    /// New TCP connections.
    Connections,
    /// Round-trip times while nothing else is under way.
    RoundTrip,
    /// Round-trip times beside a stream of small datagrams.
    RoundTripLoaded,
    /// Nothing: what a contender takes while it waits.
    Idle,
}

impl Load {
    /// All of them, in the order in which they are measured.
    pub(crate) const ALL: [Self; 16] = [
        Self::Tcp { flows: 1, way: Way::Up },
        Self::Tcp { flows: 1, way: Way::Down },
        Self::Tcp { flows: 8, way: Way::Up },
        Self::Tcp { flows: 8, way: Way::Down },
        Self::Paced { payload: 64 },
        Self::Paced { payload: 512 },
        Self::Paced { payload: 1400 },
        Self::Bursts,
        Self::CardBursts,
        Self::Throughput { payload: 64 },
        Self::Throughput { payload: 512 },
        Self::Throughput { payload: 1400 },
        Self::Connections,
        Self::RoundTrip,
        Self::RoundTripLoaded,
        Self::Idle,
    ];
    /// Datagrams per second where a fixed rate is sent.
    pub(crate) const RATE: u64 = 40_000;
    /// Datagrams in a burst.
    pub(crate) const BURST: u64 = 8;
    /// The payload of a small datagram.
    pub(crate) const SMALL: u16 = 64;
    /// Echoes per second.
    pub(crate) const ECHOES: u64 = 1000;

    /// Those whose name contains one of the words; all of them without a word. Round-trip times under load need the rate
    /// that the search finds, so it comes along.
    pub(crate) fn chosen(words: &[String]) -> Vec<Self> {
        let is_asked = |load: Self| {
            words.is_empty() || words.iter().any(|word| load.to_string().contains(word.as_str()))
        };
        let search = Self::Throughput { payload: Self::SMALL };
        Self::ALL
            .into_iter()
            .filter(|load| is_asked(*load) || (*load == search && is_asked(Self::RoundTripLoaded)))
            .collect()
    }

    /// Whether it is measured in the rounds; the others wait for a figure of them, or frame them.
    pub(crate) fn is_in_the_rounds(self) -> bool {
        !matches!(self, Self::RoundTripLoaded | Self::Idle)
    }

    /// For how long it is measured, in seconds. Costs and round-trip times take twice as long as is asked for: the machine's
    /// idle time is counted in steps of 10 ms, and the 99.9th percentile wants samples.
    pub(crate) fn seconds(self, asked: u32) -> f64 {
        match self {
            Self::Tcp { .. } | Self::Connections => f64::from(asked),
            Self::Paced { .. }
            | Self::Bursts
            | Self::CardBursts
            | Self::RoundTrip
            | Self::RoundTripLoaded => 2.0 * f64::from(asked),
            Self::Throughput { .. } => f64::from(search::steps()) * trial_seconds(asked),
            Self::Idle => IDLE_SECONDS,
        }
    }
}

/// How long the machine is left alone to see what a contender takes while it waits, and in how many samples.
pub(crate) const IDLE_SECONDS: f64 = 5.0;
pub(crate) const IDLE_SAMPLES: u32 = 5;

/// How long one rate of the search is sent, in seconds.
pub(crate) fn trial_seconds(asked: u32) -> f64 {
    0.5 * f64::from(asked)
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { flows, way: Way::Up } => write!(f, "tcp-{flows}-up"),
            Self::Tcp { flows, way: Way::Down } => write!(f, "tcp-{flows}-down"),
            Self::Paced { payload } => write!(f, "udp-{payload}"),
            Self::Bursts => f.write_str("bursts"),
            Self::CardBursts => f.write_str("bursts-card"),
            Self::Throughput { payload } => write!(f, "throughput-{payload}"),
            Self::Connections => f.write_str("connections"),
            Self::RoundTrip => f.write_str("rtt-alone"),
            Self::RoundTripLoaded => f.write_str("rtt-loaded"),
            Self::Idle => f.write_str("idle"),
        }
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_word_chooses_all_loads_whose_name_contains_it() {
        assert_eq!(Load::chosen(&[]), Load::ALL);
        let bursts = [Load::Bursts, Load::CardBursts];
        assert_eq!(Load::chosen(&words(&["tcp-8", "bursts"])), [&Load::ALL[2..4], &bursts[..]].concat());
        assert!(Load::chosen(&words(&["nothing"])).is_empty());
    }

    #[test]
    fn round_trips_under_load_bring_the_search_along_that_finds_their_load() {
        let found = Load::chosen(&words(&["rtt-loaded"]));
        assert_eq!(found, [Load::Throughput { payload: 64 }, Load::RoundTripLoaded]);
        assert_eq!(Load::chosen(&words(&["rtt-alone"])), [Load::RoundTrip]);
    }

    #[test]
    fn no_two_loads_have_the_same_name() {
        let names: std::collections::BTreeSet<_> = Load::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), Load::ALL.len());
    }
}

//! The lines of the table.

use crate::course::Record;
use crate::loads::{Load, Way};
use crate::measure::Figure;
use crate::stats::Summary;

/// A line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) load: Load,
    pub(crate) figure: Figure,
    /// How the figure is shown.
    pub(crate) decimals: usize,
    pub(crate) divisor: f64,
    /// Whether its ratio to the first column says something.
    pub(crate) has_ratio: bool,
    /// Whether the mean is told, and not the median: of what happens less than once in a sample, the median says nothing.
    pub(crate) is_mean: bool,
}

impl Row {
    fn new(title: impl Into<String>, load: Load, figure: Figure, decimals: usize) -> Self {
        Self { title: title.into(), load, figure, decimals, divisor: 1.0, has_ratio: true, is_mean: false }
    }

    fn thousands(self) -> Self {
        Self { divisor: 1000.0, ..self }
    }

    fn alone(self) -> Self {
        Self { has_ratio: false, ..self }
    }

    fn mean(self) -> Self {
        Self { is_mean: true, ..self.alone() }
    }

    /// The figure as it is shown.
    pub(crate) fn summary(&self, record: &Record) -> Option<Summary> {
        let scale = |(_, figure)| figure / self.divisor;
        Summary::of(record.by_round(self.load, self.figure).into_iter().map(scale))
    }
}

/// How often the base's figure goes into this one, round by round. What is left of a cost without the load's own is below zero where
/// the machine did something else meanwhile: such a round has no ratio, and keeps no promise.
pub(crate) fn ratio(record: &Record, base: &Record, load: Load, figure: Figure) -> Option<Summary> {
    let base = base.by_round(load, figure);
    let figures = record.by_round(load, figure).into_iter();
    Summary::of(figures.filter_map(|(round, figure)| {
        let base = base.get(&round).filter(|base| **base > 0.0)?;
        (figure >= 0.0).then_some(figure / base)
    }))
}

/// All lines about these loads.
pub(crate) fn rows(loads: &[Load]) -> Vec<Row> {
    loads.iter().copied().flat_map(rows_of).collect()
}

fn rows_of(load: Load) -> Vec<Row> {
    let row = |title: &str, figure, decimals| Row::new(title, load, figure, decimals);
    match load {
        Load::Tcp { flows, way } => {
            let count = if flows == 1 { "one flow".to_owned() } else { format!("{flows} flows") };
            let way = if way == Way::Up { "client to server" } else { "server to client" };
            vec![Row::new(format!("TCP, {count}, {way}, Gbit/s"), load, Figure::GbitPerSecond, 2)]
        }
        Load::Paced { payload } => cost(load, &format!("UDP of {payload} bytes")),
        Load::Bursts => cost(load, &bursts("sent one by one")),
        Load::CardBursts => cost(load, &bursts("as a card delivers them")),
        Load::Throughput { payload } => {
            let title = format!("UDP of {payload} bytes without loss, 1000/s");
            vec![Row::new(title, load, Figure::LosslessPerSecond, 1).thousands()]
        }
        Load::Connections => vec![
            row("New TCP connections, 1000/s", Figure::ConnectionsPerSecond, 2).thousands(),
            row("... not completed", Figure::FailedConnections, 0).alone(),
            row("... processor µs of the process per connection", Figure::ProcessMicros, 1),
        ],
        Load::RoundTrip => round_trip(load, "Round trip alone"),
        Load::RoundTripLoaded => {
            let mut rows = round_trip(load, "Round trip beside a stream");
            rows.push(row("... the stream, 1000/s", Figure::BackgroundPerSecond, 1).thousands().alone());
            rows.push(row("... the stream's loss, %", Figure::BackgroundLossPercent, 2).alone());
            rows
        }
        Load::Idle => vec![
            row("Waiting, % of one processor, after the start (mean)", Figure::IdlePercent, 3).mean(),
            row("... after all loads (mean)", Figure::IdlePercentAtEnd, 3).mean(),
            row("... voluntary context switches per second (mean)", Figure::WakeUpsPerSecond, 1).mean(),
            row("... of the workers, after the start (mean)", Figure::WorkerWakeUpsPerSecond, 1).mean(),
            row("... of the workers, after all loads (mean)", Figure::WorkerWakeUpsPerSecondAtEnd, 1).mean(),
            row("Resident memory after the start, MB", Figure::MemoryAtStart, 1),
            row("... after all loads, MB", Figure::MemoryAtEnd, 1),
        ],
    }
}

fn bursts(how: &str) -> String {
    format!("UDP of {} bytes in bursts of {}, {how}", Load::SMALL, Load::BURST)
}

fn cost(load: Load, title: &str) -> Vec<Row> {
    vec![
        Row::new(format!("{title}, µs of the machine each"), load, Figure::MachineMicros, 2),
        Row::new("... less what the load alone costs", load, Figure::MachineMicrosLessDirect, 2),
        Row::new("... µs of the process each", load, Figure::ProcessMicros, 2),
        Row::new("... sent, 1000/s", load, Figure::SentPerSecond, 2).thousands().alone(),
        Row::new("... lost, %", load, Figure::LossPercent, 3).alone(),
    ]
}

fn round_trip(load: Load, title: &str) -> Vec<Row> {
    vec![
        Row::new(format!("{title}, median, µs"), load, Figure::RoundTripMedian, 0),
        Row::new("... 99th percentile, µs", load, Figure::RoundTrip99, 0),
        Row::new("... 99.9th percentile, µs", load, Figure::RoundTrip999, 0),
        Row::new("... lost, %", load, Figure::LossPercent, 3).alone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::Role;
    use crate::course::tests::record;

    #[test]
    fn a_ratio_is_formed_within_a_round() {
        let load = Load::Bursts;
        let base = record("base", Role::Sessions, &[(load, Figure::MachineMicros, &[1.0, 2.0, 0.0])]);
        let other = record("other", Role::Other, &[(load, Figure::MachineMicros, &[2.0, 3.0, 9.0])]);
        let found = ratio(&other, &base, load, Figure::MachineMicros).unwrap();
        assert_eq!((found.min, found.max, found.rounds), (1.5, 2.0, 2), "a base of zero has no ratio");
    }

    #[test]
    fn a_cost_below_zero_has_no_ratio() {
        let (load, figure) = (Load::Bursts, Figure::MachineMicrosLessDirect);
        let base = record("base", Role::Sessions, &[(load, figure, &[-1.0, 2.0, 2.0])]);
        let other = record("other", Role::Other, &[(load, figure, &[3.0, -3.0, 1.0])]);
        let found = ratio(&other, &base, load, figure).unwrap();
        assert_eq!((found.median, found.rounds), (0.5, 1));
    }

    #[test]
    fn each_load_has_a_line_and_thousands_are_shown_as_such() {
        for load in Load::ALL {
            assert!(!rows(&[load]).is_empty());
        }
        let load = Load::Throughput { payload: 64 };
        let found = record("one", Role::Other, &[(load, Figure::LosslessPerSecond, &[120_000.0])]);
        assert_eq!(rows(&[load])[0].summary(&found).map(|summary| summary.median), Some(120.0));
    }
}

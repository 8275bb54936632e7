//! Everything, for programs.

use serde::Serialize;

use super::Circumstances;
use super::promises::Promise;
use super::rows::{ratio, rows};
use crate::course::Record;
use crate::loads::Load;
use crate::measure::Figure;
use crate::stats::Summary;

#[derive(Serialize)]
struct Report<'r> {
    circumstances: &'r Circumstances,
    promises: &'r [Promise],
    summary: Vec<Line<'r>>,
    round_trips: Vec<RoundTrips<'r>>,
    contenders: &'r [Record],
}

/// A figure of a contender, in the units that its name says.
#[derive(Serialize)]
struct Line<'r> {
    contender: &'r str,
    load: Load,
    figure: Figure,
    #[serde(flatten)]
    summary: Option<Summary>,
    /// To the first contender.
    ratio: Option<Summary>,
}

/// The round-trip times of all rounds together, in microseconds.
#[derive(Serialize)]
struct RoundTrips<'r> {
    contender: &'r str,
    load: Load,
    samples: u64,
    /// Pairs of percentile and time.
    percentiles: Vec<(f64, f64)>,
}

const PERCENTILES: [f64; 9] = [0.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// The report as text.
pub(crate) fn json(
    circumstances: &Circumstances,
    promises: &[Promise],
    records: &[Record],
    loads: &[Load],
) -> serde_json::Result<String> {
    let lines = rows(loads);
    let summary = records.iter().flat_map(|record| {
        lines.iter().map(|row| Line {
            contender: record.name,
            load: row.load,
            figure: row.figure,
            summary: record.summary(row.load, row.figure),
            ratio: records.first().and_then(|base| ratio(record, base, row.load, row.figure)),
        })
    });
    let summary = summary.filter(|line| line.summary.is_some()).collect();
    let trips = |record| [Load::RoundTrip, Load::RoundTripLoaded].map(|load| round_trips(record, load));
    let round_trips = records.iter().flat_map(trips).flatten().collect();
    serde_json::to_string_pretty(&Report {
        circumstances,
        promises,
        summary,
        round_trips,
        contenders: records,
    })
}

fn round_trips(record: &Record, load: Load) -> Option<RoundTrips<'_>> {
    let times = record.times(load)?;
    let at = |percentile| (percentile, times.value_at_percentile(percentile) as f64 / 1000.0);
    let percentiles = PERCENTILES.into_iter().map(at).collect();
    Some(RoundTrips { contender: record.name, load, samples: times.len(), percentiles })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::Role;
    use crate::course::tests::record;

    #[test]
    fn samples_and_summaries_are_both_there() {
        let ours =
            record("this router", Role::Sessions, &[(Load::Bursts, Figure::MachineMicros, &[3.0, 5.0])]);
        let about = Circumstances {
            rounds: 2,
            seconds: 1,
            kernel: String::new(),
            processors: 2,
            processor: String::new(),
            iperf3: String::new(),
            load_average: [String::new(), String::new()],
            took: 0,
        };
        let text = json(&about, &[], &[ours], &[Load::Bursts]).unwrap();
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["summary"][0]["median"], 4.0);
        assert_eq!(found["summary"][0]["figure"], "machine_micros");
        assert_eq!(found["contenders"][0]["measurements"][1]["sample"]["machine_micros"], 5.0);
        assert_eq!(found["contenders"][0]["measurements"][1]["load"], "bursts");
    }
}

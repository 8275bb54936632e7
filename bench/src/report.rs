//! The table for people and the JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::course::Record;
use crate::measure::{Load, Sample};
use crate::stats::Summary;

/// Where and how it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Circumstances {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    pub(crate) processor: String,
    pub(crate) iperf3: String,
    /// The load average of the last minute, when it began and when it ended.
    pub(crate) load_average: [String; 2],
}

/// A line of the table.
struct Row {
    title: &'static str,
    load: Load,
    decimals: usize,
    figure: fn(&Sample) -> Option<f64>,
}

const ROWS: [Row; 12] = [
    row("TCP, client to server, Gbit/s", Load::Upload, 2, |sample| Some(sample.gbit_per_second)),
    row("... processor µs per packet", Load::Upload, 2, |sample| Some(sample.cpu_us_per_packet)),
    row("TCP, server to client, Gbit/s", Load::Download, 2, |sample| Some(sample.gbit_per_second)),
    row("... processor µs per packet", Load::Download, 2, |sample| Some(sample.cpu_us_per_packet)),
    row("UDP flood, sent, 1000/s", Load::Flood, 1, |sample| sample.sent_per_second.map(thousands)),
    row("... translated, 1000/s", Load::Flood, 1, translated),
    row("... received, 1000/s", Load::Flood, 1, |sample| sample.received_per_second.map(thousands)),
    row("... lost, %", Load::Flood, 1, |sample| sample.loss_percent),
    row("... processor µs per packet", Load::Flood, 2, |sample| Some(sample.cpu_us_per_packet)),
    row("UDP at a fixed rate, received, 1000/s", Load::Paced, 1, |sample| {
        sample.received_per_second.map(thousands)
    }),
    row("... lost, %", Load::Paced, 2, |sample| sample.loss_percent),
    row("... processor µs per packet", Load::Paced, 2, |sample| Some(sample.cpu_us_per_packet)),
];

const fn row(title: &'static str, load: Load, decimals: usize, figure: fn(&Sample) -> Option<f64>) -> Row {
    Row { title, load, decimals, figure }
}

fn thousands(figure: f64) -> f64 {
    figure / 1000.0
}

/// Packets that the translator wrote while the client sent.
fn translated(sample: &Sample) -> Option<f64> {
    sample.datagram_seconds.map(|seconds| thousands(sample.translated as f64 / seconds))
}

/// The table: medians, ranges, and the median of the ratios to the first column, round by round.
pub(crate) fn table(records: &[Record]) -> String {
    let mut text = String::from("| |");
    for record in records {
        let _ = write!(text, " {} |", record.name);
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(records.len()));
    let mut above = vec![String::new(); records.len()];
    for row in &ROWS {
        let _ = write!(text, "| {} |", row.title);
        for (column, record) in records.iter().enumerate() {
            let cell = cell(record, row, records.first().filter(|_| column > 0));
            let again = cell.starts_with("failed") && cell == above[column];
            let _ = write!(text, " {} |", if again { "failed, as above" } else { &cell });
            above[column] = cell;
        }
        text.push('\n');
    }
    text
}

fn summary(record: &Record, row: &Row) -> Option<Summary> {
    Summary::of(record.by_round(row.load, row.figure).into_values())
}

/// How often the first column's figure goes into this one, round by round.
fn ratio(record: &Record, base: &Record, row: &Row) -> Option<Summary> {
    let base = base.by_round(row.load, row.figure);
    let figures = record.by_round(row.load, row.figure).into_iter();
    Summary::of(figures.filter_map(|(round, figure)| {
        let base = base.get(&round).filter(|base| **base > 0.0)?;
        Some(figure / base)
    }))
}

fn cell(record: &Record, row: &Row, base: Option<&Record>) -> String {
    let Some(found) = summary(record, row) else {
        let reason = record.failure_of(row.load).unwrap_or("no figure");
        return format!("failed: {}", reason.replace(['|', '\n'], " "));
    };
    let decimals = row.decimals;
    let mut text =
        format!("**{:.decimals$}** ({:.decimals$}–{:.decimals$})", found.median, found.min, found.max);
    if let Some(ratio) = base.and_then(|base| ratio(record, base, row)) {
        let _ = write!(text, " ×{:.2}", ratio.median);
    }
    let missing =
        record.measurements.iter().filter(|other| other.load == row.load && other.sample.is_none()).count();
    if missing > 0 {
        let _ = write!(text, ", failed {missing} times: {}", record.failure_of(row.load).unwrap_or_default());
    }
    text
}

/// Everything, as JSON.
pub(crate) fn json(circumstances: &Circumstances, records: &[Record]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Report<'r> {
        circumstances: &'r Circumstances,
        summary: Vec<Line<'r>>,
        translators: &'r [Record],
    }
    #[derive(Serialize)]
    struct Line<'r> {
        translator: &'r str,
        load: Load,
        figure: &'r str,
        #[serde(flatten)]
        summary: Option<Summary>,
        ratio: Option<Summary>,
    }
    let summary = records.iter().flat_map(|record| {
        let line = |row: &'static Row| Line {
            translator: record.name,
            load: row.load,
            figure: row.title.trim_start_matches("... "),
            summary: summary(record, row),
            ratio: records.first().and_then(|base| ratio(record, base, row)),
        };
        ROWS.iter().map(line).collect::<Vec<_>>()
    });
    serde_json::to_string_pretty(&Report { circumstances, summary: summary.collect(), translators: records })
}

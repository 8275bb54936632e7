//! The table, and whether it is as promised.
#![allow(clippy::print_stdout)]

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::packets::{Case, Direction, Transport};
use crate::rounds::Round;
use crate::stats::Summary;

/// How many times faster than the original this crate has to be, by the length of the packet.
const PROMISED: [(usize, f64); 2] = [(64, 3.0), (1400, 15.0)];
/// How much more than a packet of 64 bytes one of 1400 bytes may cost: nothing, but for noise.
const LENGTH_COST: f64 = 1.5;

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    case: Case,
    /// Header fields that the original sets otherwise.
    deviations: Vec<String>,
    original: Summary,
    translation: Summary,
    in_place: Summary,
    refresh_only: Summary,
    copied_in: Summary,
    /// With a description of the packet, less what writing the headers afresh costs, as the translation.
    described: Summary,
    /// The same with a partial checksum.
    partial: Summary,
    /// The original's cost by this crate's of the same round.
    ratio_translation: Summary,
    ratio_in_place: Summary,
    ratio_copied_in: Summary,
    rounds: Vec<Round>,
}

impl Row {
    pub(crate) fn new(case: Case, deviations: Vec<String>, rounds: Vec<Round>) -> Result<Self> {
        let summary = |figure: fn(&Round) -> f64| {
            Summary::of(rounds.iter().map(figure)).context("no round was measured")
        };
        Ok(Self {
            case,
            deviations,
            original: summary(|round| round.original)?,
            translation: summary(Round::translation)?,
            in_place: summary(|round| round.in_place)?,
            refresh_only: summary(|round| round.refresh_only)?,
            copied_in: summary(|round| round.copied_in)?,
            described: summary(Round::described)?,
            partial: summary(Round::partial)?,
            ratio_translation: summary(|round| round.original / round.translation())?,
            ratio_in_place: summary(|round| round.original / round.in_place)?,
            ratio_copied_in: summary(|round| round.original / round.copied_in)?,
            rounds,
        })
    }
}

/// A promise, and what was measured.
#[derive(Debug, Serialize)]
struct Promise {
    about: String,
    measured: f64,
    promised: f64,
    is_met: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    promises: Vec<Promise>,
}

impl Report {
    pub(crate) fn new(rows: Vec<Row>) -> Result<Self> {
        let mut promises = Vec::new();
        for (size, promised) in PROMISED {
            // The worst of the directions and protocols counts.
            let measured = (rows.iter().filter(|row| row.case.size == size))
                .map(|row| row.ratio_translation.median)
                .min_by(f64::total_cmp)
                .with_context(|| format!("no packet of {size} bytes was measured"))?;
            promises.push(Promise {
                about: format!("times faster than the original at {size} bytes, at least"),
                measured,
                promised,
                is_met: measured >= promised,
            });
        }
        let mut length_cost = 0.0_f64;
        for direction in [Direction::SixToFour, Direction::FourToSix] {
            for transport in [Transport::Udp, Transport::Tcp] {
                let cost = |size| {
                    let case = Case { direction, transport, size };
                    rows.iter().find(|row| row.case == case).map(|row| row.translation.median)
                };
                let (short, long) = cost(64).zip(cost(1400)).context("a packet was not measured")?;
                length_cost = length_cost.max(long / short);
            }
        }
        promises.push(Promise {
            about: "times the cost of 64 bytes at 1400 bytes, at most".to_owned(),
            measured: length_cost,
            promised: LENGTH_COST,
            is_met: length_cost <= LENGTH_COST,
        });
        Ok(Self { rows, promises })
    }

    pub(crate) fn is_as_promised(&self) -> bool {
        self.promises.iter().all(|promise| promise.is_met)
    }

    pub(crate) fn print(&self) {
        println!(
            "ns per packet: median (least to most) of the rounds; ratio: median of original / this crate\n"
        );
        println!(
            "{:<22}|{:^24}|{:^24}|{:^10}|{:^10}|{:^27}",
            "bytes of the packet",
            "original",
            "translation",
            "in place",
            "copied in",
            "ratios of these three"
        );
        for row in &self.rows {
            println!(
                "{:<22}| {:<23}| {:<23}| {:>8.1} | {:>8.1} | {:>7.1}x {:>7.1}x {:>7.1}x",
                row.case.to_string(),
                spread(row.original),
                spread(row.translation),
                row.in_place.median,
                row.copied_in.median,
                row.ratio_translation.median,
                row.ratio_in_place.median,
                row.ratio_copied_in.median
            );
        }
        println!("\nWith a description in front of the packet, as a device with offloads has it\n");
        println!(
            "{:<22}|{:^24}|{:^24}|{:^24}",
            "bytes of the packet", "no description", "it says nothing", "partial checksum"
        );
        for row in &self.rows {
            println!(
                "{:<22}| {:<23}| {:<23}| {:<23}",
                row.case.to_string(),
                spread(row.translation),
                spread(row.described),
                spread(row.partial)
            );
        }
        println!("\nWhere the original deviates (ports, addresses, transport checksums and payload agree):");
        let mut printed: Option<&Row> = None;
        for row in &self.rows {
            if printed.is_none_or(|before| before.deviations != row.deviations) {
                println!("  from {}: {}", row.case, row.deviations.join("; "));
                printed = Some(row);
            }
        }
        println!();
        for Promise { about, measured, promised, is_met } in &self.promises {
            let met = if *is_met { "as promised" } else { "NOT as promised" };
            println!("{measured:.2} {about} {promised}: {met}");
        }
    }
}

fn spread(of: Summary) -> String {
    format!("{:>7.1} ({:.1} to {:.1})", of.median, of.min, of.max)
}

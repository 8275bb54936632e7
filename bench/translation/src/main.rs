//! Measures the translation of this crate and of the original `interproto` from crates.io in turn.
#![allow(clippy::print_stdout)]

#[path = "../../src/stats.rs"]
mod stats;

mod compare;
mod contenders;
mod packets;
mod report;
mod rounds;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::packets::Case;

/// Translates the same packets with this crate and with the original, in turn, and says what each costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each translator is measured at each packet.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(7..))]
    rounds: u32,
    /// How long one measurement takes, in milliseconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    milliseconds: u64,
    /// Where all figures go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/report.json"))]
    json: PathBuf,
    /// End with 1 if the promised ratios are not met.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode> {
    ensure!(!cfg!(debug_assertions), "only figures of a release build mean something: cargo run --release");
    let arguments = Arguments::parse();
    let each = Duration::from_millis(arguments.milliseconds);
    let mut rows = Vec::new();
    for case in Case::all() {
        let packet = case.packet()?;
        ensure!(packet.len() == case.size, "{case}: the packet has {} bytes", packet.len());
        let deviations = compare::deviations(case, &packet)?;
        let figures = rounds::measure(case, &packet, arguments.rounds, each)?;
        rows.push(report::Row::new(case, deviations, figures)?);
    }
    let report = report::Report::new(rows)?;
    report.print();
    if let Some(directory) = arguments.json.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(&arguments.json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", arguments.json.display()))?;
    println!("\nAll figures: {}", arguments.json.display());
    Ok(if arguments.check && !report.is_as_promised() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

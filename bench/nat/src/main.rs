//! Measures the NAT64 engine: what sessions weigh, what looking one up and making one costs, and what a lease costs.
#![allow(clippy::print_stdout)]

#[path = "../../src/stats.rs"]
mod stats;

mod arrivals;
mod clock;
mod held;
mod leases;
mod lookups;
mod machine;
mod parallel;
mod report;
mod router;
mod suite;
mod traffic;
mod weight;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::suite::{Part, Suite};

/// Measures the NAT64 engine, in virtual time and without a packet.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each figure is measured.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(7..=99))]
    rounds: u32,
    /// Sessions of the large engine. The bounds are promised for the default.
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u32).range(100_000..=4_500_000))]
    sessions: u32,
    /// Only these parts; may be repeated.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Chooses who talks to whom.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where all figures go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/report.json"))]
    json: PathBuf,
    /// End with 1 if a bound is not kept.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode> {
    ensure!(!cfg!(debug_assertions), "only figures of a release build mean something: cargo run --release");
    let arguments = Arguments::parse();
    let mut suite = Suite::new(arguments.rounds, arguments.sessions, arguments.seed)?;
    for part in Part::ALL {
        if arguments.only.is_empty() || arguments.only.contains(&part) {
            suite.run(part)?;
        }
    }
    suite.machine()?;
    let report = suite.finish()?;
    if let Some(directory) = arguments.json.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(&arguments.json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", arguments.json.display()))?;
    println!("\nAll figures: {}", arguments.json.display());
    Ok(if arguments.check && !report.is_as_promised() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

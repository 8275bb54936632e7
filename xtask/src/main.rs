//! The project's named verbs: everything that `.ci/run` does, one at a time. `cargo xtask` lists them.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a terminal, and no part of the router"
)]

mod interop;
mod ledger;
mod packages;
mod project;
mod verbs;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::project::Project;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's named verbs", arg_required_else_help = true)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check that the code is formatted (`cargo fmt --all` formats it)
    Fmt,
    /// Check dependencies: duplicate versions, licences, sources
    Deny,
    /// Check that every test named in the RFC ledger exists, and that what is kept of RFC 7915 has one
    Ledger,
    /// Lint everything, tests and all features included; a warning is an error
    Clippy,
    /// Build the documentation; a warning is an error
    Doc,
    /// Prove that `rfc6052` and `interproto` need neither std nor an allocator
    NoStd,
    /// Run all tests: `cargo test --workspace`; as root with the kernel tests
    Test,
    /// Build the release binary and check that no fault can be injected into it
    ReleaseClean,
    /// Try what is in `deploy/` with the tools that will use it, and translated packets with tshark (root)
    Interop,
    /// All of the above in this order, up to the first failure (root)
    Ci,
    /// Build the container image with podman
    Image {
        /// The image's name and tag
        #[arg(default_value_t = verbs::default_tag())]
        tag: String,
    },
    /// Print the Debian packages that the verbs need
    Packages,
    /// Install the tools that are no Debian packages below `target/tools`
    Setup,
}

/// The steps of `ci`.
type Step = (&'static str, fn(&Project) -> Result<()>);
const STEPS: [Step; 9] = [
    ("fmt", verbs::fmt),
    ("deny", verbs::deny),
    ("ledger", ledger::ledger),
    ("clippy", verbs::clippy),
    ("doc", verbs::doc),
    ("no-std", verbs::no_std),
    ("test", verbs::test),
    ("release-clean", verbs::release_clean),
    ("interop", interop::interop),
];

fn main() -> ExitCode {
    match run(&Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &Verb) -> Result<()> {
    let project = Project::open()?;
    match verb {
        Verb::Fmt => verbs::fmt(&project),
        Verb::Deny => verbs::deny(&project),
        Verb::Ledger => ledger::ledger(&project),
        Verb::Clippy => verbs::clippy(&project),
        Verb::Doc => verbs::doc(&project),
        Verb::NoStd => verbs::no_std(&project),
        Verb::Test => verbs::test(&project),
        Verb::ReleaseClean => verbs::release_clean(&project),
        Verb::Interop => interop::interop(&project),
        Verb::Ci => ci(&project),
        Verb::Image { tag } => verbs::image(&project, tag),
        Verb::Packages => {
            packages::print();
            Ok(())
        }
        Verb::Setup => verbs::setup(&project),
    }
}

/// Runs every step and says how long each took; the first failure ends it.
fn ci(project: &Project) -> Result<()> {
    let mut summary = String::new();
    let began = Instant::now();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let started = Instant::now();
        step(project).with_context(|| format!("step {name} failed; run it alone: cargo xtask {name}"))?;
        let seconds = started.elapsed().as_secs_f64();
        println!("=== {name}: ok, {seconds:.1} s");
        writeln!(summary, "{name:>14} {seconds:>7.1} s")?;
    }
    println!("\n{summary}{:>14} {:>7.1} s", "all", began.elapsed().as_secs_f64());
    Ok(())
}

//! Measures this router beside tayga and the original protomask, each in turn, in network namespaces. See `README.md`.

mod course;
mod lab;
mod measure;
mod process;
mod report;
mod requirements;
mod stats;
mod translators;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;

use course::Record;
use lab::PATIENCE;
use measure::Load;
use report::Circumstances;

/// Measures this router, tayga and the original protomask in turn. Needs root; leaves this host's network alone.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How often each translator is measured; what is told is the median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long one measurement takes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only translators whose name contains this word: this, tayga, protomask. May be repeated.
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Measure this build of the router instead of making one.
    #[arg(long, value_name = "PROGRAM")]
    router: Option<PathBuf>,
    /// Write all figures there [default: bench/target/report.json].
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    requirements::check()?;
    eprintln!("Making the translators; the first time this takes minutes.");
    let contestants = translators::prepare(&arguments.only, arguments.router.as_deref())?;
    let begun = Instant::now();
    let before = load_average();
    let Arguments { rounds, seconds, .. } = arguments;
    let records = course::run(&contestants, rounds, seconds, |line| eprintln!("{line}"));
    let circumstances =
        Circumstances { load_average: [before, load_average()], ..circumstances(rounds, seconds) };
    tell(&circumstances, &records);
    let file = arguments.json.unwrap_or_else(|| translators::target().join("report.json"));
    fs::write(&file, report::json(&circumstances, &records)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("It took {} s. All figures: {}", begun.elapsed().as_secs(), file.display());
    Ok(())
}

fn circumstances(rounds: u32, seconds: u32) -> Circumstances {
    let first_line = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    let said = |program, argument| {
        process::run(Command::new(program).arg(argument), PATIENCE)
            .map_or_else(|_| "unknown".to_owned(), |output| first_line(output.stdout))
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Circumstances {
        rounds,
        seconds,
        kernel: said("uname", "-r"),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        processor: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.to_owned()),
        iperf3: said("iperf3", "--version"),
        load_average: [String::new(), String::new()],
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn tell(about: &Circumstances, records: &[Record]) {
    println!(
        "{} rounds, {} s each; Linux {}, {} processors ({}), {}; load average {} before, {} after\n",
        about.rounds,
        about.seconds,
        about.kernel,
        about.processors,
        about.processor,
        about.iperf3,
        about.load_average[0],
        about.load_average[1],
    );
    for record in records {
        println!("- {}: {}; `{}`", record.name, record.version, record.configuration);
    }
    println!(
        "\nMedian (least–most) ×ratio to the first column (the median of the rounds' ratios). Small datagrams have {} bytes of payload, the fixed rate is \
         {} per second; processor time is that of the translator's process, per packet that it wrote.\n",
        Load::PAYLOAD,
        Load::PACE
    );
    println!("{}", report::table(records));
    for record in records {
        for (reason, count) in &record.drops {
            println!("- {} dropped {count} packets: {reason}", record.name);
        }
        for (line, times) in &record.complaints {
            println!("- {} logged {times} times: {line}", record.name);
        }
    }
}

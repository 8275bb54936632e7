//! Measures this router beside other ways through the kernel and user space, each in turn, in network namespaces. See
//! `README.md`.

mod bare_loop;
mod contenders;
mod course;
mod lab;
mod links;
mod load;
mod loads;
mod measure;
mod process;
mod report;
mod requirements;
mod stats;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

use contenders::{Entry, Role};
use course::{Plan, Record};
use lab::PATIENCE;
use load::search;
use loads::Load;
use report::{Circumstances, Promise};

/// Measures this router, the bare loop, the kernel, tayga and the original protomask in turn. Needs root; leaves this host's
/// network alone.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// How often each contender is measured; what is told is the median [default: 7].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long a measurement takes; costs and round-trip times take twice as long [default: 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// Two rounds: for a first look.
    #[arg(long, conflicts_with_all = ["rounds"])]
    quick: bool,
    /// Only contenders whose name contains this word: this, exclusive, bare, kernel, tayga, protomask. May be repeated.
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Only loads whose name contains one of these words: tcp, udp, bursts, throughput, connections, rtt, idle.
    #[arg(long, value_name = "WORD", num_args = 1..)]
    loads: Vec<String>,
    /// Measure this build of the router instead of making one.
    #[arg(long, value_name = "PROGRAM")]
    router: Option<PathBuf>,
    /// Measure this build of the router too: what was it like before a change?
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
    /// Write all figures there [default: bench/target/report.json].
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a chart.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// End with 1 if a promise was missed.
    #[arg(long)]
    check: bool,
}

/// What this program does beside measuring.
#[derive(Debug, Subcommand)]
enum Part {
    /// Be the bare loop that is measured: make this device and rewrite the headers of one host and one server.
    #[command(name = bare_loop::COMMAND, hide = true)]
    BareLoop { device: String, queues: usize },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Part::BareLoop { device, queues }) = arguments.part {
        return bare_loop::run(&device, queues).map(|()| ExitCode::SUCCESS);
    }
    let plan = Plan {
        loads: Load::chosen(&arguments.loads),
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 2 } else { 7 }),
        seconds: arguments.seconds.unwrap_or(1),
    };
    ensure!(!plan.loads.is_empty(), "--loads names none of them");
    requirements::check()?;
    eprintln!("Making the contenders; the first time this takes minutes.");
    let entries =
        contenders::prepare(&arguments.only, arguments.router.as_deref(), arguments.beside.as_deref())?;
    let running = entries.iter().filter(|entry| entry.contender.is_ok()).map(|entry| entry.role);
    let minutes = plan.estimate(running).as_secs_f64() / 60.0;
    eprintln!("Measuring takes about {minutes:.0} minutes.");
    let (records, circumstances) = measure(&entries, &plan);
    let promises = report::promises(&records, &plan.loads);
    tell(&circumstances, &records, &plan);
    tell_promises(&promises);
    let file = arguments.json.unwrap_or_else(|| contenders::target().join("report.json"));
    write(&file, report::json(&circumstances, &promises, &records, &plan.loads)?)?;
    eprintln!("It took {} s. All figures: {}", circumstances.took, file.display());
    if let Some(file) = arguments.svg {
        write(&file, report::chart(&records)?)?;
    }
    if !arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(!promises.is_empty(), "--check: nothing was measured that a promise is about");
    let is_kept = promises.iter().all(|promise| promise.is_kept);
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(file: &std::path::Path, text: String) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn measure(entries: &[Entry], plan: &Plan) -> (Vec<Record>, Circumstances) {
    let begun = Instant::now();
    let before = load_average();
    let records = course::run(entries, plan, |line| eprintln!("{line}"));
    let circumstances = Circumstances {
        load_average: [before, load_average()],
        took: begun.elapsed().as_secs(),
        ..circumstances(plan)
    };
    (records, circumstances)
}

fn circumstances(plan: &Plan) -> Circumstances {
    let first_line = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    let said = |program, argument| {
        process::run(Command::new(program).arg(argument), PATIENCE)
            .map_or_else(|_| "unknown".to_owned(), |output| first_line(output.stdout))
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Circumstances {
        rounds: plan.rounds,
        seconds: plan.seconds,
        kernel: said("uname", "-r"),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        processor: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.to_owned()),
        iperf3: said("iperf3", "--version"),
        load_average: [String::new(), String::new()],
        took: 0,
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn tell(about: &Circumstances, records: &[Record], plan: &Plan) {
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
        "\nMedian (least–most) ×ratio to the first column (the median of the rounds' ratios). Sizes are bytes of UDP payload; costs \
         are at {} datagrams per second; a rate without loss may be up to {:.1} % higher than what was found.\n",
        Load::RATE,
        search::resolution(),
    );
    println!("{}", report::table(records, &plan.loads));
    for record in records.iter().filter(|record| record.role == Role::Direct) {
        if let Some(failure) = &record.failure {
            println!("- {} could not be measured: {failure}", record.name);
        }
    }
    for record in records {
        if let Some(line) = report::locks(record) {
            println!("- {line}");
        }
        for (reason, count) in &record.drops {
            println!("- {} dropped {count} packets: {reason}", record.name);
        }
        for (line, times) in &record.complaints {
            println!("- {} logged {times} times: {line}", record.name);
        }
    }
}

fn tell_promises(promises: &[Promise]) {
    if promises.is_empty() {
        return;
    }
    println!("\nPromises (\"not worse\" has a tolerance of {:.0} %):\n", 100.0 * report::TOLERANCE);
    for promise in promises {
        println!("- {promise}");
    }
}

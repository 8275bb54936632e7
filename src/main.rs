//! The `protomask` daemon: arguments and file become settings, and settings a running router.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a command says to the person who typed it"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::Parser as _;
use protomask::cli::{Cli, Command, Flags};
use protomask::config::{self, ControlSocket, Partial, Problems, Settings, control_socket_of};
use protomask::exit::Exit;
use protomask::handover::take::{self, TakeError};
use protomask::handover::{Inheritance, keeper, store};
use protomask::kernel::lanes;
use protomask::kernel::sysctl::Sysctls;
use protomask::run::Start;
use protomask::{control, demo, kernel, logging, privileges, run, state, who_had};
use slog::{crit, info};

/// Test builds count what each thread allocates.
#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: protomask::allocations::Counting = protomask::allocations::Counting;

fn main() -> ExitCode {
    // clap prints and exits by itself for --help, --version and what it cannot parse (code 2, as here).
    let cli = Cli::parse();
    let exit = match cli.command {
        None => route(cli.flags),
        Some(Command::CheckConfig { file }) => check_config(&file),
        Some(Command::Cleanup { force }) => clean_up(force),
        Some(Command::WhoHad(asked)) => who_had::run(&asked, &mut std::io::stdout()),
        Some(Command::Ctl(ctl)) => control::client::run(&ctl, &mut std::io::stdout()),
        Some(Command::Keep(flags)) => return keep(&flags),
        Some(Command::Demo) => demo::run(),
    };
    exit.into()
}

fn route(flags: Flags) -> Exit {
    // Before anything else is opened.
    let mut inheritance = Inheritance { descriptors: store::inherited(), predecessor: None };
    let configuration = match flags.configuration() {
        Ok(configuration) => configuration,
        Err(problems) => return wrong(&problems),
    };
    // While the right to it is there.
    let steering = lanes::load_for(&configuration.settings);
    // Before the first thread: each begins with the rights of the one that starts it.
    let kept = privileges::keep_what_is_needed(&configuration.settings);
    let dropped = Arc::new(AtomicU64::new(0));
    let log = configuration.settings.log;
    let started = logging::start(log.format, log.level, Arc::clone(&dropped));
    let (log, guard) = match started {
        Ok(started) => started,
        Err(error) => {
            eprintln!("protomask: the log cannot be started: {error}");
            return Exit::Failed;
        }
    };
    guard.control().capture_globals();
    kept.log(&log);
    // The guard is dropped behind this: it writes what the log still holds.
    let log_control = Some(guard.control());
    if flags.replace {
        match take_over(&configuration.settings) {
            Ok(theirs) => inheritance = theirs,
            Err(TakeError::Nobody { path }) => {
                info!(log, "no router is there to be replaced; this one starts as ever"; "control_socket" => path);
            }
            Err(error) => {
                crit!(log, "cannot start"; "because" => %error);
                return Exit::Failed;
            }
        }
    }
    let start = Start { flags, configuration, log_dropped: dropped, log_control, inheritance, steering };
    run::run(start, &log)
}

fn keep(flags: &Flags) -> ExitCode {
    let configuration = match flags.configuration() {
        Ok(configuration) => configuration,
        Err(problems) => return wrong(&problems).into(),
    };
    let log = configuration.settings.log;
    match logging::start(log.format, log.level, Arc::default()) {
        Ok((log, guard)) => {
            guard.control().capture_globals();
            // Behind the program's name and the command's: flags cannot stand before a command.
            let code = keeper::run(std::env::args_os().skip(2).collect(), &log);
            drop(guard);
            code.into()
        }
        Err(error) => {
            eprintln!("protomask: the log cannot be started: {error}");
            Exit::Failed.into()
        }
    }
}

/// What the router that runs with this interface hands over.
fn take_over(settings: &Settings) -> Result<Inheritance, TakeError> {
    let path = match &settings.control_socket {
        ControlSocket::At(path) => path.clone(),
        ControlSocket::Default | ControlSocket::Off => control_socket_of(&settings.interface),
    };
    take::take(&path, &settings.interface)
}

fn check_config(file: &Path) -> Exit {
    let settled =
        config::read(file).and_then(|(partial, problems)| Partial::default().over(partial).settle(problems));
    match settled {
        Ok(_) => {
            say(&format!("{}: nothing is wrong with it", file.display()));
            Exit::Done
        }
        Err(problems) => wrong(&problems),
    }
}

/// To standard output, which may be closed: that is no reason to fail.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn wrong(problems: &Problems) -> Exit {
    eprintln!("{problems}");
    Exit::Usage
}

fn clean_up(force: bool) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("protomask: no runtime can be made: {error}");
            return Exit::Failed;
        }
    };
    let report = runtime.block_on(async {
        let handle = rtnl::Handle::open()?;
        Ok::<_, rtnl::Error>(kernel::cleanup::cleanup(&handle, &Sysctls::default(), force).await)
    });
    match report {
        Ok(report) => {
            say(&report.to_string());
            let kept = state::kept_below(Path::new(state::DEFAULT_FOLDER));
            if !kept.is_empty() {
                let (names, folder) = (kept.join(", "), state::DEFAULT_FOLDER);
                say(&format!(
                    "kept the state of {names}, for the next start; to forget it, remove its folder in {folder}"
                ));
            }
            if report.is_clean() {
                Exit::Done
            } else if nix::unistd::geteuid().is_root() {
                Exit::Failed
            } else {
                Exit::Privilege
            }
        }
        Err(error) => {
            eprintln!("protomask: {error}");
            Exit::Failed
        }
    }
}

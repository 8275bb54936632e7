//! `protomask ctl`: asks a router by its control socket.
#![allow(clippy::print_stderr, reason = "what a command says to the person who typed it")]

use std::io::{BufRead as _, BufReader, ErrorKind as IoErrorKind, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{Answer, Command, Outcome, table, write_request};
use crate::config::{DEFAULT_INTERFACE, control_socket_of};
use crate::exit::Exit;

/// How long an answer may take: a list walks millions of sessions in some seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// What is asked, and of whom.
#[derive(Debug, Clone, Args)]
pub struct Ctl {
    /// The router's control socket [default: /run/protomask/INTERFACE.sock].
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// The interface of the router, where its socket is the default one [default: nat64].
    #[arg(short, long, value_name = "NAME", global = true, conflicts_with = "socket")]
    pub interface: Option<String>,
    /// Print the answer as the router gives it: JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to ask.
    #[command(subcommand)]
    pub command: Command,
}

/// Asks, and prints the answer on `out`.
pub fn run(ctl: &Ctl, out: &mut impl Write) -> Exit {
    let interface = ctl.interface.as_deref().unwrap_or(DEFAULT_INTERFACE);
    let socket = ctl.socket.clone().unwrap_or_else(|| control_socket_of(interface));
    let answer = match ask(&socket, &ctl.command) {
        Ok(answer) => answer,
        Err(message) => {
            eprintln!("protomask: {message}");
            return Exit::Failed;
        }
    };
    match answer.outcome {
        Outcome::Error(failure) => {
            eprintln!("protomask: {}", failure.message);
            Exit::Failed
        }
        Outcome::Ok(value) => {
            // Standard output may be closed: that is no reason to fail.
            let _ = if ctl.json { writeln!(out, "{value:#}") } else { table::write(&value, out) };
            Exit::Done
        }
    }
}

fn ask(socket: &Path, command: &Command) -> Result<Answer, String> {
    let at = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        IoErrorKind::NotFound | IoErrorKind::ConnectionRefused => {
            format!("no router answers at {at}; is it running, and is that its --control-socket?")
        }
        IoErrorKind::PermissionDenied => format!("{at} may not be used by this user; try as root"),
        _ => format!("{at} cannot be used: {error}"),
    })?;
    let request = write_request(1, command).map_err(|error| error.to_string())?;
    let lost = |error: std::io::Error| match error.kind() {
        IoErrorKind::WouldBlock | IoErrorKind::TimedOut => {
            format!("no answer from {at} within {} s", PATIENCE.as_secs())
        }
        _ => format!("{at}: {error}"),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
    // A router that refuses this user says so without reading: its answer counts.
    let written = stream.write_all(format!("{request}\n").as_bytes());
    let mut line = String::new();
    let read = BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut line);
    match (written, read) {
        (_, Ok(length)) if length > 0 => {}
        (Err(error), _) | (_, Err(error)) => return Err(lost(error)),
        (Ok(()), Ok(_)) => {
            return Err(format!("the router at {at} has closed the connection without an answer"));
        }
    }
    serde_json::from_str(&line).map_err(|error| format!("the answer from {at} cannot be read: {error}"))
}

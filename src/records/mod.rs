//! Who had which address and ports when: records that may have to serve as evidence (RFC 6888 REQ-12 to REQ-14,
//! RFC 6302).
//!
//! ```text
//!  Recorder::record ──▶ bounded queue ──▶ writer thread ──▶ file, or syslog
//!  (never waits)        65,536 records     batches, repeats what fails
//! ```
//!
//! This is not the log: nothing is sampled, limited or shortened. Each record gets a number when it is taken, and is
//! written in that order. What becomes of a record for which there is no room is for the operator to say
//! ([`WhenFull`]): either the allocation waits until it can be recorded, or it goes on and the loss is counted. A number
//! that is missing in the file shows the loss to whoever reads it.
//!
//! - **A sink that fails loses nothing**: records stay in the queue and are tried again, after 50 ms, then twice as long
//!   each time, up to 5 s. The failure is logged once, and so is its end.
//! - **Destinations are nobody's business**: sessions are recorded only where [`RecordsConfig::sessions`] asks for it.
//! - **After a restart** a new instance begins to count at 1. Its first record ends whatever an earlier instance of the
//!   same router had given; the last record of an instance that ended in good order says so.
//!
//! Worst-case memory: 65,536 records of about 130 bytes, in two buffers that take turns (17 MiB), and the lines of 1,024
//! records (1 MiB).
//!
//! `docs/allocation-records.md` describes the lines and what can be relied on.

mod file;
mod line;
mod queue;
mod record;
mod stamp;
mod syslog;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fast_nat::Deterministic;
use ipnet::Ipv6Net;
use slog::{Logger, o};

use crate::config::Settings;
pub use crate::config::{RecordSink, SyslogTarget, WhenFull};
pub use line::{BEGIN, Event, Line};
pub use queue::{Counts, Recorder, SinkFull};
pub use record::{Flow, Protocol, Record, What};
pub use stamp::Stamp;
pub use writer::Sink;

/// Records that may wait for the writer where nothing else is said.
pub const DEFAULT_QUEUE: usize = 65_536;

/// How long the end of the process waits for the last records to be written.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// How records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsConfig {
    /// Where they are written.
    pub sink: RecordSink,
    /// What becomes of an allocation that cannot be recorded.
    pub when_full: WhenFull,
    /// Whether sessions are recorded, with their destinations.
    pub sessions: bool,
    /// How many records may wait to be written, at least 1: [`DEFAULT_QUEUE`].
    pub queue: usize,
    /// The length of a subscriber's prefix: 32 to 128.
    pub subscriber_prefix_len: u8,
    /// A name that no other router has whose records end in the same place: [`router_name`].
    pub router: String,
    /// In deterministic mode: what the plan is computed from ([`fast_nat::Deterministic`] as text). It stands in the
    /// first record, so that a later reader can tell whether it computes with the same plan.
    pub configuration: Option<String>,
}

/// Why no records can be kept.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be written.
    #[error("allocation records cannot be written to {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("the thread that writes allocation records cannot be started")]
    Thread(#[source] io::Error),
    /// There is no randomness to tell this run of the router from others.
    #[error("no random number can be had to tell this run of the router from others")]
    Random(#[source] io::Error),
}

impl RecordsConfig {
    /// What the settings ask for; `None`: no records. `plan` is the plan of deterministic mode.
    pub fn of(settings: &Settings, plan: Option<&Deterministic>) -> Option<Self> {
        let records = settings.records.as_ref()?;
        Some(Self {
            sink: records.sink.clone(),
            when_full: records.when_full,
            sessions: records.sessions,
            queue: DEFAULT_QUEUE,
            subscriber_prefix_len: settings.quota.subscriber_prefix_len,
            router: router_name(&settings.interface),
            configuration: plan.map(ToString::to_string),
        })
    }
}

/// Who records.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    router: String,
    instance: String,
    subscriber_prefix_len: u8,
    configuration: Option<String>,
}

impl Identity {
    fn subscriber(&self, host: Ipv6Addr) -> Option<Ipv6Net> {
        Some(Ipv6Net::new(host, self.subscriber_prefix_len).ok()?.trunc())
    }
}

/// Where records go, as it is written in a configuration.
fn describe(sink: &RecordSink) -> String {
    match sink {
        RecordSink::File(path) => path.display().to_string(),
        RecordSink::Syslog(SyslogTarget::Unix(path)) => format!("unix:{}", path.display()),
        RecordSink::Syslog(SyslogTarget::Udp(host)) => format!("udp:{host}"),
        RecordSink::Syslog(SyslogTarget::Tcp(host)) => format!("tcp:{host}"),
    }
}

/// The name of the router with this TUN device on this machine: `host/interface`.
pub fn router_name(interface: &str) -> String {
    format!("{}/{interface}", host_name())
}

/// The name of this machine, as the kernel has it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Begins to keep records. A file must be there and writable, or be possible to make; a syslog daemon may come later.
///
/// The guard must live to the end of the process: its drop writes what waits, for [`FAREWELL`] at most. Needs
/// no runtime.
pub fn start(config: &RecordsConfig, log: &Logger) -> Result<(Recorder, Guard), StartError> {
    let sink: Box<dyn Sink> = match &config.sink {
        RecordSink::File(path) => {
            let sink = file::FileSink::open(path);
            Box::new(sink.map_err(|source| StartError::File { path: path.clone(), source })?)
        }
        RecordSink::Syslog(target) => Box::new(syslog::SyslogSink::new(target.clone(), &host_name())),
    };
    start_with(config, sink, log)
}

/// The same with a sink of the caller's own; [`RecordsConfig::sink`] then only stands in the log.
pub fn start_with(
    config: &RecordsConfig,
    sink: Box<dyn Sink>,
    log: &Logger,
) -> Result<(Recorder, Guard), StartError> {
    let instance =
        getrandom::u64().map_err(|error| StartError::Random(io::Error::other(error.to_string())))?;
    let identity = Identity {
        router: config.router.clone(),
        instance: format!("{instance:016x}"),
        subscriber_prefix_len: config.subscriber_prefix_len,
        configuration: config.configuration.clone(),
    };
    let recorder = Recorder::new(config, identity);
    let log = log.new(o!("records" => describe(&config.sink)));
    writer::spawn(Arc::clone(recorder.shared()), sink, log).map_err(StartError::Thread)?;
    Ok((recorder.clone(), Guard(Some(recorder))))
}

/// Ends the recording when it is dropped.
#[derive(Debug)]
#[must_use = "records are written no longer when it is dropped"]
pub struct Guard(Option<Recorder>);

impl Guard {
    /// Writes what waits, and a last record that says that the router ended. Waits for `patience` at most, and tells how
    /// many records are not written then. What is recorded later is refused or lost.
    pub fn finish(mut self, patience: Duration) -> u64 {
        self.0.take().map_or(0, |recorder| recorder.finish(patience))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(recorder) = self.0.take() {
            recorder.finish(FAREWELL);
        }
    }
}

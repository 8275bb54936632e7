//! A running router.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netlab::{HttpResponse, Namespace, http_get};
use nix::sys::signal::Signal;

use super::log::{Log, Record};
use super::metrics::Metrics;
use super::process::Process;
use super::{Lab, PATIENCE};

/// Where it serves HTTP inside its namespace.
pub(crate) const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// How long one request to it may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A running router, which ends with the value.
#[derive(Debug)]
pub(crate) struct Router {
    namespace: Namespace,
    process: Process,
    log: Log,
}

/// How a router ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` after a signal that it does not handle.
    pub(crate) code: Option<i32>,
    /// How long it took from the signal.
    pub(crate) took: Duration,
    pub(crate) log: Vec<Record>,
}

/// A field of a thread's `stat` by its number in stat(5), which is more than 2.
pub(crate) fn stat_field(stat: &str, number: usize) -> Option<i32> {
    // The second is the name, in brackets, and may have blanks.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

impl Router {
    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start(lab: &Lab, flags: &[&str]) -> Self {
        let mut router = Self::spawn(lab, flags);
        router.wait_until_ready();
        router
    }

    /// Waits until it is.
    pub(crate) fn wait_until_ready(&mut self) {
        self.wait("it is ready", |router| router.get("/readyz").is_some_and(|answer| answer.status == 200));
    }

    /// Starts it and waits until it answers at all: it may never become ready.
    pub(crate) fn start_unready(lab: &Lab, flags: &[&str]) -> Self {
        let mut router = Self::spawn(lab, flags);
        router
            .wait("it is alive", |router| router.get("/healthz").is_some_and(|answer| answer.status == 200));
        router
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(lab: &Lab, flags: &[&str]) -> Self {
        Self::spawn_as(lab.protomask(), lab, flags)
    }

    /// The same by this command.
    pub(crate) fn spawn_as(mut command: Command, lab: &Lab, flags: &[&str]) -> Self {
        command.args(["--prometheus", &HTTP.to_string(), "--log-format", "json"]).args(flags);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let log = Log::read(process.child().stderr.take().expect("a pipe"));
        Self { namespace: lab.router.clone(), process, log }
    }

    /// The same with these for standard input and output.
    pub(crate) fn spawn_between(
        mut command: Command,
        lab: &Lab,
        flags: &[&str],
        [stdin, stdout]: [Option<Stdio>; 2],
    ) -> Self {
        command.args(["--prometheus", &HTTP.to_string(), "--log-format", "json"]).args(flags);
        command.stdin(stdin.unwrap_or_else(Stdio::null)).stdout(stdout.unwrap_or_else(Stdio::null));
        command.stderr(Stdio::piped());
        let mut process = Process::spawn_as_it_is(command);
        let log = Log::read(process.child().stderr.take().expect("a pipe"));
        Self { namespace: lab.router.clone(), process, log }
    }

    /// Waits for something, unless it ends before.
    pub(crate) fn wait(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let ended = self.process.has_ended();
            let in_time = start.elapsed() < PATIENCE;
            if ended {
                self.log.finish();
            }
            let state = if ended { "it ended" } else { "it runs" };
            assert!(
                !ended && in_time,
                "not within {PATIENCE:?}: {what} ({state}); its log:\n{}",
                self.log.text()
            );
            super::pause(Duration::from_millis(20));
        }
    }

    /// Waits for a record with this message that satisfies.
    pub(crate) fn wait_for_log(&mut self, msg: &str, mut fits: impl FnMut(&Record) -> bool) -> Record {
        let mut found = None;
        self.wait(&format!("a record {msg:?}"), |router| {
            found = router.log.with_msg(msg).into_iter().find(&mut fits);
            found.is_some()
        });
        found.unwrap()
    }

    /// Asks its HTTP endpoint; `None` if nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<HttpResponse> {
        http_get(&self.namespace, HTTP, path, ANSWER).ok()
    }

    /// Its metrics now. The kernel's own figures among them can take seconds while it makes or removes other namespaces.
    pub(crate) fn metrics(&self) -> Metrics {
        let page = super::eventually("the metrics", PATIENCE, || {
            self.get("/metrics").filter(|page| page.status == 200)
        });
        Metrics::parse(&page.text())
    }

    /// Waits until the metrics are so: a packet may be seen at its target before its worker's count is.
    pub(crate) fn wait_for_metrics(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        let start = Instant::now();
        loop {
            let metrics = self.metrics();
            if is_so(&metrics) {
                return metrics;
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}; {metrics:#?}");
            super::pause(Duration::from_millis(20));
        }
    }

    /// Waits until so many packets were dropped for this reason, and no more. The answer to a packet may arrive before
    /// the packet is counted.
    pub(crate) fn wait_for_dropped(&self, reason: &str, packets: u64) -> Metrics {
        let what = format!("{packets} packets dropped for {reason}");
        let metrics = self.wait_for_metrics(&what, |metrics| metrics.dropped(reason) >= packets);
        assert_eq!(metrics.dropped(reason), packets, "{reason}");
        metrics
    }

    /// Waits until so many addresses are under lease: a host may have its answer before the pool has published that.
    pub(crate) fn wait_for_leased(&self, addresses: u64) -> Metrics {
        let used = |metrics: &Metrics| metrics.sum("protomask_pool_addresses", &["state=\"used\""]);
        self.wait_for_metrics(&format!("{addresses} addresses are leased"), |metrics| {
            used(metrics) == addresses
        })
    }

    /// The last record with this message, after the end.
    pub(crate) fn last_record(&mut self, msg: &str) -> Record {
        self.log.finish();
        let found = self.log.with_msg(msg).pop();
        found.unwrap_or_else(|| panic!("no record {msg:?} in\n{}", self.log.text()))
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// What is found in the files of each thread below `/proc`, by its name and number.
    pub(crate) fn by_thread<T>(
        &self,
        find: impl Fn(&dyn Fn(&str) -> Option<String>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.pid())).unwrap();
        let found = tasks.filter_map(|task| {
            let task = task.unwrap().path();
            // One that has ended meanwhile has no files any more.
            let read = |file: &str| fs::read_to_string(task.join(file)).ok();
            let number = task.file_name()?.to_string_lossy().into_owned();
            Some((format!("{} {number}", read("comm")?.trim()), find(&read)?))
        });
        found.collect()
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end_by(mut self, signal: Signal) -> Ended {
        let told = Instant::now();
        self.process.signal(signal);
        let status = self.process.end(PATIENCE);
        let took = told.elapsed();
        let Some(status) = status else {
            panic!("no end within {PATIENCE:?} of {signal}:\n{}", self.log.text())
        };
        self.log.finish();
        Ended { code: status.code(), took, log: self.log.records() }
    }

    /// Waits for an end that it comes to by itself. The answer is the exit code.
    pub(crate) fn end_of_itself(&mut self) -> Option<i32> {
        let Some(status) = self.process.end(PATIENCE) else {
            panic!("no end within {PATIENCE:?}:\n{}", self.log.text())
        };
        status.code()
    }

    /// A clean end, as by a service manager.
    pub(crate) fn end(self) {
        let ended = self.end_by(Signal::SIGTERM);
        assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    }

    /// An end without a warning.
    pub(crate) fn kill(self) {
        assert_eq!(self.end_by(Signal::SIGKILL).code, None);
    }
}

/// What a failed test wants to know.
impl Drop for Router {
    #[allow(clippy::print_stdout, reason = "shown with the test that failed")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(page) = self.get("/metrics").filter(|page| page.status == 200) {
            println!("the router's metrics: {:?}", Metrics::parse(&page.text()));
        }
        let records = self.log.records();
        for record in records.iter().skip(records.len().saturating_sub(10)) {
            println!("{}", record.line);
        }
    }
}

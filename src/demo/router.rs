//! The router of the demonstration: this same program, as a child in a namespace.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlab::{HttpResponse, Namespace, end_with_parent, http_get};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{POOL, PREFIX};

/// Inside the router's namespace, where nobody else listens.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// How long the router may take to become ready, and to end; it takes a fraction of a second.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often readiness is asked for.
const PACE: Duration = Duration::from_millis(25);

/// So many lines of its log are kept, each cut to so many bytes.
const KEPT_LINES: usize = 20;
const LONGEST_LINE: u64 = 2048;

/// A running router. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Router {
    namespace: Namespace,
    child: Child,
    started: Instant,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Router {
    /// Starts it. Afterwards it may not be ready yet.
    pub(super) fn start(namespace: &Namespace) -> Result<Self, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let mut command = namespace.command(program);
        // A name of its own: what is kept by interface name under /run is that of a router on this host.
        command.args(["--interface", &format!("demo{}", std::process::id())]);
        command.args(["--translation-prefix", &PREFIX.to_string(), "--pool-prefix", &POOL.to_string()]);
        command.args(["--no-state", "--prometheus", &HTTP.to_string(), "--log-format", "terminal"]);
        command.arg("--no-control");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = end_with_parent(&mut command).spawn().map_err(|error| error.to_string())?;
        let log = Arc::new(Log::default());
        let reader = child.stderr.take().and_then(|stderr| {
            let log = Arc::clone(&log);
            std::thread::Builder::new().name("demo-log".to_owned()).spawn(move || log.read(stderr)).ok()
        });
        Ok(Self { namespace: namespace.clone(), child, started: Instant::now(), log, reader })
    }

    /// The process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it is ready; the answer is how long that took since its start.
    pub(super) fn wait_until_ready(&self) -> Result<Duration, String> {
        loop {
            let answer = self.fetch("/readyz");
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                return Ok(self.started.elapsed());
            }
            if self.log.wait_for_end(PACE) {
                return Err("the router ended".to_owned());
            }
            if self.started.elapsed() > START_LIMIT {
                let why = answer.map_or_else(|error| error.to_string(), |answer| answer.text());
                return Err(format!("not ready within {} s: {why}", START_LIMIT.as_secs()));
            }
        }
    }

    /// Asks its HTTP endpoint.
    pub(super) fn fetch(&self, path: &str) -> netlab::Result<HttpResponse> {
        http_get(&self.namespace, HTTP, path, ANSWER_LIMIT)
    }

    /// Tells it to end, as a service manager would, and waits; the answer is how long that took.
    pub(super) fn stop(&mut self) -> Result<Duration, String> {
        let told = Instant::now();
        let pid = i32::try_from(self.child.id()).map_err(|error| error.to_string())?;
        // Not waited for yet, so the number is still that of our child.
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| error.to_string())?;
        if !self.log.wait_for_end(STOP_LIMIT) {
            return Err(format!("it did not end within {} s", STOP_LIMIT.as_secs()));
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(told.elapsed()) } else { Err(format!("it ended with {}", describe(status))) }
    }

    /// The last lines of its log, oldest first.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.log.kept().lines.iter().cloned().collect()
    }
}

fn describe(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

impl Drop for Router {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // A panic of the reader has been printed.
            let _ = reader.join();
        }
    }
}

/// The last lines, and whether more can come.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Log {
    kept: Mutex<Kept>,
    changed: Condvar,
}

impl Log {
    /// Reads to the end, so that the router never waits for a full pipe.
    fn read(&self, stderr: impl Read) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        // A line that is longer than the bound arrives in several.
        while (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut kept = self.kept();
            if kept.lines.len() == KEPT_LINES {
                kept.lines.pop_front();
            }
            kept.lines.push_back(text);
        }
        self.kept().ended = true;
        self.changed.notify_all();
    }

    /// Whether the log has ended, and with it the router, after waiting for that at most so long.
    fn wait_for_end(&self, limit: Duration) -> bool {
        let kept = self.kept();
        let (kept, _) = self
            .changed
            .wait_timeout_while(kept, limit, |kept| !kept.ended)
            .unwrap_or_else(PoisonError::into_inner);
        kept.ended
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_the_end_is_noticed() {
        let log = Log::default();
        assert!(!log.wait_for_end(Duration::ZERO));
        let text = (0..100).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n");
        log.read(text.as_bytes());
        assert!(log.wait_for_end(Duration::ZERO));
        let kept = log.kept();
        assert_eq!(
            (kept.lines.len(), kept.lines[0].as_str(), kept.lines[19].as_str()),
            (20, "line 80", "line 99")
        );
    }
}

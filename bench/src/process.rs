//! A child process whose output is kept and whose end is waited for, with a limit on each.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use netlab::end_with_parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// So much of each stream is kept, in bytes; the rest is read and forgotten, so that the child never waits.
const KEPT: usize = 1 << 20;
/// How long a process may take to end when it is told to.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a process has printed so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Output {
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    ended: usize,
}

impl Output {
    /// The last words of a process, for an error message.
    pub(crate) fn last_line(&self) -> &str {
        let said = |text: &'_ str| !text.trim().is_empty();
        let last = self.stderr.lines().rfind(|line| said(line));
        last.or_else(|| self.stdout.lines().rfind(|line| said(line))).unwrap_or("it printed nothing")
    }

    /// All lines of both streams.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.stdout.lines().chain(self.stderr.lines())
    }
}

#[derive(Debug, Default)]
struct Shared {
    output: Mutex<Output>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, mut pipe: impl Read, stream: fn(&mut Output) -> &mut String) {
        let mut chunk = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            let mut output = self.lock();
            let text = stream(&mut output);
            if text.len() < KEPT {
                text.push_str(&String::from_utf8_lossy(&chunk[..length]));
            }
            self.changed.notify_all();
        }
        self.lock().ended += 1;
        self.changed.notify_all();
    }
}

/// A running process; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    shared: Arc<Shared>,
}

impl Process {
    /// Starts the command. The kernel ends it with the calling thread: call from the main thread.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = end_with_parent(command).spawn().with_context(|| format!("cannot start {name}"))?;
        let shared = Arc::<Shared>::default();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Self { name, child, shared };
        if let Some(pipe) = stdout {
            process.reader(move |shared| shared.read(pipe, |output| &mut output.stdout))?;
        }
        if let Some(pipe) = stderr {
            process.reader(move |shared| shared.read(pipe, |output| &mut output.stderr))?;
        }
        Ok(process)
    }

    fn reader(&self, work: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new().name("output".to_owned()).spawn(move || work(&shared))?;
        Ok(())
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> Output {
        self.shared.lock().clone()
    }

    /// Whether the condition holds after waiting for it, or for the end of the process, at most so long.
    pub(crate) fn wait_for(&self, limit: Duration, condition: impl Fn(&Output) -> bool) -> bool {
        let waiting = |output: &mut Output| output.ended < 2 && !condition(output);
        let (output, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), limit, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        condition(&output)
    }

    /// Whether it has closed its output, and with that ended, after waiting at most so long.
    pub(crate) fn has_ended(&self, limit: Duration) -> bool {
        self.wait_for(limit, |output| output.ended == 2)
    }

    /// Waits for its end and answers with what it printed; an error if it failed or takes longer.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<Output> {
        if !self.has_ended(limit) {
            bail!("{} did not end within {} s", self.name, limit.as_secs());
        }
        let status = self.child.wait()?;
        let output = self.output();
        if !status.success() {
            bail!("{} failed ({status}): {}", self.name, output.last_line());
        }
        Ok(output)
    }

    /// Tells it to end, as a service manager would, and waits; one that does not listen is ended by force.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        // Not waited for yet, so the number is still that of our child.
        kill(Pid::from_raw(i32::try_from(self.id())?), Signal::SIGTERM)?;
        if !self.has_ended(STOP_LIMIT) {
            self.child.kill()?;
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    Process::start(command)?.finish(limit)
}

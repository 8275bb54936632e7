//! Child processes: waited for with a bound, and ended without ever reaching for another process.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlab::end_with_parent;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::PATIENCE;

/// What a program that is read to its end may print, in bytes.
const LONGEST_OUTPUT: u64 = 16 << 20;

/// A child that ends with this value, or with the test's thread.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_as_it_is(command)
    }

    /// The same with whatever it has for standard input.
    pub(crate) fn spawn_as_it_is(mut command: Command) -> Self {
        Self(end_with_parent(&mut command).spawn().expect("the program starts"))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }

    /// Sends a signal. The child has not been waited for, so its number is still its own.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits for its end; `None` when the time is up.
    pub(crate) fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let pid = self.pid();
        let (ended, wait) = sync_channel(1);
        // Leaves the child as it is (WNOWAIT), so that nobody else can have its number before it is waited for here.
        std::thread::spawn(move || {
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let _ = ended.send(());
        });
        wait.recv_timeout(limit).ok()?;
        Some(self.0.wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that has run to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Finished {
    pub(crate) fn wait_for(command: Command) -> Self {
        Self::wait_at_most(command, PATIENCE)
    }

    pub(crate) fn wait_at_most(mut command: Command, limit: Duration) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut process = Process::spawn(command);
        let stdout = collect(process.child().stdout.take());
        let stderr = collect(process.child().stderr.take());
        let status = process.end(limit);
        // Also after a failure: its output says why.
        drop(process);
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let Some(status) = status else { panic!("no end within {limit:?}:\n{stdout}\n{stderr}") };
        Self { code: status.code(), stdout, stderr, took: start.elapsed() }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.expect("a pipe").take(LONGEST_OUTPUT).read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

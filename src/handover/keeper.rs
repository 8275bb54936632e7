//! `protomask keep`: a service manager for this one service, where there is no other, or one that keeps no descriptors.
//!
//! It starts the router as its child, is told by it as a service manager is (`NOTIFY_SOCKET`), keeps the queues that it is sent, and gives
//! them to the next child. It starts the router again when that ends without having been asked to, and hands signals on. SIGUSR2 starts
//! the program anew that lies at its path now, without a break. It does nothing else, so that there is nothing that could end it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slog::{Logger, crit, error, info, warn};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::{descriptors, store};

/// The most queues that are kept.
const MOST: usize = easy_tun::MAX_QUEUES;

/// The longest message of the router.
const LONGEST_MESSAGE: usize = 4096;

/// The wait before it is started again, doubled for each time in a row.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// A router that was ready for so long is healthy again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// So many starts in a row that come to nothing are enough.
const MOST_FAILURES: u32 = 5;

/// Exit codes that are the same the next time: a wrong flag or file, a missing right.
const FOR_GOOD: [i32; 2] = [2, 3];

/// The name by which a child knows that its queues come by standard input.
pub(super) const BY_STDIN: &str = "PROTOMASK_KEPT_BY_STDIN";

/// Runs the router with these arguments until it ends in good order or cannot be started. The answer is the exit code.
pub fn run(arguments: Vec<OsString>, log: &Logger) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crit!(log, "cannot keep anything"; "because" => %error);
            return 1;
        }
    };
    let kept = runtime.block_on(async {
        let mut keeper = Keeper::new(arguments, log)?;
        keeper.run().await
    });
    kept.unwrap_or_else(|error: io::Error| {
        crit!(log, "cannot keep anything"; "because" => %error);
        1
    })
}

struct Keeper {
    /// The path of the program as it was when this began: another version may lie there by now.
    program: PathBuf,
    arguments: Vec<OsString>,
    socket: Socket,
    queues: BTreeMap<String, OwnedFd>,
    child: Option<Child>,
    /// When it last said that it runs.
    ready_at: Option<Instant>,
    /// Ends in a row, and those of them before it was ready.
    in_a_row: u32,
    failures: u32,
    /// It was asked to end, or to end for a successor.
    is_ending: bool,
    is_replaced: bool,
    log: Logger,
}

/// Where the router tells this.
struct Socket {
    socket: UnixDatagram,
    folder: PathBuf,
}

impl Socket {
    fn bind() -> io::Result<Self> {
        let name = format!("protomask-keeper-{}", std::process::id());
        let folders = [Path::new("/run").join(&name), env::temp_dir().join(&name)];
        let mut last = None;
        for folder in folders {
            // Only this user gets at it.
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => {
                    let socket = UnixDatagram::bind(folder.join("notify"))?;
                    return Ok(Self { socket, folder });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("there is no folder for a socket")))
    }

    fn path(&self) -> PathBuf {
        self.folder.join("notify")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Keeper {
    fn new(arguments: Vec<OsString>, log: &Logger) -> io::Result<Self> {
        Ok(Self {
            program: env::current_exe()?,
            arguments,
            socket: Socket::bind()?,
            queues: BTreeMap::new(),
            child: None,
            ready_at: None,
            in_a_row: 0,
            failures: 0,
            is_ending: false,
            is_replaced: false,
            log: log.clone(),
        })
    }

    async fn run(&mut self) -> io::Result<u8> {
        let mut ended = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut replace = signal(SignalKind::user_defined2())?;
        self.start()?;
        let mut restart_at: Option<Instant> = None;
        loop {
            let restart = async {
                match restart_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.socket.socket.async_io(Interest::READABLE, || {
                    let mut buffer = vec![0; LONGEST_MESSAGE];
                    let (length, with) = descriptors::receive(self.socket.socket.as_fd(), &mut buffer)?;
                    buffer.truncate(length);
                    Ok((buffer, with))
                }) => match message {
                    Ok((text, with)) => self.hear(&String::from_utf8_lossy(&text), with),
                    Err(error) => warn!(self.log, "a message of the router was lost"; "because" => %error),
                },
                _ = terminate.recv() => self.end(Signal::SIGTERM),
                _ = interrupt.recv() => self.end(Signal::SIGINT),
                _ = hang_up.recv() => self.tell(Signal::SIGHUP),
                _ = replace.recv() => {
                    info!(self.log, "the router is started anew by request"; "program" => self.program.display().to_string());
                    self.is_replaced = true;
                    self.tell(Signal::SIGUSR2);
                }
                _ = ended.recv() => {
                    let status = match &mut self.child {
                        Some(child) => child.try_wait()?,
                        None => None,
                    };
                    if let Some(status) = status {
                        self.child = None;
                        match self.decide(status) {
                            Next::End(code) => return Ok(code),
                            Next::StartAfter(wait) => restart_at = Some(Instant::now() + wait),
                        }
                    }
                }
                () = restart => {
                    restart_at = None;
                    if let Err(error) = self.start() {
                        error!(self.log, "the router cannot be started"; "because" => %error);
                        restart_at = Some(Instant::now() + LONGEST_DELAY);
                    }
                }
            }
            if self.is_ending && self.child.is_none() {
                warn!(
                    self.log,
                    "ended while there was no router: what it left is for the next start, or for `protomask cleanup`"
                );
                return Ok(0);
            }
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let (own, its) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env("NOTIFY_SOCKET", self.socket.path()).env(BY_STDIN, "1");
        // Whoever watches over this process hears what the router says.
        command.env_remove("WATCHDOG_PID").stdin(Stdio::from(OwnedFd::from(its)));
        let child = command.spawn()?;
        info!(self.log, "the router was started"; "process" => child.id(), "queues_kept" => self.queues.len());
        self.child = Some(child);
        self.ready_at = None;
        for (name, queue) in &self.queues {
            // A router that has ended already needs none.
            if descriptors::send(own.as_fd(), None, format!("{name}\n").as_bytes(), &[queue.as_fd()]).is_err()
            {
                break;
            }
        }
        Ok(())
    }

    fn hear(&mut self, text: &str, mut with: Vec<OwnedFd>) {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let name = value("FDNAME").unwrap_or_default();
        if value("FDSTORE") == Some("1") {
            let is_full = self.queues.len() >= MOST && !self.queues.contains_key(name);
            match with.pop() {
                Some(queue) if !is_full => {
                    self.queues.insert(name.to_owned(), queue);
                }
                _ => warn!(self.log, "a queue cannot be kept"; "name" => name, "kept" => self.queues.len()),
            }
            return;
        }
        if value("FDSTOREREMOVE") == Some("1") {
            self.queues.remove(name);
            return;
        }
        if value("READY") == Some("1") && self.ready_at.is_none() {
            self.ready_at = Some(Instant::now());
        }
        // A service manager above hears it as if this were the router. Its answer is nobody's business.
        let _ = store::tell(text, &[]);
    }

    fn tell(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        // It has not been waited for, so its number is its own.
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn end(&mut self, signal: Signal) {
        info!(self.log, "ending"; "signal" => signal.as_str());
        self.is_ending = true;
        self.tell(signal);
    }

    fn decide(&mut self, status: ExitStatus) -> Next {
        let was_healthy = self.ready_at.is_some_and(|ready| ready.elapsed() >= HEALTHY_AFTER);
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        let is_done = code == Some(0);
        if self.is_replaced && is_done && !self.is_ending {
            self.is_replaced = false;
            return Next::StartAfter(Duration::ZERO);
        }
        if is_done || self.is_ending || status.code().is_some_and(|code| FOR_GOOD.contains(&code)) {
            return Next::End(code.unwrap_or(1));
        }
        self.in_a_row = if was_healthy { 0 } else { self.in_a_row + 1 };
        self.failures = if self.ready_at.is_some() { 0 } else { self.failures + 1 };
        let how = match status.signal() {
            Some(signal) => format!("by signal {signal}"),
            None => format!("with exit code {}", status.code().unwrap_or_default()),
        };
        if self.failures >= MOST_FAILURES {
            crit!(self.log, "the router cannot be kept alive"; "ended" => how, "starts_in_a_row" => self.failures);
            return Next::End(code.unwrap_or(1));
        }
        let wait = (FIRST_DELAY * 2_u32.pow(self.in_a_row.min(6))).min(LONGEST_DELAY);
        warn!(self.log, "the router ended and is started again"; "ended" => how,
            "in_ms" => u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "queues_kept" => self.queues.len());
        Next::StartAfter(wait)
    }
}

enum Next {
    End(u8),
    StartAfter(Duration),
}

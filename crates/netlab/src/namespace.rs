//! A network namespace that lives as long as a file descriptor does.
//!
//! `unshare` and `setns` act on one thread, so a namespace is made on a thread of its own that ends at once; what
//! keeps the namespace is the descriptor of its `/proc` entry. Nothing has a name, so nothing is left behind,
//! whichever way the process ends.
//!
//! Unsafe code: `Command::pre_exec`, the only way to let a child enter a namespace between fork and exec.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use crate::{Error, Result};

/// A network namespace. Clones share it; the kernel removes it with everything in it when the last clone, the last
/// thread and the last process inside are gone.
#[derive(Debug, Clone)]
pub struct Namespace {
    label: Arc<str>,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a namespace with its loopback up, duplicate address detection off, forwarding off and reverse path
    /// filtering off. The label is for messages only: the namespace itself has no name.
    pub fn new(label: &str) -> Result<Self> {
        let made = thread::Builder::new()
            .name(format!("netlab-{label}"))
            .spawn(|| -> io::Result<OwnedFd> {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
                Ok(File::open("/proc/thread-self/ns/net")?.into())
            })
            .map_err(|error| Error::system(format!("starting a thread for namespace {label}"), error))?
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
            .map_err(|error| {
                Error::system(format!("making network namespace {label} (root is needed)"), error)
            })?;
        let namespace = Self { label: label.into(), fd: Arc::new(made) };
        // A new namespace inherits the IPv4 settings of the host, and a laboratory should be the same on every host.
        for (key, value) in [
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.all.forwarding", "0"),
            ("net.ipv4.ip_forward", "0"),
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
        ] {
            namespace.sysctl(key, value)?;
        }
        namespace.up("lo")?;
        Ok(namespace)
    }

    /// What this namespace is called in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A path that another process can open or hand to `setns`, good while this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }

    /// Moves the calling thread into the namespace for the rest of its life.
    pub fn enter_current_thread(&self) -> Result<()> {
        nix::sched::setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|error| Error::system(format!("entering network namespace {}", self.label), error))
    }

    /// Runs the closure on a new thread inside the namespace and waits for it. A panic in the closure goes on in
    /// the caller.
    pub fn try_run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            thread::Builder::new()
                .name(format!("netlab-{}", self.label))
                .spawn_scoped(scope, || {
                    self.enter_current_thread()?;
                    Ok(work())
                })
                .map_err(|error| {
                    Error::system(format!("starting a thread in namespace {}", self.label), error)
                })?
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// [`Self::try_run`] for tests.
    ///
    /// # Panics
    /// When the closure does, or when no thread can be started in the namespace.
    #[allow(clippy::panic, reason = "for tests; whoever wants the error calls `try_run`")]
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.try_run(work).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Drives the future to its end by a current-thread tokio runtime on a new thread inside the namespace.
    pub fn try_block_on<F>(&self, future: F) -> Result<F::Output>
    where
        F: Future + Send,
        F::Output: Send,
    {
        self.try_run(|| Ok(runtime()?.block_on(future)))?
    }

    /// [`Self::try_block_on`] for tests.
    ///
    /// # Panics
    /// When the future does, or when no runtime can be started in the namespace.
    #[allow(clippy::panic, reason = "for tests; whoever wants the error calls `try_block_on`")]
    pub fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        self.try_block_on(future).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A command whose process runs inside the namespace. `/sys` and the mounts stay those of the host; `/proc/sys/net`
    /// is the namespace's own.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let fd = Arc::clone(&self.fd);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; `setns` is one system call, and
        // turning its error number into an `io::Error` does not allocate.
        unsafe {
            command.pre_exec(move || Ok(nix::sched::setns(fd.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// Sets a sysctl inside the namespace: `net.ipv4.ip_forward`, or with slashes where a link's name holds a dot.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        self.try_run(|| fs::write(&path, value))?.map_err(|error| {
            Error::system(format!("setting {key}={value} in namespace {}", self.label), error)
        })
    }

    /// Reads a sysctl inside the namespace, without the newline.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key);
        self.try_run(|| fs::read_to_string(&path))?
            .map(|value| value.trim_end().to_owned())
            .map_err(|error| Error::system(format!("reading {key} in namespace {}", self.label), error))
    }

    /// Gives the namespace a name at `/run/netns/NAME`, for `ip netns exec`, until the answer is dropped. A process
    /// that is killed cannot take the name away again: for debugging and for containers, not for ordinary tests.
    pub fn publish(&self, name: &str) -> Result<Published> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(Error::Invalid(format!("{name:?} cannot name a network namespace")));
        }
        let directory = Path::new("/run/netns");
        let path = directory.join(name);
        let failed =
            |error: io::Error| Error::system(format!("publishing a namespace at {}", path.display()), error);
        fs::create_dir_all(directory).map_err(failed)?;
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        let mounted =
            nix::mount::mount(Some(&self.path()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        if let Err(error) = mounted {
            let failure = failed(error.into());
            // The file was made above; that it cannot be removed would not change what went wrong.
            let _ = fs::remove_file(&path);
            return Err(failure);
        }
        Ok(Published { path })
    }

    /// The open descriptor, for netlink requests that name a namespace.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A namespace's name under `/run/netns`; dropping it takes the name away.
#[derive(Debug)]
pub struct Published {
    path: PathBuf,
}

impl Published {
    /// `/run/netns/NAME`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure, and the name is only a name.
        let _ = nix::mount::umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets the kernel end the child (SIGKILL) when the **thread** that spawned it ends, so that a killed demonstration
/// or test leaves no daemon behind. Spawn from a thread that outlives the child.
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: `prctl` is one system call and async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        })
    }
}

/// A current-thread runtime with timers and sockets.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::system("starting a tokio runtime", error))
}

fn sysctl_path(key: &str) -> PathBuf {
    let relative = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    Path::new("/proc/sys").join(relative)
}

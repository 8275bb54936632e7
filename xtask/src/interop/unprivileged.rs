//! The daemon with no more rights than the systemd unit gives it: not root, two capabilities, a read-only `/proc/sys`.
//!
//! There is no systemd to start the unit where the checks run, so its main settings are made by hand here.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use netlab::Topology;
use xshell::{Shell, cmd};

use super::{CONFIG, STEERED, syscalls, traffic, wait_until};
use crate::project::Project;

/// In mount namespace of its own: a `/run` that anybody may execute from, a TUN device node with the mode that udev
/// gives it, a read-only `/proc/sys`; and a tracer that is not the daemon's parent. Arguments: binary, configuration, and
/// where the trace goes.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs -o mode=0755 tmpfs /run
install -m 0755 "$1" /run/daemon
install -m 0644 "$2" /run/protomask.toml
install -d -m 0755 -o 65534 /run/protomask
mount -t tmpfs -o mode=0755 tmpfs /dev/net
mknod -m 0666 /dev/net/tun c 10 200
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec strace --daemonize --follow-forks --quiet=all --signal=none --output="$3" \
  setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \
  --bounding-set=-all,+net_admin,+bpf --inh-caps=-all,+net_admin,+bpf --ambient-caps=-all,+net_admin,+bpf \
  /run/daemon --config /run/protomask.toml
"#;

pub(super) fn check(project: &Project, binary: &Path) -> Result<()> {
    let sh = &project.shell;
    let directory = project.scratch("unprivileged")?;
    let config = directory.join("protomask.toml");
    let (log, trace) = (directory.join("log"), directory.join("trace"));
    sh.write_file(&config, CONFIG)?;
    let lab = Topology::new()?;
    let child = lab
        .router
        .command("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"])
        .args([binary, &config, &trace])
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?)
        .spawn()
        .context("starting unshare")?;
    let mut daemon = Daemon { sh, child };
    let outcome = traffic::wait_for_ready(&lab, || Ok(daemon.child.try_wait()?.is_none()))
        .and_then(|()| traffic::exercise(&lab))
        .and_then(|()| daemon.terminate())
        .and_then(|status| {
            ensure!(status.success(), "after SIGTERM: {status}");
            traffic::nothing_left(&lab)?;
            ensure!(sh.read_file(&log)?.contains(STEERED), "the program that tells lanes was not loaded");
            syscalls::check(sh, &sh.read_file(&trace)?)
        });
    if outcome.is_err() {
        eprintln!("{}", sh.read_file(&log).unwrap_or_default());
    }
    outcome.context("the daemon with the unit's rights")?;
    println!("interop: the unit's capabilities and system calls are enough, without root");
    Ok(())
}

/// Killed when dropped.
struct Daemon<'a> {
    sh: &'a Shell,
    child: Child,
}

impl Daemon<'_> {
    /// Every program up to the daemon replaced its predecessor, so the process is the daemon itself.
    fn terminate(&mut self) -> Result<ExitStatus> {
        let sh = self.sh;
        let id = self.child.id().to_string();
        // The shell's own: a small system has no program of that name.
        cmd!(sh, "sh -c").arg(format!("kill -TERM {id}")).run()?;
        ensure!(wait_until(|| Ok(self.child.try_wait()?.is_some()))?, "SIGTERM does not end the daemon");
        Ok(self.child.wait()?)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

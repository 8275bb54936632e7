//! This router: the release build of the project around this folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netlab::{HttpResponse, http_get};

use super::{Contender, DEVICE, Locks, POOL, PREFIX, cargo, project};
use crate::lab::{Lab, PATIENCE};
use crate::process::{Process, run};

const BUILD_LIMIT: Duration = Duration::from_mins(15);
/// Inside the router's namespace, where nobody else listens.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// How often readiness is asked for.
const PACE: Duration = Duration::from_millis(25);

/// How hosts share the addresses of the pool, as the router calls it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sharing {
    /// Each host has ports of an address: sessions are remembered. This is the default.
    Ports,
    /// Each host has an address to itself.
    Exclusive,
}

pub(super) struct Ours {
    sharing: Sharing,
    program: PathBuf,
    version: String,
    /// Where its state is, and its control socket beside it: others of the same name run at the same time.
    state: PathBuf,
}

impl Drop for Ours {
    fn drop(&mut self) {
        // What stays behind is below the temporary folder.
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

impl Ours {
    /// Takes the program that is given, or builds it as it is delivered, and finds out what it is.
    pub(super) fn prepare(given: Option<&Path>, sharing: Sharing) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (program, origin) = match given {
            Some(file) => {
                (file.canonicalize().with_context(|| format!("no {}", file.display()))?, String::new())
            }
            None => (build()?, revision()),
        };
        let version = run(Command::new(&program).arg("--version"), PATIENCE)?.stdout.trim().to_owned();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let state = std::env::temp_dir().join(format!("protomask-bench-{}-{number}", std::process::id()));
        Ok(Self { sharing, program, version: version + &origin, state })
    }

    fn arguments(&self) -> Vec<String> {
        let sharing = match self.sharing {
            Sharing::Ports => "ports",
            Sharing::Exclusive => "exclusive",
        };
        let http = HTTP.to_string();
        [
            "--pool-prefix",
            POOL,
            "--sharing",
            sharing,
            "--translation-prefix",
            PREFIX,
            "-i",
            DEVICE,
            "--prometheus",
            &http,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

fn build() -> Result<PathBuf> {
    let project = project()?;
    let target = project.join("target");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--bin", "protomask", "--target-dir"]).arg(&target);
    run(build.current_dir(project), BUILD_LIMIT).context("it cannot be built")?;
    Ok(target.join("release/protomask"))
}

impl Contender for Ours {
    fn version(&self) -> &str {
        &self.version
    }

    fn configuration(&self) -> String {
        format!("protomask {}", self.arguments().join(" "))
    }

    fn start(&self, lab: &Lab) -> Result<Option<Process>> {
        // As it is delivered, with state; each run begins without any.
        let state = &self.state;
        if state.exists() {
            std::fs::remove_dir_all(state).with_context(|| format!("{} stays", state.display()))?;
        }
        let socket = state.with_extension("sock");
        let mut command = lab.router()?.command(&self.program);
        command.args(self.arguments()).arg("--state-dir").arg(state).arg("--control-socket").arg(socket);
        Process::start(&mut command).map(Some)
    }

    fn wait_until_ready(&self, lab: &Lab, process: &Process) -> Result<()> {
        let start = Instant::now();
        while !fetch(lab, "/readyz").is_ok_and(|answer| answer.status == 200) {
            if process.has_ended(PACE) {
                bail!("it ended: {}", process.output().last_line());
            }
            if start.elapsed() > PATIENCE {
                bail!("not ready within {} s", PATIENCE.as_secs());
            }
        }
        Ok(())
    }

    fn locks(&self, lab: &Lab) -> Result<Option<Locks>> {
        Ok(locks(&fetch(lab, "/metrics")?.text()))
    }

    fn counters(&self, lab: &Lab) -> Result<Vec<(String, u64)>> {
        Ok(drops(&fetch(lab, "/metrics")?.text()))
    }
}

fn fetch(lab: &Lab, path: &str) -> Result<HttpResponse> {
    Ok(http_get(lab.router()?, HTTP, path, PATIENCE)?)
}

/// The counters of dropped packets that are not zero, by reason.
fn drops(page: &str) -> Vec<(String, u64)> {
    let counter = |line: &str| {
        let (labels, value) = line.strip_prefix("protomask_dropped_packets_total{")?.rsplit_once("} ")?;
        Some((labels.to_owned(), value.parse().ok()?))
    };
    page.lines().filter_map(counter).filter(|(_, count)| *count > 0).collect()
}

/// Locks that were not free, of sessions and of leases; `None` if the page does not tell of one of them.
fn locks(page: &str) -> Option<Locks> {
    let sum = |name: &str| {
        let lines = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        counts.reduce(|one, other| one + other)
    };
    let sessions = sum("protomask_session_table_contentions_total")?;
    let leases = sum("protomask_lease_table_contentions_total")?;
    Some(Locks { contended: sessions + leases, packets: sum("protomask_received_packets_total")? })
}

/// The commit, and whether files of the router differ from it; empty outside of a checkout.
fn revision() -> String {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        let folder = project().ok()?;
        Some(run(git.arg("-C").arg(folder).args(arguments), PATIENCE).ok()?.stdout.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return String::new() };
    let different = git(&["status", "--short", "--", "src", "crates", "Cargo.lock", "Cargo.toml"]);
    let changes = if different.is_none_or(|files| files.is_empty()) { "" } else { ", with changes" };
    format!(" ({commit}{changes})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_both_tables_and_packets_of_both_families_are_counted() {
        let page = "protomask_received_packets_total{family=\"ipv4\"} 30000\n\
                    protomask_received_packets_total{family=\"ipv6\"} 10000\n\
                    protomask_session_table_contentions_total 3\n\
                    protomask_lease_table_contentions_total 5\n";
        assert_eq!(locks(page), Some(Locks { contended: 8, packets: 40_000 }));
        for part in ["session_table", "lease_table", "received_packets"] {
            let lines: Vec<_> = page.lines().filter(|line| !line.contains(part)).collect();
            assert_eq!(locks(&lines.join("\n")), None, "without {part}");
        }
    }

    #[test]
    fn only_reasons_that_occurred_are_told() {
        let page = "protomask_dropped_packets_total{reason=\"no_binding\",worker=\"0\"} 7\n\
                    protomask_dropped_packets_total{reason=\"not_ip\",worker=\"0\"} 0\n\
                    protomask_forwarded_packets_total{direction=\"6to4\"} 3\n";
        assert_eq!(drops(page), [("reason=\"no_binding\",worker=\"0\"".to_owned(), 7)]);
    }
}

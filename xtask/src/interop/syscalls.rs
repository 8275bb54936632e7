//! Whether the unit's system call filter lets through what the daemon calls.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

/// Compares a trace, from the start of `/run/daemon` on, with `SystemCallFilter=` as this systemd understands it.
pub(super) fn check(sh: &Shell, trace: &str) -> Result<()> {
    let mut allowed = BTreeSet::new();
    for line in sh.read_file("deploy/systemd/protomask.service")?.lines() {
        let Some(filter) = line.strip_prefix("SystemCallFilter=") else { continue };
        let (names, denies) = filter.strip_prefix('~').map_or((filter, false), |names| (names, true));
        for name in expand(sh, names)? {
            if denies {
                allowed.remove(&name);
            } else {
                allowed.insert(name);
            }
        }
    }
    let called: BTreeSet<_> = trace
        .lines()
        .skip_while(|line| !line.contains("execve(\"/run/daemon\""))
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_'))
        .collect();
    // Fewer would be those of a daemon that never did anything.
    ensure!(called.len() > 30, "the trace holds {} system calls only", called.len());
    let denied: Vec<_> = called.difference(&allowed).cloned().collect();
    ensure!(denied.is_empty(), "the unit's SystemCallFilter denies: {}", denied.join(" "));
    Ok(())
}

/// The system calls in a list of names and of sets, which hold names and sets again.
fn expand(sh: &Shell, list: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut left: Vec<_> = list.split_whitespace().map(str::to_owned).collect();
    while let Some(name) = left.pop() {
        if name.starts_with('@') {
            let set = cmd!(sh, "systemd-analyze syscall-filter --no-pager {name}")
                .quiet()
                .ignore_stderr()
                .read()?;
            // The first line repeats the set's own name.
            let members = set.lines().skip(1).map(str::trim);
            left.extend(members.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned));
        } else {
            names.insert(name);
        }
    }
    Ok(names)
}

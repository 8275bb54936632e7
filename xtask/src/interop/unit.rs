//! The systemd unit and the sysctl drop-in, read by systemd's own programs.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::project::Project;

/// The highest exposure, in tenths, that `systemd-analyze security` may find (0 to 100; a unit without hardening
/// has 96).
const EXPOSURE: &str = "20";

pub(super) fn check(project: &Project, binary: &Path) -> Result<()> {
    let sh = &project.shell;
    // The unit names an installed binary; the one at hand stands in for it.
    let directory = project.scratch("unit")?;
    let unit = directory.join("protomask.service");
    let binary = binary.to_str().context("the checkout's path is no text")?;
    let text = sh.read_file("deploy/systemd/protomask.service")?;
    ensure!(text.contains("=/usr/bin/protomask "), "the unit does not start /usr/bin/protomask");
    sh.write_file(&unit, text.replace("=/usr/bin/protomask ", &format!("={binary} ")))?;

    // What systemd does not understand it only warns about, with exit code 0. Other units' faults are not ours.
    let output = cmd!(sh, "systemd-analyze verify --man=no {unit}").ignore_status().output()?;
    let output_text = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = output_text.lines().filter(|line| line.contains("protomask")).collect();
    ensure!(
        output.status.success() && complaints.is_empty(),
        "systemd-analyze verify:\n{}",
        complaints.join("\n")
    );
    cmd!(sh, "systemd-analyze security --offline=true --no-pager --threshold={EXPOSURE} {unit}")
        .ignore_stdout()
        .run()?;

    let namespace = netlab::Namespace::new("sysctl")?;
    let status = namespace
        .command("/lib/systemd/systemd-sysctl")
        .arg(sh.current_dir().join("deploy/systemd/90-protomask.conf"))
        .status()?;
    ensure!(status.success(), "systemd-sysctl does not take 90-protomask.conf: {status}");
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        ensure!(namespace.read_sysctl(key)? == "1", "90-protomask.conf does not turn {key} on");
    }
    println!("interop: systemd takes the unit and the sysctl drop-in");
    Ok(())
}

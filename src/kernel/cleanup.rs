//! Finds and removes what carries our marks: after an unclean end, and for `protomask cleanup`.

use std::fmt;

use rtnl::{Change, Desired, Snapshot, diff};

use super::masquerade;
use super::preflight;
use super::sysctl::Sysctls;
use crate::error::chain;

/// What a clean-up did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What was removed or restored, one phrase each.
    pub done: Vec<String>,
    /// What could not be, with the reason.
    pub failed: Vec<String>,
}

impl Report {
    /// Whether nothing of ours is left.
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }

    fn note<T>(&mut self, what: &str, result: Result<T, impl std::error::Error + 'static>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.push(format!("{what}: {}", chain(&error)));
                None
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.done.is_empty() && self.failed.is_empty() {
            return f.write_str("nothing of protomask was found");
        }
        for (index, line) in self.done.iter().chain(&self.failed).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(line)?;
        }
        Ok(())
    }
}

/// Removes everything in this network namespace that carries our marks, whichever interface it was made for: TUN devices
/// with our alias, routes with our protocol number and metric, nftables tables by their name, and the recorded sysctls.
///
/// It goes on after a failure, and finds nothing the second time. While a router runs nothing is done, unless `force` says
/// so: it would lose its device.
pub async fn cleanup(handle: &rtnl::Handle, sysctls: &Sysctls, force: bool) -> Report {
    let mut report = Report::default();
    if let Some(snapshot) = report.note("read links and routes", handle.snapshot().await) {
        // A TUN device has a carrier while somebody holds a queue of it open.
        let running = snapshot.links.iter().filter(|link| preflight::is_ours(link) && link.carrier);
        report.failed.extend(running.filter(|_| !force).map(|link| {
            format!("{} is in use by a router that runs; end that first, or give --force", link.name)
        }));
        if !report.is_clean() {
            return report;
        }
        // Routes first: with the device gone, the report could not name them.
        remove_routes(handle, &snapshot, &mut report).await;
        for link in snapshot.links.iter().filter(|link| preflight::is_ours(link)) {
            let what = format!("remove the interface {}", link.name);
            if report.note(&what, handle.remove_link(link.index).await).is_some() {
                report.done.push(format!("removed the interface {}", link.name));
            }
        }
    }
    for table in report.note("list the nftables tables", masquerade::list_ours()).unwrap_or_default() {
        let what = format!("remove the nftables table ip {table}");
        if report.note(&what, masquerade::remove_table(&table)) == Some(true) {
            report.done.push(format!("removed the nftables table ip {table}"));
        }
    }
    for interface in report.note("list the sysctl records", sysctls.records()).unwrap_or_default() {
        let what = format!("restore the sysctls recorded for {interface}");
        if let Some(restored) = report.note(&what, sysctls.restore(&interface)) {
            report.done.extend(restored.changed.iter().map(|change| format!("restored {change}")));
            report.done.extend(
                restored
                    .left
                    .iter()
                    .map(|(key, value)| format!("left {key} at {value}, which was set by somebody else")),
            );
            if restored.changed.is_empty() && restored.left.is_empty() {
                report.done.push(format!("removed the sysctl record of {interface}"));
            }
        }
    }
    report
}

async fn remove_routes(handle: &rtnl::Handle, snapshot: &Snapshot, report: &mut Report) {
    for route in &snapshot.routes {
        let Some(link) = route.link().filter(|link| route.is_ours(*link)) else { continue };
        let change = Change::RemoveRoute { link, destination: route.destination };
        let text = format!("the route to {} dev {}", route.destination, snapshot.link_name(link));
        if report.note(&format!("remove {text}"), handle.make(&change).await).is_some() {
            report.done.push(format!("removed {text}"));
        }
    }
}

/// What an earlier run left on the interface that the configuration no longer wants: addresses and routes to be removed.
/// The next [`rtnl::Handle::apply`] of the difference removes them; this list is for the log.
pub fn leftovers(snapshot: &Snapshot, desired: &Desired) -> Vec<Change> {
    let mut changes = diff(desired, snapshot).changes;
    changes.retain(|change| matches!(change, Change::RemoveAddress { .. } | Change::RemoveRoute { .. }));
    changes
}

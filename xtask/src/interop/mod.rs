//! What is in `deploy/`, tried with the tools that will use it, and translated packets seen by somebody else's eyes.

mod capture;
mod container;
mod manifests;
mod metrics;
mod syscalls;
mod traffic;
mod tshark;
mod unit;
mod unprivileged;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::packages;
use crate::project::Project;
use crate::verbs;

/// Everything here ends within this, or fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the router is told in the laboratory, whose documentation addresses the well-known prefix must not carry. It
/// masquerades, so that the rights which nftables wants are tried as well.
const CONFIG: &str = r#"
interface = "nat64"
translation_prefix = "64:ff9b:1::/96"
prometheus = "127.0.0.1:9464"
num_queues = 2

[log]
format = "json"

[[pool]]
prefix = "203.0.113.0/24"
masquerade = true
"#;

/// What the log says once the program that shares packets out to workers is there: the rights for it were enough.
const STEERED: &str = "both ways of a flow come to one worker, by a program in the kernel";

/// The verb.
pub(crate) fn interop(project: &Project) -> Result<()> {
    packages::require()?;
    ensure!(netlab::kernel_tests_possible(), "this needs root and /dev/net/tun");
    verbs::conformance(project)?;
    tshark::check(project)?;
    let binary = verbs::release_binary(project)?;
    unit::check(project, &binary)?;
    manifests::check(project, &binary)?;
    unprivileged::check(project, &binary)?;
    container::check(project, &binary)
}

/// Asks until the answer is yes or [`PATIENCE`] is over; says which.
fn wait_until(mut question: impl FnMut() -> Result<bool>) -> Result<bool> {
    let began = Instant::now();
    while !question()? {
        if began.elapsed() > PATIENCE {
            return Ok(false);
        }
        #[allow(clippy::disallowed_methods, reason = "other programs start and stop without telling us")]
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}

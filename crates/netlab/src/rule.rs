//! The one rule for tests that need the kernel.

use std::fs::OpenOptions;
use std::io::Write;

use crate::Namespace;

/// With this variable set to `1` a test that cannot run fails instead of being skipped.
pub const REQUIRE_VARIABLE: &str = "PROTOMASK_REQUIRE_KERNEL_TESTS";

/// Whether this process may make namespaces and TUN devices. Where it may not, one line on stderr says so
/// (past the test harness, which would swallow it), and the test should return.
///
/// ```no_run
/// # fn a_test() {
/// if !netlab::kernel_tests_possible() {
///     return;
/// }
/// # }
/// ```
///
/// # Panics
/// When the answer is no and [`REQUIRE_VARIABLE`] is `1`.
#[allow(clippy::panic, reason = "failing the calling test is what this is for")]
pub fn kernel_tests_possible() -> bool {
    let Err(reason) = probe() else { return true };
    assert!(
        std::env::var_os(REQUIRE_VARIABLE).is_none_or(|value| value != "1"),
        "{REQUIRE_VARIABLE}=1, but this test cannot run: {reason}"
    );
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED: needs root and /dev/net/tun: {test}: {reason}");
    false
}

fn probe() -> Result<(), String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|error| format!("/dev/net/tun: {error}"))?;
    Namespace::new("probe").map(drop).map_err(|error| error.to_string())
}

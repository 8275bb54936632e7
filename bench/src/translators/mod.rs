//! The three translators: how each is made, configured, started and asked.

mod original;
mod ours;
mod tayga;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::process::Process;

/// Where the IPv4 internet appears. Documentation addresses are refused under `64:ff9b::/96` (RFC 6052 §3.1), and tayga
/// takes no other prefix out of `64:ff9b::/32`.
pub(crate) const PREFIX: &str = "2001:db8:64::/96";
/// Where clients appear on the IPv4 side; it is `netlab::Topology::POOL`, for which the server has a route.
pub(crate) const POOL: &str = "203.0.113.0/24";
/// The name of the TUN device, which each translator has in a namespace of its own.
pub(crate) const DEVICE: &str = "bench0";

/// A translator that is ready to be started.
pub(crate) trait Translator {
    /// Its version, in its own or its package's words.
    fn version(&self) -> &str;
    /// How it is called and configured, for the reader.
    fn configuration(&self) -> String;
    /// Starts it in the router's namespace, with device and routes made or being made.
    fn start(&self, lab: &Lab) -> Result<Process>;
    /// Waits until it says that it is ready, if it can say so; whether packets pass is seen afterwards.
    fn wait_until_ready(&self, _lab: &Lab, _process: &Process) -> Result<()> {
        Ok(())
    }
    /// What it has to say about its work: drops by reason.
    fn counters(&self, _lab: &Lab) -> Result<Vec<(String, u64)>> {
        Ok(Vec::new())
    }
}

/// A column of the table: a translator, or why there is none.
pub(crate) struct Contestant {
    /// The heading of its column.
    pub(crate) name: &'static str,
    /// The translator.
    pub(crate) translator: Result<Box<dyn Translator>>,
}

/// Makes those whose name contains one of the words; all of them without a word. `router` is a build of this router to
/// be taken as it is.
pub(crate) fn prepare(only: &[String], router: Option<&Path>) -> Result<Vec<Contestant>> {
    type Make = fn(Option<&Path>) -> Result<Box<dyn Translator>>;
    let all: [(&'static str, Make); 3] = [
        (ours::NAME, |router| Ok(Box::new(ours::Ours::prepare(router)?))),
        (tayga::NAME, |_| Ok(Box::new(tayga::Tayga::prepare()?))),
        (original::NAME, |_| Ok(Box::new(original::Original::prepare()?))),
    ];
    let mut contestants = Vec::new();
    for (name, make) in all {
        if only.is_empty() || only.iter().any(|word| name.contains(word.as_str())) {
            contestants.push(Contestant { name, translator: make(router) });
        }
    }
    anyhow::ensure!(!contestants.is_empty(), "--only names none of them");
    Ok(contestants)
}

/// The folder `bench`, and the project around it.
fn project() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench is a folder of the project")
}

/// Where what is built and written goes: `bench/target`.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

/// The cargo that runs this program.
fn cargo() -> std::process::Command {
    std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

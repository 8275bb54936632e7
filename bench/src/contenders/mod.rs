//! Who is measured: how each is made, configured, started and asked.

mod bare;
mod locks;
mod original;
mod ours;
mod plain;
mod tayga;

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::lab::{Lab, Layout, PATIENCE};
use crate::loads::Load;
use crate::process::{Process, run};
use crate::requirements::program;
pub(crate) use locks::Locks;

/// Where the IPv4 internet appears. Documentation addresses are refused under `64:ff9b::/96` (RFC 6052 §3.1), and tayga
/// takes no other prefix out of `64:ff9b::/32`.
pub(crate) const PREFIX: &str = "2001:db8:64::/96";
/// Where clients appear on the IPv4 side; it is `netlab::Topology::POOL`, for which the server has a route.
pub(crate) const POOL: &str = "203.0.113.0/24";
/// The name of the TUN device, which each translator has in a namespace of its own.
pub(crate) const DEVICE: &str = "bench0";

/// What a contender is measured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// This router, which remembers sessions (RFC 6146).
    Sessions,
    /// This router, with an address for each host.
    Exclusive,
    /// Another build of this router, which remembers sessions too.
    Beside,
    /// The least that a TUN device costs.
    Bare,
    /// The kernel's own forwarding.
    Forwarding,
    /// Another translator.
    Other,
    /// Client and server without anything in between: what the load alone costs.
    Direct,
}

impl Role {
    /// Whether it is measured by this load.
    pub(crate) fn takes(self, load: Load) -> bool {
        match self {
            Self::Sessions | Self::Exclusive | Self::Beside | Self::Other => true,
            // It knows one host, and the connections are those of many.
            Self::Bare => load != Load::Connections,
            Self::Forwarding => load != Load::Idle,
            Self::Direct => matches!(load, Load::Paced { .. } | Load::Bursts | Load::CardBursts),
        }
    }

    /// Whether it translates, and is no mere loop.
    pub(crate) fn is_translator(self) -> bool {
        matches!(self, Self::Sessions | Self::Exclusive | Self::Beside | Self::Other)
    }

    fn layout(self) -> Layout {
        match self {
            Self::Direct => Layout::Direct,
            Self::Forwarding => Layout::Forwarding,
            _ => Layout::Translation,
        }
    }
}

/// Something between client and server that is ready to be started.
pub(crate) trait Contender {
    /// Its version, in its own or its package's words.
    fn version(&self) -> &str;
    /// How it is called and configured, for the reader.
    fn configuration(&self) -> String;
    /// Starts it in the router's namespace, with device and routes made or being made; `None` where the kernel does the
    /// work.
    fn start(&self, lab: &Lab) -> Result<Option<Process>>;
    /// Waits until it says that it is ready, if it can say so; whether packets pass is seen afterwards.
    fn wait_until_ready(&self, _lab: &Lab, _process: &Process) -> Result<()> {
        Ok(())
    }
    /// What it has counted of the locks of its tables so far; `None` if it does not say.
    fn locks(&self, _lab: &Lab) -> Result<Option<Locks>> {
        Ok(None)
    }
    /// What it has to say about its work: drops by reason.
    fn counters(&self, _lab: &Lab) -> Result<Vec<(String, u64)>> {
        Ok(Vec::new())
    }
}

/// A contender, or why there is none.
pub(crate) struct Entry {
    /// The heading of its column.
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) contender: Result<Box<dyn Contender>>,
}

impl Entry {
    /// Namespaces for it.
    pub(crate) fn lab(&self) -> Result<Lab> {
        Lab::new(self.role.layout())
    }
}

/// Makes those whose name contains one of the words; all of them without a word. What the load alone costs is measured
/// with them. `router` is a build of this router to be taken as it is, and `beside` a second one.
pub(crate) fn prepare(only: &[String], router: Option<&Path>, beside: Option<&Path>) -> Result<Vec<Entry>> {
    type Make = fn(Option<&Path>) -> Result<Box<dyn Contender>>;
    let all: [(&'static str, Role, Make); 6] = [
        ("this router", Role::Sessions, |router| {
            Ok(Box::new(ours::Ours::prepare(router, ours::Sharing::Ports)?))
        }),
        ("this router, exclusive", Role::Exclusive, |router| {
            Ok(Box::new(ours::Ours::prepare(router, ours::Sharing::Exclusive)?))
        }),
        ("bare loop", Role::Bare, |_| Ok(Box::new(bare::Bare))),
        ("kernel forwarding", Role::Forwarding, |_| Ok(Box::new(plain::Forwarding))),
        (tayga::NAME, Role::Other, |_| Ok(Box::new(tayga::Tayga::prepare()?))),
        (original::NAME, Role::Other, |_| Ok(Box::new(original::Original::prepare()?))),
    ];
    let mut entries = Vec::new();
    for (name, role, make) in all {
        if only.is_empty() || only.iter().any(|word| name.contains(word.as_str())) {
            entries.push(Entry { name, role, contender: make(router) });
        }
    }
    if let Some(program) = beside {
        let contender = ours::Ours::prepare(Some(program), ours::Sharing::Ports);
        let contender = contender.map(|ours| Box::new(ours) as Box<dyn Contender>);
        entries.push(Entry { name: "beside", role: Role::Beside, contender });
    }
    anyhow::ensure!(!entries.is_empty(), "--only names none of them");
    entries.push(Entry { name: "direct", role: Role::Direct, contender: Ok(Box::new(plain::Direct)) });
    Ok(entries)
}

/// One queue per processor, which is what this router takes by itself.
fn queues() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Brings up a device that exists, and routes pool and prefix to it.
fn route(lab: &Lab) -> Result<()> {
    for arguments in [
        vec!["link", "set", DEVICE, "up"],
        vec!["route", "add", POOL, "dev", DEVICE],
        vec!["-6", "route", "add", PREFIX, "dev", DEVICE],
    ] {
        run(lab.router()?.command(program("ip")).args(arguments), PATIENCE)?;
    }
    Ok(())
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

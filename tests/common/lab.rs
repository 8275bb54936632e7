//! A laboratory with room for files.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;

use ipnet::IpNet;
use netlab::{Namespace, Topology, TopologyOptions};
use rtnl::Snapshot;

use super::files::Files;
use super::process::Finished;

const PROTOMASK: &str = env!("CARGO_BIN_EXE_protomask");

/// Namespaces, and a directory for files.
#[derive(Debug)]
pub(crate) struct Lab {
    topology: Topology,
    files: Files,
}

impl Deref for Lab {
    type Target = Topology;

    fn deref(&self) -> &Topology {
        &self.topology
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(&TopologyOptions::default())
    }

    pub(crate) fn with(options: &TopologyOptions) -> Self {
        let files = Files::new();
        for name in ["run", "lib"] {
            std::fs::create_dir(files.path().join(name)).unwrap();
        }
        Self { topology: Topology::with(options).unwrap(), files }
    }

    /// Writes a file that lasts as long as the laboratory, and tells its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        self.files.write(name, text)
    }

    /// The laboratory's `/run`.
    pub(crate) fn run_directory(&self) -> PathBuf {
        self.files.path().join("run")
    }

    /// The laboratory's `/var/lib`.
    pub(crate) fn lib_directory(&self) -> PathBuf {
        self.files.path().join("lib")
    }

    /// The program in the router's namespace, with the laboratory's `/run` and `/var/lib`.
    pub(crate) fn protomask(&self) -> Command {
        self.command_after(&format!("mount --bind '{}' /run", self.run_directory().display()))
    }

    /// The same as root who may not load programs into the kernel.
    pub(crate) fn protomask_without_programs(&self) -> Command {
        // The bounding set limits what root gets when it starts a program; CAP_SYS_ADMIN would do as well.
        let without = "exec setpriv --bounding-set -bpf,-sys_admin \"$0\" \"$@\"";
        self.command_after(&format!("mount --bind '{}' /run && {without}", self.run_directory().display()))
    }

    /// Whether the kernel would let anybody load them (`kernel.unprivileged_bpf_disabled`).
    pub(crate) fn anybody_may_load_programs() -> bool {
        std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")
            .is_ok_and(|value| value.trim() == "0")
    }

    /// The program in the router's namespace, after a shell command in a mount namespace of its own, where `/var/lib` is the
    /// laboratory's.
    pub(crate) fn command_after(&self, preparation: &str) -> Command {
        let mut command = self.router.command("unshare");
        let lib = format!("mount --bind '{}' /var/lib", self.lib_directory().display());
        // Each `exec` keeps the process number, so the child is the program itself.
        command.args([
            "--mount",
            "sh",
            "-c",
            &format!("{lib} && {preparation} && exec \"$0\" \"$@\""),
            PROTOMASK,
        ]);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run_to_end(&self, arguments: &[&str]) -> Finished {
        let mut command = self.protomask();
        command.args(arguments);
        Finished::wait_for(command)
    }

    /// What the kernel holds in the router's namespace.
    pub(crate) fn snapshot(&self) -> Snapshot {
        snapshot(&self.router)
    }

    /// Addresses and routes of the router's namespace, without link-local ones, which the kernel makes in its own time.
    pub(crate) fn holdings(&self) -> (Vec<rtnl::Address>, Vec<rtnl::Route>) {
        let link_local = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
        let Snapshot { mut addresses, mut routes, .. } = self.snapshot();
        addresses.retain(|address| !link_local(&address.net));
        routes.retain(|route| !link_local(&route.destination));
        (addresses, routes)
    }

    /// The names of what carries our marks: devices, routes and nftables tables.
    pub(crate) fn marks(&self) -> Vec<String> {
        let snapshot = self.snapshot();
        let devices = snapshot.links.iter().filter(|link| link.kind == rtnl::LinkKind::Tun);
        let mut marks: Vec<String> = devices.map(|link| format!("link {}", link.name)).collect();
        let routes = snapshot.routes.iter().filter(|route| route.protocol == rtnl::ROUTE_PROTOCOL);
        marks.extend(routes.map(|route| format!("route {}", route.destination)));
        let tables = self.router.run(|| protomask::kernel::masquerade::list_ours().unwrap());
        marks.extend(tables.into_iter().map(|table| format!("table {table}")));
        marks
    }

    /// The names of the files below the laboratory's `/run/protomask`.
    pub(crate) fn records(&self) -> Vec<String> {
        // One directory for each network namespace, and sockets beside them.
        let Ok(namespaces) = std::fs::read_dir(self.run_directory().join("protomask")) else {
            return Vec::new();
        };
        let directories = namespaces.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        let files = directories.flat_map(|directory| std::fs::read_dir(directory).unwrap());
        files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// What the kernel holds in a namespace.
pub(crate) fn snapshot(namespace: &Namespace) -> Snapshot {
    namespace.block_on(async { rtnl::Handle::open().unwrap().snapshot().await.unwrap() })
}

//! A router, and its file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use netlab::{Server, Topology, TopologyOptions, udp_exchange};
use nix::sys::signal::Signal;

use crate::common::{Lab, PATIENCE, Router, eventually, through};

/// What can come of a reload.
const RESULTS: [&str; 3] = ["applied", "unchanged", "refused"];

/// The lines that every file here begins with.
pub(crate) const TOP: &str = "translation_prefix = \"64:ff9b:1::/96\"\n";

/// A pool of one address that is shared by ports.
pub(crate) fn pool(address: &str) -> String {
    format!("[[pool]]\nprefix = \"{address}\"\n")
}

/// A router that reads its file anew when it is told to, or finds another one.
pub(crate) struct Reloading {
    pub(crate) lab: Lab,
    pub(crate) router: Router,
    pub(crate) echo: Server,
    file: PathBuf,
}

impl Reloading {
    /// A router with this file, and an echo server.
    pub(crate) fn start(hosts: u16, text: &str) -> Self {
        let lab = Lab::with(&TopologyOptions { addresses_per_client: hosts, ..TopologyOptions::default() });
        let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
        let file = lab.file("protomask.toml", text);
        let router = Router::start(&lab, &["--config", &file]);
        Self { lab, router, echo, file: file.into() }
    }

    pub(crate) fn host(&self, number: usize) -> Ipv6Addr {
        self.lab.clients[0].addresses[number]
    }

    /// Another text in the file's place, at once.
    pub(crate) fn write(&self, text: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    /// Reloads so far, by what came of them. The log is no measure: it limits equal messages.
    fn tally(&self) -> [u64; 3] {
        let metrics = self.router.metrics();
        RESULTS.map(|result| metrics.sum("protomask_reloads_total", &[&format!("result=\"{result}\"")]))
    }

    /// Writes this and tells the router; says what came of it.
    pub(crate) fn reload(&mut self, text: &str) -> &'static str {
        let before = self.tally();
        self.write(text);
        self.router.process().signal(Signal::SIGHUP);
        eventually("an answer to SIGHUP", PATIENCE, || {
            let now = self.tally();
            (0..3).find(|place| now[*place] != before[*place]).map(|place| RESULTS[place])
        })
    }

    /// The same, where it has to be taken.
    pub(crate) fn takes(&mut self, text: &str) {
        assert_eq!(self.reload(text), "applied", "{}", self.readiness().1);
    }

    /// The IPv4 address that a host's datagram to the server leaves with, as seen through this prefix.
    pub(crate) fn address_of(&self, host: Ipv6Addr, remote: Ipv6Addr) -> Ipv4Addr {
        let target = SocketAddr::from((remote, 7));
        let echoed =
            udp_exchange(self.lab.client(), Some((host, 0).into()), target, b"who", PATIENCE).unwrap();
        assert_eq!(echoed, b"who");
        match self.echo.peers().last().unwrap().ip() {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => panic!("{address} reached an IPv4-only server"),
        }
    }

    /// The same through the first prefix.
    pub(crate) fn speaks_as(&self, host: Ipv6Addr) -> Ipv4Addr {
        self.address_of(host, through(Topology::SERVER_V4))
    }

    /// The destinations that are routed into the device.
    pub(crate) fn routes(&self) -> Vec<String> {
        let routes = self.lab.snapshot().routes;
        let ours = routes.iter().filter(|route| route.protocol == rtnl::ROUTE_PROTOCOL);
        ours.map(|route| route.destination.to_string()).collect()
    }

    pub(crate) fn readiness(&self) -> (u16, String) {
        let page = self.router.get("/readyz").expect("an answer");
        (page.status, page.text())
    }
}

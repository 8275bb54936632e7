//! Client, router and server in namespaces of their own, and the test that must be passed before anything is measured.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::Ipv6Net;
use netlab::{
    Direction, Namespace, PingOptions, PingOutcome, Server, Topology, bulk_transfer, http_get, ping, veth,
};

use crate::links::Link;
use crate::load::connections::Hosts;
use crate::load::socket::{Ends, Flow};
use crate::process::Process;

/// How long one step may take that takes milliseconds when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one ping may take while a translator starts.
const FIRST_PING: Duration = Duration::from_millis(250);
/// The length of the page, in bytes.
const PAGE: usize = 1 << 20;
/// `Topology::SERVER_V4` as the client addresses it through a translator.
pub(crate) const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x6402);
/// The network between router and server where nothing is translated, and their addresses.
const PLAIN_ROUTER: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1), 64);
const PLAIN_SERVER: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 2), 64);
/// The server where there is no router; the client is `Topology::CLIENT_V6`.
const NEIGHBOUR: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 3), 64);
/// The network of the hosts that open connections, each in a /64 of its own, and how many there are.
const HOSTS: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0x1000, 0, 0, 0, 0, 0), 48);
const HOST_COUNT: u16 = 64;
/// The client's port of a flow of datagrams, beside the server's.
const CLIENT_PORT: u16 = 7000;

/// What is between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nothing: one veth joins them.
    Direct,
    /// A router namespace that forwards IPv6 to the server's IPv6 address.
    Forwarding,
    /// A router namespace in which a translator runs, and an IPv4-only server.
    Translation,
}

/// The namespaces, and what listens in the server's.
#[derive(Debug)]
pub(crate) struct Lab {
    client: Namespace,
    router: Option<Namespace>,
    server: Namespace,
    bound: IpAddr,
    seen: IpAddr,
    hosts: Arc<Hosts>,
    page: Server,
    sink: Server,
    body: Vec<u8>,
}

impl Lab {
    pub(crate) fn new(layout: Layout) -> Result<Self> {
        let (client, router, server, hosts) = match layout {
            Layout::Direct => {
                let (client, server) = direct()?;
                (client, None, server, Vec::new())
            }
            Layout::Forwarding | Layout::Translation => {
                let topology = Topology::new()?;
                let hosts = hosts(&topology)?;
                if layout == Layout::Forwarding {
                    forward(&topology)?;
                }
                (topology.client().clone(), Some(topology.router), topology.server, hosts)
            }
        };
        let (bound, seen): (IpAddr, IpAddr) = match layout {
            Layout::Direct => (NEIGHBOUR.addr().into(), NEIGHBOUR.addr().into()),
            Layout::Forwarding => (PLAIN_SERVER.addr().into(), PLAIN_SERVER.addr().into()),
            Layout::Translation => (Topology::SERVER_V4.into(), SERVER.into()),
        };
        // What the client sends at a time arrives as packets of their own, as from a network card. TCP, and what is sent one by
        // one, know no difference.
        client.set_offload("eth0", "tx-udp-segmentation", false)?;
        let body = noise(PAGE);
        let page = Server::http(&server, (bound, 80), body.clone())?;
        let sink = Server::bulk(&server, (bound, 9000))?;
        let hosts = Arc::new(Hosts::new(hosts));
        Ok(Self { client, router, server, bound, seen, hosts, page, sink, body })
    }

    pub(crate) fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where a translator runs.
    pub(crate) fn router(&self) -> Result<&Namespace> {
        self.router.as_ref().context("there is no router between client and server")
    }

    pub(crate) fn server(&self) -> &Namespace {
        &self.server
    }

    /// The hosts that open connections.
    pub(crate) fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    /// Packets that the other end of the client's link has got so far; a super-packet is one.
    pub(crate) fn arrivals(&self) -> Result<u64> {
        let (place, link) = self.router.as_ref().map_or((&self.server, "eth0"), |router| (router, "client0"));
        // Of this thread, which is in the namespace: `/proc/net` is the main thread's.
        let table = place.try_run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        Ok(Link::find(&table, link).context("the client's link is gone")?.received)
    }

    /// The server's address as its programs bind it, and as the client addresses it.
    pub(crate) fn ends(&self, port: u16) -> Ends {
        Ends { bound: (self.bound, port).into(), seen: (self.seen, port).into() }
    }

    /// A flow of datagrams from the client to this port of the server, which gets through. The client's port is the same
    /// each time, so that a translator meets a flow that it knows.
    pub(crate) fn flow(&self, port: u16) -> Result<Flow> {
        let from = SocketAddr::from((Topology::CLIENT_V6, CLIENT_PORT + port));
        Flow::open(&self.client, &self.server, from, self.ends(port))
    }

    /// A page of 1 MiB that must arrive as it is, and an upload of as much whose SHA-256 must agree; before that, where
    /// there is a process that translates all protocols, a ping.
    pub(crate) fn check(&self, pinged: Option<&Process>) -> Result<()> {
        if let Some(process) = pinged {
            self.ping(process).context("ping")?;
        }
        let target = SocketAddr::from((self.seen, self.page.address().port()));
        let answer = http_get(&self.client, target, "/", PATIENCE).context("HTTP GET of 1 MiB")?;
        ensure!(answer.status == 200, "HTTP GET of 1 MiB: status {}", answer.status);
        ensure!(answer.body == self.body, "HTTP GET of 1 MiB: the page arrived changed");
        let target = SocketAddr::from((self.seen, self.sink.address().port()));
        let length = PAGE as u64;
        let upload = bulk_transfer(&self.client, target, Direction::Upload, length, PATIENCE, |_| ());
        ensure!(upload.context("upload of 1 MiB")?.is_intact(), "upload of 1 MiB: the SHA-256 differ");
        Ok(())
    }

    fn ping(&self, process: &Process) -> Result<()> {
        let start = Instant::now();
        let options = PingOptions { timeout: FIRST_PING, ..PingOptions::default() };
        loop {
            let outcome = ping(&self.client, SERVER, &options);
            if let Ok(PingOutcome::Reply { payload, .. }) = &outcome {
                ensure!(*payload == options.payload, "the reply does not carry what the request did");
                return Ok(());
            }
            // The pause between two attempts, where the answer is an error that comes at once.
            if process.has_ended(Duration::from_millis(25)) {
                bail!("the translator ended: {}", process.output().last_line());
            }
            if start.elapsed() > PATIENCE {
                bail!("no reply within {} s; the last outcome was {outcome:?}", PATIENCE.as_secs());
            }
        }
    }
}

fn direct() -> Result<(Namespace, Namespace)> {
    let (client, server) = (Namespace::new("client")?, Namespace::new("server")?);
    veth(&client, "eth0", &server, "eth0", 1500)?;
    client.add_address("eth0", Ipv6Net::new_assert(Topology::CLIENT_V6, 64))?;
    server.add_address("eth0", NEIGHBOUR)?;
    Ok((client, server))
}

/// Gives the server an IPv6 address, to which the router forwards.
fn forward(topology: &Topology) -> Result<()> {
    for key in ["all", "default", "eth0"] {
        topology.server.sysctl(&format!("net.ipv6.conf.{key}.disable_ipv6"), "0")?;
    }
    topology.router.add_address("server", PLAIN_ROUTER)?;
    topology.server.add_address("eth0", PLAIN_SERVER)?;
    Ok(topology.server.add_route(Ipv6Net::default(), Some(PLAIN_ROUTER.addr().into()), "eth0")?)
}

/// Gives the client the addresses of the hosts that open connections, and the router a route to them.
fn hosts(topology: &Topology) -> Result<Vec<Ipv6Addr>> {
    let mut hosts = Vec::new();
    for number in 0..HOST_COUNT {
        let [a, b, c, ..] = HOSTS.addr().segments();
        let host = Ipv6Addr::new(a, b, c, number, 0, 0, 0, 1);
        topology.client().add_address("eth0", Ipv6Net::new_assert(host, 128))?;
        hosts.push(host);
    }
    topology.router.add_route(HOSTS, Some(Topology::CLIENT_V6.into()), "client0")?;
    Ok(hosts)
}

/// Bytes without a pattern that a broken segment could repeat: Marsaglia's xorshift64.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(length + 8);
    while noise.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_be_bytes());
    }
    noise.truncate(length);
    noise
}

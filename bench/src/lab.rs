//! Client, router and server in namespaces of their own, and the test that a translator must pass before it is measured.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use netlab::{
    Direction, Namespace, PingOptions, PingOutcome, Server, Topology, bulk_transfer, http_get, ping,
};

use crate::process::Process;

/// How long one step may take that takes milliseconds when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one ping may take while the translator starts.
const FIRST_PING: Duration = Duration::from_millis(250);
/// The length of the page, in bytes.
const PAGE: usize = 1 << 20;
/// `Topology::SERVER_V4` as the client addresses it.
pub(crate) const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x6402);

/// The namespaces, and what listens in the server's.
#[derive(Debug)]
pub(crate) struct Lab {
    topology: Topology,
    page: Server,
    sink: Server,
    body: Vec<u8>,
}

impl Lab {
    pub(crate) fn new() -> Result<Self> {
        let topology = Topology::new()?;
        let body = noise(PAGE);
        let page = Server::http(&topology.server, (Topology::SERVER_V4, 80), body.clone())?;
        let sink = Server::bulk(&topology.server, (Topology::SERVER_V4, 9000))?;
        Ok(Self { topology, page, sink, body })
    }

    pub(crate) fn client(&self) -> &Namespace {
        self.topology.client()
    }

    pub(crate) fn router(&self) -> &Namespace {
        &self.topology.router
    }

    pub(crate) fn server(&self) -> &Namespace {
        &self.topology.server
    }

    /// A ping, a page of 1 MiB that must arrive as it is, and an upload of as much whose SHA-256 must agree.
    pub(crate) fn check(&self, process: &Process) -> Result<()> {
        self.ping(process).context("ping")?;
        let target = SocketAddr::from((SERVER, self.page.address().port()));
        let answer = http_get(self.client(), target, "/", PATIENCE).context("HTTP GET of 1 MiB")?;
        ensure!(answer.status == 200, "HTTP GET of 1 MiB: status {}", answer.status);
        ensure!(answer.body == self.body, "HTTP GET of 1 MiB: the page arrived changed");
        let target = SocketAddr::from((SERVER, self.sink.address().port()));
        let length = PAGE as u64;
        let upload = bulk_transfer(self.client(), target, Direction::Upload, length, PATIENCE, |_| ());
        ensure!(upload.context("upload of 1 MiB")?.is_intact(), "upload of 1 MiB: the SHA-256 differ");
        Ok(())
    }

    fn ping(&self, process: &Process) -> Result<()> {
        let start = Instant::now();
        let options = PingOptions { timeout: FIRST_PING, ..PingOptions::default() };
        loop {
            let outcome = ping(self.client(), SERVER, &options);
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

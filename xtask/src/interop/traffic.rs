//! Whether the router in a laboratory does its work, whichever way it was started.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use netlab::{PingOptions, Server, Topology, http_get, ping};

use super::wait_until;

/// Where the router serves its metrics, inside its namespace.
pub(super) const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

const PAGE: &str = "an IPv4-only page";

/// The server's address as the client sees it: `64:ff9b:1::198.51.100.2`.
fn translated() -> Ipv6Addr {
    let [a, b, c, d] = Topology::SERVER_V4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low)
}

/// Waits until the router says that it is ready. `alive` tells whether there is still something to wait for.
pub(super) fn wait_for_ready(lab: &Topology, mut alive: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut last = "no answer yet".to_owned();
    let ready = wait_until(|| {
        match http_get(&lab.router, METRICS, "/readyz", Duration::from_secs(2)) {
            Ok(response) if response.status == 200 => return Ok(true),
            Ok(response) => last = format!("{}: {}", response.status, response.text()),
            Err(error) => last = error.to_string(),
        }
        ensure!(alive()?, "the router ended before it was ready");
        Ok(false)
    })?;
    ensure!(ready, "the router is not ready: /readyz: {last}");
    Ok(())
}

/// One ping and one page from the IPv6-only client to the IPv4-only server.
pub(super) fn exercise(lab: &Topology) -> Result<()> {
    let outcome = ping(lab.client(), translated(), &PingOptions::default())?;
    ensure!(outcome.is_reply(), "ping {}: {outcome:?}", translated());

    let _server = Server::http(&lab.server, (Topology::SERVER_V4, 80), PAGE)?;
    let page = http_get(lab.client(), (translated(), 80).into(), "/", Duration::from_secs(20))?;
    if page.status != 200 || page.text() != PAGE {
        bail!("http://[{}]/: {}: {}", translated(), page.status, page.text());
    }

    let health = http_get(&lab.router, METRICS, "/healthz", Duration::from_secs(5))?;
    ensure!(health.status == 200, "/healthz: {}: {}", health.status, health.text());
    Ok(())
}

/// After its end the router must have left nothing behind.
pub(super) fn nothing_left(lab: &Topology) -> Result<()> {
    let devices = lab.router.try_run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    ensure!(!devices.contains("nat64"), "the router has left its interface behind:\n{devices}");
    Ok(())
}

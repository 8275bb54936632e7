//! Prints the links, addresses and routes of this host, and which route is whose. Only reads.

use std::error::Error;
use std::io::Write as _;

use rtnl::{Handle, RouteOwner};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let snapshot = Handle::open()?.snapshot().await?;
    let mut out = std::io::stdout().lock();
    for link in &snapshot.links {
        let state = if link.up { "up" } else { "down" };
        writeln!(out, "{}: {} ({}), {state}, MTU {}", link.index, link.name, link.kind, link.mtu)?;
        for address in snapshot.addresses.iter().filter(|address| address.link == link.index) {
            writeln!(out, "    {}", address.net)?;
        }
    }
    for route in &snapshot.routes {
        let via = route.gateway().map_or_else(String::new, |gateway| format!(" via {gateway}"));
        writeln!(out, "{}{via} {}", route.destination, RouteOwner::of(route, &snapshot))?;
    }
    Ok(())
}

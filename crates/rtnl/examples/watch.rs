//! Follows the changes of links, addresses and routes until it is interrupted. Only reads.

use std::error::Error;
use std::io::Write as _;

use rtnl::{Event, Handle, Watcher};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut watcher = Watcher::open()?;
    let handle = Handle::open()?;
    let mut out = std::io::stdout().lock();
    while let Some(event) = watcher.next().await {
        let snapshot = handle.snapshot().await?;
        match event {
            Event::Overrun => writeln!(out, "events were lost; compare everything")?,
            Event::Link { index } => writeln!(out, "link {}", snapshot.link_name(index))?,
            Event::Address { link } => writeln!(out, "an address of {}", snapshot.link_name(link))?,
            Event::Route { link: Some(link) } => writeln!(out, "a route by {}", snapshot.link_name(link))?,
            Event::Route { link: None } => writeln!(out, "a route that drops")?,
        }
    }
    Err("the socket failed".into())
}

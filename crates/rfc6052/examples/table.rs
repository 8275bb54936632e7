//! Prints an IPv4 address under each length of prefix: `cargo run -p rfc6052 --example table -- 192.0.2.33`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::Ipv4Addr;

use rfc6052::Prefix;

fn main() -> Result<(), Box<dyn Error>> {
    let address: Ipv4Addr = std::env::args().nth(1).as_deref().unwrap_or("192.0.2.33").parse()?;
    for length in [32, 40, 48, 56, 64, 96] {
        let prefix = Prefix::new("2001:db8::".parse()?, length)?;
        println!("{prefix:<18} {}", prefix.embed(address));
    }
    Ok(())
}

//! Makes a TUN device and prints what the kernel sends to it: `cargo run -p easy-tun --example show -- tun0`
//!
//! As root. Then `ip link set tun0 up; ip route add 192.0.2.0/24 dev tun0; ping 192.0.2.1` in another terminal.
#![allow(clippy::print_stdout)]

use std::error::Error;

use easy_tun::{DeviceBuilder, PacketIo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "tun0".to_owned());
    let device = DeviceBuilder::new(name).build()?;
    println!(
        "{} (interface {}) is there; packets to it are shown until Ctrl-C",
        device.name(),
        device.index()
    );
    let queue = device.queues()[0].open()?;
    let mut buffer = vec![0; 65_536];
    loop {
        let length = queue.read(&mut buffer).await?;
        let version = buffer[0] >> 4;
        println!("IPv{version}, {length} bytes");
    }
}

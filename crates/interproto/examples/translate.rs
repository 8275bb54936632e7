//! Translates an echo request to IPv4, and an error about it back to IPv6: `cargo run -p interproto --example translate`
#![allow(clippy::print_stdout)]

use std::error::Error;

use interproto::{EmbeddedRewrite, HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Rewrite, Verdict};

/// From `2001:db8::1` to `64:ff9b:1::198.51.100.2`, with the identifier 7 and the sequence number 1.
const ECHO_REQUEST: [u8; 48] = [
    0x60, 0, 0, 0, 0, 8, 58, 64, // IPv6, 8 bytes of ICMPv6, 64 hops
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
    0x00, 0x64, 0xff, 0x9b, 0, 1, 0, 0, 0, 0, 0, 0, 198, 51, 100, 2, // destination
    128, 0, 0x27, 0xc4, 0, 7, 0, 1, // echo request
];

/// From the router 192.0.2.1 to 203.0.113.5: time exceeded, about the echo request that the translator has sent.
const TIME_EXCEEDED: [u8; 56] = [
    0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0x7c, 0xbe, 192, 0, 2, 1, 203, 0, 113, 5, // IPv4
    11, 0, 0xf4, 0xff, 0, 0, 0, 0, // time exceeded
    0x45, 0, 0, 28, 0x12, 0x67, 0, 0, 1, 1, 0x41, 0x3f, 203, 0, 113, 5, 198, 51, 100,
    2, // IPv4, 1 hop left
    8, 0, 0xf7, 0xf7, 0, 7, 0, 1, // echo request
];

fn main() -> Result<(), Box<dyn Error>> {
    // The packet lies behind free bytes, in a buffer that is used again and again.
    let mut buffer = [0; HEADROOM + 1500];
    let range = place(&mut buffer, &ECHO_REQUEST);
    let mut packet = Ipv6Packet::check(&mut buffer, range)?;
    println!("from IPv6: {:?}", packet.tuple());
    let rewrite = Rewrite {
        source: "203.0.113.5".parse()?,
        destination: "198.51.100.2".parse()?,
        ports: PortRewrite::Keep,
        embedded: None,
    };
    print(packet.translate(&rewrite, |_| 0x1267, &Params::default()));

    let range = place(&mut buffer, &TIME_EXCEEDED);
    let mut packet = Ipv4Packet::check(&mut buffer, range)?;
    println!("from IPv4: {:?}\n    about: {:?}", packet.tuple(), packet.embedded());
    let host = "2001:db8::1".parse()?;
    let rewrite = Rewrite {
        source: "64:ff9b:1::192.0.2.1".parse()?,
        destination: host,
        ports: PortRewrite::Keep,
        embedded: Some(EmbeddedRewrite {
            source: host,
            destination: "64:ff9b:1::198.51.100.2".parse()?,
            ports: PortRewrite::Keep,
        }),
    };
    print(packet.translate(&rewrite, &Params::default()));
    Ok(())
}

fn place(buffer: &mut [u8], packet: &[u8]) -> std::ops::Range<usize> {
    let range = HEADROOM..HEADROOM + packet.len();
    buffer[range.clone()].copy_from_slice(packet);
    range
}

fn print(verdict: Verdict<'_>) {
    match verdict {
        Verdict::Forward(mut packets) => {
            while let Some(packet) = packets.next() {
                println!("{} bytes:", packet.len());
                for line in packet.chunks(16) {
                    println!("    {line:02x?}");
                }
            }
        }
        Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => {
            println!("dropped: {reason}");
        }
    }
}
